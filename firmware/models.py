"""The networks that ``python -m firmware.train`` trains."""

from __future__ import annotations

from collections.abc import Callable

from rtl.sparsity.pattern import Pattern

from .model import (
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    MaxPool,
    Model,
    Shape,
    linear,
)

__all__ = ["perceptron", "residual_cnn"]


def perceptron(images: Shape, classes: int, hidden: tuple[int, ...], pattern: Pattern) -> Model:
    """Return fully connected layers with ReLU; the first and the last are dense.

    Parameters
    ----------
    images
        Shape of the images, whose pixels are its inputs.
    classes
        Its outputs.
    hidden
        Widths of the layers between.
    pattern
        N:M pattern of the other layers' weights.
    """
    layers: list[Layer] = [Input("image", 1, 1, images.positions * images.channels)]
    for index, width in enumerate((*hidden, classes)):
        last = index == len(hidden)
        layers.append(
            linear(
                f"layer {index + 1}",
                layers[-1],
                width,
                rectified=not last,
                pattern=Pattern.DENSE if index == 0 or last else pattern,
            )
        )
    return Model("mlp", tuple(layers))


def residual_cnn(images: Shape, classes: int, widths: tuple[int, ...], pattern: Pattern) -> Model:
    """Return a small residual network; its first and its last layer are dense.

    A convolution of 3 x 3, batch normalisation, maxima of 2 x 2; then a residual block for each
    width, from the second on with a stride of 2; the mean of all pixels and a linear layer. (The
    blocks are those of K. He et al., "Deep residual learning for image recognition", 2015.)

    Parameters
    ----------
    images
        Shape of the images.
    classes
        Its outputs.
    widths
        Channels of the blocks; those of the first are also those of the first convolution.
    pattern
        N:M pattern of the weights in the blocks.
    """
    layers: list[Layer] = [Input("image", images.height, images.width, images.channels)]

    def add(make: Callable[..., Layer], name: str, *arguments, **options) -> Layer:
        layers.append(make(name, *arguments, **options))
        return layers[-1]

    x = add(Convolution, "stem", layers[0], widths[0], kernel=3, padding=1)
    x = add(BatchNorm, "stem norm", x)
    x = add(MaxPool, "pool", x, rectified=True)
    for index, width in enumerate(widths):
        name, stride = f"block {index + 1}", 1 if index == 0 else 2
        skip = x
        if stride > 1 or x.shape.channels != width:
            skip = add(
                Convolution, f"{name} skip", x, width, kernel=1, stride=stride, pattern=pattern
            )
            skip = add(BatchNorm, f"{name} skip norm", skip)
        x = add(
            Convolution, f"{name} first", x, width, kernel=3, stride=stride, padding=1,
            pattern=pattern,
        )  # fmt: skip
        x = add(BatchNorm, f"{name} first norm", x, rectified=True)
        x = add(Convolution, f"{name} second", x, width, kernel=3, padding=1, pattern=pattern)
        x = add(BatchNorm, f"{name} second norm", x, rectified=True, add=skip)
    x = add(GlobalAveragePool, "mean", x)
    add(linear, "classes", x, classes)
    return Model("cnn", tuple(layers))
