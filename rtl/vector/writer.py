"""Joins what leaves the lanes to beats for memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import FLOAT, HALF
from ..config import Config

__all__ = ["VectorWriter"]

_READY_BEATS = 32
"""Room for results; more than there are half rows under way."""


class VectorWriter(wiring.Component):
    """Makes beats of half rows: two of binary16 together, or one of binary32.

    Whoever lets a half row into the lanes reserves room for it first, so that nothing stalls behind
    them.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    wide : In(1)
        Results are written in binary32. Constant while half rows are under way, as is `rows`.
    rows : In(range(G + 1))
        Rows of a tile that come; narrow tiles are completed with zeros.
    reserve : In(1)
        A beat more is under way; only while there is `room`.
    room : Out(1)
        There is room for a beat.
    valid : In(1)
        Half a row leaves the lanes, the lower half of each row first.
    floats, halves : In
        Its values in both formats.
    data : Out(stream of beats)
        To the write DMA.
    nonfinite : Out(range)
        Infinities and NaNs in the half row of two cycles ago.
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
                "floats": In(data.ArrayLayout(FLOAT, config.floats)),
                "halves": In(data.ArrayLayout(HALF, config.floats)),
                "data": Out(stream.Signature(unsigned(config.beat_bits))),
                "nonfinite": Out(range(config.floats + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config

        # In: the lower half waits for the upper one.
        m.submodules.ready_beats = ready_beats = fifo.SyncFIFOBuffered(
            width=config.beat_bits, depth=_READY_BEATS
        )
        lower, upper = Signal.like(self.halves, reset_less=True), Signal()
        with m.If(self.valid):
            m.d.sync += [upper.eq(~upper & ~self.wide), lower.eq(self.halves)]
        m.d.comb += [
            ready_beats.w_en.eq(self.valid & (upper | self.wide)),
            ready_beats.w_data.eq(Mux(self.wide, self.floats.as_value(), Cat(lower, self.halves))),
        ]
        reserved = Signal(range(_READY_BEATS + 1))
        m.d.comb += self.room.eq(reserved != _READY_BEATS)
        m.d.sync += reserved.eq(reserved + self.reserve - (ready_beats.r_rdy & ready_beats.r_en))

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

        special = Signal(config.floats)
        for i in range(config.floats):
            m.d.sync += special[i].eq(
                self.valid
                & Mux(self.wide, self.floats[i].exponent.all(), self.halves[i].exponent.all())
            )
        m.d.sync += self.nonfinite.eq(sum(special, Const(0, 1)))

        return m
