"""Layers that work on each element by itself, where no other layer does so on its way."""

from __future__ import annotations

from dataclasses import dataclass

from .layer import Layer

__all__ = ["GELU", "Addition"]


@dataclass(frozen=True, eq=False, repr=False)
class Addition(Layer):
    """Sum of two layers' outputs, and ReLU if asked for.

    Convolutions and batch normalisations add for themselves. This is for sums that none of them can
    make, such as those of outputs that have gone through a ReLU.

    Parameters
    ----------
    source, add
        What is added, of the same shape.
    rectified
        Apply ReLU.
    """

    source: Layer
    add: Layer
    rectified: bool = False

    def __post_init__(self) -> None:
        self._keep_shape(self.source)
        self._need_same_shape(self.add)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source, self.add)

    @property
    def relu(self) -> bool:
        return self.rectified


@dataclass(frozen=True, eq=False, repr=False)
class GELU(Layer):
    """Gaussian error linear unit, ``x * Phi(x)`` with the normal distribution's ``Phi``.

    A layer of its own: unlike that of a ReLU its gradient needs its input, which therefore has to
    be kept. (D. Hendrycks and K. Gimpel, "Gaussian error linear units", 2016.)

    Parameters
    ----------
    source
        Its input.
    """

    source: Layer

    def __post_init__(self) -> None:
        self._keep_shape(self.source)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)
