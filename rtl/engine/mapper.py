"""The interleaved mapper: what the array multiplies and drains, and which operands it reads."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import ACCUMULATOR_BINS, Config
from ..delay import delayed
from .array import UPDATE_LATENCY, Issue
from .pe import drain_distance, drain_turns
from .tally import SlotSize
from .walk import Loops, WordWalk

__all__ = ["InterleavedMapper", "Product", "settling_cycles"]


class Product(data.Struct):
    """A COMPUTE command that has been checked, with what follows from its pattern."""

    s_base: unsigned(16)
    s_stride: unsigned(16)
    """Bank words that one S row takes."""
    s_words: unsigned(19)
    """S words of one S row: steps of a tile."""
    last_step: unsigned(4)
    """Steps that one D word serves ("T"), less one."""
    d_base: unsigned(16)
    last_d_word: unsigned(16)
    d_rows: Loops
    """Rows of a D bank, from `d_base`."""
    d_reduction: Loops
    """D words of a row."""
    o_base: unsigned(16)
    o_stride: unsigned(16)
    last_a_tile: unsigned(16)
    last_b_tile: unsigned(16)
    b_contexts: unsigned(4)
    """Contexts along b, less one."""
    b_shift: unsigned(3)
    """Binary logarithm of the contexts along b."""
    ones: unsigned(1)
    keep: unsigned(1)
    accumulate: unsigned(1)
    a_rows: unsigned(26)
    """Rows along a that aren't padding."""
    b_rows: unsigned(26)
    entries: unsigned(5)
    """Entries that the lanes of a chunk have in one step, at most."""
    tail_chunks: unsigned(4)
    """Full chunks in the last D word of a row."""
    tail_entries: unsigned(5)
    """Entries of the chunk after these."""


class InterleavedMapper(wiring.Component):
    """Walks the tiles of a product, one slot a cycle, and drains each while it walks the next.

    For each tile, a innermost: for each S word, one slot for each context in turn. The S word is
    read as the contexts' place along a changes. Products follow each other without a pause. After
    the last word of a tile, unless the sums are kept, and at the latest after
    `Config.bin_additions` words, the lanes' bins of all contexts are drained, while the other half
    of the bins takes what follows. That waits only for what is still to be drained from it. Results
    that are added to others wait, before they are drained, for those of the product before.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    product : In(stream)
        What to compute.
    issue : Out(Issue)
        The slots of this cycle.
    size : Out(SlotSize)
        How much of the array the multiplying slot of this cycle uses.
    last : Out(1)
        A product's last slot is issued in this cycle: the last that drains it or, if its sums are
        kept, that multiplies for it.
    draining : Out(1)
        No multiplying slot is issued in this cycle, as sums have to leave the accumulators first.
    idle : Out(1)
        No product is under way.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "product": In(stream.Signature(Product)),
                "issue": Out(Issue(config)),
                "size": Out(SlotSize(config)),
                "last": Out(1),
                "draining": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        product = Signal(Product, reset_less=True)
        a_tile, b_tile = Signal(16), Signal(16)
        context = Signal(range(config.interleave))
        is_last_context = context == config.interleave - 1
        is_last_along_b = (context & product.b_contexts) == product.b_contexts
        is_last_a_tile = a_tile == product.last_a_tile
        is_last_b_tile = b_tile == product.last_b_tile

        # Addresses: S words of this tile from s_tile, of this context from s_row.
        s_tile, s_row = Signal(16), Signal(16)
        s_word = Signal(19)
        step = Signal(4)
        word = Signal(16)
        s_shift = (config.ratio - 1).bit_length()
        is_last_step = step == product.last_step
        is_last_d_word = word == product.last_d_word
        is_last_word = is_last_step & is_last_d_word

        # D addresses: that of the context's row, plus the place of the D word in all rows. Those of
        # rows are found a slot ahead, during the first S word of the first tile that has them.
        address_bits = (config.d_depth - 1).bit_length()
        m.submodules.d_rows = d_rows = WordWalk(address_bits)
        m.submodules.d_reduction = d_reduction = WordWalk(address_bits)
        addresses = data.ArrayLayout(address_bits, config.interleave)
        row_addresses = Signal(addresses, reset_less=True)
        finds_rows = Signal()
        m.d.comb += [
            d_rows.loops.eq(product.d_rows),
            d_rows.base.eq(Mux(d_rows.restart, self.product.payload.d_base, product.d_base)),
            d_reduction.loops.eq(product.d_reduction),
        ]
        with m.If(d_rows.restart | d_rows.advance):
            found = Mux(d_rows.restart, 0, context + 1)[: len(context)]
            m.d.sync += row_addresses[found].eq(d_rows.next)

        d_address = Signal(address_bits)
        m.d.comb += d_address.eq(row_addresses[context & product.b_contexts] + d_reduction.address)

        # Rows that aren't padding, from this tile on; negative behind the last.
        a_left, b_left = Signal(signed(27)), Signal(signed(27))
        a_rows = a_left - (context >> product.b_shift) * config.rows
        b_rows = b_left - (context & product.b_contexts) * config.cols

        # Halves of the bins: `half` takes products, `full` ones are to be drained. A half that
        # ended a sum, or a product, says so.
        half = Signal()
        full = Signal(2)
        ends_sum, ends_product, continues = Signal(2), Signal(2), Signal(2)
        accumulates = Signal(2)
        words = Signal(range(config.bin_additions))
        kept = Signal()
        """Some of this sum has been drained from the lanes already."""
        closes = (is_last_word & ~product.keep) | (words == config.bin_additions - 1)

        issue = self.issue
        slot, s_read, d_read = (
            Signal.like(port) for port in (issue.slot, issue.s_read, issue.d_read)
        )
        m.d.comb += [
            slot.place.context.eq(context),
            slot.place.half.eq(half),
            slot.first.eq(words == 0),
            slot.fresh.eq((words == 0) & ~kept),
            slot.last.eq(closes),
            s_read.address.eq(s_row + (s_word >> s_shift)),
            s_read.quarter.eq(s_word[:s_shift]),
            d_read.address.eq(d_address),
            d_read.ones.eq(product.ones),
        ]
        drain = Signal.like(issue.drain)
        keeps, drained = Signal(), Signal()

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
                    a_left.eq(incoming.a_rows),
                    b_left.eq(incoming.b_rows),
                    s_tile.eq(incoming.s_base),
                    s_row.eq(incoming.s_base),
                    finds_rows.eq(1),
                ]
                m.d.comb += [d_rows.restart.eq(1), d_reduction.restart.eq(1)]
                m.next = "Multiply"

        # Products may follow into a half that is being drained, context by context. A kept product
        # ends with its last slot, so only after those before it were drained.
        drained_half = Signal()
        drained_context = Signal(range(config.interleave))
        blocked, undrained = Signal(), Signal()
        m.d.comb += [
            undrained.eq((drained_half != half) | (drained_context <= context)),
            blocked.eq(
                ((words == 0) & full.bit_select(half, 1) & undrained)
                | ((context == 0) & is_last_word & product.keep & full.any())
            ),
        ]
        with m.FSM() as fsm:
            with m.State("Wait-For-Product"):
                finish()

            with m.State("Multiply"), m.If(~blocked):
                m.d.comb += [
                    slot.multiply.eq(1),
                    s_read.enable.eq((context & product.b_contexts) == 0),
                    d_read.enable.eq(1),
                ]
                m.d.comb += d_rows.advance.eq(finds_rows & (context < product.b_contexts))
                m.d.sync += context.eq(context + 1)
                with m.If(is_last_along_b):
                    m.d.sync += s_row.eq(s_row + product.s_stride)

                with m.If(is_last_context):
                    m.d.sync += [
                        s_word.eq(s_word + 1),
                        step.eq(step + 1),
                        s_row.eq(s_tile),
                        words.eq(words + 1),
                        finds_rows.eq(0),
                    ]
                    with m.If(closes):
                        m.d.sync += [
                            words.eq(0),
                            half.eq(~half),
                            full.bit_select(half, 1).eq(1),
                            continues.bit_select(half, 1).eq(kept),
                            ends_sum.bit_select(half, 1).eq(is_last_word & ~product.keep),
                            ends_product.bit_select(half, 1).eq(is_last_a_tile & is_last_b_tile),
                            accumulates.bit_select(half, 1).eq(product.accumulate),
                            kept.eq(~is_last_word | product.keep),
                        ]
                    with m.If(is_last_step):
                        m.d.comb += d_reduction.advance.eq(1)
                        m.d.sync += [step.eq(0), word.eq(word + 1)]
                    with m.If(is_last_word):
                        m.d.comb += d_reduction.restart.eq(1)
                        m.d.sync += [word.eq(0), s_word.eq(0)]
                        with m.If(~is_last_a_tile):
                            m.d.sync += [
                                a_tile.eq(a_tile + 1),
                                a_left.eq(a_rows - config.rows),
                                s_tile.eq(s_row + product.s_stride),
                                s_row.eq(s_row + product.s_stride),
                            ]
                        with m.Elif(~is_last_b_tile):
                            m.d.comb += d_rows.advance.eq(1)
                            m.d.sync += [
                                a_tile.eq(0),
                                b_tile.eq(b_tile + 1),
                                a_left.eq(product.a_rows),
                                b_left.eq(b_rows - config.cols),
                                s_tile.eq(product.s_base),
                                s_row.eq(product.s_base),
                                finds_rows.eq(1),
                            ]
                        with m.Else():
                            m.d.comb += keeps.eq(product.keep)
                            finish()

        # Drain: contexts, bins and turns of one half after the other, as soon as their last
        # products have been added.
        drained_bin = Signal(range(ACCUMULATOR_BINS))
        turn = Signal(range(drain_turns(config) + 1))
        added = delayed(m, full, max(0, drain_distance(config) - config.interleave), reset=True)
        is_continued = continues.bit_select(drained_half, 1)
        settling = Signal(settling_cycles(config))
        m.d.sync += settling.eq(Cat(drained, settling))
        settles = accumulates.bit_select(drained_half, 1) & settling.any()
        m.d.comb += [
            drain.enable.eq((full & added).bit_select(drained_half, 1) & ~settles),
            drain.place.context.eq(drained_context),
            drain.place.half.eq(drained_half),
            drain.bin.eq(drained_bin),
            drain.turn.eq(turn),
            drain.ends.eq(turn == drain_turns(config) - 1 + is_continued),
            drain.final.eq(ends_sum.bit_select(drained_half, 1)),
        ]
        with m.If(drain.enable):
            m.d.sync += turn.eq(turn + 1)
            with m.If(drain.ends):
                m.d.sync += [turn.eq(0), drained_bin.eq(drained_bin + 1)]
                with m.If(drained_bin == ACCUMULATOR_BINS - 1):
                    m.d.sync += drained_context.eq(drained_context + 1)
                    with m.If(drained_context == config.interleave - 1):
                        m.d.comb += drained.eq(
                            (ends_sum & ends_product).bit_select(drained_half, 1)
                        )
                        m.d.sync += [
                            full.bit_select(drained_half, 1).eq(0),
                            drained_half.eq(~drained_half),
                        ]

        m.d.sync += [
            issue.slot.eq(slot),
            issue.drain.eq(drain),
            issue.s_read.eq(s_read),
            issue.d_read.eq(d_read),
            self.last.eq(keeps | drained),
            self.draining.eq(Mux(fsm.ongoing("Multiply"), blocked, full.any())),
        ]
        m.d.comb += self.idle.eq(fsm.ongoing("Wait-For-Product") & ~full.any())

        # How much of the slot is padding: rows in the last tiles, entries in the last D word.
        entries_left = product.tail_entries - step * config.lanes_per_chunk
        active = product.entries * config.chunks
        has_tail = (product.tail_chunks != 0) | (product.tail_entries != 0)
        tail = product.tail_chunks * product.entries + _clamp(entries_left, product.entries)
        m.d.sync += [
            self.size.multiply.eq(slot.multiply),
            self.size.rows.eq(_clamp(a_rows, config.rows)),
            self.size.cols.eq(_clamp(b_rows, config.cols)),
            self.size.lanes.eq(Mux(is_last_d_word & has_tail, tail, active)),
            self.size.active.eq(active),
        ]
        return m


def settling_cycles(config: Config) -> int:
    """Return the pause behind a product's drain where the next one is added to what stands there.

    What is read to be added to must have been written: in the closest case the last context of the
    product before has the places of the first one now. Within a product all differ.
    """
    closest = max(ACCUMULATOR_BINS, min(config.drain_rows, config.floats))
    return max(0, UPDATE_LATENCY - closest)


def _clamp(value: Value, limit: ValueLike) -> Value:
    """Return `value`, but at least 0 and at most `limit`."""
    return Mux(value < 0, 0, Mux(value > limit, limit, value))
