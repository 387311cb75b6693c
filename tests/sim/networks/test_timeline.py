"""A program's cycles and bytes are divided among its parts without a rest."""

import numpy as np
import pytest

from firmware.cards.cycles import CycleCard
from firmware.driver import Driver
from rtl.config import PRESETS
from rtl.control.commands import Opcode, Queue
from sim.cycles.model import measure
from sim.networks.timeline import HOLDERS, attribute
from sim.verilated.model import MemoryTiming
from tests.harness import default_seed
from tests.sim.cycles.programs import random_program

TINY = PRESETS["tiny"]
TIMING = MemoryTiming(latency=20, bandwidth=0.8)


def _program(seed):
    """Return a random program of several parts, and what it does."""
    program = random_program(TINY, np.random.default_rng([default_seed(), seed]), 60)
    for index, command in enumerate(program._commands):
        command.label = f"part {index // 13}"
    return program, measure(TINY, TIMING, program.encode())


@pytest.mark.parametrize("seed", range(3))
def test_every_cycle_has_an_owner(seed):
    """As a loop over all cycles says, which looks for what is under way in each."""
    program, run = _program(seed)
    expected = {}
    latest = None
    order = (Queue.COMPUTE, Queue.STORE, Queue.VECTOR, Queue.LOAD, Queue.STREAM)
    names = {Opcode.COMPUTE: "array", Opcode.VECTOR: "vector"}
    for cycle in range(run.cycles):
        holder = "idle"
        for queue in order:
            active = [
                index
                for index, own in enumerate(program.queues)
                if own is queue and run.issued[index] <= cycle < run.ended[index]
            ]
            if active:
                latest = active[0]
                opcode = program.opcodes[latest]
                holder = names.get(opcode, opcode.name.lower())
                break
        key = latest, holder
        expected[key] = expected.get(key, 0) + 1
    divided = {}
    for (index, holder), cycles in expected.items():
        # Before the first command, cycles belong to the first one.
        index = next(i for (i, _) in expected if i is not None) if index is None else index
        key = program.labels[index], program.stages[index], holder
        divided[key] = divided.get(key, 0) + cycles
    shares = attribute(program, run)
    found = {
        (share.label, share.stage, holder): cycles
        for share in shares
        for holder, cycles in share.held.items()
    }
    assert found == divided, f"SAT_SEED={default_seed()}"
    assert sum(share.cycles for share in shares) == run.cycles
    holders = {holder for _, _, holder in found}
    assert "array" in holders and len(holders) > 2 and holders <= set(HOLDERS)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_are_those_that_the_card_counts(seed):
    program, run = _program(seed)
    shares = attribute(program, run)
    read, written = (run.counters[f"{way}_BEATS"] * TINY.beat_bytes for way in ("READ", "WRITE"))
    assert sum(share.read_bytes for share in shares) == read > 0
    assert sum(share.written_bytes for share in shares) == written > 0
    assert sum(share.commands for share in shares) == len(program) - 1


def test_shares_begin_and_end_with_their_commands():
    program, run = _program(0)
    for share in attribute(program, run):
        own = [
            index
            for index, label in enumerate(program.labels)
            if label == share.label and program.stages[index] is share.stage
        ]
        assert share.start == run.issued[own].min()
        assert share.end == run.ended[own].max()


def test_the_card_remembers_when_commands_ran():
    program, run = _program(1)
    with CycleCard(TINY, timing=TIMING) as card:
        assert card.measurement is None
        result = Driver(card).run(program)
        assert card.measurement is not None
        assert card.measurement.cycles == result.cycles
        assert len(card.measurement.issued) == len(run.issued)
