"""Tells the lanes of the vector unit what to do, cycle by cycle."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.float32 import FloatAdder
from ..config import VECTOR_REGISTERS, Config
from ..control.commands import CoefficientKind, Fold, Function, VectorBody, VectorTarget
from .intake import HalfRow
from .lane import PARTS, LaneStep, OutputSource, ResultSource, VectorLane

__all__ = ["VectorSequencer"]

_COMBINATIONS = ((0, 0, 1, 0), (0, 2, 3, 0), (1, 0, 1, 0), (1, 2, 3, 0), (0, 0, 2, 1), (1, 0, 2, 1))
"""Half, part, part that is added to it, and whether this is the last addition."""

_CLEAR_CYCLES = 2 * PARTS

_COMBINATION_SPACING = 5
"""Cycles between two: each finds the sums before it, and none meets another in the lanes."""


class _Token(data.StructLayout):
    """Half a row under way, or an addition of two parts of a sum."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "half_row": HalfRow(config),
                "combine": unsigned(1),
                "added": unsigned(2),
                "final": unsigned(1),
            }
        )


class VectorSequencer(wiring.Component):
    """Follows each half row through the lanes.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    function_latency
        Cycles of the function unit.

    Attributes
    ----------
    body : In(VectorBody)
        The command, constant while it is carried out.
    valid, half_row : In
        Half a row is in cycle 0 of the lanes.
    begin : In(1)
        A command begins; clears the sums over rows, before the first half row gets that far.
    drain : In(1)
        Send the tile folded to the registers.
    combine : In(1)
        Add up the parts of sums over rows and send them to their registers.
    exclusive : Out(1)
        Half rows of this command must not overlap.
    busy : Out(1)
        Something is under way.
    step : Out(LaneStep)
        What the lanes do, but for coefficients.
    evaluate : Out(1)
        The values go through the function unit, that of lane 0 first.
    to_memory : Out(1)
        What left the lanes in the cycle before goes to memory.
    to_register, register_address : Out
        It goes to this register and half (the lowest bit).
    """

    def __init__(self, config: Config, function_latency: int) -> None:
        self._config = config
        self._function_latency = function_latency
        super().__init__(
            {
                "body": In(VectorBody),
                "valid": In(1),
                "half_row": In(HalfRow(config)),
                "begin": In(1),
                "drain": In(1),
                "combine": In(1),
                "exclusive": Out(1),
                "busy": Out(1),
                "step": Out(LaneStep(config)),
                "evaluate": Out(1),
                "to_memory": Out(1),
                "to_register": Out(1),
                "register_address": Out(range(2 * VECTOR_REGISTERS)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body, step = self._config, self.body, self.step
        token_layout = _Token(config)
        active = []
        """What makes the unit busy."""

        def follow(valid: Any, token: Any, cycles: int) -> list[tuple[Signal, Any]]:
            """Return a token now and after each of the next `cycles`."""
            stages = [(valid, token)]
            for _ in range(cycles):
                later_valid, later = Signal(), Signal(token_layout, reset_less=True)
                m.d.sync += [later_valid.eq(stages[-1][0]), later.eq(stages[-1][1])]
                active.append(later_valid)
                stages.append((later_valid, later))
            return stages

        # What the command is about.
        folds = body.fold != Fold.NONE
        to_registers = body.target == VectorTarget.REGISTERS
        writes = (body.target == VectorTarget.NARROW) | (body.target == VectorTarget.WIDE)
        keeps_tile = folds | to_registers
        reduces = body.reduce != Fold.NONE
        sums_rows, sums_tiles = body.reduce == Fold.SUM, body.fold == Fold.SUM
        without_b = body.b.kind == CoefficientKind.ABSENT
        without_c = body.c.kind == CoefficientKind.ABSENT
        evaluates = (body.function != Function.IDENTITY) & (body.function != Function.RELU)
        m.d.comb += self.exclusive.eq(
            evaluates
            | (reduces & keeps_tile)
            | (~without_b & (sums_rows | sums_tiles))
            | (body.reduce_product & ~(without_b & without_c))
        )

        # Cycles 0 to 15: a half row becomes a value. Additions of parts join here.
        entering = Signal(token_layout)
        m.d.comb += entering.half_row.eq(self.half_row)
        computing = follow(self.valid, entering, VectorLane.TAKEN)
        m.d.comb += [
            step.issue.eq(self.valid),
            step.place.eq(self.half_row.place),
            step.first_tile.eq(self.half_row.first),
            step.factor_half.eq(computing[1][1].half_row.place[0]),
            step.summand_half.eq(
                computing[VectorLane.TAKEN - FloatAdder.LATENCY][1].half_row.place[0]
            ),
        ]
        computed, computed_token = computing[-1]
        adding_parts, combining, combination = self._combinations(m, token_layout)

        # Cycle 16, and longer if a function is evaluated: the value goes round through the unit.
        held, waiting = Signal(), Signal(token_layout, reset_less=True)
        turns = config.floats + self._function_latency
        turns_left = Signal(range(turns + 1))
        finish = held & (turns_left == 0)
        with m.If(computed | combining):
            m.d.sync += [
                held.eq(1),
                waiting.eq(Mux(combining, combination.as_value(), computed_token.as_value())),
                turns_left.eq(Mux(evaluates & ~combining, turns, 0)),
            ]
        with m.Else():
            m.d.sync += held.eq(held & ~finish)
            with m.If(self.evaluate):
                m.d.sync += turns_left.eq(turns_left - 1)
        m.d.comb += [
            self.evaluate.eq(turns_left != 0),
            step.take.eq(computed | combining | self.evaluate),
            step.finish.eq(finish),
            step.combine.eq(waiting.combine),
        ]
        with m.If(combining):
            m.d.comb += step.source.eq(ResultSource.PART)
        with m.Elif(self.evaluate):
            m.d.comb += step.source.eq(ResultSource.NEIGHBOUR)
        with m.Elif(without_b & without_c):
            m.d.comb += step.source.eq(ResultSource.PRODUCT)

        # Cycle 17: the result is added to, or compared with, a sum over rows or the tile folded;
        # the tile a cycle later if there are both.
        results = follow(finish, waiting, 2)
        (result_valid, result), (later_valid, later) = results[1:]
        twice = reduces & keeps_tile
        to_fold = Signal()
        accumulating, accumulated = Signal(), Signal(token_layout)
        with m.If(result_valid & result.combine):
            m.d.comb += [accumulating.eq(reduces), accumulated.eq(result)]
        with m.Elif(result_valid):
            m.d.comb += [
                accumulating.eq(reduces | keeps_tile),
                accumulated.eq(result),
                to_fold.eq(~reduces),
            ]
        with m.Elif(later_valid & ~later.combine & twice):
            m.d.comb += [accumulating.eq(1), accumulated.eq(later), to_fold.eq(1)]
        m.d.comb += [
            step.accumulate.eq(accumulating & Mux(to_fold, sums_tiles, sums_rows)),
            step.fold.eq(to_fold),
            step.first.eq(to_fold & accumulated.half_row.first),
        ]

        # Maxima are there in the next cycle, sums after the adder's latency.
        slots = follow(accumulating, accumulated, FloatAdder.LATENCY)
        fold_slots = Signal(FloatAdder.LATENCY + 1)
        m.d.comb += fold_slots[0].eq(to_fold)
        m.d.sync += fold_slots[1:].eq(fold_slots[:-1])
        part_done, part_token = Signal(), Signal(token_layout)
        fold_done, fold_token = Signal(), Signal(token_layout)
        for index, sums in ((1, 0), (FloatAdder.LATENCY, 1)):
            valid, token = slots[index]
            with m.If(valid & ~fold_slots[index] & (sums_rows == sums)):
                m.d.comb += [part_done.eq(1), part_token.eq(token)]
            with m.If(valid & fold_slots[index] & (sums_tiles == sums)):
                m.d.comb += [fold_done.eq(1), fold_token.eq(token)]

        clear_place = Signal(range(_CLEAR_CYCLES + 1), init=_CLEAR_CYCLES)
        clearing = clear_place != _CLEAR_CYCLES
        active.append(clearing)
        with m.If(self.begin):
            m.d.sync += clear_place.eq(0)
        with m.Elif(clearing):
            m.d.sync += clear_place.eq(clear_place + 1)
        m.d.comb += [
            step.part_read.eq(_part(accumulated)),
            step.part_write.eq(part_done | clearing),
            step.part_address.eq(Mux(clearing, clear_place, _part(part_token))),
            step.part_sum.eq(sums_rows),
            step.part_clear.eq(clearing),
        ]
        with m.If(combining):
            m.d.comb += step.part_read.eq(_added_part(combination))

        drained, drain_valid = Signal.like(self.half_row.place), Signal()
        self._drain(m, drained, drain_valid)
        leaves_fold = Signal()
        drained_before = Signal.like(drained, reset_less=True)
        m.d.sync += [leaves_fold.eq(drain_valid), drained_before.eq(drained)]
        active += [drain_valid, leaves_fold]
        m.d.comb += [
            step.fold_read.eq(Mux(twice, result.half_row.place, waiting.half_row.place)),
            step.fold_write.eq(fold_done),
            step.fold_address.eq(fold_token.half_row.place),
            step.fold_sum.eq(sums_tiles),
        ]
        with m.If(drain_valid):
            m.d.comb += step.fold_read.eq(drained)

        # Cycles 17 to 26: sums of products.
        multiplying = result_valid & body.reduce_product
        product_cycles = VectorLane.PRODUCT - VectorLane.RESULT
        products = follow(multiplying, result, product_cycles + FloatAdder.LATENCY)
        before_valid, before = products[product_cycles - 1]
        added_valid, added = products[product_cycles]
        product_done, product_token = products[-1]
        m.d.comb += [
            step.multiply.eq(multiplying),
            step.add_product.eq(added_valid),
            step.product_combine.eq(added.combine),
            step.product_read.eq(_part(added)),
            step.product_write.eq(product_done | clearing),
            step.product_address.eq(Mux(clearing, clear_place, _part(product_token))),
        ]
        with m.If(before_valid & before.combine):
            m.d.comb += step.product_read.eq(_added_part(before))

        # What leaves, and where it goes.
        to_memory, to_register = Signal(), Signal()
        register, half = Signal.like(body.target_register), Signal()
        m.d.comb += step.output.eq(to_memory | to_register)
        with m.If(result_valid & ~result.combine & writes & ~folds):
            m.d.comb += [to_memory.eq(1), step.output_source.eq(OutputSource.RESULT)]
        with m.If(fold_done & fold_token.half_row.last & writes):
            m.d.comb += [
                to_memory.eq(1),
                step.output_source.eq(Mux(sums_tiles, OutputSource.SUM, OutputSource.MAXIMUM)),
            ]
        with m.If(leaves_fold):
            m.d.comb += [
                to_register.eq(1),
                register.eq(body.target_register + drained_before[1:]),
                half.eq(drained_before[0]),
                step.output_source.eq(OutputSource.FOLD),
            ]
        with m.If(part_done & part_token.final):
            m.d.comb += [
                to_register.eq(1),
                register.eq(body.reduce_register),
                half.eq(part_token.half_row.place[0]),
                step.output_source.eq(Mux(sums_rows, OutputSource.SUM, OutputSource.MAXIMUM)),
            ]
        with m.If(product_done & product_token.final):
            m.d.comb += [
                to_register.eq(1),
                register.eq(body.product_register),
                half.eq(product_token.half_row.place[0]),
                step.output_source.eq(OutputSource.PRODUCT_SUM),
            ]
        m.d.sync += [
            self.to_memory.eq(to_memory),
            self.to_register.eq(to_register),
            self.register_address.eq(Cat(half, register)),
        ]

        active += [held, self.valid, adding_parts, self.to_memory, self.to_register]
        m.d.comb += self.busy.eq(Cat(*active).any())
        return m

    def _combinations(self, m: Module, layout: data.Layout) -> tuple[Any, Signal, Any]:
        """Add parts of sums, one pair after the other once `combine` is given.

        Returns whether there are any to come, whether there is one, and its token.
        """
        count = len(_COMBINATIONS)
        number = Signal(range(count + 1), init=count)
        pause = Signal(range(_COMBINATION_SPACING))
        valid, token = Signal(), Signal(layout)
        pending = number != count
        m.d.comb += valid.eq(pending & (pause == 0))
        with m.If(valid):
            m.d.sync += [number.eq(number + 1), pause.eq(_COMBINATION_SPACING - 1)]
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(self.combine):
            m.d.sync += [number.eq(0), pause.eq(0)]
        m.d.comb += token.combine.eq(valid)
        with m.Switch(number):
            for index, (half, part, added, final) in enumerate(_COMBINATIONS):
                with m.Case(index):
                    m.d.comb += [
                        token.half_row.place.eq(half),
                        token.half_row.part.eq(part),
                        token.added.eq(added),
                        token.final.eq(final),
                    ]
        return pending, valid, token

    def _drain(self, m: Module, place: Signal, valid: Signal) -> None:
        """Walk over the half rows of the tile folded once `drain` is given."""
        with m.If(self.drain):
            m.d.sync += [valid.eq(1), place.eq(0)]
        with m.Elif(valid):
            m.d.sync += [place.eq(place + 1), valid.eq(place != (self.body.rows << 1) - 1)]


def _part(token: Any) -> Any:
    """Return the address of the part of a sum that a token changes."""
    return Cat(token.half_row.place[0], token.half_row.part)


def _added_part(token: Any) -> Any:
    """Return the address of the part that is added to it."""
    return Cat(token.half_row.place[0], token.added)
