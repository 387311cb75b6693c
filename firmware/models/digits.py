"""The networks that ``python -m firmware.train`` trains."""

from __future__ import annotations

from ..model import DENSE, GlobalAveragePool, Layer, MaxPool, Method, Model, Shape, linear
from .builder import Builder

__all__ = ["perceptron", "residual_cnn"]


def perceptron(images: Shape, classes: int, hidden: tuple[int, ...], method: Method) -> Model:
    """Return fully connected layers with ReLU; the first and the last are dense.

    Parameters
    ----------
    images
        Shape of the images, whose pixels are its inputs.
    classes
        Its outputs.
    hidden
        Widths of the layers between.
    method
        How the other layers' weights are pruned.
    """
    builder = Builder(Shape(1, 1, images.positions * images.channels))
    x: Layer = builder.input
    for index, width in enumerate((*hidden, classes)):
        last = index == len(hidden)
        x = builder.add(
            linear,
            f"layer {index + 1}",
            x,
            width,
            rectified=not last,
            method=DENSE if index == 0 or last else method,
        )
    return builder.model("mlp")


def residual_cnn(images: Shape, classes: int, widths: tuple[int, ...], method: Method) -> Model:
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
    method
        How the weights in the blocks are pruned.
    """
    builder = Builder(images)
    x: Layer = builder.convolve(
        "stem", builder.input, widths[0], kernel=3, method=DENSE, rectified=False
    )
    x = builder.add(MaxPool, "pool", x, rectified=True)
    for index, width in enumerate(widths):
        name, stride = f"block {index + 1}", 1 if index == 0 else 2
        skip: Layer = x
        if stride > 1 or x.shape.channels != width:
            skip = builder.convolve(
                f"{name} skip", x, width, kernel=1, stride=stride, method=method, rectified=False
            )
        x = builder.convolve(f"{name} first", x, width, kernel=3, stride=stride, method=method)
        x = builder.convolve(f"{name} second", x, width, kernel=3, method=method, add=skip)
    x = builder.add(GlobalAveragePool, "mean", x)
    builder.add(linear, "classes", x, classes)
    return builder.model("cnn")
