"""Weight gradients of a convolution, and the updates that take them.

Both operands are transposed on load, so that a D word is a pixel of G images. The D operand holds
the padded images of G input channels once; the array walks the taps over them. Each product gives
the gradients of G input channels; a part of the reduction after the other is added to them in the O
scratchpad, where the update engine reads them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from rtl.control.commands import LoadOrder, LoadTarget, Stage
from rtl.sparsity.pattern import Pattern

from ..errors import ScheduleError
from ..layers import ConvolutionTensors
from ..model import Convolution, Shape
from ..program import descriptor, product, walk
from ..tensor import Activations, Images, Tensor
from .assembly import Assembly, Step
from .gradient_plan import (
    GradientProblem,
    Group,
    Part,
    Taps,
    d_words,
    group_words,
    plan_gradients,
    tap_blocks,
    tap_sizes,
)
from .patch import needed_span
from .pieces import Interruptible
from .words import ROW_WORDS, o_words, padding, product_slots, s_words

__all__ = ["WeightGradientSchedule"]


@dataclass
class _Images:
    """Images that lie transposed in the D scratchpad, a D word the same pixel of G images.

    Attributes
    ----------
    base
        Where the first tap meets the first pixel of the output.
    line, channel, block
        Words from a line to the next, from a channel of a bank to the next, and from a block of G
        channels to the next.
    reduction
        Walk over the pixels of the output.
    loads
        Fields of the LOADs of each block.
    there
        Blocks that have been loaded.
    """

    base: int
    line: int
    channel: int
    block: int
    reduction: dict[str, Any]
    loads: list[dict[str, Any]]
    there: int = 0


@dataclass(frozen=True)
class _Gradient:
    """The gradients of some weights in the O scratchpad, one block of inputs after the other.

    Attributes
    ----------
    inputs, output_block, taps
        Of some blocks of G input channels, one of G output channels, and some taps.
    o_base
        Their first word.
    o_bias
        That of the biases' gradients, if they are computed with these.
    """

    inputs: range
    output_block: int
    taps: Taps
    o_base: int
    o_bias: int | None


class WeightGradientSchedule:
    """Adds the weight gradients and updates of one convolution to a program.

    Parameters
    ----------
    assembly
        The program.
    layer, tensors
        The convolution.
    updated
        Receives what is learned; `tensors` themselves if not given.
    """

    def __init__(
        self,
        assembly: Assembly,
        layer: Convolution,
        tensors: ConvolutionTensors,
        updated: ConvolutionTensors | None = None,
    ) -> None:
        self._assembly = assembly
        self._program = assembly.program
        self._config = assembly.config
        self._layer = layer
        self._tensors = tensors
        self._updated = updated or tensors

    def update(self, x: Images, dy: Activations) -> Interruptible:
        """Add WU with the update: gradients of weights and bias straight into the update engine.

        A piece is a product, with as much of the updates before as there is time for.

        Raises
        ------
        ScheduleError
            Not even one pixel of the output fits the scratchpads, or the gradients of one tap.
        """
        layer, assembly, state = self._layer, self._assembly, self._tensors.state
        self._check(f"{layer.name}, WU")
        step = layer.step
        problem = GradientProblem(
            config=self._config,
            kernel=layer.kernel,
            stride=layer.stride // step,
            padding=layer.padding,
            source=Shape(-(-x.shape.height // step), -(-x.shape.width // step), layer.inputs),
            output=layer.shape,
            batch_blocks=x.batch_blocks,
            input_blocks=state.input_blocks,
            output_blocks=state.output_blocks,
            bias=layer.bias,
        )
        plan = plan_gradients(problem)
        groups = list(plan.groups(problem))
        # With room for two groups the updates of one go on while the next one is computed.
        words = self._group_words(groups[0])
        alternates = 2 * words <= assembly.o.depth
        images: _Images | None = None
        d_content: tuple[range, Part] | None = None
        s_content: tuple[int, Part] | None = None
        s_base = 0
        pending: deque[_Gradient] = deque()
        interrupted = False
        for group in groups:
            o_base = assembly.o.take_half() if alternates else assembly.o.take(words)
            gradients = self._place(group, o_base)
            inputs = range(group.inputs[0].start, group.inputs[-1].stop)
            steps = list(itertools.product(plan.parts, gradients))
            for number, (part, gradient) in enumerate(steps):
                if d_content != (inputs, part):
                    d_content = inputs, part
                    images = self._place_images(problem, x, *d_content)
                if s_content != (gradient.output_block, part):
                    s_content = gradient.output_block, part
                    s_base = self._load_output_gradients(dy, *s_content)
                # The array needn't wait for the blocks of the next products.
                assert images is not None
                while images.there < gradient.inputs.stop - inputs.start:
                    self._program.load(LoadTarget.D, Stage.WU, **images.loads[images.there])
                    images.there += 1
                # The load queue must bring these operands before it turns to the state of the group
                # before, which it can only deliver at the pace of the update engine.
                rest = len(steps) - number if alternates else 1
                for _ in range(-(-len(pending) // rest)):
                    self._add_updates(pending.popleft())
                missing = self._config.elements - dy.rows(part.blocks[-1])
                cycles = self._compute(
                    Stage.WU,
                    gradient,
                    part.pixels * self._config.elements - missing,
                    s_base=s_base,
                    images=images,
                    first_block=gradient.inputs.start - inputs.start,
                    accumulate=part != plan.parts[0],
                )
                interrupted |= bool((yield cycles))
            pending.extend(gradients)
            if interrupted:
                while pending:
                    self._add_updates(pending.popleft())
                d_content = s_content = None
                yield 0
                interrupted = False
        for gradient in pending:
            self._add_updates(gradient)

    def initialise(self, zeros: Tensor) -> None:
        """Add updates by nothing, which derive the compressed copies from the master weights.

        Parameters
        ----------
        zeros
            At least G beats of zeros.

        Raises
        ------
        ScheduleError
            The gradients of one tap don't fit.
        """
        config, layer, assembly = self._config, self._layer, self._assembly
        state = self._tensors.state
        s_base = assembly.s.take(s_words(config, Pattern.DENSE, 1))
        self._program.load(
            LoadTarget.S,
            Stage.UPDATE,
            pattern=Pattern.DENSE,
            base=s_base,
            rows=config.elements,
            d_words=1,
            descriptor=descriptor(config, zeros.address, config.elements),
        )
        sizes = tap_sizes(layer.kernel)
        words = [group_words(config, layer.bias, 1, 1, 1, math.prod(size)) for size in sizes]
        assembly.need(f"{layer.name}, initialisation", assembly.o, words[-1])
        size = next(size for size, needed in zip(sizes, words) if needed <= config.o_depth)
        for taps in tap_blocks(layer.kernel, *size):
            group = Group((range(1),), range(1), taps)
            (nothing,) = self._place(group, assembly.o.take(self._group_words(group)))
            # Zeros against ones: what the D scratchpad holds might be infinite.
            self._compute(Stage.UPDATE, nothing, config.elements, s_base=s_base)
            for block in range(state.input_blocks):
                for output_block in range(state.output_blocks):
                    gradient = dataclasses.replace(
                        nothing,
                        inputs=range(block, block + 1),
                        output_block=output_block,
                        o_bias=None if block else nothing.o_bias,
                    )
                    self._add_updates(gradient, learns=False)

    def _check(self, context: str) -> None:
        """Refuse a layer of which not even the smallest product fits."""
        config, assembly, kernel = self._config, self._assembly, self._layer.kernel
        assembly.need(context, assembly.s, s_words(config, Pattern.DENSE, 1))
        assembly.need(context, assembly.d, d_words(config, kernel**2))
        assembly.need(context, assembly.o, group_words(config, self._layer.bias, 1, 1, 1, 1))
        additions = Pattern.DENSE.steps(config)
        if additions > config.max_additions:
            raise ScheduleError(
                f"{context}: a pixel takes {additions} additions in a lane, the accumulators "
                f"of configuration '{config.name}' allow {config.max_additions}"
            )

    def _group_words(self, group: Group) -> int:
        """Return the words of an O bank for a group."""
        return group_words(
            self._config,
            self._layer.bias,
            sum(len(inputs) for inputs in group.inputs),
            len(group.outputs),
            len(group.inputs[0]),
            group.taps.count,
        )

    def _place(self, group: Group, o_base: int) -> list[_Gradient]:
        """Give the gradients of a group their places from `o_base` on, in their order."""
        config, taps = self._config, group.taps
        gradients = []
        for output_block in group.outputs:
            for inputs in group.inputs:
                o_bias = None
                if self._layer.bias and (inputs.start, taps.y, taps.x) == (0, 0, 0):
                    o_bias = o_base
                    o_base += o_words(config, 1)
                gradients.append(_Gradient(inputs, output_block, taps, o_base, o_bias))
                o_base += o_words(config, len(inputs) * taps.count * config.elements)
        return gradients

    def _place_images(
        self, problem: GradientProblem, x: Images, inputs: range, part: Part
    ) -> _Images:
        """Give a place to what a part needs of some blocks of input channels as D operands."""
        config, (y, x_axis) = self._config, problem.axes
        rows, columns = needed_span([(y, part.lines)]), needed_span([(x_axis, part.columns)])
        places = rows.size * columns.size
        length = len(part.blocks) * places
        words = d_words(config, length)
        # In one piece, so that none of them takes the place of another.
        base = self._assembly.d.take(words * len(inputs))
        loads = [
            {
                "order": LoadOrder.TILES,
                "base": base + index * words,
                "rows": config.elements,
                "d_words": length,
                **x.load_channels(block, part.blocks, rows, columns, self._layer.step),
            }
            for index, block in enumerate(inputs)
        ]
        first = (y.place(part.lines.start) - rows.first) * columns.size
        first += x_axis.place(part.columns.start) - columns.first
        return _Images(
            base=base + first,
            line=columns.size,
            channel=length,
            block=words,
            reduction=walk(
                (len(part.columns), problem.stride),
                (len(part.lines), problem.stride * columns.size),
                (len(part.blocks), places),
            ),
            loads=loads,
        )

    def _load_output_gradients(self, dy: Activations, output_block: int, part: Part) -> int:
        """Load a part of a block of output channels as the S operand; return its base."""
        config, pixels = self._config, part.pixels
        base = self._assembly.s.take(s_words(config, Pattern.DENSE, pixels))
        loops = [(pixels, dy.position_bytes)]
        if len(part.columns) < dy.shape.width:
            loops = [(len(part.columns), dy.position_bytes), (len(part.lines), dy.line_bytes)]
        self._program.load(
            LoadTarget.S,
            Stage.WU,
            transpose=int(not dy.transposed),
            pattern=Pattern.DENSE,
            base=base,
            rows=config.elements,
            d_words=pixels,
            descriptor=descriptor(
                config,
                dy.tile(part.blocks.start, part.lines.start, part.columns.start, output_block),
                config.elements,
                *loops,
            ),
        )
        return base

    def _compute(
        self,
        stage: Stage,
        gradient: _Gradient,
        length: int,
        *,
        s_base: int,
        images: _Images | None = None,
        first_block: int = 0,
        accumulate: bool = False,
    ) -> int:
        """Compute gradients from a part of the reduction, `length` long; those of the biases first.

        Returns about how many cycles it takes.
        The inputs are those of `images` from `first_block` on; without `images` they are ones.
        """
        config, layer, taps = self._config, self._layer, gradient.taps
        outputs: dict[str, Any] = {
            "a": config.elements,
            "a_padding": padding(config, layer.outputs, gradient.output_block),
            "k": length,
        }
        where: dict[str, Any] = {
            "s_base": s_base,
            "o_stride": ROW_WORDS,
            "accumulate": int(accumulate),
        }
        if gradient.o_bias is not None:
            bias = product(config, Pattern.DENSE, b=1, **outputs)
            self._program.compute(stage, **where, **bias, o_base=gradient.o_bias, ones=1)
        places: dict[str, Any] = {"ones": 1}
        walks: dict[str, Any] = {}
        if images is not None:
            first = first_block * images.block + taps.y * images.line + taps.x
            places = {"d_base": images.base + first}
            rows = (
                (config.elements // config.cols, images.channel),
                (taps.width, 1),
                (taps.height, images.line),
                (len(gradient.inputs), images.block),
            )
            walks = {
                "d_rows": walk(*(loop for loop in rows if loop[0] > 1)),
                "d_reduction": images.reduction,
            }
        weights = product(
            config,
            Pattern.DENSE,
            b=len(gradient.inputs) * taps.count * config.elements,
            b_padding=padding(config, layer.inputs, gradient.inputs[-1]),
            **outputs,
            **walks,
        )
        self._program.compute(stage, **where, **places, **weights, o_base=gradient.o_base)
        return product_slots(config, weights)

    def _add_updates(self, gradient: _Gradient, *, learns: bool = True) -> None:
        """Add the updates of the weights, and of the biases, that have these gradients."""
        config, layer, tensors, updated = self._config, self._layer, self._tensors, self._updated
        forward, backward = updated.forward, updated.backward
        output_block, taps = gradient.output_block, gradient.taps
        first = taps.y * layer.kernel + taps.x
        bank_rows = taps.count * config.elements // config.cols
        for index, input_block in enumerate(gradient.inputs):
            tile = output_block, input_block, first
            beats = taps.count * tensors.state.tile_beats
            feeds = self._assembly.feeds([tensors.state.tile(*tile)], beats)
            body: dict[str, Any] = {
                "o_base": gradient.o_base + index * bank_rows * ROW_WORDS,
                "o_stride": ROW_WORDS,
                "tiles": taps.count,
                "rows": config.elements,
                "state_address": updated.state.tile(*tile),
                "column_copy": 1,
                "column_pattern": forward.pattern,
                "column_address": forward.tile(output_block, first, input_block),
                "column_stride": forward.words * forward.tile_bytes,
            }
            if backward is not None:
                body |= {
                    "row_copy": 1,
                    "row_pattern": backward.pattern,
                    "row_address": backward.tile(input_block, first, output_block),
                    "row_stride": backward.words * backward.tile_bytes,
                }
            self._add_update(feeds, body, learns)
        if gradient.o_bias is not None:
            assert tensors.bias_state is not None
            assert updated.bias is not None and updated.bias_state is not None
            address = tensors.bias_state.block(output_block)
            feeds = self._assembly.feeds([address], tensors.bias_state.BEATS)
            body = {
                "o_base": gradient.o_bias,
                "o_stride": ROW_WORDS,
                "tiles": 1,
                "rows": 1,
                "state_address": updated.bias_state.block(output_block),
                "row_copy": 1,
                "row_pattern": Pattern.DENSE,
                "row_address": updated.bias.block(output_block),
            }
            self._add_update(feeds, body, learns)

    def _add_update(self, feeds: list[dict], body: dict[str, Any], learns: bool) -> None:
        """Add an UPDATE of the state in `feeds`, by the parameters of the step if it `learns`."""
        self._program.update(Stage.UPDATE, feeds, **body)
        if learns:
            self._assembly.adjust(Step.fields)
