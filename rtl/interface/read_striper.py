"""Reads of striped memory: each burst from its channel, all answers in order."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from .axi import AXI4ReadSignature, Response
from .striping import ChannelBursts, channel_of

__all__ = ["ReadStriper"]

BEATS = 512
"""Room for beats, which is the depth of a block RAM at its full width."""


class ReadStriper(wiring.Component):
    """Reads from the channels over which memory is striped, as if they were one.

    A burst goes to the channel of its page once there is room for all its beats here, so that no
    channel ever waits for another. Beats arrive in one buffer, one a cycle, those of the burst
    whose turn it is first; they leave in the order of the bursts, one a cycle. What a burst gets,
    errors included, is what its channel answers.

    Of the `BEATS` beats of the buffer each channel has its share: at least a page, and with beats
    of 64 bytes and more two. While the core takes a page from one channel, each of n channels with
    1/n of its bandwidth gathers 1 - 1/n of a page, and the rest covers latency.

    An address takes one cycle longer than without channels, a beat two.

    Parameters
    ----------
    config
        Sets channels, beat width and the size of memory.

    Attributes
    ----------
    core : In(AXI4ReadSignature)
        The master; its bursts are in memory, and none crosses 4 KiB. It may hold its data up.
    channels : Out(array of AXI4ReadSignature)
        The channels.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4ReadSignature(config.beat_bits)
        super().__init__({"core": In(signature), "channels": Out(signature).array(config.channels)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        numbers = range(config.channels)
        room = BEATS // config.channels
        pointer = unsigned(exact_log2(room) + 1)
        written = [Signal(pointer, name=f"written_{i}") for i in numbers]
        taken = [Signal(pointer, name=f"taken_{i}") for i in numbers]
        """Beats of each channel that came and went; both stand at places of its share."""
        free = [Signal(range(room + 1), init=room, name=f"free_{i}") for i in numbers]

        # Bursts to their channels, and the order of their answers. That never runs out of room, as
        # it has as much for bursts as there is for beats.
        turn_layout = data.StructLayout({"channel": numbers, "len": unsigned(8)})
        m.submodules.turns = turns = fifo.SyncFIFOBuffered(width=turn_layout.size, depth=BEATS)
        ar = self.core.ar
        target = channel_of(config, ar.payload.addr)
        length = ar.payload.len + 1
        reserved = [Signal(range(room + 1), name=f"reserved_{i}") for i in numbers]
        for i in numbers:
            m.submodules[f"bursts_{i}"] = bursts = ChannelBursts(config)
            wiring.connect(m, bursts.channel, wiring.flipped(self.channels[i].ar))
            m.d.comb += bursts.card.payload.eq(ar.payload)
            with m.If(target == i):
                m.d.comb += ar.ready.eq(bursts.card.ready & (length <= free[i]))
            with m.If(ar.valid & ar.ready & (target == i)):
                m.d.comb += [bursts.card.valid.eq(1), reserved[i].eq(length)]
        m.d.comb += [
            turns.w_data.eq(Cat(target, ar.payload.len)),
            turns.w_en.eq(ar.valid & ar.ready),
        ]
        turn = turn_layout(turns.r_data)

        # Beats into the buffer, those of the burst whose turn it is before those of others.
        beat_layout = data.StructLayout({"data": unsigned(config.beat_bits), "resp": Response})
        m.submodules.beats = beats = Memory(shape=beat_layout, depth=BEATS, init=[])
        write_port, read_port = beats.write_port(), beats.read_port()
        source = Signal(numbers)
        valid = Cat(channel.r.valid for channel in self.channels)
        for i in reversed(numbers):
            with m.If(valid[i]):
                m.d.comb += source.eq(i)
        with m.If(valid.bit_select(turn.channel, 1)):
            m.d.comb += source.eq(turn.channel)
        with m.Switch(source):
            for i in numbers:
                r = self.channels[i].r
                with m.Case(i):
                    m.d.comb += [
                        r.ready.eq(1),
                        write_port.addr.eq(Cat(written[i][:-1], source)),
                        write_port.data.data.eq(r.payload.data),
                        write_port.data.resp.eq(r.payload.resp),
                        write_port.en.eq(r.valid),
                    ]
                    m.d.sync += written[i].eq(written[i] + r.valid)

        # Beats out of it.
        r = self.core.r
        step, take, last = Signal(), Signal(), Signal()
        position = Signal(8)
        """Of the next beat within its burst."""
        arrived = Signal()
        m.d.comb += [
            step.eq(~r.valid | r.ready),
            take.eq(step & turns.r_rdy & arrived),
            last.eq(position == turn.len),
            turns.r_en.eq(take & last),
            read_port.en.eq(take),
            r.payload.data.eq(read_port.data.data),
            r.payload.resp.eq(read_port.data.resp),
        ]
        with m.Switch(turn.channel):
            for i in numbers:
                with m.Case(i):
                    m.d.comb += [
                        arrived.eq(written[i] != taken[i]),
                        read_port.addr.eq(Cat(taken[i][:-1], turn.channel)),
                    ]
                    m.d.sync += taken[i].eq(taken[i] + take)
        with m.If(step):
            m.d.sync += [r.valid.eq(take), r.payload.last.eq(last)]
        with m.If(take):
            m.d.sync += position.eq(Mux(last, 0, position + 1))
        for i in numbers:
            m.d.sync += free[i].eq(free[i] - reserved[i] + (take & (turn.channel == i)))
        return m
