import pytest

from firmware.allocator import Allocator
from firmware.forward_flow import ForwardFlow
from firmware.model import Shape
from firmware.program import Program
from firmware.schedule import Assembly, PartialSums, Statistics
from firmware.tensor import Activations
from rtl.config import PRESETS

TINY = PRESETS["tiny"]
HEIGHT = 6


@pytest.fixture
def memory():
    return Allocator(TINY.memory_bytes, TINY.beat_bytes)


@pytest.fixture
def tensors(memory):
    return [Activations(TINY, memory, 16, Shape(HEIGHT, 4, 20)) for _ in range(2)]


def lines(log, tensor, cycles=100):
    """Write a tensor, two pieces a line."""
    for block in range(tensor.batch_blocks):
        for line in range(HEIGHT):
            for half in range(2):
                log.append(f"line {line}.{half}")
                yield cycles, (block, line + 1) if half else None


def products(log, flow, tensor, count=HEIGHT, cycles=300):
    """Take a line after the other."""
    for line in range(count):
        flow.reach(tensor, 0, line + 1)
        log.append(f"product {line}")
        yield cycles


def test_lines_are_made_when_they_are_asked_for(tensors):
    log, flow, (x, y) = [], ForwardFlow(), tensors
    flow.put(x, lines(log, x))
    flow.reach(y, 0, 4)
    assert not log
    flow.reach(x, 0, 2)
    flow.reach(x, 0, 1)
    assert log == ["line 0.0", "line 0.1", "line 1.0", "line 1.1"]
    flow.finish()
    assert log[-1] == f"line {HEIGHT - 1}.1" and len(log) == 2 * HEIGHT


def test_the_vector_unit_works_beside_the_array(tensors):
    """It's ahead as far as there is time for: three pieces while there is a product."""
    log, flow, (x, y) = [], ForwardFlow(), tensors
    flow.put(x, lines(log, x))
    flow.beside(products(log, flow, x), x, y)
    assert log[:6] == ["line 0.0", "line 0.1", "product 0", "line 1.0", "line 1.1", "line 2.0"]
    assert len(log) == 3 * HEIGHT and log[-1] == f"product {HEIGHT - 1}"


def test_the_output_is_summed_up_meanwhile(memory, tensors):
    flow, (x, y) = ForwardFlow(), tensors
    program = Program(TINY)
    statistics = Statistics(Assembly(program), y, PartialSums(TINY, memory, y))
    flow.gather(y, statistics)

    def convolution():
        for line in range(HEIGHT):
            for word in range(y.words):
                flow.written(y, y.tiles(word, 0, range(line, line + 1)), word)
            yield 10_000

    flow.beside(convolution(), x, y)
    assert flow.gathered(y) is statistics and flow.gathered(x) is None
    before = program.listing().count("reduce=SUM")
    statistics.finish()
    # Parts of sixteen tiles, four lines: the last is finished when all lines have been written.
    assert 0 < before < program.listing().count("reduce=SUM") == 2 * y.words


@pytest.mark.parametrize("backwards", [False, True])
def test_sums_follow_memory_whatever_order_tiles_come_in(memory, tensors, backwards):
    listings = []
    for order in (range(HEIGHT), range(HEIGHT)[::-1] if backwards else range(HEIGHT)):
        program = Program(TINY)
        y = tensors[0]
        statistics = Statistics(Assembly(program), y, PartialSums(TINY, memory, y))
        for line in order:
            for word in range(y.words):
                statistics.add(y.tiles(word, 0, range(line, line + 1)), word)
        statistics.finish()
        loads = (line for line in program.listing().splitlines() if "STREAM" in line)
        listings.append(sorted(line[5:].split(" wait")[0] for line in loads))
    assert listings[0] == listings[1]
