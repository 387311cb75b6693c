"""Sums of two layers' outputs on the vector unit, which no product's STORE adds."""

from __future__ import annotations

from rtl.control.commands import Function, Stage, VectorOperand

from ..model import Addition
from ..tensor import Activations
from .assembly import Assembly
from .pieces import Steps
from .vectors import Vectors

__all__ = ["AdditionSchedule"]


class AdditionSchedule:
    """Adds the pass of one addition to a program; backward there is nothing to compute.

    Parameters
    ----------
    assembly
        The program.
    layer
        The addition.
    """

    def __init__(self, assembly: Assembly, layer: Addition) -> None:
        self._assembly = assembly
        self._layer = layer

    def forward(self, x: Activations, y: Activations, *, add: Activations) -> Steps:
        """Add ``y = relu(x + add)``."""
        return Vectors(self._assembly, Stage.FF).map_lines(
            [add, x],
            y,
            a=1.0,
            b=1.0,
            y=VectorOperand.HELD_0,
            function=Function.RELU if self._layer.relu else Function.IDENTITY,
        )
