"""Batch and layer normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from .layer import Layer

__all__ = ["BatchNorm", "LayerNorm"]


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(Layer):
    """Batch normalisation, and what is done on the way: ``y = relu(norm(x) + add)``.

    Normalises every channel by mean and variance of the batch, in the test by their running
    averages, then scales and shifts it by learned values.

    Parameters
    ----------
    source
        Its input.
    rectified, add
        As in `Convolution`.
    momentum
        Share of a new batch in the running averages.
    epsilon
        Added to the variance.
    """

    source: Layer
    rectified: bool = False
    add: Layer | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        self._keep_shape(self.source)
        if self.add is not None:
            self._need_same_shape(self.add)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,) if self.add is None else (self.source, self.add)

    @property
    def relu(self) -> bool:
        return self.rectified

    @property
    def parameters(self) -> int:
        return 2 * self.shape.channels


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Layer):
    """Layer normalisation of every token (J. L. Ba et al., "Layer normalization", 2016).

    Normalises the channels of each position by their mean and variance, then scales and shifts each
    by learned values.

    Parameters
    ----------
    source
        Its input.
    epsilon
        Added to the variance.
    """

    source: Layer
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        self._keep_shape(self.source)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)

    @property
    def parameters(self) -> int:
        return 2 * self.shape.channels
