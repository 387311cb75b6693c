"""Assembles the entries of compressed chunks into tiles as they lie in memory."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..config import HALF_BITS, INDEX_SLOT_BITS, Config
from .pattern import Pattern, supported_patterns
from .reducer import ChunkEntries

__all__ = ["ChunkOrder", "TilePacker"]

_BEATS_PER_INDEX_BEAT = HALF_BITS // INDEX_SLOT_BITS


class ChunkOrder(enum.Enum, shape=1):
    """Order in which the chunks of a tile arrive."""

    ROW_MAJOR = 0
    """All chunks of one row before those of the next."""
    CHUNK_MAJOR = 1
    """The first chunk of every row, then the second of every row, and so on."""


class TilePacker(wiring.Component):
    """Builds S tiles of G rows by one D word; `width` chunks a cycle in, one beat a cycle out.

    Holds two tiles: one can be filled while the other leaves.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    order
        Order of the chunks that arrive.
    width
        Neighbouring chunks of a row that arrive together and take the place of one in `order`; a
        power of two.

    Attributes
    ----------
    pattern : In(Pattern)
        Pattern of the tiles; like `rows` constant from a tile's first chunk to its last beat.
    rows : In(range(G + 1))
        Rows in a tile: G, or from 1 to G if dense.
    free : Out(1)
        A tile may begin.
    begin : In(1)
        A tile begins, while `free`: takes one of the two buffers.
    i : In(stream.Signature(array of ChunkEntries(config), always_ready=True))
        Chunks of the tiles that have begun.
    complete : Out(1)
        High for a cycle as the last chunk of a tile arrives.
    o : Out(stream.Signature(unsigned(beat_bits)))
        Beats of complete tiles in the order of memory; the first is there 2 cycles after
        `complete` at the earliest.
    beats : Out(range(G + 1))
        Beats in a tile of this pattern and number of rows.
    """

    def __init__(self, config: Config, order: ChunkOrder, width: int = 1) -> None:
        self._config = config
        self._order = order
        self._width = width
        chunks = data.ArrayLayout(ChunkEntries(config), width)
        super().__init__(
            {
                "pattern": In(Pattern),
                "rows": In(range(config.elements + 1)),
                "free": Out(1),
                "begin": In(1),
                "i": In(stream.Signature(chunks, always_ready=True)),
                "complete": Out(1),
                "o": Out(stream.Signature(unsigned(config.beat_bits))),
                "beats": Out(range(config.elements + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        patterns = supported_patterns(config)
        sparse = Signal()
        m.d.comb += sparse.eq(self.pattern != Pattern.DENSE)

        # Position of what arrives, in units of `width` chunks along the row.
        width = self._width
        positions = config.chunks // width
        row, chunk = Signal(range(config.elements)), Signal(range(positions))
        last_row, last_chunk = Signal(), Signal()
        m.d.comb += [
            last_row.eq(row == self.rows - 1),
            last_chunk.eq(chunk == positions - 1),
            self.complete.eq(self.i.valid & last_row & last_chunk),
        ]
        next_row, next_chunk = Mux(last_row, 0, row + 1), Mux(last_chunk, 0, chunk + 1)
        with m.If(self.i.valid):
            if self._order is ChunkOrder.ROW_MAJOR:
                m.d.sync += chunk.eq(next_chunk)
                with m.If(last_chunk):
                    m.d.sync += row.eq(next_row)
            else:
                m.d.sync += row.eq(next_row)
                with m.If(last_row):
                    m.d.sync += chunk.eq(next_chunk)

        # Buffers: `taken` of two have begun, `waiting` of these are complete and not read yet.
        fill_buffer, read_buffer = Signal(), Signal()
        taken, waiting = Signal(range(3)), Signal(range(3))
        emptied = Signal()
        m.d.comb += self.free.eq(taken != 2)
        m.d.sync += [
            taken.eq(taken + self.begin - emptied),
            waiting.eq(waiting + self.complete - emptied),
            fill_buffer.eq(fill_buffer ^ self.complete),
            read_buffer.eq(read_buffer ^ emptied),
        ]

        # A chunk goes to one value beat, in granules of as many values as it has lanes; neighbours
        # go to the same one.
        lanes = config.lanes_per_chunk
        granules = config.elements // lanes
        m.submodules.values = values = Memory(
            shape=data.ArrayLayout(data.ArrayLayout(HALF, lanes), granules),
            depth=2 * config.elements,
            init=[],
        )
        index_granules = data.ArrayLayout(
            data.ArrayLayout(unsigned(INDEX_SLOT_BITS), lanes), granules
        )
        index_beats = max(pattern.index_beats(config) for pattern in patterns)
        m.submodules.indices = indices = Memory(
            shape=data.ArrayLayout(index_granules.elem_shape, _BEATS_PER_INDEX_BEAT * granules),
            depth=2 * index_beats,
            init=[],
        )
        value_write = values.write_port(granularity=1)
        index_write = indices.write_port(granularity=1)

        entries = [self._padded(m, index) for index in range(width)]
        value_beat = Signal(range(config.elements))
        index_beat = value_beat // _BEATS_PER_INDEX_BEAT
        described = value_beat % _BEATS_PER_INDEX_BEAT
        granule_indices = Signal(index_granules)
        m.d.comb += [
            value_write.addr.eq(Cat(value_beat, fill_buffer)),
            index_write.addr.eq(_in_buffer(index_beat, index_beats, fill_buffer)),
            index_write.data.eq(granule_indices.as_value().replicate(_BEATS_PER_INDEX_BEAT)),
        ]
        with m.If(sparse):
            for place in range(_BEATS_PER_INDEX_BEAT):
                with m.If(described == place):
                    m.d.comb += index_write.en.word_select(place, granules).eq(value_write.en)
        with m.Switch(self.pattern):
            for steps in sorted({pattern.steps(config) for pattern in patterns[1:]}):
                with m.Case(*(p for p in patterns[1:] if p.steps(config) == steps)):
                    rows_per_beat = config.ratio // steps
                    place = row % rows_per_beat
                    m.d.comb += value_beat.eq(row // rows_per_beat)
                    for granule in range(granules):
                        quarter, column = divmod(granule, config.chunks)
                        position, index = divmod(column, width)
                        here = (chunk == position) & (place == quarter // steps)
                        m.d.comb += [
                            value_write.en[granule].eq(self.i.valid & here),
                            *_fill(
                                value_write.data[granule],
                                granule_indices[granule],
                                entries[index][lanes * (quarter % steps) :][:lanes],
                            ),
                        ]
            with m.Default():
                m.d.comb += value_beat.eq(row)
                for granule in range(granules):
                    column, part = divmod(granule, config.ratio)
                    position, index = divmod(column, width)
                    m.d.comb += [
                        value_write.en[granule].eq(self.i.valid & (chunk == position)),
                        *_fill(
                            value_write.data[granule],
                            granule_indices[granule],
                            entries[index][lanes * part :][:lanes],
                        ),
                    ]

        # Read a complete tile: before every four value beats of a sparse one their index beat.
        value_read, index_read = values.read_port(), indices.read_port()
        last_beat = Signal(range(config.elements))
        with m.Switch(self.pattern):
            for pattern in patterns[1:]:
                with m.Case(pattern):
                    m.d.comb += [
                        last_beat.eq(pattern.value_beats(config) - 1),
                        self.beats.eq(pattern.tile_beats(config)),
                    ]
            with m.Default():
                m.d.comb += [last_beat.eq(self.rows - 1), self.beats.eq(self.rows)]

        beat = Signal(range(config.elements))
        group_described = Signal()
        index_turn, reads = Signal(), Signal()
        m.d.comb += [
            index_turn.eq(sparse & ~(beat % _BEATS_PER_INDEX_BEAT).any() & ~group_described),
            reads.eq((waiting != 0) & (~self.o.valid | self.o.ready)),
            emptied.eq(reads & ~index_turn & (beat == last_beat)),
            value_read.addr.eq(Cat(beat, read_buffer)),
            value_read.en.eq(reads & ~index_turn),
            index_read.addr.eq(_in_buffer(beat // _BEATS_PER_INDEX_BEAT, index_beats, read_buffer)),
            index_read.en.eq(reads & index_turn),
        ]
        with m.If(reads):
            m.d.sync += group_described.eq(index_turn)
            with m.If(~index_turn):
                m.d.sync += beat.eq(Mux(emptied, 0, beat + 1))

        valid, index_read_last = Signal(), Signal()
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [valid.eq(reads), index_read_last.eq(index_turn)]
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.payload.eq(Mux(index_read_last, index_read.data, value_read.data)),
        ]

        return m

    def _padded(self, m: Module, chunk: int) -> list[Any]:
        """Return the entries of a chunk that arrives, zeros where it has fewer than lanes."""
        config = self._config
        entries = Signal(ChunkEntries(config), name=f"entries_{chunk}")
        m.d.comb += entries.eq(self.i.payload[chunk])
        with m.Switch(self.pattern):
            for pattern in supported_patterns(config):
                kept = pattern.entries_per_chunk(config)
                if kept < config.lanes_per_chunk:
                    with m.Case(pattern):
                        for entry in range(kept, config.lanes_per_chunk):
                            m.d.comb += entries[entry].eq(0)
        return list(entries)


def _fill(values: Any, indices: Any, entries: list[Any]) -> list[Any]:
    """Return the assignments of `entries` to a granule of `values` and one of `indices`."""
    return [
        assignment
        for value, index, entry in zip(values, indices, entries, strict=True)
        for assignment in (value.eq(entry.value), index.eq(entry.index))
    ]


def _in_buffer(address: Value, depth: int, buffer: Value) -> Value:
    """Return `address` within one of two buffers of `depth` (a power of two) words."""
    return Cat(address[: depth.bit_length() - 1], buffer)
