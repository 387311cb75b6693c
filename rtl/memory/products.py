"""Products of counts, by which units check a command before they start on it."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PRODUCT_BITS", "Products"]

FACTOR_BITS = 16
PRODUCT_BITS = 32


class Products(wiring.Component):
    """Computes several products of 16-bit factors with one multiplier, a factor per cycle.

    Parameters
    ----------
    lengths
        Number of factors of each product.

    Attributes
    ----------
    start : In(1)
        Begin; `factors` must stay until `done`.
    factors : In(array)
        The factors of all products, one product after the other.
    products : Out(array)
        The products, clamped to 2**32 - 1; valid from `done` until the next `start`.
    done : Out(1)
        One pulse, two cycles after `start` plus one for each factor.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = tuple(lengths)
        super().__init__(
            {
                "start": In(1),
                "factors": In(data.ArrayLayout(FACTOR_BITS, sum(lengths))),
                "products": Out(data.ArrayLayout(PRODUCT_BITS, len(lengths))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        steps = sum(self._lengths)
        step = Signal(range(steps + 1), init=steps)
        """Number of the factor to fetch; that many when there's none."""
        factor = Signal(FACTOR_BITS)
        with m.If(self.start):
            m.d.sync += step.eq(0)
        with m.Elif(step != steps):
            m.d.sync += step.eq(step + 1)
        m.d.sync += factor.eq(Array(self.factors[i] for i in range(steps))[step])

        fetched = Signal.like(step)
        m.d.sync += fetched.eq(step)
        product = Signal(PRODUCT_BITS)
        longer = Signal(PRODUCT_BITS + FACTOR_BITS)
        clamped = Signal(PRODUCT_BITS)
        m.d.comb += [
            longer.eq(product * factor),
            clamped.eq(Mux(longer[PRODUCT_BITS:].any(), (1 << PRODUCT_BITS) - 1, longer)),
        ]
        first = 0
        for index, length in enumerate(self._lengths):
            with m.If(fetched == first):
                m.d.comb += longer.eq(factor)
            with m.If(fetched == first + length - 1):
                m.d.sync += self.products[index].eq(clamped)
            first += length
        m.d.sync += [product.eq(clamped), self.done.eq(fetched == steps - 1)]

        return m
