"""The vector unit: element-wise arithmetic in binary32 on tiles, folds, and sums over rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtl.control.commands import Fold, Function

from .arithmetic import Floats, Halves, add, multiply
from .functions import apply

__all__ = ["affine", "first_equal", "fold_window", "last_step", "reduce_rows"]

_SIGN = np.uint32(0x80000000)

PARTIAL_SUMS = 8
"""Sums over rows that run beside each other, since an addition takes longer than a row."""


def affine(
    x: Floats, y: Floats | None, a: Floats | None, b: Floats | None, c: Floats | None
) -> Floats:
    """Return ``a * x + b * y + c``, every operation rounded, from left to right.

    Parameters
    ----------
    x, y
        Binary32 ``[..., G]``; `y` is None if there is none.
    a, b, c
        Binary32 ``[G]``, a value for each column, or None: without this term. `b` needs `y`.

    Returns
    -------
    Binary32 of the shape of `x`; +0 if there is no term at all.
    """
    terms = [multiply(a, x)] if a is not None else []
    if b is not None:
        assert y is not None
        terms.append(multiply(b, y))
    if c is not None:
        # What is added alone is added to -0, which changes nothing but subnormals.
        terms.append(c if terms else add(c, np.full_like(x, _SIGN)))
    if not terms:
        return np.zeros_like(x)
    result = terms[0]
    for term in terms[1:]:
        result = add(result, term)
    return np.broadcast_to(result, x.shape)


def last_step(function: Function, values: Floats) -> Floats:
    """Return `function` of results of `affine`, which have no subnormals and only one NaN."""
    match function:
        case Function.IDENTITY:
            return values
        case Function.RELU:
            return np.where(values & _SIGN, np.uint32(0), values)
        case _:
            return apply(function, values)


def first_equal(x: Halves, held: Halves) -> npt.NDArray[np.bool_]:
    """Return where in each window `x` equals `held` for the first time.

    Parameters
    ----------
    x
        Binary16 ``[groups, window, rows, G]``.
    held
        Binary16 ``[groups, 1, rows, G]``. Zeros of both signs are equal, a NaN equals nothing.
    """
    equal = x.view(np.float16) == held.view(np.float16)
    return equal & (np.cumsum(equal, axis=1, dtype=np.uint16) == 1)


def fold_window(values: Floats, fold: Fold) -> Floats:
    """Return binary32 ``[groups, window, rows, G]`` with the tiles of each window made one.

    A sum begins with the first tile and adds the others in order. Of maxima a NaN is the largest;
    +0 is larger than -0.
    """
    match fold:
        case Fold.NONE:
            return values
        case Fold.MAXIMUM:
            return _maximum(values, axis=1)[:, None]
        case Fold.SUM:
            result = values[:, 0]
            for index in range(1, values.shape[1]):
                result = add(result, values[:, index])
            return result[:, None]


def reduce_rows(values: Floats, reduction: Fold) -> Floats:
    """Return the sum or the maximum of each column of binary32 ``[rows, G]``.

    Sums have eight parts: row ``i`` is added to part ``i % 8``, which begins with +0. The result is
    the sum of neighbours, and of those sums again: ``((part 0 + part 1) + (part 2 + part 3)) +
    ((part 4 + part 5) + (part 6 + part 7))``. A maximum begins with -infinity and is that of
    `fold_window`.
    """
    if reduction is Fold.MAXIMUM:
        return np.asarray(_maximum(values, axis=0))
    parts = np.zeros((PARTIAL_SUMS, values.shape[1]), np.uint32)
    for start in range(0, len(values), PARTIAL_SUMS):
        rows = values[start : start + PARTIAL_SUMS]
        parts[: len(rows)] = add(parts[: len(rows)], rows)
    while len(parts) > 1:
        parts = add(parts[0::2], parts[1::2])
    return parts[0]


def _maximum(values: Floats, axis: int) -> Floats:
    """Return the maximum of values without a NaN but the canonical one, which is the largest."""

    def ordered(bits: Floats) -> npt.NDArray[np.int32]:
        return np.where(bits & _SIGN, bits ^ np.uint32(0x7FFFFFFF), bits).view(np.int32)

    largest = ordered(values).max(axis=axis).view(np.uint32)
    return np.where(largest & _SIGN, largest ^ np.uint32(0x7FFFFFFF), largest)
