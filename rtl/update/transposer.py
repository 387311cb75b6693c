"""Turn chunks along the rows of a tile into chunks along its columns."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..config import HALF_BITS, Config

__all__ = ["BlockTransposer", "ElementTransposer"]


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


class ElementTransposer(wiring.Component):
    """The same as `BlockTransposer` for elements that arrive one by one; in one block RAM.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    i : In(stream.Signature(HALF, always_ready=True))
        Row after row, the G elements of each.
    o : Out(stream.Signature(ArrayLayout(HALF, M), always_ready=True))
        For each column of a block of M rows in turn its M values, one every M cycles. Starts M + 1
        cycles after the last element of the block, while the next block may arrive.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        chunk = data.ArrayLayout(HALF, config.group)
        super().__init__(
            {
                "i": In(stream.Signature(HALF, always_ready=True)),
                "o": Out(stream.Signature(chunk, always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size, columns = self._config.group, self._config.elements

        # Two halves, filled and read in turn, each with column after column.
        m.submodules.elements = elements = Memory(
            shape=unsigned(HALF_BITS), depth=2 * size * columns, init=[]
        )
        write, read = elements.write_port(), elements.read_port()

        fill_column, fill_row, fill_half = Signal(range(columns)), Signal(range(size)), Signal()
        filled = Signal()
        m.d.comb += [
            write.addr.eq(Cat(fill_row, fill_column, fill_half)),
            write.data.eq(self.i.payload),
            write.en.eq(self.i.valid),
            filled.eq(self.i.valid & fill_column.all() & fill_row.all()),
        ]
        with m.If(self.i.valid):
            m.d.sync += Cat(fill_column, fill_row, fill_half).eq(
                Cat(fill_column, fill_row, fill_half) + 1
            )

        # A block takes as many cycles to leave as it takes to arrive, at least.
        waiting = Signal(range(3))
        row, column, half = Signal(range(size)), Signal(range(columns)), Signal()
        emptied = Signal()
        m.d.comb += [
            read.addr.eq(Cat(row, column, half)),
            read.en.eq(waiting != 0),
            emptied.eq(read.en & row.all() & column.all()),
        ]
        m.d.sync += waiting.eq(waiting + filled - emptied)
        with m.If(read.en):
            m.d.sync += Cat(row, column, half).eq(Cat(row, column, half) + 1)

        # Each element joins those above it.
        earlier = Signal(HALF_BITS * (size - 1), reset_less=True)
        joined = Cat(earlier, read.data)
        arrived, complete = Signal(), Signal()
        m.d.sync += [arrived.eq(read.en), complete.eq(read.en & row.all())]
        with m.If(arrived):
            m.d.sync += earlier.eq(joined[HALF_BITS:])
        m.d.comb += [self.o.valid.eq(complete), self.o.payload.eq(joined)]
        return m
