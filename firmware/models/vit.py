"""Vision transformers."""

from __future__ import annotations

from ..model import (
    DENSE,
    GELU,
    Attention,
    Convolution,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    Method,
    Model,
    PositionEmbedding,
    Shape,
    linear,
)
from .builder import CIFAR, Builder

__all__ = ["vit_small"]

_DEPTH = 12
_WIDTH = 384
_HEADS = 6
_HIDDEN = 4 * _WIDTH

_EPSILON = 1e-6


def vit_small(
    method: Method, *, images: Shape = CIFAR, classes: int = 100, patch: int = 4
) -> Model:
    """Return ViT-S for CIFAR: 64 tokens.

    (A. Dosovitskiy et al., "An image is worth 16x16 words", 2020, with the width, depth and heads
    of H. Touvron et al., "Training data-efficient image transformers", 2020, table 1. The classes
    follow from the mean of all tokens and one layer, as in L. Beyer et al., "Better plain ViT
    baselines for ImageNet-1k", 2022.)

    Parameters
    ----------
    method
        How the weights between the patches' embedding and the last layer are pruned.
    images
        Shape of the images.
    classes
        Its outputs.
    patch
        Side of the patches that become tokens.
    """
    builder = Builder(images)
    x: Layer = builder.add(
        Convolution, "patches", builder.input, _WIDTH, kernel=patch, stride=patch, bias=True
    )
    x = builder.add(PositionEmbedding, "positions", x)

    def project(name: str, source: Layer, outputs: int, add: Layer | None = None) -> Layer:
        return builder.add(Convolution, name, source, outputs, bias=True, add=add, method=method)

    for index in range(_DEPTH):
        name = f"block {index + 1}"
        y: Layer = builder.add(LayerNorm, f"{name} attention norm", x, epsilon=_EPSILON)
        y = project(f"{name} queries, keys, values", y, 3 * _WIDTH)
        y = builder.add(Attention, f"{name} attention", y, heads=_HEADS)
        x = project(f"{name} attention outputs", y, _WIDTH, add=x)
        y = builder.add(LayerNorm, f"{name} mlp norm", x, epsilon=_EPSILON)
        y = project(f"{name} mlp hidden", y, _HIDDEN)
        y = builder.add(GELU, f"{name} mlp gelu", y)
        x = project(f"{name} mlp outputs", y, _WIDTH, add=x)
    x = builder.add(LayerNorm, "norm", x, epsilon=_EPSILON)
    x = builder.add(GlobalAveragePool, "mean", x)
    builder.add(linear, "classes", x, classes, method=DENSE)
    return builder.model("vit-small")
