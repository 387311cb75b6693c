"""Residual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model import DENSE, Addition, GlobalAveragePool, Layer, MaxPool, Method, Model, Shape, linear
from .builder import CIFAR, IMAGENET, TINY_IMAGENET, Builder

__all__ = ["resnet9", "resnet18", "resnet50"]

_Block = Callable[[Builder, str, Layer, int, int, Method], Layer]
"""Adds a block of some width and stride, and returns its last layer."""

_WIDTHS = (64, 128, 256, 512)


def resnet9(method: Method, *, images: Shape = CIFAR, classes: int = 10) -> Model:
    """Return ResNet-9 for CIFAR.

    (D. Page, "How to train your ResNet", 2018. Its constant factor on the logits is left out: it
    makes no layer.)

    Parameters
    ----------
    method
        How the weights between the first and the last layer are pruned.
    images
        Shape of the images; after three poolings by two, 4 pixels or more must be left.
    classes
        Its outputs.
    """
    builder = Builder(images)

    def residual(name: str, x: Layer, width: int) -> Layer:
        y = builder.convolve(f"{name} first", x, width, kernel=3, method=method)
        y = builder.convolve(f"{name} second", y, width, kernel=3, method=method)
        return builder.add(Addition, f"{name} sum", x, y)

    def narrow(name: str, x: Layer, width: int) -> Layer:
        y = builder.convolve(name, x, width, kernel=3, method=method)
        return builder.add(MaxPool, f"{name} pool", y)

    x: Layer = builder.convolve("prep", builder.input, 64, kernel=3, method=DENSE)
    x = residual("layer1 residual", narrow("layer1", x, 128), 128)
    x = narrow("layer2", x, 256)
    x = residual("layer3 residual", narrow("layer3", x, 512), 512)
    x = builder.add(MaxPool, "pool", x, window=4, stride=4)
    builder.add(linear, "classes", x, classes, bias=False)
    return builder.model("resnet9")


def resnet18(method: Method, *, images: Shape = TINY_IMAGENET, classes: int = 200) -> Model:
    """Return ResNet-18, by default for Tiny ImageNet.

    (K. He et al., "Deep residual learning for image recognition", 2015, table 1.)

    Parameters
    ----------
    method
        How the weights between the first and the last layer are pruned.
    images
        Shape of the images.
    classes
        Its outputs.
    """
    return _resnet("resnet18", (2, 2, 2, 2), _basic_block, method, images, classes)


def resnet50(method: Method, *, images: Shape = IMAGENET, classes: int = 1000) -> Model:
    """Return ResNet-50 for ImageNet.

    (K. He et al., "Deep residual learning for image recognition", 2015, table 1; the stride is that
    of the 3 x 3 convolutions, as in P. Goyal et al., "Accurate, large minibatch SGD", 2017.)

    Parameters
    ----------
    method
        How the weights between the first and the last layer are pruned.
    images
        Shape of the images.
    classes
        Its outputs.
    """
    return _resnet("resnet50", (3, 4, 6, 3), _bottleneck, method, images, classes)


def _resnet(
    name: str, blocks: Sequence[int], block: _Block, method: Method, images: Shape, classes: int
) -> Model:
    """Return a residual network with so many blocks of each width."""
    builder = Builder(images)
    x: Layer = builder.convolve("conv1", builder.input, 64, kernel=7, stride=2, method=DENSE)
    x = builder.add(MaxPool, "pool", x, window=3, stride=2, padding=1)
    for group, (width, count) in enumerate(zip(_WIDTHS, blocks, strict=True)):
        for index in range(count):
            stride = 2 if group and not index else 1
            x = block(builder, f"conv{group + 2}_{index + 1}", x, width, stride, method)
    x = builder.add(GlobalAveragePool, "mean", x)
    builder.add(linear, "classes", x, classes)
    return builder.model(name)


def _basic_block(
    builder: Builder, name: str, x: Layer, width: int, stride: int, method: Method
) -> Layer:
    """Two convolutions of 3 x 3."""
    skip = _skip(builder, name, x, width, stride, method)
    y = builder.convolve(f"{name} first", x, width, kernel=3, stride=stride, method=method)
    return builder.convolve(f"{name} second", y, width, kernel=3, method=method, add=skip)


def _bottleneck(
    builder: Builder, name: str, x: Layer, width: int, stride: int, method: Method
) -> Layer:
    """1 x 1 to `width` channels, 3 x 3, and 1 x 1 to four times as many."""
    skip = _skip(builder, name, x, 4 * width, stride, method)
    y = builder.convolve(f"{name} first", x, width, kernel=1, method=method)
    y = builder.convolve(f"{name} second", y, width, kernel=3, stride=stride, method=method)
    return builder.convolve(f"{name} third", y, 4 * width, kernel=1, method=method, add=skip)


def _skip(
    builder: Builder, name: str, x: Layer, outputs: int, stride: int, method: Method
) -> Layer:
    """Return what a block adds: its input, through a projection if its shape changes."""
    if stride == 1 and x.shape.channels == outputs:
        return x
    return builder.convolve(
        f"{name} skip", x, outputs, kernel=1, stride=stride, method=method, rectified=False
    )
