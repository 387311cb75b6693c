"""How convolutions are cut into blocks, bands and areas, and what doesn't fit."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.cards.golden import GoldenCard
from firmware.driver import Driver
from firmware.errors import ScheduleError
from firmware.layers import ConvolutionTensors
from firmware.model import Convolution, Input, Method, Shape
from firmware.program import Program
from firmware.schedule import (
    Assembly,
    ConvolutionSchedule,
    Step,
    WeightGradientSchedule,
    emit,
)
from firmware.schedule.convolution_plan import ConvolutionProblem, plan_convolution
from firmware.schedule.patch import Axis
from firmware.tensor import Activations
from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.commands import LoadTarget, Opcode, Stage
from rtl.sparsity.pattern import Pattern
from sim.cycles.model import measure
from sim.golden.arithmetic import add, dot
from sim.golden.engine import epilogue
from sim.golden.program import decode
from sim.golden.sparsity import prune
from sim.verilated.model import MemoryTiming
from tests.harness import default_seed

SIM = dataclasses.replace(PRESETS["sim"], name="test", memory_bytes=1 << 30)
G = SIM.elements
TINY = PRESETS["tiny"]


class _Bench:
    """One convolution with its tensors, outside of any network."""

    def __init__(self, config=SIM, images=None, side=(8, 8), channels=32, outputs=32, **options):
        self.config = config
        memory = Allocator(config.memory_bytes, config.beat_bytes)
        images = images or config.elements
        self.layer = Convolution("conv", Input("x", *side, channels), outputs, **options)
        self.x = Activations(config, memory, images, self.layer.source.shape)
        self.y = Activations(config, memory, images, self.layer.shape)
        self.tensors = ConvolutionTensors(self.layer, config, memory, has_backward=True)
        self.assembly = Assembly(Program(config))
        self.schedule = ConvolutionSchedule(self.assembly, self.layer, self.tensors)

    def _decoded(self):
        code = self.assembly.program.encode()
        return [decode(code[i : i + COMMAND_BYTES]) for i in range(0, len(code), COMMAND_BYTES)]

    def kinds(self):
        """Return opcode and, of LOADs, target of each command."""
        codes = [(Opcode(command.opcode), command.body) for command in self._decoded()]
        return [
            (code, LoadTarget(body.target) if code is Opcode.LOAD else None) for code, body in codes
        ]

    def commands(self, opcode, target=None):
        return [
            command.body
            for command in self._decoded()
            if command.opcode == opcode.value
            and (target is None or command.body.target == target.value)
        ]

    def forward(self, **options):
        emit(self.schedule.forward(self.x, self.y, **options))
        return self

    def backward(self, **options):
        self.empty = emit(
            self.schedule.backward(self.y, self.x, **{"add": None, "mask": None} | options)
        )
        return self

    def update(self):
        schedule = WeightGradientSchedule(self.assembly, self.layer, self.tensors)
        emit(schedule.update(self.x, self.y))
        return self


def _tiles(config, commands):
    """Return the tiles that LOADs read or STOREs write, in their order."""
    tiles = []
    for body in commands:
        fields = body.descriptor
        offsets = np.zeros(1, np.int64)
        for count, stride in zip(fields.counts, (config.beat_bytes, *fields.strides)):
            offsets = (offsets[None, :] + np.arange(count)[:, None] * stride).ravel()
        tiles.extend((fields.address + offsets)[:: config.elements].tolist())
    return tiles


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        ((8, 8), 1, 1, 0),
        ((8, 8), 3, 1, 1),
        ((13, 9), 3, 2, 1),
        ((40, 20), 3, 1, 1),
        ((9, 9), 2, 3, 0),
    ],
)
@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_every_tile_is_written_once(stage, side, kernel, stride, padding):
    """All places of the output, band after band and block after block of channels."""
    sizes = {"side": side, "kernel": kernel, "stride": stride, "padding": padding}
    bench = _Bench(images=40, channels=33, outputs=65, **sizes)
    getattr(bench, stage)()
    tensor = bench.y if stage == "forward" else bench.x
    expected = {tile for word in range(tensor.words) for tile in tensor.column(word)}
    if stage == "backward":
        expected -= {
            tensor.tile(block, y, x, word)
            for first_y, first_x in bench.empty
            for block in range(tensor.batch_blocks)
            for y in range(first_y, side[0], stride)
            for x in range(first_x, side[1], stride)
            for word in range(tensor.words)
        }
        assert bool(bench.empty) == (kernel < stride)
    tiles = _tiles(SIM, bench.commands(Opcode.STORE))
    assert len(tiles) == len(set(tiles)) and set(tiles) == expected


def test_images_lie_in_the_scratchpad_once():
    """A kernel of nine taps reads each pixel once, with its frame."""
    bench = _Bench(kernel=3, padding=1, side=(5, 1)).forward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert sum(load.rows for load in loads) == 7 * 3 * G
    assert sum(math.prod(load.descriptor.counts) for load in loads) == 5 * G
    assert [load.frame.above for load in loads] == [1] + [0] * (len(loads) - 1)
    assert [load.frame.below for load in loads] == [0] * (len(loads) - 1) + [1]
    for load in loads:
        frame = load.frame
        assert (frame.before, frame.beats, frame.after) == (G, G, G)
    for compute in bench.commands(Opcode.COMPUTE):
        assert compute.d_words == 9 and compute.d_reduction.counts == (1, 3, 3)


def test_a_stride_without_a_kernel_loads_what_it_meets():
    """Every other pixel of every other line."""
    bench = _Bench(kernel=1, stride=2, side=(9, 8), channels=64).forward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert sum(math.prod(load.descriptor.counts) for load in loads) == 5 * 4 * 2 * G
    assert sorted(_tiles(SIM, loads)) == [
        bench.x.tile(0, y, x, word)
        for y in range(0, 9, 2)
        for x in range(0, 8, 2)
        for word in (0, 1)
    ]


def test_patches_leave_room_for_the_next():
    """The next one's pixels arrive while a patch is computed; results alternate as well."""
    for sizes in ({"side": (5, 34), "images": 2 * G}, {"side": (20, 20)}):
        bench = _Bench(SIM, kernel=3, padding=1, **sizes).forward()
        loads = bench.commands(Opcode.LOAD, LoadTarget.D)
        places = [(load.base, load.base + load.rows // SIM.cols) for load in loads]
        half = SIM.d_depth // 2
        assert all(start // half == (stop - 1) // half for start, stop in places)
        assert {start // half for start, _ in places} == {0, 1}
        for body in bench.commands(Opcode.COMPUTE):
            words = body.b_tiles * (SIM.interleave >> body.a_contexts) * body.o_stride
            assert words <= SIM.o_depth // 2


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_the_first_product_waits_for_its_own_lines(stage):
    """Not for all of the first patch."""
    config = dataclasses.replace(SIM, d_depth=4096, o_depth=2048)
    bench = _Bench(config, kernel=3, padding=1, side=(16, 8))
    getattr(bench, stage)()
    kinds = bench.kinds()
    before = kinds[: kinds.index((Opcode.COMPUTE, None))].count((Opcode.LOAD, LoadTarget.D))
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert sum(load.rows for load in loads[:before]) < sum(load.rows for load in loads) // 2


def test_weights_that_fit_stay():
    """They are loaded once for all images; if they don't fit, they or images are loaded again."""
    sizes = {"images": 4 * G, "side": (12, 12), "channels": 64, "outputs": 128, "kernel": 3}
    loaded = []
    for method, depth in ((Method(), 4096), (Method.bdwp(Pattern.N2M8), 512), (Method(), 256)):
        config = dataclasses.replace(SIM, s_depth=depth)
        bench = _Bench(config, method=method, padding=1, **sizes).forward()
        weights = len(bench.commands(Opcode.LOAD, LoadTarget.S))
        images = sum(load.rows for load in bench.commands(Opcode.LOAD, LoadTarget.D))
        loaded.append((weights, images))
    (dense, once), (sparse, same), (streamed, again) = loaded
    assert dense == sparse == 4 and once == same
    assert streamed > 4 or again > once


@pytest.mark.parametrize(("pattern", "least"), [("dense", 0.95), ("2:8", 0.9)])
@pytest.mark.parametrize(("side", "channels"), [(16, 64), (8, 128)])
@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_the_array_is_kept_busy(stage, side, channels, pattern, least):
    """By ResNet-18's 3 x 3 layers for 64 x 64 pixels, 32 images, memory of 77 GB/s at 250 MHz."""
    config = PRESETS["vcu1525-1k"]
    method = Method.bdwp(Pattern.parse(pattern))
    sizes = {"side": (side, side), "channels": channels, "outputs": channels}
    bench = _Bench(config, kernel=3, padding=1, method=method, **sizes)
    options = {"mask": bench.x} if stage == "backward" else {}
    getattr(bench, stage)(**options)
    timing = MemoryTiming(latency=64, bandwidth=77e9 / 250e6 / config.beat_bytes / config.channels)
    code = Stage.FF if stage == "forward" else Stage.BP
    macs = config.elements * bench.layer.kept_macs(code)
    cycles = measure(config, timing, bench.assembly.program.encode()).cycles
    assert macs / config.macs / cycles >= least


@pytest.mark.parametrize(
    ("side", "stride", "phases"), [((8, 8), 2, 4), ((9, 7), 2, 4), ((9, 9), 3, 9)]
)
def test_phases_share_what_they_load_of_the_gradient(side, stride, phases):
    """Of a backward product with a stride: each band once, whatever meets it."""
    bench = _Bench(side=side, kernel=3, stride=stride, padding=1, channels=64).backward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    computes = bench.commands(Opcode.COMPUTE)
    places = [(load.base, load.base + load.rows // SIM.cols) for load in loads]
    assert len(computes) >= 2 * phases and len(loads) <= len(computes) // 2
    for body in computes:
        assert any(start <= body.d_base < stop for start, stop in places)
    shape = bench.y.shape
    tiles = sum(math.prod(load.descriptor.counts) for load in loads) // G
    # Neighbouring patches share a line, if a kernel meets two.
    assert shape.positions <= tiles <= 2 * shape.positions


def test_operands_are_loaded_before_what_is_masked_by():
    """AUX has room for the next only as STOREs end: the next product's weights don't wait."""
    bench = _Bench(channels=96, side=(5, 5), kernel=3, padding=1)
    bench.backward(mask=bench.x)
    kinds = bench.kinds()
    computes = [index for index, (code, _) in enumerate(kinds) if code is Opcode.COMPUTE]
    assert len(computes) >= 3
    for first, second in itertools.pairwise(computes):
        targets = [target for code, target in kinds[first:second] if code is Opcode.LOAD]
        assert LoadTarget.AUX in targets
        mask = targets.index(LoadTarget.AUX)
        assert set(targets[mask:]) == {LoadTarget.AUX}
    assert all(body.mask for body in bench.commands(Opcode.STORE))


def test_areas_leave_room_for_the_next():
    """What is added and masked by takes half of AUX at most, or a pixel of each."""
    for depth in (512, 64):
        config = dataclasses.replace(SIM, aux_depth=depth)
        bench = _Bench(config)
        bench.backward(add=bench.x, mask=bench.x)
        loads = bench.commands(Opcode.LOAD, LoadTarget.AUX)
        assert all(load.rows * load.d_words * 2 <= max(depth // 2, 2 * G) for load in loads)
        places = [(load.base, load.base + load.rows * load.d_words) for load in loads]
        for (_, first), (second, _) in zip(places[::2], places[1::2], strict=True):
            assert first == second, "of one STORE"


def test_a_bias_is_there_whatever_is_added():
    """Nothing is loaded over a bias that a later STORE adds."""
    for depth in (64, 128, 512):
        bench = _Bench(dataclasses.replace(SIM, aux_depth=depth), bias=True, outputs=64)
        bench.forward(add=bench.y)
        code = bench.assembly.program.encode()
        aux = {}
        for start in range(0, len(code), COMMAND_BYTES):
            command = decode(code[start : start + COMMAND_BYTES])
            body = command.body
            if command.opcode == Opcode.LOAD.value and body.target == LoadTarget.AUX.value:
                for beat in range(body.rows * body.d_words):
                    aux[body.base + beat] = body.descriptor.address
            elif command.opcode == Opcode.STORE.value:
                first = bench.y.tile(0, 0, 0, 0)
                word = (body.descriptor.address - first) // bench.y.tile_bytes % bench.y.words
                assert aux[body.bias_base] == bench.tensors.bias.block(word)
                assert aux[body.add_base] == body.descriptor.address


@pytest.mark.parametrize(("kernel", "depth", "most"), [(3, 128, 9), (3, 32, 1), (1, 32, 1)])
def test_taps_are_cut_to_the_results_that_fit(kernel, depth, most):
    config = dataclasses.replace(SIM, o_depth=depth)
    bench = _Bench(config, kernel=kernel, padding=kernel // 2, side=(4, 4)).update()
    computes, updates = bench.commands(Opcode.COMPUTE), bench.commands(Opcode.UPDATE)
    tiles = [update.tiles for update in updates]
    first = [compute for compute in computes if not compute.accumulate]
    assert len(first) == len(updates) and sum(tiles) == kernel**2 and max(tiles) <= most
    for body in computes:
        words = body.b_tiles * (config.interleave >> body.a_contexts) * body.o_stride
        assert body.o_base + words <= depth
    tile = bench.tensors.state.tile_beats * config.beat_bytes
    first = bench.tensors.state.address
    numbers = [(update.state_address - first) // tile for update in updates]
    assert numbers == list(range(0, kernel**2, tiles[0]))


@pytest.mark.parametrize(
    ("stage", "options", "changes", "message"),
    [
        (
            "forward", {"kernel": 7, "padding": 3}, {"d_depth": 64},
            "conv, FF: needs 196 words of the D scratchpad, configuration 'test' has 64",
        ),
        ("backward", {"kernel": 5}, {"d_depth": 64}, "conv, BP: needs 100 words of the D"),
        (
            "update", {"kernel": 5}, {"d_depth": 64},
            "conv, WU: needs 100 words of the D scratchpad, configuration 'test' has 64",
        ),
        ("update", {"bias": True}, {"o_depth": 16, "cols": 4}, "conv, WU: needs 18 words of the O"),
        (
            "update", {}, {"bin_bits": 42, "accumulator_bits": 45, "ratio": 4},
            "conv, WU: a pixel takes 4 additions in a lane, the accumulators of configuration",
        ),
        ("forward", {}, {"o_depth": 16, "cols": 1}, "conv, FF: needs 64 words of the O scratchpad"),
        (
            "forward", {}, {"bin_bits": 42, "accumulator_bits": 45},
            "conv, FF: a D word takes 4 additions in a lane, the accumulators of configuration",
        ),
        (
            "forward", {"bias": True, "outputs": 544}, {"aux_depth": 16},
            "conv, FF: needs 17 words of the AUX scratchpad",
        ),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_by_the_layer(stage, options, changes, message):
    bench = _Bench(dataclasses.replace(SIM, **changes), **options)
    with pytest.raises(ScheduleError, match=re.escape(message)):
        getattr(bench, stage)()


def test_too_little_room_for_what_is_added_is_refused():
    bench = _Bench(dataclasses.replace(SIM, aux_depth=32))
    with pytest.raises(ScheduleError, match="conv, BP: needs 64 words of the AUX scratchpad"):
        bench.backward(add=bench.x, mask=bench.x)


def test_a_patch_beyond_the_image_has_its_room():
    """The last line of the input meets no line of the gradient; one is loaded all the same."""
    sizes = {"side": (5, 5), "kernel": 3, "stride": 3, "outputs": 64}
    for depth in (16, 32, 64):
        bench = _Bench(dataclasses.replace(SIM, d_depth=depth), **sizes).backward()
        for load in bench.commands(Opcode.LOAD, LoadTarget.D):
            assert load.base + load.rows // SIM.cols * load.d_words <= depth


@pytest.mark.parametrize(
    ("channels", "outputs", "options"),
    [
        (320, 20, {}),
        (20, 528, {"method": Method.bdwp(Pattern.N4M8)}),
        (32, 40, {"kernel": 3, "padding": 1, "bias": True, "rectified": True}),
        (80, 90, {"kernel": 3, "padding": 1, "method": Method.bdwp(Pattern.N2M8)}),
        (70, 60, {"kernel": 3, "stride": 2, "padding": 1}),
    ],
)
def test_reductions_are_added_up(driver, channels, outputs, options):
    """Parts in binary32: blocks of channels, then lines, then columns of taps ascending."""
    config, random = driver.config, np.random.default_rng(default_seed())
    layer = Convolution("conv", Input("x", 4, 3, channels), outputs, **options)
    images, source, shape = config.elements - 3, layer.source.shape, layer.shape
    tensors = ConvolutionTensors(layer, config, driver.memory, has_backward=True)
    x, dx, other = (Activations(config, driver.memory, images, source) for _ in range(3))
    y, dy = (Activations(config, driver.memory, images, shape) for _ in range(2))
    zeros = Activations(config, driver.memory, config.elements, Shape(1, 1, 1))
    for tensor in (x, dy, other, zeros):
        sizes = (images, *dataclasses.astuple(tensor.shape))
        if tensor is not zeros:
            tensor.write(driver.card, random.standard_normal(sizes))
    zeros.clear(driver.card)
    weights = layer.initial_weights(random)
    tensors.state.write(driver.card, weights.reshape(tensors.state.shape))
    bias = random.standard_normal(outputs).astype(np.float16)
    if tensors.bias is not None:
        tensors.bias_state.write(driver.card, bias)
    assembly = Assembly(Program(config))
    WeightGradientSchedule(assembly, layer, tensors).initialise(zeros)
    assembly.set_step(Step())
    driver.run(assembly.program)
    assembly = Assembly(Program(config))
    schedule = ConvolutionSchedule(assembly, layer, tensors)
    emit(schedule.forward(x, y))
    empty = emit(schedule.backward(dy, dx, add=None, mask=other))
    assert not empty and "accumulate=1" in assembly.program.listing()
    driver.run(assembly.program)

    half = weights.astype(np.float16)
    kept = prune(half.swapaxes(2, 3).view(np.uint16).copy(), layer.method.forward)
    expected = _added_up(config, layer, _bits(x.read(driver.card)), kept.swapaxes(2, 3))
    expected = epilogue(
        expected.reshape(-1, outputs),
        bias=_bits(bias) if layer.bias else None,
        relu=layer.relu,
    )
    np.testing.assert_array_equal(_bits(y.read(driver.card)).reshape(-1, outputs), expected)
    kept = prune(half.view(np.uint16), layer.method.backward)
    expected = _added_up_backward(config, layer, _bits(dy.read(driver.card)), kept)
    mask = _bits(other.read(driver.card)).reshape(-1, channels)
    expected = epilogue(expected.reshape(-1, channels), mask=mask)
    np.testing.assert_array_equal(_bits(dx.read(driver.card)).reshape(-1, channels), expected)


@pytest.mark.parametrize(
    ("channels", "outputs", "options", "added"),
    [
        (40, 40, {"bias": True, "method": Method.bdwp(Pattern.N2M8)}, False),
        (20, 30, {"kernel": 3, "padding": 1, "bias": True}, True),
        # Sums of parts of the channels, which can't be interrupted.
        (320, 20, {}, False),
    ],
)
@pytest.mark.parametrize("often", [1, 3, 20])
def test_others_may_take_the_scratchpads_in_between(channels, outputs, options, added, often):
    """Whether much or little is left of what was there, the outputs are the same."""
    random = np.random.default_rng(default_seed())
    layers = [
        Convolution("conv", Input("x", 7, 5, channels), outputs, **options),
        Convolution("large", Input("x", 3, 3, 40), 40, kernel=3, padding=1, bias=True),
        Convolution("small", Input("x", 1, 1, 5), 5),
    ]
    with GoldenCard(TINY) as card:
        driver = Driver(card)
        layer, *others = (_Placed(driver, each, random) for each in layers)
        add = layer.tensor(random, layer.y.shape) if added else None
        results = []
        for interrupts in (False, True):
            assembly = Assembly(Program(TINY))
            steps = layer.schedule(assembly).forward(layer.x, layer.y, add=add)
            pieces = settled = 0
            send = None
            while True:
                try:
                    step = steps.send(send)
                except StopIteration:
                    break
                send = None
                if step == 0:
                    settled += 1
                    other = others[settled % 2]
                    emit(other.schedule(assembly).forward(other.x, other.y))
                elif isinstance(step, int):
                    pieces += 1
                    send = interrupts and pieces % often == 0
            assert settled <= pieces * interrupts and (settled or often > 1 or not interrupts)
            driver.run(assembly.program)
            results.append(_bits(layer.y.read(card)))
            layer.y.clear(card)
    assert results[0].any()
    np.testing.assert_array_equal(*results)


class _Placed:
    """A convolution with its tensors on a card, all of it random."""

    def __init__(self, driver, layer, random):
        self._driver, self._layer = driver, layer
        config = driver.config
        self.x = self.tensor(random, layer.source.shape)
        self.y = Activations(config, driver.memory, config.elements, layer.shape)
        self._tensors = ConvolutionTensors(layer, config, driver.memory, has_backward=False)
        weights = layer.initial_weights(random)
        self._tensors.state.write(driver.card, weights.reshape(self._tensors.state.shape))
        if self._tensors.bias_state is not None:
            bias = random.standard_normal(layer.shape.channels)
            self._tensors.bias_state.write(driver.card, bias)
        zeros = Activations(config, driver.memory, config.elements, Shape(1, 1, 1))
        zeros.clear(driver.card)
        assembly = Assembly(Program(config))
        WeightGradientSchedule(assembly, layer, self._tensors).initialise(zeros)
        assembly.set_step(Step())
        driver.run(assembly.program)

    def tensor(self, random, shape):
        config = self._driver.config
        tensor = Activations(config, self._driver.memory, config.elements, shape)
        sizes = (config.elements, *dataclasses.astuple(shape))
        tensor.write(self._driver.card, random.standard_normal(sizes))
        return tensor

    def schedule(self, assembly):
        return ConvolutionSchedule(assembly, self._layer, self._tensors)


def _bits(values):
    return np.ascontiguousarray(values, np.float16).view(np.uint16)


def _parts(problem, plan, y_taps, x_taps):
    """Yield channels, taps in y and taps in x of each part, in the order of docs/numerics.md."""
    g = problem.config.elements
    for word in range(0, problem.words, plan.words):
        for row in range(0, y_taps, plan.taps[0]):
            for column in range(0, x_taps, plan.taps[1]):
                yield (
                    slice(word * g, (word + plan.words) * g),
                    range(row, min(row + plan.taps[0], y_taps)),
                    range(column, min(column + plan.taps[1], x_taps)),
                )


def _plan_of(config, pattern, products, channels, outputs, images, operands=0):
    g = config.elements
    blocks = (-(-count // g) for count in (channels, outputs, images))
    problem = ConvolutionProblem(config, pattern, tuple(map(tuple, products)), *blocks, operands)
    return problem, plan_convolution(problem)


def _added_up(config, layer, x, weights):
    """Return the sums of a forward product, binary32."""
    pad, k, stride, shape = layer.padding, layer.kernel, layer.stride, layer.shape
    step = stride if k == 1 else 1
    axes = [
        Axis(-pad, stride // step, 1, k, outputs, -(-size // step))
        for outputs, size in ((shape.height, x.shape[1]), (shape.width, x.shape[2]))
    ]
    problem, plan = _plan_of(
        config, layer.method.forward, [axes], layer.inputs, layer.outputs, len(x)
    )
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    total = None
    for channels, rows, columns in _parts(problem, plan, k, k):
        places = [
            padded[
                :,
                r : r + (shape.height - 1) * stride + 1 : stride,
                s : s + (shape.width - 1) * stride + 1 : stride,
                channels,
            ]
            for r in rows
            for s in columns
        ]
        taps = [weights[r, s, channels].T for r in rows for s in columns]
        part = dot(np.concatenate(taps, 1), _matrix(places))
        total = part if total is None else add(total, part)
    return total


def _added_up_backward(config, layer, dy, weights):
    """Return the sums of a backward product, phase by phase, binary32."""
    pad, k, stride = layer.padding, layer.kernel, layer.stride
    source = layer.source.shape
    result = np.zeros((len(dy), source.height, source.width, layer.inputs), np.uint32)
    phases = {}
    for first_y, first_x in itertools.product(range(stride), repeat=2):
        taps_y, taps_x = (
            [r for r in range(k) if (first + pad - r) % stride == 0] for first in (first_y, first_x)
        )
        axes = [
            Axis(
                (first + pad - taps[0]) // stride, 1, -1, len(taps),
                len(range(first, size, stride)), outputs,
            )
            for first, taps, size, outputs in (
                (first_y, taps_y, source.height, dy.shape[1]),
                (first_x, taps_x, source.width, dy.shape[2]),
            )
        ]  # fmt: skip
        phases[first_y, first_x] = taps_y, taps_x, axes
    products = [axes for *_, axes in phases.values()]
    problem, plan = _plan_of(
        config, layer.method.backward, products, layer.outputs, layer.inputs, len(dy), 1
    )
    padded = np.pad(dy, ((0, 0), (k, k), (k, k), (0, 0)))
    for (first_y, first_x), (taps_y, taps_x, (y, x)) in phases.items():
        total = None
        for channels, rows, columns in _parts(problem, plan, len(taps_y), len(taps_x)):
            places = [
                padded[
                    :,
                    k + y.origin - r : k + y.origin - r + y.outputs,
                    k + x.origin - s : k + x.origin - s + x.outputs,
                    channels,
                ]
                for r in rows
                for s in columns
            ]
            taps = [weights[taps_y[r], taps_x[s], :, channels] for r in rows for s in columns]
            part = dot(np.concatenate(taps, 1), _matrix(places))
            total = part if total is None else add(total, part)
        target = result[:, first_y::stride, first_x::stride]
        target[:] = total.reshape(target.shape)
    return result


def _matrix(places):
    """Return the rows of a D operand: every output, with what each tap meets."""
    return np.concatenate([place.reshape(-1, place.shape[-1]) for place in places], 1)


def test_a_layer_without_backward_weights_is_refused():
    bench = _Bench()
    bench.tensors.backward = None
    with pytest.raises(ScheduleError, match="conv, BP: the layer was placed without backward"):
        bench.backward()


def test_patterns_shorten_what_is_loaded():
    methods = Method(), Method.bdwp(Pattern.N2M8)
    dense, sparse = (_Bench(method=method).forward() for method in methods)
    loads = [bench.commands(Opcode.LOAD, LoadTarget.S)[0].descriptor for bench in (dense, sparse)]
    assert [load.beats for load in loads] == [G, Pattern.N2M8.tile_beats(SIM)]
    assert dense.y.shape == Shape(8, 8, 32)
