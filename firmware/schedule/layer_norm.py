"""Layer normalisation on the vector unit.

The unit sums up columns, and here each row is to be summed up: so the statistics are taken, and
applied, of transposed tiles, a column for each token. Gain and shift belong to channels and are
applied to the tiles as they were. Backward, with ``g = gain * dy`` and its means ``m`` and, of its
product with the normalised input ``n``, ``t``::

    dx = inverse * (g - m - n * t) = inverse * g + b * x + c
    b = -inverse**2 * t        c = -inverse * (m + offset * t)

where ``n = inverse * x + offset``. (J. L. Ba et al., "Layer normalization", 2016.)
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import chain

from rtl.control.commands import Fold, Function, Stage, VectorOperand, VectorTarget

from ..layers import LayerNormBuffers, LayerNormTensors
from ..model import LayerNorm
from ..tensor import Activations
from .assembly import Assembly
from .patch import cut
from .pieces import PIECE_BEATS, Needs, Steps, Written, line_pieces
from .vectors import Feed, Register, Vectors

__all__ = ["LayerNormSchedule"]

(
    _SUM,
    _PRODUCTS,
    _INVERSE,
    _OFFSET,
    _ALONG,
    _X_FACTOR,
    _SUMMAND,
    _SCRATCH,
) = (Register(number) for number in range(8))

# Of a word of channels, in the order of their record.
_GAIN, _SHIFT, _GAIN_MOMENTUM, _SHIFT_MOMENTUM, _GAIN_GRADIENT, _SHIFT_GRADIENT = (
    Register(number) for number in range(10, 16)
)


class _Statistic(enum.IntEnum):
    """Of tokens, forward: each takes as many registers as there are places at once."""

    SUM = 0
    PRODUCTS = 1
    MEAN = 2
    VARIANCE = 3
    INVERSE = 4
    OFFSET = 5


_PARTS = Register(16)
"""From here on, sums of parts: first of all products, then of all values."""

_MOST_PARTS = 24

_AT_ONCE = 4
"""Places, of G tokens each, whose statistics are in registers at the same time."""

_UPDATE_CYCLES = 600
"""What the update of the gains and shifts of G channels takes, about."""


class LayerNormSchedule:
    """Adds the passes of one layer normalisation to a program.

    Parameters
    ----------
    assembly
        The program.
    layer, tensors, buffers
        The layer.
    """

    def __init__(
        self,
        assembly: Assembly,
        layer: LayerNorm,
        tensors: LayerNormTensors,
        buffers: LayerNormBuffers,
    ) -> None:
        self._assembly = assembly
        self._config = assembly.config
        self._layer = layer
        self._records = tensors.records
        self._buffers = buffers

    def forward(self, x: Activations, y: Activations) -> Steps:
        """Add ``y = gain * n + shift``."""
        vectors, g = Vectors(self._assembly, Stage.FF), self._config.elements
        for block, lines in line_pieces(x, 1):
            yield Needs(x, block, lines.stop)
            places = [(block, line, column) for line in lines for column in range(x.shape.width)]
            for some in cut(len(places), _AT_ONCE):
                self._normalise(vectors, x, places[some.start : some.stop])
                yield vectors.elapsed()
            for words in cut(x.words, g // 2):
                gains = self._records.rows(words, "gain", 2)
                vectors.read_registers(Register(0), 2 * len(words), gains)
                for index, word in enumerate(words):
                    vectors.stream(
                        [Feed(self._buffers.normal.tiles(word, block, lines), transpose=True)],
                        groups=len(places),
                        rows=g,
                        a=Register(index),
                        c=Register(len(words) + index),
                        target=VectorTarget.NARROW,
                        results=y.tiles(word, block, lines),
                    )
                yield vectors.elapsed()
            yield Written(y, y.line_tiles(block, lines))

    def _normalise(
        self, vectors: Vectors, x: Activations, places: Sequence[tuple[int, int, int]]
    ) -> None:
        """Add the statistics of G tokens at each of these places, and their normalised values."""
        buffers, layer, rows = self._buffers, self._layer, len(places)

        def registers(value: _Statistic) -> list[Register]:
            return [Register(value * rows + index) for index in range(rows)]

        totals, products, means, variances, inverses, offsets = map(registers, _Statistic)
        for place, total, product in zip(places, totals, products, strict=True):
            vectors.stream(
                [Feed([x.tile(*place, word) for word in range(x.words)], transpose=True)],
                groups=x.words,
                rows=self._config.elements,
                a=1.0,
                y=VectorOperand.X,
                reduce=Fold.SUM,
                into=total,
                product_into=product,
            )
        share = 1 / x.shape.channels
        vectors.compute(means[0], totals[0], a=share, rows=rows)
        for mean, product, variance in zip(means, products, variances, strict=True):
            # Rounding must not make it negative.
            vectors.compute(variance, product, a=share, b=-mean, y=mean, function=Function.RELU)
        vectors.compute(
            inverses[0], variances[0], c=layer.epsilon, function=Function.RSQRT, rows=rows
        )
        for mean, inverse, offset in zip(means, inverses, offsets, strict=True):
            vectors.compute(offset, mean, a=-inverse)
        number = self._number(x, places[0])
        numbers = range(number, number + rows)
        vectors.write_registers(
            inverses[0], 2 * rows, buffers.statistics.rows(numbers, "inverse", 2)
        )
        for place, inverse, offset in zip(places, inverses, offsets, strict=True):
            for words, channels in self._words(x):
                vectors.stream(
                    [Feed([x.tile(*place, word) for word in words], transpose=True)],
                    groups=len(words),
                    rows=channels,
                    a=inverse,
                    c=offset,
                    target=VectorTarget.NARROW,
                    results=[buffers.normal.tile(*place, word) for word in words],
                )

    def backward(
        self, x: Activations, dy: Activations, dx: Activations, *, updated: LayerNormTensors
    ) -> Steps:
        """Add the gradient of the input, and those of what is learned, with its update.

        Parameters
        ----------
        x
            The input, as `forward` read it.
        dy, dx
            Gradients by the output and by the input.
        updated
            Receives what the next step needs.
        """
        vectors, buffers = Vectors(self._assembly, Stage.BP), self._buffers
        g = self._config.elements
        for block, lines in line_pieces(x, 1):
            yield Needs(dy, block, lines.stop)
            places = [(block, line, column) for line in lines for column in range(x.shape.width)]
            for words in cut(x.words, g):
                gains = self._records.rows(words, "gain", 1)
                vectors.read_registers(Register(0), len(words), gains)
                for index, word in enumerate(words):
                    vectors.stream(
                        [Feed(dy.tiles(word, block, lines))],
                        groups=len(places),
                        rows=g,
                        a=Register(index),
                        target=VectorTarget.NARROW,
                        results=buffers.scaled.tiles(word, block, lines),
                    )
                yield vectors.elapsed()
            for place in places:
                self._add_gradient(vectors, x, place)
                yield vectors.elapsed()
            tiles = dx.line_tiles(block, lines)
            vectors.stream(
                [Feed(buffers.gradient.line_tiles(block, lines), transpose=True)],
                groups=len(tiles),
                rows=g,
                a=1.0,
                target=VectorTarget.NARROW,
                results=tiles,
            )
            yield vectors.elapsed()
            yield Written(dx, tiles)
        for word in range(x.words):
            yield self._learn(vectors, dy, word, updated)

    def _learn(
        self, vectors: Vectors, dy: Activations, word: int, updated: LayerNormTensors
    ) -> int:
        """Add the gradients of gain and shift of G channels, and their update.

        Returns about how many cycles it takes.
        """
        config, records = self._config, self._records
        pairs = list(zip(self._buffers.normal.column(word), dy.column(word), strict=True))
        # Tiles that are transposed and others by turns take more than twice their beats.
        size = max(PIECE_BEATS // (8 * config.elements), -(-len(pairs) // _MOST_PARTS))
        parts = [pairs[first : first + size] for first in range(0, len(pairs), size)]
        for number, part in enumerate(parts):
            feeds = [(Feed([normal], transpose=True), Feed([slope])) for normal, slope in part]
            vectors.stream(
                list(chain.from_iterable(feeds)),
                groups=len(part),
                rows=config.elements,
                held=1,
                a=1.0,
                y=VectorOperand.HELD_0,
                reduce=Fold.SUM,
                into=Register(_PARTS.number + _MOST_PARTS + number),
                product_into=Register(_PARTS.number + number),
            )
        for first, gradient in ((0, _GAIN_GRADIENT), (_MOST_PARTS, _SHIFT_GRADIENT)):
            vectors.compute(
                None,
                Register(_PARTS.number + first),
                rows=len(parts),
                reduce=Fold.SUM,
                into=gradient,
            )
        vectors.fill(records, word, 4, _GAIN)
        vectors.spill(records, word, "gain_gradient", 2, _GAIN_GRADIENT)
        update = Vectors(self._assembly, Stage.UPDATE)
        for value, momentum, gradient in (
            (_GAIN, _GAIN_MOMENTUM, _GAIN_GRADIENT),
            (_SHIFT, _SHIFT_MOMENTUM, _SHIFT_GRADIENT),
        ):
            update.descend(value, momentum, gradient)
        update.spill(updated.records, word, "gain", 4, _GAIN)
        return 5 * len(pairs) * config.elements + _UPDATE_CYCLES

    def _add_gradient(self, vectors: Vectors, x: Activations, place: tuple[int, int, int]) -> None:
        """Add the gradient of G tokens, its tiles transposed."""
        buffers, count = self._buffers, x.shape.channels
        pairs = [
            (x.tile(*place, word), buffers.scaled.tile(*place, word)) for word in range(x.words)
        ]
        vectors.stream(
            [Feed(list(chain.from_iterable(pairs)), transpose=True)],
            groups=len(pairs),
            rows=self._config.elements,
            held=1,
            a=1.0,
            y=VectorOperand.HELD_0,
            reduce=Fold.SUM,
            into=_SUM,
            product_into=_PRODUCTS,
        )
        vectors.fill(buffers.statistics, self._number(x, place), 2, _INVERSE)
        # The mean of g * n: products with n are those with x, moved and scaled.
        vectors.compute(_ALONG, _PRODUCTS, a=_INVERSE)
        vectors.compute(_SCRATCH, _SUM, a=_OFFSET)
        vectors.compute(_ALONG, _ALONG, a=1 / count, b=1 / count, y=_SCRATCH)
        vectors.compute(_SCRATCH, _INVERSE, a=-_INVERSE)
        vectors.compute(_X_FACTOR, _SCRATCH, a=_ALONG)
        vectors.compute(_SCRATCH, _SUM, a=1 / count, b=_OFFSET, y=_ALONG)
        vectors.compute(_SUMMAND, _SCRATCH, a=-_INVERSE)
        for words, rows in self._words(x):
            vectors.stream(
                [Feed([tile for word in words for tile in pairs[word]], transpose=True)],
                groups=len(words),
                rows=rows,
                held=1,
                a=_INVERSE,
                b=_X_FACTOR,
                c=_SUMMAND,
                y=VectorOperand.HELD_0,
                target=VectorTarget.NARROW,
                results=[buffers.gradient.tile(*place, word) for word in words],
            )

    def _words(self, x: Activations) -> list[tuple[range, int]]:
        """Return the words of a token, and how many of their channels aren't padding."""
        g = self._config.elements
        whole, rest = divmod(x.shape.channels, g)
        parts = [(range(whole), g), (range(whole, whole + 1), rest)]
        return [(words, rows) for words, rows in parts if words and rows]

    def _number(self, x: Activations, place: tuple[int, int, int]) -> int:
        """Return the number of a tile among those of its word."""
        block, line, column = place
        return (block * x.shape.height + line) * x.shape.width + column
