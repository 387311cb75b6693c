"""How convolutions are cut into blocks, bands and areas, and what doesn't fit."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.errors import ScheduleError
from firmware.layers import ConvolutionTensors
from firmware.model import Convolution, Input, Method, Shape
from firmware.program import Program
from firmware.schedule import Assembly, ConvolutionSchedule, WeightGradientSchedule, emit
from firmware.tensor import Activations
from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.commands import LoadTarget, Opcode
from rtl.sparsity.pattern import Pattern
from sim.golden.program import decode

SIM = dataclasses.replace(PRESETS["sim"], name="test", memory_bytes=1 << 30)
G = SIM.elements


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

    def commands(self, opcode, target=None):
        code = self.assembly.program.encode()
        decoded = [decode(code[i : i + COMMAND_BYTES]) for i in range(0, len(code), COMMAND_BYTES)]
        return [
            command.body
            for command in decoded
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


def _written(config, stores):
    """Return the tiles that STOREs write, in their order."""
    tiles = []
    for body in stores:
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
    tiles = _written(SIM, bench.commands(Opcode.STORE))
    assert len(tiles) == len(set(tiles)) and set(tiles) == expected


def test_images_lie_in_the_scratchpad_once():
    """A kernel of nine taps reads each pixel once, with its frame."""
    bench = _Bench(kernel=3, padding=1, side=(5, 5)).forward()
    (load,) = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert load.rows == 7 * 7 * G and load.descriptor.beats == 5 * 5 * G
    frame = load.frame
    assert (frame.above, frame.lines, frame.below) == (1, 5, 1)
    assert (frame.before, frame.beats, frame.after) == (G, 5 * G, G)
    (compute,) = bench.commands(Opcode.COMPUTE)
    assert compute.d_words == 9 and compute.d_reduction.counts == (1, 3, 3)


def test_bands_leave_room_for_the_next():
    """Half of a scratchpad for each of several bands, all of it for an image in one piece."""
    config = dataclasses.replace(SIM, o_depth=4096)
    bench = _Bench(config, side=(5, 34), kernel=3, padding=1).forward()
    (load,) = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert config.d_depth // 2 < load.rows // config.cols <= config.d_depth
    bench = _Bench(config, images=2 * G, side=(5, 34), kernel=3, padding=1).forward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert all(load.rows // SIM.cols <= SIM.d_depth // 2 for load in loads)
    bench = _Bench(config, side=(20, 20), kernel=3, padding=1).forward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    assert len(loads) > 1
    assert all(load.rows // SIM.cols <= SIM.d_depth // 2 for load in loads)
    bases = [load.base for load in loads]
    assert all(first != second for first, second in itertools.pairwise(bases))
    for body in bench.commands(Opcode.COMPUTE):
        words = body.b_tiles * (SIM.interleave >> body.a_contexts) * body.o_stride
        assert words <= config.o_depth // 2


@pytest.mark.parametrize(
    ("lines", "kernel", "bands"), [(5, 3, 1), (8, 3, 2), (10, 3, 3), (16, 3, 4), (3, 1, 3)]
)
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_first_and_the_last_images_are_cut_finer(blocks, lines, kernel, bands):
    """Bands no smaller than a kernel; those of the images between are whole."""
    config = dataclasses.replace(SIM, d_depth=4096, o_depth=2048)
    sizes = {"side": (lines, 4), "kernel": kernel, "padding": kernel // 2}
    bench = _Bench(config, images=blocks * G, **sizes).forward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    found = [(load.descriptor.address - bench.x.address) // bench.x.block_bytes for load in loads]
    assert found == [0] * bands + list(range(1, blocks - 1)) + [blocks - 1] * (bands * (blocks > 1))


@pytest.mark.parametrize(
    ("side", "stride", "phases"), [((8, 8), 2, 4), ((9, 7), 2, 4), ((9, 9), 3, 9)]
)
def test_phases_share_what_they_load_of_the_gradient(side, stride, phases):
    """Of a backward product with a stride: each band once, whatever meets it."""
    bench = _Bench(side=side, kernel=3, stride=stride, padding=1, channels=64).backward()
    loads = bench.commands(Opcode.LOAD, LoadTarget.D)
    computes = bench.commands(Opcode.COMPUTE)
    places = [(load.base, load.base + load.rows // SIM.cols) for load in loads]
    assert len(computes) >= 2 * phases and len(loads) * 2 * phases >= len(computes)
    for body in computes:
        assert any(start <= body.d_base < stop for start, stop in places)
    shape = bench.y.shape
    tiles = sum(load.descriptor.beats for load in loads) // G
    # Neighbouring bands share a line, if a kernel meets two.
    assert shape.positions <= tiles <= shape.positions + (len(loads) - 1) * shape.width


def test_operands_are_loaded_before_what_is_masked_by():
    """AUX has room for the next only as STOREs end: the next product's weights don't wait."""
    bench = _Bench(channels=96, side=(5, 5), kernel=3, padding=1)
    bench.backward(mask=bench.x)
    targets = [body.target for body in bench.commands(Opcode.LOAD)]
    s, aux = LoadTarget.S.value, LoadTarget.AUX.value
    weights = [index for index, target in enumerate(targets) if target == s]
    masks = [index for index, target in enumerate(targets) if target == aux]
    assert len(weights) == 3 and weights[1] < masks[0] and masks[-1] > weights[2]
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
        ("forward", {"channels": 512, "kernel": 3}, {}, "conv, FF: needs 1152 words of the S"),
        ("backward", {"outputs": 512, "kernel": 3}, {}, "conv, BP: needs 1152 words of the S"),
        (
            "update", {"kernel": 5}, {"d_depth": 64},
            "conv, WU: needs 100 words of the D scratchpad, configuration 'test' has 64",
        ),
        ("update", {"bias": True}, {"o_depth": 16, "cols": 4}, "conv, WU: needs 18 words of the O"),
        (
            "update", {}, {"bin_bits": 42, "accumulator_bits": 45, "ratio": 4},
            "conv, WU: a pixel takes 4 additions in a lane, the accumulators of configuration",
        ),
        ("forward", {"side": (4, 300)}, {}, "conv, FF: needs 1200 words of the D scratchpad"),
        (
            "forward", {"side": (4, 200)}, {},
            "conv, FF: needs 1600 words of the O scratchpad, configuration 'test' has 512",
        ),
        (
            "forward", {"channels": 1056}, {"accumulator_bits": 51},
            "conv, FF: the reduction takes 132 additions in a lane",
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


def test_a_band_beyond_the_image_has_its_room():
    """The last line of the input meets no line of the gradient; one is loaded all the same."""
    sizes = {"side": (5, 5), "kernel": 3, "stride": 3, "outputs": 64}
    for depth in (32, 64):
        bench = _Bench(dataclasses.replace(SIM, d_depth=depth), **sizes).backward()
        for load in bench.commands(Opcode.LOAD, LoadTarget.D):
            assert load.base + load.rows // SIM.cols * load.d_words <= depth
    with pytest.raises(ScheduleError, match="conv, BP: needs 32 words of the D scratchpad"):
        _Bench(dataclasses.replace(SIM, d_depth=16), **sizes).backward()


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
