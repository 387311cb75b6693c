"""Tables from which the function unit interpolates.

A function's argument, reduced to [0, 1), is cut into 128 segments, or 256. In each the function is
taken as ``c0 + c1 * d + c2 * d**2``, the parabola that meets it at both ends and in the middle,
with ``d`` from 0 to 1. As neighbours share an end, the pieces join without a step, which keeps the
functions monotonic, and exact where the argument is 0.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from ..control.commands import Function

__all__ = [
    "C0_BITS",
    "C1_BITS",
    "C2_BITS",
    "FINE",
    "FINE_FRACTION_BITS",
    "FINE_RANGE",
    "FINE_UNIT_BITS",
    "INDEX_BITS",
    "LOG2_FRACTION_BITS",
    "OFFSET_BITS",
    "SEGMENTS",
    "UNIT_BITS",
    "Segment",
]

INDEX_BITS = 7
"""Leading bits of an argument, which name its segment; `FINE` functions take one more."""

OFFSET_BITS = 17
"""The other bits of an argument: where it lies in the segment."""

UNIT_BITS = 28
"""Coefficients are integers, in units of ``2**-UNIT_BITS``."""

FINE_UNIT_BITS = 25
"""The same for `FINE` functions, which bend more."""

LOG2_FRACTION_BITS, FINE_FRACTION_BITS = 25, 24
"""Fraction bits to which a logarithm and a `FINE` function are rounded before normalisation."""

C0_BITS, C1_BITS, C2_BITS = UNIT_BITS + 2, UNIT_BITS - 5, UNIT_BITS - 11
"""Widths of the coefficients, which are signed."""

FINE_RANGE = 8
"""`FINE` functions are interpolated between this number and its negative. Beyond, they are zero or
one to the last of their fraction bits."""

_SIGNIFICAND_FRACTION_BITS = 23


class Segment(NamedTuple):
    """Coefficients of one segment; `c0` includes half a unit of the result's last place."""

    c0: int
    c1: int
    c2: int


_CONTEXT = decimal.Context(prec=40, rounding=decimal.ROUND_HALF_EVEN)
"""Decimal arithmetic is defined to the last digit, so that the tables are the same everywhere."""

_PI = Decimal("3.141592653589793238462643383279502884197169")


def _reciprocal(u: Decimal) -> Decimal:
    return 2 / (1 + u) - 1


def _rsqrt(u: Decimal) -> Decimal:
    """Return the function of 1 + 2u below one half, where the exponent is even, else of 4u."""
    return 2 / (1 + 2 * u if 2 * u < 1 else 4 * u).sqrt() - 1


def _exp2(u: Decimal) -> Decimal:
    return (u * Decimal(2).ln()).exp() - 1


def _log2(u: Decimal) -> Decimal:
    return (1 + u).ln() / Decimal(2).ln()


def _density(x: Decimal) -> Decimal:
    """Return the density of the normal distribution."""
    return (-x * x / 2).exp() / (2 * _PI).sqrt()


def _normal(x: Decimal) -> Decimal:
    """Return the normal distribution function: ``1/2 + density * (x + x**3/3 + x**5/15 + ...)``.

    (G. Marsaglia, "Evaluating the normal distribution", 2004.)
    """
    term = total = x
    divisor = 1
    while total + term != total:
        divisor += 2
        term *= x * x / divisor
        total += term
    return Decimal(1) / 2 + _density(x) * total


def _gelu_slope(x: Decimal) -> Decimal:
    return _normal(x) + x * _density(x)


def _segments(
    function: Callable[[Decimal], Decimal],
    fraction_bits: int,
    unit_bits: int = UNIT_BITS,
    index_bits: int = INDEX_BITS,
) -> tuple[Segment, ...]:
    """Return the table of `function`, the result of which is cut after `fraction_bits`."""
    unit = 1 << unit_bits
    half = 1 << unit_bits - fraction_bits - 1
    segments = []
    with decimal.localcontext(_CONTEXT):
        count = 1 << index_bits
        values = [function(Decimal(point) / (2 * count)) for point in range(2 * count + 1)]
        for left, middle, right in zip(values[0::2], values[1::2], values[2::2]):
            start, end = round(left * unit), round(right * unit)
            c2 = round(2 * (left - 2 * middle + right) * unit)
            segments.append(Segment(start + half, end - start - c2, c2))
    return tuple(segments)


def _fine_segments(function: Callable[[Decimal], Decimal]) -> tuple[Segment, ...]:
    """Return the table of a function between `FINE_RANGE` and its negative."""
    return _segments(
        lambda u: function((2 * u - 1) * FINE_RANGE),
        FINE_FRACTION_BITS,
        FINE_UNIT_BITS,
        INDEX_BITS + 1,
    )


SEGMENTS = {
    Function.RECIPROCAL: _segments(_reciprocal, _SIGNIFICAND_FRACTION_BITS),
    Function.RSQRT: _segments(_rsqrt, _SIGNIFICAND_FRACTION_BITS),
    Function.EXP2: _segments(_exp2, _SIGNIFICAND_FRACTION_BITS),
    Function.LOG2: _segments(_log2, LOG2_FRACTION_BITS),
    Function.NORMAL: _fine_segments(_normal),
    Function.GELU_SLOPE: _fine_segments(_gelu_slope),
}
"""Segments of each function that is interpolated, ascending. Of numbers ``1 + u`` they give the
fraction of ``2 / (1 + u)``, that of ``2 / sqrt``, or the logarithm; EXP2 gives the fraction of
``2**u``, and those that are `FINE` their value at ``(2 u - 1) * FINE_RANGE``."""

FINE = (Function.NORMAL, Function.GELU_SLOPE)
"""Functions with twice as many segments."""
