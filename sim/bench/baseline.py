"""What the processing element is measured against: a plain multiplier plus FP32 adder MAC.

It's what one would write without the exact accumulator: normalised binary16 times binary16,
accumulated in binary32, each sum rounded to nearest even. The adder takes `LOOP` cycles, and so
many sums take turns in it. Board-neutral, and synthesised as the processing element is.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LATENCY", "LOOP", "FloatMac"]

LOOP = 6
"""Cycles from a sum to the next sum of the same output: how many sums take turns."""

LATENCY = 3 + LOOP
"""Cycles from operands to the sum with their product."""

_ELEMENTS = 8
_PRODUCT_BIAS = 127 - 2 * 15
_GUARD = 3
"""Guard, round and sticky bit of the adder."""


class _Half(data.Struct):
    fraction: unsigned(10)
    exponent: unsigned(5)
    sign: unsigned(1)


class _Float(data.Struct):
    fraction: unsigned(23)
    exponent: unsigned(8)
    sign: unsigned(1)


class FloatMac(wiring.Component):
    """Multiplies and accumulates in floating point, `LOOP` sums in turn.

    Subnormal operands count as zero; infinities and NaN aren't supported. Sums of normal products
    neither overflow nor underflow, so that every one of them is that of IEEE 754.

    Attributes
    ----------
    a : In(16)
        The one operand.
    elements, index : In
        The other is the element that the index names.
    first : In(1)
        Begin a new sum, and don't add to the one of `LOOP` cycles before.
    sum : Out(32)
        The sum, `LATENCY` cycles later.
    """

    a: In(unsigned(16))
    elements: In(data.ArrayLayout(unsigned(16), _ELEMENTS))
    index: In(range(_ELEMENTS))
    first: In(1)
    sum: Out(unsigned(32))

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        # Select the operand.
        x, y = Signal(_Half, reset_less=True), Signal(_Half, reset_less=True)
        first = Signal()
        m.d.sync += [x.eq(self.a), y.eq(self.elements[self.index]), first.eq(self.first)]

        # Multiply.
        significands = Signal(22, reset_less=True)
        scale, zero, negative = Signal(8, reset_less=True), Signal(), Signal()
        first_multiplied = Signal()
        m.d.sync += [
            significands.eq(Cat(x.fraction, 1) * Cat(y.fraction, 1)),
            scale.eq(x.exponent + y.exponent + _PRODUCT_BIAS),
            zero.eq((x.exponent == 0) | (y.exponent == 0)),
            negative.eq(x.sign ^ y.sign),
            first_multiplied.eq(first),
        ]
        product = Signal(_Float, reset_less=True)
        begin = Signal()
        m.d.sync += [product.sign.eq(negative), begin.eq(first_multiplied)]
        with m.If(zero):
            m.d.sync += [product.exponent.eq(0), product.fraction.eq(0)]
        with m.Else():
            carry = significands[-1]
            m.d.sync += [
                product.exponent.eq(scale + carry),
                product.fraction.eq(Mux(carry, significands[:-1] << 2, significands[:-2] << 3)),
            ]

        # Order by magnitude.
        result = Signal(_Float)
        addend = Signal(_Float)
        m.d.comb += addend.eq(Mux(begin, 0, result.as_value()))
        larger, smaller = Signal(_Float, reset_less=True), Signal(_Float, reset_less=True)
        swap = Signal()
        m.d.comb += swap.eq(product.as_value()[:-1] < addend.as_value()[:-1])
        m.d.sync += [
            larger.eq(Mux(swap, addend.as_value(), product.as_value())),
            smaller.eq(Mux(swap, product.as_value(), addend.as_value())),
        ]

        # Align the smaller one.
        width = 24 + _GUARD
        distance = Signal(8)
        m.d.comb += distance.eq(larger.exponent - smaller.exponent)
        aligned, kept = Signal(width, reset_less=True), Signal(width, reset_less=True)
        exponent, sign, subtract = (
            Signal(8, reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        )  # fmt: skip
        m.d.sync += [
            aligned.eq(_align(Cat(Const(0, _GUARD), _significand(smaller)), distance)),
            kept.eq(Cat(Const(0, _GUARD), _significand(larger))),
            exponent.eq(larger.exponent),
            sign.eq(larger.sign),
            subtract.eq(larger.sign ^ smaller.sign),
        ]

        # Add or subtract.
        total = Signal(width + 1, reset_less=True)
        total_exponent, total_sign = Signal(8, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            total.eq(kept + (aligned ^ subtract.replicate(width)) + subtract),
            total_exponent.eq(exponent),
            total_sign.eq(sign),
        ]
        with m.If(subtract):
            m.d.sync += total[-1].eq(0)

        # Count leading zeros.
        counted = Signal(width + 1, reset_less=True)
        zeros = Signal(range(width + 1), reset_less=True)
        counted_exponent, counted_sign = Signal(8, reset_less=True), Signal(reset_less=True)
        m.d.sync += [counted.eq(total), counted_exponent.eq(total_exponent)]
        m.d.sync += counted_sign.eq(total_sign)
        leading = Signal(range(width + 1))
        for position in range(width + 1):
            with m.If(total[position]):
                m.d.comb += leading.eq(width - position)
        m.d.sync += zeros.eq(leading)

        # Normalise.
        normal = Signal(width + 1, reset_less=True)
        normal_exponent, normal_sign = Signal(8, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            normal.eq((counted << zeros)[: width + 1]),
            normal_exponent.eq(counted_exponent + 1 - zeros),
            normal_sign.eq(counted_sign),
        ]

        # Round to nearest, ties to even; a carry out of the fraction raises the exponent.
        fraction, guard, rest = normal[4:-1], normal[3], normal[:3]
        up = guard & (rest.any() | normal[4])
        with m.If(normal[-1]):
            m.d.sync += result.eq(Cat((Cat(fraction, normal_exponent) + up)[:31], normal_sign))
        with m.Else():
            m.d.sync += result.eq(0)
        m.d.comb += self.sum.eq(result)
        return m


def _significand(number: Any) -> Value:
    """Return the significand with its hidden bit; zero has exponent zero."""
    return Cat(number.fraction, number.exponent.any())


def _align(significand: Value, distance: Value) -> Value:
    """Shift right by `distance`, the bits shifted out gathered in the lowest one."""
    value = significand
    width = len(significand)
    for bit in range((width - 1).bit_length()):
        step = 1 << bit
        shifted = Cat(value[: step + 1].any(), value[step + 1 :])
        value = Mux(distance[bit], shifted, value)
    far = distance[(width - 1).bit_length() :].any()
    return Mux(far, significand.any(), value)
