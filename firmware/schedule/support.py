"""Which layers the schedules can compute."""

from __future__ import annotations

from rtl.config import Config
from rtl.sparsity.pattern import supported_patterns

from ..errors import ScheduleError
from ..model import (
    GELU,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool,
    PositionEmbedding,
)

__all__ = ["require_support"]

_SCHEDULED = (
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GELU,
    GlobalAveragePool,
    Input,
    LayerNorm,
    MaxPool,
    PositionEmbedding,
)


def require_support(layer: Layer, config: Config) -> None:
    """Refuse a layer that there is no schedule for, whatever its size.

    Raises
    ------
    ScheduleError
        Of its kind, its heads or its patterns; the message names the layer and what is missing.
    """
    if not isinstance(layer, _SCHEDULED):
        raise ScheduleError(
            f"{layer.name}: there is no schedule for layers of kind {type(layer).__name__}"
        )
    if isinstance(layer, Attention):
        width, multiple = layer.shape.channels // layer.heads, config.elements
        if width % multiple:
            raise ScheduleError(
                f"{layer.name}: a head has {width} channels, configuration '{config.name}' takes "
                f"multiples of {multiple}"
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
