"""Networks before any card: shapes, order, and what is refused."""

import re

import numpy as np
import pytest

from firmware.errors import ModelError
from firmware.model import (
    DENSE,
    GELU,
    METHOD_KINDS,
    METHODS,
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
from rtl.control.commands import Stage
from rtl.sparsity.pattern import Pattern

IMAGE = Input("image", 7, 10, 3)
PIXEL = Input("pixel", 1, 1, 5)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (7, 10)),
        ({"kernel": 3}, (5, 8)),
        ({"kernel": 3, "padding": 1}, (7, 10)),
        ({"kernel": 3, "padding": 2, "stride": 2}, (5, 6)),
        ({"stride": 3}, (3, 4)),
        ({"kernel": 7, "stride": 20}, (1, 1)),
    ],
)
def test_convolutions_have_the_places_of_their_kernel(options, size):
    layer = Convolution("conv", IMAGE, 8, **options)
    assert layer.shape == Shape(*size, 8)
    kernel = options.get("kernel", 1)
    assert (layer.inputs, layer.taps) == (3, kernel**2)
    products = size[0] * size[1] * kernel**2 * 3 * 8
    assert [layer.macs(stage) for stage in Stage] == [products, products, products, 0]
    assert layer.parameters == kernel**2 * 3 * 8
    weights = layer.initial_weights(np.random.default_rng(0))
    assert weights.shape == (kernel, kernel, 3, 8) and weights.dtype == np.float32


def test_other_layers_shapes():
    assert MaxPool("pool", IMAGE, window=3, stride=3).shape == Shape(2, 3, 3)
    assert MaxPool("pool", IMAGE, window=3, stride=2, padding=1).shape == Shape(4, 5, 3)
    assert MaxPool("pool", IMAGE, window=3, stride=1).shape == Shape(5, 8, 3)
    assert MaxPool("pool", IMAGE, padding=1).shape == Shape(4, 6, 3)
    assert GlobalAveragePool("mean", IMAGE).shape == Shape(1, 1, 3)
    for same in (LayerNorm, GELU, PositionEmbedding, BatchNorm):
        assert same("same", IMAGE).shape == IMAGE.shape
    assert Addition("sum", IMAGE, IMAGE).shape == IMAGE.shape
    assert Attention("attention", Input("qkv", 4, 5, 48), heads=2).shape == Shape(4, 5, 16)
    assert linear("linear", PIXEL, 4).shape == Shape(1, 1, 4)
    assert str(IMAGE.shape) == "7 x 10 x 3" and IMAGE.shape.positions == 70


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        # Of 21 inputs and 18 outputs, whose last groups aren't full.
        (DENSE, (21 * 18, 21 * 18)),
        (Method.ff(Pattern.N2M8), ((2 * 2 + 2) * 18, 21 * 18)),
        (Method.bp(Pattern.N1M4), (21 * 18, 21 * 5)),
        (Method.bdwp(Pattern.N4M8), ((2 * 4 + 4) * 18, 21 * (2 * 4 + 2))),
    ],
    ids=str,
)
def test_pruning_leaves_some_multiply_adds(method, kept):
    source = Input("image", 3, 5, 21)
    layer = Convolution("conv", source, 18, kernel=3, padding=1, method=method)
    stages = [layer.kept_macs(stage) for stage in Stage]
    assert stages == [15 * 9 * kept[0], 15 * 9 * kept[1], 15 * 9 * 21 * 18, 0]


def test_attention_multiplies_activations():
    """Of every head's products forward, twice as many backward, and none for weights."""
    layer = Attention("attention", Input("qkv", 4, 5, 3 * 48), heads=3)
    assert [layer.macs(stage) for stage in Stage] == [
        2 * 3 * 20 * 20 * 16, 4 * 3 * 20 * 20 * 16, 0, 0
    ]  # fmt: skip
    assert all(layer.kept_macs(stage) == layer.macs(stage) for stage in Stage)
    sizes = {(product.rows, product.columns, product.reduction) for product in layer.products}
    assert sizes == {(20, 20, 16), (20, 16, 20)}
    assert {product.count for product in layer.products} == {3}
    assert layer.parameters == 0


def test_what_is_learned_is_counted():
    assert Convolution("conv", IMAGE, 8, kernel=3, bias=True).parameters == 27 * 8 + 8
    assert BatchNorm("norm", IMAGE).parameters == LayerNorm("norm", IMAGE).parameters == 6
    assert PositionEmbedding("positions", IMAGE).parameters == 210
    for layer in (
        IMAGE,
        GELU("gelu", IMAGE),
        MaxPool("pool", IMAGE),
        Addition("sum", IMAGE, IMAGE),
    ):
        assert layer.parameters == 0 and not any(layer.macs(stage) for stage in Stage)


def test_methods_have_names():
    names = ["dense", "ff-2:8", "bp-2:8", "bdwp-2:4", "bdwp-2:8", "bdwp-1:8"]
    assert [str(method) for method in METHODS] == names
    assert [Method.parse(name) for name in names] == list(METHODS)
    assert Method.parse("ff-2:8") == Method(Pattern.N2M8, Pattern.DENSE)
    assert Method.parse("bp-1:4") == Method(Pattern.DENSE, Pattern.N1M4)
    assert Method.parse("bdwp-2:8") == Method(Pattern.N2M8, Pattern.N2M8)
    assert str(Method(Pattern.N2M8, Pattern.N1M8)) == "ff-2:8 bp-1:8"
    assert METHOD_KINDS["bdwp"](Pattern.DENSE) == DENSE
    for name, message in (
        ("sgd-2:8", "no training method 'sgd-2:8'; choose from: dense, bdwp-N:M, ff-N:M, bp-N:M"),
        ("ff", "no training method 'ff': no N:M pattern ''; choose from: dense, 1:4"),
        ("bdwp-3:8", "no training method 'bdwp-3:8': no N:M pattern '3:8'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Method.parse(name)


def test_initial_weights_keep_the_size_of_activations():
    layer = Convolution("conv", Input("image", 9, 9, 64), 64, kernel=3)
    weights = layer.initial_weights(np.random.default_rng(0))
    assert weights.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.05)


def test_which_outputs_have_gone_through_a_relu():
    rectified = Convolution("conv", IMAGE, 3, rectified=True)
    assert rectified.relu and not Convolution("conv", IMAGE, 3).relu
    assert BatchNorm("norm", IMAGE, rectified=True).relu and not BatchNorm("norm", rectified).relu
    # A maximum of what isn't negative isn't negative.
    assert MaxPool("pool", rectified).relu and MaxPool("pool", IMAGE, rectified=True).relu
    assert not MaxPool("pool", IMAGE).relu
    assert not GlobalAveragePool("mean", rectified).relu
    assert Addition("sum", IMAGE, IMAGE, rectified=True).relu
    assert not Addition("sum", rectified, rectified).relu and not GELU("gelu", rectified).relu


def test_gradients_go_as_far_as_something_learns():
    pool = MaxPool("pool", IMAGE)
    norm = BatchNorm("norm", pool)
    conv = Convolution("conv", norm, 4)
    mean = GlobalAveragePool("mean", conv)
    model = Model("model", (IMAGE, pool, norm, conv, mean, linear("classes", mean, 2)))
    passes = [model.passes_gradient(layer) for layer in model.layers]
    assert passes == [False, False, True, True, True, True]
    assert (model.input, model.logits) == (IMAGE, model.layers[-1])
    assert model.convolutions == (conv, model.logits)
    assert model.parameters == 2 * 3 + 3 * 4 + (4 * 2 + 2)
    # Everything but the pool and the normalisation has a BP, as the latter learns.
    assert [model.has_stage(layer, Stage.BP) for layer in model.layers] == [
        False, False, False, True, True, True
    ]  # fmt: skip
    assert [model.macs(stage) for stage in Stage] == [15 * 3 * 4 + 8] * 3 + [0]
    conv = Convolution("conv", IMAGE, 4)
    mean = GlobalAveragePool("mean", conv)
    model = Model("model", (IMAGE, conv, mean, linear("classes", mean, 2)))
    assert [model.macs(stage) for stage in Stage] == [70 * 3 * 4 + 8, 8, 70 * 3 * 4 + 8, 0]


def test_layers_are_written_with_the_names_of_others():
    """Though a graph has more paths than could ever be written down."""
    layers = [IMAGE]
    for index in range(100):
        layers.append(Addition(f"sum {index}", layers[-1], layers[-1]))
    text = "Addition(name='sum 99', source='sum 98', add='sum 98', rectified=False)"
    assert repr(layers[-1]) == text


def test_an_unfolded_convolution_has_one_tap():
    layer = Convolution("conv", IMAGE, 8, kernel=3, stride=2, padding=1, bias=True, rectified=True)
    flat = layer.unfolded()
    assert (flat.taps, flat.inputs, flat.shape) == (1, 27, layer.shape)
    assert flat.bias and flat.relu and flat.name == layer.name
    assert flat.macs(Stage.FF) == layer.macs(Stage.FF)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Input("x", 0, 1, 1), "layer 'x': its output has a height of 0"),
        (lambda: Input("x", 1, 1, -1), "layer 'x': its output has a depth of -1"),
        (lambda: Convolution("x", IMAGE, 0), "layer 'x': outputs is 0, must be at least 1"),
        (lambda: Convolution("x", IMAGE, 1, kernel=0), "layer 'x': kernel is 0"),
        (lambda: Convolution("x", IMAGE, 1, stride=0), "layer 'x': stride is 0"),
        (lambda: Convolution("x", IMAGE, 1, padding=-1), "layer 'x': padding is -1"),
        (lambda: Convolution("x", IMAGE, 1, padding=1), "padding is 1, must be less than the"),
        (lambda: Convolution("x", IMAGE, 1, kernel=8), "layer 'x': a kernel of 8 doesn't fit an "
         "image 7 high"),
        (lambda: Convolution("x", Input("y", 9, 2, 1), 1, kernel=3), "fit an image 2 wide"),
        (lambda: Convolution("x", IMAGE, 4, add=IMAGE), "layer 'x': its output is 7 x 10 x 4, what "
         "is added is 7 x 10 x 3"),
        (lambda: BatchNorm("x", IMAGE, add=PIXEL), "layer 'x': its output is 7 x 10 x 3, what is "
         "added is 1 x 1 x 5"),
        (lambda: MaxPool("x", IMAGE, window=1), "layer 'x': window is 1, must be at least 2"),
        (lambda: MaxPool("x", IMAGE, stride=0), "layer 'x': stride is 0, must be at least 1"),
        (lambda: MaxPool("x", IMAGE, padding=-1), "layer 'x': padding is -1, must be at least 0"),
        (lambda: MaxPool("x", IMAGE, padding=2), "layer 'x': padding is 2, must be at most half "
         "the window, 2"),
        (lambda: MaxPool("x", IMAGE, window=8), "layer 'x': its output has a height of 0"),
        (lambda: MaxPool("x", IMAGE, window=12), "layer 'x': its output has a height of 0"),
        (lambda: Addition("x", IMAGE, PIXEL), "layer 'x': its output is 7 x 10 x 3, what is added "
         "is 1 x 1 x 5"),
        (lambda: Attention("x", IMAGE, heads=0), "layer 'x': heads is 0, must be at least 1"),
        (lambda: Attention("x", IMAGE, heads=2), "layer 'x': 3 channels aren't queries, keys and "
         "values of 2 heads: must be a multiple of 6"),
        (lambda: linear("x", IMAGE, 2), "layer 'x': a fully connected layer takes images of one "
         "pixel, 'image' gives 7 x 10 x 3"),
    ],
)  # fmt: skip
def test_impossible_layers_are_refused(make, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "network 'n': the first layer must be the input"),
        ((linear("a", PIXEL, 2),), "network 'n': the first layer must be the input"),
        ((PIXEL, linear("a", PIXEL, 2), linear("a", PIXEL, 2)), "there are two layers 'a'"),
        ((PIXEL, IMAGE), "layer 'image' is a second input"),
        ((PIXEL, linear("b", linear("a", PIXEL, 2), 2)), "layer 'b': 'a' isn't a layer before it"),
        (
            (PIXEL, linear("b", Input("pixel", 1, 1, 5), 2)),
            "layer 'b': 'pixel' isn't a layer before it",
        ),
        ((PIXEL, linear("a", PIXEL, 2), linear("b", PIXEL, 2)), "layer 'a': nothing takes its"),
        ((IMAGE, Convolution("a", IMAGE, 2)), "layer 'a': the last layer gives logits, a"),
        ((PIXEL, linear("a", PIXEL, 2, rectified=True)), "without ReLU; its output is 1 x 1 x 2"),
        ((PIXEL, linear("a", PIXEL, 5, add=PIXEL)), "layer 'a': the last layer gives logits"),
        ((IMAGE, GlobalAveragePool("a", IMAGE)), "layer 'a': the last layer gives logits"),
    ],
)
def test_impossible_networks_are_refused(layers, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        Model("n", layers)
