"""Strided descriptors to a stream of beats from memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import Fault
from ..control.fault import FaultReport
from ..interface.axi import AXI4ReadSignature
from .burst import BurstGenerator
from .descriptor import Descriptor

__all__ = ["ReadDMA"]


class ReadDMA(wiring.Component):
    """Reads what descriptors name, in their order.

    Up to ``outstanding_reads * burst_beats`` beats are under way, however short their bursts; an
    address is issued every cycle while there is room. The next descriptor is taken while the data
    of the one before are still under way. `data` is the R channel itself: a consumer that stalls,
    stalls the bus.

    Every fault is precise: it's reported when all beats before it have been handed over.

    Parameters
    ----------
    config
        Sets beat width, burst length, beats under way and the size of memory.

    Attributes
    ----------
    descriptor : In(stream of Descriptor)
        What to read.
    data : Out(stream of beats)
        The beats.
    axi : Out(AXI4ReadSignature)
        Memory.
    abort : In(1)
        Issue nothing more and throw away what arrives. Only a reset makes the unit usable again.
    fault : Out(FaultReport)
        ``MALFORMED``, ``ADDRESS_RANGE`` or ``READ_RESPONSE``, with the address of the descriptor or
        burst. Then acts as on `abort`.
    idle : Out(1)
        No burst is under way.
    beat : Out(1)
        A beat is taken from the bus in this cycle.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "data": Out(stream.Signature(unsigned(config.beat_bits))),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
                "abort": In(1),
                "fault": Out(FaultReport),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        ar, r = self.axi.ar, self.axi.r
        most = config.outstanding_reads * config.burst_beats
        beat_shift = exact_log2(config.beat_bytes)
        memory_shift = exact_log2(config.memory_bytes)

        stop = Signal()
        m.d.comb += stop.eq(self.abort | (self.fault.code != Fault.NONE))

        m.submodules.bursts = bursts = BurstGenerator(config, config.burst_beats)
        m.submodules.starts = starts = fifo.SyncFIFOBuffered(
            width=memory_shift - beat_shift, depth=most
        )
        m.d.comb += [
            bursts.descriptor.payload.eq(self.descriptor.payload),
            bursts.descriptor.valid.eq(self.descriptor.valid),
            self.descriptor.ready.eq(bursts.descriptor.ready),
            bursts.halt.eq(stop),
        ]

        # A burst moves into a register, as a valid AR can't be withdrawn, and counts from there.
        under_way = Signal(range(most + 1))
        """Beats."""
        length = bursts.burst.payload.len + 1
        m.d.comb += bursts.burst.ready.eq(
            (~ar.valid | ar.ready) & (under_way + length <= most) & starts.w_rdy
        )
        issue = bursts.burst.valid & bursts.burst.ready
        m.d.comb += [
            starts.w_en.eq(issue),
            starts.w_data.eq(bursts.burst.payload.addr[beat_shift:memory_shift]),
            starts.r_en.eq(self.beat & r.payload.last),
            self.idle.eq(under_way == 0),
        ]
        with m.If(issue):
            m.d.sync += [ar.payload.eq(bursts.burst.payload), ar.valid.eq(1)]
        with m.Elif(ar.ready):
            m.d.sync += ar.valid.eq(0)
        m.d.sync += under_way.eq(under_way + Mux(issue, length, 0) - self.beat)

        bad = r.payload.resp.as_value()[1]
        m.d.comb += [
            self.data.payload.eq(r.payload.data),
            self.data.valid.eq(r.valid & ~bad & ~stop),
            r.ready.eq(self.data.ready | bad | stop),
            self.beat.eq(r.valid & r.ready),
        ]

        with m.If(~stop):
            with m.If(r.valid & bad):
                m.d.sync += [
                    self.fault.code.eq(Fault.READ_RESPONSE),
                    self.fault.address.eq(Cat(Const(0, beat_shift), starts.r_data)),
                ]
            with m.Elif(under_way == 0):
                m.d.sync += self.fault.eq(bursts.fault)

        return m
