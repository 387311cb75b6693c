"""Exact dot products and the binary32 operations of the gateware, on arrays of bit patterns.

``uint16`` arrays hold binary16 and ``uint32`` arrays hold binary32 values. docs/numerics.md states
the rules that these functions implement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CANONICAL_NAN",
    "CANONICAL_NAN_HALF",
    "ExactSum",
    "Operand",
    "add",
    "dot",
    "is_finite",
    "is_positive",
    "multiply",
    "scale_down",
    "to_float",
    "to_half",
]

Halves = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

CANONICAL_NAN = 0x7FC00000
"""The only binary32 NaN that any operation gives."""

CANONICAL_NAN_HALF = 0x7E00
"""The only binary16 NaN that a conversion gives."""

_LIMB_BITS = 20
_LIMB_MASK = (1 << _LIMB_BITS) - 1
_LONGEST_PRODUCT = 1 << 53 - 2 * _LIMB_BITS
"""Products of two limbs that a binary64 sums exactly, whatever their order."""

_UNITS = np.ldexp(1.0, np.arange(64) - 48)
"""``_UNITS[n]`` is 2**n times the unit of an exact sum, 2**-48."""

_SMALLEST_NORMAL = 2.0**-126


def _limb_tables() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the high and the low limb of value * 2**24 for each binary16 pattern (specials: 0)."""
    bits = np.arange(1 << 16)
    exponent = bits >> 10 & 0x1F
    significand = (bits & 0x3FF) + ((exponent != 0) << 10)
    magnitude = np.where(exponent == 0x1F, 0, significand << np.maximum(exponent, 1) - 1)
    sign = np.where(bits >> 15, -1.0, 1.0)
    return sign * (magnitude >> _LIMB_BITS), sign * (magnitude & _LIMB_MASK)


_HIGH_LIMBS, _LOW_LIMBS = _limb_tables()


@dataclass(frozen=True)
class Operand:
    """One operand of a product, prepared for exact matrix products.

    Attributes
    ----------
    high, low
        Limbs of the values times 2**24, ``[rows, length]``. Where several entries meet in one
        element, the limbs of their sum.
    values, columns
        The entries, ``[rows, entries]``, at most `length` in a row. ``columns`` is None where each
        element is its own entry.
    special
        Whether an infinity or NaN is among the values.
    """

    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    values: Halves
    columns: npt.NDArray[np.integer] | None
    special: bool

    @classmethod
    def dense(cls, values: Halves) -> Operand:
        """Return the operand in which every element of `values` ``[rows, length]`` is an entry."""
        special = bool((values & 0x7C00 == 0x7C00).any())
        return cls(_HIGH_LIMBS[values], _LOW_LIMBS[values], values, None, special)

    @classmethod
    def compressed(cls, values: Halves, columns: npt.NDArray[np.integer], length: int) -> Operand:
        """Return the operand with entry `values` at `columns` (both ``[rows, entries]``).

        Elements without an entry take no part in a product: not even an infinity of the other
        operand meets them. An entry of value zero does meet it.
        """
        rows = values.shape[0]
        flat = (columns + length * np.arange(rows)[:, None]).ravel()

        def scatter(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            sums: npt.NDArray[Any] = np.bincount(flat, table[values.ravel()], rows * length)
            return sums.reshape(rows, length)

        special = bool((values & 0x7C00 == 0x7C00).any())
        return cls(scatter(_HIGH_LIMBS), scatter(_LOW_LIMBS), values, columns, special)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and length of the reduction."""
        return self.high.shape[0], self.high.shape[1]

    def count(self, predicate: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return ``[rows, length]``: how many entries with `predicate` each element has."""
        if self.columns is None:
            return predicate.astype(np.float64)
        rows, length = self.shape
        flat = (self.columns + length * np.arange(rows)[:, None])[predicate]
        return np.bincount(flat, minlength=rows * length).reshape(rows, length).astype(np.float64)


@dataclass(frozen=True)
class ExactSum:
    """Exact sums of products ``[B, A]``, before their one rounding.

    The sums are ``(high * 2**40 + middle * 2**20 + low) * 2**-48``, with the infinities that were
    met beside them; both signs of infinity stand for a NaN.
    """

    high: npt.NDArray[np.int64]
    middle: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_] | None
    negative: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, s: Operand, d: Operand) -> ExactSum:
        """Return the sums over k of ``s[a, k] * d[b, k]``, as an array ``[B, A]``."""
        length = s.shape[1]
        parts = [
            cls._short(s, d, slice(start, start + _LONGEST_PRODUCT))
            for start in range(0, length, _LONGEST_PRODUCT)
        ]
        high, middle, low = (sum(limbs) for limbs in zip(*parts, strict=True))
        specials = cls._specials(s, d) if s.special or d.special else (None, None)
        return cls(high, middle, low, *specials)

    @staticmethod
    def _short(s: Operand, d: Operand, k: slice) -> tuple[npt.NDArray[np.int64], ...]:
        """Return the limbs of a part short enough for binary64 sums."""
        s_high, s_low = s.high[:, k].T, s.low[:, k].T
        d_high, d_low = d.high[:, k], d.low[:, k]
        return (
            (d_high @ s_high).astype(np.int64),
            (d_high @ s_low).astype(np.int64) + (d_low @ s_high).astype(np.int64),
            (d_low @ s_low).astype(np.int64),
        )

    @staticmethod
    def _specials(s: Operand, d: Operand) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return where a product is a positive and where it is a negative infinity (NaN: both)."""
        s_class, d_class = (_Classes.of(operand) for operand in (s, d))

        def meets(pairs: list[tuple[npt.NDArray[np.float64], ...]]) -> npt.NDArray[np.bool_]:
            return np.add.reduce([b @ a.T for a, b in pairs]) > 0

        nan = meets(
            [
                (s_class.nan, d_class.any),
                (s_class.any, d_class.nan),
                (s_class.zero, d_class.infinite),
                (s_class.infinite, d_class.zero),
            ]
        )
        positive = meets(
            [
                (s_class.positive_infinite, d_class.positive),
                (s_class.negative_infinite, d_class.negative),
                (s_class.positive, d_class.positive_infinite),
                (s_class.negative, d_class.negative_infinite),
            ]
        )
        negative = meets(
            [
                (s_class.positive_infinite, d_class.negative),
                (s_class.negative_infinite, d_class.positive),
                (s_class.positive, d_class.negative_infinite),
                (s_class.negative, d_class.positive_infinite),
            ]
        )
        return positive | nan, negative | nan

    def __getitem__(self, part: tuple[slice, slice]) -> ExactSum:
        """Return some of the sums."""
        return ExactSum(
            self.high[part],
            self.middle[part],
            self.low[part],
            None if self.positive is None else self.positive[part],
            None if self.negative is None else self.negative[part],
        )

    def __add__(self, other: ExactSum) -> ExactSum:
        """Return the sums of both; still exact."""

        def either(
            left: npt.NDArray[np.bool_] | None, right: npt.NDArray[np.bool_] | None
        ) -> npt.NDArray[np.bool_] | None:
            return right if left is None else left if right is None else left | right

        return ExactSum(
            self.high + other.high,
            self.middle + other.middle,
            self.low + other.low,
            either(self.positive, other.positive),
            either(self.negative, other.negative),
        )

    def round(self) -> Floats:
        """Return the sums rounded once to binary32: nearest, ties to even; an exact zero is +0."""
        middle = self.middle + (self.low >> _LIMB_BITS)
        high = self.high + (middle >> _LIMB_BITS)
        low = (middle & _LIMB_MASK) << _LIMB_BITS | (self.low & _LIMB_MASK)
        # The sums are high * 2**40 + low now, with 0 <= low < 2**40. Up to 53 bits fit a binary64,
        # whose one rounding to binary32 is that of the exact sum.
        if (np.abs(high) < 1 << 13).all():
            exact = ((high << 2 * _LIMB_BITS) + low) * _UNITS[0]
        else:
            exact = self._shortened(high, low)
        result = exact.astype(np.float32).view(np.uint32)
        if self.positive is not None and self.negative is not None:
            result[self.positive] = 0x7F800000
            result[self.negative] = 0xFF800000
            result[self.positive & self.negative] = CANONICAL_NAN
        return result

    @staticmethod
    def _shortened(
        high: npt.NDArray[np.int64], low: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return high * 2**40 + low with the bits beyond 53 joined to the last one (sticky)."""
        sign = high < 0
        high = np.where(sign, ~high, high)
        low = np.where(sign, (1 << 2 * _LIMB_BITS) - low, low)
        cut = np.select([high < 1 << 13, high < 1 << 30], [0, 17], 40)
        kept = (high << 40 - cut) + (low >> cut)
        sticky = low & (np.int64(1) << cut) - 1 != 0
        too_long = kept >= 1 << 53
        sticky |= too_long & (kept & 0x7FF != 0)
        kept = np.where(too_long, kept >> 11, kept) | sticky
        magnitude = kept * _UNITS[cut + 11 * too_long]
        return np.where(sign, -magnitude, magnitude)


@dataclass(frozen=True)
class _Classes:
    """Entries of each class in each element of an operand."""

    any: npt.NDArray[np.float64]
    nan: npt.NDArray[np.float64]
    zero: npt.NDArray[np.float64]
    positive: npt.NDArray[np.float64]
    negative: npt.NDArray[np.float64]
    positive_infinite: npt.NDArray[np.float64]
    negative_infinite: npt.NDArray[np.float64]

    @property
    def infinite(self) -> npt.NDArray[np.float64]:
        return self.positive_infinite + self.negative_infinite

    @classmethod
    def of(cls, operand: Operand) -> _Classes:
        magnitude = operand.values & 0x7FFF
        negative = operand.values >= 0x8000
        number = (magnitude != 0) & (magnitude <= 0x7C00)
        infinite = magnitude == 0x7C00
        return cls(
            *(
                operand.count(predicate)
                for predicate in (
                    np.ones(magnitude.shape, bool),
                    magnitude > 0x7C00,
                    magnitude == 0,
                    number & ~negative,
                    number & negative,
                    infinite & ~negative,
                    infinite & negative,
                )
            )
        )


def dot(s: Halves, d: Halves) -> Floats:
    """Return the exact sums of exact products, each rounded once.

    Parameters
    ----------
    s
        Binary16 ``[A, K]``.
    d
        Binary16 ``[B, K]``.

    Returns
    -------
    Binary32 ``[B, A]``: ``sum over k of s[a, k] * d[b, k]``. Every element takes part, so a zero of
    `s` meets an infinity of `d`; for an operand with N:M holes see `Operand.compressed`.
    """
    return ExactSum.of(Operand.dense(s), Operand.dense(d)).round()


def add(a: Floats, b: Floats) -> Floats:
    """Return a + b in binary32, subnormals flushed."""
    with np.errstate(all="ignore"):
        # Sums of normal numbers below 2**-126 are exact in binary32: rounding comes after flushing.
        return _canonical(_flush((_flush(a) + _flush(b)).view(np.uint32)))


def multiply(a: Floats, b: Floats) -> Floats:
    """Return a * b in binary32, subnormals flushed before rounding."""
    with np.errstate(all="ignore"):
        return _round(_flush(a).astype(np.float64) * _flush(b).astype(np.float64))


def scale_down(x: Floats, k: int) -> Floats:
    """Return x * 2**-k in binary32, subnormals flushed."""
    with np.errstate(all="ignore"):
        return _round(np.ldexp(_flush(x).astype(np.float64), -k))


def to_half(x: Floats) -> Halves:
    """Return binary32 `x` as IEEE binary16: nearest even, subnormals, overflow to infinity."""
    values = np.asarray(x, np.uint32)
    with np.errstate(all="ignore"):
        result = values.view(np.float32).astype(np.float16).view(np.uint16)
    result[values & 0x7FFFFFFF > 0x7F800000] = CANONICAL_NAN_HALF
    return result


def to_float(x: Halves) -> Floats:
    """Return binary16 `x` as binary32; exact."""
    return _canonical(np.asarray(x, np.uint16).view(np.float16).astype(np.float32))


def is_finite(x: Bits) -> npt.NDArray[np.bool_]:
    """Return where binary16 or binary32 `x` is neither infinite nor NaN."""
    exponent = 0x7C00 if x.dtype == np.uint16 else 0x7F800000
    return (x & exponent) != exponent


def is_positive(x: Halves) -> npt.NDArray[np.bool_]:
    """Return where binary16 `x` is greater than zero; a NaN is not."""
    return (x > 0) & (x <= 0x7C00)


def _flush(x: Floats) -> npt.NDArray[np.float32]:
    """Return `x` as numbers, subnormals replaced by the zero of their sign."""
    bits = np.asarray(x, np.uint32)
    tiny = bits & 0x7F800000 == 0
    if tiny.any():
        bits = np.where(tiny, bits & 0x80000000, bits)
    return bits.view(np.float32)


def _round(exact: npt.NDArray[np.float64]) -> Floats:
    """Return exact binary64 values rounded to binary32; magnitudes below 2**-126 become zero."""
    tiny = np.abs(exact) < _SMALLEST_NORMAL
    if tiny.any():
        exact = np.where(tiny, np.copysign(0.0, exact), exact)
    return _canonical(exact.astype(np.float32))


def _canonical(values: npt.NDArray[np.float32]) -> Floats:
    """Return the bits of `values`, every NaN being the canonical one."""
    bits = values.view(np.uint32)
    nan = np.isnan(values)
    return np.where(nan, np.uint32(CANONICAL_NAN), bits) if nan.any() else bits
