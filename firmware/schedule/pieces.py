"""Schedules in pieces, so that work of the array goes on beside that of the vector unit."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator

__all__ = ["Backlog", "Interruptible", "Pieces", "emit"]

Pieces = Iterator[int]
"""Adds some commands to a program each time it is advanced, and says about how many cycles these
keep the unit busy that it is for."""

Interruptible = Generator[int, bool, None]
"""Pieces that others may follow. Sent True, it comes to a point where it needs nothing any more of
what it has in the scratchpads, and yields zero there."""


def emit(pieces: Iterable[int]) -> None:
    """Add all pieces, one after the other."""
    deque(pieces, maxlen=0)


class Backlog:
    """Work of the array that nothing waits for: weight gradients.

    It is done while the array would otherwise wait for the vector unit, and whatever is left at the
    end. First come, first served: but for its length the order doesn't matter.
    """

    def __init__(self) -> None:
        self._waiting: deque[Interruptible] = deque()
        self._under_way = False

    def add(self, pieces: Interruptible) -> None:
        """Put off `pieces`."""
        self._waiting.append(pieces)

    def beside(self, pieces: Pieces) -> None:
        """Add `pieces` of the vector unit, and beside them as much work as there is time for.

        Then the scratchpads are free for others.
        """
        ahead = 0
        for cycles in pieces:
            ahead += cycles
            while ahead > 0 and self._waiting:
                ahead -= self._advance()
        while self._under_way:
            self._advance(interrupt=True)

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
        return cycles
