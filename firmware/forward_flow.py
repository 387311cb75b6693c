"""How layers follow each other in a forward pass: line by line wherever that is possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from .schedule import Needs, Statistics, Steps
from .tensor import Activations, Images

__all__ = ["ForwardFlow"]


class _Progress:
    """Up to which line of a tensor all tiles have been written."""

    def __init__(self, tensor: Activations) -> None:
        self._tensor = tensor
        lines = tensor.batch_blocks * tensor.shape.height
        self._missing = [tensor.shape.width * tensor.words] * lines
        self._reached = 0

    def add(self, tiles: Sequence[int]) -> None:
        """Take note of tiles that have been written."""
        tensor = self._tensor
        for tile in tiles:
            self._missing[(tile - tensor.address) // tensor.line_bytes] -= 1
        while self._reached < len(self._missing) and not self._missing[self._reached]:
            self._reached += 1

    def reaches(self, block: int, line: int) -> bool:
        """Return whether a line of a block of images has been reached."""
        return self._reached >= block * self._tensor.shape.height + line


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
    """

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        self._writers: dict[Images, _Layer] = {}
        self._progress: dict[Images, _Progress] = {}
        self._statistics: dict[Images, Statistics] = {}
        # Cycles that the array has more to do than the vector unit.
        self._ahead = 0

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
        while not layer.ended:
            if cycles == 0:
                # The scratchpads are free.
                for other in early:
                    while (more := self._advance(other)) is not None:
                        self._pass(more, vectors)
            under_way = cycles is not None and cycles > 0
            interrupt = under_way and any(self._can_go_on(other) for other in early)
            cycles = self._force(layer, interrupt=interrupt)
            self._pass(cycles or 0, vectors)

    def _pass(self, cycles: int, vectors: Sequence[_Layer]) -> None:
        """Let the vector unit work while the array does for that long."""
        sums = [statistics.advance for statistics in self._statistics.values()]
        self._ahead += cycles
        while self._ahead > 0:
            advances = [*(partial(self._advance, each) for each in vectors), *sums]
            beside = (done for advance in advances if (done := advance()) is not None)
            # Where there's nothing to do, time passes all the same.
            self._ahead -= next(beside, self._ahead)

    def _can_go_on(self, layer: _Layer) -> bool:
        """Return whether a layer has what it needs next."""
        return not layer.ended and self._has(layer.needs)

    def _advance(self, layer: _Layer) -> int | None:
        """Add the next piece of a layer, if there is one that has what it needs.

        Returns its cycles.
        """
        while not layer.ended and self._has(layer.needs):
            cycles = self._step(layer)
            if cycles is not None:
                return cycles
        return None

    def _force(self, layer: _Layer, *, interrupt: bool = False) -> int | None:
        """Go on with a layer by a step, for which what it needs is added first."""
        needs = layer.needs
        if needs is not None:
            while not self._has(needs):
                writer = self._writers[needs.tensor]
                assert not writer.on_array and not writer.ended, "layers come in their order"
                self._force(writer)
        return self._step(layer, interrupt=interrupt)

    def _has(self, needs: Needs | None) -> bool:
        """Return whether what is needed has been written; what no layer writes is there."""
        if needs is None or needs.tensor not in self._progress:
            return True
        return self._progress[needs.tensor].reaches(needs.block, needs.line)

    def _step(self, layer: _Layer, *, interrupt: bool = False) -> int | None:
        """Go on with a layer by a step; return its cycles if it is a piece."""
        layer.needs = None
        try:
            step = layer.steps.send(True) if interrupt else next(layer.steps)
        except StopIteration:
            layer.ended = True
            return None
        if isinstance(step, int):
            return step
        if isinstance(step, Needs):
            layer.needs = step
        else:
            self._progress[step.tensor].add(step.tiles)
            if step.tensor in self._statistics:
                self._statistics[step.tensor].add(step.tiles)
        return None
