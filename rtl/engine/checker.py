"""Checks COMPUTE commands before they have any effect."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
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
    reduction (`s_base`). A product is there six cycles after its command.

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
        body = Signal(ComputeBody, reset_less=True)
        product = Signal(Product, reset_less=True)
        m.d.comb += self.product.payload.eq(product)

        is_supported = Signal()
        entries = Signal.like(body.tail_entries)
        steps, s_words = Signal.like(product.steps), Signal.like(product.s_words)
        with m.Switch(body.pattern):
            for pattern in supported_patterns(config):
                with m.Case(pattern):
                    m.d.comb += [
                        is_supported.eq(1),
                        entries.eq(pattern.entries_per_chunk(config)),
                        steps.eq(pattern.steps(config)),
                        s_words.eq(body.d_words * pattern.steps(config)),
                    ]
        is_empty = (body.d_words == 0) | (body.a_tiles == 0) | (body.b_tiles == 0)
        is_one_tile = (body.a_tiles == 1) & (body.b_tiles == 1)
        shifts = exact_log2(config.interleave)
        b_shift = (shifts - body.a_contexts)[: len(product.b_shift)]
        a_rows = ((body.a_tiles * config.rows) << body.a_contexts)[: len(product.a_rows)]
        b_rows = ((body.b_tiles * config.cols) << b_shift)[: len(product.b_rows)]
        # What follows a COMPUTE that keeps its sums must share its contexts out in the same way.
        additions = Signal(range(config.max_additions + 1))
        kept_contexts = Signal.like(body.a_contexts, reset_less=True)
        is_malformed = (
            is_empty
            | (body.keep & ~is_one_tile)
            | (body.a_contexts > shifts)
            | ((additions != 0) & (body.a_contexts != kept_contexts))
            | (body.a_padding >= a_rows)
            | (body.b_padding >= b_rows)
            | (body.tail_chunks >= config.chunks)
            | (body.tail_entries > entries)
        )

        # One multiplier says how many words of each scratchpad the command reaches over.
        contexts = product.b_tiles << product.b_shift
        factor, count = Signal(16 + shifts), Signal(16)
        words = Signal(len(factor) + len(count), reset_less=True)
        m.d.sync += words.eq(factor * count)

        # S words that were added to the sums that are kept.
        total = additions + product.s_words

        def refuse(code: Fault, address: Any) -> None:
            m.d.sync += [self.fault.code.eq(code), self.fault.address.eq(address)]
            m.next = "Stopped"

        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += body.eq(self.command.payload)
                    m.next = "Check-Counts"

            with m.State("Check-Counts"):
                m.d.sync += [
                    product.s_words.eq(s_words),
                    product.s_stride.eq((s_words + (config.ratio - 1)) // config.ratio),
                    product.steps.eq(steps),
                    product.s_base.eq(body.s_base),
                    product.d_base.eq(body.d_base),
                    product.d_words.eq(body.d_words),
                    product.d_stride.eq(body.d_words << b_shift),
                    product.o_base.eq(body.o_base),
                    product.o_stride.eq(body.o_stride),
                    product.a_tiles.eq(body.a_tiles),
                    product.b_tiles.eq(body.b_tiles),
                    product.ones.eq(body.ones),
                    product.keep.eq(body.keep),
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
                m.next = "Measure-S"
                with m.If(~is_supported):
                    refuse(Fault.PATTERN, 0)
                with m.If(is_malformed):
                    refuse(Fault.MALFORMED, 0)

            with m.State("Measure-S"):
                m.d.comb += [
                    factor.eq(product.a_tiles << body.a_contexts),
                    count.eq(product.s_stride),
                ]
                m.next = "Check-S"

            with m.State("Check-S"):
                m.d.comb += [factor.eq(contexts), count.eq(product.d_words)]
                m.next = "Check-D"
                with m.If(product.s_base + words > config.s_depth):
                    refuse(Fault.SCRATCHPAD_RANGE, product.s_base)

            with m.State("Check-D"):
                m.d.comb += [factor.eq(contexts - 1), count.eq(product.o_stride)]
                m.next = "Check-O"
                with m.If(product.d_base + words > config.d_depth):
                    refuse(Fault.SCRATCHPAD_RANGE, product.d_base)

            with m.State("Check-O"):
                a_rows = (product.a_tiles << body.a_contexts) * config.rows
                row = (a_rows + (config.floats - 1)) // config.floats
                m.next = "Hand-Over"
                with m.If(total > config.max_additions):
                    refuse(Fault.OVERRUN, product.s_base)
                with m.If(product.o_base + words + row > config.o_depth):
                    refuse(Fault.SCRATCHPAD_RANGE, product.o_base)

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
