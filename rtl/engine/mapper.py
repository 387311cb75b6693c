"""The interleaved mapper: which slot the array carries out, and which operands it reads for it."""

from typing import Any

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.accumulator import Operation
from ..config import ACCUMULATOR_BINS, Config
from .array import Issue

__all__ = ["InterleavedMapper", "Product"]


class Product(data.Struct):
    """A COMPUTE command that has been checked, with what follows from its pattern."""

    s_base: unsigned(16)
    s_stride: unsigned(16)
    """Bank words that one S row takes."""
    s_words: unsigned(19)
    """S words of one S row: steps of a tile."""
    steps: unsigned(4)
    """Steps that one D word serves ("T")."""
    d_base: unsigned(16)
    d_words: unsigned(16)
    o_base: unsigned(16)
    o_stride: unsigned(16)
    a_tiles: unsigned(16)
    b_tiles: unsigned(16)
    ones: unsigned(1)
    keep: unsigned(1)


class InterleavedMapper(wiring.Component):
    """Walks the tiles of a product, one slot a cycle.

    For each tile, a innermost: for each S word, one MULTIPLY slot for each context in turn, the S
    word read in the first of them; then, unless the sums are kept, DRAIN slots for all bins of all
    contexts. Products follow each other without a pause. After reset it first clears the
    accumulators.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    product : In(stream)
        What to compute.
    issue : Out(Issue)
        The slot of this cycle.
    last : Out(1)
        It's the last one of its product.
    idle : Out(1)
        The accumulators are clear and no product is under way.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "product": In(stream.Signature(Product)),
                "issue": Out(Issue(config)),
                "last": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        product = Signal(Product, reset_less=True)
        a_tile, b_tile = Signal(16), Signal(16)
        context = Signal(range(config.interleave))
        accumulator_bin = Signal(range(ACCUMULATOR_BINS))
        is_last_context = context == config.interleave - 1
        is_last_bin = accumulator_bin == ACCUMULATOR_BINS - 1

        # Addresses: S words of this tile from s_tile, D words of this tile from d_tile. The rows of
        # the contexts are d_words apart.
        s_tile, d_tile = Signal(16), Signal(16)
        s_word = Signal(19)
        step = Signal(4)
        word = Signal(16)
        d_word, d_address = Signal(16), Signal(16)
        s_shift = (config.ratio - 1).bit_length()

        # A column passes on one result a cycle, so contexts must not be drained faster than in
        # `rows` cycles each.
        wait = Signal(range(config.rows))
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)

        slot = Signal.like(self.issue.slot)
        s_read, d_read = Signal.like(self.issue.s_read), Signal.like(self.issue.d_read)
        take, last = Signal(), Signal()
        m.d.comb += [slot.context.eq(context), slot.bin.eq(accumulator_bin)]
        m.d.comb += [
            s_read.address.eq(s_tile + (s_word >> s_shift)),
            s_read.quarter.eq(s_word[:s_shift]),
            d_read.address.eq(d_address),
            d_read.ones.eq(product.ones),
        ]

        def finish() -> None:
            """Go on with the next product, which may begin in the next cycle."""
            incoming = self.product.payload
            m.d.comb += self.product.ready.eq(1)
            m.next = "Wait-For-Product"
            with m.If(self.product.valid):
                m.d.sync += [
                    product.eq(incoming),
                    a_tile.eq(0),
                    b_tile.eq(0),
                    s_tile.eq(incoming.s_base),
                    d_tile.eq(incoming.d_base),
                    d_word.eq(incoming.d_base),
                    d_address.eq(incoming.d_base),
                ]
                m.next = "Multiply"

        with m.FSM() as fsm:
            with m.State("Clear"):
                m.d.comb += slot.operation.eq(Operation.DRAIN)
                m.d.sync += accumulator_bin.eq(accumulator_bin + 1)
                with m.If(is_last_bin):
                    m.d.sync += context.eq(context + 1)
                    with m.If(is_last_context):
                        m.next = "Wait-For-Product"

            with m.State("Wait-For-Product"):
                finish()

            with m.State("Multiply"):
                m.d.comb += [
                    slot.operation.eq(Operation.MULTIPLY),
                    s_read.enable.eq(context == 0),
                    d_read.enable.eq(1),
                ]
                m.d.sync += [
                    context.eq(context + 1),
                    d_address.eq(d_address + product.d_words),
                ]
                with m.If(is_last_context):
                    m.d.sync += [s_word.eq(s_word + 1), step.eq(step + 1), d_address.eq(d_word)]
                    with m.If(step == product.steps - 1):
                        m.d.sync += [
                            step.eq(0),
                            word.eq(word + 1),
                            d_word.eq(d_word + 1),
                            d_address.eq(d_word + 1),
                        ]
                        with m.If(word == product.d_words - 1):
                            m.d.sync += [word.eq(0), s_word.eq(0)]
                            m.next = "Drain"
                            with m.If(product.keep):
                                m.d.comb += last.eq(1)
                                finish()

            with m.State("Drain"), m.If((accumulator_bin != 0) | (wait == 0)):
                m.d.comb += [
                    slot.operation.eq(Operation.DRAIN),
                    take.eq(is_last_bin),
                ]
                m.d.sync += accumulator_bin.eq(accumulator_bin + 1)
                with m.If(accumulator_bin == 0):
                    m.d.sync += wait.eq(config.rows - 1)
                with m.If(is_last_bin):
                    m.d.sync += context.eq(context + 1)
                    with m.If(is_last_context):
                        m.next = "Multiply"
                        with m.If(a_tile != product.a_tiles - 1):
                            m.d.sync += [
                                a_tile.eq(a_tile + 1),
                                s_tile.eq(s_tile + product.s_stride),
                                d_word.eq(d_tile),
                                d_address.eq(d_tile),
                            ]
                        with m.Elif(b_tile != product.b_tiles - 1):
                            next_tile = d_tile + product.d_words * config.interleave
                            m.d.sync += [
                                a_tile.eq(0),
                                b_tile.eq(b_tile + 1),
                                s_tile.eq(product.s_base),
                                d_tile.eq(next_tile),
                                d_word.eq(next_tile),
                                d_address.eq(next_tile),
                            ]
                        with m.Else():
                            m.d.comb += last.eq(1)
                            finish()

            m.d.comb += self.idle.eq(fsm.ongoing("Wait-For-Product"))

        m.d.sync += [
            self.issue.slot.eq(slot),
            self.issue.s_read.eq(s_read),
            self.issue.d_read.eq(d_read),
            self.issue.take.eq(take),
            self.last.eq(last),
        ]
        return m
