"""The forward and backward products of a convolution.

Forward and backward, the D operand is a patch of the image with its frame of zeros, in the
scratchpad once; the array walks places of the kernel and taps over it. Where an image doesn't fit,
it is cut into bands of lines. A backward product of a convolution with a stride is one product for
each phase of the input, with the taps that meet it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rtl.control.commands import LoadOrder, LoadTarget, Stage
from rtl.sparsity.pattern import Pattern

from ..errors import ScheduleError
from ..layers import ConvolutionTensors
from ..model import Convolution
from ..program import descriptor, product, walk
from ..tensor import Activations, Compressed, Images, Span, Tensor
from .assembly import Assembly
from .patch import Axis, needed_span
from .pieces import Pieces, Reach, Written
from .words import ROW_WORDS, o_words, product_slots, s_words

__all__ = ["ConvolutionSchedule"]

_END_BANDS = 4
"""Bands that the first and the last images are cut into, if they have lines enough."""


@dataclass(frozen=True)
class _Grid:
    """Where the outputs of a product go: every `stride`-th pixel from `first` on."""

    tensor: Activations
    first_y: int = 0
    first_x: int = 0
    stride: int = 1

    def tile(self, block: int, y: int, x: int, word: int) -> int:
        """Return the address of the tile of an output."""
        return self.tensor.tile(
            block, self.first_y + y * self.stride, self.first_x + x * self.stride, word
        )


@dataclass(frozen=True)
class _Area:
    """Some outputs of a band: `lines` lines of `width`."""

    y: int
    x: int
    lines: int
    width: int

    @property
    def positions(self) -> int:
        return self.lines * self.width


@dataclass(frozen=True)
class _Patch:
    """Part of the images of a block, in the D scratchpad from `base` on."""

    base: int
    rows: Span
    columns: Span


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
    channels: int
    reduction: int
    output: _Grid
    add: Activations | None = None
    mask: Activations | None = None
    relu: bool = False
    bias: Tensor | None = None

    @property
    def taps(self) -> int:
        return self.y.taps * self.x.taps

    @property
    def d_words(self) -> int:
        return self.taps * self.weights.words

    def lines(self, band: range) -> range:
        """Return the lines of outputs that it has of a band."""
        return range(band.start, min(band.stop, self.y.outputs))


def _rows(works: Sequence[_Product], band: range) -> Span:
    """Return the lines of the image that a band of some products needs."""
    parts = [(work.y, work.lines(band)) for work in works]
    return needed_span([(axis, lines) for axis, lines in parts if lines])


def _columns(works: Sequence[_Product]) -> Span:
    """Return the columns of the image that some products need."""
    return needed_span([(work.x, range(work.x.outputs)) for work in works])


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
        reach: Reach = lambda block, line: None,
        written: Written = lambda block, lines, word: None,
    ) -> Pieces:
        """Add FF: ``y = relu(x * w + bias + add)``, a product a piece.

        Parameters
        ----------
        x, y
            Input and output.
        add
            What is added.
        reach
            Called before lines of a block of images are loaded, up to which one.
        written
            Called after lines of a word of the output have been stored.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        layer, weights = self._layer, self._tensors.forward
        source = x.shape

        def axis(size: int, outputs: int) -> Axis:
            return Axis(-layer.padding, layer.stride, 1, layer.kernel, outputs, size)

        work = _Product(
            stage=Stage.FF,
            context=f"{layer.name}, FF",
            source=x,
            weights=weights,
            first_tap=(0, 0),
            tap_stride=1,
            y=axis(source.height, layer.shape.height),
            x=axis(source.width, layer.shape.width),
            channels=layer.outputs,
            reduction=layer.inputs,
            output=_Grid(y),
            add=add,
            relu=layer.relu,
            bias=self._tensors.bias,
        )
        yield from self._convolve([work], reach, written)

    def backward(
        self,
        dy: Activations,
        dx: Activations,
        *,
        add: Activations | None,
        mask: Activations | None,
    ) -> Generator[int, None, list[tuple[int, int]]]:
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
                        channels=layer.inputs,
                        reduction=layer.outputs,
                        output=_Grid(dx, phase_y, phase_x, stride),
                        add=add,
                        mask=mask,
                    )
                )
        yield from self._convolve(phases)
        return empty

    def _convolve(
        self,
        works: Sequence[_Product],
        reach: Reach = lambda block, line: None,
        written: Written = lambda block, lines, word: None,
    ) -> Pieces:
        """Add products of the same images, each band of which is loaded once for all of them."""
        source = works[0].source
        bias_bases = [self._prepare(work) for work in works]
        pending = None
        for block in range(source.batch_blocks):
            for band in self._bands(works, block):
                patch = None
                for work, bias_base in zip(works, bias_bases):
                    lines = work.lines(band)
                    for a_block in range(work.weights.blocks) if lines else ():
                        # Weights first: unlike the images, they needn't wait for the layer before.
                        s_base = self._load_weights(work, a_block)
                        if patch is None:
                            rows = _rows(works, band)
                            reach(block, rows.start + rows.count)
                            patch = self._load_patch(works, block, band)
                        # The load queue must bring these operands before it turns to what is added
                        # and masked by in the STOREs before, for which there is room only as they
                        # end.
                        if pending is not None:
                            self._store(*pending)
                            written(pending[1], pending[3], pending[2])
                        o_base, cycles = self._compute(work, block, a_block, lines, s_base, patch)
                        bias = None if bias_base is None else bias_base + a_block
                        pending = (work, block, a_block, lines, o_base, bias)
                        yield cycles
        if pending is not None:
            self._store(*pending)
            written(pending[1], pending[3], pending[2])

    def _prepare(self, work: _Product) -> int | None:
        """Check the size of a product; return where its bias is in AUX, if it's there for all."""
        assembly = self._assembly
        self._check_reduction(work.context, work.d_words, work.weights.pattern)
        # What is added takes the places of AUX in turn, the bias's among them: then each STORE has
        # its own copy.
        if work.bias is None or work.add is not None:
            return None
        assembly.need(work.context, assembly.aux, work.weights.blocks)
        base = assembly.aux.take(work.weights.blocks)
        self._load_bias(work, work.bias.address, base, work.weights.blocks)
        return base

    def _compute(
        self, work: _Product, block: int, a_block: int, lines: range, s_base: int, patch: _Patch
    ) -> tuple[int, int]:
        """Compute G channels of some lines of outputs; return where they are in O, and cycles."""
        config, position_words = self._config, self._position_words(work.source)
        bank_rows = config.elements // config.cols
        line_words = patch.columns.size * position_words
        rows = len(lines) * work.x.outputs * config.elements
        one_pixel = len(lines) * work.x.outputs == 1
        o_base = self._assembly.o.take(o_words(config, rows))
        fields = product(
            config,
            work.weights.pattern,
            a=config.elements,
            a_padding=self._padding(work.channels, a_block),
            b=rows,
            # Images that aren't there are among the last rows of every pixel.
            b_padding=_missing(work.output.tensor, block) if one_pixel else 0,
            k=self._reduction_length(work),
            d_rows=walk(
                (bank_rows, work.source.words),
                (work.x.outputs, work.x.stride * position_words),
                (len(lines), work.y.stride * line_words),
            ),
            d_reduction=walk(
                (work.source.words, 1),
                (work.x.taps, work.x.direction * position_words),
                (work.y.taps, work.y.direction * line_words),
            ),
        )
        self._program.compute(
            work.stage,
            s_base=s_base,
            d_base=patch.base
            + (work.y.place(lines.start) - patch.rows.first) * line_words
            + (work.x.place(0) - patch.columns.first) * position_words,
            o_base=o_base,
            o_stride=ROW_WORDS,
            **fields,
        )
        return o_base, product_slots(config, fields)

    def _bands(self, works: Sequence[_Product], block: int) -> list[range]:
        """Cut the lines of outputs into the fewest bands that fit, overlapped if possible.

        The first images are cut finer, so that the array can start sooner, and so are the last, so
        that less is left to be stored when it has ended.
        """
        config, assembly = self._config, self._assembly
        work = max(works, key=lambda work: work.y.outputs)
        lines, width = work.y.outputs, max(work.x.outputs for work in works)
        blocks = work.source.batch_blocks
        columns = _columns(works).size
        # Bands of fewer lines than the kernel has would load most of the images twice.
        taps = max(each.y.taps for each in works)
        finer = min(lines // taps, _END_BANDS) if block in (0, blocks - 1) else 1

        def cut(count: int) -> list[range]:
            return [range(first, min(first + count, lines)) for first in range(0, lines, count)]

        def d_words(count: int) -> int:
            reach = max(_rows(works, band).size for band in cut(count))
            return reach * columns * self._position_words(work.source)

        def results(count: int) -> int:
            return o_words(config, count * width * config.elements)

        for share in (2, 1):
            for bands in range(max(finer, 1), lines + 1):
                count = -(-lines // bands)
                d_share = 1 if count == lines and blocks == 1 else share
                if (
                    d_words(count) <= assembly.d.depth // d_share
                    and results(count) <= assembly.o.depth // share
                ):
                    return cut(count)
        assembly.need(work.context, assembly.d, d_words(1))
        assembly.need(work.context, assembly.o, results(1))
        raise AssertionError("unreachable: one of them didn't fit")

    def _load_weights(self, work: _Product, block: int) -> int:
        """Load a block of G rows of compressed weights as the S operand; return its base."""
        config, weights, layer = self._config, work.weights, self._layer
        base = self._assembly.s.take(s_words(config, weights.pattern, work.d_words))
        tap_y, tap_x = work.first_tap
        tap_bytes = weights.words * weights.tile_bytes
        self._program.load(
            LoadTarget.S,
            work.stage,
            pattern=weights.pattern,
            base=base,
            rows=config.elements,
            d_words=work.d_words,
            descriptor=descriptor(
                config,
                weights.tile(block, tap_y * layer.kernel + tap_x, 0),
                weights.words * weights.pattern.tile_beats(config),
                (work.x.taps, work.tap_stride * tap_bytes),
                (work.y.taps, work.tap_stride * layer.kernel * tap_bytes),
            ),
        )
        return base

    def _load_bias(self, work: _Product, address: int, base: int, beats: int) -> None:
        self._program.load(
            LoadTarget.AUX,
            work.stage,
            base=base,
            rows=1,
            d_words=beats,
            descriptor=descriptor(self._config, address, beats),
        )

    def _load_patch(self, works: Sequence[_Product], block: int, band: range) -> _Patch:
        """Load what a band needs of the images as the D operand."""
        first = works[0]
        rows, columns = _rows(works, band), _columns(works)
        base = self._assembly.d.take(rows.size * columns.size * self._position_words(first.source))
        self._program.load(
            LoadTarget.D,
            first.stage,
            order=LoadOrder.TILES,
            base=base,
            rows=rows.size * columns.size * self._config.elements,
            d_words=first.source.words,
            **first.source.load_images(block, rows, columns),
        )
        return _Patch(base, rows, columns)

    def _store(
        self,
        work: _Product,
        block: int,
        a_block: int,
        lines: range,
        o_base: int,
        bias_base: int | None,
    ) -> None:
        """Add the STOREs of G channels of a band, with what is added and masked by.

        The bias is loaded with these unless it's in AUX already.
        """
        config, assembly, program = self._config, self._assembly, self._program
        others = {"add": work.add, "mask": work.mask}
        used = {name: tensor for name, tensor in others.items() if tensor is not None}
        own_bias = work.bias is not None and bias_base is None
        for area in self._areas(work, lines, len(used), own_bias):
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
                fields |= {"bias": 1, "bias_base": base if own_bias else bias_base}
            position = (area.y - lines.start) * work.x.outputs + area.x
            program.store(
                work.stage,
                o_base=o_base + position * config.elements // config.cols * ROW_WORDS,
                o_stride=ROW_WORDS,
                rows=rows,
                words=ROW_WORDS,
                convert=1,
                relu=int(work.relu),
                descriptor=self._tiles(work.output, block, area, a_block),
                **fields,
            )

    def _areas(
        self, work: _Product, lines: range, operands: int, own_bias: bool
    ) -> Iterator[_Area]:
        """Cut a band into what can be stored at once, with that many operands in AUX."""
        config, assembly = self._config, self._assembly
        width = work.x.outputs
        room = width * len(lines)
        if operands:
            # Half of the scratchpad, so that the next operands are loaded meanwhile.
            assembly.need(work.context, assembly.aux, operands * config.elements + own_bias)
            room = max((assembly.aux.depth // 2 - own_bias) // (operands * config.elements), 1)
        at_once = min(room // width, len(lines))
        if at_once:
            for y in range(lines.start, lines.stop, at_once):
                yield _Area(y, 0, min(at_once, lines.stop - y), width)
            return
        for y in lines:
            for x in range(0, width, room):
                yield _Area(y, x, 1, min(room, width - x))

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

    # Sizes

    def _check_reduction(self, context: str, d_words: int, pattern: Pattern) -> None:
        """Refuse a reduction too long for the S scratchpad or the accumulators."""
        config, assembly = self._config, self._assembly
        assembly.need(context, assembly.s, s_words(config, pattern, d_words))
        additions = d_words * pattern.steps(config)
        if additions > config.max_additions:
            raise ScheduleError(
                f"{context}: the reduction takes {additions} additions in a lane, the accumulators "
                f"of configuration '{config.name}' allow {config.max_additions}"
            )

    def _reduction_length(self, work: _Product) -> int:
        """Return the length of a reduction, up to the last channel of the last tap."""
        g = self._config.elements
        return (work.d_words - work.weights.words) * g + work.reduction

    def _padding(self, channels: int, block: int) -> int:
        """Return how many channels of this block of G are padding."""
        return max(0, (block + 1) * self._config.elements - channels)

    def _position_words(self, source: Images) -> int:
        """Words of a D bank that a pixel takes."""
        return source.words * self._config.elements // self._config.cols
