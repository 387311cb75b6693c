"""Pooling over windows, and over whole images."""

from __future__ import annotations

from dataclasses import dataclass

from .layer import Layer

__all__ = ["GlobalAveragePool", "MaxPool"]


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Layer):
    """Maximum of square windows, and ReLU if asked for.

    Parameters
    ----------
    source
        Its input.
    window, stride
        Side of a window, and the distance between windows; rows and columns that don't fill one are
        left out.
    padding
        Pixels around the image that are less than all others; at most half a window, so that every
        window has a pixel of the image.
    rectified
        Apply ReLU.
    """

    source: Layer
    window: int = 2
    stride: int = 2
    padding: int = 0
    rectified: bool = False

    def __post_init__(self) -> None:
        self._need_at_least(2, window=self.window)
        self._need_at_least(1, stride=self.stride)
        self._need_at_least(0, padding=self.padding)
        if 2 * self.padding > self.window:
            self._refuse(
                f"padding is {self.padding}, must be at most half the window, {self.window}"
            )
        shape = self.source.shape
        self._set_shape(self._places(shape.height), self._places(shape.width), shape.channels)

    def _places(self, size: int) -> int:
        """Return how many windows fit an image of this height or width; none if it's too small."""
        return max((size + 2 * self.padding - self.window) // self.stride + 1, 0)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)

    @property
    def relu(self) -> bool:
        # What comes from a ReLU isn't negative, and a maximum of zero passes no gradient on.
        return self.rectified or self.source.relu


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool(Layer):
    """Mean over all pixels of an image."""

    source: Layer

    def __post_init__(self) -> None:
        self._set_shape(1, 1, self.source.shape.channels)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)
