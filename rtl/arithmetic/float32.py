"""Pipelined binary32 addition and multiplication, and conversion between binary32 and binary16.

Adder and multiplier round to nearest, ties to even, and differ from IEEE 754 in three ways only:
subnormal operands count as zeros of their sign; a result whose exact magnitude is below 2**-126
becomes a zero of its sign; every NaN result is `CANONICAL_NAN`.
"""

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..technology import Technology, technology_of
from .formats import CANONICAL_NAN, FLOAT, HALF

__all__ = [
    "SIGNIFICAND_BITS",
    "FloatAdder",
    "FloatMultiplier",
    "FloatOperand",
    "FloatOutcome",
    "FloatToHalf",
    "HalfToFloat",
    "leading_zeros",
    "normalise",
    "round_float",
]

_INFINITE_EXPONENT = (1 << FLOAT.exponent_bits) - 1

SIGNIFICAND_BITS = FLOAT.fraction_bits + 1
"""Width of a significand with its leading one."""

_HALF_NAN = 0x7E00


class FloatOperand:
    """Classification of a binary32 operand, subnormals taken as zeros."""

    def __init__(self, value: Any) -> None:
        ones = value.exponent.all()
        self.zero = ~value.exponent.any()
        self.infinite = ones & ~value.fraction.any()
        self.nan = ones & value.fraction.any()
        self.sign = value.sign
        self.exponent = value.exponent
        self.magnitude = Cat(value.fraction, value.exponent)
        self.significand = Mux(self.zero, 0, Cat(value.fraction, Const(1, 1)))


class FloatOutcome(data.Struct):
    """Parts of a result that need no rounding; travels beside the significand.

    NaN goes before infinity, and that before zero. An exponent below 1 makes a zero too.
    """

    sign: 1
    exponent: signed(10)
    zero: 1
    infinite: 1
    nan: 1


def round_float(
    m: Module, outcome: Any, significand: Value, *, guard: Value, sticky: Value
) -> Value:
    """Round a normalised 24-bit `significand` and return the packed binary32.

    `guard` weighs half a unit in the last place, `sticky` tells whether anything follows it.
    """
    round_up = guard & (sticky | significand[0])
    rounded = Signal(FLOAT.size + 1)
    m.d.comb += rounded.eq(Cat(significand[: FLOAT.fraction_bits], outcome.exponent[:9]) + round_up)
    result = Signal(FLOAT)
    m.d.comb += result.sign.eq(outcome.sign)
    with m.If(outcome.nan):
        m.d.comb += result.eq(Const(CANONICAL_NAN, FLOAT.size))
    with m.Elif(outcome.infinite):
        m.d.comb += result.exponent.eq(_INFINITE_EXPONENT)
    with m.Elif(outcome.zero | (outcome.exponent < 1)):
        m.d.comb += result.exponent.eq(0)
    with m.Elif(rounded[FLOAT.fraction_bits :] >= _INFINITE_EXPONENT):
        m.d.comb += result.exponent.eq(_INFINITE_EXPONENT)
    with m.Else():
        m.d.comb += Cat(result.fraction, result.exponent).eq(rounded)
    return result


class FloatAdder(wiring.Component):
    """Binary32 sum or maximum, one a cycle.

    Of a maximum a NaN is the largest and +0 is larger than -0. It's the sum of the larger operand
    and nothing.

    On UltraScale+ most of the alignment is done by a multiplier, a DSP block instead of 60 LUTs.

    Attributes
    ----------
    a, b : In(FLOAT)
        Operands.
    maximum : In(1)
        Take the maximum rather than the sum.
    o : Out(FLOAT)
        ``a + b`` or the larger of both, `LATENCY` enabled cycles later.
    enable : In(1)
        Advances the whole pipeline; 1 if left unconnected.
    """

    a: In(FLOAT)
    b: In(FLOAT)
    maximum: In(1)
    o: Out(FLOAT)
    enable: In(1, init=1)

    LATENCY = 5

    def elaborate(self, platform: Any) -> Any:
        m = Module()

        # 1: the operand of larger magnitude first, or the larger one; of equal ones any.
        a, b = FloatOperand(self.a), FloatOperand(self.b)
        further, swap = Signal(), Signal()
        m.d.comb += [
            # The sign of a difference is sure to be a carry chain's, which a comparison isn't.
            further.eq((a.magnitude - b.magnitude)[-1]),
            swap.eq(
                Mux(
                    self.maximum & (a.sign | b.sign),
                    a.sign & ~(b.sign & further),
                    further,
                )
            ),
        ]
        ordered = Signal(FloatOutcome, reset_less=True)
        subtract = Signal(reset_less=True)
        large = Signal(SIGNIFICAND_BITS, reset_less=True)
        difference = Signal(signed(FLOAT.exponent_bits + 1))
        m.d.comb += difference.eq(a.exponent - b.exponent)
        m.d.sync += [
            ordered.sign.eq(Mux(swap, b.sign, a.sign)),
            ordered.exponent.eq(Mux(swap, b.exponent, a.exponent)),
            ordered.zero.eq(0),
            ordered.infinite.eq(a.infinite | b.infinite),
            ordered.nan.eq(a.nan | b.nan | (a.infinite & b.infinite & (a.sign ^ b.sign))),
            subtract.eq(a.sign ^ b.sign),
            large.eq(Mux(swap, b.significand, a.significand)),
        ]
        with m.If(self.maximum):
            m.d.sync += [
                ordered.infinite.eq(Mux(swap, b.infinite, a.infinite)),
                ordered.nan.eq(a.nan | b.nan),
                subtract.eq(0),
            ]

        # 1 and 2: align the smaller to the larger, with guard, round and sticky bits below it.
        by_product = technology_of(platform) is Technology.ULTRASCALE_PLUS
        aligned_small = (_align_by_product if by_product else _align)(
            m,
            Cat(Mux(swap, self.a.fraction, self.b.fraction), Const(1, 1)),
            nothing=self.maximum | Mux(swap, a.zero, b.zero),
            difference=difference,
        )
        aligned = Signal(FloatOutcome, reset_less=True)
        aligned_subtract = Signal(reset_less=True)
        aligned_large = Signal(SIGNIFICAND_BITS + 3, reset_less=True)
        m.d.sync += [
            aligned.eq(ordered),
            aligned_subtract.eq(subtract),
            aligned_large.eq(Cat(Const(0, 3), large)),
        ]

        # 3: add or subtract, in one carry chain.
        summed = Signal(FloatOutcome, reset_less=True)
        summed_subtract = Signal(reset_less=True)
        total = Signal(SIGNIFICAND_BITS + 4, reset_less=True)
        addend = Cat(aligned_small, Const(0, 1)) ^ aligned_subtract.replicate(len(total))
        m.d.sync += [
            summed.eq(aligned),
            summed_subtract.eq(aligned_subtract),
            total.eq((Cat(aligned_subtract, aligned_large) + Cat(aligned_subtract, addend))[1:]),
        ]

        # 4: move the leading one to the top.
        leading, zeros = normalise(m, total)
        normal = Signal(FloatOutcome, reset_less=True)
        normal_subtract = Signal(reset_less=True)
        significand = Signal(len(total), reset_less=True)
        m.d.sync += [
            normal.eq(summed),
            normal_subtract.eq(summed_subtract),
            normal.exponent.eq(summed.exponent + 1 - zeros),
            normal.zero.eq(~leading[-1]),
            significand.eq(leading),
        ]

        # 5: round. An exact difference of zero is +0.
        rounded = Signal(FloatOutcome)
        m.d.comb += [
            rounded.eq(normal),
            rounded.sign.eq(normal.sign & ~(normal_subtract & normal.zero)),
        ]
        result = round_float(
            m, rounded, significand[4:], guard=significand[3], sticky=significand[:3].any()
        )
        output = Signal(FLOAT, reset_less=True)
        m.d.sync += output.eq(result)
        m.d.comb += self.o.eq(output)

        return EnableInserter(self.enable)(m)


class FloatMultiplier(wiring.Component):
    """Binary32 product, one a cycle.

    Attributes
    ----------
    a, b : In(FLOAT)
        Operands.
    o : Out(FLOAT)
        ``a * b``, `LATENCY` enabled cycles later.
    enable : In(1)
        Advances the whole pipeline; 1 if left unconnected.
    """

    a: In(FLOAT)
    b: In(FLOAT)
    o: Out(FLOAT)
    enable: In(1, init=1)

    LATENCY = 4

    _SPLIT = 17
    """Bits of `b` that go with all of `a` into one multiplier of 27 by 18 bits."""

    def elaborate(self, platform: Any) -> Any:
        m = Module()

        # 1: unpack.
        a, b = FloatOperand(self.a), FloatOperand(self.b)
        unpacked = Signal(FloatOutcome, reset_less=True)
        multiplicand = Signal(SIGNIFICAND_BITS, reset_less=True)
        multiplier = Signal(SIGNIFICAND_BITS, reset_less=True)
        zero = a.zero | b.zero
        infinite = a.infinite | b.infinite
        m.d.sync += [
            unpacked.sign.eq(a.sign ^ b.sign),
            unpacked.exponent.eq(a.exponent + b.exponent - FLOAT.bias),
            unpacked.zero.eq(zero),
            unpacked.infinite.eq(infinite),
            unpacked.nan.eq(a.nan | b.nan | (zero & infinite)),
            multiplicand.eq(a.significand),
            multiplier.eq(b.significand),
        ]

        # 2: partial products.
        multiplied = Signal(FloatOutcome, reset_less=True)
        low = Signal(SIGNIFICAND_BITS + self._SPLIT, reset_less=True)
        high = Signal(2 * SIGNIFICAND_BITS - self._SPLIT, reset_less=True)
        m.d.sync += [
            multiplied.eq(unpacked),
            low.eq(multiplicand * multiplier[: self._SPLIT]),
            high.eq(multiplicand * multiplier[self._SPLIT :]),
        ]

        # 3: their sum, in [1, 4) with 46 bits of fraction.
        summed = Signal(FloatOutcome, reset_less=True)
        product = Signal(2 * SIGNIFICAND_BITS, reset_less=True)
        m.d.sync += [
            summed.eq(multiplied),
            product.eq(low + (high << self._SPLIT)),
        ]

        # 4: normalise by at most one place and round.
        normal = Signal(FloatOutcome)
        significand = Signal(2 * SIGNIFICAND_BITS)
        m.d.comb += [
            normal.eq(summed),
            normal.exponent.eq(summed.exponent + product[-1]),
            significand.eq(Mux(product[-1], product, product << 1)),
        ]
        result = round_float(
            m,
            normal,
            significand[SIGNIFICAND_BITS:],
            guard=significand[SIGNIFICAND_BITS - 1],
            sticky=significand[: SIGNIFICAND_BITS - 1].any(),
        )
        output = Signal(FLOAT, reset_less=True)
        m.d.sync += output.eq(result)
        m.d.comb += self.o.eq(output)

        return EnableInserter(self.enable)(m)


class FloatToHalf(wiring.Component):
    """Binary32 to binary16 as IEEE 754 defines it, combinational.

    Rounds to nearest, ties to even, with subnormal results; overflow gives infinity, every NaN
    0x7E00.

    Attributes
    ----------
    i : In(FLOAT)
    o : Out(HALF)
    """

    i: In(FLOAT)
    o: Out(HALF)

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        rebias = FLOAT.bias - HALF.bias
        dropped = FLOAT.fraction_bits - HALF.fraction_bits
        pad = HALF.fraction_bits + 2

        # Below the normal range the significand moves right. After `pad` places only its sticky bit
        # can be left, so that the lower bits of the distance do, and what is too far is zero.
        subnormal, too_far = Signal(), Signal()
        shift = Signal(range(pad + 1))
        m.d.comb += [
            subnormal.eq(self.i.exponent <= rebias),
            too_far.eq(self.i.exponent <= rebias + 1 - (1 << len(shift))),
        ]
        with m.If(subnormal):
            m.d.comb += shift.eq(rebias + 1 - self.i.exponent[: len(shift)])
        significand = Signal(SIGNIFICAND_BITS + pad)
        m.d.comb += significand.eq(Cat(Const(0, pad), self.i.fraction, Const(1, 1)) >> shift)

        kept = significand[pad + dropped :]
        guard = significand[pad + dropped - 1]
        sticky = significand[: pad + dropped - 1].any()
        exponent = Signal(HALF.exponent_bits)
        m.d.comb += exponent.eq(Mux(subnormal, 0, self.i.exponent - rebias))
        magnitude = Signal(HALF.size - 1)
        m.d.comb += magnitude.eq(
            Cat(kept[: HALF.fraction_bits], exponent) + (guard & (sticky | kept[0]))
        )

        m.d.comb += self.o.sign.eq(self.i.sign)
        with m.If(self.i.exponent.all() & self.i.fraction.any()):
            m.d.comb += self.o.eq(Const(_HALF_NAN, HALF.size))
        with m.Elif(self.i.exponent > rebias + 2 * HALF.bias):
            m.d.comb += self.o.exponent.eq((1 << HALF.exponent_bits) - 1)
        with m.Elif(~too_far):
            m.d.comb += Cat(self.o.fraction, self.o.exponent).eq(magnitude)

        return m


class HalfToFloat(wiring.Component):
    """Binary16 to binary32, combinational and exact; every NaN becomes `CANONICAL_NAN`.

    Attributes
    ----------
    i : In(HALF)
    o : Out(FLOAT)
    """

    i: In(HALF)
    o: Out(FLOAT)

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        rebias = FLOAT.bias - HALF.bias
        pad = Const(0, FLOAT.fraction_bits - HALF.fraction_bits)
        leading, zeros = normalise(m, self.i.fraction)

        m.d.comb += self.o.sign.eq(self.i.sign)
        with m.If(self.i.exponent.all() & self.i.fraction.any()):
            m.d.comb += self.o.eq(Const(CANONICAL_NAN, FLOAT.size))
        with m.Elif(self.i.exponent.all()):
            m.d.comb += self.o.exponent.eq(_INFINITE_EXPONENT)
        with m.Elif(self.i.exponent.any()):
            m.d.comb += [
                self.o.exponent.eq(self.i.exponent + rebias),
                self.o.fraction.eq(Cat(pad, self.i.fraction)),
            ]
        with m.Elif(self.i.fraction.any()):
            m.d.comb += [
                self.o.exponent.eq(rebias - zeros),
                self.o.fraction.eq(Cat(pad, Const(0, 1), leading[:-1])),
            ]

        return m


def _align(m: Module, significand: Value, *, nothing: Value, difference: Value) -> Value:
    """Return `significand`, or zero if `nothing`, moved right, with three bits below it.

    `difference` has either sign. The result is there after two cycles; its lowest bit is sticky.
    """
    distance = Mux(difference[-1], -difference, difference)[: FLOAT.exponent_bits]
    small = Signal(SIGNIFICAND_BITS, reset_less=True)
    m.d.sync += small.eq(significand)
    with m.If(nothing):
        m.d.sync += small.eq(0)
    shifted, lost = _shift_right(m, Cat(Const(0, 2), small), delayed(m, distance))
    return delayed(m, Cat(lost, shifted))


def _align_by_product(m: Module, significand: Value, *, nothing: Value, difference: Value) -> Value:
    """Return the same as `_align`, sixteen places in LUTs and up to fifteen in a multiplier.

    Those sixteen are one LUT a bit with the choice of the operand before. The multiplier moves
    left, by a power of two, what then counts from its sixteenth bit on.
    """
    negative, low, high = difference[-1], difference[:4], difference[5:]
    places = 1 << len(low)
    # Of the magnitude: what its lowest bits are, the next one, and whether there are others.
    is_low = [Mux(negative, low == -place % places, low == place) for place in range(places)]
    coarse = difference[4] ^ (negative & low.any())
    beyond = Mux(negative, ~high.all() | ~difference[:5].any(), high.any())
    most = places - 1
    wide = Cat(Const(0, 2), significand)
    multiplicand = Signal(len(wide), reset_less=True)
    lost = Signal(reset_less=True)
    power = Signal(places, reset_less=True)
    m.d.sync += [
        multiplicand.eq(Mux(coarse, wide >> places, wide)),
        lost.eq(beyond | (coarse & wide[:places].any())),
        power.eq(Cat(reversed(is_low))),
    ]
    with m.If(nothing | beyond):
        m.d.sync += multiplicand.eq(0)
    with m.If(nothing):
        m.d.sync += lost.eq(0)
    product = delayed(m, multiplicand * power)
    return Cat(delayed(m, lost) | product[:most].any(), product[most : most + len(wide)])


def _shift_right(m: Module, value: Value, distance: Value) -> tuple[Value, Value]:
    """Return `value` shifted right and whether any one was shifted out."""
    width = len(value)
    stages = (width - 1).bit_length()
    shifted, lost = value, Const(0, 1)
    for stage in reversed(range(stages)):
        step = 1 << stage
        next_shifted, next_lost = Signal(width), Signal()
        m.d.comb += [
            next_shifted.eq(Mux(distance[stage], shifted >> step, shifted)),
            next_lost.eq(lost | (distance[stage] & shifted[:step].any())),
        ]
        shifted, lost = next_shifted, next_lost
    beyond = distance[stages:].any()
    return Mux(beyond, 0, shifted), Mux(beyond, value.any(), lost)


def leading_zeros(m: Module, value: Value) -> Value:
    """Return the number of zeros above the leading one of `value`; what if there's none is open."""
    width = len(value)
    stages = (width - 1).bit_length()
    # Of each half, quarter and so on, from the top: is it empty, and how many zeros lead it.
    counts: list[tuple[Value, Value]] = [(~bit, Const(0, 0)) for bit in reversed(value)]
    counts += [(Const(1, 1), Const(0, 0))] * ((1 << stages) - width)
    while len(counts) > 1:
        joined = []
        for (high_empty, high), (low_empty, low) in zip(counts[::2], counts[1::2]):
            joined.append((high_empty & low_empty, Cat(Mux(high_empty, low, high), high_empty)))
        counts = joined
    zeros = Signal(stages)
    m.d.comb += zeros.eq(counts[0][1])
    return zeros


def normalise(m: Module, value: Value, zeros: Value | None = None) -> tuple[Value, Value]:
    """Return `value` with its leading one moved to the top and the places that it moved.

    `zeros` are its leading zeros where they are known already.
    """
    if zeros is None:
        zeros = leading_zeros(m, value)
    for stage in reversed(range(len(zeros))):
        shifted = Signal(len(value))
        m.d.comb += shifted.eq(Mux(zeros[stage], value << (1 << stage), value))
        value = shifted
    return value, zeros
