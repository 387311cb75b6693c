"""Batch normalisation on the vector unit.

Two passes over a tensor: sums of a channel's values and of their squares, then ``factor * x +
summand``; between them the few numbers of each channel. Backward likewise: sums of the gradient and
of its product with ``x``, then ``factor * dy + b * x + c``. (S. Ioffe and C. Szegedy, "Batch
normalization", 2015; the backward pass written as one linear combination of ``dy`` and ``x``.)
"""

from __future__ import annotations

import enum
from typing import Any

from rtl.config import VECTOR_REGISTERS
from rtl.control.commands import Function, Mask, Stage, VectorOperand

from ..errors import ScheduleError
from ..layers import BatchNormTensors
from ..model import BatchNorm
from ..tensor import Activations
from .assembly import Assembly
from .patch import cut
from .pieces import Needs, Pieces, Steps, Written, line_pieces
from .statistics import Statistics
from .vectors import Register, Vectors

__all__ = ["NormalisationSchedule"]

# Registers: the first values of the record of G channels as it lies in memory, then what comes up
# on the way.
(
    _GAIN,
    _SHIFT,
    _AVERAGE,
    _AVERAGE_VARIANCE,
    _GAIN_MOMENTUM,
    _SHIFT_MOMENTUM,
    _MEAN,
    _INVERSE,
    _FACTOR,
    _SUMMAND,
    _GAIN_GRADIENT,
    _SHIFT_GRADIENT,
    _SUM,
    _PRODUCTS,
    _SCRATCH,
    _X_FACTOR,
    _BACKWARD_SUMMAND,
) = (Register(number) for number in range(17))

_PARTIAL_SUMS = [Register(number) for number in range(_BACKWARD_SUMMAND.number + 1, 64)]

_FORWARD_VALUES = 10
"""Values of a record that a backward pass reads."""

_LASTING_VALUES = 6
"""Values that the next step needs: what is learned, with its momentum, and the averages."""

_UPDATE_CYCLES = 600
"""What the arithmetic between the two backward passes takes for G channels, about."""


class _Batch(enum.IntEnum):
    """What comes up while the statistics of a batch are made use of, in registers.

    Of several words at once: each takes as many registers. First what is read of the records, then
    what `Statistics` gives, and from the mean on what is written to the records.
    """

    GAIN = 0
    SHIFT = 1
    AVERAGE = 2
    AVERAGE_VARIANCE = 3
    VARIANCE = 4
    MEAN = 5
    INVERSE = 6
    FACTOR = 7
    SUMMAND = 8


class NormalisationSchedule:
    """Adds the passes of one batch normalisation to a program.

    Parameters
    ----------
    assembly
        The program.
    layer, tensors
        The batch normalisation.
    """

    def __init__(self, assembly: Assembly, layer: BatchNorm, tensors: BatchNormTensors) -> None:
        self._assembly = assembly
        self._layer = layer
        self._records = tensors.records
        self._inference = tensors.inference

    def _vectors(self) -> Vectors:
        return Vectors(self._assembly, Stage.FF)

    def _use_statistics(self, x: Activations, statistics: Statistics) -> None:
        """Add what follows from the sums of the whole batch, in which `x` now is."""
        vectors, layer, records = self._vectors(), self._layer, self._records
        config, pixels = self._assembly.config, x.images * x.shape.positions
        statistics.finish()
        most = min(config.elements // 4, VECTOR_REGISTERS // len(_Batch))
        old, new = 1 - layer.momentum, layer.momentum
        unbiased = pixels / max(pixels - 1, 1)
        for words in cut(x.words, most):
            rows = len(words)

            def first(value: _Batch, rows: int = rows) -> Register:
                return Register(value * rows)

            statistics.fetch(words, first(_Batch.VARIANCE))
            vectors.read_registers(first(_Batch.GAIN), 4 * rows, records.rows(words, "gain", 4))
            vectors.compute(first(_Batch.MEAN), first(_Batch.MEAN), a=1 / pixels, rows=rows)
            for index in range(rows):
                mean, variance = (
                    Register(value * rows + index) for value in (_Batch.MEAN, _Batch.VARIANCE)
                )
                # Rounding must not make it negative.
                vectors.compute(
                    variance, variance, a=1 / pixels, b=-mean, y=mean, function=Function.RELU
                )
            vectors.compute(
                first(_Batch.INVERSE),
                first(_Batch.VARIANCE),
                c=layer.epsilon,
                function=Function.RSQRT,
                rows=rows,
            )
            for index in range(rows):
                gain, shift, mean, inverse, factor, summand = (
                    Register(value * rows + index)
                    for value in (
                        _Batch.GAIN,
                        _Batch.SHIFT,
                        _Batch.MEAN,
                        _Batch.INVERSE,
                        _Batch.FACTOR,
                        _Batch.SUMMAND,
                    )
                )
                vectors.compute(factor, inverse, a=gain)
                vectors.compute(summand, factor, a=-mean, c=shift)
            for average, value, share in (
                (_Batch.AVERAGE, _Batch.MEAN, new),
                (_Batch.AVERAGE_VARIANCE, _Batch.VARIANCE, new * unbiased),
            ):
                vectors.compute(
                    first(average), first(average), a=old, b=share, y=first(value), rows=rows
                )
            for value, name, count in ((_Batch.AVERAGE, "average", 2), (_Batch.MEAN, "mean", 4)):
                vectors.write_registers(
                    first(value), count * rows, records.rows(words, name, count)
                )

    def _use_averages(self, x: Activations) -> None:
        """Add what follows from the running averages."""
        vectors, records = self._vectors(), self._records
        for word in range(x.words):
            vectors.fill(records, word, _LASTING_VALUES, _GAIN)
            vectors.compute(
                _INVERSE, _AVERAGE_VARIANCE, c=self._layer.epsilon, function=Function.RSQRT
            )
            vectors.compute(_FACTOR, _INVERSE, a=_GAIN)
            vectors.compute(_SUMMAND, _FACTOR, a=-_AVERAGE, c=_SHIFT)
            vectors.spill(self._inference, word, "factor", 2, _FACTOR)

    def forward(
        self,
        x: Activations,
        y: Activations,
        *,
        add: Activations | None,
        statistics: Statistics | None,
    ) -> Steps:
        """Add ``y = relu(norm(x) + add)``, by the batch's `statistics` or the running averages.

        Raises
        ------
        ScheduleError
            The batch has a last block of images that isn't full, though it isn't the only one.
        """
        vectors, rows = self._vectors(), self._rows(x)
        if statistics is None:
            records = self._inference
            self._use_averages(x)
        else:
            records = self._records
            yield Needs(x, x.batch_blocks, 0)
            self._use_statistics(x, statistics)
        arithmetic: dict[str, Any] = {} if add is None else {"b": 1.0, "y": VectorOperand.HELD_0}
        function = Function.RELU if self._layer.relu else Function.IDENTITY
        most = self._assembly.config.elements // 2
        tensors = [x] if add is None else [add, x]
        for block, lines in line_pieces(x, len(tensors)):
            for tensor in tensors:
                yield Needs(tensor, block, lines.stop)
            for words in cut(x.words, most):
                vectors.read_registers(
                    Register(0), 2 * len(words), records.rows(words, "factor", 2)
                )
                cycles = 0
                for index, word in enumerate(words):
                    sources = [tensor.tiles(word, block, lines) for tensor in tensors]
                    pieces = vectors.map_pieces(
                        sources,
                        y.tiles(word, block, lines),
                        rows=rows,
                        a=Register(index),
                        c=Register(len(words) + index),
                        function=function,
                        **arithmetic,
                    )
                    cycles += sum(pieces)
                # In one piece: others use the registers between.
                yield cycles
            yield Written(y, y.line_tiles(block, lines))

    def backward(
        self,
        x: Activations,
        dy: Activations,
        dx: Activations,
        *,
        masked: bool,
        updated: BatchNormTensors,
    ) -> Pieces:
        """Add the gradient of the input, and those of what is learned, with its update.

        Parameters
        ----------
        x
            The input, as `forward` read it.
        dy
            Gradient by the output; zero where a ReLU was.
        dx
            Gradient by the input.
        masked
            Make it zero where the input isn't positive.
        updated
            Receives what the next step needs. The gradients stay with the layer's own tensors.
        """
        vectors = Vectors(self._assembly, Stage.BP)
        rows, count = self._rows(x), x.images * x.shape.positions
        for word in range(x.words):
            columns = [x.column(word), dy.column(word)]
            yield from vectors.reduce_pieces(
                columns,
                rows=rows,
                y=VectorOperand.HELD_0,
                total=_SUM,
                products=_PRODUCTS,
                scratch=_PARTIAL_SUMS,
            )
            vectors.fill(self._records, word, _FORWARD_VALUES, _GAIN)
            vectors.compute(_SHIFT_GRADIENT, _SUM)
            vectors.compute(_SCRATCH, _PRODUCTS, b=-_MEAN, y=_SUM)
            vectors.compute(_GAIN_GRADIENT, _SCRATCH, a=_INVERSE)
            vectors.spill(self._records, word, "gain_gradient", 2, _GAIN_GRADIENT)
            vectors.compute(_SCRATCH, _INVERSE, a=_FACTOR)
            vectors.compute(_SCRATCH, _SCRATCH, a=-1 / count)
            vectors.compute(_X_FACTOR, _GAIN_GRADIENT, a=_SCRATCH)
            vectors.compute(_SCRATCH, _SUM, a=1 / count)
            vectors.compute(_BACKWARD_SUMMAND, _SCRATCH, a=-_FACTOR, b=-_X_FACTOR, y=_MEAN)
            self._update(updated, word)
            yield _UPDATE_CYCLES
            yield from vectors.map_pieces(
                columns,
                dx.column(word),
                rows=rows,
                a=_FACTOR,
                b=_X_FACTOR,
                y=VectorOperand.HELD_0,
                c=_BACKWARD_SUMMAND,
                mask=Mask.HELD_0_POSITIVE if masked else Mask.NONE,
            )

    def _update(self, updated: BatchNormTensors, word: int) -> None:
        """Add SGD on gain and shift, without weight decay, from what is in the registers."""
        vectors = Vectors(self._assembly, Stage.UPDATE)
        for value, momentum, gradient in (
            (_GAIN, _GAIN_MOMENTUM, _GAIN_GRADIENT),
            (_SHIFT, _SHIFT_MOMENTUM, _SHIFT_GRADIENT),
        ):
            vectors.descend(value, momentum, gradient)
        vectors.spill(updated.records, word, "gain", _LASTING_VALUES, _GAIN)

    def _rows(self, x: Activations) -> int:
        """Return the images of a tile, which must be the same number in all."""
        rows = x.rows(x.batch_blocks - 1)
        if x.batch_blocks > 1 and rows < x.rows(0):
            raise ScheduleError(
                f"{self._layer.name}: a batch of {x.images} images fills blocks of {x.rows(0)} "
                f"only in part; batch normalisation takes a multiple of it, or fewer"
            )
        return rows
