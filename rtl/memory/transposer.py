"""Transposition of G by G matrices of binary16 values."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import HALF_BITS, Config

__all__ = ["Transposer"]


class Transposer(wiring.Component):
    """Beat ``i`` of the G that leave holds element ``i`` of each of the G that came in.

    Element ``e`` of beat ``p`` is kept in bank ``(e + p) % G`` at address ``p``, so that a row and
    a column of the matrix both take one element of each bank. Two matrices fit: one beat a cycle
    comes in and one leaves. The first beat leaves 3 cycles after its matrix's last one came in.

    Parameters
    ----------
    config
        Sets G.

    Attributes
    ----------
    i : In(stream of beats)
        G beats to a matrix.
    o : Out(stream of beats)
        G beats to a transposed matrix.
    empty : Out(1)
        No beat of a complete matrix waits to leave.
    """

    def __init__(self, config: Config) -> None:
        self._size = config.elements
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(config.beat_bits))),
                "o": Out(stream.Signature(unsigned(config.beat_bits))),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        size = self._size
        position_bits = exact_log2(size)
        vector = data.ArrayLayout(unsigned(HALF_BITS), size)

        full = Signal(2)
        """Which of the two matrices is complete."""

        # In: rotate each beat by its position and spread it over the banks.
        write_address = Signal(1 + position_bits)
        write_position, write_half = write_address[:-1], write_address[-1]
        write = Signal()
        m.d.comb += [
            self.i.ready.eq(~full.bit_select(write_half, 1)),
            write.eq(self.i.valid & self.i.ready),
        ]
        spread = _rotate(m, data.View(vector, self.i.payload), write_position)
        with m.If(write):
            m.d.sync += write_address.eq(write_address + 1)
            with m.If(write_position.all()):
                m.d.sync += full.bit_select(write_half, 1).eq(1)

        # Out: bank k has element i of beat (k - i) % G.
        read_address = Signal(1 + position_bits)
        read_position, read_half = read_address[:-1], read_address[-1]
        fetched = Signal()
        fetched_position = Signal(position_bits)
        advance = Signal()
        read = Signal()
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            read.eq(advance & full.bit_select(read_half, 1)),
        ]
        with m.If(read):
            m.d.sync += read_address.eq(read_address + 1)
            with m.If(read_position.all()):
                m.d.sync += full.bit_select(read_half, 1).eq(0)

        column = Signal(vector)
        for k in range(size):
            bank = Memory(shape=unsigned(HALF_BITS), depth=2 * size, init=[])
            m.submodules[f"bank_{k}"] = bank
            write_port, read_port = bank.write_port(), bank.read_port()
            m.d.comb += [
                write_port.addr.eq(write_address),
                write_port.data.eq(spread[k]),
                write_port.en.eq(write),
                read_port.addr.eq(Cat((k - read_position)[:position_bits], read_half)),
                read_port.en.eq(advance),
                column[k].eq(read_port.data),
            ]

        gathered = _rotate(m, column, (-fetched_position)[:position_bits])
        with m.If(advance):
            m.d.sync += [
                fetched.eq(read),
                fetched_position.eq(read_position),
                self.o.payload.eq(gathered),
                self.o.valid.eq(fetched),
            ]
        m.d.comb += self.empty.eq(~full.any() & ~fetched & ~self.o.valid)

        return m


def _rotate(m: Module, vector: Any, places: Any) -> Any:
    """Return `vector` with element ``e`` at ``(e + places) % len(vector)``."""
    size = len(vector)
    for stage in range(exact_log2(size)):
        rotated = Signal.like(vector, name=f"rotated_{1 << stage}")
        for e in range(size):
            source = (e - (1 << stage)) % size
            m.d.comb += rotated[e].eq(Mux(places[stage], vector[source], vector[e]))
        vector = rotated
    return vector
