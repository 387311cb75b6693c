"""How layers follow each other in a backward pass, with weight gradients wherever there is time."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from .forward_flow import ForwardFlow
from .program import Program
from .schedule import Backlog, Interruptible, Needs, Pieces, Steps, Written, cycles_of
from .tensor import Activations

__all__ = ["BackwardFlow"]

_Result = TypeVar("_Result")


class BackwardFlow:
    """Puts the work of the array and of the vector unit beside each other, in a backward pass.

    Beside the vector unit the array works on weight gradients, as long as there are any. Where
    there are none yet, behind the loss, lines that the vector unit writes are held back until a
    product takes them, and then made line by line beside it.

    Parameters
    ----------
    program
        Receives the commands.
    backlog
        Takes the weight gradients.
    """

    def __init__(self, program: Program, backlog: Backlog) -> None:
        self._program = program
        self._backlog = backlog
        self._held: list[tuple[Activations, Steps]] = []

    def put_off(self, pieces: Interruptible) -> None:
        """Leave weight gradients for later, whatever they read."""
        self._release()
        self._backlog.add(pieces)

    def add_vectors(self, pieces: Pieces) -> None:
        """Add pieces of the vector unit, whatever they read and write."""
        self._release()
        self._backlog.beside(pieces)

    def add_lines(self, y: Activations, steps: Steps) -> None:
        """Add what the vector unit writes to `y`, line by line."""
        self._held.append((y, steps))
        if not self._backlog.is_empty:
            self._release()

    def add_products(self, pieces: Pieces) -> None:
        """Add products, whatever they read and write."""
        self._release()
        self._backlog.before(pieces)

    def add_convolution(
        self, y: Activations, steps: Generator[int | Needs | Written, bool | None, _Result]
    ) -> _Result:
        """Add products that take their operand line by line and write `y`; return their result."""
        if not self._held:
            return self._backlog.before(steps)
        results: list[_Result] = []

        def products() -> Generator[int | Needs | Written, bool | None, None]:
            results.append((yield from steps))

        flow = ForwardFlow(self._program)
        for lines in self._held:
            flow.add_vectors(*lines)
        self._held = []
        flow.add_products(y, products())
        flow.run()
        return results[0]

    def finish(self) -> None:
        """Add all that is left."""
        self._release()
        self._backlog.finish()

    def _release(self) -> None:
        """Add all lines that have been held back."""
        for _, steps in self._held:
            self._backlog.beside(cycles_of(steps))
        self._held = []
