"""Shares one AXI write port between the store queue and the vector queue."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from .axi import AXI4WriteSignature, WriteData

__all__ = ["MASTER_BURSTS", "WriteArbiter"]

MASTER_BURSTS = 32
"""Bursts of a master that aren't acknowledged yet; LUTs that are memory take no less."""


class WriteArbiter(wiring.Component):
    """Write port shared by two masters, without IDs: bursts are acknowledged in their order.

    A burst leaves once all its beats are here, so that whoever has the port never waits for beats:
    neither master can hold the other up, whatever its own beats wait for. The two take turns if
    both have a burst. There is room for the beats of two bursts of each, so that a master alone has
    a beat a cycle.

    The last beat of a burst leaves as many cycles after it came as the burst has beats, and three.

    Parameters
    ----------
    config
        Sets beat width, burst length and the size of memory.

    Attributes
    ----------
    store, vector : In(AXI4WriteSignature)
        The masters. Bursts have at most ``config.write_burst_beats`` beats and are in memory, and
        each master has no more than `MASTER_BURSTS` under way.
    axi : Out(AXI4WriteSignature)
        The shared port.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4WriteSignature(config.beat_bits)
        super().__init__({"store": In(signature), "vector": In(signature), "axi": Out(signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        masters = (self.store, self.vector)
        beat, end = exact_log2(config.beat_bytes), exact_log2(config.memory_bytes)
        room = 2 * config.write_burst_beats

        # Who has a burst that is complete, and whose is sent next: as the one before ends.
        complete = Signal(len(masters))
        sending, turn = Signal(), Signal()
        grant, chosen = Signal(), Signal()
        m.d.comb += [
            chosen.eq(Mux(complete.all(), ~turn, complete[1])),
            grant.eq(
                complete.any()
                & (~sending | (w.valid & w.ready & w.payload.last))
                & (~aw.valid | aw.ready)
            ),
        ]
        with m.If(grant):
            m.d.sync += [sending.eq(1), turn.eq(chosen)]
        with m.Elif(w.valid & w.ready & w.payload.last):
            m.d.sync += sending.eq(0)

        # Who is acknowledged next; there's room for all bursts under way.
        m.submodules.owners = owners = fifo.SyncFIFO(width=1, depth=len(masters) * MASTER_BURSTS)
        m.d.comb += [
            owners.w_data.eq(chosen),
            owners.w_en.eq(grant),
            owners.r_en.eq(b.valid & b.ready),
        ]

        with m.If(grant):
            m.d.sync += aw.valid.eq(1)
        with m.Elif(aw.ready):
            m.d.sync += aw.valid.eq(0)

        # Only what differs between addresses is kept.
        burst_shape = data.StructLayout(
            {"beat": unsigned(end - beat), "len": range(config.write_burst_beats)}
        )
        for i, master in enumerate(masters):
            name = ("store", "vector")[i]
            m.submodules[f"{name}_bursts"] = bursts = fifo.SyncFIFO(
                width=burst_shape.size, depth=MASTER_BURSTS
            )
            m.submodules[f"{name}_beats"] = beats = fifo.SyncFIFOBuffered(
                width=WriteData(config.beat_bits).size, depth=room
            )
            given, kept = master.aw.payload, burst_shape(bursts.r_data)
            ended = Signal(range(room + 1), name=f"{name}_ended")
            ends = master.w.valid & master.w.ready & master.w.payload.last
            granted = grant & (chosen == i)
            m.d.sync += ended.eq(ended + ends - granted)
            m.d.comb += [
                bursts.w_data.eq(Cat(given.addr[beat:end], given.len[: len(kept.len)])),
                bursts.w_en.eq(master.aw.valid),
                master.aw.ready.eq(bursts.w_rdy),
                bursts.r_en.eq(granted),
                beats.w_data.eq(master.w.payload),
                beats.w_en.eq(master.w.valid),
                master.w.ready.eq(beats.w_rdy),
                complete[i].eq((ended != 0) & bursts.r_rdy),
                master.b.payload.eq(b.payload),
            ]
            with m.If(granted):
                m.d.sync += [
                    aw.payload.addr.eq(Cat(Const(0, beat), kept.beat)),
                    aw.payload.len.eq(kept.len),
                ]
            with m.If(turn == i):
                m.d.comb += [
                    w.payload.eq(beats.r_data),
                    w.valid.eq(sending & beats.r_rdy),
                    beats.r_en.eq(sending & w.ready),
                ]
            with m.If(owners.r_data == i):
                m.d.comb += [
                    master.b.valid.eq(b.valid & owners.r_rdy),
                    b.ready.eq(owners.r_rdy & master.b.ready),
                ]
        return m
