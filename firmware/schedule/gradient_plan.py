"""How the weight gradients of a convolution are cut into products that fit the card.

The reduction of a weight gradient runs over all pixels of a batch. Where they don't fit the
scratchpads, or the accumulators, they are cut into parts, whose products are added up in binary32
in the O scratchpad, in the order of `GradientPlan.parts`. That order, and where the cuts are,
determine the bits; they follow from the layer, the batch and the configuration alone, and are the
same for all weights of the layer. Everything else in a plan only determines how often operands are
loaded and what overlaps.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from rtl.config import ACCUMULATOR_BINS, Config
from rtl.control.commands import WALK_DIMENSIONS
from rtl.sparsity.pattern import Pattern

from ..model import Shape
from .patch import Axis, cut, needed_span, sizes
from .words import o_words, product_tiles, s_words

__all__ = [
    "GradientPlan",
    "GradientProblem",
    "Group",
    "Part",
    "Taps",
    "d_words",
    "group_words",
    "plan_gradients",
    "tap_blocks",
    "tap_sizes",
]

_STATE_BEATS = 4
"""Beats of weights and momentum that a row of a tile has, read and then written."""

_COMMAND, _LOAD = 10, 16
"""Cycles of a COMPUTE beside its slots, and of a LOAD beside its beats: few are better."""

_TRAFFIC = 8
"""Beats to and from memory that are as bad as a cycle: the vector unit takes what is left."""

_LONGEST = (1 << 15) - 1
"""D words of a part, at most: the steps of walks are 16 bits with their sign."""


@dataclass(frozen=True)
class Taps:
    """A block of taps, from line `y` and column `x` of the kernel on."""

    y: int
    x: int
    height: int
    width: int

    @property
    def count(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Part:
    """Some outputs of some blocks of G images; of several blocks all outputs.

    Attributes
    ----------
    blocks
        Blocks of images.
    lines, columns
        Of the output.
    """

    blocks: range
    lines: range
    columns: range

    @property
    def pixels(self) -> int:
        """D words of the reduction: pixels of G images."""
        return len(self.blocks) * len(self.lines) * len(self.columns)


@dataclass(frozen=True)
class GradientProblem:
    """What a plan follows from.

    Parameters
    ----------
    config
        The configuration.
    kernel, stride, padding
        Of the convolution.
    source, output
        Its images and outputs as the array sees them.
    batch_blocks, input_blocks, output_blocks
        Blocks of G images, input channels and output channels.
    bias
        Whether it has a bias, whose gradients are computed with those of the first weights.
    """

    config: Config
    kernel: int
    stride: int
    padding: int
    source: Shape
    output: Shape
    batch_blocks: int
    input_blocks: int
    output_blocks: int
    bias: bool

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Which pixels meet which taps, vertically and horizontally."""
        sides = (
            (self.output.height, self.source.height),
            (self.output.width, self.source.width),
        )
        y, x = (
            Axis(-self.padding, self.stride, 1, self.kernel, outputs, size)
            for outputs, size in sides
        )
        return y, x


@dataclass(frozen=True)
class Group:
    """Weights whose gradients are summed up at the same time.

    Attributes
    ----------
    inputs
        Blocks of G input channels, cut into what one product takes.
    outputs
        Blocks of G output channels.
    taps
        Of the kernel.
    """

    inputs: tuple[range, ...]
    outputs: range
    taps: Taps


@dataclass(frozen=True)
class GradientPlan:
    """How the gradients of a layer are computed.

    Attributes
    ----------
    parts
        What the reduction is cut into, in the order in which the products of the parts are added:
        images, then lines, then columns ascending.
    inputs, outputs
        Blocks of channels in a group, at most: each part of a block of inputs is loaded once for
        all `outputs`, each of a block of outputs once for all `inputs`.
    at_once
        Blocks of input channels in one product.
    taps
        Blocks of taps, one after the other.
    """

    parts: tuple[Part, ...]
    inputs: int
    outputs: int
    at_once: int
    taps: tuple[Taps, ...]

    def groups(self, problem: GradientProblem) -> Iterator[Group]:
        """Yield the groups in their order, the largest first."""
        for inputs, outputs, taps in itertools.product(
            cut(problem.input_blocks, self.inputs),
            cut(problem.output_blocks, self.outputs),
            self.taps,
        ):
            chunks = [inputs[chunk.start : chunk.stop] for chunk in cut(len(inputs), self.at_once)]
            yield Group(tuple(chunks), outputs, taps)


@functools.lru_cache
def plan_gradients(problem: GradientProblem) -> GradientPlan:
    """Return how to compute the gradients of a layer.

    If all pixels fit, they are one part. One pixel of the output, with all that a kernel
    meets, and the gradients of one tap of G by G weights have to fit.
    """
    return _Planner(problem).plan()


def tap_sizes(kernel: int) -> list[tuple[int, int]]:
    """Return height and width of the blocks that a kernel's taps may be cut into."""
    return [(kernel, kernel), (1, kernel), (1, 1)] if kernel > 1 else [(1, 1)]


def tap_blocks(kernel: int, height: int, width: int) -> tuple[Taps, ...]:
    """Return the taps of a kernel in blocks of this size."""
    return tuple(
        Taps(y, x, height, width) for y in range(0, kernel, height) for x in range(0, kernel, width)
    )


def d_words(config: Config, places: int) -> int:
    """Return the words of a D bank for G input channels of some pixels of G images."""
    return config.elements // config.cols * places


def group_words(
    config: Config, bias: bool, inputs: int, outputs: int, at_once: int, taps: int
) -> int:
    """Return the words of an O bank for the gradients of a group, with those of its biases."""
    whole, rest = divmod(inputs, at_once)
    rows = taps * config.elements
    words = whole * o_words(config, at_once * rows)
    words += o_words(config, rest * rows) if rest else 0
    return outputs * (words + bias * o_words(config, 1))


@dataclass(frozen=True)
class _Grid:
    """Parts of one size, but for those at the ends.

    Attributes
    ----------
    blocks, lines, columns
        Of a part.
    count
        Parts in all.
    pixels, places
        Of the largest part: pixels of the output, and of the image with its zeros.
    all_pixels, all_places
        The same of all parts together.
    """

    blocks: int
    lines: int
    columns: int
    count: int
    pixels: int
    places: int
    all_pixels: int
    all_places: int


class _Planner:
    """Finds the plan that takes a layer the fewest cycles, by an estimate.

    What is counted are slots of the array, beats that are read and beats that the updates write,
    and which of them there is room to overlap.
    """

    def __init__(self, problem: GradientProblem) -> None:
        self._problem = problem
        self._config = config = problem.config
        self._g = config.elements
        self._drain = max(ACCUMULATOR_BINS, config.drain_rows)
        self._y, self._x = problem.axes

    def plan(self) -> GradientPlan:
        """Return the plan."""
        problem, config = self._problem, self._config
        # With more in a product than a tile has outputs nothing is gained.
        largest = max(1, config.rows * config.cols * config.interleave // self._g**2)
        inputs = _powers(problem.input_blocks)
        candidates = itertools.product(
            self._grids(),
            tap_sizes(problem.kernel),
            [count for count in inputs if count <= largest],
            inputs,
            _powers(problem.output_blocks),
        )
        # Of several that take as long the first.
        grid, taps, at_once, input_blocks, output_blocks = min(
            candidates, key=lambda candidate: self._cycles(*candidate)
        )
        return GradientPlan(
            parts=tuple(
                Part(*ranges)
                for ranges in itertools.product(
                    cut(problem.batch_blocks, grid.blocks),
                    cut(problem.output.height, grid.lines),
                    cut(problem.output.width, grid.columns),
                )
            ),
            inputs=input_blocks,
            outputs=output_blocks,
            at_once=at_once,
            taps=tap_blocks(problem.kernel, *taps),
        )

    def _grids(self) -> list[_Grid]:
        """Return the ways to cut the pixels that fit, the coarsest first.

        Only one if all do, whatever would be faster: a sum that needn't be cut is rounded once.
        """
        batch, output = self._problem.batch_blocks, self._problem.output
        whole = self._grid(batch, output.height, output.width)
        if self._fits(whole):
            return [whole]
        grids = [self._grid(blocks, output.height, output.width) for blocks in sizes(batch)]
        for lines, columns in itertools.product(sizes(output.height), sizes(output.width)):
            grids.append(self._grid(1, lines, columns))
        return [grid for grid in grids if self._fits(grid)]

    def _grid(self, blocks: int, lines: int, columns: int) -> _Grid:
        batch, output = self._problem.batch_blocks, self._problem.output
        heights = self._reaches(self._y, lines)
        widths = self._reaches(self._x, columns)
        return _Grid(
            blocks,
            lines,
            columns,
            count=-(-batch // blocks) * len(heights) * len(widths),
            pixels=blocks * lines * columns,
            places=blocks * max(heights) * max(widths),
            all_pixels=batch * output.positions,
            all_places=batch * sum(heights) * sum(widths),
        )

    @staticmethod
    def _reaches(axis: Axis, size: int) -> list[int]:
        """Return what each range of `size` outputs needs of the image."""
        return [needed_span([(axis, outputs)]).size for outputs in cut(axis.outputs, size)]

    def _fits(self, grid: _Grid) -> bool:
        """Return whether a part of one block of channels each can be loaded and added up."""
        return (
            max(grid.pixels, grid.places) <= _LONGEST
            and s_words(self._config, Pattern.DENSE, grid.pixels) <= self._config.s_depth
            and d_words(self._config, grid.places) <= self._config.d_depth
            and grid.pixels * Pattern.DENSE.steps(self._config) <= self._config.max_additions
        )

    def _cycles(
        self, grid: _Grid, taps: tuple[int, int], at_once: int, inputs: int, outputs: int
    ) -> float:
        """Return about how many cycles it takes; infinitely many if it doesn't fit."""
        problem, config, g = self._problem, self._config, self._g
        tap_count = math.prod(taps)
        tap_blocks = problem.kernel**2 // tap_count
        needs = (
            (s_words(config, Pattern.DENSE, grid.pixels), config.s_depth),
            (inputs * d_words(config, grid.places), config.d_depth),
            (
                group_words(config, problem.bias, inputs, outputs, at_once, tap_count),
                config.o_depth,
            ),
        )
        # The rows of a D operand are walked by three loops.
        loops = sum(count > 1 for count in (*taps, g // config.cols, at_once))
        if (
            at_once > inputs
            or loops > WALK_DIMENSIONS
            or any(words > depth for words, depth in needs)
        ):
            return math.inf
        s_alternates, d_alternates, o_alternates = (2 * words <= depth for words, depth in needs)

        # What is in its scratchpad already isn't loaded again.
        single = grid.count == 1
        input_groups = -(-problem.input_blocks // inputs)
        output_groups = -(-problem.output_blocks // outputs)
        d_rounds = 1 if single else output_groups * tap_blocks
        s_rounds = 1 if single and problem.output_blocks == 1 else input_groups
        s_rounds *= 1 if single and outputs == 1 else tap_blocks
        s_beats = g * problem.output_blocks * grid.all_pixels * s_rounds
        d_beats = g * problem.input_blocks * grid.all_places * d_rounds
        loads = problem.output_blocks * s_rounds + problem.input_blocks * d_rounds
        read = s_beats + d_beats + loads * grid.count * _LOAD

        tiles = problem.input_blocks * problem.output_blocks * problem.kernel**2
        state_beats = _STATE_BEATS * g * tiles
        # With both copies, dense at most.
        written = state_beats + 2 * g * tiles

        # What can't overlap with the array's work, for want of room, takes time of its own.
        work = self._slots(grid, tap_count, at_once) * tap_blocks
        work += 0 if s_alternates else s_beats
        work += 0 if d_alternates or (single and input_groups == 1) else d_beats
        work += 0 if o_alternates else written
        first = g * (inputs * grid.places + grid.pixels)
        last = written // (input_groups * output_groups * tap_blocks) if o_alternates else 0
        moved = read + state_beats + written
        return first + max(work, read + state_beats, written) + last + moved / _TRAFFIC

    def _slots(self, grid: _Grid, taps: int, at_once: int) -> int:
        """Return the cycles of the array for a block of taps of all weights."""
        config, steps = self._config, Pattern.DENSE.steps(self._config)
        words = max(steps * grid.all_pixels, self._drain * grid.count)
        products, rest = divmod(self._problem.input_blocks, at_once)
        tiles = products * product_tiles(config, at_once * taps) + (
            product_tiles(config, rest * taps) if rest else 0
        )
        cycles = tiles * config.interleave * words + (products + bool(rest)) * grid.count * _COMMAND
        return self._problem.output_blocks * cycles


def _powers(total: int) -> list[int]:
    """Return the powers of two below `total`, and `total`."""
    return [1 << i for i in range((total - 1).bit_length())] + [total]
