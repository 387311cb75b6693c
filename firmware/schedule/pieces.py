"""Schedules in pieces, so that work of the array goes on beside that of the vector unit."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..tensor import Activations, Images
from .patch import cut

__all__ = [
    "Backlog",
    "Interruptible",
    "Needs",
    "Pieces",
    "Steps",
    "Written",
    "cycles_of",
    "emit",
    "line_pieces",
]

_Result = TypeVar("_Result")

PIECE_BEATS = 4096
"""What a piece for the vector unit reads: much more than a command takes to begin and to end, and
little beside what the scratchpads hold, since the array's operands wait behind it."""

_LEAD = 1 << 15
"""Cycles for which the array has more to do than the vector unit: it takes that long to load what
comes next."""

_MOST_HASTE = 3
"""Most cycles of the array's work for each of the vector unit's. What is done too early costs
nothing as long as there is enough left for later; where there is too little, the array waits."""

Pieces = Generator[int, None, None]
"""Adds some commands to a program each time it is advanced, and says about how many cycles these
keep the unit busy that it is for."""

Interruptible = Generator[int, bool, None]
"""Pieces that others may follow. Sent True, it comes to a point where it needs nothing any more of
what it has in the scratchpads, and yields zero there."""


@dataclass(frozen=True)
class Needs:
    """What must have been written before a schedule goes on.

    Attributes
    ----------
    tensor
        What is read.
    block, line
        Of these images up to this line, and all blocks before.
    early
        It isn't needed yet: sent False, the schedule goes on without it.
    """

    tensor: Images
    block: int
    line: int
    early: bool = False


@dataclass(frozen=True)
class Written:
    """What a schedule has written: tiles of a tensor, by their addresses."""

    tensor: Activations
    tiles: Sequence[int]


Steps = Generator[int | Needs | Written, bool | None, None]
"""Pieces that say what they need, before they add what reads it, and what they have written. In
between others may use the vector unit; those for the array are also `Interruptible`."""


def cycles_of(steps: Steps) -> Pieces:
    """Yield the pieces of steps whose inputs are all there."""
    for step in steps:
        if isinstance(step, int):
            yield step


def emit(pieces: Generator[Any, Any, _Result]) -> _Result:
    """Add all pieces, one after the other; return what they return."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def line_pieces(tensor: Activations, operands: int) -> Iterator[tuple[int, range]]:
    """Cut a tensor into runs of lines for the vector unit: block of images, and lines of it.

    Parameters
    ----------
    tensor
        What is computed.
    operands
        Tensors of its size that are read for it.
    """
    beats = operands * tensor.line_bytes // tensor.config.beat_bytes
    at_once = max(PIECE_BEATS // beats, 1)
    return itertools.product(range(tensor.batch_blocks), cut(tensor.shape.height, at_once))


class Backlog:
    """Work of the array that nothing waits for: weight gradients.

    It is done while the array would otherwise wait for the vector unit, and whatever is left at the
    end. First come, first served: but for its length the order doesn't matter.

    Parameters
    ----------
    array, vectors
        About how many cycles all of it takes, and all work of the vector unit beside it.
    """

    def __init__(self, array: float, vectors: float) -> None:
        self._array, self._vectors = array, vectors
        self._waiting: deque[Interruptible] = deque()
        self._under_way = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not self._waiting

    def add(self, pieces: Interruptible) -> None:
        """Put off `pieces`."""
        self._waiting.append(pieces)

    def beside(self, pieces: Pieces) -> None:
        """Add `pieces` of the vector unit, and beside them as much work as there is time for."""
        ahead: float = _LEAD
        for cycles in itertools.chain([0], pieces):
            haste = self._array / max(self._vectors, 1)
            ahead += cycles * min(max(haste, 1), _MOST_HASTE)
            self._vectors -= cycles
            while ahead > 0 and self._waiting:
                ahead -= self._advance()

    def before(self, pieces: Generator[Any, Any, _Result]) -> _Result:
        """Add `pieces` of the array, which others wait for; return what they return."""
        while self._under_way:
            self._advance(interrupt=True)
        return emit(pieces)

    def finish(self) -> None:
        """Add all that is left."""
        while self._waiting:
            self._advance()

    def _advance(self, *, interrupt: bool = False) -> int:
        """Add the next piece; return its cycles."""
        pieces = self._waiting[0]
        try:
            cycles = pieces.send(interrupt) if self._under_way else next(pieces)
        except StopIteration:
            self._waiting.popleft()
            self._under_way = False
            return 0
        self._under_way = cycles > 0
        self._array -= cycles
        return cycles
