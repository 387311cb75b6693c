"""Arrangement of the beats of an operand in the banks of its scratchpad."""

from collections.abc import Collection
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import HALF_BITS, INDEX_SLOT_BITS, Config
from ..control.commands import STREAMS, LoadTarget
from .ports import AuxWriteSignature, DWriteSignature, SWord, SWriteSignature

__all__ = ["Placement", "Placer", "target_ports"]

_VALUE_BEATS_PER_INDEX_BEAT = 4


def target_ports(config: Config, targets: Collection[LoadTarget]) -> dict[str, Any]:
    """Return the ports by which beats go to `targets`, by name."""
    beats = stream.Signature(unsigned(config.beat_bits))
    ports = {
        LoadTarget.S: ("s_write", SWriteSignature(config)),
        LoadTarget.D: ("d_write", DWriteSignature(config)),
        LoadTarget.AUX: ("aux_write", AuxWriteSignature(config)),
        LoadTarget.STREAM: ("stream", beats),
        LoadTarget.STATE: ("state", beats),
    }
    return {ports[target][0]: Out(ports[target][1]) for target in ports if target in targets}


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
    targets
        Those of its placements.

    Attributes
    ----------
    placement : In(stream of Placement)
        What the next beats are; taken once those of the placement before are written.
    beats : In(stream of beats)
        The beats.
    s_write, d_write, aux_write : Out
        Scratchpads, each only if it's a target.
    stream, state : Out(stream of beats)
        Those beats that go to the vector unit, and those that go to the update engine, each only if
        it's a target.
    done : Out(1)
        One pulse while the last beat of a placement is written, or after it was handed over.
    """

    def __init__(self, config: Config, targets: Collection[LoadTarget]) -> None:
        self._config = config
        self._targets = targets
        super().__init__(
            {
                "placement": In(stream.Signature(Placement(config))),
                "beats": In(stream.Signature(unsigned(config.beat_bits))),
                **target_ports(config, targets),
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

        def goes_to(target: LoadTarget) -> Value:
            return job.target == target if target in self._targets else Const(0)

        to_s = goes_to(LoadTarget.S)
        to_aux = goes_to(LoadTarget.AUX)

        # Beats of streams go at the pace of the unit that takes them, to scratchpads at any.
        room = Signal(init=1)
        for target in STREAMS:
            if target in self._targets:
                taker = getattr(self, target.name.lower())
                m.d.comb += [
                    taker.payload.eq(self.beats.payload),
                    taker.valid.eq(active & goes_to(target) & self.beats.valid),
                ]
                with m.If(goes_to(target)):
                    m.d.comb += room.eq(taker.ready)
        index_beats = Signal(unsigned(config.beat_bits))
        """Indices of the value beats to come, the next ones lowest."""
        described = Signal(range(_VALUE_BEATS_PER_INDEX_BEAT + 1))
        """Value beats to which `index_beats` still applies."""
        take, is_index, place = Signal(), Signal(), Signal()
        m.d.comb += [
            self.beats.ready.eq(active & room),
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
        write_address = Signal(16)
        m.d.sync += self.done.eq(place & group_ends & (count == 1))
        with m.If(place):
            m.d.sync += [beat.eq(self.beats.payload), write_address.eq(address)]
        if LoadTarget.D in self._targets:
            m.d.sync += self.d_write.enable.eq(0)
            with m.If(place & goes_to(LoadTarget.D)):
                m.d.sync += self.d_write.enable.eq(1 << row[: exact_log2(config.cols)])
            m.d.comb += [self.d_write.address.eq(write_address), self.d_write.data.eq(beat)]
        if LoadTarget.AUX in self._targets:
            m.d.sync += self.aux_write.enable.eq(place & to_aux)
            m.d.comb += [self.aux_write.address.eq(write_address), self.aux_write.data.eq(beat)]
        if LoadTarget.S not in self._targets:
            return m

        nibbles = Signal(data.ArrayLayout(INDEX_SLOT_BITS, config.elements))
        sparse = Signal()
        steps_shift = Signal.like(job.steps_shift)
        m.d.comb += self.s_write.address.eq(write_address)
        m.d.sync += self.s_write.enable.eq(0)
        with m.If(place):
            m.d.sync += [
                nibbles.eq(index_beats),
                sparse.eq(job.sparse),
                steps_shift.eq(job.steps_shift),
            ]
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
