"""Room for the beats of a master that may hold them up."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .axi import AXI4ReadSignature, ReadData

__all__ = ["ReadBuffer"]


class ReadBuffer(wiring.Component):
    """Asks memory only for what it has room for, and so takes whatever comes at once.

    Its master may hold its data up for as long as it likes (a load unit does whose beats go to an
    UPDATE that waits for its command), and never stands in the way of others at the same port.

    Parameters
    ----------
    config
        Sets beat width, and the room: as many beats as a `ReadDMA` has under way.

    Attributes
    ----------
    master : In(AXI4ReadSignature)
        Who wants the data.
    axi : Out(AXI4ReadSignature)
        The port; `r` is always ready.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4ReadSignature(config.beat_bits)
        super().__init__({"master": In(signature), "axi": Out(signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        room = self._config.outstanding_reads * self._config.burst_beats
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(
            width=ReadData(self._config.beat_bits).size, depth=room
        )
        wanted, given = self.master.ar, self.axi.ar
        length = wanted.payload.len + 1
        free = Signal(range(room + 1), init=room)
        fits = Signal()
        reserved = Signal(range(room + 1))
        m.d.comb += [
            fits.eq(wanted.payload.len < free),
            beats.w_data.eq(self.axi.r.payload),
            beats.w_en.eq(self.axi.r.valid),
            self.axi.r.ready.eq(1),
            self.master.r.payload.eq(beats.r_data),
            self.master.r.valid.eq(beats.r_rdy),
            beats.r_en.eq(self.master.r.ready),
        ]
        if self._config.decoupled_loads:
            m.d.comb += wanted.ready.eq(fits & ~given.valid)
            with m.If(given.ready):
                m.d.sync += given.valid.eq(0)
            with m.If(wanted.valid & wanted.ready):
                m.d.sync += [given.valid.eq(1), given.payload.eq(wanted.payload)]
        else:
            m.d.comb += [
                given.payload.eq(wanted.payload),
                given.valid.eq(wanted.valid & fits),
                wanted.ready.eq(given.ready & fits),
            ]
        with m.If(wanted.valid & wanted.ready):
            m.d.comb += reserved.eq(length)
        m.d.sync += free.eq(free - reserved + (beats.r_rdy & beats.r_en))
        return m
