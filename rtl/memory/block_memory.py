"""Card memory in block RAM, for boards that have no other."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..config import Config
from ..interface.axi import AXI4ReadSignature, AXI4WriteSignature, Response
from .ports import ByteAccessSignature

__all__ = ["BlockMemory"]


class BlockMemory(wiring.Component):
    """Memory of `Config.memory_bytes` with a read and a write port, each a beat a cycle.

    Bursts of each kind are carried out one after the other. A byte access takes the place of a
    beat, and goes first: it costs a burst one cycle.

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

        # A byte access: a write, or a read whose beat is there in the next cycle, or neither.
        request, answer = self.access.request, self.access.answer
        inside = ~request.payload.address[high:].any()
        byte_address = request.payload.address[low:high]
        byte_read, byte_write = Signal(), Signal()
        byte_place = Signal(low)
        may_read = Signal()
        m.d.comb += [
            byte_write.eq(request.valid & request.payload.write & inside),
            byte_read.eq(request.valid & ~request.payload.write & inside & may_read),
            request.ready.eq(~inside | request.payload.write | may_read),
            answer.data.eq(read_port.data.word_select(byte_place, 8)),
        ]
        m.d.sync += [
            answer.valid.eq(request.valid & request.ready),
            answer.error.eq(~inside),
            byte_place.eq(request.payload.address[:low]),
        ]

        # Reads: a beat stays at the memory's output until it is taken.
        ar, r = self.read.ar, self.read.r
        read_address = Signal.like(byte_address)
        reading, reads_left = Signal(), Signal(9)
        read_error = Signal()
        next_beat = Signal()
        m.d.comb += [
            may_read.eq(~r.valid | r.ready),
            next_beat.eq(reading & may_read & ~byte_read),
            ar.ready.eq(~reading),
            read_port.en.eq(next_beat | byte_read),
            read_port.addr.eq(Mux(byte_read, byte_address, read_address)),
            r.payload.data.eq(read_port.data),
        ]
        with m.If(r.ready):
            m.d.sync += r.valid.eq(0)
        with m.If(next_beat):
            m.d.sync += [
                r.valid.eq(1),
                r.payload.last.eq(reads_left == 1),
                r.payload.resp.eq(Mux(read_error, Response.DECERR, Response.OKAY)),
                read_address.eq(read_address + 1),
                reads_left.eq(reads_left - 1),
            ]
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
        m.d.comb += [
            write_port.addr.eq(Mux(byte_write, byte_address, write_address)),
            write_port.data.eq(
                Mux(byte_write, request.payload.data.replicate(beat_bytes), w.payload.data)
            ),
            write_port.en.eq(Mux(byte_write, byte_enable, beat_enable)),
        ]
        return m
