"""Joins what leaves the lanes to beats for memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import FLOAT, HALF
from ..config import Config
from ..delay import delayed

__all__ = ["VectorWriter"]

_READY_BEATS = 64
"""Room for results; more than are under way, as there are stages on the way."""

_MOST_BEATS = 2
"""Of a slice."""


class VectorWriter(wiring.Component):
    """Makes beats of slices of rows.

    A row is one beat of binary16 or two of binary32, and so a slice part of a beat, one, or two.
    Whoever lets a slice into the lanes reserves room for it first, so that nothing stalls behind
    them.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    wide : In(1)
        Results are written in binary32. Constant while slices are under way, as is `rows`.
    rows : In(range(G + 1))
        Rows of a tile that come; narrow tiles are completed with zeros.
    reserve : In(1)
        A slice more is under way that begins a beat, or two; only while there is `room`.
    room : Out(1)
        There is room for two beats.
    valid : In(1)
        A slice leaves the lanes, those of a row in order; if it has two beats, none in the next
        cycle.
    floats, halves : In
        Its values in both formats.
    data : Out(stream of beats)
        To the write DMA.
    nonfinite : Out(range)
        Infinities and NaNs in the slice of three cycles ago, of four with many slices.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "wide": In(1),
                "rows": In(range(config.elements + 1)),
                "reserve": In(1),
                "room": Out(1),
                "valid": In(1),
                "floats": In(data.ArrayLayout(FLOAT, config.vector_lanes)),
                "halves": In(data.ArrayLayout(HALF, config.vector_lanes)),
                "data": Out(stream.Signature(unsigned(config.beat_bits))),
                "nonfinite": Out(range(config.vector_lanes + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        valid, floats, halves = self.valid, self.floats, self.halves
        if config.vector_slices > 2:
            # A beat of many slices leaves time for a register between rounding and joining.
            valid = delayed(m, valid, reset=True)
            floats, halves = delayed(m, floats), delayed(m, halves)

        # In: a beat of slices, or of one after the other.
        m.submodules.ready_beats = ready_beats = fifo.SyncFIFOBuffered(
            width=config.beat_bits, depth=_READY_BEATS
        )
        if config.vector_slices == 1:
            upper, upper_valid = Signal(config.beat_bits, reset_less=True), Signal()
            lower_floats = floats.as_value()[: config.beat_bits]
            m.d.sync += upper_valid.eq(valid & self.wide)
            with m.If(valid):
                m.d.sync += upper.eq(floats.as_value()[config.beat_bits :])
            m.d.comb += [
                ready_beats.w_en.eq(valid | upper_valid),
                ready_beats.w_data.eq(
                    Mux(upper_valid, upper, Mux(self.wide, lower_floats, halves.as_value()))
                ),
            ]
            beats = Mux(self.wide, 2, 1)
        else:
            half_bits, float_bits = halves.shape().size, floats.shape().size
            earlier = Signal(config.beat_bits - half_bits, reset_less=True)
            earlier_floats = earlier[float_bits - half_bits :]
            joined = Signal(config.beat_bits)
            m.d.comb += joined.eq(
                Mux(
                    self.wide,
                    Cat(earlier_floats, floats.as_value()),
                    Cat(earlier, halves.as_value()),
                )
            )
            # A beat of binary32 has half as many slices.
            slice_ = Signal(range(config.vector_slices))
            ends_beat = (slice_[-1] | self.wide) & (slice_[:-1] == config.vector_slices // 2 - 1)
            with m.If(valid):
                m.d.sync += [earlier.eq(joined[half_bits:]), slice_.eq(slice_ + 1)]
            m.d.comb += [
                ready_beats.w_en.eq(valid & ends_beat),
                ready_beats.w_data.eq(joined),
            ]
            beats = 1
        reserved = Signal(range(_READY_BEATS + 1))
        taken = ready_beats.r_rdy & ready_beats.r_en
        m.d.comb += self.room.eq(reserved <= _READY_BEATS - _MOST_BEATS)
        m.d.sync += reserved.eq(reserved + Mux(self.reserve, beats, 0) - taken)

        # Out: rows of zeros complete a narrow tile, of which there's at least one other row.
        row = Signal(range(config.elements))
        padding = ~self.wide & (row != 0) & (row >= self.rows)
        m.d.comb += [
            self.data.valid.eq(padding | ready_beats.r_rdy),
            self.data.payload.eq(Mux(padding, 0, ready_beats.r_data)),
            ready_beats.r_en.eq(self.data.ready & ~padding),
        ]
        with m.If(self.data.valid & self.data.ready & ~self.wide):
            m.d.sync += row.eq(row + 1)

        special_floats, special_halves = Signal(config.vector_lanes), Signal(config.vector_lanes)
        special, came = Signal(config.vector_lanes), Signal()
        m.d.sync += [
            came.eq(valid),
            special_floats.eq(Cat(value.exponent.all() for value in floats)),
            special_halves.eq(Cat(value.exponent.all() for value in halves)),
            special.eq(Mux(came, Mux(self.wide, special_floats, special_halves), 0)),
            self.nonfinite.eq(sum(special, Const(0, 1))),
        ]

        return m
