"""VGG networks."""

from __future__ import annotations

from ..model import DENSE, Layer, MaxPool, Method, Model, Shape, linear
from .builder import CIFAR, Builder

__all__ = ["vgg19"]

_GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Width and number of the convolutions before each pooling."""


def vgg19(method: Method, *, images: Shape = CIFAR, classes: int = 100) -> Model:
    """Return VGG-19 for CIFAR.

    (K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image
    recognition", 2014, table 1, column E. As is usual for CIFAR there is a batch normalisation
    after each convolution, and one fully connected layer in place of three.)

    Parameters
    ----------
    method
        How the weights between the first and the last layer are pruned.
    images
        Shape of the images; after five poolings by two, one pixel must be left.
    classes
        Its outputs.
    """
    builder = Builder(images)
    x: Layer = builder.input
    for group, (width, count) in enumerate(_GROUPS):
        for index in range(count):
            first = x is builder.input
            x = builder.convolve(
                f"conv{group + 1}_{index + 1}",
                x,
                width,
                kernel=3,
                method=DENSE if first else method,
            )
        x = builder.add(MaxPool, f"pool{group + 1}", x)
    builder.add(linear, "classes", x, classes)
    return builder.model("vgg19")
