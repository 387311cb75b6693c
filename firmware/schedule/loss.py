"""Softmax and cross-entropy on the vector unit.

The logits arrive transposed, a class a row and an image a column, so that all sums over classes run
along rows. With ``t = log2(e)`` and the largest logit ``m`` of an image, ``p = 2**(t x - t m -
log2(sum 2**(t x - t m)))`` is the probability of a class.
"""

from __future__ import annotations

import math
from typing import Any

from rtl.config import VECTOR_REGISTERS, Config
from rtl.control.commands import Fold, Function, Stage, VectorOperand, VectorTarget

from ..allocator import Allocator
from ..errors import ScheduleError
from ..model import Shape
from ..tensor import Activations, Records
from .assembly import Assembly
from .vectors import Feed, Register, Vectors

__all__ = ["LossSchedule", "LossTensors"]

(
    _WEIGHT,
    _LOG_PROBABILITY,
    _MARGIN,
    _LARGEST,
    _OFFSET,
    _SUM,
    _LOGARITHM,
    _LOG_OFFSET,
    _RIGHT,
) = (Register(number) for number in range(9))

_PARTS = Register(16)
"""From here on, one for each word of classes."""

_LOG2_E = math.log2(math.e)


class LossTensors:
    """What the loss works on.

    Attributes
    ----------
    labels
        1 for the right class of each image, else 0; transposed.
    probabilities
        Binary32 rows of images, a row for each class.
    weights
        Of each image: ``weight``, by which its gradient is multiplied (zero if there is none).
    results
        Of each image: ``log_probability`` of the right class, to base two, and the ``margin`` of
        its logit over the largest, which is zero or negative.
    """

    def __init__(self, config: Config, memory: Allocator, images: int, classes: int) -> None:
        shape = Shape(1, 1, classes)
        self.labels = Activations(config, memory, images, shape, transposed=True)
        self.probabilities = Records(config, memory, images, [f"class {c}" for c in range(classes)])
        self.weights = Records(config, memory, images, ["weight"])
        self.results = Records(config, memory, images, ["log_probability", "margin"])


class LossSchedule:
    """Adds the loss of a batch and its gradient to a program.

    Parameters
    ----------
    assembly
        The program.
    tensors
        What it works on.
    """

    def __init__(self, assembly: Assembly, tensors: LossTensors) -> None:
        self._vectors = Vectors(assembly, Stage.FF)
        self._config = assembly.config
        self._tensors = tensors

    def add(self, logits: Activations, gradient: Activations) -> None:
        """Add loss and gradient; the latter is transposed.

        Raises
        ------
        ScheduleError
            There are more classes than registers for parts of their sums, or rows of a tile.
        """
        words = min(VECTOR_REGISTERS - _PARTS.number, self._config.elements)
        most = words * self._config.elements
        if logits.shape.channels > most:
            raise ScheduleError(
                f"loss: there are {logits.shape.channels} classes, the vector unit of "
                f"configuration '{self._config.name}' takes {most}"
            )
        for block in range(logits.batch_blocks):
            self._add_block(logits, gradient, block)

    def _add_block(self, logits: Activations, gradient: Activations, block: int) -> None:
        vectors, tensors, g = self._vectors, self._tensors, self._config.elements
        words = range(logits.words)
        classes = [min(g, logits.shape.channels - word * g) for word in words]
        parts = [Register(_PARTS.number + word) for word in words]
        tiles = [logits.tile(block, 0, 0, word) for word in words]
        labels = [tensors.labels.tile(block, 0, 0, word) for word in words]

        def pass_over(held: bool = False, **arithmetic: Any) -> None:
            for word in words:
                feeds = [Feed([tiles[word]], transpose=True)]
                if held:
                    feeds.insert(0, Feed([labels[word]]))
                reductions = {
                    name: parts[word]
                    for name in ("into", "product_into")
                    if arithmetic.get(name) is not None
                }
                vectors.stream(
                    feeds,
                    groups=1,
                    rows=classes[word],
                    held=int(held),
                    **(arithmetic | reductions),
                )

        def combine(fold: Fold, into: Register) -> None:
            vectors.compute(None, _PARTS, rows=len(parts), reduce=fold, into=into)

        # The largest logit, and the sum of all powers by it.
        pass_over(a=1.0, reduce=Fold.MAXIMUM, into=_PARTS)
        combine(Fold.MAXIMUM, _LARGEST)
        vectors.compute(_OFFSET, _LARGEST, a=-_LOG2_E)
        pass_over(a=_LOG2_E, c=_OFFSET, function=Function.EXP2, reduce=Fold.SUM, into=_PARTS)
        combine(Fold.SUM, _SUM)
        vectors.compute(_LOGARITHM, _SUM, function=Function.LOG2)
        vectors.compute(_LOG_OFFSET, _OFFSET, b=-1.0, y=_LOGARITHM)

        # The right class: its probability, and its logit's distance from the largest.
        with_label: dict[str, Any] = {
            "held": True,
            "y": VectorOperand.HELD_0,
            "product_into": _PARTS,
        }
        pass_over(a=_LOG2_E, c=_LOG_OFFSET, **with_label)
        combine(Fold.SUM, _LOG_PROBABILITY)
        pass_over(a=1.0, **with_label)
        combine(Fold.SUM, _RIGHT)
        vectors.compute(_MARGIN, _RIGHT, b=-1.0, y=_LARGEST)
        vectors.spill(tensors.results, block, "log_probability", 2, _LOG_PROBABILITY)

        # Probabilities, then the gradient.
        vectors.fill(tensors.weights, block, 1, _WEIGHT)
        for word in words:
            first = tensors.probabilities.row(block, f"class {word * g}")
            vectors.stream(
                [Feed([tiles[word]], transpose=True)],
                groups=1,
                rows=classes[word],
                a=_LOG2_E,
                c=_LOG_OFFSET,
                function=Function.EXP2,
                target=VectorTarget.WIDE,
                results=[first],
            )
            vectors.stream(
                [Feed([labels[word]]), Feed([first], wide=True)],
                groups=1,
                rows=classes[word],
                held=1,
                a=_WEIGHT,
                b=-_WEIGHT,
                y=VectorOperand.HELD_0,
                target=VectorTarget.NARROW,
                results=[gradient.tile(block, 0, 0, word)],
            )
