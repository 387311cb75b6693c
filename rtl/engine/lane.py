"""One lane of a processing element: multiplies, and accumulates exactly."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.bin_memory import BinMemory
from ..arithmetic.formats import Special
from ..arithmetic.multiply_add import MultiplyAdd
from ..arithmetic.operand import Kind, Operand
from ..config import ACCUMULATOR_BINS, Config
from ..delay import delayed

__all__ = ["BIN", "Lane", "Place"]

BIN = unsigned((ACCUMULATOR_BINS - 1).bit_length())
"""Number of a bin."""


class Place(data.StructLayout):
    """The bins of one output: a context of one of the two halves."""

    def __init__(self, config: Config) -> None:
        super().__init__({"context": range(config.interleave), "half": 1})


class Lane(wiring.Component):
    """Multiplies, and adds each product to one of the bins of the output it belongs to.

    The exponents of two operands say which bin, and by how much the product is shifted. Bins never
    round: what they hold together is the exact sum. While products go to one half of the bins,
    those of the other can be drained. A bin isn't cleared: whether it was touched since its output
    began is kept beside it, and one that wasn't counts as zero.

    Contexts are served in turn, so an output may come back after `interleave` slots, 3 cycles later
    at the earliest.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    a, kind : In
        The S operand and what it is, in cycle 0.
    b : In(Operand)
        The D operand, in cycle 0.
    touch, first : In(1)
        In cycle `TOUCH_STAGE`: a product is added; it's the first of its output since the bins
        were drained.
    read : In(Place)
        In cycle `READ_STAGE`: the output.
    write, write_enable : In
        In cycle `WRITE_STAGE`: the output, and whether a product is added.
    special : Out(Special)
        In cycle `TOUCH_STAGE`: the product's infinities, if there is one.
    touched : Out(ACCUMULATOR_BINS)
        A cycle after `TOUCH_STAGE` with `touch`: bins of the output that were touched. They stay
        until the next product.
    drain, drain_bin, drain_enable, drain_skip : In
        A bin to read, whether it's read at all, and whether to take it as zero, as it wasn't
        touched. With one of `Config.bin_ports`, not in the half of `read` if what that reads is
        added to.
    drained : Out(signed(bin_bits))
        Its content, a cycle later.
    """

    TOUCH_STAGE = 2
    READ_STAGE = 3
    WRITE_STAGE = 5

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "a": In(Operand),
                "kind": In(Kind),
                "b": In(Operand),
                "touch": In(1),
                "first": In(1),
                "read": In(Place(config)),
                "write": In(Place(config)),
                "write_enable": In(1),
                "special": Out(Special),
                "touched": Out(ACCUMULATOR_BINS),
                "drain": In(Place(config)),
                "drain_bin": In(BIN),
                "drain_enable": In(1),
                "drain_skip": In(1),
                "drained": Out(signed(config.bin_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        # Cycle 0: add the exponents, in steps of four; what is special of the D operand.
        exponent = Signal(4, reset_less=True)
        m.d.sync += exponent.eq(self.a.exponent + self.b.exponent)
        negative = delayed(m, self.a.sign ^ self.b.sign)
        b_special = delayed(m, self.b.is_special())
        # A zero, if bit 10 is clear as well: which says of specials that they aren't NaNs.
        b_zero = delayed(m, self.b.exponent.all() & ~self.b.significand[11:].any())
        kind = delayed(m, self.kind)
        a, b = delayed(m, self.a.significand), delayed(m, self.b.significand)

        # Cycle 1: shift by four where needed; infinities and NaNs.
        is_nan = (
            (kind == Kind.NAN)
            | (b_special & (b[10] | (kind == Kind.ZERO)))
            | (b_zero & ~b[10] & (kind == Kind.INFINITE))
        )
        is_infinite = b_special | (kind == Kind.INFINITE)
        special = Signal(Special, reset_less=True)
        m.d.sync += [
            special.positive.eq(is_nan | (is_infinite & ~negative)),
            special.negative.eq(is_nan | (is_infinite & negative)),
        ]
        m.d.comb += self.special.eq(special)
        m.submodules.multiply_add = multiply_add = MultiplyAdd(config.bin_bits)
        m.d.comb += multiply_add.b.eq(b)
        a = _shift(m, a, exponent[0], 4)
        high, bins, negative = (
            delayed(m, value) for value in (exponent[1], exponent[2:], negative)
        )

        # Cycle 2: multiply. Was the bin touched before? The contexts come in turn, each with the
        # bins it touched.
        m.d.comb += [multiply_add.a.eq(a), multiply_add.high.eq(high)]
        turns = Signal(data.ArrayLayout(ACCUMULATOR_BINS, config.interleave), reset_less=True)
        before = turns[0]
        with m.If(self.touch):
            m.d.sync += turns[-1].eq(
                Mux(self.first, 0, before)
                | Cat(bins == number for number in range(ACCUMULATOR_BINS))
            )
            m.d.sync += [turns[i].eq(turns[i + 1]) for i in range(config.interleave - 1)]
        m.d.comb += self.touched.eq(turns[-1])
        accumulate = delayed(m, before.bit_select(bins, 1) & ~self.first)
        bins, negative = delayed(m, bins), delayed(m, negative)

        # Cycle 3: read the bin; the adder takes it as the product leaves the multiplier.
        m.submodules.bins = memory = BinMemory(
            config.bin_bits, 2 * config.interleave * ACCUMULATOR_BINS, config.bin_ports
        )
        m.d.comb += [
            memory.read_a_address.eq(Cat(bins, self.read)),
            multiply_add.c.eq(memory.read_a_data),
            multiply_add.accumulate.eq(accumulate),
            multiply_add.negative.eq(negative),
        ]

        # Cycle 5: write it back.
        bins = delayed(m, bins, self.WRITE_STAGE - self.READ_STAGE)
        m.d.comb += [
            memory.write_address.eq(Cat(bins, self.write)),
            memory.write_data.eq(multiply_add.p),
            memory.write_enable.eq(self.write_enable),
        ]

        # Drain.
        drained = Signal(config.bin_bits, reset_less=True)
        m.d.sync += drained.eq(memory.read_b_data)
        with m.If(self.drain_skip):
            m.d.sync += drained.eq(0)
        m.d.comb += [
            memory.read_b_address.eq(Cat(self.drain_bin, self.drain)),
            memory.read_b_enable.eq(self.drain_enable),
            self.drained.eq(drained),
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
