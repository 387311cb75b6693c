"""Pooling, and other element-wise passes, on the vector unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtl.control.commands import Fold, Function, Mask, Stage, VectorOperand, VectorTarget

from ..model import GlobalAveragePool, MaxPool
from ..tensor import Activations
from .assembly import Assembly, nests
from .vectors import Feed, Vectors

__all__ = ["PoolingSchedule", "accumulate", "clear_phase"]


class PoolingSchedule:
    """Adds the passes of one pooling layer to a program.

    Parameters
    ----------
    assembly
        The program.
    layer
        The layer.
    """

    def __init__(self, assembly: Assembly, layer: MaxPool | GlobalAveragePool) -> None:
        self._assembly = assembly
        self._layer = layer

    def forward(self, x: Activations, y: Activations) -> None:
        """Add ``y = pool(x)``."""
        vectors = Vectors(self._assembly, Stage.FF)
        rows = self._assembly.config.elements
        layer = self._layer
        arithmetic: dict[str, Any]
        if isinstance(layer, MaxPool):
            function = Function.RELU if layer.relu else Function.IDENTITY
            arithmetic = {"a": 1.0, "fold": Fold.MAXIMUM, "function": function}
        else:
            arithmetic = {"a": 1 / x.shape.positions, "fold": Fold.SUM}
        for word in range(x.words):
            windows = self._windows(x, word)
            results = y.column(word)
            for first, count, _ in nests(results):
                part = slice(first, first + count)
                vectors.stream(
                    [Feed([tile for window in windows[part] for tile in window])],
                    groups=count,
                    window=len(windows[0]),
                    rows=rows,
                    target=VectorTarget.NARROW,
                    results=results[part],
                    **arithmetic,
                )

    def backward(
        self,
        x: Activations,
        y: Activations,
        dy: Activations,
        dx: Activations,
        *,
        mask: Activations | None,
    ) -> None:
        """Add the gradient by the input; of an average zero where `mask` isn't positive.

        A maximum gives its gradient to the first of its window that it came from, and zero to
        pixels in no window. It needs no mask: where its own ReLU was, or one before it, its
        gradient is zero already.
        """
        vectors = Vectors(self._assembly, Stage.BP)
        rows = self._assembly.config.elements
        for word in range(x.words):
            windows = self._windows(x, word)
            if isinstance(self._layer, MaxPool):
                pooled = zip(
                    y.column(word),
                    dy.column(word),
                    windows,
                    self._windows(dx, word),
                    strict=True,
                )
                for maximum, gradient, window, results in pooled:
                    # Tiles of a window are few: a command for each, whatever its shape.
                    vectors.stream(
                        [Feed([maximum, gradient]), Feed(window)],
                        groups=1,
                        held=2,
                        window=len(window),
                        rows=rows,
                        b=1.0,
                        y=VectorOperand.HELD_1,
                        mask=Mask.FIRST_EQUAL,
                        target=VectorTarget.NARROW,
                        results=results,
                    )
                left_out = self._left_out(dx, word)
                vectors.map([left_out], left_out, rows=rows)
                continue
            gradients = dy.column(word)
            repeated = [
                gradient
                for gradient, window in zip(gradients, windows, strict=True)
                for _ in window
            ]
            sources, masking = [repeated], Mask.NONE
            if mask is not None:
                sources, masking = [mask.column(word), repeated], Mask.HELD_0_POSITIVE
            vectors.map(
                sources,
                dx.column(word),
                rows=rows,
                a=1 / x.shape.positions,
                mask=masking,
            )

    def _windows(self, x: Activations, word: int) -> list[list[int]]:
        """Return the tiles of G channels that each tile of the output comes from."""
        shape, layer = x.shape, self._layer
        if isinstance(layer, GlobalAveragePool):
            tiles, positions = x.column(word), shape.positions
            return [tiles[first : first + positions] for first in range(0, len(tiles), positions)]
        side = layer.window
        return [
            [
                x.tile(block, y * side + down, xs * side + right, word)
                for down in range(side)
                for right in range(side)
            ]
            for block in range(x.batch_blocks)
            for y in range(shape.height // side)
            for xs in range(shape.width // side)
        ]

    def _left_out(self, x: Activations, word: int) -> list[int]:
        """Return the tiles of G channels that are in no window."""
        windows = self._windows(x, word)
        covered = {tile for window in windows for tile in window}
        return [tile for tile in x.column(word) if tile not in covered]


def accumulate(
    assembly: Assembly,
    gradients: Sequence[Activations],
    total: Activations,
    *,
    mask: Activations | None,
) -> None:
    """Add the sum of one or two gradients of a tensor, zero where `mask` isn't positive."""
    vectors = Vectors(assembly, Stage.BP)
    arithmetic: dict[str, Any] = {"b": 1.0, "y": VectorOperand.HELD_0} if len(gradients) > 1 else {}
    masks = [Mask.HELD_0_POSITIVE, Mask.HELD_1_POSITIVE]
    for word in range(total.words):
        sources = [gradient.column(word) for gradient in gradients]
        if mask is not None:
            sources.insert(len(sources) - 1, mask.column(word))
        vectors.map(
            sources,
            total.column(word),
            rows=assembly.config.elements,
            a=1.0,
            mask=Mask.NONE if mask is None else masks[len(gradients) - 1],
            **arithmetic,
        )


def clear_phase(
    assembly: Assembly,
    dx: Activations,
    phase: tuple[int, int],
    stride: int,
    *,
    add: Activations | None,
    mask: Activations | None,
) -> None:
    """Add what a convolution's backward product leaves out: pixels that none of its taps meets.

    They become zero, or what is to be added.
    """
    vectors = Vectors(assembly, Stage.BP)
    first_y, first_x = phase
    places = [
        (block, y, x)
        for block in range(dx.batch_blocks)
        for y in range(first_y, dx.shape.height, stride)
        for x in range(first_x, dx.shape.width, stride)
    ]
    for word in range(dx.words):

        def tiles(tensor: Activations, word: int = word) -> list[int]:
            return [tensor.tile(*place, word) for place in places]

        sources = [tiles(add if add is not None else dx)]
        masking = Mask.NONE
        if mask is not None and add is not None:
            sources.insert(0, tiles(mask))
            masking = Mask.HELD_0_POSITIVE
        vectors.map(
            sources,
            tiles(dx),
            rows=assembly.config.elements,
            a=None if add is None else 1.0,
            mask=masking,
        )
