"""How layers follow each other in a forward pass: line by line wherever that is possible."""

from __future__ import annotations

from collections.abc import Sequence

from .schedule import Lines, Pieces, Reach, Statistics
from .tensor import Activations

__all__ = ["ForwardFlow"]


class _Output:
    """A tensor that the vector unit writes as its lines are asked for."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._reached = (0, 0)

    def advance(self) -> int | None:
        """Add the next piece, if there is one; return its cycles."""
        piece = next(self._lines, None)
        if piece is None:
            return None
        cycles, reached = piece
        self._reached = reached or self._reached
        return cycles

    def reach(self, block: int, line: int) -> None:
        """Add what is missing up to a line of a block of images."""
        while self._reached < (block, line) and self.advance() is not None:
            pass


class ForwardFlow:
    """Puts the vector unit's work beside that of the array, in a forward pass that is scheduled.

    What the vector unit computes isn't added to the program at once, but while the array works on
    the lines that there are already. So a convolution begins as soon as its first lines have been
    normalised, and the sums of its output are taken while it goes on.
    """

    def __init__(self) -> None:
        self._outputs: dict[Activations, _Output] = {}
        self._statistics: dict[Activations, Statistics] = {}

    def put(self, y: Activations, lines: Lines) -> None:
        """Take note of how the vector unit writes `y`."""
        self._outputs[y] = _Output(lines)

    def reach(self, x: Activations, block: int, line: int) -> None:
        """Add what is missing of `x` up to a line of a block of images."""
        if x in self._outputs:
            self._outputs[x].reach(block, line)

    def complete(self, *tensors: Activations) -> None:
        """Add all that is missing of some tensors."""
        for tensor in tensors:
            self.reach(tensor, tensor.batch_blocks, 0)

    def finish(self) -> None:
        """Add all that is missing of any tensor."""
        self.complete(*self._outputs)

    def reach_all(self, tensors: Sequence[Activations]) -> Reach:
        """Return what adds the lines that are missing of all of some tensors."""

        def reach(block: int, line: int) -> None:
            for tensor in tensors:
                self.reach(tensor, block, line)

        return reach

    def gather(self, y: Activations, statistics: Statistics) -> None:
        """Take note of what sums up `y`, as it is written."""
        self._statistics[y] = statistics

    def gathered(self, y: Activations) -> Statistics | None:
        """Return what has summed up `y`, if it was."""
        return self._statistics.get(y)

    def written(self, y: Activations, tiles: Sequence[int], word: int) -> None:
        """Take note of tiles of `y` whose computation has been added to the program."""
        if y in self._statistics:
            self._statistics[y].add(tiles, word)

    def beside(self, pieces: Pieces, x: Activations, y: Activations) -> None:
        """Add `pieces` of the array, and beside them as much as there is time for.

        Parameters
        ----------
        pieces
            Of the array.
        x
            What it takes, whose next lines are the most urgent.
        y
            What it computes, to be summed up.
        """
        work = [self._outputs.get(x), self._statistics.get(y)]
        ahead = 0
        for cycles in pieces:
            ahead += cycles
            while ahead > 0:
                beside = (done for each in work if each and (done := each.advance()) is not None)
                # Where there's nothing to do, time passes all the same.
                ahead -= next(beside, ahead)
