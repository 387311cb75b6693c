"""Transfers of images with zeros around them, transposed, and results with a tensor added.

The gateware gives what the golden model does, at every memory timing; errors, long stalls and
resets in the middle of a transfer are reported or survived, and the next program is right.
"""

import itertools

import numpy as np
import pytest

from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import Direction, MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.errors import CardFault, CardTimeout
from firmware.program import Program, descriptor, matrix_walks
from rtl.config import PRESETS
from rtl.control.commands import LoadOrder, LoadTarget, Stage
from rtl.sparsity.pattern import Pattern
from tests.harness import default_seed

TINY = PRESETS["tiny"]
G = TINY.elements
BEAT = TINY.beat_bytes
TIMEOUT = 200_000

WEIGHTS, IMAGES, ADDEND, GRADIENTS = range(0x8000, 0xC000, 0x1000)
INPUTS = range(WEIGHTS, GRADIENTS + 0x1000)
OUTPUT, PRODUCT = 0x10000, 0x12000
RESULTS = range(OUTPUT, PRODUCT + 0x2000)


@pytest.fixture(scope="module")
def card():
    with VerilatedCard(TINY) as card:
        yield card


@pytest.fixture
def driver(card):
    card.model.set_timing(MemoryTiming())
    card.model.clear_errors()
    # A reset that has to wait asks again after a hundredth of that.
    card.default_timeout = TIMEOUT
    driver = Driver(card)
    driver.reset()
    return driver


def framed(address, lines, beats, *, gap=0, **frame):
    """Return what a LOAD says of one image with zeros around it."""
    where = descriptor(TINY, address, beats, (lines, (beats + gap) * BEAT))
    return {"descriptor": where, "frame": {"images": 1, "lines": lines, "beats": beats} | frame}


def program():
    """Two products: of framed tiles, plus a framed tensor; and of framed tiles transposed.

    Command by command: 0 weights, 1 images, 2 what is added, 3 product, 4 STORE, 5 gradients and
    6 images transposed, 7 product, 8 STORE.
    """
    result = Program(TINY, "transfers")
    tiles = {"order": LoadOrder.TILES, "d_words": 1}
    result.load(
        LoadTarget.S, Stage.FF, pattern=Pattern.DENSE, rows=G, d_words=1,
        descriptor=descriptor(TINY, WEIGHTS, G),
    )  # fmt: skip
    # Two pixels, one below the other, in tiles of G images: a line above, a column to the right.
    result.load(
        LoadTarget.D, Stage.FF, rows=6 * G, **tiles,
        **framed(IMAGES, 2, G, gap=3, above=1, after=G),
    )  # fmt: skip
    result.load(
        LoadTarget.AUX, Stage.FF, rows=4 * G, d_words=1,
        **framed(ADDEND, 4, G - 4, before=1, after=3),
    )  # fmt: skip
    words = G // TINY.cols
    result.compute(
        Stage.FF, pattern=Pattern.DENSE, d_words=1, d_base=2 * words, o_stride=2,
        a_tiles=G // TINY.rows, b_tiles=4 * G // (TINY.cols * TINY.interleave),
        **matrix_walks(4 * words, 1),
    )  # fmt: skip
    result.store(
        Stage.FF, o_stride=2, rows=4 * G, words=2, convert=1, add=1, relu=1,
        descriptor=descriptor(TINY, OUTPUT, 4 * G),
    )  # fmt: skip
    result.load(
        LoadTarget.S, Stage.WU, pattern=Pattern.DENSE, rows=G, d_words=2, base=8, transpose=1,
        **framed(GRADIENTS, 2, G // 2, gap=1, before=G // 4, after=G // 4),
    )  # fmt: skip
    result.load(
        LoadTarget.D, Stage.WU, rows=G, d_words=2, order=LoadOrder.TILES, transpose=1,
        **framed(IMAGES, 1, G, above=1),
    )  # fmt: skip
    result.compute(
        Stage.WU, pattern=Pattern.DENSE, d_words=2, s_base=8, o_stride=2,
        a_tiles=G // TINY.rows, b_tiles=G // (TINY.cols * TINY.interleave),
        **matrix_walks(words, 2),
    )  # fmt: skip
    result.store(Stage.WU, o_stride=2, rows=G, words=2, descriptor=descriptor(TINY, PRODUCT, 2 * G))
    return result


def run(driver, commands, timeout=TIMEOUT):
    """Run a program and free its memory, however it ends."""
    try:
        return driver.run(commands, timeout)
    finally:
        driver.unload(commands)


def works(driver, seed=0):
    """The program leaves the same bytes on the card as on the golden model; return its run."""
    random = np.random.default_rng([default_seed(), seed])
    inputs = random.standard_normal(len(INPUTS) // 2).astype(np.float16).view(np.uint8)
    drivers = driver, Driver(GoldenCard(TINY))
    results = []
    for each in drivers:
        each.card.write_memory(INPUTS.start, inputs)
        each.card.write_memory(RESULTS.start, np.full(len(RESULTS), 0xA5, np.uint8))
        results.append(run(each, program()))
    memory, golden = (each.card.read_memory(RESULTS.start, len(RESULTS)) for each in drivers)
    np.testing.assert_array_equal(memory, golden, f"seed {default_seed()}")
    assert np.count_nonzero(golden != 0xA5) > 4 * G * BEAT
    for name in ("WRITE_BEATS", "NONFINITE", "MAC_SLOTS_FF", "MAC_SLOTS_WU"):
        assert results[0].counters[name] == results[1].counters[name], name
    return results[0]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("latency", [0, 50])
def test_same_bits_at_every_timing(driver, latency, stall):
    for seed in range(3):
        driver.card.model.set_timing(MemoryTiming(latency=latency, stall=stall, seed=seed))
        works(driver, seed)


# Beats in the middle of each transfer, one of its first or its last burst among them.
ERRORS = [
    (IMAGES, Direction.READ, 1),
    (IMAGES + (G - 1 + 3 + 2) * BEAT, Direction.READ, 1),
    (ADDEND + (G - 4) * BEAT, Direction.READ, 2),
    (ADDEND + (4 * (G - 4) - 1) * BEAT, Direction.READ, 2),
    (GRADIENTS + 2 * BEAT, Direction.READ, 5),
    (GRADIENTS + (G // 2 + 1 + 5) * BEAT, Direction.READ, 5),
    (OUTPUT, Direction.WRITE, 4),
    (OUTPUT + 29 * BEAT, Direction.WRITE, 4),
    (PRODUCT + (2 * G - 1) * BEAT, Direction.WRITE, 8),
]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize(("address", "direction", "command"), ERRORS)
def test_errors_in_the_middle_of_a_transfer(driver, address, direction, command, stall):
    driver.card.model.set_timing(MemoryTiming(stall=stall, seed=default_seed()))
    driver.card.model.inject_error(address, BEAT, direction)
    with pytest.raises(CardFault) as caught:
        run(driver, program())
    fault = caught.value
    assert (fault.code, fault.index) == (f"{direction.name}_RESPONSE", command)
    # Bursts are reported by their first address.
    assert address - TINY.burst_beats * BEAT < fault.address <= address
    driver.card.model.clear_errors()
    driver.reset()
    works(driver)


def test_an_error_while_the_load_before_is_under_way(driver):
    """The LOAD at fault is named, not the one behind it, whose reads are issued already."""
    for latency, stall in itertools.product((0, 32, 200), (0.0, 0.3)):
        driver.card.model.set_timing(MemoryTiming(latency=latency, stall=stall))
        for bad in range(6):
            loads = Program(TINY, "loads")
            for index in range(6):
                # Zeros in front of the data and behind, in turn.
                side = {"before": 2 * G} if index % 2 else {"after": 2 * G}
                loads.load(
                    LoadTarget.D, Stage.FF, rows=G, d_words=3, order=LoadOrder.TILES,
                    transpose=index // 2 % 2, **framed(IMAGES + index * 0x400, 1, G, **side),
                )  # fmt: skip
            place = IMAGES + bad * 0x400 + 9 * BEAT
            driver.card.model.inject_error(place, BEAT, Direction.READ)
            with pytest.raises(CardFault) as caught:
                run(driver, loads)
            assert (caught.value.code, caught.value.index) == ("READ_RESPONSE", bad)
            assert place - TINY.burst_beats * BEAT < caught.value.address <= place
            driver.card.model.clear_errors()
            driver.reset()
    driver.card.model.set_timing(MemoryTiming())
    works(driver)


def test_long_stalls_are_survived(driver):
    """Ten thousand cycles without an answer delay a program, and change nothing else."""
    quick = works(driver)
    driver.card.model.set_timing(MemoryTiming(latency=10_000))
    assert works(driver).cycles > quick.cycles + 10_000
    driver.card.model.set_timing(MemoryTiming())
    assert works(driver).cycles == quick.cycles


def test_a_stall_in_the_middle_of_each_transfer(driver, monkeypatch):
    """Memory falls silent at any moment of the program, for ten thousand cycles, and goes on."""
    model, length = driver.card.model, works(driver).cycles
    wait = driver.card.wait_interrupt

    def falls_silent(cycles):
        ended = wait(cycles)
        model.set_timing(MemoryTiming(silent=True))
        return ended

    # The last write is acknowledged half a hundred cycles before the end.
    for moment in range(40, length - 100, length // 25):
        model.set_timing(MemoryTiming())
        with monkeypatch.context() as patch, pytest.raises(CardTimeout):
            patch.setattr(driver.card, "wait_interrupt", falls_silent)
            run(driver, program(), moment)
        assert not driver.card.wait_interrupt(10_000)
        model.set_timing(MemoryTiming())
        assert driver.card.wait_interrupt(TIMEOUT), f"not over after a stall at {moment}"
        golden = Driver(GoldenCard(TINY))
        golden.card.write_memory(INPUTS.start, driver.card.read_memory(INPUTS.start, len(INPUTS)))
        run(golden, program())
        for start, size in ((OUTPUT, 4 * G * BEAT), (PRODUCT, 2 * G * BEAT)):
            np.testing.assert_array_equal(
                driver.card.read_memory(start, size), golden.card.read_memory(start, size)
            )


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_resets_in_the_middle_of_each_transfer(driver, stall):
    """Whatever was under way, the program behind the reset is right."""
    timing = MemoryTiming(stall=stall, seed=default_seed())
    driver.card.model.set_timing(timing)
    length = works(driver).cycles
    # Random pauses make each run a little longer or shorter.
    for moment in range(30, length * 4 // 5, length // 50):
        with pytest.raises(CardTimeout):
            run(driver, program(), moment)
        driver.reset()
        works(driver, moment)


def test_transfers_fill_the_bus(driver):
    """LOADs of framed tiles take a beat a cycle, transposed or not, one after the other."""
    driver.card.model.set_timing(MemoryTiming(latency=8))
    rows = TINY.cols * TINY.d_depth
    lines, inside = rows // (4 * G), 4 * G - 2
    for transpose, frame in itertools.product((0, 1), (False, True)):
        sides = framed(IMAGES, lines, inside, before=1, after=1)
        whole = {"descriptor": descriptor(TINY, IMAGES, rows)}
        count = 16
        loads = Program(TINY, "loads")
        for _ in range(count):
            loads.load(
                LoadTarget.D, Stage.FF, rows=rows, d_words=1, order=LoadOrder.TILES,
                transpose=transpose, **(sides if frame else whole),
            )  # fmt: skip
        result = run(driver, loads)
        # The program itself is read through the same port.
        slots = count * (rows + 64 // BEAT)
        share = slots / result.cycles
        print(f"{transpose=} {frame=}: {100 * share:.1f} %")
        assert share >= 0.95, f"{share:.3f} of the data slots, {transpose=}, {frame=}"
