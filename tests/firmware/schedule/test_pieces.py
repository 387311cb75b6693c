import itertools

import pytest

from firmware.allocator import Allocator
from firmware.model import Shape
from firmware.schedule import Backlog
from firmware.schedule.pieces import line_pieces
from firmware.tensor import Activations
from rtl.config import PRESETS

TINY = PRESETS["tiny"]


def gradients(log, name, groups, cycles=1000):
    """Weight gradients of `groups` groups of four products each."""
    interrupted = False
    for group in range(groups):
        for number in range(4):
            log.append(f"{name} {group}.{number}")
            interrupted |= bool((yield cycles))
        if interrupted:
            log.append(f"{name} settles")
            yield 0
            interrupted = False


def vectors(log, name, count, cycles=1000):
    for number in range(count):
        log.append(f"{name} {number}")
        yield cycles


def test_what_is_put_off_is_done_at_last():
    log = []
    backlog = Backlog(8000, 0)
    for name in ("a", "b"):
        backlog.add(gradients(log, name, 1))
    assert not log
    backlog.finish()
    assert log == [f"{name} 0.{number}" for name in ("a", "b") for number in range(4)]


def test_the_array_works_beside_the_vector_unit():
    """Before each piece of it there are products, and not all of them before the first."""
    log = []
    backlog = Backlog(400_000, 100_000)
    backlog.add(gradients(log, "a", 100))
    backlog.beside(vectors(log, "v", 50))
    places = [log.index(f"v {number}") for number in range(50)]
    assert places[0] > 0
    between = [later - earlier - 1 for earlier, later in itertools.pairwise(places)]
    assert all(1 <= count <= 3 for count in between)


def test_what_others_wait_for_finds_the_scratchpads_free():
    log = []
    backlog = Backlog(400_000, 100_000)
    backlog.add(gradients(log, "a", 100))
    backlog.beside(vectors(log, "v", 1))
    assert backlog.before(product(log)) == "phases"
    assert log[-2:] == ["a settles", "product"]
    *_, last = (entry for entry in log if entry.startswith("a") and entry != "a settles")
    assert last.endswith(".3")
    done = len(log)
    backlog.finish()
    group = int(last.split()[1].split(".")[0])
    assert log[done] == f"a {group + 1}.0" and log[-1] == "a 99.3"


def product(log):
    log.append("product")
    yield 1000
    return "phases"


@pytest.mark.parametrize(("height", "operands"), [(7, 1), (7, 2), (300, 1)])
def test_lines_are_cut_in_their_order(height, operands):
    memory = Allocator(1 << 30, TINY.beat_bytes)
    tensor = Activations(TINY, memory, 20, Shape(height, 3, 40))
    lines = [(b, line) for b, run in line_pieces(tensor, operands) for line in run]
    assert lines == [(b, line) for b in range(2) for line in range(height)]
