"""How the forward and backward products of a convolution are cut to fit the card.

Images are cut into patches, which lie in the D scratchpad with all that their outputs need, and the
outputs of a patch into areas, each a product for G channels. Weights stay in the S scratchpad for
all patches if they fit it; if not, either they or the patches are loaded again.

A reduction is one part, and so exact, wherever one output of it fits the scratchpads and the
accumulators. Elsewhere it is cut into parts, whose products are added up in binary32 in the O
scratchpad, in the order of `ConvolutionPlan.parts`. Cuts follow from the layer, the batch and the
configuration alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rtl.config import ACCUMULATOR_BINS, Config
from rtl.sparsity.pattern import Pattern

from ..tensor import Span
from .patch import Axis, cut, needed_span, sizes
from .words import ROW_WORDS, o_words, product_tiles, s_words

__all__ = [
    "ConvolutionPlan",
    "ConvolutionProblem",
    "Part",
    "Patch",
    "needed",
    "part_slots",
    "plan_convolution",
]

_COMMAND, _LOAD, _STORE = 8, 4, 100
"""Cycles of a COMPUTE beside its slots, of a LOAD and a STORE beside their words."""

_TRAFFIC = 8
"""Beats to and from memory that are as bad as a cycle: other units take what is left."""

_WAIT = 2
"""Cycles in which a beat is written by the layer before, about, whose lines are waited for."""

_START = 150
"""Cycles until the first beats are there and the first product has filled the array, about."""

_LONGEST = (1 << 15) - 1
"""D words of a patch, at most: the steps of walks are 16 bits with their sign."""


@dataclass(frozen=True)
class ConvolutionProblem:
    """What a plan follows from.

    Parameters
    ----------
    config
        The configuration.
    pattern
        Of the weights.
    products
        Which pixels of the images meet which taps, vertically and horizontally, for each product
        that takes the same images: one forward, and one for each phase of a stride backward.
    words
        D words of a pixel.
    output_blocks, batch_blocks
        Blocks of G output channels and of G images.
    operands
        Tensors of the results' shape that STORE takes: what is added, and the mask.
    """

    config: Config
    pattern: Pattern
    products: tuple[tuple[Axis, Axis], ...]
    words: int
    output_blocks: int
    batch_blocks: int
    operands: int = 0

    @property
    def lines(self) -> int:
        """Lines of outputs of the largest product."""
        return max(y.outputs for y, _ in self.products)

    @property
    def columns(self) -> int:
        """Columns of outputs of the largest product."""
        return max(x.outputs for _, x in self.products)

    @property
    def y(self) -> tuple[Axis, ...]:
        return tuple(y for y, _ in self.products)

    @property
    def x(self) -> tuple[Axis, ...]:
        return tuple(x for _, x in self.products)

    @property
    def place_words(self) -> int:
        """Words of a D bank that a D word of G images takes."""
        return self.config.elements // self.config.cols


@dataclass(frozen=True)
class Patch:
    """Outputs of some blocks of G images whose pixels are in the D scratchpad at the same time.

    Attributes
    ----------
    blocks
        Of images.
    lines, columns
        Of the largest product's outputs; others have as many of these as there are.
    """

    blocks: range
    lines: range
    columns: range


@dataclass(frozen=True)
class Part:
    """Part of a reduction: some D words of each pixel under some taps.

    Attributes
    ----------
    words
        Of a pixel's channels.
    rows, columns
        Of taps.
    """

    words: range
    rows: range
    columns: range

    @property
    def d_words(self) -> int:
        return len(self.words) * len(self.rows) * len(self.columns)


@dataclass(frozen=True)
class ConvolutionPlan:
    """How the products of a layer are computed.

    Attributes
    ----------
    blocks, lines, columns
        Blocks of images, and outputs, of a patch.
    area
        Lines of outputs that a product computes, at most.
    group
        Blocks of output channels that are computed for all patches before the next ones are.
    resident
        Whether the weights of a group stay in the S scratchpad meanwhile.
    ahead
        Whether a patch is loaded while the one before it is computed.
    words, taps
        D words of a pixel, and height and width of taps, in a part of the reduction.
    held
        Blocks of output channels whose parts are summed up at the same time, if pixels are cut.
    """

    blocks: int
    lines: int
    columns: int
    area: int
    group: int
    resident: bool
    ahead: bool
    words: int
    taps: tuple[int, int]
    held: int = 1

    def patches(self, problem: ConvolutionProblem) -> Iterator[Patch]:
        """Yield the patches: images, then lines, then columns ascending."""
        for blocks, lines, columns in itertools.product(
            cut(problem.batch_blocks, self.blocks),
            cut(problem.lines, self.lines),
            cut(problem.columns, self.columns),
        ):
            yield Patch(blocks, lines, columns)

    def parts(self, problem: ConvolutionProblem, y: Axis, x: Axis) -> list[Part]:
        """Return the parts of a product's reduction in the order in which they are added.

        Channels ascending, then lines of taps, then columns of taps.
        """
        return [
            Part(*ranges)
            for ranges in itertools.product(
                cut(problem.words, self.words), cut(y.taps, self.taps[0]), cut(x.taps, self.taps[1])
            )
        ]


@functools.lru_cache(maxsize=1024)
def plan_convolution(problem: ConvolutionProblem) -> ConvolutionPlan | None:
    """Return how to compute the products of a layer; None if not even one output fits."""
    return _Planner(problem).plan()


def needed(axes: Iterable[Axis], outputs: range) -> Span:
    """Return what products need of the image for these outputs, in one direction."""
    parts = [(axis, clipped(outputs, axis.outputs)) for axis in axes]
    return needed_span([(axis, some) for axis, some in parts if some])


def clipped(outputs: range, stop: int) -> range:
    """Return those of some outputs that are below `stop`."""
    return range(outputs.start, max(outputs.start, min(outputs.stop, stop)))


def part_slots(config: Config, pattern: Pattern, d_words: int) -> int:
    """Return the cycles in which each context of a tile takes its words, or is drained."""
    words = d_words * pattern.steps(config)
    drain = -(-words // config.bin_additions) * max(ACCUMULATOR_BINS, config.drain_rows)
    return max(words, drain)


@dataclass(frozen=True)
class _Shape:
    """The lines, or the columns, of all patches.

    Attributes
    ----------
    count
        Of patches in this direction.
    largest, all
        Places of the image, zeros included, that the largest patch needs, and all in sum.
    outputs
        How often each product has how many outputs of a patch.
    """

    count: int
    largest: int
    all: int
    outputs: tuple[tuple[tuple[int, int], ...], ...]


class _Planner:
    """Finds the plan that takes a layer the fewest cycles, by an estimate.

    What is counted are slots of the array, beats that are read and words that are stored, and which
    of them there is room to overlap.
    """

    def __init__(self, problem: ConvolutionProblem) -> None:
        self._problem = problem
        self._config = config = problem.config
        self._g = config.elements
        self._most_taps = (max(y.taps for y in problem.y), max(x.taps for x in problem.x))
        self._positions = problem.batch_blocks * sum(
            y.outputs * x.outputs for y, x in problem.products
        )

    def plan(self) -> ConvolutionPlan | None:
        """Return the plan, if there is one."""
        problem = self._problem
        # Whatever else is chosen, a reduction that fits is one part.
        reductions = self._reductions()
        whole = (problem.words, self._most_taps)
        for choices in ([each for each in reductions if each == whole], reductions):
            candidates = [
                plan
                for words, taps in choices
                for lines in sizes(problem.lines)
                for columns in sizes(problem.columns)
                for plan in self._candidates(words, taps, lines, columns)
            ]
            if candidates:
                # Of several that take as long that with the smallest patches.
                return min(reversed(candidates), key=self._cycles)
        return None

    def _reductions(self) -> list[tuple[int, tuple[int, int]]]:
        """Return what parts may have: D words of a pixel, and the most taps that fit with them."""
        rows, columns = self._most_taps
        blocks = [(height, columns) for height in sizes(rows)]
        blocks += [(1, width) for width in sizes(columns)]
        found = []
        for words in sizes(self._problem.words):
            for taps in blocks:
                if self._fits_s(words * math.prod(taps)):
                    found.append((words, taps))
                    break
        return found

    def _fits_s(self, d_words: int) -> bool:
        """Return whether S scratchpad and accumulators take a part of that many D words."""
        config, pattern = self._config, self._problem.pattern
        return (
            s_words(config, pattern, d_words) <= config.s_depth
            and d_words * pattern.steps(config) <= config.max_additions
        )

    def _candidates(
        self, words: int, taps: tuple[int, int], lines: int, columns: int
    ) -> Iterator[ConvolutionPlan]:
        """Yield plans with patches of this size, if they fit."""
        problem, config = self._problem, self._config
        is_cut = words < problem.words or taps != self._most_taps
        places = self._shape(problem.y, lines).largest * self._shape(problem.x, columns).largest
        patch_words = places * words * problem.place_words
        depth = min(config.d_depth, _LONGEST)
        blocks = [1]
        if not is_cut and (lines, columns) == (problem.lines, problem.columns):
            blocks = sizes(problem.batch_blocks)
        areas = [lines] if is_cut else self._areas(lines, columns)
        for count, area in itertools.product(blocks, areas):
            if count * patch_words > depth:
                continue
            patches = (
                -(-problem.batch_blocks // count)
                * -(-problem.lines // lines)
                * -(-problem.columns // columns)
            )
            plan = ConvolutionPlan(
                blocks=count,
                lines=lines,
                columns=columns,
                area=area,
                group=problem.output_blocks,
                resident=False,
                ahead=2 * count * patch_words <= depth,
                words=words,
                taps=taps,
            )
            if is_cut:
                yield from self._sums(plan)
            else:
                yield from self._groups(plan, patches)

    def _areas(self, lines: int, columns: int) -> list[int]:
        """Return lines that a product may have, so that results alternate, if there is room."""
        for depth in (self._config.o_depth // 2, self._config.o_depth):
            fitting = (size for size in sizes(lines) if self._o_words(size * columns) <= depth)
            if largest := next(fitting, 0):
                return [largest >> shift for shift in range(largest.bit_length())]
        return []

    def _o_words(self, positions: int) -> int:
        return o_words(self._config, positions * self._g)

    def _sums(self, plan: ConvolutionPlan) -> Iterator[ConvolutionPlan]:
        """Yield what sums there may be at the same time."""
        config, problem = self._config, self._problem
        words = held_words(problem, plan)
        if plan.words == problem.words:
            # The patch stays, and so one sum is taken after the other.
            if words <= config.o_depth:
                yield plan
            return
        for held in sizes(problem.output_blocks):
            if held * len(problem.products) * words <= config.o_depth:
                yield replace(plan, held=held)

    def _groups(self, plan: ConvolutionPlan, patches: int) -> Iterator[ConvolutionPlan]:
        """Yield what weights may stay."""
        problem, config = self._problem, self._config
        fitting = config.s_depth // self._block_words()
        if patches == 1 or fitting >= problem.output_blocks:
            yield replace(plan, resident=patches > 1)
            return
        yield plan
        if fitting:
            groups = -(-problem.output_blocks // fitting)
            yield replace(plan, group=-(-problem.output_blocks // groups), resident=True)

    def _block_words(self) -> int:
        """Return the words of an S bank for the weights of G output channels, of all products."""
        return block_words(self._problem)

    def _shape(self, axes: Sequence[Axis], size: int) -> _Shape:
        return _shape(tuple(axes), size)

    def _cycles(self, plan: ConvolutionPlan) -> float:
        """Return about how many cycles a plan takes."""
        problem, config, g = self._problem, self._config, self._g
        y, x = self._shape(problem.y, plan.lines), self._shape(problem.x, plan.columns)
        patches = -(-problem.batch_blocks // plan.blocks) * y.count * x.count
        groups = -(-problem.output_blocks // plan.group)
        if plan.words < problem.words:
            groups = -(-problem.output_blocks // plan.held)
        elif patches == 1:
            groups = 1

        batches = patches * groups
        slots, products = self._slots(plan, y, x)
        taps = sum(y.taps * x.taps for y, x in problem.products)
        s_beats = problem.output_blocks * taps * problem.words * problem.pattern.tile_beats(config)
        d_beats = g * problem.words * problem.batch_blocks * y.all * x.all * groups
        tiles = self._positions * problem.output_blocks
        area = plan.area * plan.columns
        pieces = -(-area // self._stored_at_once())
        operands = problem.operands * (g * tiles + _LOAD * products * pieces)
        stored = ROW_WORDS * g * tiles + _STORE * products * pieces

        # What can't overlap with the array's work, for want of room, takes time of its own.
        work = slots
        alone = d_beats if not plan.ahead and batches > 1 else 0
        if not plan.resident and 2 * self._block_words() > config.s_depth * len(problem.products):
            work += s_beats * patches
        if 2 * self._o_words(area) > config.o_depth:
            work += stored
        busy = work / batches
        # While a patch is computed, weights and the next patch are loaded. Weights that stay are
        # loaded with the first one.
        loads = (d_beats + operands) / batches + _LOAD * products / batches / plan.group
        weights = s_beats / groups if plan.resident else s_beats * patches / batches
        cycles = max(busy, loads + weights)
        if plan.resident:
            cycles = (groups * cycles + (batches - groups) * max(busy, loads)) / batches
        # The first product needs its lines, and those that follow for the same channels the rest
        # of the patch. The last one leaves its results to be stored.
        lines = needed(problem.y, range(min(plan.area, problem.lines))).size
        others = slots / (batches * plan.group * len(problem.products))
        wait = _WAIT * g * plan.words * lines * x.all
        first = max(wait, d_beats / batches - others)
        first += s_beats // problem.output_blocks
        last = ROW_WORDS * g * area
        moved = batches * loads + weights * (groups if plan.resident else batches) + stored
        return _START + first + max(batches * cycles + last, stored) + alone + moved / _TRAFFIC

    def _stored_at_once(self) -> int:
        """Return the positions that a STORE takes, at most."""
        operands = self._problem.operands * self._g
        return max(self._config.aux_depth // 2 // operands, 1) if operands else _LONGEST

    def _slots(self, plan: ConvolutionPlan, y: _Shape, x: _Shape) -> tuple[int, int]:
        """Return the cycles of the array, and the number of products."""
        problem, config = self._problem, self._config
        slots = products = 0
        for (y_axis, x_axis), heights, widths in zip(problem.products, y.outputs, x.outputs):
            parts = plan.parts(problem, y_axis, x_axis)
            cycles = sum(part_slots(config, problem.pattern, part.d_words) for part in parts)
            for (height, rows), (width, columns) in itertools.product(heights, widths):
                whole, rest = divmod(height, plan.area)
                count = whole + bool(rest)
                tiles = whole * product_tiles(config, plan.area * width)
                tiles += product_tiles(config, rest * width) if rest else 0
                slots += rows * columns * tiles * cycles
                products += rows * columns * count * len(parts)
        times = problem.batch_blocks * problem.output_blocks
        products *= times
        return times * slots * config.interleave + _COMMAND * products, products


def held_words(problem: ConvolutionProblem, plan: ConvolutionPlan) -> int:
    """Return the words of an O bank for one product of a patch, of G output channels."""
    return o_words(problem.config, plan.lines * plan.columns * problem.config.elements)


def block_words(problem: ConvolutionProblem) -> int:
    """Return the words of an S bank for the weights of G output channels, of all products."""
    return sum(
        s_words(problem.config, problem.pattern, y.taps * x.taps * problem.words)
        for y, x in problem.products
    )


@functools.lru_cache(maxsize=4096)
def _shape(axes: tuple[Axis, ...], size: int) -> _Shape:
    """Return what patches of `size` outputs need in one direction."""
    cuts = cut(max(axis.outputs for axis in axes), size)
    places = [needed(axes, outputs).size for outputs in cuts]
    counts = [Counter(len(clipped(outputs, axis.outputs)) for outputs in cuts) for axis in axes]
    return _Shape(
        len(cuts),
        max(places),
        sum(places),
        tuple(tuple((n, times) for n, times in count.items() if n) for count in counts),
    )
