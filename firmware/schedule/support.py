"""Which layers the schedules can compute."""

from __future__ import annotations

from rtl.config import Config
from rtl.sparsity.pattern import supported_patterns

from ..errors import ScheduleError
from ..model import (
    Addition,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    MaxPool,
)

__all__ = ["require_support"]

_SCHEDULED = (Addition, BatchNorm, Convolution, GlobalAveragePool, Input, MaxPool)


def require_support(layer: Layer, config: Config) -> None:
    """Refuse a layer that there is no schedule for, whatever its size.

    Raises
    ------
    ScheduleError
        Of its kind or its patterns; the message names the layer and what is missing.
    """
    if not isinstance(layer, _SCHEDULED):
        raise ScheduleError(
            f"{layer.name}: there is no schedule for layers of kind {type(layer).__name__}"
        )
    if isinstance(layer, Convolution):
        supported = supported_patterns(config)
        for direction in ("forward", "backward"):
            pattern = getattr(layer.method, direction)
            if pattern not in supported:
                raise ScheduleError(
                    f"{layer.name}: configuration '{config.name}' doesn't support {pattern} for "
                    f"{direction} weights; it supports {', '.join(map(str, supported))}"
                )
