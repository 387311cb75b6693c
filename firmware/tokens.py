"""Activations of transformers: which layers keep tokens side by side, and how they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl.config import Config

from .allocator import Allocator
from .cards import Card
from .model import (
    GELU,
    Addition,
    Attention,
    Convolution,
    Layer,
    LayerNorm,
    Model,
    PositionEmbedding,
    Shape,
)
from .tensor import Activations, padded

__all__ = ["TokenActivations", "on_tokens", "token_layers"]


class TokenActivations(Activations):
    """Binary16 activations, or their gradients, as tiles of G tokens by G channels.

    Laid out ``[image][block of G tokens][word][G tokens][G channels]``: what attention multiplies
    with each other, tokens of an image, follows each other in memory. To all that works on each
    token by itself these are `Activations` of another shape: one block, a line for each image, a
    column for each block of tokens, and tokens where there are images. An image's last tile is
    completed by tokens that don't exist. Their activations have any value; their gradients are
    zero.

    Parameters
    ----------
    config, memory
        As usual.
    batch
        Images.
    image_shape
        Of each; its positions are the tokens.

    Attributes
    ----------
    batch, image_shape
        As given.
    """

    def __init__(self, config: Config, memory: Allocator, batch: int, image_shape: Shape) -> None:
        self.batch, self.image_shape = batch, image_shape
        blocks = padded(config, image_shape.positions) // config.elements
        super().__init__(
            config, memory, config.elements, Shape(batch, blocks, image_shape.channels)
        )

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.image_shape.positions

    def write(self, card: Card, values: ArrayLike) -> None:
        """Write images ``[images, height, width, channels]``, rounded to binary16.

        Fewer images than there is room for are followed by zeros.
        """
        with np.errstate(over="ignore"):
            half = np.asarray(values).astype("<f2")
        shape = self.image_shape
        expected = (shape.height, shape.width, shape.channels)
        if half.ndim != 4 or len(half) > self.batch or half.shape[1:] != expected:
            raise ValueError(f"there is room for {self.batch} images {shape}, got {half.shape}")
        g = self.config.elements
        whole = np.zeros((self.batch, self.shape.width * g, self.words * g), "<f2")
        whole[: len(half), : self.tokens, : shape.channels] = half.reshape(
            len(half), self.tokens, shape.channels
        )
        tiles = whole.reshape(self.batch, self.shape.width, g, self.words, g)
        self._write(card, tiles.transpose(0, 1, 3, 2, 4))

    def read(self, card: Card) -> NDArray[np.float16]:
        """Return the images ``[images, height, width, channels]`` without padding."""
        g, shape = self.config.elements, self.image_shape
        tiles = self.read_bytes(card).view("<f2")
        tiles = tiles.reshape(self.batch, self.shape.width, self.words, g, g)
        whole = tiles.transpose(0, 1, 3, 2, 4).reshape(self.batch, -1, self.words * g)
        kept = whole[:, : self.tokens, : shape.channels]
        return kept.reshape(self.batch, shape.height, shape.width, shape.channels)


def token_layers(model: Model) -> frozenset[Layer]:
    """Return the layers of a network whose outputs are `TokenActivations`.

    Those of attention and of position embeddings, and of whatever follows them and works on each
    token by itself, but for the logits.
    """
    chosen: set[Layer] = set()
    for layer in model.layers:
        by_itself = isinstance(layer, (LayerNorm, GELU, Addition)) or (
            isinstance(layer, Convolution) and (layer.kernel, layer.stride) == (1, 1)
        )
        if isinstance(layer, (Attention, PositionEmbedding)) or (
            by_itself and layer.sources[0] in chosen and layer is not model.logits
        ):
            chosen.add(layer)
    return frozenset(chosen)


def on_tokens(layer: Convolution, config: Config, batch: int) -> Convolution:
    """Return a convolution of one tap as the array computes it on `TokenActivations`."""
    blocks = padded(config, layer.source.shape.positions) // config.elements
    return layer.pointwise(Shape(batch, blocks, layer.inputs))
