"""Errors that only gateware with a memory of its own can meet, and the recovery from each."""

import dataclasses

import numpy as np
import pytest
import pywellen

from firmware.cards.verilated import Direction, MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.errors import CardError, CardFault, CardTimeout
from firmware.program import Program, descriptor, matrix_walks
from rtl.config import PRESETS
from rtl.control.commands import LoadTarget, Stage
from rtl.sparsity.pattern import Pattern
from sim.golden.arithmetic import dot, to_half
from tests.harness import default_seed

TINY = PRESETS["tiny"]
STRIPED = dataclasses.replace(TINY, name="striped", channels=2, outstanding_reads=32)
"""The same over two channels, where S and OUTPUT are in one and D is in the other."""
G = TINY.elements
S, D, OUTPUT = 0x8000, 0x9000, 0xA000
TIMEOUT = 200_000


@pytest.fixture(scope="module", params=[TINY, STRIPED], ids=lambda config: config.name)
def card(request):
    with VerilatedCard(request.param) as card:
        yield card


@pytest.fixture
def driver(card):
    card.model.set_timing(MemoryTiming())
    card.model.clear_errors()
    return Driver(card)


def product(config):
    """One tile of each operand, their product to memory: four commands, FINISH apart."""
    program = Program(config, "product")
    tile = {"rows": G, "d_words": 1}
    program.load(
        LoadTarget.S, Stage.FF, pattern=Pattern.DENSE, descriptor=descriptor(TINY, S, G), **tile
    )
    program.load(LoadTarget.D, Stage.FF, descriptor=descriptor(TINY, D, G), **tile)
    program.compute(
        Stage.FF, pattern=Pattern.DENSE, d_words=1, o_stride=2, a_tiles=G // TINY.rows,
        b_tiles=-(-G // (TINY.cols * TINY.interleave)), **matrix_walks(-(-G // TINY.cols), 1),
    )  # fmt: skip
    program.store(
        Stage.FF, o_stride=2, rows=G, words=2, convert=1, descriptor=descriptor(TINY, OUTPUT, G)
    )
    return program


def works(driver):
    """A product gives the right result."""
    random = np.random.default_rng(default_seed())
    s, d = random.standard_normal((2, G, G)).astype(np.float16).view(np.uint16)
    driver.card.write_memory(S, s.reshape(-1).view(np.uint8))
    driver.card.write_memory(D, d.reshape(-1).view(np.uint8))
    result = driver.run(product(driver.config), TIMEOUT)
    output = driver.card.read_memory(OUTPUT, G * G * 2).view(np.uint16).reshape(G, G)
    np.testing.assert_array_equal(output, to_half(dot(s, d)))
    return result


@pytest.mark.parametrize(
    ("address", "direction", "code", "command"),
    [
        (S + 5 * TINY.beat_bytes, Direction.READ, "READ_RESPONSE", 0),
        (D + 15 * TINY.beat_bytes, Direction.READ, "READ_RESPONSE", 1),
        (OUTPUT + 3 * TINY.beat_bytes, Direction.WRITE, "WRITE_RESPONSE", 3),
    ],
)
@pytest.mark.parametrize("response", [2, 3], ids=["SLVERR", "DECERR"])
def test_axi_errors_name_the_command(driver, address, direction, code, command, response):
    driver.card.model.inject_error(address, TINY.beat_bytes, direction, response)
    with pytest.raises(CardFault) as caught:
        driver.run(product(driver.config), TIMEOUT)
    fault = caught.value
    assert (fault.code, fault.index) == (code, command)
    # Bursts are reported by their first address.
    assert address - TINY.burst_beats * TINY.beat_bytes < fault.address <= address
    assert fault.counters["CYCLES"] > 0
    with pytest.raises(CardError, match="reset it"):
        driver.run(product(driver.config), TIMEOUT)
    driver.card.model.clear_errors()
    driver.reset()
    works(driver)


def test_error_in_the_program_fetch(driver):
    program = product(driver.config)
    program.address = driver.memory.allocate(program.nbytes)
    driver._resident[program.address] = b""
    driver.card.model.inject_error(program.address, 64, Direction.READ)
    with pytest.raises(CardFault) as caught:
        driver.run(program, TIMEOUT)
    assert caught.value.code == "READ_RESPONSE"
    driver.card.model.clear_errors()
    driver.reset()
    works(driver)


def test_memory_that_never_answers(driver):
    """The wait and the reset are bounded; once memory answers again, the card recovers."""
    driver.card.model.set_timing(MemoryTiming(silent=True))
    with pytest.raises(CardTimeout, match="didn't end within") as caught:
        driver.run(product(driver.config), TIMEOUT)
    assert caught.value.counters["CYCLES"] > 0
    driver.card.default_timeout = 20_000
    with pytest.raises(CardTimeout, match="didn't come out of reset"):
        driver.reset()
    driver.card.model.set_timing(MemoryTiming())
    driver.reset()
    works(driver)


def test_a_long_stall_is_survived(driver):
    """Ten thousand cycles without an answer delay a program, and change nothing else."""
    quick = works(driver)
    driver.card.model.set_timing(MemoryTiming(latency=10_000))
    slow = works(driver)
    assert slow.cycles > quick.cycles + 10_000


def test_memory_outside_the_card_is_refused(driver):
    with pytest.raises(CardError, match="outside the card's memory"):
        driver.card.read_memory(TINY.memory_bytes - 1, 2)
    with pytest.raises(CardError, match="outside the card's memory"):
        driver.card.write_memory(-1, np.zeros(1, np.uint8))


def test_waveform(tmp_path):
    """One argument records an FST waveform, until it's told to stop."""
    file = tmp_path / "waves" / "card.fst"
    with VerilatedCard(TINY, trace=file) as traced:
        works(Driver(traced))
        end = 2 * traced.model.cycles - 1
        traced.stop_trace()
        size = file.stat().st_size
        works(Driver(traced))
    assert file.stat().st_size == size
    signals = {variable.full_name: variable for variable in pywellen.Waveform(str(file)).all_vars()}
    assert {"TOP.ap_clk", "TOP.sat.m_axi_araddr"} <= signals.keys()
    interrupt = signals["TOP.sat.interrupt"].signal
    # The program's end raised it; a cycle is two steps of the waveform.
    assert (interrupt.value_at(0), interrupt.value_at(end)) == (0, 1)
