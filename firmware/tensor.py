"""Tensors in card memory: what lies where, and how the host reads and writes it.

All are padded with zeros to multiples of G, the elements of a beat, in every dimension;
docs/architecture.md defines the formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from .allocator import Allocator
from .cards import Card
from .model import Convolution, Shape
from .program import descriptor

__all__ = [
    "Activations",
    "Block",
    "Compressed",
    "Images",
    "KernelState",
    "Records",
    "Span",
    "Tensor",
    "UnfoldedImages",
    "Vector",
    "VectorState",
    "padded",
]


def padded(config: Config, count: int) -> int:
    """Return `count` rounded up to a multiple of G."""
    return -(-count // config.elements) * config.elements


class Tensor(Protocol):
    """A block of card memory."""

    address: int
    nbytes: int


class Block:
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


@dataclass(frozen=True)
class Span:
    """A run of lines or columns of an image, with zeros on either side.

    Attributes
    ----------
    start, count
        Of the image.
    before, after
        Zeros on either side.
    """

    start: int
    count: int
    before: int
    after: int

    @property
    def first(self) -> int:
        """Its first line or column, the zeros included; that of the image is 0."""
        return self.start - self.before

    @property
    def size(self) -> int:
        return self.before + self.count + self.after


class Images(Protocol):
    """Images as a convolution takes them: in blocks of G, a pixel in `words` D words."""

    shape: Shape
    batch_blocks: int
    words: int

    def load_images(
        self, block: int, rows: Span, columns: Span, words: range, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G images, tile by tile.

        Parameters
        ----------
        block
            Of G images.
        rows, columns
            Of the image.
        words
            Of each pixel.
        step
            Distance of neighbouring rows and columns, which are counted in such steps.
        """

    def load_channels(
        self, word: int, blocks: range, rows: Span, columns: Span, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G channels of blocks of images.

        Parameters
        ----------
        word
            Of each pixel.
        blocks
            Of G images.
        rows, columns, step
            As above.
        """


def _frame(rows: Span, columns: Span, pixel_beats: int, images: int) -> dict[str, int]:
    """Return the zeros around an area; all zero if there are none."""
    if (rows.before, rows.after, columns.before, columns.after) == (0, 0, 0, 0):
        return {}
    return {
        "images": images,
        "above": rows.before,
        "lines": rows.count,
        "below": rows.after,
        "before": columns.before * pixel_beats,
        "beats": columns.count * pixel_beats,
        "after": columns.after * pixel_beats,
    }


class Activations(Block):
    """Binary16 images, or their gradients, as tiles of G images by G channels.

    Laid out ``[batch block][y][x][word][G images][G channels]``, so that a product's row
    ``position * G + image`` has its D words in tiles that follow each other. A transposed one has
    its tiles transposed: ``[G channels][G images]``.

    Attributes
    ----------
    images, shape
        Without padding.
    batch_blocks, words
        Blocks of G images; D words of G channels in a row of a product.
    transposed
        Whether tiles are.
    tile_bytes
        Bytes of a tile.
    """

    def __init__(
        self,
        config: Config,
        memory: Allocator,
        images: int,
        shape: Shape,
        *,
        transposed: bool = False,
    ) -> None:
        self.images, self.shape = images, shape
        self.transposed = transposed
        self.batch_blocks = padded(config, images) // config.elements
        self.words = padded(config, shape.channels) // config.elements
        self.tile_bytes = config.elements * config.beat_bytes
        tiles = self.batch_blocks * shape.positions * self.words
        super().__init__(config, memory, tiles * config.elements)

    @property
    def position_bytes(self) -> int:
        """Bytes from one pixel to the next."""
        return self.words * self.tile_bytes

    @property
    def line_bytes(self) -> int:
        """Bytes from one line of pixels to the next."""
        return self.shape.width * self.position_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes from one block of images to the next."""
        return self.shape.height * self.line_bytes

    def tile(self, block: int, y: int, x: int, word: int) -> int:
        """Return the address of a tile."""
        position = (block * self.shape.height + y) * self.shape.width + x
        return self.address + (position * self.words + word) * self.tile_bytes

    def column(self, word: int) -> list[int]:
        """Return the addresses of all tiles of G channels, in the order of memory."""
        positions = self.batch_blocks * self.shape.positions
        first = self.tile(0, 0, 0, word)
        return [first + position * self.position_bytes for position in range(positions)]

    def tiles(self, word: int, block: int, lines: range) -> list[int]:
        """Return the addresses of the tiles of G channels of some lines of a block of images."""
        first = self.tile(block, lines.start, 0, word)
        positions = len(lines) * self.shape.width
        return [first + position * self.position_bytes for position in range(positions)]

    def all_tiles(self) -> range:
        """Return the addresses of all tiles, in the order of memory."""
        return range(self.address, self.address + self.nbytes, self.tile_bytes)

    def line_tiles(self, block: int, lines: range) -> range:
        """Return the addresses of all tiles of some lines of a block of images."""
        first = self.tile(block, lines.start, 0, 0)
        return range(first, first + len(lines) * self.line_bytes, self.tile_bytes)

    def load_images(
        self, block: int, rows: Span, columns: Span, words: range, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G images, tile by tile."""
        beats = len(words) * self.config.elements
        return {
            "transpose": int(self.transposed),
            "frame": _frame(rows, columns, beats, 1),
            "descriptor": descriptor(
                self.config,
                self.tile(block, rows.start * step, columns.start * step, words.start),
                beats,
                (columns.count, step * self.position_bytes),
                (rows.count, step * self.line_bytes),
            ),
        }

    def load_channels(
        self, word: int, blocks: range, rows: Span, columns: Span, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G channels of blocks of images."""
        return {
            "transpose": int(not self.transposed),
            "frame": _frame(rows, columns, self.config.elements, len(blocks)),
            "descriptor": descriptor(
                self.config,
                self.tile(blocks.start, rows.start * step, columns.start * step, word),
                self.config.elements,
                (columns.count, step * self.position_bytes),
                (rows.count, step * self.line_bytes),
                (len(blocks), self.block_bytes),
            ),
        }

    def rows(self, block: int) -> int:
        """Return how many images of a block aren't padding."""
        return min(self.config.elements, self.images - block * self.config.elements)

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write images ``[images, height, width, channels]``, rounded to binary16.

        Fewer images than there is room for are followed by zeros.
        """
        # Overflow gives an infinity, which is for the caller to look for.
        with np.errstate(over="ignore"):
            half = np.asarray(values).astype("<f2")
        shape = self.shape
        expected = (shape.height, shape.width, shape.channels)
        if half.ndim != 4 or len(half) > self.images or half.shape[1:] != expected:
            raise ValueError(f"there is room for {self.images} images {shape}, got {half.shape}")
        g = self.config.elements
        whole = np.zeros((self.batch_blocks * g, *expected[:2], self.words * g), "<f2")
        whole[: len(half), ..., : shape.channels] = half
        tiles = whole.reshape(self.batch_blocks, g, *expected[:2], self.words, g)
        order = (0, 2, 3, 4, 5, 1) if self.transposed else (0, 2, 3, 4, 1, 5)
        self._write(card, tiles.transpose(order))

    def read(self, card: Card) -> NDArray[np.float16]:
        """Return the images ``[images, height, width, channels]`` without padding."""
        g, shape = self.config.elements, self.shape
        tiles = self.read_bytes(card).view("<f2")
        tiles = tiles.reshape(self.batch_blocks, shape.height, shape.width, self.words, g, g)
        order = (0, 5, 1, 2, 3, 4) if self.transposed else (0, 4, 1, 2, 3, 5)
        whole = tiles.transpose(order).reshape(-1, shape.height, shape.width, self.words * g)
        return whole[: self.images, ..., : shape.channels]


class UnfoldedImages(Block):
    """Images of few channels, as the input of a convolution whose taps share D words.

    Laid out ``[batch block][x of the output][y][tap in x][channel]`` beats of G images, with the
    zeros above and below each image: the host unfolds it along x. What is under the kernel then are
    beats that follow each other, line after line. A LOAD takes them for each output, completed with
    zeros to tiles of G channels. To the array that is an image with a channel for each weight of
    the kernel.

    Attributes
    ----------
    images
        Without padding.
    shape
        Of the image that the array sees.
    batch_blocks, words
        Blocks of G images; D words of a pixel.
    """

    @classmethod
    def suits(cls, config: Config, layer: Convolution) -> bool:
        """Return whether a convolution, if its input is laid out so, takes fewer D words."""
        unfolded = padded(config, layer.taps * layer.inputs)
        return layer.method.forward is Pattern.DENSE and unfolded < layer.taps * padded(
            config, layer.inputs
        )

    def __init__(self, config: Config, memory: Allocator, images: int, layer: Convolution) -> None:
        self.images, self._layer = images, layer
        self.shape = layer.unfolded().source.shape
        self.batch_blocks = padded(config, images) // config.elements
        self.words = padded(config, self.shape.channels) // config.elements
        self._lines = layer.source.shape.height + 2 * layer.padding
        self._line_bytes = layer.kernel * layer.inputs * config.beat_bytes
        column_beats = self._lines * layer.kernel * layer.inputs
        super().__init__(config, memory, self.batch_blocks * self.shape.width * column_beats)

    @property
    def block_bytes(self) -> int:
        """Bytes from one block of images to the next."""
        return self.shape.width * self._lines * self._line_bytes

    def load_images(
        self, block: int, rows: Span, columns: Span, words: range, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G images, tile by tile."""
        blocks = range(block, block + 1)
        return {"transpose": 1} | self._gather(blocks, rows, columns, words, step)

    def load_channels(
        self, word: int, blocks: range, rows: Span, columns: Span, step: int = 1
    ) -> dict[str, Any]:
        """Return the fields of the LOAD that brings an area of G channels of blocks of images."""
        return self._gather(blocks, rows, columns, range(word, word + 1), step)

    def _gather(
        self, blocks: range, rows: Span, columns: Span, words: range, step: int
    ) -> dict[str, Any]:
        config, g = self.config, self.config.elements
        beats = min(words.stop * g, self.shape.channels) - words.start * g
        missing = len(words) * g - beats
        line = self._layer.stride * self._line_bytes
        column = self._lines * self._line_bytes
        first = blocks.start * self.block_bytes + words.start * g * config.beat_bytes
        first += step * (rows.start * line + columns.start * column)
        pixels = len(blocks) * rows.count * columns.count
        frame = {"images": 1, "lines": pixels, "beats": beats, "after": missing}
        return {
            "frame": frame if missing else {},
            "descriptor": descriptor(
                config,
                self.address + first,
                beats,
                (columns.count, step * column),
                (rows.count, step * line),
                (len(blocks), self.block_bytes),
            ),
        }

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write images ``[images, height, width, channels]``, rounded to binary16.

        Fewer images than there is room for are followed by zeros.
        """
        with np.errstate(over="ignore"):
            half = np.asarray(values).astype("<f2")
        layer, g = self._layer, self.config.elements
        source, around = layer.source.shape, layer.padding
        expected = (source.height, source.width, source.channels)
        if half.ndim != 4 or len(half) > self.images or half.shape[1:] != expected:
            raise ValueError(f"there is room for {self.images} images {source}, got {half.shape}")
        sides = (self._lines, source.width + 2 * around)
        whole = np.zeros((self.batch_blocks * g, *sides, source.channels), "<f2")
        inside = (slice(around, around + source.height), slice(around, around + source.width))
        whole[: len(half), *inside] = half
        blocks = whole.reshape(self.batch_blocks, g, *whole.shape[1:])
        last = (self.shape.width - 1) * layer.stride + 1
        taps = [blocks[:, :, :, tap : tap + last : layer.stride] for tap in range(layer.kernel)]
        # From [block][tap][image][y][x][channel].
        self._write(card, np.stack(taps, axis=1).transpose(0, 4, 3, 1, 5, 2))


class Compressed(Block):
    """A compressed copy of a kernel as an S operand: tiles of G rows by one D word.

    The D words of a row are those of one tap after the other.

    Attributes
    ----------
    pattern
        N:M pattern.
    blocks
        Blocks of G rows.
    words
        D words along the channels of a tap.
    d_words
        D words along the reduction.
    tile_bytes
        Bytes of a tile.
    """

    def __init__(
        self,
        config: Config,
        memory: Allocator,
        pattern: Pattern,
        rows: int,
        taps: int,
        reduction: int,
    ) -> None:
        self.pattern = pattern
        self.blocks = padded(config, rows) // config.elements
        self.words = padded(config, reduction) // config.elements
        self.d_words = taps * self.words
        self.tile_bytes = pattern.tile_beats(config) * config.beat_bytes
        super().__init__(config, memory, self.blocks * self.d_words * pattern.tile_beats(config))

    def tile(self, block: int, tap: int, word: int) -> int:
        """Return the address of a tile."""
        number = block * self.d_words + tap * self.words + word
        return self.address + number * self.tile_bytes


class Vector(Block):
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


class KernelState(Block):
    """Master weights and momentum ``[taps][inputs][outputs]``, binary32, in tiles of G by G.

    Laid out ``[output block][input block][tap]``, each tile ``[input][2]{weights, momentum}`` beats
    of G/2 outputs.
    """

    def __init__(
        self, config: Config, memory: Allocator, taps: int, inputs: int, outputs: int
    ) -> None:
        self.shape = (taps, inputs, outputs)
        self.input_blocks = padded(config, inputs) // config.elements
        self.output_blocks = padded(config, outputs) // config.elements
        self.tile_beats = 4 * config.elements
        beats = taps * self.input_blocks * self.output_blocks * self.tile_beats
        super().__init__(config, memory, beats)

    def tile(self, output_block: int, input_block: int, tap: int) -> int:
        """Return the address of a tile."""
        number = (output_block * self.input_blocks + input_block) * self.shape[0] + tap
        return self.address + number * self.tile_beats * self.config.beat_bytes

    def write(self, card: Card, weights: ArrayLike) -> None:
        """Write master weights; the momentum becomes zero."""
        values = np.asarray(weights, "<f4")
        if values.shape != self.shape:
            raise ValueError(f"weights are {self.shape}, got {values.shape}")
        taps, inputs, outputs = self.shape
        g, floats = self.config.elements, self.config.floats
        whole = np.zeros((taps, self.input_blocks * g, self.output_blocks * g), "<f4")
        whole[:, :inputs, :outputs] = values
        tiles = whole.reshape(taps, self.input_blocks, g, self.output_blocks, 2, floats)
        tiles = tiles.transpose(3, 1, 0, 2, 4, 5)
        self._write(card, np.stack([tiles, np.zeros_like(tiles)], axis=5))

    def read(self, card: Card) -> Mapping[str, NDArray[np.float32]]:
        """Return ``weights`` and ``momentum`` without padding."""
        taps, inputs, outputs = self.shape
        g, floats = self.config.elements, self.config.floats
        beats = self.read_bytes(card).view("<f4")
        tiles = beats.reshape(self.output_blocks, self.input_blocks, taps, g, 2, 2, floats)
        whole = tiles.transpose(5, 2, 1, 3, 0, 4, 6).reshape(
            2, taps, self.input_blocks * g, self.output_blocks * g
        )
        weights, momentum = whole[:, :, :inputs, :outputs]
        return {"weights": weights, "momentum": momentum}


class VectorState(Block):
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


class Records(Block):
    """Named binary32 values of each channel, for the vector unit's registers.

    Laid out ``[block of G channels][value][2]`` beats: what a wide tile is.

    Attributes
    ----------
    names
        Of the values, in their order.
    blocks
        Blocks of G channels.
    """

    def __init__(
        self, config: Config, memory: Allocator, length: int, names: Sequence[str]
    ) -> None:
        self.names = tuple(names)
        self.length = length
        self.blocks = padded(config, length) // config.elements
        super().__init__(config, memory, self.blocks * len(self.names) * 2)

    def row(self, block: int, name: str) -> int:
        """Return the address of a value of G channels."""
        row = block * len(self.names) + self.names.index(name)
        return self.address + row * 2 * self.config.beat_bytes

    def rows(self, blocks: range, name: str, count: int) -> dict[str, Any]:
        """Return the descriptor of `count` values of several blocks, from value `name` on.

        All blocks' first value comes first, then their second.
        """
        row = 2 * self.config.beat_bytes
        return descriptor(
            self.config,
            self.row(blocks.start, name),
            2,
            (len(blocks), len(self.names) * row),
            (count, row),
        )

    def write(self, card: Card, **values: ArrayLike) -> None:
        """Write some values ``[channels]`` or one for all; the others become zero."""
        whole = np.zeros((len(self.names), self.blocks * self.config.elements), "<f4")
        for name, value in values.items():
            whole[self.names.index(name), : self.length] = value
        rows = whole.reshape(len(self.names), self.blocks, self.config.elements)
        self._write(card, rows.swapaxes(0, 1))

    def read(self, card: Card) -> Mapping[str, NDArray[np.float32]]:
        """Return the values of each name without padding."""
        rows = self.read_bytes(card).view("<f4")
        rows = rows.reshape(self.blocks, len(self.names), -1).swapaxes(0, 1)
        whole = rows.reshape(len(self.names), -1)[:, : self.length]
        return dict(zip(self.names, whole, strict=True))
