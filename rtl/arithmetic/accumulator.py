"""Exact accumulation of binary16 products: one lane of a processing element.

The exponents of two operands (subnormals count as 1, as the smallest normal numbers do) add up to
``e`` = 2 .. 60. One significand, shifted left by ``e % 16``, times the other is an integer that
counts units of ``2**(16 * bin - 50)``, ``bin = e // 16``. It's added to that bin of the output it
belongs to. Bins never round: what they hold together is the exact sum.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import ACCUMULATOR_BINS
from ..delay import delayed
from .formats import HALF, Special

__all__ = ["BIN_SHIFT", "UNIT_EXPONENT", "ExactAccumulator", "Operation"]

BIN_SHIFT = 16
"""Bits by which a bin is worth more than the one before."""

UNIT_EXPONENT = -50
"""Weight of bin 0's least significant bit, as a power of two."""

_SIGNIFICAND_BITS = HALF.fraction_bits + 1
_BIN_BITS = (ACCUMULATOR_BINS - 1).bit_length()


class Operation(enum.Enum, shape=2):
    """What a slot does to the accumulators."""

    IDLE = 0
    MULTIPLY = 1
    """Add a product to the bin that its exponent selects."""
    DRAIN = 2
    """Read a bin and clear it."""


class _Operand(data.Struct):
    """What a product needs to know of a binary16 value."""

    significand: unsigned(_SIGNIFICAND_BITS)
    normal: unsigned(1)
    """The exponent isn't zero."""
    infinite: unsigned(1)
    """The exponent is all ones: an infinity or a NaN."""
    fractional: unsigned(1)
    """The fraction isn't zero."""


class ExactAccumulator(wiring.Component):
    """Multiplies, and adds each product to one of the bins of one of `contexts` outputs.

    A context may come back 4 cycles after its last slot at the earliest, except that the bins of
    one context may be drained in consecutive slots. The content is undefined after power-up: drain
    every bin once.

    Parameters
    ----------
    bits
        Width of a bin; ``2**(bits - 38)`` products may be added before it's drained.
    contexts
        Outputs that are accumulated at once.

    Attributes
    ----------
    a, b : In(HALF)
        The operands.
    operation, context, bin : In
        The slot; `bin` is the one to drain.
    sum : Out(signed(bits))
        `LATENCY` cycles after a DRAIN slot: the bin's content, in units of ``2**(16 * bin - 50)``.
    special : Out(Special)
        `SPECIAL_LATENCY` cycles after a MULTIPLY slot: the product's infinities. Otherwise
        undefined.
    """

    LATENCY = 5
    SPECIAL_LATENCY = 2

    def __init__(self, bits: int, contexts: int) -> None:
        self._bits = bits
        self._contexts = contexts
        super().__init__(
            {
                "a": In(HALF),
                "b": In(HALF),
                "operation": In(Operation),
                "context": In(range(contexts)),
                "bin": In(_BIN_BITS),
                "sum": Out(signed(bits)),
                "special": Out(Special),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        # Stage 1: decode the operands, add their exponents.
        a, b = Signal(_Operand, reset_less=True), Signal(_Operand, reset_less=True)
        effective = []
        for value, operand in ((self.a, a), (self.b, b)):
            normal = value.exponent.any()
            m.d.sync += [
                operand.significand.eq(Cat(value.fraction, normal)),
                operand.normal.eq(normal),
                operand.infinite.eq(value.exponent.all()),
                operand.fractional.eq(value.fraction.any()),
            ]
            effective.append(Cat(value.exponent[0] | ~normal, value.exponent[1:]))
        negative = delayed(m, self.a.sign ^ self.b.sign)
        exponent = delayed(m, effective[0] + effective[1])
        operation = delayed(m, self.operation)
        context = delayed(m, self.context)
        drained_bin = delayed(m, self.bin)

        # Stage 2: shift a by a multiple of 4; find infinities and NaNs.
        infinite = a.infinite | b.infinite
        nan = (a.infinite & (a.fractional | ~(b.normal | b.fractional))) | (
            b.infinite & (b.fractional | ~(a.normal | a.fractional))
        )
        special = Signal(Special, reset_less=True)
        m.d.sync += [
            special.positive.eq(nan | (infinite & ~negative)),
            special.negative.eq(nan | (infinite & negative)),
        ]
        m.d.comb += self.special.eq(special)
        multiplicand = _shift(m, a.significand, exponent[2], 4)
        significand = delayed(m, b.significand)
        is_drain = operation == Operation.DRAIN
        selected_bin = delayed(m, Mux(is_drain, drained_bin, exponent[-_BIN_BITS:]))
        exponent = delayed(m, exponent)
        negative = delayed(m, negative)
        operation = delayed(m, operation)
        context = delayed(m, context)

        # Stage 3: finish the shifts. Both operands take a part, to suit the multiplier of a DSP
        # block.
        multiplicand = _shift(m, multiplicand, exponent[3], 8)
        multiplier = Signal(_SIGNIFICAND_BITS + 3, reset_less=True)
        m.d.sync += multiplier.eq(significand << exponent[0:2])
        address = delayed(m, Cat(selected_bin, context))
        negative = delayed(m, negative)
        operation = delayed(m, operation)

        # Stage 4: multiply.
        product = delayed(m, multiplicand * multiplier)
        address = delayed(m, address)
        negative = delayed(m, negative)
        operation = delayed(m, operation)

        # Stage 5: read the bin.
        m.submodules.bins = bins = Memory(
            shape=signed(self._bits),
            depth=self._contexts * ACCUMULATOR_BINS,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        read = bins.read_port()
        m.d.comb += [read.addr.eq(address), self.sum.eq(read.data)]
        product = delayed(m, product)
        address = delayed(m, address)
        negative = delayed(m, negative)
        operation = delayed(m, operation)

        # Stage 6: add or subtract. Addition is the subtraction of the complement, less the borrow
        # that it takes from a bit below: so one LUT does each bit of either.
        minuend = Cat(negative, read.data).as_signed()
        subtrahend = Cat(1, Mux(negative, product, ~product), ~negative).as_signed()
        total = Signal(signed(self._bits), reset_less=True)
        m.d.sync += total.eq((minuend - subtrahend)[1:])
        with m.If(operation == Operation.DRAIN):
            m.d.sync += total.eq(0)
        address = delayed(m, address)
        operation = delayed(m, operation)

        # Stage 7: write back.
        write = bins.write_port()
        m.d.comb += [
            write.addr.eq(address),
            write.data.eq(total),
            write.en.eq(operation != Operation.IDLE),
        ]
        return m


def _shift(m: Module, value: Value, enable: Value, amount: int) -> Value:
    """A register that follows `value`, shifted left by `amount` where `enable`.

    Of the bits only those that both cases fill need logic; the others are cleared synchronously.
    """
    width = len(value)
    low, middle, high = (Signal(bits, reset_less=True) for bits in (amount, width - amount, amount))
    m.d.sync += [
        low.eq(value[:amount]),
        middle.eq(Mux(enable, value, value[amount:])),
        high.eq(value[width - amount :]),
    ]
    with m.If(enable):
        m.d.sync += low.eq(0)
    with m.Else():
        m.d.sync += high.eq(0)
    return Cat(low, middle, high)
