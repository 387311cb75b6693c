"""Layers of transformers on cards, against the same computation on whole images in binary64."""

import dataclasses
import re

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.errors import ScheduleError
from firmware.model import (
    GELU,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    LayerNorm,
    MaxPool,
    Method,
    Model,
    PositionEmbedding,
    Shape,
    linear,
)
from firmware.network import Network
from firmware.tokens import TokenActivations, token_layers
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern
from tests.firmware.test_network import _check, _train_blindly
from tests.harness import default_seed

TINY = PRESETS["tiny"]
ROOMY = dataclasses.replace(TINY, name="roomy", memory_bytes=16 << 20)
G = TINY.elements
BDWP = Method.bdwp(Pattern.N2M8)


def _with_head(*layers):
    """Return a network of `layers` and, behind them, those that make logits."""
    if layers[-1].shape.positions > 1:
        layers = (*layers, GlobalAveragePool("mean", layers[-1]))
    return Model("model", (*layers, linear("classes", layers[-1], 5)))


def _gelu():
    """Whole and partial words of channels, and behind a ReLU."""
    image = Input("image", 3, 2, 5)
    first = Convolution("first", image, G + 4, bias=True)
    gelu = GELU("gelu", first)
    second = Convolution("second", gelu, 7, rectified=True)
    return _with_head(image, first, gelu, second, GELU("last", second))


def _layer_norm():
    image = Input("image", 3, 3, 5)
    first = Convolution("first", image, G + 4, bias=True)
    norm = LayerNorm("norm", first)
    second = Convolution("second", norm, G, rectified=True)
    return _with_head(image, first, norm, second, LayerNorm("last", second, epsilon=1e-6))


def _positions(height, width):
    image = Input("image", height, width, 5)
    first = Convolution("first", image, G + 4, bias=True)
    positions = PositionEmbedding("positions", first)
    return _with_head(image, first, positions, Convolution("second", positions, G))


def _attention(height, width, heads):
    """Queries, keys and values as wide as two heads, or one."""
    image = Input("image", height, width, 5)
    projection = Convolution("projection", image, 6 * G, bias=True)
    attention = Attention("attention", projection, heads=heads)
    return _with_head(image, projection, attention, Convolution("outputs", attention, 20))


def _there_and_back():
    """Layers of both layouts that take each other's outputs, and those of both."""
    image = Input("image", 4, 5, 3 * G)
    attention = Attention("attention", image)
    pool = MaxPool("pool", attention, window=3, stride=1, padding=1)
    positions = PositionEmbedding("positions", pool)
    norm = BatchNorm("norm", positions, rectified=True)
    both = Convolution("both", positions, G, add=norm, rectified=True)
    total = Addition("total", norm, both)
    return _with_head(image, attention, pool, positions, norm, both, total)


def transformer(height, width):
    """A block of a vision transformer."""
    image = Input("image", 2 * height, 2 * width, 3)
    patches = Convolution("patches", image, 2 * G, kernel=2, stride=2, bias=True)
    x = PositionEmbedding("positions", patches)
    first = LayerNorm("attention norm", x, epsilon=1e-6)
    projection = Convolution("projection", first, 6 * G, bias=True, method=BDWP)
    attention = Attention("attention", projection, heads=2)
    y = Convolution("attention outputs", attention, 2 * G, bias=True, add=x, method=BDWP)
    second = LayerNorm("mlp norm", y, epsilon=1e-6)
    hidden = Convolution("hidden", second, 3 * G, bias=True, method=BDWP)
    gelu = GELU("gelu", hidden)
    z = Convolution("mlp outputs", gelu, 2 * G, bias=True, add=y, method=BDWP)
    last = LayerNorm("norm", z, epsilon=1e-6)
    layers = (*(image, patches, x, first, projection, attention, y, second), hidden, gelu, z, last)
    return _with_head(*layers)


MODELS = {
    "GELU": _gelu,
    "layer normalisation": _layer_norm,
    "positions of whole tiles": lambda: _positions(4, 4),
    "positions": lambda: _positions(6, 3),
    "attention of one tile": lambda: _attention(4, 4, 2),
    "attention of less than a tile": lambda: _attention(3, 3, 2),
    "attention of several tiles": lambda: _attention(5, 7, 1),
    "both layouts": _there_and_back,
    "transformer": lambda: transformer(5, 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers(name):
    """Steps with fewer images than there is room for and with all; then what is learned is used."""
    rng = np.random.default_rng(default_seed())
    model = MODELS[name]()
    normalised = any(isinstance(layer, BatchNorm) for layer in model.layers)
    with GoldenCard(ROOMY) as card:
        _check(card, model, 6, rng, (6 if normalised else 3, 6))


@pytest.mark.parametrize("preset", ["sim", "vcu1525-1k", "ulx3s"])
def test_layers_on_other_configurations(preset):
    """Words of 32 channels, on arrays that are wider than an image has tokens; and of 8."""
    rng = np.random.default_rng(default_seed())
    image = Input("image", 6, 6, 3)
    patches = Convolution("patches", image, 96, bias=True)
    positions = PositionEmbedding("positions", patches)
    norm = LayerNorm("norm", positions)
    attention = Attention("attention", norm)
    gelu = GELU("gelu", attention)
    config = PRESETS[preset]
    roomy = dataclasses.replace(config, memory_bytes=max(config.memory_bytes, 1 << 20))
    with GoldenCard(roomy) as card:
        _check(card, _with_head(image, patches, positions, norm, attention, gelu), 3, rng, (3,))


@pytest.mark.parametrize("name", ["attention of several tiles", "transformer"])
def test_gateware(name):
    """All of memory is the golden card's after two steps, whenever memory stalls."""
    rng = np.random.default_rng(default_seed())
    model = MODELS[name]() if name != "transformer" else transformer(3, 3)
    timing = MemoryTiming(latency=20, bandwidth=0.8, stall=0.2, seed=int(rng.integers(1 << 16)))
    seed = int(rng.integers(1 << 32))
    with GoldenCard(TINY) as card:
        expected = _train_blindly(card, model, 2, seed)
    with VerilatedCard(TINY, timing=timing) as card:
        memory = _train_blindly(card, model, 2, seed)
    different = np.flatnonzero(memory != expected)
    assert not len(different), (
        f"{len(different)} bytes from {different[0]:#x} on, {timing}, SAT_SEED={default_seed()}"
    )


def test_token_activations_hold_images():
    """What is written can be read, and lies where the tiles of the layout say."""
    rng = np.random.default_rng(default_seed())
    images = rng.standard_normal((3, 4, 5, G + 3)).astype(np.float16)
    with GoldenCard(TINY) as card:
        tensor = TokenActivations(
            TINY, Allocator(TINY.memory_bytes, TINY.beat_bytes), 4, Shape(4, 5, G + 3)
        )
        tensor.write(card, images)
        read = tensor.read(card)
        np.testing.assert_array_equal(read[:3], images)
        assert not read[3].any()
        # Token 17 is row 1 of the second tile, channel 16 column 0 of the second word.
        address = tensor.tile(0, 2, 1, 1) + TINY.beat_bytes
        row = card.read_memory(address, TINY.beat_bytes).view(np.float16)
        np.testing.assert_array_equal(row[:3], images[2, 3, 2, G:])
        assert not row[3:].any()
        with pytest.raises(ValueError, match=re.escape("room for 4 images 4 x 5 x 19, got")):
            tensor.write(card, images[:, :3])


def test_layers_on_tokens():
    """Those behind attention or positions, as long as they work on each token by itself."""
    model = _there_and_back()
    chosen = {layer.name for layer in token_layers(model)}
    assert chosen == {"attention", "positions", "both"}
    vision = transformer(3, 3)
    outside = {layer.name for layer in set(vision.layers) - token_layers(vision)}
    assert outside == {"image", "patches", "mean", "classes"}


def test_heads_that_do_not_fit_are_refused():
    """Their name and the scratchpad are in the message."""
    model = _attention(16, 17, 2)
    with GoldenCard(ROOMY) as card:
        message = r"attention, FF: needs \d+ words of the \w scratchpad, configuration 'roomy' has"
        with pytest.raises(ScheduleError, match=message):
            Network(Driver(card), model, 1)
