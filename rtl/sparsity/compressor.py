"""From dense rows to compressed tiles as they lie in memory."""

from typing import Any

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..arithmetic.formats import HALF
from ..block import Block
from ..config import Config
from .packer import ChunkOrder, TilePacker
from .pattern import Pattern
from .reducer import NMReducer

__all__ = ["TileCompressor"]


class TileCompressor(wiring.Component):
    """N:M reducers and the packer that makes tiles of what they keep.

    Never stalls what arrives: a tile may begin only while there is room for all of it.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    order
        Order of the chunks that arrive.
    width
        Neighbouring chunks of a row that arrive together, as `TilePacker` takes them.

    Attributes
    ----------
    pattern : In(Pattern)
        Pattern of the tiles, a supported one; like `rows` constant from a tile's first chunk to its
        last beat.
    rows : In(range(G + 1))
        Rows in a tile: G, or from 1 to G if dense.
    free : Out(1)
        A tile may begin.
    begin : In(1)
        A tile begins, while `free`.
    i : In(stream.Signature(array of HALF, always_ready=True))
        ``width * config.group`` values of the tiles that have begun.
    complete : Out(1)
        High for a cycle when a tile's last chunk has been reduced.
    o : Out(stream.Signature(unsigned(beat_bits)))
        Beats of complete tiles in the order of memory; the first is there ``NMReducer.LATENCY + 2``
        cycles after the tile's last values at the earliest.
    beats : Out(range(G + 1))
        Beats in a tile of this pattern and number of rows.
    """

    def __init__(self, config: Config, order: ChunkOrder, width: int = 1) -> None:
        self._config = config
        self._order = order
        self._width = width
        values = data.ArrayLayout(HALF, width * config.group)
        super().__init__(
            {
                "pattern": In(Pattern),
                "rows": In(range(config.elements + 1)),
                "free": Out(1),
                "begin": In(1),
                "i": In(stream.Signature(values, always_ready=True)),
                "complete": Out(1),
                "o": Out(stream.Signature(unsigned(config.beat_bits))),
                "beats": Out(range(config.elements + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        group = self._config.group

        m.submodules.packer = packer = TilePacker(self._config, self._order, self._width)
        block = Block("nm_reducer", NMReducer(self._config))
        reducers = [block.place(platform) for _ in range(self._width)]
        for index, reducer in enumerate(reducers):
            m.submodules[f"reducer_{index}"] = reducer
            m.d.comb += [
                reducer.i.valid.eq(self.i.valid),
                reducer.i.payload.pattern.eq(self.pattern),
                *(
                    value.eq(self.i.payload[index * group + place])
                    for place, value in enumerate(reducer.i.payload.values)
                ),
                reducer.o.ready.eq(1),
                packer.i.payload[index].eq(reducer.o.payload),
            ]

        m.d.comb += [
            packer.pattern.eq(self.pattern),
            packer.rows.eq(self.rows),
            packer.begin.eq(self.begin),
            packer.i.valid.eq(reducers[0].o.valid),
            self.free.eq(packer.free),
            self.complete.eq(packer.complete),
            self.beats.eq(packer.beats),
        ]
        connect(m, packer.o, flipped(self.o))

        return m
