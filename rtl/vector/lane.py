"""One lane of the vector unit."""

from typing import Any

from amaranth.hdl import EnableInserter, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arithmetic.float32 import FloatAdder, FloatMultiplier, FloatToHalf, HalfToFloat
from ..arithmetic.formats import FLOAT, HALF, is_positive
from ..config import Config
from ..control.commands import Mask, VectorOperand
from ..delay import delayed

__all__ = ["PARTS", "LaneCommand", "LaneStep", "OutputSource", "ResultSource", "VectorLane"]

PARTS = 4
"""Sums over rows that run beside each other: the adder takes longer than the cycles of a row."""

_MINUS_ZERO = 1 << 31
_MINUS_INFINITY = 0xFF800000


class ResultSource(enum.Enum, shape=2):
    """What becomes the next result."""

    SUM = 0
    """``p + c``, or ``p + q + c``."""
    PRODUCT = 1
    """``p`` itself."""
    NEIGHBOUR = 2
    """That of the lane above."""
    PART = 3
    """A sum over rows."""


class OutputSource(enum.Enum, shape=3):
    """What leaves the lane."""

    RESULT = 0
    SUM = 1
    MAXIMUM = 2
    PRODUCT_SUM = 3
    FOLD = 4


class LaneCommand(data.Struct):
    """What stays during a command."""

    narrow: unsigned(1)
    y: VectorOperand
    mask: Mask
    relu: unsigned(1)
    without_a: unsigned(1)
    without_b: unsigned(1)
    maximum: unsigned(1)
    """Sums over rows begin as the least value rather than as zero."""


class LaneStep(data.StructLayout):
    """What happens in a cycle; the numbers are cycles of a half row in `VectorLane`.

    Attributes
    ----------
    load, load_half
        Take the coefficient a, b or c of a half.
    issue, place, first_tile
        0: there are operands, of this row and half, of the first tile of a window.
    factor_half, summand_half
        1, 10: the half of the coefficients.
    source
        15: where the result comes from, if `take`.
    take
        15: there is a result.
    finish, combine
        16: mask and rectify the result, or leave it as it is.
    accumulate
        17: add the result to a sum.
    fold, first
        17: it goes to the tile folded, of which it is the first, rather than to a sum over rows.
    part_read, part_write, part_address, part_sum, part_clear
        Sums over rows: which one is read, which one takes the maximum, the sum or its first value.
    fold_read, fold_write, fold_address, fold_sum
        The tile folded, likewise; it is read a cycle later.
    multiply
        17: multiply the result by ``y``.
    add_product
        21: add the product to its sum.
    product_combine
        21: add another sum instead; it was read in the cycle before.
    product_read, product_write, product_address
        The sums of products.
    output, output_source
        Something leaves, from the next cycle on.
    """

    def __init__(self, config: Config) -> None:
        place = unsigned(exact_log2(config.elements) + 1)
        part = unsigned(exact_log2(2 * PARTS))
        super().__init__(
            {
                "load": 3,
                "load_half": 1,
                "issue": 1,
                "place": place,
                "first_tile": 1,
                "factor_half": 1,
                "summand_half": 1,
                "source": ResultSource,
                "take": 1,
                "finish": 1,
                "combine": 1,
                "accumulate": 1,
                "fold": 1,
                "first": 1,
                "part_read": part,
                "part_write": 1,
                "part_address": part,
                "part_sum": 1,
                "part_clear": 1,
                "fold_read": place,
                "fold_write": 1,
                "fold_address": place,
                "fold_sum": 1,
                "multiply": 1,
                "add_product": 1,
                "product_combine": 1,
                "product_read": part,
                "product_write": 1,
                "product_address": part,
                "output": 1,
                "output_source": OutputSource,
            }
        )


class VectorLane(wiring.Component):
    """The arithmetic of one column of each half row.

    Operands of cycle 0 give ``p = a * x`` and ``q = b * y`` in 5, ``p + q`` in 10, ``p + q + c`` in
    15, the result in 17, and what it is added to in 22. Two multipliers and two adders do all of
    that: without b the first adder is free for sums of results, and with neither b nor c the second
    multiplier and adder are for sums of products. `LaneStep` tells who has them; where a command
    needs more, its half rows must not overlap.

    Parameters
    ----------
    config
        Sets the size of a tile.

    Attributes
    ----------
    command : In(LaneCommand)
        Constant while anything is under way.
    step : In(LaneStep)
        What to do.
    coefficient : In(FLOAT)
        Value that ``load`` takes. An absent a or c is -0.
    x : In(FLOAT)
        Operand; if ``narrow``, binary16 in the lower half.
    held : In(array of HALF)
        Elements of the tiles held.
    y_register : In(FLOAT)
        ``y`` if it is a register.
    neighbour : In(FLOAT)
        For `ResultSource.NEIGHBOUR`.
    enable : In(1)
        Advance; 1 unless connected.
    value : Out(FLOAT)
        The result before it is finished, in cycle 16.
    o : Out(FLOAT)
        What leaves.
    half : Out(HALF)
        The same in binary16.
    """

    MULTIPLIED = 1 + FloatMultiplier.LATENCY
    TAKEN = MULTIPLIED + 2 * FloatAdder.LATENCY
    """Cycle in which a result is taken."""
    RESULT = TAKEN + 2
    PRODUCT = RESULT + FloatMultiplier.LATENCY

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(LaneCommand),
                "step": In(LaneStep(config)),
                "coefficient": In(FLOAT),
                "x": In(FLOAT),
                "held": In(data.ArrayLayout(HALF, 2)),
                "y_register": In(FLOAT),
                "neighbour": In(FLOAT),
                "enable": In(1, init=1),
                "value": Out(FLOAT),
                "o": Out(FLOAT),
                "half": Out(HALF),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        command, step = self.command, self.step
        places = 2 * self._config.elements

        # Operands. What meets an absent a is zero; its product with -0 changes no sum.
        m.submodules.widen_x = widen_x = HalfToFloat()
        m.submodules.widen_y = widen_y = HalfToFloat()
        m.d.comb += [
            widen_x.i.eq(self.x.as_value()[: HALF.size]),
            widen_y.i.eq(self.held[0]),
        ]
        with m.If(command.y == VectorOperand.HELD_1):
            m.d.comb += widen_y.i.eq(self.held[1])
        x, y = Signal(FLOAT), Signal(FLOAT)
        m.d.comb += x.eq(Mux(command.narrow, widen_x.o.as_value(), self.x.as_value()))
        with m.Switch(command.y):
            with m.Case(VectorOperand.X):
                m.d.comb += y.eq(x)
            with m.Case(VectorOperand.REGISTER):
                m.d.comb += y.eq(self.y_register)
            with m.Default():
                m.d.comb += y.eq(widen_y.o)
        factor, other = Signal(FLOAT, reset_less=True), Signal(FLOAT, reset_less=True)
        with m.If(step.issue):
            m.d.sync += [factor.eq(x), other.eq(y)]
            with m.If(command.without_a):
                m.d.sync += factor.eq(0)

        keep = self._mask(m, places)

        # Coefficients of both halves.
        coefficients = []
        for index, half in enumerate((step.factor_half, step.factor_half, step.summand_half)):
            pair = Signal(data.ArrayLayout(FLOAT, 2), reset_less=True, name=f"coefficient_{index}")
            for position in range(2):
                with m.If(step.load[index] & (step.load_half == position)):
                    m.d.sync += pair[position].eq(self.coefficient)
            chosen = Signal(FLOAT, name=f"chosen_{index}")
            m.d.comb += chosen.eq(Mux(half, pair[1].as_value(), pair[0].as_value()))
            coefficients.append(chosen)
        a, b, c = coefficients

        # Products: a * x, and b * y or that of a result.
        result = Signal(FLOAT, reset_less=True)
        m.submodules.first_product = p = FloatMultiplier()
        m.submodules.second_product = q = FloatMultiplier()
        later_y = delayed(m, other, self.RESULT - 1)
        m.d.comb += [
            p.a.eq(a),
            p.b.eq(factor),
            q.a.eq(Mux(step.multiply, result.as_value(), b.as_value())),
            q.b.eq(Mux(step.multiply, later_y.as_value(), other.as_value())),
        ]

        # Sums: p + q, or of a result and those before; then + c, or of products.
        addend = Signal(FLOAT)
        products_read, products_before = Signal(FLOAT), Signal(FLOAT, reset_less=True)
        m.submodules.first_sum = first_sum = FloatAdder()
        m.submodules.second_sum = second_sum = FloatAdder()
        p_beside_sum = delayed(m, p.o, FloatAdder.LATENCY)
        p_beside_sums = delayed(m, p_beside_sum, FloatAdder.LATENCY)
        m.d.comb += [
            first_sum.a.eq(Mux(step.accumulate, result.as_value(), p.o.as_value())),
            first_sum.b.eq(Mux(step.accumulate, addend.as_value(), q.o.as_value())),
            second_sum.a.eq(
                Mux(command.without_b, p_beside_sum.as_value(), first_sum.o.as_value())
            ),
            second_sum.b.eq(c),
        ]
        with m.If(step.add_product):
            m.d.comb += [
                second_sum.a.eq(
                    Mux(step.product_combine, products_before.as_value(), q.o.as_value())
                ),
                second_sum.b.eq(products_read),
            ]

        # The result.
        part = Signal(FLOAT)
        with m.If(step.take):
            with m.Switch(step.source):
                with m.Case(ResultSource.SUM):
                    m.d.sync += self.value.eq(second_sum.o)
                with m.Case(ResultSource.PRODUCT):
                    m.d.sync += self.value.eq(p_beside_sums)
                with m.Case(ResultSource.NEIGHBOUR):
                    m.d.sync += self.value.eq(self.neighbour)
                with m.Case(ResultSource.PART):
                    m.d.sync += self.value.eq(part)
        with m.If(step.finish):
            m.d.sync += result.eq(self.value)
            # The only NaN is positive, so that the sign alone decides.
            with m.If(~step.combine & (~keep | (command.relu & self.value.sign))):
                m.d.sync += result.eq(0)

        # What it is added to, or compared with; the first tile of a fold meets nothing.
        maximum = Signal(FLOAT, reset_less=True)
        folded = Signal(FLOAT)
        m.d.comb += addend.eq(Mux(step.fold, folded.as_value(), part.as_value()))
        m.d.sync += maximum.eq(
            Mux(step.first | _is_larger(result, addend), result.as_value(), addend.as_value())
        )
        with m.If(step.fold & step.first):
            m.d.comb += addend.eq(_MINUS_ZERO)

        m.submodules.parts = parts = Memory(shape=FLOAT, depth=2 * PARTS, init=[])
        part_write, part_read = parts.write_port(), parts.read_port(domain="comb")
        m.d.comb += [
            part_read.addr.eq(step.part_read),
            part.eq(part_read.data),
            part_write.en.eq(step.part_write),
            part_write.addr.eq(step.part_address),
            part_write.data.eq(Mux(step.part_sum, first_sum.o.as_value(), maximum.as_value())),
        ]
        with m.If(step.part_clear):
            m.d.comb += part_write.data.eq(Mux(command.maximum, _MINUS_INFINITY, 0))

        m.submodules.fold = fold = Memory(shape=FLOAT, depth=places, init=[])
        fold_write, fold_read = fold.write_port(), fold.read_port()
        m.d.comb += [
            fold_read.addr.eq(step.fold_read),
            folded.eq(fold_read.data),
            fold_write.en.eq(step.fold_write),
            fold_write.addr.eq(step.fold_address),
            fold_write.data.eq(Mux(step.fold_sum, first_sum.o.as_value(), maximum.as_value())),
        ]

        m.submodules.products = products = Memory(shape=FLOAT, depth=2 * PARTS, init=[])
        product_write, product_read = products.write_port(), products.read_port(domain="comb")
        m.d.comb += [
            product_read.addr.eq(step.product_read),
            products_read.eq(product_read.data),
            product_write.en.eq(step.product_write),
            product_write.addr.eq(step.product_address),
            product_write.data.eq(Mux(step.part_clear, 0, second_sum.o.as_value())),
        ]
        m.d.sync += products_before.eq(products_read)

        # Out.
        with m.If(step.output):
            with m.Switch(step.output_source):
                for source, leaving in (
                    (OutputSource.RESULT, result),
                    (OutputSource.SUM, first_sum.o),
                    (OutputSource.MAXIMUM, maximum),
                    (OutputSource.PRODUCT_SUM, second_sum.o),
                    (OutputSource.FOLD, folded),
                ):
                    with m.Case(source):
                        m.d.sync += self.o.eq(leaving)
        m.submodules.narrow = narrow = FloatToHalf()
        m.d.comb += [narrow.i.eq(self.o), self.half.eq(narrow.o)]

        return EnableInserter(self.enable)(m)

    def _mask(self, m: Module, places: int) -> Value:
        """Return whether the result that is finished now stays."""
        command, step = self.command, self.step
        found = Memory(shape=unsigned(1), depth=places, init=[])
        m.submodules.found = found
        found_write, found_read = found.write_port(), found.read_port(domain="comb")
        before, equal = Signal(), Signal()
        half = data.View(HALF, self.x.as_value()[: HALF.size])
        m.d.comb += [
            found_read.addr.eq(step.place),
            before.eq(found_read.data & ~step.first_tile),
            equal.eq(_is_equal(half, self.held[0])),
            found_write.addr.eq(step.place),
            found_write.data.eq(before | equal),
            found_write.en.eq(step.issue),
        ]
        keep = Signal(reset_less=True)
        with m.If(step.issue), m.Switch(command.mask):
            with m.Case(Mask.HELD_0_POSITIVE):
                m.d.sync += keep.eq(is_positive(self.held[0]))
            with m.Case(Mask.HELD_1_POSITIVE):
                m.d.sync += keep.eq(is_positive(self.held[1]))
            with m.Case(Mask.FIRST_EQUAL):
                m.d.sync += keep.eq(equal & ~before)
            with m.Default():
                m.d.sync += keep.eq(1)
        return delayed(m, keep, self.RESULT - 2)


def _is_larger(left: Any, right: Any) -> Value:
    """Return whether `left` is larger, a NaN being the largest and -0 less than +0.

    Of equal numbers either will do.
    """
    magnitudes = (Value.cast(number)[:-1] for number in (left, right))
    further = next(magnitudes) > next(magnitudes)
    return Mux(left.sign == right.sign, further ^ left.sign, right.sign)


def _is_equal(left: Any, right: Any) -> Value:
    bits, others = left.as_value(), right.as_value()
    nan = left.exponent.all() & left.fraction.any()
    zeros = ~(bits[:-1] | others[:-1]).any()
    return ((bits == others) & ~nan) | zeros
