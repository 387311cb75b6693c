"""What happens to a product between the O scratchpad and memory."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from .arithmetic import Floats, Halves, add, is_positive, to_float, to_half

__all__ = ["epilogue"]


@overload
def epilogue(
    o: Floats,
    *,
    bias: Halves | None = None,
    addend: Halves | None = None,
    relu: bool = False,
    mask: Halves | None = None,
    convert: Literal[True] = True,
) -> Halves: ...


@overload
def epilogue(
    o: Floats,
    *,
    bias: Halves | None = None,
    addend: Halves | None = None,
    relu: bool = False,
    mask: Halves | None = None,
    convert: bool,
) -> Floats | Halves: ...


def epilogue(
    o: Floats,
    *,
    bias: Halves | None = None,
    addend: Halves | None = None,
    relu: bool = False,
    mask: Halves | None = None,
    convert: bool = True,
) -> Floats | Halves:
    """Return `o` after the steps that are asked for, in the order of the parameters.

    Parameters
    ----------
    o
        Binary32 ``[B, A]``.
    bias
        Binary16 ``[A]``, added to every row.
    addend
        Binary16 ``[B, A]``, added then: a rounding of its own.
    relu
        Replace negative numbers, -0 and -infinity with +0; a NaN stays.
    mask
        Binary16 ``[B, A]``; the result is +0 where it isn't greater than zero.
    convert
        Return binary16, not binary32.
    """
    if bias is not None:
        o = add(o, to_float(bias))
    if addend is not None:
        o = add(o, to_float(addend))
    if relu:
        number = (o & 0x7FFFFFFF) <= 0x7F800000
        o = np.where(number & (o >> 31 != 0), np.uint32(0), o)
    result = to_half(o) if convert else o
    if mask is not None:
        result = np.where(is_positive(mask), result, result.dtype.type(0))
    return result
