"""Checks COMPUTE commands before they have any effect."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import ComputeBody, Fault
from ..control.fault import FaultReport
from ..sparsity.pattern import supported_patterns
from .mapper import Product

__all__ = ["CommandChecker"]


class CommandChecker(wiring.Component):
    """Turns COMPUTE commands into products, or stops at one that can't be carried out.

    What is checked, in this order, with the address reported: counts (0), pattern (0), then the
    base of the first of the scratchpads S, D and O that is too small, then the length of the
    reduction (`s_base`). Of D all words count that whole walks reach, unless it is ones. A product
    is there six cycles after its command.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    command : In(stream)
        The commands.
    product : Out(stream)
        The products.
    fault : Out(FaultReport)
        Why it stopped; until then NONE.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(ComputeBody)),
                "product": Out(stream.Signature(Product)),
                "fault": Out(FaultReport),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        given = self.command.payload
        body = Signal(ComputeBody, reset_less=True)
        product = Signal(Product, reset_less=True)
        m.d.comb += self.product.payload.eq(product)

        is_supported = Signal()
        entries = Signal.like(body.tail_entries)
        steps, s_words = Signal.like(product.last_step), Signal.like(product.s_words)
        with m.Switch(body.pattern):
            for pattern in supported_patterns(config):
                with m.Case(pattern):
                    m.d.comb += [
                        is_supported.eq(1),
                        entries.eq(pattern.entries_per_chunk(config)),
                        steps.eq(pattern.steps(config)),
                        s_words.eq(body.d_words * pattern.steps(config)),
                    ]
        s_stride = Signal.like(product.s_stride)
        m.d.comb += s_stride.eq((s_words + (config.ratio - 1)) // config.ratio)
        # A count of zero, less one, is all ones.
        walks = ((product.d_rows, given.d_rows), (product.d_reduction, given.d_reduction))
        no_rounds = Cat(last.all() for loops, _ in walks for last in loops.lasts).any()
        is_empty = (
            (body.d_words == 0)
            | (body.a_tiles == 0)
            | (body.b_tiles == 0)
            | (no_rounds & ~body.ones)
        )
        is_one_tile = (body.a_tiles == 1) & (body.b_tiles == 1)
        shifts = exact_log2(config.interleave)
        b_shift = (shifts - body.a_contexts)[: len(product.b_shift)]
        a_rows = ((body.a_tiles * config.rows) << body.a_contexts)[: len(product.a_rows)]
        b_rows = ((body.b_tiles * config.cols) << b_shift)[: len(product.b_rows)]
        rows_overlap = body.o_stride * config.floats < a_rows
        # What follows a COMPUTE that keeps its sums must share its contexts out in the same way.
        additions = Signal(range(config.max_additions + 1))
        kept_contexts = Signal.like(body.a_contexts, reset_less=True)
        is_malformed = (
            is_empty
            | (body.keep & ~is_one_tile)
            | (body.accumulate & (body.keep | rows_overlap))
            | (body.a_contexts > shifts)
            | ((additions != 0) & (body.a_contexts != kept_contexts))
            | (body.a_padding >= a_rows)
            | (body.b_padding >= b_rows)
            | (body.tail_chunks >= config.chunks)
            | (body.tail_entries > entries)
        )

        # Two multipliers say how many words of each scratchpad the command reaches over: one for S
        # and the rows of D, one for the reduction and O. What they multiply is there two cycles
        # after it was named.
        factors = [Signal(signed(17 + shifts), name=f"factor_{i}") for i in range(2)]
        counts = [Signal(signed(17), name=f"count_{i}") for i in range(2)]
        first, second = (
            Signal(signed(len(factor) + len(count)), name=name, reset_less=True)
            for name, factor, count in zip(("first", "second"), factors, counts, strict=True)
        )
        m.d.sync += [
            first.eq(factors[0] * counts[0]),
            second.eq(factors[1] * counts[1]),
        ]

        def multiply(unit: int, factor: ValueLike, count: ValueLike) -> None:
            m.d.sync += [factors[unit].eq(factor), counts[unit].eq(count)]

        # The lowest and the highest D word that the command reads: each dimension of the walks adds
        # its span to either. One that is longer than the scratchpad is out of range by itself.
        near_bits = (config.d_depth - 1).bit_length() + 1
        reach = signed(20)
        lowest, highest = Signal(reach, reset_less=True), Signal(reach, reset_less=True)
        is_far = Signal(reset_less=True)

        def extended(*spans: Value) -> tuple[Value, Value, Value]:
            near = [span[:near_bits].as_signed() for span in spans]
            far = Cat(part != span for part, span in zip(near, spans, strict=True)).any()
            down = sum((Mux(part < 0, part, 0) for part in near), lowest)
            up = sum((Mux(part < 0, 0, part) for part in near), highest)
            return down, up, is_far | far

        def extend(*spans: Value) -> None:
            down, up, far = extended(*spans)
            m.d.sync += [lowest.eq(down), highest.eq(up), is_far.eq(far)]

        # The word behind the first row of an O bank.
        o_row_end = Signal(len(a_rows) + 1, reset_less=True)

        # S words that were added to the sums that are kept.
        total = additions + product.s_words

        def refuse(code: Fault, address: Any) -> None:
            m.d.sync += [self.fault.code.eq(code), self.fault.address.eq(address)]
            m.next = "Stopped"

        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += body.eq(given)
                    for unit, (loops, walk) in enumerate(walks):
                        lasts = [(count - 1)[: len(count)] for count in walk.counts]
                        m.d.sync += [loops.lasts.eq(Cat(lasts)), loops.steps.eq(walk.steps)]
                        multiply(unit, lasts[0], walk.steps[0])
                    m.next = "Check-Counts"

            with m.State("Check-Counts"):
                m.d.sync += [
                    product.s_words.eq(s_words),
                    product.s_stride.eq(s_stride),
                    product.last_step.eq(steps - 1),
                    product.s_base.eq(body.s_base),
                    product.d_base.eq(body.d_base),
                    product.last_d_word.eq(body.d_words - 1),
                    product.o_base.eq(body.o_base),
                    product.o_stride.eq(body.o_stride),
                    product.last_a_tile.eq(body.a_tiles - 1),
                    product.last_b_tile.eq(body.b_tiles - 1),
                    product.ones.eq(body.ones),
                    product.keep.eq(body.keep),
                    product.accumulate.eq(body.accumulate),
                    product.b_shift.eq(b_shift),
                    product.b_contexts.eq((1 << b_shift) - 1),
                    product.a_rows.eq(a_rows - body.a_padding),
                    product.b_rows.eq(b_rows - body.b_padding),
                    product.entries.eq(
                        Mux(entries < config.lanes_per_chunk, entries, config.lanes_per_chunk)
                    ),
                    product.tail_chunks.eq(body.tail_chunks),
                    product.tail_entries.eq(body.tail_entries),
                ]
                multiply(0, body.a_tiles << body.a_contexts, s_stride)
                multiply(1, product.d_reduction.lasts[1], product.d_reduction.steps[1])
                m.d.sync += [lowest.eq(body.d_base), highest.eq(body.d_base), is_far.eq(0)]
                m.next = "Measure-S"
                with m.If(~is_supported):
                    refuse(Fault.PATTERN, 0)
                with m.If(is_malformed):
                    refuse(Fault.MALFORMED, 0)

            with m.State("Measure-S"):
                multiply(0, product.d_rows.lasts[1], product.d_rows.steps[1])
                multiply(1, product.d_reduction.lasts[2], product.d_reduction.steps[2])
                extend(first, second)
                m.next = "Check-S"

            with m.State("Check-S"):
                multiply(0, product.d_rows.lasts[2], product.d_rows.steps[2])
                multiply(1, (body.b_tiles << product.b_shift) - 1, product.o_stride)
                extend(second)
                m.next = "Measure-O"
                with m.If(product.s_base + first > config.s_depth):
                    refuse(Fault.SCRATCHPAD_RANGE, product.s_base)

            with m.State("Measure-O"):
                extend(first, second)
                o_words = (a_rows + (config.floats - 1)) // config.floats
                m.d.sync += o_row_end.eq(body.o_base + o_words)
                m.next = "Check-D-And-O"

            with m.State("Check-D-And-O"):
                down, up, far = extended(first)
                m.next = "Hand-Over"
                with m.If(total > config.max_additions):
                    refuse(Fault.OVERRUN, product.s_base)
                with m.If(o_row_end + second > config.o_depth):
                    refuse(Fault.SCRATCHPAD_RANGE, product.o_base)
                with m.If(~product.ones & ((down < 0) | (up >= config.d_depth) | far)):
                    refuse(Fault.SCRATCHPAD_RANGE, product.d_base)

            with m.State("Hand-Over"):
                m.d.comb += self.product.valid.eq(1)
                with m.If(self.product.ready):
                    m.d.sync += [
                        additions.eq(Mux(product.keep, total, 0)),
                        kept_contexts.eq(body.a_contexts),
                    ]
                    m.next = "Wait-For-Command"

            with m.State("Stopped"):
                pass
        return m
