"""In which order a backward pass puts the pieces of its layers."""

import pytest

from firmware.allocator import Allocator
from firmware.backward_flow import BackwardFlow
from firmware.model import Shape
from firmware.program import Program
from firmware.schedule import Backlog, Needs, Written
from firmware.tensor import Activations
from rtl.config import PRESETS

TINY = PRESETS["tiny"]
HEIGHT = 6


@pytest.fixture
def tensors():
    memory = Allocator(TINY.memory_bytes, TINY.beat_bytes)
    return [Activations(TINY, memory, 16, Shape(HEIGHT, 4, 20)) for _ in range(3)]


@pytest.fixture
def flow():
    return BackwardFlow(Program(TINY), Backlog(400_000, 100_000))


def lines(log, y):
    for line in range(HEIGHT):
        log.append(f"line {line}")
        yield 100
        yield Written(y, y.line_tiles(0, range(line, line + 1)))


def convolution(log, y, dx):
    for line in range(HEIGHT):
        yield Needs(y, 0, line + 1)
        log.append(f"product {line}")
        yield 100
        yield Written(dx, dx.line_tiles(0, range(line, line + 1)))
    return ["phase"]


def pieces(log, name):
    log.append(name)
    yield 100


LINES = [f"line {line}" for line in range(HEIGHT)]
PRODUCTS = [f"product {line}" for line in range(HEIGHT)]


def test_without_weight_gradients_products_begin_with_the_first_lines(flow, tensors):
    log, (y, dx, _) = [], tensors
    flow.add_lines(y, lines(log, y))
    assert not log
    assert flow.add_convolution(dx, convolution(log, y, dx)) == ["phase"]
    assert sorted(log) == sorted([*LINES, *PRODUCTS])
    assert log.index("product 0") == 1 and log[-1] == "product 5"


def test_with_weight_gradients_all_lines_come_at_once(flow, tensors):
    log, (y, dx, _) = [], tensors
    flow.put_off(pieces(log, "gradients"))
    flow.add_lines(y, lines(log, y))
    assert flow.add_convolution(dx, convolution(log, y, dx)) == ["phase"]
    assert log == ["gradients", *LINES, *PRODUCTS]


@pytest.mark.parametrize("other", ["put_off", "add_vectors", "add_products"])
def test_what_may_read_anything_comes_behind_all_lines(flow, tensors, other):
    log, (y, z, _) = [], tensors
    flow.add_lines(y, lines(log, y))
    flow.add_lines(z, lines(log, z))
    getattr(flow, other)(pieces(log, "other"))
    flow.finish()
    assert log == [*LINES, *LINES, "other"]


def test_lines_that_nothing_takes_come_at_last(flow, tensors):
    log = []
    flow.add_lines(tensors[0], lines(log, tensors[0]))
    flow.finish()
    assert log == LINES
