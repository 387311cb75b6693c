"""Functions of one binary32 number, interpolated from tables."""

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..control.commands import Function
from ..delay import delayed
from .float32 import (
    SIGNIFICAND_BITS,
    FloatOperand,
    FloatOutcome,
    leading_zeros,
    normalise,
    round_float,
)
from .formats import FLOAT
from .function_tables import (
    C0_BITS,
    C1_BITS,
    C2_BITS,
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

__all__ = ["FunctionUnit"]

_ARGUMENT_BITS = INDEX_BITS + OFFSET_BITS

_HALF = 1 << _ARGUMENT_BITS - 1

_INTEGER_BITS = FLOAT.exponent_bits - 1
"""Of numbers that EXP2 takes and LOG2 gives, without their sign."""

_FIXED_BITS = _INTEGER_BITS + LOG2_FRACTION_BITS

_LARGEST_EXPONENT = FLOAT.bias + _INTEGER_BITS - 1
"""Biased exponent of numbers with that many integer bits."""

_SELECT_BITS = 2
"""Low bits of a function's number; they differ among those that have a table of one size."""

_FINE_BITS = exact_log2(FINE_RANGE)
"""Integer bits of numbers for which a `FINE` function is interpolated."""


class _Segment(data.Struct):
    """One word of the table."""

    c0: signed(C0_BITS)
    c1: signed(C1_BITS)
    c2: signed(C2_BITS)


def _table() -> list[dict[str, int]]:
    """Return the segments of all functions, by select bits and index, those of `FINE` ones last."""

    def place(function: Function) -> tuple[bool, int]:
        return function in FINE, function.value % (1 << _SELECT_BITS)

    return [segment._asdict() for f in sorted(SEGMENTS, key=place) for segment in SEGMENTS[f]]


class FunctionUnit(wiring.Component):
    """A function of a binary32 number, one a cycle, of any mixture of those that have tables.

    Subnormal operands count as zeros of their sign, results below 2**-126 become zeros, every NaN
    is `CANONICAL_NAN`. docs/numerics.md has the rest.

    Attributes
    ----------
    i : In(FLOAT)
        Operand.
    function : In(Function)
        What to do with it: one of `SEGMENTS`.
    o : Out(FLOAT)
        The function of the operand, `LATENCY` enabled cycles later.
    enable : In(1)
        Advances the whole pipeline; 1 if left unconnected.
    """

    i: In(FLOAT)
    function: In(Function)
    o: Out(FLOAT)
    enable: In(1, init=1)

    LATENCY = 12

    def elaborate(self, platform: Any) -> Any:
        m = Module()

        # 1: EXP2 and FINE functions take a fixed-point number: the magnitude, cut towards zero.
        x = FloatOperand(self.i)
        shift = Signal(range(_INTEGER_BITS + _ARGUMENT_BITS + 1))
        shifted = Signal(_INTEGER_BITS + _ARGUMENT_BITS)
        m.d.comb += [
            shift.eq(_LARGEST_EXPONENT - x.exponent),
            shifted.eq(Cat(Const(0, _INTEGER_BITS), x.significand) >> shift),
        ]
        gone = x.exponent < _LARGEST_EXPONENT + 1 - (1 << len(shift))
        magnitude = delayed(m, Mux(gone, 0, shifted))
        huge = delayed(m, x.exponent > _LARGEST_EXPONENT)
        beyond = delayed(m, x.exponent >= FLOAT.bias + _FINE_BITS)
        function = delayed(m, self.function)
        exponent, fraction = delayed(m, x.exponent), delayed(m, self.i.fraction)
        sign, zero, infinite, nan = (delayed(m, v) for v in (x.sign, x.zero, x.infinite, x.nan))

        # 2: the argument of the table, a number in [0, 1), and what else is known of the result.
        # The exponent is that of a fraction below one whole; with LOG2 it's the integer part.
        fixed = Signal(signed(1 + _INTEGER_BITS + _ARGUMENT_BITS))
        m.d.comb += fixed.eq((magnitude ^ sign.replicate(len(fixed))) + sign)
        argument = Signal(_ARGUMENT_BITS)
        outcome = Signal(FloatOutcome)
        invalid = sign & ~zero
        m.d.comb += [
            argument.eq(Cat(Const(0, 1), fraction)),
            outcome.sign.eq(sign),
            outcome.exponent.eq(exponent),
            outcome.zero.eq(zero),
            outcome.infinite.eq(infinite),
            outcome.nan.eq(nan),
        ]
        with m.Switch(function):
            with m.Case(Function.RECIPROCAL):
                m.d.comb += [
                    outcome.exponent.eq(2 * FLOAT.bias - 1 - exponent),
                    outcome.zero.eq(infinite),
                    outcome.infinite.eq(zero),
                ]
            with m.Case(Function.RSQRT):
                # Of a number in [1, 4) times a power of four. That it's in the upper half, where
                # the power of two is odd, shows as an even biased exponent.
                halved = exponent[1:] + exponent[0]
                m.d.comb += [
                    argument.eq(Cat(fraction, ~exponent[0])),
                    outcome.sign.eq(0),
                    outcome.exponent.eq((3 * FLOAT.bias - 1) // 2 - halved),
                    outcome.zero.eq(infinite),
                    outcome.infinite.eq(zero),
                    outcome.nan.eq(nan | invalid),
                ]
            with m.Case(Function.EXP2):
                m.d.comb += [
                    argument.eq(fixed[:_ARGUMENT_BITS]),
                    outcome.sign.eq(0),
                    outcome.exponent.eq(fixed[_ARGUMENT_BITS:].as_signed() + FLOAT.bias),
                    outcome.zero.eq(huge & sign),
                    outcome.infinite.eq(huge & ~sign),
                ]
            with m.Case(Function.LOG2):
                m.d.comb += [
                    outcome.sign.eq(exponent < FLOAT.bias),
                    outcome.exponent.eq(exponent - FLOAT.bias),
                    outcome.zero.eq(0),
                    outcome.infinite.eq(infinite | zero),
                    outcome.nan.eq(nan | invalid),
                ]
            for name in FINE:
                with m.Case(name):
                    # A sixteenth, moved to [0, 1). What is beyond the range meets one of its ends.
                    sixteenth = fixed[_FINE_BITS + 1 :][:_ARGUMENT_BITS]
                    m.d.comb += [
                        argument.eq(
                            Mux(beyond, (~sign).replicate(_ARGUMENT_BITS), sixteenth ^ _HALF)
                        ),
                        outcome.sign.eq(0),
                        outcome.exponent.eq(0),
                        outcome.zero.eq(0),
                        outcome.infinite.eq(0),
                    ]
        logarithm = function == Function.LOG2
        fine = Signal()
        m.d.comb += fine.eq(Cat(function == name for name in FINE).any())
        select = function[:_SELECT_BITS]
        address, offset = Signal(INDEX_BITS + _SELECT_BITS + 1), Signal(OFFSET_BITS)
        m.d.sync += [
            address.eq(Cat(argument[OFFSET_BITS:], select, 0)),
            offset.eq(argument),
        ]
        with m.If(fine):
            m.d.sync += [
                address.eq(Cat(argument[OFFSET_BITS - 1 :], select[:1], 1)),
                offset.eq(argument << 1),
            ]

        # 3 and 4: coefficients.
        table_segments = _table()
        m.submodules.table = table = Memory(
            shape=_Segment, depth=len(table_segments), init=table_segments
        )
        port = table.read_port()
        m.d.comb += port.addr.eq(address)
        segment = delayed(m, port.data)
        offset = delayed(m, offset, 2)

        # 5 to 8: (c2 * offset + c1) * offset + c0, each multiplication and addition fit for one
        # DSP block. The slope is cut to the unit of c1; the rest is exact.
        bend = delayed(m, segment.c2 * offset)
        tilt = delayed(m, bend + (delayed(m, segment.c1) << OFFSET_BITS))
        slope = Signal(signed(C1_BITS))
        m.d.comb += slope.eq(tilt >> OFFSET_BITS)
        rise = delayed(m, slope * delayed(m, offset, 2))
        total = Signal(signed(C0_BITS + OFFSET_BITS), reset_less=True)
        m.d.sync += total.eq(rise + (delayed(m, segment.c0, 3) << OFFSET_BITS))
        outcome = delayed(m, outcome, 7)
        logarithm, fine = delayed(m, logarithm, 7), delayed(m, fine, 7)

        # 9: a logarithm joins its integer part, and loses its sign, as a FINE function does. All
        # others have their leading one in place, unless they are one whole and carry.
        whole = UNIT_BITS + OFFSET_BITS
        negative = (logarithm & outcome.sign) | (fine & total[-1])
        word = Signal(_FIXED_BITS)
        with m.If(logarithm):
            m.d.comb += word.eq(Cat(total[whole - LOG2_FRACTION_BITS : whole], outcome.exponent))
        with m.Elif(fine):
            units = total >> FINE_UNIT_BITS + OFFSET_BITS - FINE_FRACTION_BITS
            m.d.comb += word.eq(units << LOG2_FRACTION_BITS - FINE_FRACTION_BITS)
        with m.Else():
            significand = Cat(total[whole - FLOAT.fraction_bits : whole], Const(1, 1))
            m.d.comb += word.eq(significand << _FIXED_BITS - SIGNIFICAND_BITS)
        scaled = Signal(FloatOutcome, reset_less=True)
        m.d.sync += scaled.eq(outcome)
        with m.If(logarithm | fine):
            m.d.sync += scaled.exponent.eq(_LARGEST_EXPONENT)
        with m.Else():
            m.d.sync += scaled.exponent.eq(outcome.exponent + total[whole])
        with m.If(fine):
            m.d.sync += scaled.sign.eq(negative)
        word = delayed(m, ((word ^ negative.replicate(_FIXED_BITS)) + negative)[:_FIXED_BITS])

        # 10 and 11: count the zeros above the leading one, and move it to the top.
        zeros = delayed(m, leading_zeros(m, word))
        empty = delayed(m, ~word.any())
        counted = delayed(m, scaled)
        leading, _ = normalise(m, delayed(m, word), zeros)
        normal = Signal(FloatOutcome, reset_less=True)
        m.d.sync += [
            normal.eq(counted),
            normal.exponent.eq(counted.exponent - zeros),
            normal.zero.eq(counted.zero | empty),
        ]
        significand = delayed(m, leading)

        # 12: round.
        rest = _FIXED_BITS - SIGNIFICAND_BITS
        result = round_float(
            m,
            normal,
            significand[rest:],
            guard=significand[rest - 1],
            sticky=significand[: rest - 1].any(),
        )
        m.d.comb += self.o.eq(delayed(m, result))

        return EnableInserter(self.enable)(m)
