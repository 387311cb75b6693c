"""Sums over a batch for each channel, gathered while the batch is being computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from rtl.config import Config
from rtl.control.commands import Fold, Stage, VectorOperand

from ..allocator import Allocator
from ..program import descriptor
from ..tensor import Activations, Block
from .assembly import Assembly
from .vectors import Feed, Register, Vectors

__all__ = ["PartialSums", "Statistics"]

_PARTS = 8
_PART_TILES = range(16, 65)
"""Tiles that are summed up at once: a part takes about 150 cycles more than it has rows, and what
is left when the tensor is complete has to be waited for."""

_PRODUCTS, _SUM = Register(62), Register(63)


def _part_tiles(tensor: Activations) -> int:
    """Return how many tiles of a word make a part."""
    tiles = tensor.batch_blocks * tensor.shape.positions // _PARTS
    return min(max(tiles, _PART_TILES[0]), _PART_TILES[-1])


class PartialSums(Block):
    """Sums of parts of a tensor.

    Laid out ``[part][products, sums][word][2]`` beats.
    """

    def __init__(self, config: Config, memory: Allocator, tensor: Activations) -> None:
        self._words = tensor.words
        tiles = tensor.batch_blocks * tensor.shape.positions
        parts = tiles // _part_tiles(tensor) + 1
        super().__init__(config, memory, parts * 4 * self._words)

    def rows(self, words: range, first: int = 0, parts: int = 1) -> dict[str, Any]:
        """Return the descriptor of the rows of some words: products, sums, of part after part."""
        row = 2 * self.config.beat_bytes
        return descriptor(
            self.config,
            self.address + (first * 2 * self._words + words.start) * row,
            2 * len(words),
            (2, self._words * row),
            (parts, 2 * self._words * row),
        )


class Statistics:
    """Adds the sums of a tensor's values and of their squares, as lines of it are written.

    Parameters
    ----------
    assembly
        The program.
    tensor
        What is summed up.
    sums
        Takes the sums of the parts.
    """

    def __init__(self, assembly: Assembly, tensor: Activations, sums: PartialSums) -> None:
        self._config = assembly.config
        self._tensor = tensor
        self._sums = sums
        self._vectors = Vectors(assembly, Stage.FF)
        self._fresh: list[Sequence[int]] = []
        columns = [tensor.column(word) for word in range(tensor.words)]
        size = _part_tiles(tensor)
        # Of each word: tiles of each part, in the order of memory, and how many are to be written.
        self._tiles = [
            [column[first : first + size] for first in range(0, len(column), size)]
            for column in columns
        ]
        self._missing = [[len(tiles) for tiles in parts] for parts in self._tiles]
        self._parts = len(self._tiles[0])
        self._ready: deque[tuple[int, int]] = deque()

    def add(self, tiles: Sequence[int]) -> None:
        """Take note of tiles that have been written."""
        # Reading what is still being written would keep the load queue from what the array needs.
        self._gather()
        self._fresh.append(tiles)

    def advance(self) -> int | None:
        """Add the sums of the next part, if there is one; return about how many cycles it takes."""
        if not self._ready:
            return None
        word, part = self._ready.popleft()
        tiles = self._tiles[word][part]
        self._vectors.stream(
            [Feed(tiles)],
            groups=len(tiles),
            rows=self._tensor.rows(0),
            a=1.0,
            y=VectorOperand.X,
            reduce=Fold.SUM,
            into=_SUM,
            product_into=_PRODUCTS,
        )
        self._vectors.write_registers(_PRODUCTS, 2, self._sums.rows(range(word, word + 1), part))
        return len(tiles) * self._config.elements

    def finish(self) -> None:
        """Add all that is left."""
        self._gather()
        while self.advance() is not None:
            pass

    def fetch(self, words: range, first: Register) -> None:
        """Add the loading of the sums of some words: of products from a register on, then of
        values."""
        self._vectors.read_registers(
            first, 2 * len(words), self._sums.rows(words, parts=self._parts), parts=self._parts
        )

    def _gather(self) -> None:
        """Find the parts that are complete: the same ones whatever order tiles come in."""
        tensor, size = self._tensor, _part_tiles(self._tensor)
        for written in self._fresh:
            for tile in written:
                number, word = divmod((tile - tensor.address) // tensor.tile_bytes, tensor.words)
                part = number // size
                self._missing[word][part] -= 1
                if not self._missing[word][part]:
                    self._ready.append((word, part))
        self._fresh = []
