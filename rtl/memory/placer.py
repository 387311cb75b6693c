"""Arrangement of the beats of an operand in the banks of its scratchpad."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import HALF_BITS, INDEX_SLOT_BITS, Config
from ..control.commands import LoadTarget
from .ports import AuxWriteSignature, DWriteSignature, SWord, SWriteSignature

__all__ = ["Placement", "Placer"]

_VALUE_BEATS_PER_INDEX_BEAT = 4


class Placement(data.StructLayout):
    """Where the beats of one LOAD go.

    Attributes
    ----------
    target : LoadTarget
    tiles : unsigned(1)
        Beats come tile after tile rather than row after row; set for S.
    sparse : unsigned(1)
        S has index beats.
    steps_shift : unsigned
        log2 of the S words that a row has in a tile.
    base : unsigned(16)
        First word.
    count : unsigned(16)
        Rows, or blocks of G rows if `tiles`.
    d_words : unsigned(16)
        D words in a row.
    row_step : unsigned(16)
        Words from a row of a bank to the next.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "target": LoadTarget,
                "tiles": unsigned(1),
                "sparse": unsigned(1),
                "steps_shift": range(exact_log2(config.ratio) + 1),
                "base": unsigned(16),
                "count": unsigned(16),
                "d_words": unsigned(16),
                "row_step": unsigned(16),
            }
        )


class Placer(wiring.Component):
    """Takes the beats of one placement after the other, one a cycle, and writes them.

    A beat is written the cycle after it was taken. Placements are trusted: what they name must
    lie inside the scratchpads.

    Parameters
    ----------
    config
        Sets the shapes of words and banks.

    Attributes
    ----------
    placement : In(stream of Placement)
        What the next beats are; taken once those of the placement before are written.
    beats : In(stream of beats)
        The beats.
    s_write, d_write, aux_write : Out
        Scratchpads.
    stream, state : Out(stream of beats)
        Those beats that go to the vector unit, and those that go to the update engine.
    done : Out(1)
        One pulse while the last beat of a placement is written, or after it was handed over.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "placement": In(stream.Signature(Placement(config))),
                "beats": In(stream.Signature(unsigned(config.beat_bits))),
                "s_write": Out(SWriteSignature(config)),
                "d_write": Out(DWriteSignature(config)),
                "aux_write": Out(AuxWriteSignature(config)),
                "stream": Out(stream.Signature(unsigned(config.beat_bits))),
                "state": Out(stream.Signature(unsigned(config.beat_bits))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        g_shift = exact_log2(config.elements)
        ratio_shift = exact_log2(config.ratio)

        active = Signal()
        job = Signal(Placement(config))
        to_s = job.target == LoadTarget.S
        to_d = job.target == LoadTarget.D
        to_aux = job.target == LoadTarget.AUX
        to_stream = job.target == LoadTarget.STREAM
        to_state = job.target == LoadTarget.STATE

        # Beats of streams go at the pace of the unit that takes them, to scratchpads at any.
        index_beats = Signal(unsigned(config.beat_bits))
        """Indices of the value beats to come, the next ones lowest."""
        described = Signal(range(_VALUE_BEATS_PER_INDEX_BEAT + 1))
        """Value beats to which `index_beats` still applies."""
        take, is_index, place = Signal(), Signal(), Signal()
        m.d.comb += [
            self.stream.payload.eq(self.beats.payload),
            self.stream.valid.eq(active & to_stream & self.beats.valid),
            self.state.payload.eq(self.beats.payload),
            self.state.valid.eq(active & to_state & self.beats.valid),
            self.beats.ready.eq(
                active & Mux(to_stream, self.stream.ready, ~to_state | self.state.ready)
            ),
            take.eq(self.beats.valid & self.beats.ready),
            is_index.eq(to_s & job.sparse & (described == 0)),
            place.eq(take & ~is_index),
        ]
        nibble_bits = config.elements * INDEX_SLOT_BITS
        with m.If(take & is_index):
            m.d.sync += [
                index_beats.eq(self.beats.payload),
                described.eq(_VALUE_BEATS_PER_INDEX_BEAT),
            ]
        with m.If(place & to_s & job.sparse):
            m.d.sync += [index_beats.eq(index_beats >> nibble_bits), described.eq(described - 1)]

        # Position of the beat: D word `kw` of row `row` (modulo G); `origin` is where the row's, or
        # the block's first row's, D word 0 goes. S words of one or several rows share a beat.
        kw, count = Signal(16), Signal(16)
        row, next_row = Signal(g_shift), Signal(g_shift + 1)
        origin, address = Signal(16), Signal(16)
        kw_ends, banks_wrap, block_step, offset = Signal(), Signal(), Signal(16), Signal(16)
        m.d.comb += [
            kw_ends.eq(kw == job.d_words - 1),
            next_row.eq(row + Mux(to_s, config.ratio >> job.steps_shift, 1)),
        ]
        with m.If(to_s):
            m.d.comb += [
                banks_wrap.eq(next_row[: exact_log2(config.rows)] == 0),
                block_step.eq(job.row_step * (config.elements // config.rows)),
            ]
            with m.Switch(job.steps_shift):
                for shift in range(ratio_shift + 1):
                    with m.Case(shift):
                        m.d.comb += offset.eq((kw + 1) >> (ratio_shift - shift))
        with m.Else():
            m.d.comb += [
                banks_wrap.eq(to_aux | (next_row[: exact_log2(config.cols)] == 0)),
                block_step.eq(job.row_step * (config.elements // config.cols)),
                offset.eq(kw + 1),
            ]

        group_ends = Signal()
        """All D words of the row, or of the block of rows, are there."""
        with m.If(job.tiles):
            m.d.comb += group_ends.eq(next_row[-1] & kw_ends)
        with m.Else():
            m.d.comb += group_ends.eq(kw_ends)
        with m.If(place):
            with m.If(job.tiles):
                m.d.sync += row.eq(next_row)
                with m.If(~next_row[-1]):
                    m.d.sync += address.eq(address + Mux(banks_wrap, job.row_step, 0))
                with m.Elif(~kw_ends):
                    m.d.sync += [kw.eq(kw + 1), address.eq(origin + offset)]
                with m.Else():
                    m.d.sync += [
                        kw.eq(0),
                        origin.eq(origin + block_step),
                        address.eq(origin + block_step),
                    ]
            with m.Elif(~kw_ends):
                m.d.sync += [kw.eq(kw + 1), address.eq(address + 1)]
            with m.Else():
                next_origin = origin + Mux(banks_wrap, job.row_step, 0)
                m.d.sync += [
                    row.eq(next_row),
                    kw.eq(0),
                    origin.eq(next_origin),
                    address.eq(next_origin),
                ]
            with m.If(group_ends):
                m.d.sync += count.eq(count - 1)
                with m.If(count == 1):
                    m.d.sync += active.eq(0)

        m.d.comb += self.placement.ready.eq(~active)
        with m.If(self.placement.valid & self.placement.ready):
            given = self.placement.payload
            m.d.sync += [
                active.eq(1),
                job.eq(given),
                described.eq(0),
                kw.eq(0),
                count.eq(given.count),
                row.eq(0),
                origin.eq(given.base),
                address.eq(given.base),
            ]

        # The write, a cycle later.
        beat = Signal(unsigned(config.beat_bits))
        nibbles = Signal(data.ArrayLayout(INDEX_SLOT_BITS, config.elements))
        write_address = Signal(16)
        sparse = Signal()
        steps_shift = Signal.like(job.steps_shift)
        m.d.sync += [
            self.done.eq(place & group_ends & (count == 1)),
            self.s_write.enable.eq(0),
            self.d_write.enable.eq(0),
            self.aux_write.enable.eq(place & to_aux),
        ]
        with m.If(place):
            m.d.sync += [
                beat.eq(self.beats.payload),
                nibbles.eq(index_beats),
                write_address.eq(address),
                sparse.eq(job.sparse),
                steps_shift.eq(job.steps_shift),
            ]
        with m.If(place & to_d):
            m.d.sync += self.d_write.enable.eq(1 << row[: exact_log2(config.cols)])
        with m.If(place & to_s), m.Switch(job.steps_shift):
            for shift in range(ratio_shift + 1):
                with m.Case(shift):
                    banks = config.ratio >> shift
                    steps = 1 << shift
                    first = row[: exact_log2(config.rows)] & (config.rows - banks)
                    quarter = kw[: ratio_shift - shift] << shift
                    m.d.sync += [
                        self.s_write.enable.eq(((1 << banks) - 1) << first),
                        self.s_write.quarters.eq(((1 << steps) - 1) << quarter),
                    ]
        m.d.comb += [
            self.d_write.address.eq(write_address),
            self.d_write.data.eq(beat),
            self.aux_write.address.eq(write_address),
            self.aux_write.data.eq(beat),
            self.s_write.address.eq(write_address),
        ]

        # S words as the beat has them; dense beats are in natural order and have no indices.
        words = Signal(data.ArrayLayout(SWord(config), config.ratio))
        values = data.View(data.ArrayLayout(HALF_BITS, config.elements), beat)
        lanes_per_chunk = config.lanes_per_chunk
        for step in range(config.ratio):
            for lane in range(config.lanes):
                chunk, place_in_chunk = divmod(lane, lanes_per_chunk)
                entry = lanes_per_chunk * step + place_in_chunk
                packed = config.lanes * step + lane
                natural = config.group * chunk + entry
                m.d.comb += [
                    words[step][lane].value.eq(Mux(sparse, values[packed], values[natural])),
                    words[step][lane].index.eq(Mux(sparse, nibbles[packed], entry)),
                ]

        # With T steps to a row, bank i holds row i % (r/T) of those in the beat, in T quarters.
        for bank in range(config.ratio):
            for quarter in range(config.ratio):
                with m.Switch(steps_shift):
                    for shift in range(ratio_shift + 1):
                        with m.Case(shift):
                            row_of_beat = bank % (config.ratio >> shift)
                            word = (row_of_beat << shift) + quarter % (1 << shift)
                            m.d.comb += self.s_write.words[bank][quarter].eq(words[word])

        return m
