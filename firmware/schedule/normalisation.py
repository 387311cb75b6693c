"""Batch normalisation on the vector unit.

Two passes over a tensor: sums of a channel's values and of their squares, then ``factor * x +
summand``; between them the few numbers of each channel. Backward likewise: sums of the gradient and
of its product with ``x``, then ``factor * dy + b * x + c``. (S. Ioffe and C. Szegedy, "Batch
normalization", 2015; the backward pass written as one linear combination of ``dy`` and ``x``.)
"""

from __future__ import annotations

from rtl.control.commands import Function, Mask, Stage, VectorOperand

from ..errors import ScheduleError
from ..layers import BatchNormTensors
from ..model import BatchNorm
from ..tensor import Activations
from .assembly import Assembly
from .pieces import Pieces, emit
from .vectors import Register, Vectors

__all__ = ["NormalisationSchedule"]

# Registers: the record of G channels as it lies in memory, then what comes up on the way.
(
    _GAIN,
    _GAIN_MOMENTUM,
    _SHIFT,
    _SHIFT_MOMENTUM,
    _AVERAGE,
    _AVERAGE_VARIANCE,
    _MEAN,
    _INVERSE,
    _FACTOR,
    _SUMMAND,
    _GAIN_GRADIENT,
    _SHIFT_GRADIENT,
    _SUM,
    _PRODUCTS,
    _VARIANCE,
    _SCRATCH,
    _X_FACTOR,
    _BACKWARD_SUMMAND,
) = (Register(number) for number in range(18))

_PARTIAL_SUMS = [Register(number) for number in range(_BACKWARD_SUMMAND.number + 1, 64)]

_FORWARD_VALUES = 10
"""Values of a record that a forward pass reads and writes."""

_LASTING_VALUES = 6
"""Values that the next step needs: what is learned, with its momentum, and the averages."""


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

    def forward(
        self, x: Activations, y: Activations, *, add: Activations | None, training: bool
    ) -> None:
        """Add ``y = relu(norm(x) + add)``, by the batch's statistics or the running ones.

        Raises
        ------
        ScheduleError
            The batch has a last block of images that isn't full, though it isn't the only one.
        """
        vectors, layer = Vectors(self._assembly, Stage.FF), self._layer
        rows = self._rows(x)
        for word in range(x.words):
            if training:
                self._add_statistics(vectors, x, word)
            else:
                vectors.fill(self._records, word, _LASTING_VALUES, _GAIN)
                vectors.compute(
                    _INVERSE, _AVERAGE_VARIANCE, c=layer.epsilon, function=Function.RSQRT
                )
                vectors.compute(_FACTOR, _INVERSE, a=_GAIN)
                vectors.compute(_SUMMAND, _FACTOR, a=-_AVERAGE, c=_SHIFT)
            sources = [x.column(word)]
            arithmetic = {}
            if add is not None:
                sources.insert(0, add.column(word))
                arithmetic = {"b": 1.0, "y": VectorOperand.HELD_0}
            vectors.map(
                sources,
                y.column(word),
                rows=rows,
                a=_FACTOR,
                c=_SUMMAND,
                function=Function.RELU if layer.relu else Function.IDENTITY,
                **arithmetic,
            )

    def _add_statistics(self, vectors: Vectors, x: Activations, word: int) -> None:
        layer, count = self._layer, x.images * x.shape.positions
        emit(
            vectors.reduce_pieces(
                [x.column(word)],
                rows=self._rows(x),
                y=VectorOperand.X,
                total=_SUM,
                products=_PRODUCTS,
                scratch=_PARTIAL_SUMS,
            )
        )
        vectors.fill(self._records, word, _FORWARD_VALUES, _GAIN)
        vectors.compute(_MEAN, _SUM, a=1 / count)
        # Rounding must not make it negative.
        vectors.compute(
            _VARIANCE, _PRODUCTS, a=1 / count, b=-_MEAN, y=_MEAN, function=Function.RELU
        )
        vectors.compute(_INVERSE, _VARIANCE, c=layer.epsilon, function=Function.RSQRT)
        vectors.compute(_FACTOR, _INVERSE, a=_GAIN)
        vectors.compute(_SUMMAND, _FACTOR, a=-_MEAN, c=_SHIFT)
        old, new = 1 - layer.momentum, layer.momentum
        vectors.compute(_AVERAGE, _AVERAGE, a=old, b=new, y=_MEAN)
        unbiased = count / max(count - 1, 1)
        vectors.compute(_AVERAGE_VARIANCE, _AVERAGE_VARIANCE, a=old, b=new * unbiased, y=_VARIANCE)
        vectors.spill(self._records, word, "gain", _FORWARD_VALUES, _GAIN)

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
            vectors.compute(momentum, momentum, a=0.0, b=1.0, y=gradient)
            vectors.adjust(a=lambda step: step.momentum, b=lambda step: 2.0**-step.scale)
            vectors.compute(value, value, b=0.0, y=momentum)
            vectors.adjust(b=lambda step: -step.rate)
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
