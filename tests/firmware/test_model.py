"""Networks before any card: shapes, order, and what is refused."""

import re

import numpy as np
import pytest

from firmware.errors import ModelError
from firmware.model import (
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    MaxPool,
    Model,
    Shape,
    linear,
)
from firmware.models import perceptron, residual_cnn
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
    layer = Convolution("conv", IMAGE, 8, pattern=Pattern.N2M8, **options)
    assert layer.shape == Shape(*size, 8)
    kernel = options.get("kernel", 1)
    assert (layer.inputs, layer.taps) == (3, kernel**2)
    assert layer.products == size[0] * size[1] * kernel**2 * 3 * 8
    assert layer.kept_products == layer.products // 4
    weights = layer.initial_weights(np.random.default_rng(0))
    assert weights.shape == (kernel, kernel, 3, 8) and weights.dtype == np.float32


def test_other_layers_shapes():
    assert MaxPool("pool", IMAGE, window=3).shape == Shape(2, 3, 3)
    assert GlobalAveragePool("mean", IMAGE).shape == Shape(1, 1, 3)
    assert BatchNorm("norm", IMAGE).shape == IMAGE.shape
    assert linear("linear", PIXEL, 4).shape == Shape(1, 1, 4)
    assert str(IMAGE.shape) == "7 x 10 x 3" and IMAGE.shape.positions == 70


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


def test_an_unfolded_convolution_has_one_tap():
    layer = Convolution("conv", IMAGE, 8, kernel=3, stride=2, padding=1, bias=True, rectified=True)
    flat = layer.unfolded()
    assert (flat.taps, flat.inputs, flat.shape) == (1, 27, layer.shape)
    assert flat.bias and flat.relu and flat.name == layer.name
    assert flat.products == layer.products


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
        (lambda: MaxPool("x", IMAGE, window=8), "layer 'x': its output has a height of 0"),
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


def test_ready_made_networks():
    mlp = perceptron(Shape(8, 8, 1), 10, (32, 24), Pattern.N2M8)
    assert [layer.shape.channels for layer in mlp.layers] == [64, 32, 24, 10]
    assert [layer.relu for layer in mlp.convolutions] == [True, True, False]
    patterns = [layer.pattern for layer in mlp.convolutions]
    assert patterns == [Pattern.DENSE, Pattern.N2M8, Pattern.DENSE]
    cnn = residual_cnn(Shape(8, 8, 1), 10, (16, 32, 32), Pattern.N2M8)
    shapes = {layer.name: layer.shape for layer in cnn.layers}
    assert shapes["pool"] == Shape(4, 4, 16) and shapes["block 2 second norm"] == Shape(2, 2, 32)
    assert shapes["block 3 second norm"] == Shape(1, 1, 32)
    # A skip of the same shape is taken as it is.
    assert "block 1 skip" not in shapes and {"block 2 skip", "block 3 skip"} < shapes.keys()
    dense = [layer.name for layer in cnn.convolutions if layer.pattern is Pattern.DENSE]
    assert dense == ["stem", "classes"]
