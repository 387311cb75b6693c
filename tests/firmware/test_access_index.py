"""The index of accesses gives what looking at all of them gives."""

import numpy as np
import pytest

from firmware.access_index import AccessIndex
from firmware.program import Program
from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.commands import Queue
from tests.harness import default_seed
from tests.sim.cycles.programs import random_program

QUEUES = len(Queue)


def _random_interval(rng, size):
    length = min(size, int(2 ** rng.uniform(0, np.log2(size))))
    start = int(rng.integers(size - length + 1))
    return start, start + length


def _outside(access, start, stop):
    """Return what is left of an access, its interval and whatever else, beside an interval."""
    first, end, *others = access
    parts = [(first, min(end, start)), (max(first, stop), end)]
    return [(*part, *others) for part in parts if part[0] < part[1]]


@pytest.mark.parametrize("size", [64, 1 << 16, 1 << 30])
def test_random_intervals(size):
    rng = np.random.default_rng([default_seed(), size])
    accesses, kept = AccessIndex(), []
    overlaps = forgotten = 0
    for index in range(600):
        start, stop = _random_interval(rng, size)
        found = [accesses.latest(start, stop, queue, -1) for queue in range(QUEUES)]
        expected = [-1] * QUEUES
        for first, end, queue, earlier in kept:
            if first < stop and start < end:
                expected[queue] = max(expected[queue], earlier)
        assert found == expected, (start, stop, f"SAT_SEED={default_seed()}")
        assert accesses.latest(start, stop, 0, index) == index
        overlaps += max(found) >= 0
        if rng.random() < 0.1:
            accesses.forget(start, stop)
            rest = [each for access in kept for each in _outside(access, start, stop)]
            forgotten += rest != kept
            kept = rest
        queue = int(rng.integers(QUEUES))
        accesses.add(start, stop, queue, index)
        kept.append((start, stop, queue, index))
    assert overlaps and forgotten


class _Plain(Program):
    """Looks at all accesses so far for every command."""

    def __init__(self, config, name="program"):
        super().__init__(config, name)
        self.all = []

    def _depend(self, command, index, reads, writes, *, reader=None):
        for region, is_write in [(r, False) for r in reads] + [(w, True) for w in writes]:
            for (space, start, stop), other, was_write in self.all:
                overlaps = space == region[0] and start < region[2] and region[1] < stop
                if overlaps and (is_write or was_write):
                    queue = self._commands[other].queue
                    if queue is not command.queue:
                        command.after[queue.value] = max(command.after[queue.value], other)
            if is_write:
                space, start, stop = region
                self.all = [
                    ((other[0], *left), *others)
                    for other, *others in self.all
                    for left in (
                        [other[1:]] if other[0] != space else _outside(other[1:], start, stop)
                    )
                ]
            self.all.append((region, index, is_write))


def test_tokens_of_random_programs(monkeypatch):
    """Every command waits for and signals the same queues."""
    for round_ in range(6):
        seed = [default_seed(), round_]
        program = random_program(PRESETS["tiny"], np.random.default_rng(seed), 150)
        with monkeypatch.context() as patch:
            patch.setattr("tests.sim.cycles.programs.Program", _Plain)
            plain = random_program(PRESETS["tiny"], np.random.default_rng(seed), 150)
        assert type(plain) is _Plain and len(plain) == len(program)
        assert plain.encode() == program.encode(), f"SAT_SEED={default_seed()}"
        tokens = [each.wait for each in program._commands]
        assert any(tokens) and len(program.encode()) == len(program) * COMMAND_BYTES
