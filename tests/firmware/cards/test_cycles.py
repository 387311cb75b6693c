"""The cycle model as a card: programs and counters, no values and no room for any."""

import tracemalloc

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.cycles import CycleCard
from firmware.cards.verilated import MemoryTiming
from firmware.driver import Driver
from firmware.errors import CardError, CardTimeout
from firmware.network import Network
from firmware.program import Program, descriptor
from firmware.schedule import Step
from firmware.train import main
from rtl.config import PRESETS
from rtl.control.commands import LoadTarget, Stage
from sim.bench.slots import account
from sim.cycles.model import measure
from tests.firmware.test_same_bits import residual

TINY = PRESETS["tiny"]
STEP = Step(rate=0.05, momentum=0.9, decay=5e-4, scale=8)


def test_a_training_step_of_a_large_card():
    model, rng = residual(), np.random.default_rng(0)
    with open_card("cycles:vcu1525") as card:
        assert not card.computes
        network = Network(Driver(card), model, 16)
        network.initialise({layer.name: layer.initial_weights(rng) for layer in model.convolutions})
        _, forward = network.forward(rng.standard_normal((16, 5, 5, 1)), np.zeros(16, int))
        for result in (forward, network.backward(STEP)):
            assert result.cycles > 1000
            account("step", result.counters, card.config.macs)
        program = network.programs["forward"]
        alone = measure(
            card.config, MemoryTiming(), program.encode(), address=program.address,
            stage=Stage.UPDATE,
        )  # fmt: skip
        assert alone.counters == forward.counters


def test_memory_takes_no_room():
    with open_card("cycles:vcu1525") as card:
        ones = np.broadcast_to(np.uint8(1), 1 << 34)
        tracemalloc.start()
        card.write_memory(1 << 30, ones)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 16
        assert not card.read_memory(1 << 30, 1000).any()
        with pytest.raises(CardError, match="outside the card's memory"):
            card.write_memory(card.config.memory_bytes - 1, ones[:2])


def test_timing():
    cycles = []
    for latency in (1, 1000):
        program = Program(TINY)
        program.load(
            LoadTarget.D, Stage.FF, rows=64, d_words=1, descriptor=descriptor(TINY, 0x8000, 64)
        )
        card = CycleCard(TINY, timing=MemoryTiming(latency=latency))
        cycles.append(Driver(card).run(program).cycles)
    assert cycles[0] < 200 < 2000 < cycles[1]


def test_a_program_that_hangs_times_out():
    program = Program(TINY, "an UPDATE that starves")
    too_few = {"rows": 4, "d_words": 1, "descriptor": descriptor(TINY, 0x8000, 4)}
    program.update(Stage.UPDATE, [too_few], tiles=1, rows=2, o_stride=2, state_address=0x9000)
    driver = Driver(CycleCard(TINY))
    with pytest.raises(CardTimeout, match="an UPDATE that starves didn't end"):
        driver.run(program)
    driver.reset()
    assert driver.run(Program(TINY)).cycles > 0


def test_a_program_that_is_not_there():
    driver = Driver(CycleCard(TINY))
    program = Program(TINY)
    driver.run(program)
    program.address += 64
    driver._resident[program.address] = program.encode()
    with pytest.raises(CardError, match=r"the program at 0x\w+ can't be timed"):
        driver.run(program)


def test_nothing_can_be_learned_on_it(capsys):
    assert main(["--card", "cycles:tiny"])
    assert "computes no values" in capsys.readouterr().err


def test_no_waveform(tmp_path):
    with pytest.raises(CardError, match="has no signals to trace"):
        open_card("cycles:tiny", trace=tmp_path / "waves.fst")
