"""What builders of networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from ..model import BatchNorm, Convolution, Input, Layer, Method, Model, Shape

__all__ = ["CIFAR", "IMAGENET", "TINY_IMAGENET", "Builder"]

CIFAR = Shape(32, 32, 3)
TINY_IMAGENET = Shape(64, 64, 3)
IMAGENET = Shape(224, 224, 3)
"""Images of the data sets."""

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made", bound=Layer)


class Builder:
    """Collects the layers of a network in their order.

    Parameters
    ----------
    images
        Shape of the images.

    Attributes
    ----------
    input
        The layer of the images.
    """

    def __init__(self, images: Shape) -> None:
        self.input = Input("image", images.height, images.width, images.channels)
        self._layers: list[Layer] = [self.input]

    def add(
        self,
        make: Callable[Concatenate[str, _Arguments], _Made],
        name: str,
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Made:
        """Return ``make(name, *arguments, **options)``, the network's next layer."""
        layer = make(name, *arguments, **options)
        self._layers.append(layer)
        return layer

    def convolve(
        self,
        name: str,
        source: Layer,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        method: Method,
        rectified: bool = True,
        add: Layer | None = None,
    ) -> BatchNorm:
        """Add a convolution that keeps the size of images but for its stride, and normalise.

        ReLU and addition follow the normalisation, which is returned.
        """
        layer = self.add(
            Convolution,
            name,
            source,
            outputs,
            kernel=kernel,
            stride=stride,
            padding=kernel // 2,
            method=method,
        )
        return self.add(BatchNorm, f"{name} norm", layer, rectified=rectified, add=add)

    def model(self, name: str) -> Model:
        """Return the network."""
        return Model(name, tuple(self._layers))
