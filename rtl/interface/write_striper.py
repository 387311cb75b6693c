"""Writes to striped memory: each burst to its channel, all answers in order."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from .axi import AXI4WriteSignature, WriteData
from .striping import BURSTS, ChannelBursts, channel_of

__all__ = ["WriteStriper"]


class WriteStriper(wiring.Component):
    """Writes to the channels over which memory is striped, as if they were one.

    One beat a cycle goes to the channel of its burst, where a page of beats may wait: while the
    core fills a page of one channel, the others write theirs. With n channels of 1/n of the core's
    bandwidth 1 - 1/n of a page waits at each. Up to `BURSTS` bursts are under way, and responses
    leave in their order, one a cycle.

    An address and a response take one cycle longer than without channels, a beat two.

    Parameters
    ----------
    config
        Sets channels, beat width and the size of memory.

    Attributes
    ----------
    core : In(AXI4WriteSignature)
        The master; its bursts are in memory, and none crosses 4 KiB. A beat is taken only after the
        address of its burst.
    channels : Out(array of AXI4WriteSignature)
        The channels.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4WriteSignature(config.beat_bits)
        super().__init__({"core": In(signature), "channels": Out(signature).array(config.channels)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        aw, w, b = self.core.aw, self.core.w, self.core.b

        # The channel of each burst, for its beats and for its response.
        numbers = range(config.channels)
        bits = exact_log2(config.channels)
        m.submodules.targets = targets = fifo.SyncFIFO(width=bits, depth=BURSTS)
        m.submodules.owners = owners = fifo.SyncFIFO(width=bits, depth=BURSTS)
        channel = channel_of(config, aw.payload.addr)
        # A burst leaves `owners` last: where there is room, there is everywhere.
        m.d.comb += aw.ready.eq(owners.w_rdy)
        for order in (targets, owners):
            m.d.comb += [order.w_data.eq(channel), order.w_en.eq(aw.valid & aw.ready)]
        m.d.comb += [
            targets.r_en.eq(w.valid & w.ready & w.payload.last),
            owners.r_en.eq(b.valid & b.ready),
        ]

        for i in numbers:
            outside = self.channels[i]
            m.submodules[f"bursts_{i}"] = bursts = ChannelBursts(config)
            wiring.connect(m, bursts.channel, wiring.flipped(outside.aw))
            m.d.comb += [
                bursts.card.payload.eq(aw.payload),
                bursts.card.valid.eq(aw.valid & aw.ready & (channel == i)),
            ]

            m.submodules[f"beats_{i}"] = beats = fifo.SyncFIFOBuffered(
                width=WriteData(config.beat_bits).size, depth=config.page_beats
            )
            is_target = targets.r_rdy & (targets.r_data == i)
            m.d.comb += [
                beats.w_data.eq(w.payload),
                beats.w_en.eq(w.valid & is_target),
                outside.w.payload.eq(beats.r_data),
                outside.w.valid.eq(beats.r_rdy),
                beats.r_en.eq(outside.w.ready),
            ]
            with m.If(is_target):
                m.d.comb += w.ready.eq(beats.w_rdy)

            m.submodules[f"responses_{i}"] = responses = fifo.SyncFIFO(
                width=len(b.payload.as_value()), depth=BURSTS
            )
            m.d.comb += [
                responses.w_data.eq(outside.b.payload),
                responses.w_en.eq(outside.b.valid),
                outside.b.ready.eq(1),
            ]
            with m.If(owners.r_rdy & (owners.r_data == i)):
                m.d.comb += [
                    b.payload.eq(responses.r_data),
                    b.valid.eq(responses.r_rdy),
                    responses.r_en.eq(b.ready),
                ]
        return m
