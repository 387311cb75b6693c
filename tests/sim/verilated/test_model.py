"""The Verilated card, its memory's behaviour and its errors, against the golden machine."""

import dataclasses

import numpy as np
import pytest

from rtl.config import PAGE_BYTES, PRESETS
from rtl.control.commands import LoadTarget, Opcode, encode
from rtl.interface.register_map import COUNTERS, REGISTERS, Control, Interrupt
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.machine import Machine
from sim.verilated.model import MemoryTiming, VerilatedModel
from tests.harness import default_seed
from tests.programs import LayerStep

TIMEOUT = 200_000
TINY = PRESETS["tiny"]
STRIPED = dataclasses.replace(TINY, name="striped", channels=2, outstanding_reads=32)
"""Two channels, and as many reads under way as a page of each has beats."""


@pytest.fixture(scope="module", params=[TINY, STRIPED], ids=lambda config: config.name)
def model(request):
    with VerilatedModel(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def striped():
    with VerilatedModel(STRIPED) as made:
        yield made


@pytest.mark.parametrize("first_closed", [0, 1])
def test_cards_beside_each_other(first_closed):
    """One works on when the other has been closed, and is closed as well."""
    step = LayerStep(TINY, Pattern.N2M8, np.random.default_rng(default_seed()))
    cards = [VerilatedModel(TINY), VerilatedModel(TINY)]
    cards.pop(first_closed).close()
    with cards[0] as left, VerilatedModel(TINY) as another:
        for each in (left, another):
            control, _ = run(each, step)
            assert control & Control.DONE


def offset(name):
    return REGISTERS[name].offset


def run(model, step):
    """Run a step's program; return CONTROL and what the counters rose by."""
    model.memory[: step.image.size] = step.image
    return run_program(model, step.address, step.commands)


def run_program(model, address, commands):
    before = counters(model)
    start(model, address, commands)
    assert model.wait_interrupt(TIMEOUT), "the program didn't end"
    model.write_register(offset("INTERRUPT_STATUS"), 3)
    after = counters(model)
    return (
        Control(model.read_register(offset("CONTROL"))),
        {name: after[name] - before[name] for name in after},
    )


def start(model, address, commands):
    model.write_register(offset("GLOBAL_INTERRUPT_ENABLE"), 1)
    model.write_register(offset("INTERRUPT_ENABLE"), Interrupt.DONE | Interrupt.FAULT)
    model.write_register(offset("PROGRAM_LOW"), address)
    model.write_register(offset("PROGRAM_COMMANDS"), commands)
    model.write_register(offset("CONTROL"), Control.START)


def counters(model):
    return {
        counter.name: model.read_register(offset(f"{counter.name}_LOW")) for counter in COUNTERS
    }


@pytest.mark.parametrize(
    "timing",
    [
        MemoryTiming(latency=0, bandwidth=2),
        MemoryTiming(latency=200, bandwidth=0.05),
        MemoryTiming(latency=20, stall=0.4, seed=1),
        MemoryTiming(latency=1, stall=0.05, bandwidth=1.5, seed=2),
    ],
    ids=["fast", "slow", "stalls", "mixed"],
)
def test_memory_timing_changes_no_bit(model, timing):
    """However memory behaves, the gateware leaves the golden machine's memory."""
    random = np.random.default_rng(default_seed())
    model.set_timing(timing)
    for pattern in (Pattern.DENSE, Pattern.N2M8):
        assert pattern in supported_patterns(model.config)
        step = LayerStep(model.config, pattern, random)
        golden = Machine(model.config)
        golden.memory[: step.image.size] = step.image
        assert golden.run(step.address, step.commands).finished
        control, counted = run(model, step)
        assert control & Control.DONE, control
        np.testing.assert_array_equal(
            model.memory[: step.image.size], golden.memory[: step.image.size]
        )
        # The model honours its bandwidth: beats can't take fewer cycles than it allows.
        beats = counted["READ_BEATS"] + counted["WRITE_BEATS"]
        assert (counted["CYCLES"] * timing.bandwidth + 16) * model.config.channels >= beats


def test_faster_memory_takes_fewer_cycles(model):
    step = LayerStep(model.config, Pattern.N2M8, np.random.default_rng(default_seed()))
    cycles = []
    for latency in (0, 100, 1000):
        model.set_timing(MemoryTiming(latency=latency))
        cycles.append(run(model, step)[1]["CYCLES"])
    assert cycles[0] < cycles[1] < cycles[2]


def test_channels_of_different_pace_change_no_bit(striped):
    """Whichever of two channels is slow, fast or full of pauses."""
    random = np.random.default_rng(default_seed())
    for paces in (
        (MemoryTiming(), MemoryTiming(latency=150, bandwidth=0.2)),
        (MemoryTiming(stall=0.5, seed=1), MemoryTiming(latency=0, bandwidth=2)),
    ):
        for channel, timing in enumerate(paces):
            striped.set_timing(timing, channel)
        step = LayerStep(striped.config, Pattern.N2M8, random)
        golden = Machine(striped.config)
        golden.memory[: step.image.size] = step.image
        assert golden.run(step.address, step.commands).finished
        control, _ = run(striped, step)
        assert control & Control.DONE, control
        np.testing.assert_array_equal(
            striped.memory[: step.image.size], golden.memory[: step.image.size]
        )


def cycles_of_a_load(model, first, step):
    """Return what it takes to load four pages: page `first` and those `step` apart after it."""
    beats = model.config.page_beats
    pages = {
        "address": first * PAGE_BYTES,
        "counts": [beats, 4, 1, 1],
        "strides": [step * PAGE_BYTES, 0, 0],
    }
    load = encode(Opcode.LOAD, target=LoadTarget.D, rows=4 * beats, d_words=1, descriptor=pages)
    program = load + encode(Opcode.FINISH)
    model.memory[: len(program)] = np.frombuffer(program, np.uint8)
    control, counted = run_program(model, 0, 2)
    assert control & Control.DONE, control
    assert counted["READ_BEATS"] == 4 * beats
    return counted["CYCLES"]


def test_bandwidth_is_that_of_each_channel(striped):
    """A load from both channels takes little more than half of what one of them takes for it."""
    beats = 4 * striped.config.page_beats
    slow = MemoryTiming(bandwidth=0.25)
    striped.set_timing(slow)
    single = cycles_of_a_load(striped, first=2, step=2)
    assert 4 * beats <= single < 4.2 * beats
    assert cycles_of_a_load(striped, first=1, step=1) < 0.6 * single
    # A faster second channel is of use only to what lies in it.
    striped.set_timing(MemoryTiming(bandwidth=2), channel=1)
    assert cycles_of_a_load(striped, first=1, step=2) < 0.3 * single
    assert cycles_of_a_load(striped, first=2, step=2) == single
    with pytest.raises(IndexError):
        striped.set_timing(slow, striped.config.channels)


def test_soft_reset_leaves_nothing_of_a_program_behind(model):
    """Reset at any moment, with channels as slow as they come, the next program is right."""
    random = np.random.default_rng(default_seed())
    model.set_timing(MemoryTiming(latency=60, bandwidth=0.3, stall=0.2, seed=3))
    step = LayerStep(model.config, Pattern.N2M8, random)
    cut_off = 0
    for _ in range(30):
        model.memory[: step.image.size] = step.image
        start(model, step.address, step.commands)
        model.wait_interrupt(int(random.integers(4000)))
        cut_off += not Control(model.read_register(offset("CONTROL"))) & Control.DONE
        model.write_register(offset("CONTROL"), Control.SOFT_RESET)
        for _ in range(500):
            if not Control(model.read_register(offset("CONTROL"))) & Control.SOFT_RESET:
                break
        else:
            raise AssertionError("the soft reset didn't end")
    assert cut_off
    golden = Machine(model.config)
    golden.memory[: step.image.size] = step.image
    golden.run(step.address, step.commands)
    assert run(model, step)[0] & Control.DONE
    np.testing.assert_array_equal(model.memory[: step.image.size], golden.memory[: step.image.size])


@pytest.mark.parametrize(
    ("field", "value"), [("latency", -1), ("bandwidth", 0), ("bandwidth", 3), ("stall", 1.0)]
)
def test_refuses_impossible_timing(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}, must be"):
        MemoryTiming(**{field: value})


def test_memory_of_a_large_card_takes_room_only_where_it_is_written(model):
    size = 64 << 30
    library = model._library
    card = library.sat_create(size, None)
    try:
        memory = np.ctypeslib.as_array(library.sat_memory(card), (size,))
        assert memory[0] == memory[-1] == memory[size // 2] == 0
        memory[[0, size // 2, -1]] = (1, 2, 3)
        assert list(memory[[0, 1, size // 2, -2, -1]]) == [1, 0, 2, 0, 3]
    finally:
        library.sat_destroy(card)


def test_memory_without_room_is_refused(model):
    assert not model._library.sat_create(1 << 62, None)
