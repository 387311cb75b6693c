"""The weight update: SGD in binary32, then both compressed binary16 copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from .arithmetic import Floats, add, multiply, scale_down, to_half
from .sparsity import Bytes, pack_tiles

__all__ = ["Updated", "sgd", "update"]

_SIGN = np.uint32(0x80000000)


def sgd(
    w: Floats, v: Floats, g: Floats, *, rate: int, momentum: int, decay: int, scale: int
) -> tuple[Floats, Floats]:
    """Return new weights and momentum.

    Parameters
    ----------
    w, v, g
        Weights, momentum and gradients: binary32 arrays of one shape.
    rate, momentum, decay
        Binary32 as bits.
    scale
        Gradients are multiplied by ``2**-scale`` first.

    Returns
    -------
    ``w' = w - rate * v'`` and ``v' = momentum * v + (g * 2**-scale + decay * w)``, each operation
    rounded.
    """
    factors = np.array([rate, momentum, decay], np.uint32)
    gradient = add(scale_down(g, scale), multiply(factors[2], w))
    v = add(multiply(factors[1], v), gradient)
    return add(w, multiply(factors[0], v) ^ _SIGN), v


@dataclass(frozen=True)
class Updated:
    """What an update gives.

    Attributes
    ----------
    w, v
        Weights and momentum, binary32 ``[tiles, rows, G]``.
    row_copy
        Tiles with the rows of `w` as S rows, ``[tiles, bytes]``; None if not asked for. With fewer
        than G rows, these rows in natural order.
    column_copy
        Tiles with the columns of `w` as S rows, ``[tiles, bytes]``; None if not asked for.
    """

    w: Floats
    v: Floats
    row_copy: Bytes | None
    column_copy: Bytes | None


def update(
    w: Floats,
    v: Floats,
    g: Floats,
    config: Config,
    *,
    rate: int,
    momentum: int,
    decay: int,
    scale: int,
    row_pattern: Pattern | None,
    column_pattern: Pattern | None,
) -> Updated:
    """Return the update of tiles.

    Parameters
    ----------
    w, v, g
        Weights, momentum and gradients, binary32 ``[tiles, rows, G]``.
    rate, momentum, decay, scale
        As for `sgd`.
    row_pattern, column_pattern
        Patterns of the copies; None for no copy. With fewer than G rows, dense and None.
    """
    w, v = sgd(w, v, g, rate=rate, momentum=momentum, decay=decay, scale=scale)
    tiles, rows, width = w.shape
    halves = to_half(w)
    row_copy = column_copy = None
    if row_pattern is not None:
        if rows < width:
            row_copy = np.ascontiguousarray(halves.astype("<u2")).view(np.uint8)
        else:
            row_copy = pack_tiles(halves.reshape(-1, width), row_pattern, config)
        row_copy = row_copy.reshape(tiles, -1)
    if column_pattern is not None:
        columns = halves.swapaxes(1, 2).reshape(-1, rows)
        column_copy = pack_tiles(columns, column_pattern, config).reshape(tiles, -1)
    return Updated(w, v, row_copy, column_copy)
