"""The cycle model against the gateware, to the cycle and in every counter."""

import dataclasses
import time

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.layers import ConvolutionTensors
from firmware.network import Network
from firmware.program import Program, descriptor, walk
from firmware.schedule import (
    Assembly,
    ConvolutionSchedule,
    Step,
    WeightGradientSchedule,
    emit,
)
from firmware.tensor import Activations
from rtl.config import PRESETS
from rtl.control.commands import LoadTarget, Opcode, Queue, Stage, encode, queue_of
from rtl.sparsity.pattern import Pattern
from sim.bench import gemm, memory
from sim.bench.slots import account
from sim.cycles.model import Outcome, measure
from sim.golden.program import decode
from tests.firmware.test_same_bits import QUAD, TALL, perceptron, residual
from tests.firmware.test_transformer import transformer
from tests.harness import default_seed
from tests.sim.cycles.checked import CheckedDriver
from tests.sim.cycles.programs import random_program

TINY = PRESETS["tiny"]
STRIPED = dataclasses.replace(
    TINY, name="striped", channels=2, outstanding_reads=32, stream_queue=0
)
"""Two channels, as many reads under way as a page of each has beats, and all LOADs in one queue."""

POINT = dataclasses.replace(
    TALL, name="point", cols=2, interleave=4, drain_rows=4, channels=4, vector_slices=1,
    outstanding_reads=16, burst_beats=32,
)  # fmt: skip
"""A piece of the cards that whole networks are timed on."""

STEP = Step(rate=0.05, momentum=0.9, decay=5e-4, scale=8)

TIMINGS = [
    MemoryTiming(),
    MemoryTiming(latency=0, bandwidth=2),
    MemoryTiming(latency=70, bandwidth=0.6),
]


@pytest.fixture(scope="module")
def card():
    with VerilatedCard(TINY) as card:
        yield card


def train(driver, model, batch):
    """Run every program of a network: two training steps and an inference."""
    rng = np.random.default_rng(default_seed())
    network = Network(driver, model, batch)
    network.initialise({layer.name: layer.initial_weights(rng) for layer in model.convolutions})
    shape = model.input.shape
    images = rng.standard_normal((batch, shape.height, shape.width, shape.channels))
    for _ in range(2):
        network.forward(images, rng.integers(0, 2, batch), 2.0**STEP.scale)
        network.backward(STEP)
        network.apply()
    network.infer(images)


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
def test_training_steps(card, timing):
    driver = CheckedDriver(card, timing)
    train(driver, perceptron(), 16)
    train(driver, residual(), 16)
    assert driver.cycles > 50_000


def test_transformers(card):
    """Gathered beats, results times y, and all that attention multiplies."""
    train(CheckedDriver(card, MemoryTiming()), transformer(3, 3), 2)


@pytest.mark.parametrize(
    ("config", "count", "longest"),
    [(TINY, 20, 80), (STRIPED, 10, 80), (QUAD, 10, 80), (TALL, 2, 20)],
    ids=["tiny", "striped", "quad", "tall"],
)
def test_random_programs(config, count, longest):
    rng = np.random.default_rng(default_seed())
    with VerilatedCard(config) as card:
        driver = CheckedDriver(card, MemoryTiming())
        for _ in range(count):
            latency, bandwidth = int(rng.integers(100)), float(rng.uniform(0.3, 2))
            driver.set_timing(MemoryTiming(latency=latency, bandwidth=bandwidth))
            driver.run(random_program(config, rng, int(rng.integers(5, longest))))


def test_products(card):
    driver = CheckedDriver(card, MemoryTiming())
    for shape in gemm.QUICK_SHAPES:
        gemm.run(driver, shape, default_seed())


@pytest.mark.parametrize("pattern", [Pattern.DENSE, Pattern.N2M8], ids=str)
def test_convolutions_in_memory(card, pattern):
    driver = CheckedDriver(card, memory.timing_for(TINY))
    with GoldenCard(TINY) as golden:
        memory.run(driver, golden, memory.QUICK_LAYERS[0], pattern)


OPERANDS, RESULTS = 1 << 18, 1 << 19


def adding_program(config, accumulate):
    """Return a product, and one whose first results have the places of its last ones, read back."""
    program = Program(config, "sums" if accumulate else "products")
    g, contexts = config.elements, config.interleave
    s_beats, d_rows = Pattern.N2M8.tile_beats(config), contexts * config.cols
    stride = -(-config.rows // config.floats)
    rows = (2 * contexts - 1) * config.cols
    program.load(
        LoadTarget.S, Stage.FF, rows=g, d_words=1, pattern=Pattern.N2M8,
        descriptor=descriptor(config, OPERANDS, s_beats),
    )  # fmt: skip
    program.load(
        LoadTarget.D, Stage.FF, rows=d_rows, d_words=1,
        descriptor=descriptor(config, OPERANDS + s_beats * config.beat_bytes, d_rows),
    )  # fmt: skip
    for first, adds in ((0, False), (contexts - 1, accumulate)):
        program.compute(
            Stage.FF, pattern=Pattern.N2M8, d_words=1, a_tiles=1, b_tiles=1, a_contexts=0,
            o_base=first * stride, o_stride=stride, accumulate=adds,
            d_rows=walk((contexts, 1)), d_reduction=walk((1, 1)),
        )  # fmt: skip
    program.store(
        Stage.FF, rows=rows, words=stride, o_stride=stride,
        descriptor=descriptor(config, RESULTS, rows * stride),
    )  # fmt: skip
    return program


@pytest.mark.parametrize("config", [TINY, QUAD], ids=lambda config: config.name)
def test_results_wait_for_what_they_are_added_to(config):
    """Four cycles: sums of a way out with four rows follow each other more closely than that."""
    values = np.random.default_rng(default_seed()).standard_normal(1 << 12).astype(np.float16)
    lost, results = {}, []
    with VerilatedCard(config) as card, GoldenCard(config) as golden:
        for driver in (CheckedDriver(card, MemoryTiming()), Driver(golden)):
            driver.card.write_memory(OPERANDS, values.view(np.uint8))
            for accumulate in (False, True):
                counters = driver.run(adding_program(config, accumulate)).counters
                lost.setdefault(accumulate, counters["LOST_DRAIN"])
            results.append(driver.card.read_memory(RESULTS, 1 << 12).tobytes())
    assert lost[True] == lost[False] + 4
    assert results[0] == results[1] and any(results[0])


@pytest.mark.long
@pytest.mark.parametrize("timing", TIMINGS, ids=str)
@pytest.mark.parametrize(
    "config",
    [PRESETS["sim"], PRESETS["sim-wide"], PRESETS["sim-8x"], POINT],
    ids=lambda config: config.name,
)
def test_larger_arrays(config, timing):
    rng = np.random.default_rng(default_seed())
    with VerilatedCard(config) as card:
        train(CheckedDriver(card, timing), residual(), 16)
        # Random programs write everywhere but at the beginning of memory, where a new driver puts
        # its first program.
        driver = CheckedDriver(card, timing)
        for _ in range(10):
            driver.run(random_program(config, rng, 60))


def layer_program(config, layer, stage, pattern):
    """Return the program of a stage of one of the memory benchmark's layers."""
    convolution = layer.convolution(pattern)
    space = Allocator(config.memory_bytes, config.beat_bytes)
    tensors = ConvolutionTensors(convolution, config, space, has_backward=True)
    x, y = (
        Activations(config, space, layer.batch, shape)
        for shape in (convolution.source.shape, convolution.shape)
    )
    assembly = Assembly(Program(config, f"{layer.name}, {stage}"))
    schedule = ConvolutionSchedule(assembly, convolution, tensors)
    match stage:
        case "FF":
            emit(schedule.forward(x, y))
        case "BP":
            emit(schedule.backward(y, x, add=None, mask=x))
        case "WU":
            emit(WeightGradientSchedule(assembly, convolution, tensors).update(x, y))
    return assembly.program.encode()


@pytest.mark.parametrize("stage", ["FF", "BP", "WU"])
def test_large_cards_in_no_time(stage):
    """A thousand times what Verilator reaches on this card, and no slot is unaccounted for."""
    config = PRESETS["vcu1525"]
    layer = next(layer for layer in memory.LAYERS if layer.name == "conv4")
    program = layer_program(config, layer, stage, Pattern.DENSE)
    timing = memory.timing_for(dataclasses.replace(config, channels=1))
    measure(config, timing, encode(Opcode.FINISH))
    start = time.process_time()
    run = measure(config, timing, program)
    seconds = time.process_time() - start
    products = layer.batch * layer.convolution(Pattern.DENSE).kept_macs(Stage[stage])
    account(stage, run.counters, config.macs, products)
    assert run.counters["READ_BEATS"] > 1000 and run.counters["WRITE_BEATS"] > 1000
    assert run.cycles / seconds > 3e6, f"{run.cycles} cycles in {seconds} s"


def test_more_bandwidth_and_less_latency_take_no_longer():
    config = PRESETS["sim"]
    program = layer_program(config, memory.QUICK_LAYERS[0], "FF", Pattern.N2M8)
    cycles = [
        measure(config, MemoryTiming(latency=latency, bandwidth=bandwidth), program).cycles
        for latency, bandwidth in ((10, 2), (10, 1), (10, 0.5), (100, 0.5), (1000, 0.5))
    ]
    assert cycles == sorted(cycles) and cycles[0] < cycles[2] < cycles[4]


def _queue(command):
    opcode = Opcode(command.opcode)
    return queue_of(
        TINY, opcode, LoadTarget(command.body.target) if opcode is Opcode.LOAD else None
    )


def test_times_of_commands():
    """Each is issued once those before it in its queue were, and ends behind them."""
    program = layer_program(TINY, memory.QUICK_LAYERS[0], "WU", Pattern.N2M8)
    run = measure(TINY, MemoryTiming(), program)
    commands = [decode(program[i : i + 64]) for i in range(0, len(program), 64)]
    own = [_queue(command).name.lower() for command in commands[:-1]]
    for queue in ("load", "compute", "store", "stream"):
        issued, ended = (
            times[[name == queue for name in own]] for times in (run.issued, run.ended)
        )
        assert len(issued) > 1
        assert (np.diff(issued) > 0).all() and (np.diff(ended) > 0).all()
        assert (ended > issued).all() and issued[0] > 0 and ended[-1] < run.cycles
    # What waits for a token is issued after what gives it.
    given, taken = {}, {}
    for index, command in enumerate(commands[:-1]):
        for other in Queue:
            if command.signal >> other.value & 1:
                given.setdefault((own[index], other.name.lower()), []).append(run.ended[index])
            if command.wait >> other.value & 1:
                taken.setdefault((other.name.lower(), own[index]), []).append(run.issued[index])
    assert taken
    for pair, times in taken.items():
        assert (np.array(times) > given[pair][: len(times)]).all()


def test_a_program_that_hangs():
    wait = 1 << Queue.STORE.value
    program = encode(Opcode.NOP, queue=Queue.LOAD, wait=wait) + encode(Opcode.FINISH)
    run = measure(TINY, MemoryTiming(), program)
    assert run.outcome is Outcome.HANGS
    assert run.issued.tolist() == [-1]


def test_a_limit():
    program = layer_program(TINY, memory.QUICK_LAYERS[0], "FF", Pattern.DENSE)
    run = measure(TINY, MemoryTiming(), program, limit=500)
    assert run.outcome is Outcome.TIMED_OUT and run.cycles == 500
    whole = measure(TINY, MemoryTiming(), program)
    assert (run.ended[run.ended >= 0] == whole.ended[run.ended >= 0]).all()


def test_cycles_before_the_first_command_have_the_stage_of_the_last():
    program = encode(Opcode.FINISH)
    first = measure(TINY, MemoryTiming(), program, stage=Stage.WU)
    assert first.stage is Stage.WU and first.counters["CYCLES_WU"] == first.cycles > 0


@pytest.mark.parametrize(
    "options", [{"stall": 0.1}, {"silent": True}], ids=lambda options: next(iter(options))
)
def test_pauses_are_refused(options):
    with pytest.raises(ValueError, match=r"memory timing: stall is .* must be 0 and False"):
        measure(TINY, MemoryTiming(**options), encode(Opcode.FINISH))


_DESCRIPTOR = {"address": 0, "counts": [4, 1, 1, 1], "strides": [0, 0, 0]}


@pytest.mark.parametrize(
    ("opcode", "fields"),
    [
        (Opcode.FINISH, {}),
        (Opcode.LOAD, {"rows": 3, "d_words": 1, "target": 1, "descriptor": _DESCRIPTOR}),
        (Opcode.LOAD, {"rows": 0, "d_words": 1, "target": 1, "descriptor": _DESCRIPTOR}),
        (
            Opcode.LOAD,
            {"rows": 4, "d_words": 1, "target": 1, "descriptor": _DESCRIPTOR | {"address": 1}},
        ),
        (
            Opcode.LOAD,
            {
                "rows": 4,
                "d_words": 1,
                "target": 1,
                "descriptor": _DESCRIPTOR | {"address": 1 << 40},
            },
        ),
        (Opcode.COMPUTE, {"d_words": 1, "a_tiles": 1}),
        (Opcode.COMPUTE, {"d_words": 1, "a_tiles": 1, "b_tiles": 1, "pattern": 6}),
        (Opcode.STORE, {"rows": 2, "words": 1, "descriptor": _DESCRIPTOR}),
        (Opcode.UPDATE, {"tiles": 1, "rows": 17}),
        (Opcode.VECTOR, {"groups": 1, "window": 0, "rows": 1}),
    ],
)
def test_commands_without_meaning_are_refused(opcode, fields):
    command = encode(opcode, **fields)
    good = encode(Opcode.NOP)
    with pytest.raises(ValueError, match="command 1 of 3 has no meaning on configuration 'tiny'"):
        measure(TINY, MemoryTiming(), good + command + encode(Opcode.FINISH))


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="whole commands of 64 bytes, got 63"):
        measure(TINY, MemoryTiming(), encode(Opcode.FINISH)[:-1])
    with pytest.raises(ValueError, match="command 0 of 1"):
        measure(TINY, MemoryTiming(), encode(Opcode.NOP))
