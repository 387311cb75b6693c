"""Rounding of exact sums to binary32."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from .formats import CANONICAL_NAN, FLOAT, Special

__all__ = ["FixedPoint", "Rounder"]

_ROUNDED_BITS = FLOAT.fraction_bits + 2
"""Significand and the bit below it."""

_INFINITY = ((1 << FLOAT.exponent_bits) - 1) << FLOAT.fraction_bits


class FixedPoint(data.StructLayout):
    """An exact sum of binary16 products: a signed number of units of ``2**-48``, and infinities."""

    UNIT_EXPONENT = -48

    def __init__(self, bits: int) -> None:
        super().__init__({"units": signed(bits), "special": Special})


class Rounder(wiring.Component):
    """Rounds exact sums to binary32: to nearest, ties to even.

    An exact zero becomes +0; infinities of both signs become the canonical NaN. Every other nonzero
    sum is a normal binary32.

    Parameters
    ----------
    bits
        Width of the sum.

    Attributes
    ----------
    valid, sum : In
        One sum in each cycle.
    valid_next, result : Out
        The binary32, `LATENCY` cycles later.
    """

    LATENCY = 6

    def __init__(self, bits: int) -> None:
        if not _ROUNDED_BITS < bits <= 128:
            raise ValueError(f"a sum to be rounded has {_ROUNDED_BITS + 1} to 128 bits, not {bits}")
        self._bits = bits
        super().__init__(
            {
                "valid": In(1),
                "sum": In(FixedPoint(bits)),
                "valid_next": Out(1),
                "result": Out(FLOAT),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        valid = delayed(m, self.valid, reset=True)

        # Stage 1: sign and magnitude.
        is_negative = self.sum.units < 0
        magnitude = Signal(self._bits, reset_less=True)
        with m.If(self.valid):
            m.d.sync += magnitude.eq(
                (self.sum.units ^ is_negative.replicate(self._bits)) + is_negative
            )
        negative = delayed(m, is_negative)
        special = delayed(m, self.sum.special)

        # Stages 2 to 5: shift the leading one to the top, two powers of two a stage. What can't
        # reach the significand and the bit below it any more shrinks to one sticky bit.
        sticky: Value = Const(0, 1)
        zeros: Value = Const(0, 0)
        for amounts in ((64, 32), (16, 8), (4, 2), (1,)):
            for amount in amounts:
                width = len(magnitude)
                is_small = ~magnitude[-amount:].any() if amount < width else Const(0, 1)
                magnitude = Mux(is_small, magnitude << amount, magnitude)[:width]
                zeros = Cat(is_small, zeros)
                reach = min(width, _ROUNDED_BITS + amount - 1)
                sticky = sticky | magnitude[: width - reach].any()
                magnitude = magnitude[width - reach :]
            stage = Signal(
                data.StructLayout({"magnitude": len(magnitude), "sticky": 1, "zeros": len(zeros)}),
                reset_less=True,
            )
            with m.If(valid):
                m.d.sync += [
                    stage.magnitude.eq(magnitude),
                    stage.sticky.eq(sticky),
                    stage.zeros.eq(zeros),
                ]
            magnitude, sticky, zeros = stage.magnitude, stage.sticky, stage.zeros
            valid = delayed(m, valid, reset=True)
            negative = delayed(m, negative)
            special = delayed(m, special)

        # Stage 6: round. A carry out of the fraction goes into the exponent, as it should.
        guard, fraction, leading = magnitude[0], magnitude[1:-1], magnitude[-1]
        top_exponent = FLOAT.bias + FixedPoint.UNIT_EXPONENT + self._bits - 1
        exponent = (top_exponent - zeros)[: FLOAT.exponent_bits]
        rounded = Cat(fraction, exponent) + (guard & (sticky | fraction[0]))
        result = Signal(FLOAT, reset_less=True)
        with m.If(valid):
            m.d.sync += result.eq(
                Cat(rounded[: FLOAT.fraction_bits + FLOAT.exponent_bits], negative)
            )
            with m.If(~leading):
                m.d.sync += result.eq(0)
            with m.If(special.positive | special.negative):
                m.d.sync += result.eq(_INFINITY | special.negative << 31)
            with m.If(special.positive & special.negative):
                m.d.sync += result.eq(CANONICAL_NAN)
        m.d.comb += [self.result.eq(result), self.valid_next.eq(delayed(m, valid, reset=True))]
        return m
