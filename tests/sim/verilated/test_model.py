"""The Verilated card, its memory's behaviour and its errors, against the golden machine."""

import numpy as np
import pytest

from rtl.config import PRESETS
from rtl.interface.register_map import COUNTERS, REGISTERS, Control, Interrupt
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.machine import Machine
from sim.verilated.model import MemoryTiming, VerilatedModel
from tests.harness import default_seed
from tests.programs import LayerStep

TIMEOUT = 200_000


@pytest.fixture(scope="module")
def model():
    with VerilatedModel(PRESETS["tiny"]) as made:
        yield made


def offset(name):
    return REGISTERS[name].offset


def run(model, step):
    """Run a step's program; return CONTROL and what the counters rose by."""
    before = counters(model)
    model.memory[: step.image.size] = step.image
    model.write_register(offset("GLOBAL_INTERRUPT_ENABLE"), 1)
    model.write_register(offset("INTERRUPT_ENABLE"), Interrupt.DONE | Interrupt.FAULT)
    model.write_register(offset("PROGRAM_LOW"), step.address)
    model.write_register(offset("PROGRAM_COMMANDS"), step.commands)
    model.write_register(offset("CONTROL"), Control.START)
    assert model.wait_interrupt(TIMEOUT), "the program didn't end"
    model.write_register(offset("INTERRUPT_STATUS"), 3)
    after = counters(model)
    return (
        Control(model.read_register(offset("CONTROL"))),
        {name: after[name] - before[name] for name in after},
    )


def counters(model):
    return {
        counter.name: model.read_register(offset(f"{counter.name}_LOW")) for counter in COUNTERS
    }


@pytest.mark.parametrize(
    "timing",
    [
        MemoryTiming(latency=0, bandwidth=2),
        MemoryTiming(latency=200, bandwidth=0.3),
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
        assert counted["CYCLES"] * timing.bandwidth + 16 >= beats


def test_faster_memory_takes_fewer_cycles(model):
    step = LayerStep(model.config, Pattern.N2M8, np.random.default_rng(default_seed()))
    cycles = []
    for latency in (0, 100, 1000):
        model.set_timing(MemoryTiming(latency=latency))
        cycles.append(run(model, step)[1]["CYCLES"])
    assert cycles[0] < cycles[1] < cycles[2]


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
