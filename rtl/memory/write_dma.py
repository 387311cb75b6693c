"""A stream of beats to memory, where strided descriptors say."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import Fault
from ..control.fault import FaultReport
from ..interface.axi import AXI4WriteSignature
from ..interface.write_arbiter import MASTER_BURSTS
from .burst import BurstGenerator
from .descriptor import Descriptor

__all__ = ["WriteDMA"]


class WriteDMA(wiring.Component):
    """Writes beats to where descriptors say, in their order.

    Addresses run ahead of the data by up to `MASTER_BURSTS` bursts that aren't acknowledged yet.
    The next descriptor is taken while the data of the one before are still awaited.

    A burst whose address is out can't be called back: after a fault or on `abort` the rest of its
    beats goes out with no byte enabled, so that memory keeps what it had.

    Parameters
    ----------
    config
        Sets beat width, burst length and the size of memory.

    Attributes
    ----------
    descriptor : In(stream of Descriptor)
        Where to write.
    data : In(stream of beats)
        What to write; exactly the beats that the descriptors name.
    axi : Out(AXI4WriteSignature)
        Memory.
    abort : In(1)
        Issue nothing more and end what is under way. Only a reset makes the unit usable again.
    fault : Out(FaultReport)
        ``MALFORMED``, ``ADDRESS_RANGE`` (both once all bursts before it are acknowledged) or
        ``WRITE_RESPONSE``, with the address of the descriptor or burst. Then acts as on `abort`.
    issued, acknowledged : Out(1)
        A burst more is issued; it's acknowledged, and neither it nor one before with an error.
    idle : Out(1)
        Every burst is acknowledged, and no descriptor is in work (or none will be until reset).
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "data": In(stream.Signature(unsigned(config.beat_bits))),
                "axi": Out(AXI4WriteSignature(config.beat_bits)),
                "abort": In(1),
                "fault": Out(FaultReport),
                "issued": Out(1),
                "acknowledged": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        beat_shift = exact_log2(config.beat_bytes)
        memory_shift = exact_log2(config.memory_bytes)

        stop = Signal()
        m.d.comb += stop.eq(self.abort | (self.fault.code != Fault.NONE))

        m.submodules.bursts = bursts = BurstGenerator(config, config.write_burst_beats)
        m.submodules.lengths = lengths = fifo.SyncFIFO(
            width=len(aw.payload.len), depth=MASTER_BURSTS
        )
        m.submodules.starts = starts = fifo.SyncFIFO(
            width=memory_shift - beat_shift, depth=MASTER_BURSTS
        )
        m.d.comb += [
            bursts.descriptor.payload.eq(self.descriptor.payload),
            bursts.descriptor.valid.eq(self.descriptor.valid),
            self.descriptor.ready.eq(bursts.descriptor.ready),
            bursts.halt.eq(stop),
        ]

        # A burst moves into a register, as a valid AW can't be withdrawn, and counts from there
        # until it's acknowledged.
        m.d.comb += bursts.burst.ready.eq((~aw.valid | aw.ready) & starts.w_rdy)
        issue = bursts.burst.valid & bursts.burst.ready
        m.d.comb += [
            self.issued.eq(issue),
            lengths.w_en.eq(issue),
            lengths.w_data.eq(bursts.burst.payload.len),
            starts.w_en.eq(issue),
            starts.w_data.eq(bursts.burst.payload.addr[beat_shift:memory_shift]),
        ]
        with m.If(issue):
            m.d.sync += [aw.payload.eq(bursts.burst.payload), aw.valid.eq(1)]
        with m.Elif(aw.ready):
            m.d.sync += aw.valid.eq(0)

        position = Signal.like(aw.payload.len)
        """Of the next beat within its burst."""
        last = position == lengths.r_data
        free = ~w.valid | w.ready
        fill = Signal()
        m.d.comb += [
            self.data.ready.eq(free & lengths.r_rdy & ~stop),
            fill.eq(free & lengths.r_rdy & (self.data.valid | stop)),
            lengths.r_en.eq(fill & last),
        ]
        with m.If(fill):
            m.d.sync += [
                w.payload.data.eq(self.data.payload),
                w.payload.strb.eq(~stop),
                w.payload.last.eq(last),
                w.valid.eq(1),
                position.eq(position + 1),
            ]
            with m.If(last):
                m.d.sync += position.eq(0)
        with m.Elif(w.ready):
            m.d.sync += w.valid.eq(0)

        failed = b.payload.resp.as_value()[1]
        m.d.comb += [
            b.ready.eq(1),
            starts.r_en.eq(b.valid),
            self.acknowledged.eq(b.valid & ~failed & ~stop),
            self.idle.eq((bursts.idle | stop) & ~starts.r_rdy),
        ]

        with m.If(~stop):
            with m.If(b.valid & failed):
                m.d.sync += [
                    self.fault.code.eq(Fault.WRITE_RESPONSE),
                    self.fault.address.eq(Cat(Const(0, beat_shift), starts.r_data)),
                ]
            with m.Elif(~starts.r_rdy):
                m.d.sync += self.fault.eq(bursts.fault)

        return m
