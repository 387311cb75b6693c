"""Multi-head attention: products of activations on the array, softmax on the vector unit.

Tokens lie as `TokenActivations`, so that what a product takes of an image is whole tiles. Scores,
probabilities and their gradients are kept as tiles of G keys (rows) by G queries (columns): sums
and maxima over the keys of a query are then those of a column, and each product finds its operand
in them as it lies, or transposed by the LOAD. With ``S = Q K^T / sqrt(d)`` and ``P = softmax(S)``,
for each head of an image:

=============  ==================================  ==========================
result         rows b (D operand)                  rows a (S operand)
=============  ==================================  ==========================
``Q K^T``      keys                                queries
``P V``        queries: ``P``, transposed on load  channels of V, transposed
``dP``         values                              gradient of the output
``dV``         keys: ``P``                         channels of that gradient
``dQ``         queries: ``dS``, transposed         channels of K, transposed
``dK``         keys: ``dS``                        channels of Q, transposed
=============  ==================================  ==========================

``dS = P (dP - sum of P dP over the keys) / sqrt(d)``. The three steps of an image, products,
vectors, products, are added beside those of its neighbours, so that none waits for the one before.
(A. Vaswani et al., "Attention is all you need", 2017.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from rtl.control.commands import (
    Fold,
    Function,
    LoadOrder,
    LoadTarget,
    Stage,
    VectorOperand,
    VectorTarget,
)
from rtl.sparsity.pattern import Pattern

from ..layers import AttentionBuffers
from ..model import Attention
from ..program import descriptor, product
from ..tensor import Activations, padded
from ..tokens import TokenActivations
from .assembly import Assembly
from .patch import cut
from .pieces import Pieces, Reach
from .vectors import Feed, Register, Vectors
from .words import s_words

__all__ = ["AttentionSchedule"]

_LOG2_E = math.log2(math.e)

_AT_ONCE = 16
"""Columns of tiles, G queries of a head, whose sums are in registers at the same time, at most."""

_O_SHARES = 8
"""Results of up to four products wait in the O scratchpad; places are taken in turn, and the end of
the scratchpad may be left out."""

_Stores = list[dict[str, Any]]
"""Fields of STOREs that are still to be added to the program."""

_LARGEST, _OFFSET, _SUM = (Register(index * _AT_ONCE) for index in range(3))
_PARTS = Register(3 * _AT_ONCE)


def _at(first: Register, index: int) -> Register:
    return Register(first.number + index)


@dataclass(frozen=True)
class _Operand:
    """An operand of a product in memory.

    Attributes
    ----------
    rows, reduction
        Its size, without padding.
    fields
        Of its LOAD: tiles of G rows by G of the reduction, those of a block of rows one after the
        other.
    """

    rows: int
    reduction: int
    fields: dict[str, Any]


class AttentionSchedule:
    """Adds the passes of one attention to a program.

    Parameters
    ----------
    assembly
        The program.
    layer, buffers
        The layer.
    """

    def __init__(self, assembly: Assembly, layer: Attention, buffers: AttentionBuffers) -> None:
        self._assembly = assembly
        self._config = assembly.config
        self._layer = layer
        self._buffers = buffers
        self._width = layer.shape.channels // layer.heads
        self._scale = 1 / math.sqrt(self._width)
        self._at_once = min(_AT_ONCE, assembly.config.elements)

    # Passes

    def forward(self, x: TokenActivations, y: TokenActivations, *, reach: Reach) -> Pieces:
        """Add ``y = softmax(Q K^T / sqrt(d)) V``; `reach` is called before images of `x` are read.

        Raises
        ------
        ScheduleError
            The operands of a head don't fit the scratchpads.
        """
        buffers, stage = self._buffers, Stage.FF
        queries, keys, values = (self._words(part) for part in range(3))

        def scores(image: int) -> _Stores:
            reach(0, image + 1)
            return self._multiply(
                stage,
                lambda head: self._rows(x, image, keys, head),
                lambda head: self._rows(x, image, queries, head),
                lambda heads: self._columns(buffers.scores, image, heads),
            )

        def softmax(image: int) -> None:
            columns = self._tile_columns(image)
            for first in range(0, len(columns), self._at_once):
                self._softmax(columns[first : first + self._at_once])

        def outputs(image: int) -> _Stores:
            return self._multiply(
                stage,
                lambda head: self._pairs(buffers.probabilities, image, head, transpose=True),
                lambda head: self._channels(x, image, values, head),
                lambda heads: self._tokens(y, image, 0, heads),
            )

        yield from self._overlap(stage, x.batch, scores, softmax, outputs)

    def backward(self, x: TokenActivations, dy: TokenActivations, dx: TokenActivations) -> Pieces:
        """Add the gradient by queries, keys and values.

        Parameters
        ----------
        x
            Queries, keys and values, as `forward` read them.
        dy, dx
            Gradients by the output and by the input.

        Raises
        ------
        ScheduleError
            The operands of a head don't fit the scratchpads.
        """
        buffers, stage = self._buffers, Stage.BP
        queries, keys, values = (self._words(part) for part in range(3))

        def probability_gradients(image: int) -> _Stores:
            stores = self._multiply(
                stage,
                lambda head: self._rows(x, image, values, head),
                lambda head: self._rows(dy, image, 0, head),
                lambda heads: self._columns(buffers.scores, image, heads),
            )
            return stores + self._multiply(
                stage,
                lambda head: self._pairs(buffers.probabilities, image, head, transpose=False),
                lambda head: self._channels(dy, image, 0, head),
                lambda heads: self._tokens(dx, image, values, heads),
            )

        def score_gradients(image: int) -> None:
            columns = self._tile_columns(image)
            for first in range(0, len(columns), self._at_once):
                self._back_through_softmax(columns[first : first + self._at_once])

        def input_gradients(image: int) -> _Stores:
            slopes = buffers.score_gradients
            stores = self._multiply(
                stage,
                lambda head: self._pairs(slopes, image, head, transpose=True),
                lambda head: self._channels(x, image, keys, head),
                lambda heads: self._tokens(dx, image, queries, heads),
            )
            return stores + self._multiply(
                stage,
                lambda head: self._pairs(slopes, image, head, transpose=False),
                lambda head: self._channels(x, image, queries, head),
                lambda heads: self._tokens(dx, image, keys, heads),
            )

        yield from self._overlap(
            stage, x.batch, probability_gradients, score_gradients, input_gradients
        )

    def _overlap(
        self,
        stage: Stage,
        images: int,
        first: Callable[[int], _Stores],
        vectors: Callable[[int], None],
        last: Callable[[int], _Stores],
    ) -> Pieces:
        """Add the steps of all images, each beside the next one of the image before.

        The first and the last are products. Their operands are loaded while results are stored:
        neither waits for the vector unit, whose turn is between them.
        """
        for number in range(images + 2):
            stores: _Stores = []
            for step, image in ((first, number), (last, number - 2)):
                if 0 <= image < images:
                    stores += step(image)
            if 0 <= number - 1 < images:
                vectors(number - 1)
            self._store(stage, stores)
            # The array waits for memory; there's no time to fill.
            yield 0

    # Softmax

    def _softmax(self, columns: Sequence[tuple[int, int]]) -> None:
        """Add the probabilities of some columns of tiles: of each its head of an image, and number.

        With ``t = log2(e) / sqrt(d)`` and the largest score ``m`` of a query, ``p = 2**(t x - t m -
        log2(sum 2**(t x - t m)))``.
        """
        vectors, rows = Vectors(self._assembly, Stage.FF), len(columns)
        t = _LOG2_E * self._scale
        tiles = [self._key_tiles(self._buffers.scores, column) for column in columns]
        for index, column in enumerate(tiles):
            self._reduce(vectors, column, Fold.MAXIMUM, _at(_LARGEST, index), a=1.0)
        vectors.compute(_OFFSET, _LARGEST, a=-t, rows=rows)
        power: dict[str, Any] = {"a": t, "function": Function.EXP2}
        for index, column in enumerate(tiles):
            offset = _at(_OFFSET, index)
            self._reduce(vectors, column, Fold.SUM, _at(_SUM, index), c=offset, **power)
        vectors.compute(_SUM, _SUM, function=Function.LOG2, rows=rows)
        vectors.compute(_OFFSET, _OFFSET, b=-1.0, y=_SUM, rows=rows)
        for index, (column, place) in enumerate(zip(tiles, columns, strict=True)):
            results = self._key_tiles(self._buffers.probabilities, place)
            for part, keys in self._key_parts(column):
                vectors.stream(
                    [Feed(column[part])],
                    groups=len(column[part]),
                    rows=keys,
                    c=_at(_OFFSET, index),
                    target=VectorTarget.NARROW,
                    results=results[part],
                    **power,
                )

    def _reduce(
        self,
        vectors: Vectors,
        tiles: Sequence[int],
        fold: Fold,
        into: Register,
        **arithmetic: Any,
    ) -> None:
        """Add the sum or the maximum over all keys of a column of tiles."""
        parts = self._key_parts(tiles)
        for number, (part, keys) in enumerate(parts):
            vectors.stream(
                [Feed(tiles[part])],
                groups=len(tiles[part]),
                rows=keys,
                reduce=fold,
                into=_at(_PARTS, number) if len(parts) > 1 else into,
                **arithmetic,
            )
        if len(parts) > 1:
            vectors.compute(None, _PARTS, rows=len(parts), reduce=fold, into=into)

    def _back_through_softmax(self, columns: Sequence[tuple[int, int]]) -> None:
        """Add the gradients of the scores of some columns of tiles.

        Keys that don't exist have the probability zero, so that whole tiles are taken.
        """
        vectors, rows = Vectors(self._assembly, Stage.BP), self._config.elements
        buffers = self._buffers
        pairs = [
            list(
                chain.from_iterable(
                    zip(
                        self._key_tiles(buffers.probabilities, column),
                        self._key_tiles(buffers.scores, column),
                        strict=True,
                    )
                )
            )
            for column in columns
        ]
        together: dict[str, Any] = {"held": 1, "y": VectorOperand.HELD_0, "rows": rows}
        for index, tiles in enumerate(pairs):
            vectors.stream(
                [Feed(tiles)],
                groups=len(tiles) // 2,
                a=1.0,
                product_into=_at(_SUM, index),
                **together,
            )
        vectors.compute(_OFFSET, _SUM, a=-self._scale, rows=len(columns))
        for index, (tiles, column) in enumerate(zip(pairs, columns, strict=True)):
            vectors.stream(
                [Feed(tiles)],
                groups=len(tiles) // 2,
                a=self._scale,
                c=_at(_OFFSET, index),
                times_y=True,
                target=VectorTarget.NARROW,
                results=self._key_tiles(buffers.score_gradients, column),
                **together,
            )

    def _tile_columns(self, image: int) -> list[tuple[int, int]]:
        """Return the columns of tiles of all heads of an image: its head, and which one it is."""
        heads = range(image * self._layer.heads, (image + 1) * self._layer.heads)
        return [(head, column) for head in heads for column in range(self._blocks)]

    def _key_tiles(self, tensor: Activations, column: tuple[int, int]) -> list[int]:
        head, number = column
        return [tensor.tile(0, head, number, block) for block in range(self._blocks)]

    def _key_parts(self, tiles: Sequence[int]) -> list[tuple[slice, int]]:
        """Return which tiles of a column have how many keys: whole ones, and the last one."""
        g = self._config.elements
        whole, rest = divmod(self._layer.shape.positions, g)
        parts = [(slice(0, whole), g), (slice(whole, len(tiles)), rest)]
        return [(part, rows) for part, rows in parts if rows and part.start < part.stop]

    # Products

    def _multiply(
        self,
        stage: Stage,
        d: Callable[[int], _Operand],
        s: Callable[[int], _Operand],
        result: Callable[[range], dict[str, Any]],
    ) -> _Stores:
        """Add a product for each head of an image, side by side in the O scratchpad.

        Parameters
        ----------
        stage
            Part of a training step.
        d, s
            Return the operands of a head.
        result
            Returns the descriptor of where the results of some heads go, which one STORE writes.

        Returns
        -------
        The fields of STOREs that are still to be added.
        """
        config, assembly, program = self._config, self._assembly, self._assembly.program
        g = config.elements
        context = f"{self._layer.name}, {stage.name}"
        rows_a, rows_b, reduction = s(0).rows, d(0).rows, s(0).reduction
        a, b = padded(config, rows_a), padded(config, rows_b)
        fields = product(
            config,
            Pattern.DENSE,
            a=a,
            b=b,
            k=reduction,
            a_padding=a - rows_a,
            b_padding=b - rows_b,
        )
        # The rows that complete the last tile of the array have places, too.
        bank_rows = fields["b_tiles"] * (config.interleave >> fields["a_contexts"])
        d_words, o_words = fields["d_words"], a // config.floats
        s_size, d_size = a // g * s_words(config, Pattern.DENSE, d_words), bank_rows * d_words
        for ring, words in (
            (assembly.s, s_size),
            (assembly.d, d_size),
            (assembly.o, bank_rows * o_words),
        ):
            assembly.need(context, ring, words)
        at_once = max(assembly.o.depth // _O_SHARES // (bank_rows * o_words), 1)
        stores: _Stores = []
        for heads in cut(self._layer.heads, at_once):
            self._store(stage, stores)
            stride = len(heads) * o_words
            o_base = assembly.o.take(bank_rows * stride)
            for index, head in enumerate(heads):
                s_base, d_base = assembly.s.take(s_size), assembly.d.take(d_size)
                for target, base, rows, operand in (
                    (LoadTarget.S, s_base, a, s(head)),
                    (LoadTarget.D, d_base, b, d(head)),
                ):
                    program.load(
                        target,
                        stage,
                        order=LoadOrder.TILES,
                        pattern=Pattern.DENSE,
                        base=base,
                        rows=rows,
                        d_words=d_words,
                        **operand.fields,
                    )
                program.compute(
                    stage,
                    s_base=s_base,
                    d_base=d_base,
                    o_base=o_base + index * o_words,
                    o_stride=stride,
                    **fields,
                )
            stores = [
                {
                    "o_base": o_base,
                    "o_stride": stride,
                    "rows": b,
                    "words": stride,
                    "descriptor": result(heads),
                }
            ]
        # What doesn't fit its share of the scratchpad can't wait.
        if bank_rows * o_words * at_once * _O_SHARES > assembly.o.depth:
            self._store(stage, stores)
            stores = []
        return stores

    def _store(self, stage: Stage, stores: _Stores) -> None:
        for fields in stores:
            self._assembly.program.store(stage, convert=1, **fields)

    def _rows(self, x: TokenActivations, image: int, first: int, head: int) -> _Operand:
        """Return the tokens of an image as rows, to be reduced over the channels of a head.

        Those of the first head begin with word `first`.
        """
        g = self._config.elements
        return _Operand(
            rows=self._layer.shape.positions,
            reduction=self._width,
            fields={
                "descriptor": descriptor(
                    self._config,
                    x.tile(0, image, 0, first + head * self._head_words),
                    self._head_words * g,
                    (self._blocks, x.position_bytes),
                )
            },
        )

    def _channels(self, x: TokenActivations, image: int, first: int, head: int) -> _Operand:
        """Return the channels of a head as rows, to be reduced over tokens."""
        return _Operand(
            rows=self._width,
            reduction=self._layer.shape.positions,
            fields={
                "transpose": 1,
                "descriptor": descriptor(
                    self._config,
                    x.tile(0, image, 0, first + head * self._head_words),
                    self._config.elements,
                    (self._blocks, x.position_bytes),
                    (self._head_words, x.tile_bytes),
                ),
            },
        )

    def _pairs(self, tensor: Activations, image: int, head: int, *, transpose: bool) -> _Operand:
        """Return what there is for each key and query: keys as rows, or queries if transposed."""
        g, blocks = self._config.elements, self._blocks
        number = image * self._layer.heads + head
        queries = (blocks, tensor.position_bytes)
        keys = (blocks, tensor.tile_bytes)
        loops = (keys, queries) if transpose else (queries, keys)
        return _Operand(
            rows=self._layer.shape.positions,
            reduction=self._layer.shape.positions,
            fields={
                "transpose": int(transpose),
                "descriptor": descriptor(self._config, tensor.tile(0, number, 0, 0), g, *loops),
            },
        )

    def _columns(self, tensor: Activations, image: int, heads: range) -> dict[str, Any]:
        """Return where products of keys by queries go: a row has the queries of all heads."""
        config = self._config
        return descriptor(
            config,
            tensor.tile(0, image * self._layer.heads + heads.start, 0, 0),
            1,
            (self._blocks, tensor.position_bytes),
            (len(heads), tensor.line_bytes),
            (self._blocks * config.elements, config.beat_bytes),
        )

    def _tokens(self, y: TokenActivations, image: int, first: int, heads: range) -> dict[str, Any]:
        """Return where products of tokens by channels go: a row has the channels of all heads."""
        config = self._config
        return descriptor(
            config,
            y.tile(0, image, 0, first + heads.start * self._head_words),
            1,
            (len(heads) * self._head_words, y.tile_bytes),
            (config.elements, config.beat_bytes),
            (self._blocks, y.position_bytes),
        )

    # Sizes

    @property
    def _head_words(self) -> int:
        """D words of a head's channels."""
        return self._width // self._config.elements

    @property
    def _blocks(self) -> int:
        """Blocks of G tokens in an image."""
        return padded(self._config, self._layer.shape.positions) // self._config.elements

    def _words(self, part: int) -> int:
        """Return the first word of the queries, the keys or the values."""
        return part * self._layer.heads * self._head_words
