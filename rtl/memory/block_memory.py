"""Card memory in block RAM, for boards that have no other."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import fifo, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..config import Config
from ..delay import delayed
from ..interface.axi import AXI4ReadSignature, AXI4WriteSignature, ReadData, Response
from .ports import ByteAccessSignature

__all__ = ["BlockMemory"]

_READ_LATENCY = 2
"""Cycles from the choice of an address to its word: a register, and the block RAM's own."""

_READ_AHEAD = 8
"""Beats chosen and not yet taken: enough for a beat a cycle with the latency of memory and FIFO."""


class BlockMemory(wiring.Component):
    """Memory of `Config.memory_bytes` with a read and a write port, each a beat a cycle.

    Bursts of each kind are carried out one after the other. A byte access takes the place of a
    beat, and goes first: it costs a burst one cycle.

    The block RAMs lie all over a device that has no other memory. So addresses and words to write
    come to them out of registers, and words read go into a FIFO without anything between: there's a
    cycle's time for the way. A beat comes out of the FIFO 4 cycles after it was the next to read, a
    byte's answer 3 cycles after its request.

    Parameters
    ----------
    config
        Sets size and width.

    Attributes
    ----------
    read, write : In
        AXI4; bursts are INCR. An address outside gives DECERR: data read mean nothing, and nothing
        is written.
    access : In
        Single bytes.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "read": In(AXI4ReadSignature(config.beat_bits)),
                "write": In(AXI4WriteSignature(config.beat_bits)),
                "access": In(ByteAccessSignature()),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        beat_bytes = config.beat_bytes
        low, high = exact_log2(beat_bytes), exact_log2(config.memory_bytes)

        m.submodules.memory = memory = Memory(
            shape=unsigned(config.beat_bits), depth=config.memory_bytes // beat_bytes, init=[]
        )
        write_port, read_port = memory.write_port(granularity=8), memory.read_port()

        # A byte access: a write, or a read that takes its byte of a beat that the FIFO doesn't get.
        request, answer = self.access.request, self.access.answer
        inside = ~request.payload.address[high:].any()
        byte_address = request.payload.address[low:high]
        byte_read, byte_write = Signal(), Signal()
        byte_place = delayed(m, request.payload.address[:low], _READ_LATENCY)
        m.d.comb += [
            request.ready.eq(1),
            byte_read.eq(request.valid & ~request.payload.write),
            byte_write.eq(request.valid & request.payload.write & inside),
            answer.valid.eq(delayed(m, request.valid, _READ_LATENCY + 1, reset=True)),
            answer.error.eq(delayed(m, ~inside, _READ_LATENCY + 1)),
            answer.data.eq(delayed(m, read_port.data.word_select(byte_place, 8))),
        ]

        # Reads: only what the FIFO has room for.
        ar, r = self.read.ar, self.read.r
        read_address = Signal.like(byte_address)
        reading, reads_left = Signal(), Signal(9)
        read_error = Signal()
        next_beat = Signal()
        room = Signal(range(_READ_AHEAD + 1), init=_READ_AHEAD)
        layout = ReadData(config.beat_bits)
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=layout.size, depth=_READ_AHEAD)
        beat = Signal(layout)
        m.d.comb += [
            ar.ready.eq(~reading),
            next_beat.eq(reading & (room != 0) & ~byte_read),
            beat.data.eq(read_port.data),
            beat.last.eq(delayed(m, reads_left == 1, _READ_LATENCY)),
            beat.resp.eq(
                Mux(delayed(m, read_error, _READ_LATENCY), Response.DECERR, Response.OKAY)
            ),
            beats.w_data.eq(beat),
            beats.w_en.eq(delayed(m, next_beat, _READ_LATENCY, reset=True)),
            r.payload.eq(beats.r_data),
            r.valid.eq(beats.r_rdy),
            beats.r_en.eq(r.ready),
        ]
        m.d.sync += [
            read_port.addr.eq(Mux(byte_read, byte_address, read_address)),
            room.eq(room - next_beat + (r.valid & r.ready)),
        ]
        with m.If(next_beat):
            m.d.sync += [read_address.eq(read_address + 1), reads_left.eq(reads_left - 1)]
            with m.If(reads_left == 1):
                m.d.sync += reading.eq(0)
        with m.If(ar.valid & ar.ready):
            m.d.sync += [
                read_address.eq(ar.payload.addr[low:high]),
                read_error.eq(ar.payload.addr[high:].any()),
                reading.eq(1),
                reads_left.eq(ar.payload.len + 1),
            ]

        # Writes.
        aw, w, b = self.write.aw, self.write.w, self.write.b
        write_address = Signal.like(byte_address)
        writing, write_error = Signal(), Signal()
        take = Signal()
        m.d.comb += [
            aw.ready.eq(~writing & ~b.valid),
            w.ready.eq(writing & ~byte_write),
            take.eq(w.valid & w.ready),
        ]
        with m.If(aw.valid & aw.ready):
            m.d.sync += [
                writing.eq(1),
                write_address.eq(aw.payload.addr[low:high]),
                write_error.eq(aw.payload.addr[high:].any()),
            ]
        with m.If(b.ready):
            m.d.sync += b.valid.eq(0)
        with m.If(take):
            m.d.sync += write_address.eq(write_address + 1)
            with m.If(w.payload.last):
                m.d.sync += [
                    writing.eq(0),
                    b.valid.eq(1),
                    b.payload.resp.eq(Mux(write_error, Response.DECERR, Response.OKAY)),
                ]
        beat_enable = (take & w.payload.strb & ~write_error).replicate(beat_bytes)
        byte_enable = Cat(
            byte_write & (request.payload.address[:low] == place) for place in range(beat_bytes)
        )
        m.d.sync += [
            write_port.addr.eq(Mux(byte_write, byte_address, write_address)),
            write_port.data.eq(
                Mux(byte_write, request.payload.data.replicate(beat_bytes), w.payload.data)
            ),
            write_port.en.eq(Mux(byte_write, byte_enable, beat_enable)),
        ]
        return m
