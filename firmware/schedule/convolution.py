"""The forward and backward products of a convolution.

Forward and backward, the D operand is a patch of the image with its frame of zeros, in the
scratchpad once; the array walks places of the kernel and taps over it. How images and reductions
are cut says `firmware.schedule.convolution_plan`. A backward product of a convolution with a stride
is one product for each phase of the input, with the taps that meet it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rtl.control.commands import LoadOrder, LoadTarget, Stage

from ..errors import ScheduleError
from ..layers import ConvolutionTensors
from ..model import Convolution
from ..program import descriptor, product, walk
from ..tensor import Activations, Compressed, Images, Span, Tensor
from .assembly import Assembly, Ring
from .convolution_plan import (
    ConvolutionPlan,
    ConvolutionProblem,
    Part,
    Patch,
    block_words,
    clipped,
    needed,
    part_slots,
    plan_convolution,
)
from .patch import Axis, cut
from .pieces import Needs, Steps, Written
from .words import ROW_WORDS, o_words, padding, s_words

__all__ = ["ConvolutionSchedule"]

_PIECE_BEATS = 512
"""Beats of a LOAD of a patch, at least, if it has lines enough: what needs them begins sooner."""


@dataclass(frozen=True)
class _Grid:
    """Where the outputs of a product go: every `stride`-th pixel from `first` on."""

    tensor: Activations
    first_y: int = 0
    first_x: int = 0
    stride: int = 1

    def tile(self, block: int, y: int, x: int, word: int) -> int:
        """Return the address of the tile of an output."""
        return self.tensor.tile(block, self.line(y), self.first_x + x * self.stride, word)

    def line(self, y: int) -> int:
        """Return the line of the tensor in which an output's line is."""
        return self.first_y + y * self.stride


@dataclass(frozen=True)
class _Area:
    """Some outputs of an image: `lines` lines of `width`."""

    y: int
    x: int
    lines: int
    width: int

    @property
    def positions(self) -> int:
        return self.lines * self.width


@dataclass
class _Pixels:
    """Part of the images of a block in the D scratchpad, loaded line by line.

    Attributes
    ----------
    block
        Of G images.
    rows, columns
        Of the image.
    words
        Of each pixel.
    base
        Where they are, once they have a place.
    lines
        How many of the rows have been loaded.
    """

    block: int
    rows: Span
    columns: Span
    words: range
    base: int = 0
    lines: int = 0


@dataclass(frozen=True)
class _Product:
    """A forward product or a phase of a backward one."""

    stage: Stage
    context: str
    source: Images
    weights: Compressed
    first_tap: tuple[int, int]
    tap_stride: int
    y: Axis
    x: Axis
    step: int
    channels: int
    reduction: int
    output: _Grid
    add: Activations | None = None
    mask: Activations | None = None
    relu: bool = False
    bias: Tensor | None = None


@dataclass
class _Place:
    """Words of the O scratchpad, from `base` on once they have been chosen."""

    words: int
    base: int | None = None


@dataclass(frozen=True)
class _Result:
    """G output channels of an area, `offset` words into a place."""

    work: _Product
    output_block: int
    block: int
    area: _Area
    place: _Place
    offset: int

    @property
    def o_base(self) -> int:
        assert self.place.base is not None, "results have their place before they are computed"
        return self.place.base + self.offset


@dataclass(frozen=True)
class _Step:
    """The product that gives a result, or a part of it.

    Attributes
    ----------
    first, last
        Whether it is the first, the last part.
    """

    result: _Result
    part: Part
    pixels: _Pixels
    first: bool
    last: bool


@dataclass
class _Batch:
    """Products that take the same pixels.

    Attributes
    ----------
    pixels, steps
        What they take, and the products.
    words
        Of a D bank, for the pixels.
    start
        What the D scratchpad had handed out before them, if they have a place.
    """

    pixels: list[_Pixels]
    steps: list[_Step]
    words: int
    start: int | None = None

    def give_way(self, ring: Ring) -> None:
        """Forget the pixels if others have taken their place, or will before these are used up."""
        # Until then a batch is placed behind these, maybe at the start of the scratchpad.
        if self.start is not None and ring.taken - self.start + 2 * self.words > ring.depth:
            self.start = None
            for pixels in self.pixels:
                pixels.lines = 0


class _Weights:
    """Which weights are in the S scratchpad: those loaded last, or `resident` words that stay.

    Parameters
    ----------
    ring
        The scratchpad. What else is given a place there takes that of these in the end.
    resident
        Words of a bank that stay; zero if the next ones may take the place of the last.
    """

    def __init__(self, ring: Ring, resident: int) -> None:
        self._ring, self._resident = ring, resident
        self._bases: dict[Hashable, int] = {}
        self._next = 0
        self._start = 0

    def place(self, what: Hashable, words: int) -> tuple[int, bool]:
        """Return the base of some weights, and whether they are there already."""
        if self._ring.taken - self._start > self._ring.depth:
            self._bases.clear()
        if what in self._bases:
            return self._bases[what], True
        if not self._resident:
            self._bases.clear()
        if not self._bases:
            self._next = self._ring.take(self._resident or words)
            self._start = self._ring.taken - (self._resident or words)
        base, self._next = self._next, self._next + words
        self._bases[what] = base
        return base, False


def _last_line(step: _Step) -> int:
    """Return how many lines of its pixels a product needs."""
    axis, area = step.result.work.y, step.result.area
    _, highest = axis.reach(range(area.y, area.y + area.lines))
    return highest - step.pixels.rows.first + 1


def _missing(tensor: Activations, block: int) -> int:
    """Return how many images of a block are padding."""
    return tensor.config.elements - tensor.rows(block)


class ConvolutionSchedule:
    """Adds the products of one convolution to a program.

    Parameters
    ----------
    assembly
        The program.
    layer, tensors
        The convolution.
    """

    def __init__(self, assembly: Assembly, layer: Convolution, tensors: ConvolutionTensors) -> None:
        self._assembly = assembly
        self._program = assembly.program
        self._config = assembly.config
        self._layer = layer
        self._tensors = tensors

    # Forward and backward

    def forward(
        self,
        x: Images,
        y: Activations,
        *,
        add: Activations | None = None,
    ) -> Steps:
        """Add FF: ``y = relu(x * w + bias + add)``, a product a piece.

        Parameters
        ----------
        x, y
            Input and output.
        add
            What is added.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        layer, weights = self._layer, self._tensors.forward
        source = x.shape

        step = layer.step

        def axis(size: int, outputs: int) -> Axis:
            places = -(-size // step)
            return Axis(-layer.padding, layer.stride // step, 1, layer.kernel, outputs, places)

        work = _Product(
            stage=Stage.FF,
            context=f"{layer.name}, FF",
            source=x,
            weights=weights,
            first_tap=(0, 0),
            tap_stride=1,
            y=axis(source.height, layer.shape.height),
            x=axis(source.width, layer.shape.width),
            step=step,
            channels=layer.outputs,
            reduction=layer.inputs,
            output=_Grid(y),
            add=add,
            relu=layer.relu,
            bias=self._tensors.bias,
        )
        yield from self._convolve([work])

    def backward(
        self,
        dy: Activations,
        dx: Activations,
        *,
        add: Activations | None,
        mask: Activations | None,
    ) -> Generator[int | Needs | Written, bool | None, list[tuple[int, int]]]:
        """Add BP: ``dx = dy * w'`` plus `add`, zero where `mask` isn't positive.

        Returns
        -------
        Pieces, a product each; and in the end the phases of the input, vertically and horizontally,
        that no tap meets: nothing was written there.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        layer, weights = self._layer, self._tensors.backward
        context = f"{layer.name}, BP"
        if weights is None:
            raise ScheduleError(f"{context}: the layer was placed without backward weights")
        source, target, stride = dy.shape, dx.shape, layer.stride

        def axis(phase: int, outputs: int, size: int) -> tuple[int, Axis]:
            first_tap = (phase + layer.padding) % stride
            taps = len(range(first_tap, layer.kernel, stride))
            origin = (phase + layer.padding - first_tap) // stride
            count = len(range(phase, outputs, stride))
            return first_tap, Axis(origin, 1, -1, taps, count, size)

        phases, empty = [], []
        for phase_y in range(min(stride, target.height)):
            tap_y, y = axis(phase_y, target.height, source.height)
            for phase_x in range(min(stride, target.width)):
                tap_x, x = axis(phase_x, target.width, source.width)
                if not y.taps or not x.taps:
                    empty.append((phase_y, phase_x))
                    continue
                phases.append(
                    _Product(
                        stage=Stage.BP,
                        context=context,
                        source=dy,
                        weights=weights,
                        first_tap=(tap_y, tap_x),
                        tap_stride=stride,
                        y=y,
                        x=x,
                        step=1,
                        channels=layer.inputs,
                        reduction=layer.outputs,
                        output=_Grid(dx, phase_y, phase_x, stride),
                        add=add,
                        mask=mask,
                    )
                )
        yield from self._convolve(phases)
        return empty

    def _convolve(self, works: Sequence[_Product]) -> Steps:
        """Add products of the same images, each a piece."""
        plan, problem = self._plan(works), self._problem(works)
        bias_bases = {work: self._prepare(work) for work in works}
        pending: _Result | None = None
        interrupted = False
        sums = 0
        for group in cut(problem.output_blocks, plan.group):
            resident = len(group) * block_words(problem) if plan.resident else 0
            weights = _Weights(self._assembly.s, resident)
            batches = self._batches(works, plan, problem, group)
            batch = next(batches, None)
            while batch is not None:
                following = next(batches, None)
                for number, step in enumerate(batch.steps, 1):
                    self._place(batch, plan)
                    # Weights first: unlike the images, they needn't wait for the layer before.
                    s_base = self._load_weights(weights, step)
                    yield from self._load_lines(step.pixels, works[0], _last_line(step))
                    # Ahead of the array, as others load as well.
                    if plan.resident:
                        for other in batch.steps[2 * number - 1 : 2 * number + 1]:
                            self._load_weights(weights, other)
                    if following is not None and plan.ahead:
                        self._place(following, plan)
                        share = min(2 * number / len(batch.steps), 1)
                        yield from self._load_share(following, works[0], share)
                    # The load queue must bring these operands before it turns to what is added and
                    # masked by in the STOREs before, for which there is room only as they end.
                    if pending is not None:
                        yield from self._store(pending, bias_bases[pending.work])
                        pending = None
                    cycles = self._compute(step, s_base)
                    sums += step.first - step.last
                    if step.last:
                        pending = step.result
                    interrupted |= bool((yield cycles))
                    if interrupted and not sums:
                        if pending is not None:
                            yield from self._store(pending, bias_bases[pending.work])
                            pending = None
                        yield 0
                        interrupted = False
                        for loaded in (batch, following):
                            if loaded is not None:
                                loaded.give_way(self._assembly.d)
                        bias_bases = {work: self._prepare(work) for work in works}
                batch = following
        if pending is not None:
            yield from self._store(pending, bias_bases[pending.work])

    def _problem(self, works: Sequence[_Product]) -> ConvolutionProblem:
        """Return what the plan of some products follows from."""
        first = works[0]
        return ConvolutionProblem(
            config=self._config,
            pattern=first.weights.pattern,
            products=tuple((work.y, work.x) for work in works),
            words=first.source.words,
            output_blocks=first.weights.blocks,
            batch_blocks=first.source.batch_blocks,
            operands=(first.add is not None) + (first.mask is not None),
        )

    def _plan(self, works: Sequence[_Product]) -> ConvolutionPlan:
        """Return how some products are computed, or refuse them."""
        config, assembly, problem = self._config, self._assembly, self._problem(works)
        plan = plan_convolution(problem)
        if plan is not None:
            return plan
        context, pattern = works[0].context, problem.pattern
        assembly.need(context, assembly.s, s_words(config, pattern, 1))
        one = range(1)
        places = needed(problem.y, one).size * needed(problem.x, one).size
        assembly.need(context, assembly.d, places * problem.place_words)
        assembly.need(context, assembly.o, len(works) * o_words(config, config.elements))
        raise ScheduleError(
            f"{context}: a D word takes {pattern.steps(config)} additions in a lane, the "
            f"accumulators of configuration '{config.name}' allow {config.max_additions}"
        )

    def _batches(
        self,
        works: Sequence[_Product],
        plan: ConvolutionPlan,
        problem: ConvolutionProblem,
        group: range,
    ) -> Iterator[_Batch]:
        """Yield the products of a group of output blocks, those of the same pixels together."""
        words = cut(problem.words, plan.words)
        held = cut(len(group), plan.held) if len(words) > 1 else [range(len(group))]
        for patch in plan.patches(problem):
            rows, columns = needed(problem.y, patch.lines), needed(problem.x, patch.columns)
            for blocks in held:
                output_blocks = group[blocks.start : blocks.stop]
                results = self._results(works, plan, patch, output_blocks, len(words) > 1)
                for some in words:
                    pixels = {block: _Pixels(block, rows, columns, some) for block in patch.blocks}
                    steps = [
                        _Step(result, part, pixels[result.block], not index, part == parts[-1])
                        for result in results
                        for parts in [plan.parts(problem, result.work.y, result.work.x)]
                        for index, part in enumerate(parts)
                        if part.words == some
                    ]
                    size = rows.size * columns.size * len(some) * problem.place_words
                    yield _Batch(list(pixels.values()), steps, len(pixels) * size)

    def _results(
        self,
        works: Sequence[_Product],
        plan: ConvolutionPlan,
        patch: Patch,
        output_blocks: range,
        together: bool,
    ) -> list[_Result]:
        """Return the results of a patch, with one place `together` or one for each."""
        results = []
        offset = 0
        shared = _Place(0)
        for work in works:
            lines = clipped(patch.lines, work.y.outputs)
            columns = clipped(patch.columns, work.x.outputs)
            areas = [
                _Area(lines[some.start], columns.start, len(some), len(columns))
                for some in cut(len(lines), plan.area)
                if columns
            ]
            for output_block, block, area in itertools.product(output_blocks, patch.blocks, areas):
                words = o_words(self._config, area.positions * self._config.elements)
                place = shared if together else _Place(words)
                results.append(_Result(work, output_block, block, area, place, offset))
                if together:
                    offset += words
        shared.words = offset
        return results

    def _prepare(self, work: _Product) -> int | None:
        """Return where the bias of a product is in AUX, if it's there for all."""
        assembly = self._assembly
        # What is added takes the places of AUX in turn, the bias's among them: then each STORE has
        # its own copy.
        if work.bias is None or work.add is not None:
            return None
        assembly.need(work.context, assembly.aux, work.weights.blocks)
        base = assembly.aux.take(work.weights.blocks)
        self._load_bias(work, work.bias.address, base, work.weights.blocks)
        return base

    def _place(self, batch: _Batch, plan: ConvolutionPlan) -> None:
        """Give the pixels of a batch their place in the D scratchpad, unless they have it."""
        if batch.start is not None:
            return
        ring = self._assembly.d
        # Of three that follow each other no two overlap, or halves are taken in turns.
        halves = plan.ahead and 3 * batch.words > ring.depth
        base = ring.take_half() if halves else ring.take(batch.words)
        batch.start = ring.taken - (ring.depth // 2 if halves else batch.words)
        for index, pixels in enumerate(batch.pixels):
            pixels.base = base + index * (batch.words // len(batch.pixels))

    def _load_weights(self, weights: _Weights, step: _Step) -> int:
        """Load a part of G rows of weights as the S operand, unless it's there; return its base."""
        config, layer, part = self._config, self._layer, step.part
        work, block = step.result.work, step.result.output_block
        copy = work.weights
        words = s_words(config, copy.pattern, part.d_words)
        base, is_there = weights.place((work, block, part), words)
        if is_there:
            return base
        tap_y, tap_x = (
            first + taps.start * work.tap_stride
            for first, taps in zip(work.first_tap, (part.rows, part.columns))
        )
        tap_bytes = copy.words * copy.tile_bytes
        self._program.load(
            LoadTarget.S,
            work.stage,
            pattern=copy.pattern,
            base=base,
            rows=config.elements,
            d_words=part.d_words,
            descriptor=descriptor(
                config,
                copy.tile(block, tap_y * layer.kernel + tap_x, part.words.start),
                len(part.words) * copy.pattern.tile_beats(config),
                (len(part.columns), work.tap_stride * tap_bytes),
                (len(part.rows), work.tap_stride * layer.kernel * tap_bytes),
            ),
        )
        return base

    def _load_share(
        self, batch: _Batch, work: _Product, share: float
    ) -> Generator[Needs, bool | None, None]:
        """Load pixels of a batch until that share of them is there, or all that can be."""
        lines = math.ceil(share * sum(pixels.rows.size for pixels in batch.pixels))
        for pixels in batch.pixels:
            yield from self._load_lines(pixels, work, lines, early=True)
            lines -= pixels.rows.size

    def _load_lines(
        self, pixels: _Pixels, work: _Product, lines: int, *, early: bool = False
    ) -> Generator[Needs, bool | None, None]:
        """Load pixels as the D operand until that many lines are there, or all.

        If `early`, only those that have been written.
        """
        config, rows, columns = self._config, pixels.rows, pixels.columns
        line_words = columns.size * self._position_words(pixels)
        least = -(-_PIECE_BEATS // (line_words * config.cols))
        while pixels.lines < min(lines, rows.size):
            done = max(pixels.lines - rows.before, 0)
            count = min(max(lines - rows.before - done, least), rows.count - done)
            piece = Span(
                start=rows.start + done,
                count=count,
                before=0 if done else rows.before,
                after=rows.after if done + count == rows.count else 0,
            )
            last = piece.start + piece.count - 1
            if (yield Needs(work.source, pixels.block, last * work.step + 1, early)) is False:
                return
            self._program.load(
                LoadTarget.D,
                work.stage,
                order=LoadOrder.TILES,
                base=pixels.base + pixels.lines * line_words,
                rows=piece.size * columns.size * config.elements,
                d_words=len(pixels.words),
                **work.source.load_images(pixels.block, piece, columns, pixels.words, work.step),
            )
            pixels.lines += piece.size

    def _compute(self, step: _Step, s_base: int) -> int:
        """Compute a result, or a part of it; return how many cycles that takes the array."""
        config, result, part, pixels = self._config, step.result, step.part, step.pixels
        work, area, place = result.work, result.area, result.place
        if place.base is None:
            place.base = self._assembly.o.take(place.words)
        position_words = self._position_words(pixels)
        line_words = pixels.columns.size * position_words
        first_y = work.y.place(area.y) + part.rows.start * work.y.direction - pixels.rows.first
        first_x = work.x.place(area.x) + part.columns.start * work.x.direction
        first_x -= pixels.columns.first
        rows = area.positions * config.elements
        # Channels of the last D word of a pixel that are padding.
        missing = work.source.words * config.elements - work.reduction
        fields = product(
            config,
            work.weights.pattern,
            a=config.elements,
            a_padding=padding(config, work.channels, result.output_block),
            b=rows,
            # Images that aren't there are among the last rows of every pixel.
            b_padding=_missing(work.output.tensor, result.block) if area.positions == 1 else 0,
            k=part.d_words * config.elements
            - (missing if part.words.stop == work.source.words else 0),
            d_rows=walk(
                (config.elements // config.cols, len(part.words)),
                (area.width, work.x.stride * position_words),
                (area.lines, work.y.stride * line_words),
            ),
            d_reduction=walk(
                (len(part.words), 1),
                (len(part.columns), work.x.direction * position_words),
                (len(part.rows), work.y.direction * line_words),
            ),
        )
        self._program.compute(
            work.stage,
            s_base=s_base,
            d_base=pixels.base + first_y * line_words + first_x * position_words,
            o_base=result.o_base,
            o_stride=ROW_WORDS,
            accumulate=int(not step.first),
            **fields,
        )
        slots = part_slots(config, work.weights.pattern, part.d_words)
        return fields["a_tiles"] * fields["b_tiles"] * config.interleave * slots

    def _load_bias(self, work: _Product, address: int, base: int, beats: int) -> None:
        self._program.load(
            LoadTarget.AUX,
            work.stage,
            base=base,
            rows=1,
            d_words=beats,
            descriptor=descriptor(self._config, address, beats),
        )

    def _store(self, result: _Result, bias_base: int | None) -> Iterator[Needs | Written]:
        """Add the STOREs of a result, with what is added and masked by.

        The bias is loaded with these unless all of it is in AUX already, from `bias_base` on.
        """
        work, block, a_block = result.work, result.block, result.output_block
        config, assembly, program = self._config, self._assembly, self._program
        others = {"add": work.add, "mask": work.mask}
        used = {name: tensor for name, tensor in others.items() if tensor is not None}
        own_bias = work.bias is not None and bias_base is None
        if work.add is not None:
            last = result.area.y + result.area.lines - 1
            yield Needs(work.add, block, work.output.line(last) + 1)
        for area in self._areas(work, result.area, len(used), own_bias):
            fields: dict[str, Any] = {}
            rows = area.positions * config.elements
            # In one piece, so that none of them takes the place of another.
            base = assembly.aux.take(len(used) * rows + own_bias)
            for name, tensor in used.items():
                grid = _Grid(tensor, work.output.first_y, work.output.first_x, work.output.stride)
                program.load(
                    LoadTarget.AUX,
                    work.stage,
                    base=base,
                    rows=area.positions,
                    d_words=config.elements,
                    descriptor=self._tiles(grid, block, area, a_block),
                )
                fields |= {name: 1, f"{name}_base": base}
                base += rows
            if work.bias is not None:
                if own_bias:
                    address = work.bias.address + a_block * config.beat_bytes
                    self._load_bias(work, address, base, 1)
                    fields |= {"bias": 1, "bias_base": base}
                elif bias_base is not None:
                    fields |= {"bias": 1, "bias_base": bias_base + a_block}
            position = (area.y - result.area.y) * result.area.width + area.x - result.area.x
            program.store(
                work.stage,
                o_base=result.o_base + position * config.elements // config.cols * ROW_WORDS,
                o_stride=ROW_WORDS,
                rows=rows,
                words=ROW_WORDS,
                convert=1,
                relu=int(work.relu),
                descriptor=self._tiles(work.output, block, area, a_block),
                **fields,
            )
            tiles = [
                work.output.tile(block, y, x, a_block)
                for y in range(area.y, area.y + area.lines)
                for x in range(area.x, area.x + area.width)
            ]
            yield Written(work.output.tensor, tiles)

    def _areas(
        self, work: _Product, whole: _Area, operands: int, own_bias: bool
    ) -> Iterator[_Area]:
        """Cut an area into what can be stored at once, with that many operands in AUX."""
        config, assembly = self._config, self._assembly
        room = whole.positions
        if operands:
            # Half of the scratchpad, so that the next operands are loaded meanwhile.
            assembly.need(work.context, assembly.aux, operands * config.elements + own_bias)
            room = max((assembly.aux.depth // 2 - own_bias) // (operands * config.elements), 1)
        lines = max(min(room // whole.width, whole.lines), 1)
        for some in cut(whole.lines, lines):
            for columns in cut(whole.width, min(room, whole.width)):
                yield _Area(whole.y + some.start, whole.x + columns.start, len(some), len(columns))

    def _tiles(self, grid: _Grid, block: int, area: _Area, word: int) -> dict[str, Any]:
        """Return the descriptor of G channels of some outputs."""
        tensor = grid.tensor
        return descriptor(
            self._config,
            grid.tile(block, area.y, area.x, word),
            self._config.elements,
            (area.width, grid.stride * tensor.position_bytes),
            (area.lines, grid.stride * tensor.line_bytes),
        )

    def _position_words(self, pixels: _Pixels) -> int:
        """Words of a D bank that a pixel takes."""
        return len(pixels.words) * self._config.elements // self._config.cols
