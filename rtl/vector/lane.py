"""One lane of the vector unit."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import EnableInserter, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arithmetic.float32 import FloatAdder, FloatMultiplier, FloatToHalf, HalfToFloat
from ..arithmetic.formats import FLOAT, HALF, is_positive
from ..arithmetic.function import FunctionUnit
from ..config import Config
from ..control.commands import Function, Mask, VectorOperand
from ..delay import delayed

__all__ = [
    "PARTS",
    "LaneCommand",
    "LaneStep",
    "OutputSource",
    "SecondAddend",
    "ValueSource",
    "VectorLane",
]

PARTS = 8
"""Sums over rows that run beside each other: the adder takes longer than a row."""

DELAY = 32
"""Cycles after which ``y`` is forgotten; more than `VectorLane.FUNCTION_RESULT`."""


class ValueSource(enum.Enum, shape=2):
    """What becomes the next value."""

    SUM = 0
    """``p + c``, or ``p + q + c``."""
    PRODUCT = 1
    """``p`` itself."""
    ACCUMULATED = 2
    """A sum over rows."""


class SecondAddend(enum.Enum, shape=2):
    """What the second adder adds to."""

    FIRST_SUM = 0
    PRODUCT = 1
    """``p``."""
    RESULT_PRODUCT = 2
    """The product of a result and ``y``."""
    PRODUCT_SUM = 3
    """A sum of products."""


class OutputSource(enum.Enum, shape=3):
    """What leaves the lane."""

    RESULT = 0
    ACCUMULATED = 1
    """A sum over rows, or an element of the tile folded, that has just been added to."""
    PRODUCT_SUM = 2
    STORED = 3
    """An element of the tile folded."""
    RESULT_PRODUCT = 4
    """The product of a result and ``y``."""


class LaneCommand(data.Struct):
    """What stays during a command."""

    narrow: unsigned(1)
    y: VectorOperand
    mask: Mask
    function: Function
    without_a: unsigned(1)


class LaneStep(data.StructLayout):
    """What happens in a cycle; the numbers are cycles of a slice in `VectorLane`.

    Attributes
    ----------
    load, load_slice
        Take the coefficient a, b or c of a slice.
    issue, place, first_tile
        0: there are operands, of this row and slice, of the first tile of a window.
    y_write, y_read
        0 and 1, or `RESULT`: where ``y`` is kept.
    factor_slice, summand_slice
        1, 10: the slice of the coefficients.
    second_addend
        10: what the second adder takes.
    value_source
        15: where the value comes from.
    finish, evaluated, unchanged
        A cycle before `RESULT`: there will be one; it's that of a function; leave it as it is,
        rather than mask and rectify it.
    accumulate
        `RESULT`: add the result to a sum, or compare it.
    fresh, fresh_sign
        Rather to a zero of this sign, as there is no sum yet.
    maximum
        Compare rather than add.
    stored_read, stored_write, stored_write_address
        Sums over rows, behind the tile folded: which one is read, in the cycle before; which one
        takes what was added.
    multiply
        `RESULT`: multiply the result by ``y``.
    add_product, fresh_product
        `PRODUCT`: add to a sum of products, or to zero as there is none yet.
    product_read, product_write, product_write_address
        The sums of products, likewise.
    output, output_source
        Something leaves, from the next cycle on.
    """

    def __init__(self, config: Config) -> None:
        slice_ = unsigned(exact_log2(config.vector_slices))
        places = config.elements * config.vector_slices
        parts = PARTS * config.vector_slices
        super().__init__(
            {
                "load": 3,
                "load_slice": slice_,
                "issue": 1,
                "place": range(places),
                "first_tile": 1,
                "y_write": range(DELAY),
                "y_read": range(DELAY),
                "factor_slice": slice_,
                "summand_slice": slice_,
                "second_addend": SecondAddend,
                "value_source": ValueSource,
                "finish": 1,
                "evaluated": 1,
                "unchanged": 1,
                "accumulate": 1,
                "fresh": 1,
                "fresh_sign": 1,
                "maximum": 1,
                "stored_read": range(places + parts),
                "stored_write": 1,
                "stored_write_address": range(places + parts),
                "multiply": 1,
                "add_product": 1,
                "fresh_product": 1,
                "product_read": range(parts),
                "product_write": 1,
                "product_write_address": range(parts),
                "output": 1,
                "output_source": OutputSource,
            }
        )


class VectorLane(wiring.Component):
    """The arithmetic of one column of each slice.

    Operands of cycle 0 give ``p = a * x`` and ``q = b * y`` in 5, ``p + q`` in 10, ``p + q + c`` in
    15, the result in `RESULT`, or in `FUNCTION_RESULT` if there is a function to be evaluated, and
    what it is added to five cycles later. Two multipliers and two adders do all of that: without b
    the first adder is free for sums of results, and with neither b nor c the second multiplier and
    adder are for sums of products. `LaneStep` tells who has them.

    Both multipliers and adders are used by a slice in cycles that differ by an odd number, and
    those of all three uses of the first adder leave different remainders by three. So slices that
    enter in every second, or every third, cycle never meet each other there.

    Parameters
    ----------
    config
        Sets the size of a tile and the slices of a row.

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
    enable : In(1)
        Advance; 1 unless connected.
    o : Out(FLOAT)
        What leaves.
    half : Out(HALF)
        The same in binary16.
    """

    MULTIPLIED = 1 + FloatMultiplier.LATENCY
    TAKEN = MULTIPLIED + 2 * FloatAdder.LATENCY
    """Cycle in which a value is taken."""
    RESULT = TAKEN + 3
    FUNCTION_RESULT = RESULT + FunctionUnit.LATENCY
    PRODUCT = FloatMultiplier.LATENCY + 1
    """Cycles from a result to its product with ``y``."""

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
                "enable": In(1, init=1),
                "o": Out(FLOAT),
                "half": Out(HALF),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        command, step = self.command, self.step
        slices = self._config.vector_slices
        places, parts = self._config.elements * slices, PARTS * slices

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
        factor = Signal(FLOAT, reset_less=True)
        with m.If(step.issue):
            m.d.sync += factor.eq(x)
            with m.If(command.without_a):
                m.d.sync += factor.eq(0)

        # y stays until its product with the result is due.
        m.submodules.operands = operands = Memory(shape=FLOAT, depth=DELAY, init=[])
        y_write, y_read = operands.write_port(), operands.read_port(domain="comb")
        m.d.comb += [
            y_write.addr.eq(step.y_write),
            y_write.data.eq(y),
            y_write.en.eq(1),
            y_read.addr.eq(step.y_read),
        ]

        keep = self._mask(m, places)

        # Coefficients of each slice: flip-flops, or LUTRAM where there are more than two.
        coefficients = []
        for index, slice_ in enumerate((step.factor_slice, step.factor_slice, step.summand_slice)):
            name = f"coefficient_{index}"
            if slices > 2:
                m.submodules[name] = values = Memory(shape=FLOAT, depth=slices, init=[])
                write, read = values.write_port(), values.read_port(domain="comb")
                m.d.comb += [
                    write.addr.eq(step.load_slice),
                    write.data.eq(self.coefficient),
                    write.en.eq(step.load[index]),
                    read.addr.eq(slice_),
                ]
                coefficients.append(read.data)
                continue
            values = Signal(data.ArrayLayout(FLOAT, slices), reset_less=True, name=name)
            for position in range(slices):
                with m.If(step.load[index] & (step.load_slice == position)):
                    m.d.sync += values[position].eq(self.coefficient)
            coefficients.append(values[slice_])
        a, b, c = coefficients

        # Products: a * x, and b * y or that of a result.
        result = Signal(FLOAT, reset_less=True)
        m.submodules.first_product = p = FloatMultiplier()
        m.submodules.second_product = q = FloatMultiplier()
        m.d.comb += [
            p.a.eq(a),
            p.b.eq(factor),
            q.a.eq(Mux(step.multiply, result.as_value(), b.as_value())),
            q.b.eq(y_read.data),
        ]

        # Sums: p + q, or of a result and those before; then + c, or of products.
        stored, products_read = Signal(FLOAT), Signal(FLOAT)
        m.submodules.first_sum = first_sum = FloatAdder()
        m.submodules.second_sum = second_sum = FloatAdder()
        p_beside_sum = delayed(m, p.o, FloatAdder.LATENCY)
        p_beside_sums = delayed(m, p_beside_sum, FloatAdder.LATENCY)
        m.d.comb += [
            first_sum.a.eq(Mux(step.accumulate, result.as_value(), p.o.as_value())),
            first_sum.b.eq(Mux(step.accumulate, stored.as_value(), q.o.as_value())),
            first_sum.maximum.eq(step.maximum),
            second_sum.b.eq(Mux(step.add_product, products_read.as_value(), c.as_value())),
        ]
        with m.If(step.fresh):
            m.d.comb += [first_sum.b.eq(0), first_sum.b.sign.eq(step.fresh_sign)]
        with m.If(step.fresh_product):
            m.d.comb += second_sum.b.eq(0)
        addends = {
            SecondAddend.FIRST_SUM: first_sum.o,
            SecondAddend.PRODUCT: p_beside_sum,
            SecondAddend.RESULT_PRODUCT: delayed(m, q.o),
            SecondAddend.PRODUCT_SUM: delayed(m, products_read),
        }
        m.d.comb += second_sum.a.eq(_select(m, step.second_addend, addends))

        # The result: a value or its function, masked and rectified.
        values = {
            ValueSource.SUM: second_sum.o,
            ValueSource.PRODUCT: p_beside_sums,
            ValueSource.ACCUMULATED: stored,
        }
        settled = delayed(m, _select(m, step.value_source, values), 2)
        m.submodules.function = function = FunctionUnit()
        m.d.comb += [function.i.eq(settled), function.function.eq(command.function)]
        # The only NaN is positive, so that the sign alone decides.
        negative = (command.function == Function.RELU) & settled.sign
        kept = Mux(step.evaluated, delayed(m, keep, FunctionUnit.LATENCY), keep)
        with m.If(step.finish):
            m.d.sync += result.eq(Mux(step.evaluated, function.o.as_value(), settled.as_value()))
            with m.If(~step.unchanged & (~kept | negative)):
                m.d.sync += result.eq(0)

        # What it is added to: the tile folded, and behind it sums over rows.
        m.submodules.stored = memory = Memory(shape=FLOAT, depth=places + parts, init=[])
        stored_write, stored_read = memory.write_port(), memory.read_port()
        m.d.comb += [
            stored_read.addr.eq(step.stored_read),
            stored.eq(stored_read.data),
            stored_write.en.eq(step.stored_write),
            stored_write.addr.eq(step.stored_write_address),
            stored_write.data.eq(first_sum.o),
        ]
        m.submodules.products = products = Memory(shape=FLOAT, depth=parts, init=[])
        product_write, product_read = products.write_port(), products.read_port()
        m.d.comb += [
            product_read.addr.eq(step.product_read),
            products_read.eq(product_read.data),
            product_write.en.eq(step.product_write),
            product_write.addr.eq(step.product_write_address),
            product_write.data.eq(second_sum.o),
        ]

        # Out.
        outputs = {
            OutputSource.RESULT: result,
            OutputSource.ACCUMULATED: first_sum.o,
            OutputSource.PRODUCT_SUM: second_sum.o,
            OutputSource.STORED: stored,
            OutputSource.RESULT_PRODUCT: q.o,
        }
        with m.If(step.output):
            m.d.sync += self.o.eq(_select(m, step.output_source, outputs))
        m.submodules.narrow = narrow = FloatToHalf()
        m.d.comb += [narrow.i.eq(self.o), self.half.eq(narrow.o)]

        return EnableInserter(self.enable)(m)

    def _mask(self, m: Module, places: int) -> Value:
        """Return whether the result stays that is finished now, unless by a function."""
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
        keep = Signal()
        with m.Switch(command.mask):
            with m.Case(Mask.HELD_0_POSITIVE):
                m.d.comb += keep.eq(is_positive(self.held[0]))
            with m.Case(Mask.HELD_1_POSITIVE):
                m.d.comb += keep.eq(is_positive(self.held[1]))
            with m.Case(Mask.FIRST_EQUAL):
                m.d.comb += keep.eq(equal & ~before)
            with m.Default():
                m.d.comb += keep.eq(1)
        return delayed(m, keep, self.RESULT - 1)


def _select(m: Module, source: Any, values: Mapping[Any, Any]) -> Signal:
    """Return the one of `values` that `source` names."""
    selected = Signal(FLOAT)
    with m.Switch(source):
        for name, value in values.items():
            with m.Case(name):
                m.d.comb += selected.eq(value)
    return selected


def _is_equal(left: Any, right: Any) -> Value:
    bits, others = left.as_value(), right.as_value()
    nan = left.exponent.all() & left.fraction.any()
    zeros = ~(bits[:-1] | others[:-1]).any()
    return ((bits == others) & ~nan) | zeros
