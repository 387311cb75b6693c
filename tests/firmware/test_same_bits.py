"""Training gives the same bits on every configuration, card and memory."""

import dataclasses
import functools
import operator

import numpy as np
import pytest

from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.model import (
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    MaxPool,
    Method,
    Model,
    linear,
)
from firmware.network import Network
from firmware.schedule import Step
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern
from tests.harness import default_seed

BDWP = Method.bdwp(Pattern.N2M8)

TINY = PRESETS["tiny"]
TALL = dataclasses.replace(
    TINY, name="tall", rows=8, cols=1, interleave=8, lanes=8, group=16, ratio=8, drain_rows=8,
    s_depth=1024, d_depth=2048, o_depth=1024, aux_depth=1024, accumulator_bits=53,
    memory_bytes=4 << 20,
)  # fmt: skip
"""One column, eight contexts, and beats of 128 bytes, the widest there are."""
QUAD = dataclasses.replace(
    TINY, name="quad", rows=8, channels=4, vector_slices=1, outstanding_reads=16, burst_beats=32
)
"""As large cards: four channels, two ways out of a column, a whole row at once for vectors."""
SHORT = dataclasses.replace(TINY, name="short", cols=4, interleave=8, drain_rows=4)
"""As wide a beat as the smallest preset's, on an array of another shape."""
LEAN = dataclasses.replace(
    TINY, name="lean", ratio=2, vector_slices=8, epilogue_slices=4, update_slices=8,
    stream_queue=0, compressed_stores=0,
)  # fmt: skip
"""As a small device: one lane each for vectors, results and updates, one queue of LOADs, and the
narrowest beats."""
STEPS = 3
SEED = default_seed()


def perceptron():
    image = Input("image", 1, 1, 20)
    first = linear("first", image, 32, rectified=True)
    second = linear("second", first, 32, rectified=True, method=BDWP)
    return Model("perceptron", (image, first, second, linear("third", second, 10)))


def residual():
    """A residual network of all kinds of layers."""
    image = Input("image", 5, 5, 1)
    stem = Convolution("stem", image, 16, kernel=3)
    norm = BatchNorm("norm", stem, rectified=True)
    first = Convolution("first", norm, 16, kernel=3, padding=1, bias=True, method=BDWP)
    second = BatchNorm("second", first, rectified=True, add=norm)
    half = Convolution("half", second, 20, kernel=1, stride=2, method=BDWP)
    third = Convolution("third", half, 20, bias=True, rectified=True, add=half)
    pool = MaxPool("pool", second)
    fourth = Convolution("fourth", pool, 20, kernel=2, padding=1)
    mean, means = GlobalAveragePool("mean", third), GlobalAveragePool("means", fourth)
    join = linear("join", mean, 20, add=means)
    return Model(
        "residual",
        (image, stem, norm, first, second, half, third, pool, fourth, mean, means, join,
         linear("classes", join, 10)),
    )  # fmt: skip


def trained(card, model):
    """Train a small network on `card`.

    Returns what it has learned, unpacked, as the tensors' layout in memory differs with the width
    of a beat but their values must not; all bytes; and the counters.
    """
    random = np.random.default_rng(default_seed())
    network = Network(Driver(card), model, 16)
    network.initialise({layer.name: layer.initial_weights(random) for layer in model.convolutions})
    shape = model.input.shape
    results = []
    for _ in range(STEPS):
        images = random.random((16, shape.height, shape.width, shape.channels))
        loss, forward = network.forward(images, random.integers(0, 10, 16), 64)
        update = Step(rate=0.05, momentum=0.9, decay=5e-4, scale=6)
        results += [forward, network.backward(update)]
        network.apply()
        assert np.isfinite(loss.mean)
    counters = functools.reduce(operator.add, results).counters
    state = {
        f"{layer.name} {block} {name}": values.view(np.uint32)
        for layer, tensors in network.tensors.items()
        for block in ("state", "bias_state", "records")
        if getattr(tensors, block, None) is not None
        for name, values in getattr(tensors, block).read(card).items()
    }
    return state, network.snapshot(), counters


@functools.cache
def golden(config, make):
    """Return what `trained` does on the golden card."""
    with GoldenCard(config) as card:
        return trained(card, make())


def _assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=f"{name}, seed {SEED}")


@pytest.mark.parametrize(
    "config", [PRESETS["sim"], PRESETS["sim-wide"], TALL], ids=lambda c: c.name
)
def test_configurations_agree(config):
    """Array shape, lanes and interleave change no weight, momentum or bias."""
    _assert_equal(golden(config, perceptron)[0], golden(TINY, perceptron)[0])


@pytest.mark.parametrize(
    "configs", [(TINY, SHORT), (PRESETS["sim"], PRESETS["sim-wide"])],
    ids=lambda pair: " and ".join(config.name for config in pair),
)  # fmt: skip
def test_configurations_of_one_width_agree(configs):
    """Sums in the vector unit run in the order of tiles, and so depend on the width of a beat."""
    first, second = configs
    assert first.elements == second.elements
    _assert_equal(golden(first, residual)[0], golden(second, residual)[0])


@pytest.mark.parametrize("make", [perceptron, residual], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "config", [TINY, pytest.param(TALL, marks=pytest.mark.long), QUAD, LEAN],
    ids=lambda config: config.name,
)  # fmt: skip
def test_gateware_agrees_under_stalls(config, make):
    """Gateware of some shapes, with random AXI stalls, leaves the golden card's very bytes."""
    timing = MemoryTiming(latency=17, bandwidth=0.7, stall=0.3, seed=SEED)
    with VerilatedCard(config, timing=timing) as card:
        state, snapshot, counters = trained(card, make())
    expected, expected_bytes, expected_counters = golden(config, make)
    _assert_equal(state, expected)
    # Where what lies in memory depends on the width of a beat.
    _assert_equal(snapshot, expected_bytes)
    for name, count in expected_counters.items():
        if name.startswith("MAC_SLOTS") or name.endswith("_MACS"):
            assert counters[name] == count, name
    macs = sum(counters[f"{kind}_MACS"] for kind in ("USEFUL", "EDGE", "FILLER"))
    lost = sum(counters[f"LOST_{cause}"] for cause in ("FILL", "DRAIN", "OPERAND"))
    assert macs + config.macs * lost == config.macs * counters["CYCLES"]
