"""The functions of the vector unit on arrays of binary32 bit patterns.

docs/numerics.md states what they compute. Everything is integer arithmetic, on the tables that the
gateware uses too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rtl.arithmetic.function_tables import (
    FINE,
    FINE_FRACTION_BITS,
    FINE_RANGE,
    FINE_UNIT_BITS,
    INDEX_BITS,
    LOG2_FRACTION_BITS,
    OFFSET_BITS,
    SEGMENTS,
    UNIT_BITS,
)
from rtl.control.commands import Function

from .arithmetic import CANONICAL_NAN, Floats

__all__ = ["apply", "exp2", "gelu_slope", "log2", "normal", "reciprocal", "rsqrt"]

Integers = npt.NDArray[np.int64]

_BIAS = 127
_FRACTION_BITS = 23
_ARGUMENT_BITS = INDEX_BITS + OFFSET_BITS
_SIGN = 1 << 31
_INFINITY = 0x7F800000

_TABLES = {
    function: np.array(segments, np.int64).T.copy() for function, segments in SEGMENTS.items()
}
"""Arrays of c0, c1 and c2."""


class _Operand:
    """Parts and classes of binary32 values, subnormals taken as zeros."""

    def __init__(self, x: Floats) -> None:
        bits = np.asarray(x, np.uint32).astype(np.int64)
        self.negative = bits >= _SIGN
        self.exponent = bits >> _FRACTION_BITS & 0xFF
        self.fraction = bits & (1 << _FRACTION_BITS) - 1
        self.zero = self.exponent == 0
        self.infinite = (self.exponent == 0xFF) & (self.fraction == 0)
        self.nan = (self.exponent == 0xFF) & (self.fraction != 0)
        self.sign = bits & _SIGN


def apply(function: Function, x: Floats) -> Floats:
    """Return `function`, one of `SEGMENTS`, of binary32 `x`, element by element."""
    return {
        Function.RECIPROCAL: reciprocal,
        Function.RSQRT: rsqrt,
        Function.EXP2: exp2,
        Function.LOG2: log2,
        Function.NORMAL: normal,
        Function.GELU_SLOPE: gelu_slope,
    }[function](x)


def reciprocal(x: Floats) -> Floats:
    """Return 1 / x; of a zero the infinity of its sign, of an infinity the zero of its sign."""
    operand = _Operand(x)
    fraction = _interpolate(Function.RECIPROCAL, operand.fraction << 1)
    magnitude = _pack(2 * _BIAS - 1 - operand.exponent, fraction)
    return _select(
        operand.sign | magnitude,
        (operand.nan, CANONICAL_NAN),
        (operand.zero, operand.sign | _INFINITY),
        (operand.infinite, operand.sign),
    )


def rsqrt(x: Floats) -> Floats:
    """Return 1 / sqrt(x); infinity of both zeros, NaN of negative numbers."""
    operand = _Operand(x)
    # The numbers in [1, 4) times a power of four: an odd power of two has an even biased exponent.
    odd = 1 - (operand.exponent & 1)
    argument = odd << _FRACTION_BITS | operand.fraction
    power = (operand.exponent - _BIAS - odd) // 2
    bits = _pack(_BIAS - 1 - power, _interpolate(Function.RSQRT, argument))
    return _select(
        bits,
        (operand.zero, _INFINITY),
        (operand.nan | operand.negative, CANONICAL_NAN),
        (operand.infinite, 0),
    )


def exp2(x: Floats) -> Floats:
    """Return 2**x; infinity from 128 on, +0 below -126."""
    operand = _Operand(x)
    huge = operand.exponent >= _BIAS + 7
    fixed = _fixed(operand)
    argument = fixed & (1 << _ARGUMENT_BITS) - 1
    bits = _pack((fixed >> _ARGUMENT_BITS) + _BIAS, _interpolate(Function.EXP2, argument))
    return _select(
        bits,
        (operand.nan, CANONICAL_NAN),
        (huge & operand.negative, 0),
        (huge, _INFINITY),
    )


def log2(x: Floats) -> Floats:
    """Return the logarithm of `x` to base 2; -infinity of both zeros, NaN of negative numbers."""
    operand = _Operand(x)
    logarithm = _interpolate(Function.LOG2, operand.fraction << 1)
    fixed = (operand.exponent - _BIAS << LOG2_FRACTION_BITS) + logarithm
    return _select(
        _round(fixed, LOG2_FRACTION_BITS),
        (operand.zero, _SIGN | _INFINITY),
        (operand.nan | operand.negative, CANONICAL_NAN),
        (operand.infinite, _INFINITY),
    )


def normal(x: Floats) -> Floats:
    """Return the distribution function of the normal distribution."""
    return _fine(Function.NORMAL, x)


def gelu_slope(x: Floats) -> Floats:
    """Return the derivative of ``x * normal(x)``."""
    return _fine(Function.GELU_SLOPE, x)


def _fine(function: Function, x: Floats) -> Floats:
    """Return one of the functions that are interpolated over `FINE_RANGE` and its negative."""
    operand = _Operand(x)
    ends = np.where(operand.negative, 0, (1 << _ARGUMENT_BITS) - 1)
    beyond = operand.exponent >= _BIAS + FINE_RANGE.bit_length() - 1
    moved = (_fixed(operand) >> FINE_RANGE.bit_length()) + (1 << _ARGUMENT_BITS - 1)
    argument = np.where(beyond, ends, moved)
    bits = _round(_interpolate(function, argument), FINE_FRACTION_BITS)
    return _select(bits, (operand.nan, CANONICAL_NAN))


def _fixed(operand: _Operand) -> Integers:
    """Return numbers below 2**7 in units of 2**-24, cut towards zero; others have any value."""
    significand = operand.fraction | 1 << _FRACTION_BITS
    shift = np.clip(_BIAS + 6 - operand.exponent, 0, 31)
    magnitude = (significand << 7) >> shift
    return np.where(operand.negative, -magnitude, magnitude)


def _round(fixed: Integers, fraction_bits: int) -> Integers:
    """Return binary32 of numbers in units of ``2**-fraction_bits``, of at most 32 bits."""
    # Normalise to a significand of 32 bits, and round that to 24: nearest, ties to even.
    magnitude = np.abs(fixed)
    _, length = np.frexp(magnitude.astype(np.float64))
    significand = magnitude << 32 - np.minimum(length, 32)
    rounded = (significand + 0x7F + (significand >> 8 & 1) >> 8) - (1 << _FRACTION_BITS)
    bits = (length - 1 - fraction_bits + _BIAS << _FRACTION_BITS) + rounded
    return np.where(fixed == 0, 0, np.where(fixed < 0, _SIGN, 0) | bits)


def _interpolate(function: Function, argument: Integers) -> Integers:
    """Return the result of `function` for arguments in units of 2**-24, cut after its last bit."""
    c0, c1, c2 = _TABLES[function]
    finer = int(function in FINE)
    segment = argument >> OFFSET_BITS - finer
    offset = argument << finer & (1 << OFFSET_BITS) - 1
    slope = c1[segment] + (c2[segment] * offset >> OFFSET_BITS)
    total = (c0[segment] << OFFSET_BITS) + slope * offset
    unit_bits = FINE_UNIT_BITS if finer else UNIT_BITS
    fraction_bits = FINE_FRACTION_BITS if finer else _FRACTION_BITS
    if function is Function.LOG2:
        fraction_bits = LOG2_FRACTION_BITS
    return total >> unit_bits + OFFSET_BITS - fraction_bits


def _pack(exponent: Integers, fraction: Integers) -> Integers:
    """Return positive binary32; a fraction of one whole carries, exponents below 1 give zero."""
    bits = (exponent << _FRACTION_BITS) + fraction
    return np.where(bits < 1 << _FRACTION_BITS, 0, bits)


def _select(bits: Integers, *cases: tuple[npt.NDArray[np.bool_], Any]) -> Floats:
    """Return the bits of the first case that holds, else `bits`."""
    return np.select([case for case, _ in cases], [value for _, value in cases], bits).astype(
        np.uint32
    )
