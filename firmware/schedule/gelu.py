"""Gaussian error linear units on the vector unit, which has a table of the normal distribution."""

from __future__ import annotations

from rtl.control.commands import Function, Stage, VectorOperand

from ..tensor import Activations
from .assembly import Assembly
from .pieces import Pieces, Steps
from .vectors import Vectors

__all__ = ["GELUSchedule"]


class GELUSchedule:
    """Adds the passes of one GELU to a program.

    Parameters
    ----------
    assembly
        The program.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly

    def forward(self, x: Activations, y: Activations) -> Steps:
        """Add ``y = x * normal(x)``."""
        return Vectors(self._assembly, Stage.FF).map_lines(
            [x],
            y,
            a=1.0,
            function=Function.NORMAL,
            y=VectorOperand.X,
            times_y=True,
        )

    def backward(self, x: Activations, dy: Activations, dx: Activations) -> Pieces:
        """Add the gradient by the input, ``dy`` times the slope at `x`."""
        vectors = Vectors(self._assembly, Stage.BP)
        for word in range(x.words):
            yield from vectors.map_pieces(
                [dy.column(word), x.column(word)],
                dx.column(word),
                rows=self._assembly.config.elements,
                a=1.0,
                function=Function.GELU_SLOPE,
                y=VectorOperand.HELD_0,
                times_y=True,
            )
