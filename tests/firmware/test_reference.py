"""The reference itself, against finite differences of the loss."""

import numpy as np
import pytest

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
    Model,
    PositionEmbedding,
    linear,
)
from tests.firmware.reference import Reference
from tests.harness import default_seed

IMAGES = 5
STEP = 1e-6


def _image(height, width, channels):
    # What goes before every layer learns, so that its input has a gradient too.
    image = Input("image", height, width, channels)
    return [image, Convolution("before", image, channels, bias=True)]


def _one(make, height=4, width=5, channels=3):
    """Return a network of one layer."""
    layers = _image(height, width, channels)
    return [*layers, make(layers[-1])]


def _add(kind, *, rectified):
    """Return a network whose last layer adds the output of another."""
    layers = _image(3, 4, 3)
    source = layers[-1]
    layers.append(Convolution("skip", source, 3))
    if kind == "convolution":
        last = Convolution(
            "last", source, 3, kernel=3, padding=1, add=layers[-1], rectified=rectified
        )
    else:
        last = BatchNorm("last", source, add=layers[-1], rectified=rectified)
    return [*layers, last]


def _residual():
    """Return a residual network of all kinds of layers, with outputs that several take."""
    layers = _image(6, 7, 2)
    layers.append(Convolution("stem", layers[-1], 4, kernel=3, padding=1, bias=True))
    layers.append(BatchNorm("stem norm", layers[-1], rectified=True))
    layers.append(MaxPool("pool", layers[-1]))
    pool = layers[-1]
    layers.append(Convolution("skip", pool, 3, stride=2))
    skip = layers[-1]
    layers.append(Convolution("first", pool, 3, kernel=3, padding=1, stride=2))
    layers.append(BatchNorm("first norm", layers[-1], rectified=True))
    layers.append(Convolution("second", layers[-1], 3, kernel=3, padding=1, bias=True, add=skip))
    layers.append(BatchNorm("second norm", layers[-1], rectified=True, add=skip))
    return layers


def _sums():
    """Sums of an output and what was made of it, and of one with itself."""
    layers = _image(3, 4, 3)
    layers.append(Convolution("first", layers[-1], 3, rectified=True))
    layers.append(Addition("sum", layers[-2], layers[-1]))
    return [*layers, Addition("twice", layers[-1], layers[-1], rectified=True)]


def _linear(add=False):
    layers = _image(1, 1, 6)
    return [
        *layers,
        linear("hidden", layers[-1], 6, rectified=True, add=layers[0] if add else None),
    ]


NETWORKS = {
    "convolution 1x1": lambda: _one(lambda x: Convolution("conv", x, 4)),
    "convolution 3x3": lambda: _one(lambda x: Convolution("conv", x, 4, kernel=3)),
    "convolution strided": lambda: _one(lambda x: Convolution("conv", x, 4, kernel=3, stride=2)),
    "convolution 1x1 strided": lambda: _one(lambda x: Convolution("conv", x, 4, stride=2)),
    "convolution padded": lambda: _one(lambda x: Convolution("conv", x, 4, kernel=3, padding=2)),
    "convolution strided and padded": lambda: _one(
        lambda x: Convolution("conv", x, 4, kernel=3, stride=3, padding=1)
    ),
    "linear": _linear,
    "linear with an addition": lambda: _linear(add=True),
    "bias": lambda: _one(lambda x: Convolution("conv", x, 4, kernel=2, bias=True)),
    "ReLU": lambda: _one(lambda x: Convolution("conv", x, 4, kernel=2, rectified=True)),
    "addition to a convolution": lambda: _add("convolution", rectified=False),
    "addition to a convolution with ReLU": lambda: _add("convolution", rectified=True),
    "addition to a normalisation": lambda: _add("norm", rectified=False),
    "addition to a normalisation with ReLU": lambda: _add("norm", rectified=True),
    "maximum": lambda: _one(lambda x: MaxPool("pool", x)),
    "maximum with ReLU": lambda: _one(
        lambda x: MaxPool("pool", x, window=3, stride=3, rectified=True)
    ),
    "mean": lambda: _one(lambda x: GlobalAveragePool("mean of all", x)),
    "normalisation": lambda: _one(lambda x: BatchNorm("norm", x)),
    "normalisation with ReLU": lambda: _one(lambda x: BatchNorm("norm", x, rectified=True)),
    "maximum of windows that overlap": lambda: _one(
        lambda x: MaxPool("pool", x, window=3, stride=2, padding=1), 6, 7
    ),
    "maximum of windows apart": lambda: _one(lambda x: MaxPool("pool", x, stride=3), 6, 7),
    "normalisation of tokens": lambda: _one(lambda x: LayerNorm("norm", x)),
    "GELU": lambda: _one(lambda x: GELU("gelu", x)),
    "positions": lambda: _one(lambda x: PositionEmbedding("positions", x)),
    "attention": lambda: _one(lambda x: Attention("attention", x, heads=2), 2, 3, 18),
    "additions": _sums,
    "residual network": _residual,
}


def _network(layers):
    side = min(layers[-1].shape.height, layers[-1].shape.width)
    if layers[-1].shape.positions > 1:
        # Unlike a mean, another weight for every pixel.
        layers.append(Convolution("pixels", layers[-1], 4, kernel=side))
    if layers[-1].shape.positions > 1:
        layers.append(GlobalAveragePool("mean", layers[-1]))
    return Model("model", (*layers, linear("classes", layers[-1], 4)))


def _reference(model, rng):
    reference = Reference(
        model, {layer.name: layer.initial_weights(rng) for layer in model.convolutions}, half=False
    )
    for (_, name), values in reference.parameters.items():
        if name != "weights":
            values += 0.3 * rng.standard_normal(values.shape)
    return reference


def _assert_slope(loss, value, index, gradient, what):
    """Compare one element of a gradient with the difference that a small step makes."""
    before = value[index]
    rises = []
    for step in (STEP, -STEP):
        value[index] = before + step
        rises.append(loss())
    value[index] = before
    slope = (rises[0] - rises[1]) / (2 * STEP)
    assert gradient == pytest.approx(slope, rel=1e-4, abs=1e-8), what


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_derivatives(name):
    """Those of all parameters and of the images, at random gains and shifts."""
    rng = np.random.default_rng(default_seed())
    model = _network(NETWORKS[name]())
    reference = _reference(model, rng)
    shape = model.input.shape
    images = rng.standard_normal((IMAGES, shape.height, shape.width, shape.channels))
    labels = rng.integers(0, 4, IMAGES)

    def loss():
        reference.forward(images, labels)
        return reference.loss

    loss()
    reference.backward()
    gradients = [(f"{layer.name} {part}", value, reference.slopes[layer, part])
                 for (layer, part), value in reference.parameters.items()]  # fmt: skip
    gradients.append(("images", images, reference.gradients[model.input]))
    for part, value, gradient in gradients:
        assert value.shape == gradient.shape
        for _ in range(6):
            index = tuple(rng.integers(value.shape))
            message = f"{part}{index}, SAT_SEED={default_seed()}"
            _assert_slope(loss, value, index, gradient[index], message)


def test_loss_is_scaled_and_a_mean():
    """The gradient of every logit: probability less label, over the images, times the scale."""
    rng = np.random.default_rng(default_seed())
    model = _network(_image(1, 1, 3))
    reference = _reference(model, rng)
    images, labels = rng.standard_normal((IMAGES, 1, 1, 3)), rng.integers(0, 4, IMAGES)
    logits = reference.forward(images, labels, 64.0)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = 64 / IMAGES * (probabilities - np.eye(4)[labels])
    np.testing.assert_allclose(reference.loss_gradient[:, 0, 0], expected, rtol=1e-12, atol=1e-12)


def test_running_averages_become_those_of_the_images():
    """After many steps on the same batch, inference equals training but for the variance's bias."""
    rng = np.random.default_rng(default_seed())
    model = _network(_one(lambda x: BatchNorm("norm", x)))
    reference = _reference(model, rng)
    images = rng.standard_normal((IMAGES, 4, 5, 3))
    for _ in range(200):
        reference.forward(images)
    norm = model.layers[2]
    x = reference.outputs[norm.source]
    mean, variance = reference.averages[norm]
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(variance, x.var(axis=(0, 1, 2), ddof=1), rtol=1e-6)
