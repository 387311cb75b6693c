"""How layers follow each other in a forward pass: line by line wherever that is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .program import Program
from .schedule import Needs, Statistics, Steps
from .tensor import Activations, Images

__all__ = ["ForwardFlow"]


_LAG = 4096
"""Cycles that the array works after something has been written until others should read it: a LOAD
that waits for a STORE keeps those behind it from the array."""


class _Progress:
    """Up to which line of a tensor all tiles have been written."""

    def __init__(self, tensor: Activations) -> None:
        self._tensor = tensor
        lines = tensor.batch_blocks * tensor.shape.height
        self._missing = [tensor.shape.width * tensor.words] * lines
        # When each line was.
        self._times: list[int] = []

    def add(self, tiles: Sequence[int], time: int) -> None:
        """Take note of tiles that are written at some time."""
        tensor, missing = self._tensor, self._missing
        for tile in tiles:
            missing[(tile - tensor.address) // tensor.line_bytes] -= 1
        while len(self._times) < len(missing) and not missing[len(self._times)]:
            self._times.append(time)

    def time(self, block: int, line: int) -> float:
        """Return when all was written up to a line of a block of images; infinite if it isn't."""
        lines = block * self._tensor.shape.height + line
        if lines > len(self._times):
            return math.inf
        return self._times[lines - 1] if lines else -math.inf


class _Layer:
    """A schedule under way.

    Attributes
    ----------
    steps
        What is left of it.
    on_array
        Whether it adds products.
    early
        Whether these come as soon as there is what they need.
    needs
        What it waits for.
    ended
        Whether nothing is left.
    """

    def __init__(self, steps: Steps, *, on_array: bool, early: bool) -> None:
        self.steps = steps
        self.on_array, self.early = on_array, early
        self.needs: Needs | None = None
        self.ended = False


class ForwardFlow:
    """Puts the vector unit's work beside that of the array, in a forward pass that is scheduled.

    Layers of the array are added one after the other. Those of the vector unit advance beside them
    as far as the lines that they need have been written, whatever layer these belong to, and at
    last when something of the array needs theirs. So a convolution begins as soon as its first
    lines have been normalised, and what the vector unit makes of its output begins before it has
    ended.

    Parameters
    ----------
    program
        Receives the commands.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._layers: list[_Layer] = []
        self._writers: dict[Images, _Layer] = {}
        self._progress: dict[Images, _Progress] = {}
        self._statistics: dict[Images, Statistics] = {}
        # Cycles that the array works; and those of them in which the vector unit can still load and
        # write, by the same ways as the array's operands and results.
        self._time = self._loading = self._writing = 0

    def add_vectors(self, y: Activations, steps: Steps) -> None:
        """Take note of how the vector unit writes `y`."""
        self._add(y, _Layer(steps, on_array=False, early=False))

    def add_products(self, y: Activations, steps: Steps, *, early: bool = False) -> None:
        """Take note of how the array writes `y`.

        If `early`, products interrupt the layer before as soon as there is what they need: where
        the vector unit has much to do with them.
        """
        self._add(y, _Layer(steps, on_array=True, early=early))

    def sums(self, x: Activations, statistics: Statistics) -> Statistics:
        """Return what sums up `x` as it is written, these `statistics` if there is nothing yet."""
        if x not in self._statistics:
            self._statistics[x] = statistics
            if x not in self._writers:
                statistics.add(x.all_tiles())
        return self._statistics[x]

    def run(self) -> None:
        """Add all layers to the program."""
        for index, layer in enumerate(self._layers):
            if layer.on_array:
                self._run(layer, list(self._beside(index)))
        for layer in self._layers:
            while not layer.ended:
                self._force(layer)

    def _add(self, y: Activations, layer: _Layer) -> None:
        self._layers.append(layer)
        self._writers[y] = layer
        self._progress[y] = _Progress(y)

    def _beside(self, index: int) -> Iterator[_Layer]:
        """Yield the layers that may go on while one of the array does: up to the next of it."""
        for number, layer in enumerate(self._layers):
            if number > index and layer.on_array and not layer.early:
                return
            if number != index and not layer.ended:
                yield layer

    def _run(self, layer: _Layer, others: Sequence[_Layer]) -> None:
        """Add what is left of a layer of the array, and beside it what there is time for."""
        vectors = [other for other in others if not other.on_array]
        early = [other for other in others if other.on_array]
        cycles: int | None = 0
        idle = False
        while not layer.ended:
            if cycles == 0:
                # The scratchpads are free.
                for other in early:
                    while (more := self._advance(other)) is not None:
                        self._pass(more, vectors)
            interrupt = idle and any(self._can_go_on(other) for other in early)
            cycles = self._force(layer, interrupt=interrupt)
            idle = cycles is not None and cycles > 0 and not self._pass(cycles, vectors)

    def _pass(self, cycles: int, vectors: Sequence[_Layer]) -> bool:
        """Let the vector unit work while the array does for that long.

        Returns whether there is enough to do.
        """
        self._time += cycles
        self._loading += cycles
        self._writing += cycles
        idle = False
        while not idle and self._loading > 0 and self._writing > 0:
            first = len(self._program) - 1
            piece = self._next_piece(vectors)
            idle = piece is None
            self._loading -= piece or 0
            self._writing -= self._program.beats(first)[1]
        # Time passes all the same.
        self._loading, self._writing = min(self._loading, 0), min(self._writing, 0)
        return not idle

    def _next_piece(self, vectors: Sequence[_Layer]) -> int | None:
        """Add the next piece of the vector unit, if there is one; return its cycles."""
        for layer in vectors:
            if (cycles := self._advance(layer)) is not None:
                return cycles
        for statistics in self._statistics.values():
            if (cycles := statistics.advance()) is not None:
                return cycles
        return None

    def _can_go_on(self, layer: _Layer) -> bool:
        """Return whether a layer has what it needs next."""
        return not layer.ended and self._is_there(layer.needs, self._time - _LAG)

    def _advance(self, layer: _Layer) -> int | None:
        """Add the next piece of a layer, if there is one that has what it needs.

        Returns its cycles.
        """
        while self._can_go_on(layer):
            cycles = self._step(layer)
            if cycles is not None:
                return cycles
        return None

    def _force(self, layer: _Layer, *, interrupt: bool = False) -> int | None:
        """Go on with a layer by a step, for which what it needs is added first."""
        needs = layer.needs
        if needs is not None and needs.early:
            return self._step(layer, send=self._is_there(needs, self._time - _LAG))
        if needs is not None:
            while not self._is_there(needs):
                writer = self._writers[needs.tensor]
                assert not writer.on_array and not writer.ended, "layers come in their order"
                self._force(writer)
        return self._step(layer, send=interrupt or None)

    def _is_there(self, needs: Needs | None, time: float | None = None) -> bool:
        """Return whether what is needed has been written, or had been at some time.

        What no layer writes has been.
        """
        if needs is None or needs.tensor not in self._progress:
            return True
        written = self._progress[needs.tensor].time(needs.block, needs.line)
        return written <= (self._time if time is None else time)

    def _step(self, layer: _Layer, *, send: bool | None = None) -> int | None:
        """Go on with a layer by a step; return its cycles if it is a piece."""
        layer.needs = None
        first = len(self._program) - 1
        try:
            step = next(layer.steps) if send is None else layer.steps.send(send)
        except StopIteration:
            layer.ended = True
            return None
        finally:
            if layer.on_array:
                read, written = self._program.beats(first)
                self._loading -= read
                self._writing -= written
        if isinstance(step, int):
            return step
        if isinstance(step, Needs):
            layer.needs = step
        else:
            self._progress[step.tensor].add(step.tiles, self._time)
            if step.tensor in self._statistics:
                self._statistics[step.tensor].add(step.tiles)
        return None
