"""In which order a forward pass puts the pieces of its layers."""

import pytest

from firmware.allocator import Allocator
from firmware.forward_flow import ForwardFlow
from firmware.model import Shape
from firmware.program import Program
from firmware.schedule import Assembly, Needs, PartialSums, Statistics, Written
from firmware.tensor import Activations
from rtl.config import PRESETS
from rtl.control.commands import Stage

TINY = PRESETS["tiny"]
HEIGHT = 6
LONG = 10_000
"""Cycles in which whatever was written before is there."""


@pytest.fixture
def memory():
    return Allocator(TINY.memory_bytes, TINY.beat_bytes)


@pytest.fixture
def tensors(memory):
    return [Activations(TINY, memory, 16, Shape(HEIGHT, 4, 20)) for _ in range(4)]


@pytest.fixture
def flow():
    return ForwardFlow(Program(TINY))


def vectors(log, name, x, y, cycles=100):
    """Write `y` in two pieces a line, each line as soon as that of `x` is there."""
    for line in range(HEIGHT):
        if x is not None:
            yield Needs(x, 0, line + 1)
        for half in range(2):
            log.append(f"{name} {line}.{half}")
            yield cycles
        yield Written(y, y.line_tiles(0, range(line, line + 1)))


def products(log, name, x, y, cycles=300):
    """Write `y`, a product a line; interrupted, it ends what it has begun."""
    for line in range(HEIGHT):
        if x is not None:
            yield Needs(x, 0, line + 1)
        log.append(f"{name} {line}")
        interrupted = yield cycles
        yield Written(y, y.line_tiles(0, range(line, line + 1)))
        if interrupted:
            log.append(f"{name} settles")
            assert not (yield 0)


def test_lines_are_made_when_they_are_asked_for(flow, tensors):
    """The array waits for the first line only; the next ones are made beside it."""
    log, (x, y, *_) = [], tensors
    flow.add_vectors(x, vectors(log, "x", None, x))
    flow.add_products(y, products(log, "y", x, y))
    flow.run()
    assert log[:6] == ["x 0.0", "x 0.1", "y 0", "x 1.0", "x 1.1", "x 2.0"]
    assert len(log) == 3 * HEIGHT and log[-1] == f"y {HEIGHT - 1}"


def test_what_nobody_waits_for_is_made_at_last(flow, tensors):
    log, (x, y, z, _) = [], tensors
    flow.add_vectors(y, vectors(log, "y", x, y))
    flow.add_vectors(z, vectors(log, "z", y, z))
    flow.run()
    assert len(log) == 4 * HEIGHT
    for line in range(HEIGHT):
        assert log.index(f"y {line}.1") < log.index(f"z {line}.0")


def test_the_vector_unit_follows_the_array(flow, tensors):
    """It works beside the layer whose output it takes, a while behind, and then beside the next."""
    log, (x, y, z, _) = [], tensors
    flow.add_products(x, products(log, "x", None, x, cycles=3000))
    flow.add_vectors(y, vectors(log, "y", x, y, cycles=2000))
    flow.add_products(z, products(log, "z", y, z, cycles=3000))
    flow.run()
    assert log.index("y 0.0") == log.index("x 2") + 1
    assert log.index("x 5") < log.index("z 0") < log.index("y 5.0") < log.index("z 5")
    for line in range(HEIGHT):
        assert log.index(f"y {line}.1") < log.index(f"z {line}")


def loading(steps, assembly, x, beats):
    """Load so many beats of `x` with each product."""
    for step in steps:
        if isinstance(step, int) and beats:
            assembly.program.vector(Stage.FF, assembly.feeds([x.address], beats))
        yield step


def test_operands_of_the_array_come_before_streams(tensors):
    """There's as much less for the vector unit to do as the array loads."""
    counts = []
    for loads in (0, 150):
        log, (x, y, *_) = [], tensors
        assembly = Assembly(Program(TINY))
        flow = ForwardFlow(assembly.program)
        flow.add_vectors(x, vectors(log, "x", None, x))
        flow.add_products(y, loading(products(log, "y", x, y), assembly, x, loads))
        flow.run()
        counts.append(log[: log.index("y 2")].count("x 3.0"))
    assert counts == [1, 0]


def test_early_products_interrupt_the_layer_before(flow, tensors):
    """But only while the vector unit has nothing else to do."""
    log, (x, y, z, w) = [], tensors
    flow.add_products(x, products(log, "x", None, x, cycles=LONG))
    flow.add_products(y, products(log, "y", x, y), early=True)
    flow.add_vectors(z, vectors(log, "z", y, z, cycles=LONG))
    flow.add_products(w, products(log, "w", z, w))
    flow.run()
    first = log.index("x settles")
    # What has been written just now isn't there yet.
    assert log[first - 1] == "x 1" and log[first + 1 : first + 4] == ["y 0", "x 2", "z 0.0"]
    assert 1 < log.count("x settles") < HEIGHT - 1
    assert len(log) - log.count("x settles") == 5 * HEIGHT


def test_what_is_needed_early_is_not_waited_for(flow, tensors):
    log, (x, y, *_) = [], tensors

    def convolution():
        log.append((yield Needs(x, 0, 1, early=True)))
        yield Needs(x, 0, 1)
        log.append("there")
        yield LONG
        log.append((yield Needs(x, 0, 1, early=True)))
        yield Written(y, y.all_tiles())

    flow.add_vectors(x, vectors(log, "x", None, x, cycles=LONG))
    flow.add_products(y, convolution())
    flow.run()
    assert log[:4] == [False, "x 0.0", "x 0.1", "there"]
    assert [entry for entry in log[4:] if entry is True] == [True]


def test_the_output_is_summed_up_meanwhile(memory, tensors):
    program, y = Program(TINY), tensors[0]
    flow = ForwardFlow(program)
    before = []

    def convolution():
        for line in range(HEIGHT):
            for word in range(y.words):
                yield Written(y, y.tiles(word, 0, range(line, line + 1)))
            yield LONG
        before.append(program.listing().count("reduce=SUM"))

    flow.add_products(y, convolution())
    statistics = Statistics(Assembly(program), y, PartialSums(TINY, memory, y))
    assert flow.sums(y, statistics) is statistics
    others = Statistics(Assembly(program), y, PartialSums(TINY, memory, y))
    assert flow.sums(y, others) is statistics
    flow.run()
    statistics.finish()
    # Parts of sixteen tiles, four lines: the last is finished when all lines have been written.
    assert 0 < before[0] < program.listing().count("reduce=SUM") == 2 * y.words


def test_what_is_there_already_is_summed_up_at_once(memory, tensors):
    program, (x, *_) = Program(TINY), tensors
    flow = ForwardFlow(program)
    flow.sums(x, Statistics(Assembly(program), x, PartialSums(TINY, memory, x))).finish()
    assert program.listing().count("reduce=SUM") == 2 * x.words


@pytest.mark.parametrize("backwards", [False, True])
def test_sums_follow_memory_whatever_order_tiles_come_in(memory, tensors, backwards):
    listings = []
    for order in (range(HEIGHT), range(HEIGHT)[::-1] if backwards else range(HEIGHT)):
        program = Program(TINY)
        y = tensors[0]
        statistics = Statistics(Assembly(program), y, PartialSums(TINY, memory, y))
        for line in order:
            for word in range(y.words):
                statistics.add(y.tiles(word, 0, range(line, line + 1)))
        statistics.finish()
        loads = (line for line in program.listing().splitlines() if "STREAM" in line)
        listings.append(sorted(line[5:].split(" wait")[0] for line in loads))
    assert listings[0] == listings[1]
