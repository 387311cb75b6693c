"""binary16 operands as the array multiplies them, decoded once when they are loaded.

A finite value is ``significand * 2**(4 * exponent - 25)``: the significand has been shifted left by
the lower two bits of the effective exponent (1 for subnormals, as for the smallest normal numbers),
so that only steps of four are left. What finite values leave unused says the rest: a zero has the
largest exponent and no significand, an infinity the largest exponent and the significand's top bit,
a NaN also its bit 10.

The product of two significands counts units of ``2**(4 * u - 50)``, where u = 0 .. 14 is the sum of
the exponents: four bins of four such steps each hold sums of all products exactly.
"""

from amaranth.hdl import Cat, Mux, Value, unsigned
from amaranth.lib import data, enum

__all__ = ["BIN_SHIFT", "UNIT_EXPONENT", "Kind", "Operand", "decode"]

BIN_SHIFT = 16
"""Bits by which a bin is worth more than the one before."""

UNIT_EXPONENT = -50
"""Weight of the lowest bin's least significant bit, as a power of two."""


class Kind(enum.Enum, shape=2):
    """What an operand is."""

    FINITE = 0
    ZERO = 1
    INFINITE = 2
    NAN = 3


class Operand(data.Struct):
    """A decoded binary16 value."""

    significand: unsigned(14)
    exponent: unsigned(3)
    sign: unsigned(1)

    def is_special(self) -> Value:
        """Whether it's an infinity or a NaN."""
        return self.exponent.all() & self.significand[13]

    def is_nan(self) -> Value:
        """Whether it's a NaN, if it's special."""
        return self.significand[10]

    def is_zero(self) -> Value:
        """Whether it's a zero."""
        return self.exponent.all() & ~self.significand[10:].any()

    def kind(self) -> Value:
        """Return its `Kind`."""
        return Mux(
            self.is_special(),
            Mux(self.is_nan(), Kind.NAN, Kind.INFINITE),
            Mux(self.is_zero(), Kind.ZERO, Kind.FINITE),
        )


def decode(half: data.View) -> Value:
    """Return the bits of the `Operand` of a binary16 value."""
    normal = half.exponent.any()
    is_zero = ~normal & ~half.fraction.any()
    is_nan = half.exponent.all() & half.fraction.any()
    shift = Cat(half.exponent[0] | ~normal, half.exponent[1])
    significand = (Cat(half.fraction, normal) << shift)[:14]
    return Cat(
        significand | is_nan.shift_left(10),
        half.exponent[2:] | is_zero.replicate(3),
        half.sign,
    )
