"""Tensors of a network's layers in card memory: what each layer learns and keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl.config import Config

from .allocator import Allocator
from .cards import Card
from .model import Attention, BatchNorm, Convolution, LayerNorm, PositionEmbedding, Shape
from .program import descriptor
from .tensor import (
    Activations,
    Block,
    Compressed,
    KernelState,
    Records,
    Vector,
    VectorState,
    padded,
)
from .tokens import TokenActivations

__all__ = [
    "AttentionBuffers",
    "BatchNormTensors",
    "ConvolutionTensors",
    "LayerNormBuffers",
    "LayerNormTensors",
    "PositionRecords",
    "PositionTensors",
]


class ConvolutionTensors:
    """Tensors of a `Convolution`.

    Attributes
    ----------
    state, bias_state
        Master values and momentum; `bias_state` and `bias` are None if it has no bias.
    forward, backward
        Compressed copies that FF and BP read; `backward` is None where no gradient goes further.
    bias
        Binary16 copy of the bias.
    """

    def __init__(
        self, layer: Convolution, config: Config, memory: Allocator, *, has_backward: bool
    ) -> None:
        inputs, outputs, taps = layer.inputs, layer.outputs, layer.taps
        self.state = KernelState(config, memory, taps, inputs, outputs)
        self.forward = Compressed(config, memory, layer.method.forward, outputs, taps, inputs)
        self.backward = (
            Compressed(config, memory, layer.method.backward, inputs, taps, outputs)
            if has_backward
            else None
        )
        self.bias_state = VectorState(config, memory, outputs) if layer.bias else None
        self.bias = Vector(config, memory, outputs) if layer.bias else None


class BatchNormTensors:
    """Tensors of a `BatchNorm`.

    Attributes
    ----------
    records
        Of each channel what it learns, ``gain`` and ``shift``, the running ``average`` and
        ``variance``, the momentum of what it learns; of the last batch ``mean`` and ``inverse`` (of
        the standard deviation), the factor and summand that follow from them, and the gradients.
    inference
        Factor and summand that follow from the running values.
    """

    NAMES = (
        "gain",
        "shift",
        "average",
        "variance",
        "gain_momentum",
        "shift_momentum",
        "mean",
        "inverse",
        "factor",
        "summand",
        "gain_gradient",
        "shift_gradient",
    )

    def __init__(self, layer: BatchNorm, config: Config, memory: Allocator) -> None:
        self.records = Records(config, memory, layer.shape.channels, self.NAMES)
        self.inference = Records(config, memory, layer.shape.channels, ("factor", "summand"))


class PositionRecords(Block):
    """Binary32 values of each channel at each position, for the vector unit.

    Laid out ``[block of G channels][position][2]`` beats: what wide tiles are.
    """

    def __init__(self, config: Config, memory: Allocator, shape: Shape) -> None:
        self.shape = shape
        self.words = padded(config, shape.channels) // config.elements
        super().__init__(config, memory, self.words * shape.positions * 2)

    def position(self, word: int, position: int) -> int:
        """Return the address of G channels of a position."""
        row = word * self.shape.positions + position
        return self.address + row * 2 * self.config.beat_bytes

    def positions(self, word: int, first: int, count: int) -> dict[str, Any]:
        """Return the descriptor of G channels of some positions."""
        return descriptor(self.config, self.position(word, first), 2 * count)

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write values ``[height, width, channels]``."""
        shape = self.shape
        array = np.asarray(values, "<f4")
        if array.shape != (shape.height, shape.width, shape.channels):
            raise ValueError(f"positions are {shape}, got {array.shape}")
        whole = np.zeros((shape.positions, self.words * self.config.elements), "<f4")
        whole[:, : shape.channels] = array.reshape(shape.positions, shape.channels)
        self._write(card, whole.reshape(shape.positions, self.words, -1).swapaxes(0, 1))

    def read(self, card: Card) -> NDArray[np.float32]:
        """Return the values ``[height, width, channels]`` without padding."""
        shape = self.shape
        rows = self.read_bytes(card).view("<f4").reshape(self.words, shape.positions, -1)
        whole = rows.swapaxes(0, 1).reshape(shape.positions, -1)[:, : shape.channels]
        return whole.reshape(shape.height, shape.width, shape.channels)


class PositionTensors:
    """Tensors of a `PositionEmbedding`.

    Attributes
    ----------
    values, momentum, gradients
        Master values, their momentum and their gradients.
    copy
        Binary16 copy of the values, as tokens of one image.
    rows
        Positions in each of its tiles.
    """

    def __init__(self, layer: PositionEmbedding, config: Config, memory: Allocator) -> None:
        shape, g = layer.shape, config.elements
        self.values, self.momentum, self.gradients = (
            PositionRecords(config, memory, shape) for _ in range(3)
        )
        self.copy = TokenActivations(config, memory, 1, shape)
        self.rows = [min(g, shape.positions - first) for first in range(0, shape.positions, g)]


class LayerNormTensors:
    """Tensors of a `LayerNorm`.

    Attributes
    ----------
    records
        Of each channel what it learns, ``gain`` and ``shift``, with their momentum, and the
        gradients of the last batch.
    """

    NAMES = ("gain", "shift", "gain_momentum", "shift_momentum", "gain_gradient", "shift_gradient")

    def __init__(self, layer: LayerNorm, config: Config, memory: Allocator) -> None:
        self.records = Records(config, memory, layer.shape.channels, self.NAMES)


class LayerNormBuffers:
    """What a `LayerNorm` keeps from its forward for its backward pass, and takes on the way.

    Attributes
    ----------
    normal
        The normalised input, before gain and shift; its tiles are transposed.
    statistics
        ``inverse`` of the standard deviation and ``offset``, the mean times that, negative, of G
        tokens or images: a block for each tile of a word.
    scaled, gradient
        The output's gradient times the gain, and the input's with its tiles transposed.
    """

    def __init__(self, x: Activations, config: Config, memory: Allocator) -> None:
        tiles = x.batch_blocks * x.shape.positions
        self.statistics = Records(config, memory, tiles * config.elements, ("inverse", "offset"))
        self.normal, self.scaled, self.gradient = (
            Activations(config, memory, x.images, x.shape, transposed=name != "scaled")
            for name in ("normal", "scaled", "gradient")
        )


class AttentionBuffers:
    """What an `Attention` keeps from its forward for its backward pass, and takes on the way.

    All have the tiles of keys (rows) by queries (columns) of a head of an image, laid out
    ``[image, head][block of G queries][block of G keys]``.

    Attributes
    ----------
    probabilities
        The softmax.
    scores
        Products of queries and keys; backward the gradient of the probabilities.
    score_gradients
        Of the scores.
    """

    def __init__(self, layer: Attention, x: TokenActivations, config: Config, memory: Allocator):
        blocks = x.shape.width
        shape = Shape(x.batch * layer.heads, blocks, blocks * config.elements)
        self.probabilities, self.scores, self.score_gradients = (
            Activations(config, memory, config.elements, shape) for _ in range(3)
        )
