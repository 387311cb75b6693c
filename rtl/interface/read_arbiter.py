"""Shares one AXI read port between the load unit and the command fetch."""

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .axi import Address, AXI4ReadSignature, ReadData

__all__ = ["ReadArbiter"]


class ReadArbiter(wiring.Component):
    """Read port shared by two masters, without IDs: bursts are answered in the order of issue.

    The load unit may hold its data up for as long as it likes (an UPDATE that waits for its command
    does). So that this never stands in the way of the command it waits for, its bursts are issued
    only when there is room here for all their beats. The fetch must take its data at once.

    Attributes
    ----------
    load, fetch : In
        The masters; fetch goes first.
    axi : Out
        The shared port.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4ReadSignature(config.beat_bits)
        super().__init__({"load": In(signature), "fetch": In(signature), "axi": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        room = self._config.outstanding_reads * self._config.burst_beats
        m.submodules.owners = owners = fifo.SyncFIFOBuffered(width=1, depth=room)
        m.submodules.loaded = loaded = fifo.SyncFIFOBuffered(
            width=ReadData(self._config.beat_bits).size, depth=room
        )

        # An address, once offered, must stay: it is chosen into a register.
        chosen = Signal(Address)
        is_chosen = Signal()
        free = Signal(range(room + 1), init=room)
        reserved = Signal(range(room + 1))
        load_beats = self.load.ar.payload.len + 1
        m.d.comb += [
            self.axi.ar.payload.eq(chosen),
            self.axi.ar.valid.eq(is_chosen),
        ]
        with m.If(self.axi.ar.ready):
            m.d.sync += is_chosen.eq(0)
        with m.If((~is_chosen | self.axi.ar.ready) & owners.w_rdy):
            with m.If(self.fetch.ar.valid):
                m.d.comb += [
                    self.fetch.ar.ready.eq(1),
                    owners.w_en.eq(1),
                    owners.w_data.eq(0),
                ]
                m.d.sync += [chosen.eq(self.fetch.ar.payload), is_chosen.eq(1)]
            with m.Elif(self.load.ar.valid & (load_beats <= free)):
                m.d.comb += [
                    self.load.ar.ready.eq(1),
                    owners.w_en.eq(1),
                    owners.w_data.eq(1),
                    reserved.eq(load_beats),
                ]
                m.d.sync += [chosen.eq(self.load.ar.payload), is_chosen.eq(1)]
        m.d.sync += free.eq(free - reserved + (loaded.r_en & loaded.r_rdy))

        r = self.axi.r
        is_load = owners.r_data[0]
        m.d.comb += [
            loaded.w_data.eq(r.payload),
            loaded.w_en.eq(r.valid & owners.r_rdy & is_load),
            self.fetch.r.payload.eq(r.payload),
            self.fetch.r.valid.eq(r.valid & owners.r_rdy & ~is_load),
            r.ready.eq(owners.r_rdy & (is_load | self.fetch.r.ready)),
            owners.r_en.eq(r.valid & r.ready & r.payload.last),
            self.load.r.payload.eq(loaded.r_data),
            self.load.r.valid.eq(loaded.r_rdy),
            loaded.r_en.eq(self.load.r.ready),
        ]
        return m
