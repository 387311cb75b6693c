"""Which channel a burst belongs to, and the bursts on their way there."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Value, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import PAGE_BYTES, Config
from .axi import Address

__all__ = ["ChannelBursts", "channel_of"]

BURSTS = 32
"""Bursts that wait at a channel; LUTs that are memory take no less."""


def channel_of(config: Config, address: Value) -> Value:
    """Return the number of the channel that has the byte at `address` of the card."""
    page = exact_log2(PAGE_BYTES)
    return address[page : page + exact_log2(config.channels)]


class ChannelBursts(wiring.Component):
    """Queue of the bursts that a channel has yet to accept, with a latency of one cycle.

    Parameters
    ----------
    config
        Sets channels, beat width and the size of memory.

    Attributes
    ----------
    card : In(stream of Address)
        Bursts as the core has them: in this channel's pages, in memory, none across 4 KiB.
    channel : Out(stream of Address)
        The same bursts in the channel's own addresses, from 0 without gaps.
    """

    card: In(stream.Signature(Address))
    channel: Out(stream.Signature(Address))

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        beat, page = exact_log2(config.beat_bytes), exact_log2(PAGE_BYTES)
        row, end = page + exact_log2(config.channels), exact_log2(config.memory_bytes)

        # Only what differs between bursts is kept.
        burst = data.StructLayout({"beat": unsigned(end - row + page - beat), "len": unsigned(8)})
        m.submodules.queue = queue = fifo.SyncFIFO(width=burst.size, depth=BURSTS)
        given, kept = self.card.payload, burst(queue.r_data)
        m.d.comb += [
            queue.w_data.eq(Cat(given.addr[beat:page], given.addr[row:end], given.len)),
            queue.w_en.eq(self.card.valid),
            self.card.ready.eq(queue.w_rdy),
            self.channel.payload.addr.eq(Cat(Const(0, beat), kept.beat)),
            self.channel.payload.len.eq(kept.len),
            self.channel.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.channel.ready),
        ]
        return m
