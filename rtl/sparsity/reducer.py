"""Online N:M reduction: of every M values keep the N largest magnitudes."""

from itertools import combinations
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..config import Config
from ..memory.ports import SEntry
from .pattern import Pattern, supported_patterns

__all__ = ["ChunkEntries", "DenseChunk", "NMReducer"]

_GROUP_SIZES = (4, 8, 16)

_INFINITY = 0x7C00


class DenseChunk(data.StructLayout):
    """``config.group`` consecutive values of the reduction dimension and how to prune them."""

    def __init__(self, config: Config) -> None:
        super().__init__({"values": data.ArrayLayout(HALF, config.group), "pattern": Pattern})


class ChunkEntries(data.ArrayLayout):
    """Entries of one chunk, in order; those beyond the pattern's number are undefined."""

    def __init__(self, config: Config) -> None:
        super().__init__(SEntry(config), config.group)


class NMReducer(wiring.Component):
    """Keeps the N largest magnitudes of every M values; one chunk a cycle.

    Ties keep the lower index; a NaN is larger than any number, and all NaNs tie. Entries leave in
    index order, group after group. A dense chunk passes unchanged.

    Parameters
    ----------
    config
        Configuration of the accelerator; ``config.group`` is the length of a chunk.

    Attributes
    ----------
    i : In(stream.Signature(DenseChunk(config)))
        Chunks; the pattern may change from one to the next and must be a supported one.
    o : Out(stream.Signature(ChunkEntries(config)))
        Their entries, `LATENCY` cycles later.
    """

    LATENCY = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(DenseChunk(config))),
                "o": Out(stream.Signature(ChunkEntries(config))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size = self._config.group

        # A chunk is held in each stage; all move on unless the last one is kept waiting.
        advance = Signal()
        valid = Signal(self.LATENCY)
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(advance),
            self.o.valid.eq(valid[-1]),
        ]
        with m.If(advance):
            m.d.sync += valid.eq(Cat(self.i.valid, valid[:-1]))

        # 1: compare the magnitudes of every two values; the lower index wins a tie.
        chunk = self.i.payload
        magnitudes = [Signal(HALF.size - 1, name=f"magnitude_{index}") for index in range(size)]
        for magnitude, value in zip(magnitudes, chunk.values, strict=True):
            plain = Cat(value.fraction, value.exponent)
            m.d.comb += magnitude.eq(Mux(plain > _INFINITY, _INFINITY + 1, plain))
        compared = Signal(DenseChunk(self._config), reset_less=True)
        lower_wins = {
            pair: Signal(name=f"wins_{pair[0]}_over_{pair[1]}", reset_less=True)
            for pair in combinations(range(size), 2)
        }
        with m.If(advance & self.i.valid):
            m.d.sync += compared.eq(chunk)
            for (low, high), wins in lower_wins.items():
                m.d.sync += wins.eq(magnitudes[low] >= magnitudes[high])

        # 2: a value stays if fewer than N of its group win over it.
        keep = Signal(size)
        for index in range(size):
            ranks = {}
            for group_size in _GROUP_SIZES:
                if group_size <= size:
                    start = index // group_size * group_size
                    lost = [
                        lower_wins[other, index] if other < index else ~lower_wins[index, other]
                        for other in range(start, start + group_size)
                        if other != index
                    ]
                    rank = ranks[group_size] = Signal(
                        range(group_size), name=f"rank_{index}_of_{group_size}"
                    )
                    m.d.comb += rank.eq(sum(lost))
            with m.Switch(compared.pattern):
                for pattern in supported_patterns(self._config):
                    with m.Case(pattern):
                        stays = 1 if pattern is Pattern.DENSE else ranks[pattern.m] < pattern.n
                        m.d.comb += keep[index].eq(stays)
        ranked = Signal(data.ArrayLayout(HALF, size), reset_less=True)
        kept = Signal(size, reset_less=True)
        with m.If(advance):
            m.d.sync += [ranked.eq(compared.values), kept.eq(keep)]

        # 3: an entry moves down by the number of values dropped below it.
        entries = Signal(ChunkEntries(self._config), reset_less=True)
        distances = [
            Signal(range(index + 1), name=f"distance_{index}", reset_less=True)
            for index in range(size)
        ]
        stays = Signal(size, reset_less=True)
        with m.If(advance):
            m.d.sync += stays.eq(kept)
            for index in range(size):
                m.d.sync += [
                    entries[index].value.eq(ranked[index]),
                    entries[index].index.eq(index),
                    distances[index].eq(sum(~kept[low] for low in range(index))),
                ]

        # 4: in steps of 1, 2, 4...: kept entries never meet on the way.
        moving = [(entries[index], stays[index], distances[index]) for index in range(size)]
        for stage in range(self._config.index_bits):
            moving = [self._step(m, moving, index, stage) for index in range(size)]
        with m.If(advance):
            for target, (entry, _, _) in zip(self.o.payload, moving, strict=True):
                m.d.sync += target.eq(entry)

        return m

    def _step(self, m: Module, moving: list[Any], index: int, stage: int) -> Any:
        """Return what is at `index` once the entries with bit `stage` of their distance moved."""
        entry = Signal(SEntry(self._config), name=f"entry_{index}_{stage}")
        present = Signal(name=f"present_{index}_{stage}")
        distance = Signal(self._config.index_bits, name=f"distance_{index}_{stage}")
        own_entry, own_present, own_distance = moving[index]
        m.d.comb += [
            entry.eq(own_entry),
            present.eq(own_present & ~_bit(own_distance, stage)),
            distance.eq(own_distance),
        ]
        if index + (1 << stage) < len(moving):
            far_entry, far_present, far_distance = moving[index + (1 << stage)]
            with m.If(far_present & _bit(far_distance, stage)):
                m.d.comb += [entry.eq(far_entry), present.eq(1), distance.eq(far_distance)]
        return entry, present, distance


def _bit(value: Any, index: int) -> Any:
    """Return bit `index` of `value`, 0 beyond its width."""
    return value[index] if index < len(value) else 0
