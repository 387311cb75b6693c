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

``dS = P (dP - sum of P dP over the keys) / sqrt(d)``. Products, vectors, products: each step is a
schedule of its own, so that the array works on other layers or images while the vector unit does on
these. (A. Vaswani et al., "Attention is all you need", 2017.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from .pieces import Needs, Pieces, Steps, Written
from .vectors import Feed, Register, Vectors
from .words import product_slots, s_words

__all__ = ["AttentionSchedule"]

_LOG2_E = math.log2(math.e)

_AT_ONCE = 16
"""Columns of tiles, G queries of a head, whose sums are in registers at the same time, at most."""

_O_SHARES = 4
"""Results of some products wait in the O scratchpad to be stored; places are taken in turn, and the
end of the scratchpad may be left out."""

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

    # Forward

    def scores(self, x: TokenActivations) -> Steps:
        """Add ``Q K^T``, an image a piece.

        Raises
        ------
        ScheduleError
            The operands of a head don't fit the scratchpads.
        """
        scores = self._buffers.scores
        queries, keys = self._words(0), self._words(1)
        for image in range(x.batch):
            yield Needs(x, 0, image + 1)
            yield self._multiply(
                Stage.FF,
                partial(self._rows, x, image, keys),
                partial(self._rows, x, image, queries),
                partial(self._columns, scores, image),
            )
            yield Written(scores, scores.line_tiles(0, self._heads(image)))

    def softmax(self) -> Steps:
        """Add the probabilities, an image after the other."""
        buffers, vectors = self._buffers, Vectors(self._assembly, Stage.FF)
        for image in range(self._images):
            heads = self._heads(image)
            yield Needs(buffers.scores, 0, heads.stop)
            for columns in self._tile_columns(image):
                self._softmax(vectors, columns)
                yield vectors.elapsed()
            yield Written(buffers.probabilities, buffers.probabilities.line_tiles(0, heads))

    def outputs(self, x: TokenActivations, y: TokenActivations) -> Steps:
        """Add ``y = P V``, an image a piece.

        Raises
        ------
        ScheduleError
            The operands of a head don't fit the scratchpads.
        """
        probabilities, values = self._buffers.probabilities, self._words(2)
        for image in range(x.batch):
            yield Needs(probabilities, 0, self._heads(image).stop)
            yield self._multiply(
                Stage.FF,
                partial(self._pairs, probabilities, image, transpose=True),
                partial(self._channels, x, image, values),
                partial(self._tokens, y, image, 0),
            )
            yield Written(y, y.line_tiles(0, range(image, image + 1)))

    # Backward

    def value_gradients(
        self, x: TokenActivations, dy: TokenActivations, dx: TokenActivations
    ) -> Pieces:
        """Add the gradients of probabilities and values, an image a piece.

        Parameters
        ----------
        x
            Queries, keys and values, as the forward pass read them.
        dy, dx
            Gradients by the output and by the input.

        Raises
        ------
        ScheduleError
            The operands of a head don't fit the scratchpads.
        """
        buffers, values = self._buffers, self._words(2)
        for image in range(x.batch):
            cycles = self._multiply(
                Stage.BP,
                partial(self._rows, x, image, values),
                partial(self._rows, dy, image, 0),
                partial(self._columns, buffers.scores, image),
            )
            cycles += self._multiply(
                Stage.BP,
                partial(self._pairs, buffers.probabilities, image, transpose=False),
                partial(self._channels, dy, image, 0),
                partial(self._tokens, dx, image, values),
            )
            yield cycles

    def score_gradients(self) -> Pieces:
        """Add the gradients of the scores, from those of the probabilities."""
        vectors = Vectors(self._assembly, Stage.BP)
        for image in range(self._images):
            for columns in self._tile_columns(image):
                self._back_through_softmax(vectors, columns)
                yield vectors.elapsed()

    def input_gradients(self, x: TokenActivations, dx: TokenActivations) -> Pieces:
        """Add the gradients of queries and keys, an image a piece."""
        slopes = self._buffers.score_gradients
        queries, keys = self._words(0), self._words(1)
        for image in range(x.batch):
            cycles = self._multiply(
                Stage.BP,
                partial(self._pairs, slopes, image, transpose=True),
                partial(self._channels, x, image, keys),
                partial(self._tokens, dx, image, queries),
            )
            cycles += self._multiply(
                Stage.BP,
                partial(self._pairs, slopes, image, transpose=False),
                partial(self._channels, x, image, queries),
                partial(self._tokens, dx, image, keys),
            )
            yield cycles

    # Softmax

    def _softmax(self, vectors: Vectors, columns: Sequence[tuple[int, int]]) -> None:
        """Add the probabilities of some columns of tiles: of each its head of an image, and number.

        With ``t = log2(e) / sqrt(d)`` and the largest score ``m`` of a query, ``p = 2**(t x - t m -
        log2(sum 2**(t x - t m)))``.
        """
        rows, t = len(columns), _LOG2_E * self._scale
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

    def _back_through_softmax(self, vectors: Vectors, columns: Sequence[tuple[int, int]]) -> None:
        """Add the gradients of the scores of some columns of tiles.

        Keys that don't exist have the probability zero, so that whole tiles are taken.
        """
        buffers, rows = self._buffers, self._config.elements
        pairs = [
            list(
                itertools.chain.from_iterable(
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

    def _tile_columns(self, image: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the columns of tiles of all heads of an image: its head, and which one it is.

        As many at once as there are registers for, and as a VECTOR has rows.
        """
        columns = list(itertools.product(self._heads(image), range(self._blocks)))
        for some in cut(len(columns), min(_AT_ONCE, self._config.elements)):
            yield columns[some.start : some.stop]

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
    ) -> int:
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
        About how many cycles it takes.
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
        for heads in cut(self._layer.heads, at_once):
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
            program.store(
                stage,
                o_base=o_base,
                o_stride=stride,
                rows=b,
                words=stride,
                convert=1,
                descriptor=result(heads),
            )
        return self._layer.heads * product_slots(config, fields)

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
    def _images(self) -> int:
        """Images of a batch."""
        return self._buffers.scores.shape.height // self._layer.heads

    def _heads(self, image: int) -> range:
        """Return the numbers of an image's heads among those of all images."""
        return range(image * self._layer.heads, (image + 1) * self._layer.heads)

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
