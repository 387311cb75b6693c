"""Tells the lanes of the vector unit what to do, cycle by cycle."""

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.float32 import FloatAdder
from ..arithmetic.function import FunctionUnit
from ..config import VECTOR_REGISTERS, Config
from ..control.commands import CoefficientKind, Fold, Function, VectorBody, VectorTarget
from ..delay import delayed
from .intake import RowSlice
from .lane import DELAY, PARTS, LaneStep, OutputSource, SecondAddend, ValueSource, VectorLane

__all__ = ["SLOWEST", "VectorSequencer", "combination_cycles"]

SLOWEST = 3
"""Cycles from one slice to the next where a command has most use for the adders."""

_COMBINATION_SPACING = 2
"""Cycles between two additions of parts, which read their operands three cycles apart."""

_COMBINATION_DISTANCE = 5
"""Additions from one whose sum is needed to that which needs it."""


class _Combination(NamedTuple):
    """An addition of two parts of a sum over rows."""

    slice: int
    part: int
    """Takes the sum."""
    added: int
    final: bool


def _order_of_combinations(slices: int) -> list[_Combination | None]:
    """Return the additions that make one sum of `PARTS`, with pauses for what must be there.

    It's the sum of sums of neighbours, of all slices beside each other.
    """
    order: list[_Combination | None] = []
    written: dict[tuple[int, int], int] = {}
    distance = 1
    while distance < PARTS:
        for part in range(0, PARTS, 2 * distance):
            for slice_ in range(slices):
                operands = [(slice_, part), (slice_, part + distance)]
                ready = max(written.get(operand, 0) for operand in operands)
                order += [None] * (ready - len(order))
                final = 2 * distance == PARTS
                written[slice_, part] = len(order) + _COMBINATION_DISTANCE
                order.append(_Combination(slice_, part, part + distance, final))
        distance *= 2
    return order


def combination_cycles(slices: int) -> int:
    """Return the cycles from the first addition of parts to the last."""
    return _COMBINATION_SPACING * (len(_order_of_combinations(slices)) - 1)


class _Token(data.StructLayout):
    """A slice under way, or an addition of two parts of a sum."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "row_slice": RowSlice(config),
                "combine": unsigned(1),
                "added": range(PARTS),
                "final": unsigned(1),
                "fold": unsigned(1),
                "fresh": unsigned(1),
            }
        )


class VectorSequencer(wiring.Component):
    """Follows each slice through the lanes.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    body : In(VectorBody)
        The command, constant while it is carried out.
    valid, row_slice : In
        A slice is in cycle 0 of the lanes.
    begin : In(1)
        A command begins; there are no sums over rows yet.
    drain : In(1)
        Send the tile folded to the registers.
    combine : In(1)
        Add up the parts of sums over rows and send them to their registers.
    spacing : Out(range(SLOWEST + 1))
        Cycles from one slice of this command to the next, or a multiple of them.
    busy : Out(1)
        Something is under way.
    step : Out(LaneStep)
        What the lanes do, but for coefficients.
    to_memory : Out(1)
        What left the lanes in the cycle before goes to memory.
    to_register, register_address : Out
        It goes to this register and slice (the lowest bits).
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(VectorBody),
                "valid": In(1),
                "row_slice": In(RowSlice(config)),
                "begin": In(1),
                "drain": In(1),
                "combine": In(1),
                "spacing": Out(range(SLOWEST + 1)),
                "busy": Out(1),
                "step": Out(LaneStep(config)),
                "to_memory": Out(1),
                "to_register": Out(1),
                "register_address": Out(range(config.vector_slices * VECTOR_REGISTERS)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body, step = self._config, self.body, self.step
        slices = config.vector_slices
        slice_bits = len(self.register_address) - len(body.target_register)
        places, parts = config.elements * slices, PARTS * slices
        token_layout = _Token(config)
        active = []
        """What makes the unit busy."""

        def follow(valid: Any, token: Any, cycles: int) -> list[tuple[Any, Any]]:
            """Return a token now and after each of the next `cycles`."""
            stages = [(valid, token)]
            for _ in range(cycles):
                later_valid, later = Signal(), Signal(token_layout, reset_less=True)
                m.d.sync += [later_valid.eq(stages[-1][0]), later.eq(stages[-1][1])]
                active.append(later_valid)
                stages.append((later_valid, later))
            return stages

        def slice_of(token: Any) -> Any:
            return token.row_slice.place[:slice_bits]

        def part_of(token: Any) -> Any:
            """Return the number of the part of a sum that a token changes."""
            return Cat(slice_of(token), token.row_slice.part)

        def added_part_of(token: Any) -> Any:
            """Return the number of the part that is added to it."""
            return Cat(slice_of(token), token.added)

        # What the command is about, in registers: its first slice comes some cycles later.
        to_registers = body.target == VectorTarget.REGISTERS
        to_wide = body.target == VectorTarget.WIDE
        folds = delayed(m, body.fold != Fold.NONE)
        wide = delayed(m, to_wide)
        writes = delayed(m, (body.target == VectorTarget.NARROW) | to_wide)
        keeps_tile = delayed(m, (body.fold != Fold.NONE) | to_registers)
        reduces = delayed(m, body.reduce != Fold.NONE)
        without_b = delayed(m, body.b.kind == CoefficientKind.ABSENT)
        without_c = delayed(m, body.c.kind == CoefficientKind.ABSENT)
        evaluates = delayed(
            m, (body.function != Function.IDENTITY) & (body.function != Function.RELU)
        )

        # Slices keep a distance if they need the first adder once more, or twice, or the second,
        # or if each gives two beats.
        twice = reduces & keeps_tile
        again = ~without_b & (reduces | keeps_tile)
        products_beside = (body.reduce_product & ~(without_b & without_c)) | (
            body.times_y & ~without_b
        )
        m.d.comb += self.spacing.eq(1)
        with m.If(twice & again):
            m.d.comb += self.spacing.eq(SLOWEST)
        with m.Elif(twice | again | products_beside | (wide if slices == 1 else 0)):
            m.d.comb += self.spacing.eq(2)

        # Cycles 0 to 15: a slice becomes a value. Additions of parts join here.
        entering = Signal(token_layout)
        m.d.comb += entering.row_slice.eq(self.row_slice)
        computing = follow(self.valid, entering, VectorLane.TAKEN)
        summands = computing[VectorLane.TAKEN - FloatAdder.LATENCY][1]
        m.d.comb += [
            step.issue.eq(self.valid),
            step.place.eq(self.row_slice.place),
            step.first_tile.eq(self.row_slice.first),
            step.factor_slice.eq(slice_of(computing[1][1])),
            step.summand_slice.eq(slice_of(summands)),
        ]
        pending, combination_valid, combination = self._combinations(m, token_layout)
        combining = follow(combination_valid, combination, 1)[-1]
        with m.If(combining[0]):
            m.d.comb += step.value_source.eq(ValueSource.ACCUMULATED)
        with m.Elif(without_b & without_c):
            m.d.comb += step.value_source.eq(ValueSource.PRODUCT)

        # Cycle 17, or when the function is there: the value becomes a result. That is found a cycle
        # before. A sum over rows that hasn't been touched yet counts as zero.
        computed, computed_token = computing[-1]
        value_token = Mux(combining[0], combining[1].as_value(), computed_token.as_value())
        (settles, settling_token), (settled, settled_token) = follow(
            computed | combining[0], value_token, 2
        )[-2:]
        evaluating = settled & evaluates & ~settled_token.combine
        (ends, ending_token), (evaluated, _) = follow(
            evaluating, settled_token, FunctionUnit.LATENCY
        )[-2:]
        finished, ready_token = follow(
            ends | (settles & ~(evaluates & ~settling_token.combine)),
            Mux(ends, ending_token.as_value(), settling_token.as_value()),
            1,
        )[-1]
        touched = Signal(parts)
        met_part = Mux(ready_token.combine, added_part_of(ready_token), part_of(ready_token))
        finished_token = Signal(token_layout)
        m.d.comb += [
            finished_token.eq(ready_token),
            finished_token.fresh.eq(~touched.bit_select(met_part, 1)),
            step.finish.eq(finished),
            step.evaluated.eq(evaluated),
            step.unchanged.eq(ready_token.combine),
        ]
        with m.If(self.begin):
            m.d.sync += touched.eq(0)
        with m.Elif(finished & ~ready_token.combine):
            m.d.sync += touched.bit_select(met_part, 1).eq(1)

        # The next: it's added to, or compared with, a sum over rows or the tile folded; the tile a
        # cycle later if there are both. What is to be done is found a cycle before.
        result_valid, result = follow(finished, finished_token, 2)[1]
        accumulates, addend_token, fresh = Signal(), Signal(token_layout), Signal()
        with m.If(result_valid & ~result.combine & twice):
            m.d.comb += [accumulates.eq(1), addend_token.eq(result), addend_token.fold.eq(1)]
        with m.Elif(finished):
            m.d.comb += [
                accumulates.eq(reduces | (keeps_tile & ~finished_token.combine)),
                addend_token.eq(finished_token),
                addend_token.fold.eq(~reduces),
            ]
        reduction = Mux(addend_token.fold, body.fold, body.reduce)
        m.d.comb += fresh.eq(
            Mux(addend_token.fold, addend_token.row_slice.first, addend_token.fresh)
        )
        accumulating = delayed(m, accumulates, reset=True)
        accumulated = delayed(m, addend_token)
        m.d.comb += [
            step.accumulate.eq(accumulating),
            step.fresh.eq(delayed(m, accumulates & fresh)),
            step.fresh_sign.eq(delayed(m, addend_token.fold | (body.reduce == Fold.MAXIMUM))),
            step.maximum.eq(delayed(m, accumulates & ~fresh & (reduction == Fold.MAXIMUM))),
        ]

        # Sums are read in the cycle before, and there after the adder's latency.
        draining, drained = self._drain(m)
        active.append(draining)
        m.d.comb += step.stored_read.eq(finished_token.row_slice.place)
        with m.If(draining):
            m.d.comb += step.stored_read.eq(drained)
        with m.Elif(combination_valid):
            m.d.comb += step.stored_read.eq(places + part_of(combination))
        with m.Elif(finished & finished_token.combine):
            m.d.comb += step.stored_read.eq(places + added_part_of(finished_token))
        with m.Elif(finished & reduces):
            m.d.comb += step.stored_read.eq(places + part_of(finished_token))
        with m.Elif(twice):
            m.d.comb += step.stored_read.eq(result.row_slice.place)
        added, added_token = follow(accumulating, accumulated, FloatAdder.LATENCY)[-1]
        m.d.comb += [
            step.stored_write.eq(added),
            step.stored_write_address.eq(
                Mux(added_token.fold, added_token.row_slice.place, places + part_of(added_token))
            ),
        ]

        # Products with y, and their sums.
        multiplying = result_valid & (body.reduce_product | (body.times_y & ~result.combine))
        products = follow(multiplying, result, VectorLane.PRODUCT + FloatAdder.LATENCY)
        earlier_valid, earlier = products[VectorLane.PRODUCT - 2]
        multiplied, before = products[VectorLane.PRODUCT - 1]
        addend = products[VectorLane.PRODUCT][1]
        adding = delayed(m, multiplied & body.reduce_product)
        summed, summed_token = products[-1]
        m.d.comb += [
            step.multiply.eq(multiplying),
            step.add_product.eq(adding),
            step.fresh_product.eq(adding & addend.fresh),
            step.product_read.eq(Mux(before.combine, added_part_of(before), part_of(before))),
            step.product_write.eq(summed),
            step.product_write_address.eq(part_of(summed_token)),
        ]
        with m.If(earlier_valid & earlier.combine):
            m.d.comb += step.product_read.eq(part_of(earlier))
        with m.If(adding & addend.combine):
            m.d.comb += step.second_addend.eq(SecondAddend.PRODUCT_SUM)
        with m.Elif(adding):
            m.d.comb += step.second_addend.eq(SecondAddend.RESULT_PRODUCT)
        with m.Elif(without_b):
            m.d.comb += step.second_addend.eq(SecondAddend.PRODUCT)

        # y is kept from cycle 0 on, for its product with b or with the result.
        now, at_start = Signal(range(DELAY)), Signal(range(DELAY))
        just_before = Signal(range(DELAY), init=DELAY - 1)
        age = Mux(evaluates, VectorLane.FUNCTION_RESULT, VectorLane.RESULT)
        m.d.sync += [
            now.eq(now + 1),
            just_before.eq(now),
            at_start.eq(now + 1 - age),
        ]
        m.d.comb += [
            step.y_write.eq(now),
            step.y_read.eq(Mux(multiplying, at_start, just_before)),
        ]

        # What leaves, and where it goes.
        to_memory, to_register = Signal(), Signal()
        register, slice_ = Signal.like(body.target_register), Signal(slice_bits)
        m.d.comb += step.output.eq(to_memory | to_register)
        with m.If(result_valid & ~result.combine & writes & ~folds & ~body.times_y):
            m.d.comb += to_memory.eq(1)
        with m.If(multiplied & ~before.combine & body.times_y):
            m.d.comb += [to_memory.eq(1), step.output_source.eq(OutputSource.RESULT_PRODUCT)]
        with m.If(added & added_token.fold & added_token.row_slice.last & writes):
            m.d.comb += [to_memory.eq(1), step.output_source.eq(OutputSource.ACCUMULATED)]
        stored, stored_place = Signal(), Signal.like(drained, reset_less=True)
        m.d.sync += [stored.eq(draining), stored_place.eq(drained)]
        active.append(stored)
        with m.If(stored):
            m.d.comb += [
                to_register.eq(1),
                register.eq(body.target_register + stored_place[slice_bits:]),
                slice_.eq(stored_place[:slice_bits]),
                step.output_source.eq(OutputSource.STORED),
            ]
        for final, token, register_of_sum, source in (
            (added, added_token, body.reduce_register, OutputSource.ACCUMULATED),
            (summed, summed_token, body.product_register, OutputSource.PRODUCT_SUM),
        ):
            with m.If(final & token.final):
                m.d.comb += [
                    to_register.eq(1),
                    register.eq(register_of_sum),
                    slice_.eq(slice_of(token)),
                    step.output_source.eq(source),
                ]
        m.d.sync += [
            self.to_memory.eq(to_memory),
            self.to_register.eq(to_register),
            self.register_address.eq(Cat(slice_, register)),
        ]

        active += [self.valid, pending, self.to_memory, self.to_register]
        m.d.comb += self.busy.eq(Cat(*active).any())
        return m

    def _combinations(self, m: Module, layout: data.Layout) -> tuple[Any, Any, Any]:
        """Add parts of sums, one pair after the other once `combine` is given.

        Returns whether there are any to come, whether there is one, and its token.
        """
        order = _order_of_combinations(self._config.vector_slices)
        number = Signal(range(len(order) + 1), init=len(order))
        pause = Signal(range(_COMBINATION_SPACING))
        valid, token = Signal(), Signal(layout)
        pending = number != len(order)
        with m.If(self.combine):
            m.d.sync += [number.eq(0), pause.eq(0)]
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.Elif(pending):
            m.d.sync += [number.eq(number + 1), pause.eq(_COMBINATION_SPACING - 1)]
        with m.Switch(number):
            for index, combination in enumerate(order):
                if combination is None:
                    continue
                with m.Case(index):
                    m.d.comb += [
                        valid.eq(pause == 0),
                        token.combine.eq(1),
                        token.row_slice.place.eq(combination.slice),
                        token.row_slice.part.eq(combination.part),
                        token.added.eq(combination.added),
                        token.final.eq(combination.final),
                    ]
        return pending, valid, token

    def _drain(self, m: Module) -> tuple[Signal, Signal]:
        """Walk over the slices of the tile folded once `drain` is given."""
        valid, place = Signal(), Signal.like(self.row_slice.place)
        last = self.body.rows * self._config.vector_slices - 1
        with m.If(self.drain):
            m.d.sync += [valid.eq(1), place.eq(0)]
        with m.Elif(valid):
            m.d.sync += [place.eq(place + 1), valid.eq(place != last)]
        return valid, place
