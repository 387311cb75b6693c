"""Number formats that travel between the units."""

from typing import Any

from amaranth.hdl import Cat, Value, unsigned
from amaranth.lib import data

__all__ = ["CANONICAL_NAN", "FLOAT", "HALF", "Special", "is_positive"]


class _IEEE(data.StructLayout):
    """Sign, exponent and fraction of an IEEE 754 binary interchange format."""

    def __init__(self, *, exponent_bits: int, fraction_bits: int) -> None:
        self.exponent_bits = exponent_bits
        self.fraction_bits = fraction_bits
        self.bias = (1 << (exponent_bits - 1)) - 1
        super().__init__(
            {
                "fraction": unsigned(fraction_bits),
                "exponent": unsigned(exponent_bits),
                "sign": unsigned(1),
            }
        )


HALF = _IEEE(exponent_bits=5, fraction_bits=10)
"""IEEE 754 binary16."""

FLOAT = _IEEE(exponent_bits=8, fraction_bits=23)
"""IEEE 754 binary32."""

CANONICAL_NAN = 0x7FC00000
"""The only binary32 NaN that any unit produces."""


class Special(data.Struct):
    """Infinities met in a sum; both set (or a NaN operand) makes the sum a NaN."""

    positive: 1
    negative: 1


def is_positive(half: Any) -> Value:
    """Return whether a binary16 number is greater than zero, which no NaN is."""
    infinity = ((1 << HALF.exponent_bits) - 1) << HALF.fraction_bits
    magnitude = Cat(half.fraction, half.exponent)
    return ~half.sign & magnitude.any() & (magnitude <= infinity)
