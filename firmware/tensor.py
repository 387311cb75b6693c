"""Tensors in card memory: what lies where, and how the host reads and writes it.

All are padded with zeros to multiples of G, the elements of a beat, in every dimension;
docs/architecture.md defines the formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from .allocator import Allocator
from .cards import Card

__all__ = ["Activations", "Compressed", "MatrixState", "Tensor", "Vector", "VectorState", "padded"]


def padded(config: Config, count: int) -> int:
    """Return `count` rounded up to a multiple of G."""
    return -(-count // config.elements) * config.elements


class Tensor(Protocol):
    """A block of card memory."""

    address: int
    nbytes: int


class _Block:
    """A tensor's block of memory; subclasses give it a shape."""

    def __init__(self, config: Config, memory: Allocator, beats: int) -> None:
        self.config = config
        self.nbytes = beats * config.beat_bytes
        self.address = memory.allocate(self.nbytes)

    def read_bytes(self, card: Card) -> NDArray[np.uint8]:
        """Return the raw bytes."""
        return card.read_memory(self.address, self.nbytes)

    def clear(self, card: Card) -> None:
        """Fill with zeros."""
        card.write_memory(self.address, np.zeros(self.nbytes, np.uint8))

    def _write(self, card: Card, values: NDArray[np.generic]) -> None:
        card.write_memory(self.address, np.frombuffer(values.tobytes(), np.uint8))


class Activations(_Block):
    """Binary16 ``[pixels][channels]``, row-major; also gradients of activations.

    Attributes
    ----------
    pixels, channels
        Shape without padding.
    rows
        Pixels with padding.
    words
        D words, which are beats, in a row.
    row_bytes
        Bytes from one pixel to the next.
    """

    def __init__(self, config: Config, memory: Allocator, pixels: int, channels: int) -> None:
        self.pixels, self.channels = pixels, channels
        self.rows = padded(config, pixels)
        self.words = padded(config, channels) // config.elements
        self.row_bytes = self.words * config.beat_bytes
        super().__init__(config, memory, self.rows * self.words)

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write up to `pixels` rows, rounded to binary16; the rest becomes zero."""
        # Overflow gives an infinity, which is for the caller to look for.
        with np.errstate(over="ignore"):
            half = np.asarray(values).astype("<f2")
        if half.ndim != 2 or half.shape[0] > self.pixels or half.shape[1] != self.channels:
            raise ValueError(f"activations are {self.pixels} x {self.channels}, got {half.shape}")
        whole = np.zeros((self.rows, self.words * self.config.elements), "<f2")
        whole[: half.shape[0], : half.shape[1]] = half
        self._write(card, whole)

    def read(self, card: Card) -> NDArray[np.float16]:
        """Return the values without padding."""
        return self.read_padded(card)[: self.pixels, : self.channels]

    def read_padded(self, card: Card) -> NDArray[np.float16]:
        """Return the values with their padding."""
        return self.read_bytes(card).view("<f2").reshape(self.rows, -1)


class Compressed(_Block):
    """A compressed copy of a weight matrix as an S operand: tiles of G rows by one D word.

    Attributes
    ----------
    pattern
        N:M pattern.
    blocks
        Blocks of G rows.
    d_words
        D words along the reduction.
    tile_bytes
        Bytes of a tile.
    """

    def __init__(
        self, config: Config, memory: Allocator, pattern: Pattern, rows: int, reduction: int
    ) -> None:
        self.pattern = pattern
        self.blocks = padded(config, rows) // config.elements
        self.d_words = padded(config, reduction) // config.elements
        self.tile_bytes = pattern.tile_beats(config) * config.beat_bytes
        super().__init__(config, memory, self.blocks * self.d_words * pattern.tile_beats(config))

    def tile(self, block: int, word: int) -> int:
        """Return the address of a tile."""
        return self.address + (block * self.d_words + word) * self.tile_bytes


class Vector(_Block):
    """Binary16 vector, such as a bias."""

    def __init__(self, config: Config, memory: Allocator, length: int) -> None:
        self.length = length
        self.blocks = padded(config, length) // config.elements
        super().__init__(config, memory, self.blocks)

    def block(self, index: int) -> int:
        """Return the address of the beat with elements ``index * G`` and following."""
        return self.address + index * self.config.beat_bytes

    def read(self, card: Card) -> NDArray[np.float16]:
        """Return the values without padding."""
        return self.read_bytes(card).view("<f2")[: self.length]


class MatrixState(_Block):
    """Master weights and momentum ``[inputs][outputs]``, binary32, in tiles of G by G.

    Tiles of a block of G outputs follow each other along the inputs.
    """

    def __init__(self, config: Config, memory: Allocator, inputs: int, outputs: int) -> None:
        self.shape = (inputs, outputs)
        self.input_blocks = padded(config, inputs) // config.elements
        self.output_blocks = padded(config, outputs) // config.elements
        self.tile_beats = 4 * config.elements
        beats = self.input_blocks * self.output_blocks * self.tile_beats
        super().__init__(config, memory, beats)

    def tile(self, output_block: int, input_block: int) -> int:
        """Return the address of a tile."""
        number = output_block * self.input_blocks + input_block
        return self.address + number * self.tile_beats * self.config.beat_bytes

    def write(self, card: Card, weights: ArrayLike) -> None:
        """Write master weights; the momentum becomes zero."""
        values = np.asarray(weights, "<f4")
        if values.shape != self.shape:
            raise ValueError(f"weights are {self.shape}, got {values.shape}")
        blocks, floats = self.config.elements, self.config.floats
        whole = np.zeros((self.input_blocks * blocks, self.output_blocks * blocks), "<f4")
        whole[: self.shape[0], : self.shape[1]] = values
        tiles = whole.reshape(self.input_blocks, blocks, self.output_blocks, 2, floats)
        tiles = tiles.transpose(2, 0, 1, 3, 4)
        self._write(card, np.stack([tiles, np.zeros_like(tiles)], axis=4))

    def read(self, card: Card) -> Mapping[str, NDArray[np.float32]]:
        """Return ``weights`` and ``momentum`` without padding."""
        blocks, floats = self.config.elements, self.config.floats
        beats = self.read_bytes(card).view("<f4")
        tiles = beats.reshape(self.output_blocks, self.input_blocks, blocks, 2, 2, floats)
        whole = tiles.transpose(4, 1, 2, 0, 3, 5).reshape(
            2, self.input_blocks * blocks, self.output_blocks * blocks
        )
        weights, momentum = whole[:, : self.shape[0], : self.shape[1]]
        return {"weights": weights, "momentum": momentum}


class VectorState(_Block):
    """Master values and momentum of a vector, binary32."""

    BEATS = 4
    """Beats of G elements: two of values and two of momentum, in turn."""

    def __init__(self, config: Config, memory: Allocator, length: int) -> None:
        self.length = length
        self.blocks = padded(config, length) // config.elements
        super().__init__(config, memory, self.blocks * self.BEATS)

    def block(self, index: int) -> int:
        """Return the address of the state of elements ``index * G`` and following."""
        return self.address + index * self.BEATS * self.config.beat_bytes

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write master values; the momentum becomes zero."""
        vector = np.asarray(values, "<f4")
        if vector.shape != (self.length,):
            raise ValueError(f"the vector has {self.length} elements, got {vector.shape}")
        whole = np.zeros((self.blocks, 2, self.config.floats), "<f4")
        whole.reshape(-1)[: self.length] = vector
        self._write(card, np.stack([whole, np.zeros_like(whole)], axis=2))

    def read(self, card: Card) -> Mapping[str, NDArray[np.float32]]:
        """Return ``weights`` and ``momentum`` without padding."""
        beats = self.read_bytes(card).view("<f4").reshape(self.blocks, 2, 2, self.config.floats)
        whole = beats.transpose(2, 0, 1, 3).reshape(2, -1)
        return {"weights": whole[0, : self.length], "momentum": whole[1, : self.length]}
