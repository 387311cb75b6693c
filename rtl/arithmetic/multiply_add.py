"""Multiplication and exact addition, as one DSP block does them."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import MULTIPLIER_BITS, PRODUCT_BITS
from ..delay import delayed

__all__ = ["MultiplyAdd"]

_A_BITS = 18
_B_BITS = 14
_HIGH_SHIFT = 8


class MultiplyAdd(wiring.Component):
    """``p = (c if accumulate else 0) + product``, or ``-`` if negative.

    The product is ``(a << (8 if high else 0)) * b``. Sums wrap around.

    Parameters
    ----------
    bits
        Width of the sum, 42 to 48.

    Attributes
    ----------
    a, high, b : In
        The factors, in cycle 0.
    c, accumulate, negative : In
        What the product is added to, in cycle 2.
    p : Out(signed(bits))
        The sum, in cycle `LATENCY`.
    """

    LATENCY = 4

    def __init__(self, bits: int = MULTIPLIER_BITS) -> None:
        if not PRODUCT_BITS + 2 <= bits <= MULTIPLIER_BITS:
            raise ValueError(f"bits is {bits}, must be {PRODUCT_BITS + 2} to {MULTIPLIER_BITS}")
        self._bits = bits
        super().__init__(
            {
                "a": In(_A_BITS),
                "high": In(1),
                "b": In(_B_BITS),
                "c": In(signed(bits)),
                "accumulate": In(1),
                "negative": In(1),
                "p": Out(signed(bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        # Cycles 0 to 2: shift, then multiply.
        a, high = delayed(m, self.a), delayed(m, self.high)
        shifted = delayed(m, Mux(high, a.shift_left(_HIGH_SHIFT), a))
        product = delayed(m, shifted * delayed(m, self.b, 2))
        negative = delayed(m, self.negative)
        c = Signal(self._bits, reset_less=True)
        m.d.sync += c.eq(self.c)
        with m.If(~self.accumulate):
            m.d.sync += c.eq(0)

        # Cycle 3: subtraction adds the complement and, by a carry from a bit below, one: so one LUT
        # does each bit of either.
        addend = Cat(product, Const(0, self._bits - PRODUCT_BITS))
        total = Cat(negative, c) + Cat(negative, Mux(negative, ~addend, addend))
        m.d.comb += self.p.eq(delayed(m, total[1 : 1 + self._bits]))
        return m
