"""Turns chunks along the rows of a tile into chunks along its columns."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..config import HALF_BITS, Config

__all__ = ["BlockTransposer"]


class BlockTransposer(wiring.Component):
    """Transposes blocks of M rows by G columns; one chunk of M values a cycle, never waiting.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    i : In(stream.Signature(ArrayLayout(HALF, M), always_ready=True))
        Row after row, the ``G / M`` chunks of each.
    o : Out(stream.Signature(ArrayLayout(HALF, M), always_ready=True))
        For each column of a block in turn its M values. Starts 2 cycles after the last chunk of
        the block, while the next block may arrive.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        chunk = data.ArrayLayout(HALF, config.group)
        super().__init__(
            {
                "i": In(stream.Signature(chunk, always_ready=True)),
                "o": Out(stream.Signature(chunk, always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size, chunks = self._config.group, self._config.chunks

        # Two halves, filled and read in turn; element i of a word is the chunk of row i.
        m.submodules.rows = rows = Memory(
            shape=data.ArrayLayout(unsigned(size * HALF_BITS), size), depth=2 * chunks, init=[]
        )
        write, read = rows.write_port(granularity=1), rows.read_port()

        fill_half, fill_row = Signal(), Signal(range(size))
        fill_chunk = Signal(range(chunks))
        filled = Signal()
        m.d.comb += [
            write.addr.eq(Cat(fill_chunk, fill_half)),
            write.en.eq(self.i.valid << fill_row),
            filled.eq(self.i.valid & fill_chunk.all() & fill_row.all()),
        ]
        for row in write.data:
            m.d.comb += row.eq(self.i.payload)
        with m.If(self.i.valid):
            m.d.sync += Cat(fill_chunk, fill_row, fill_half).eq(
                Cat(fill_chunk, fill_row, fill_half) + 1
            )

        # A block takes as many cycles to leave as it takes to arrive, at least.
        waiting = Signal(range(3))
        column, chunk, half = Signal(range(size)), Signal(range(chunks)), Signal()
        emptied = Signal()
        m.d.comb += [
            read.addr.eq(Cat(chunk, half)),
            read.en.eq(waiting != 0),
            emptied.eq(read.en & column.all() & chunk.all()),
        ]
        m.d.sync += waiting.eq(waiting + filled - emptied)
        with m.If(read.en):
            m.d.sync += Cat(column, chunk, half).eq(Cat(column, chunk, half) + 1)

        valid, selected = Signal(), Signal(range(size))
        m.d.sync += [valid.eq(read.en), selected.eq(column)]
        m.d.comb += self.o.valid.eq(valid)
        for value, row in zip(self.o.payload, read.data, strict=True):
            m.d.comb += value.eq(row.word_select(selected, HALF_BITS))

        return m
