"""Pooling, and other element-wise passes, on the vector unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rtl.control.commands import Fold, Function, Mask, Stage, VectorOperand, VectorTarget

from ..model import GlobalAveragePool, MaxPool, Shape
from ..tensor import Activations
from .assembly import Assembly, nests
from .pieces import Needs, Pieces, Steps, Written, line_pieces
from .vectors import Feed, Vectors

__all__ = ["PoolingSchedule", "accumulate", "clear_phase"]


@dataclass(frozen=True)
class _Window:
    """Pixels of an image that make one of the output; the padding isn't among them."""

    rows: range
    columns: range

    @property
    def pixels(self) -> list[tuple[int, int]]:
        """Row and column of each, in the order in which the first maximum is looked for."""
        return [(row, column) for row in self.rows for column in self.columns]


class PoolingSchedule:
    """Adds the passes of one pooling layer to a program.

    Parameters
    ----------
    assembly
        The program.
    layer
        The layer.
    """

    def __init__(self, assembly: Assembly, layer: MaxPool | GlobalAveragePool) -> None:
        self._assembly = assembly
        self._layer = layer

    @property
    def overlap(self) -> Shape | None:
        """Shape of what `backward` needs for windows that overlap; None if they don't.

        It has a line for each line of windows that have pixels in common with the next, and in it
        a pixel for each place in each window.
        """
        layer = self._layer
        if isinstance(layer, GlobalAveragePool) or layer.stride >= layer.window:
            return None
        places = layer.shape.width * layer.window**2
        return Shape(-(-layer.window // layer.stride), places, self._assembly.config.elements)

    def forward(self, x: Activations, y: Activations) -> Steps:
        """Add ``y = pool(x)``."""
        vectors = Vectors(self._assembly, Stage.FF)
        rows = self._assembly.config.elements
        layer = self._layer
        arithmetic: dict[str, Any]
        if isinstance(layer, MaxPool):
            function = Function.RELU if layer.relu else Function.IDENTITY
            arithmetic = {"a": 1.0, "fold": Fold.MAXIMUM, "function": function}
        else:
            arithmetic = {"a": 1 / x.shape.positions, "fold": Fold.SUM}
        all_windows = self._windows(x.shape)
        pixels = max(len(window.pixels) for window in all_windows[0])
        for block, lines in line_pieces(y, pixels):
            line_windows = all_windows[lines.start : lines.stop]
            yield Needs(x, block, line_windows[-1][-1].rows.stop)
            for word in range(x.words):
                windows = [
                    [x.tile(block, *pixel, word) for pixel in window.pixels]
                    for line in line_windows
                    for window in line
                ]
                all_results = y.tiles(word, block, lines)
                done = 0
                # Those at the edge of the image may have fewer pixels.
                for size, run in groupby(windows, key=len):
                    alike = list(run)
                    results = all_results[done : done + len(alike)]
                    done += len(alike)
                    for first, count, _ in nests(results):
                        part = slice(first, first + count)
                        vectors.stream(
                            [Feed([tile for window in alike[part] for tile in window])],
                            groups=count,
                            window=size,
                            rows=rows,
                            target=VectorTarget.NARROW,
                            results=results[part],
                            **arithmetic,
                        )
                yield rows * sum(map(len, windows))
            yield Written(y, y.line_tiles(block, lines))

    def backward(
        self,
        x: Activations,
        y: Activations,
        dy: Activations,
        dx: Activations,
        *,
        mask: Activations | None,
        parts: Activations | None = None,
    ) -> Pieces:
        """Add the gradient by the input; of an average zero where `mask` isn't positive.

        A maximum gives its gradient to the first of its window that it came from, and zero to
        pixels in no window. It needs no mask: where its own ReLU was, or one before it, its
        gradient is zero already.

        Parameters
        ----------
        x, y
            Input and output, as `forward` read and wrote them.
        dy, dx
            Gradients by the output and by the input.
        mask
            The input, if it has gone through a ReLU.
        parts
            For windows that overlap: of shape `overlap`, for one block of images.
        """
        if isinstance(self._layer, GlobalAveragePool):
            yield from self._spread(x, dy, dx, mask)
            return
        vectors = Vectors(self._assembly, Stage.BP)
        for block in range(x.batch_blocks):
            for word in range(x.words):
                if parts is None:
                    yield from self._give_to_windows(vectors, x, y, dy, dx, (block, word))
                else:
                    yield from self._add_up_windows(vectors, x, y, dy, dx, (block, word), parts)

    def _give_to_windows(
        self,
        vectors: Vectors,
        x: Activations,
        y: Activations,
        dy: Activations,
        dx: Activations,
        place: tuple[int, int],
    ) -> Pieces:
        """Add the gradient of maxima whose windows have no pixels in common."""
        block, word = place
        image = _Window(range(x.shape.height), range(x.shape.width))
        left_out = dict.fromkeys(image.pixels)
        for row, line in enumerate(self._windows(x.shape)):
            groups, results = [], []
            for column, window in enumerate(line):
                maximum, gradient = (t.tile(block, row, column, word) for t in (y, dy))
                tiles, targets = (
                    [tensor.tile(block, *pixel, word) for pixel in window.pixels]
                    for tensor in (x, dx)
                )
                groups.append((maximum, gradient, tiles))
                results.append(targets)
                for pixel in window.pixels:
                    del left_out[pixel]
            yield self._to_first(vectors, groups, results)
        tiles = [dx.tile(block, *pixel, word) for pixel in left_out]
        yield from vectors.map_pieces([tiles], tiles, rows=self._assembly.config.elements)

    def _add_up_windows(
        self,
        vectors: Vectors,
        x: Activations,
        y: Activations,
        dy: Activations,
        dx: Activations,
        place: tuple[int, int],
        parts: Activations,
    ) -> Pieces:
        """Add the gradient of maxima whose windows have pixels in common.

        What each window gives its pixels goes to `parts`; a line of pixels is added up as soon as
        all its windows are there.
        """
        layer, config = self._layer, self._assembly.config
        assert isinstance(layer, MaxPool)
        block, word = place
        # For each line of pixels the tiles in `parts` that make each of them.
        given: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        finished = 0
        for row, line in enumerate(self._windows(x.shape)):
            groups, results = [], []
            for column, window in enumerate(line):
                first = column * layer.window**2
                tiles, targets = [], []
                for number, (y_pixel, x_pixel) in enumerate(window.pixels):
                    tiles.append(x.tile(block, y_pixel, x_pixel, word))
                    part = parts.tile(0, row % parts.shape.height, first + number, 0)
                    given[y_pixel][x_pixel].append(part)
                    targets.append(part)
                results.append(targets)
                maximum, gradient = (t.tile(block, row, column, word) for t in (y, dy))
                groups.append((maximum, gradient, tiles))
            yield self._to_first(vectors, groups, results)
            ready = (row + 1) * layer.stride - layer.padding
            if row == layer.shape.height - 1:
                ready = x.shape.height
            for y_pixel in range(finished, ready):
                by_count: dict[int, list[int]] = defaultdict(list)
                for x_pixel in range(x.shape.width):
                    by_count[len(given[y_pixel][x_pixel])].append(x_pixel)
                for count, pixels in sorted(by_count.items()):
                    targets = [dx.tile(block, y_pixel, x_pixel, word) for x_pixel in pixels]
                    if not count:
                        yield from vectors.map_pieces([targets], targets, rows=config.elements)
                        continue
                    for begin, length, _ in nests(targets):
                        some = pixels[begin : begin + length]
                        vectors.stream(
                            [Feed([t for x_pixel in some for t in given[y_pixel][x_pixel]])],
                            groups=length,
                            window=count,
                            rows=config.elements,
                            a=1.0,
                            fold=Fold.SUM if count > 1 else Fold.NONE,
                            target=VectorTarget.NARROW,
                            results=targets[begin : begin + length],
                        )
                    yield max(count, 1) * len(targets) * config.elements
                del given[y_pixel]
            finished = max(finished, ready)

    def _to_first(
        self,
        vectors: Vectors,
        windows: Sequence[tuple[int, int, Sequence[int]]],
        results: Sequence[Sequence[int]],
    ) -> int:
        """Add the gradients of some windows: each to the first of its pixels that is the maximum.

        Parameters
        ----------
        vectors
            Takes the commands.
        windows
            Of each the tiles of its maximum and of its gradient, and of all its pixels.
        results
            Of each the tiles that take what the pixels get.

        Returns
        -------
        About how many cycles it takes.
        """
        rows = self._assembly.config.elements
        first = beats = 0
        for size, run in groupby(windows, key=lambda window: len(window[2])):
            count = len(list(run))
            while count:
                # As many windows as one descriptor can name the results of.
                tiles = [tile for targets in results[first : first + count] for tile in targets]
                [(_, named, _), *_] = nests(tiles)
                some = windows[first : first + max(named // size, 1)]
                feeds = []
                for maximum, gradient, pixels in some:
                    feeds += [Feed([maximum, gradient]), Feed(pixels)]
                vectors.stream(
                    feeds,
                    groups=len(some),
                    held=2,
                    window=size,
                    rows=rows,
                    b=1.0,
                    y=VectorOperand.HELD_1,
                    mask=Mask.FIRST_EQUAL,
                    target=VectorTarget.NARROW,
                    results=tiles[: len(some) * size],
                )
                first, count = first + len(some), count - len(some)
                beats += len(some) * (size + 2) * rows
        return beats

    def _spread(
        self, x: Activations, dy: Activations, dx: Activations, mask: Activations | None
    ) -> Pieces:
        """Add the gradient of an average: a share for each pixel."""
        vectors = Vectors(self._assembly, Stage.BP)
        for word in range(x.words):
            repeated = [tile for tile in dy.column(word) for _ in range(x.shape.positions)]
            sources, masking = [repeated], Mask.NONE
            if mask is not None:
                sources, masking = [mask.column(word), repeated], Mask.HELD_0_POSITIVE
            yield from vectors.map_pieces(
                sources,
                dx.column(word),
                rows=self._assembly.config.elements,
                a=1 / x.shape.positions,
                mask=masking,
            )

    def _windows(self, shape: Shape) -> list[list[_Window]]:
        """Return the windows of an image of that shape, line by line."""
        layer = self._layer
        if isinstance(layer, GlobalAveragePool):
            return [[_Window(range(shape.height), range(shape.width))]]

        def spans(count: int, size: int) -> list[range]:
            starts = [index * layer.stride - layer.padding for index in range(count)]
            return [range(max(start, 0), min(start + layer.window, size)) for start in starts]

        return [
            [_Window(rows, columns) for columns in spans(layer.shape.width, shape.width)]
            for rows in spans(layer.shape.height, shape.height)
        ]


def accumulate(
    assembly: Assembly,
    gradients: Sequence[Activations],
    total: Activations,
    *,
    mask: Activations | None,
) -> Pieces:
    """Add the sum of one or two gradients of a tensor, zero where `mask` isn't positive."""
    vectors = Vectors(assembly, Stage.BP)
    arithmetic: dict[str, Any] = {"b": 1.0, "y": VectorOperand.HELD_0} if len(gradients) > 1 else {}
    masks = [Mask.HELD_0_POSITIVE, Mask.HELD_1_POSITIVE]
    for word in range(total.words):
        sources = [gradient.column(word) for gradient in gradients]
        if mask is not None:
            sources.insert(len(sources) - 1, mask.column(word))
        yield from vectors.map_pieces(
            sources,
            total.column(word),
            rows=assembly.config.elements,
            a=1.0,
            mask=Mask.NONE if mask is None else masks[len(gradients) - 1],
            **arithmetic,
        )


def clear_phase(
    assembly: Assembly,
    dx: Activations,
    phase: tuple[int, int],
    stride: int,
    *,
    add: Activations | None,
    mask: Activations | None,
) -> Pieces:
    """Add what a convolution's backward product leaves out: pixels that none of its taps meets.

    They become zero, or what is to be added.
    """
    vectors = Vectors(assembly, Stage.BP)
    first_y, first_x = phase
    places = [
        (block, y, x)
        for block in range(dx.batch_blocks)
        for y in range(first_y, dx.shape.height, stride)
        for x in range(first_x, dx.shape.width, stride)
    ]
    for word in range(dx.words):

        def tiles(tensor: Activations, word: int = word) -> list[int]:
            return [tensor.tile(*place, word) for place in places]

        sources = [tiles(add if add is not None else dx)]
        masking = Mask.NONE
        if mask is not None and add is not None:
            sources.insert(0, tiles(mask))
            masking = Mask.HELD_0_POSITIVE
        yield from vectors.map_pieces(
            sources,
            tiles(dx),
            rows=assembly.config.elements,
            a=None if add is None else 1.0,
            mask=masking,
        )
