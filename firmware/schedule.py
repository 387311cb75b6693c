"""Turns the products of a layer into commands.

Operands alternate between the two halves of each scratchpad, so that the next ones are loaded while
the array computes; `Program` adds the tokens. Where an operand needs more than a half, it gets the
whole scratchpad and is not overlapped; where D or O cannot hold all rows, the product is cut into
blocks of rows, for each of which the S operand is loaded anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtl.control.commands import LoadOrder, LoadTarget, Stage
from rtl.sparsity.pattern import Pattern

from .errors import ScheduleError
from .layers import Linear, LinearTensors
from .program import Program, descriptor, product
from .tensor import Activations, Compressed, Tensor

__all__ = ["Scheduler", "Step"]

_GRADIENT_WORDS = 2
"""O words in a row of G gradients."""


@dataclass(frozen=True)
class Step:
    """Parameters of one weight update.

    Parameters
    ----------
    rate, momentum, decay
        Of stochastic gradient descent; rounded to binary32.
    scale
        Binary logarithm of the loss scale, which the update divides by.
    """

    rate: float = 0.0
    momentum: float = 0.0
    decay: float = 0.0
    scale: int = 0

    def fields(self) -> dict[str, int]:
        """Return the fields of an UPDATE."""
        reals = (("rate", self.rate), ("momentum", self.momentum), ("decay", self.decay))
        return {name: _float_bits(value) for name, value in reals} | {"scale": self.scale}


def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@dataclass(frozen=True)
class _Rows:
    """A block of rows of the D operand: `count` rows from `start`."""

    start: int
    count: int


def _cut(rows: int, count: int) -> list[_Rows]:
    return [_Rows(start, min(count, rows - start)) for start in range(0, rows, count)]


class _Halves:
    """Hands out places in a scratchpad, in turn in its two halves."""

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        self._turn = 0

    def take(self, words: int) -> int:
        """Return the base of `words` words, which the caller knows to fit the whole."""
        if words > self.depth // 2:
            return 0
        self._turn ^= 1
        return self._turn * (self.depth // 2)


class Scheduler:
    """Adds the commands of products to a program.

    Parameters
    ----------
    program
        Receives the commands; made for the configuration that is to run them.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._config = config = program.config
        self._s = _Halves("S", config.s_depth)
        self._d = _Halves("D", config.d_depth)
        self._o = _Halves("O", config.o_depth)
        self._aux = _Halves("AUX", config.aux_depth)

    def forward(
        self, layer: Linear, tensors: LinearTensors, x: Activations, y: Activations
    ) -> None:
        """Add FF: ``y = relu(x W + bias)``.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        config, weights = self._config, tensors.forward
        context = f"{layer.name}, FF"
        self._need(context, "AUX", weights.blocks, config.aux_depth)
        bias_base = self._aux.take(weights.blocks)
        self.program.load(
            LoadTarget.AUX,
            Stage.FF,
            base=bias_base,
            rows=1,
            d_words=weights.blocks,
            descriptor=descriptor(config, tensors.bias.address, weights.blocks),
        )
        for rows in self._row_blocks(context, x.pixels, weights.d_words, weights.pattern):
            # Weights first: unlike the rows, they needn't wait for the layer before.
            s_base = self._load_weights(Stage.FF, weights, 0)
            d_base = self._load_rows(Stage.FF, x, rows)
            for block in range(weights.blocks):
                if block:
                    s_base = self._load_weights(Stage.FF, weights, block)
                o_base = self._compute(
                    Stage.FF, layer, block, rows.count, s_base=s_base, d_base=d_base
                )
                self.program.store(
                    Stage.FF,
                    **self._output(y, rows, block, o_base),
                    bias=1,
                    bias_base=bias_base + block,
                    relu=int(layer.relu),
                )

    def backward(
        self,
        layer: Linear,
        tensors: LinearTensors,
        dy: Activations,
        dx: Activations,
        *,
        mask: Activations | None,
    ) -> None:
        """Add BP: ``dx = dy W'``, zero where `mask` isn't positive.

        The mask is the layer's input where that is the output of a ReLU, and None otherwise.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        weights = tensors.backward
        context = f"{layer.name}, BP"
        if weights is None:
            raise ScheduleError(f"{context}: the layer was placed without backward weights")
        for rows in self._row_blocks(
            context, dy.pixels, weights.d_words, weights.pattern, masked=mask is not None
        ):
            # Weights first: unlike the rows, they needn't wait for the layer before.
            s_base = self._load_weights(Stage.BP, weights, 0)
            d_base = self._load_rows(Stage.BP, dy, rows)
            for block in range(weights.blocks):
                if block:
                    s_base = self._load_weights(Stage.BP, weights, block)
                masking = {}
                if mask is not None:
                    masking = {"mask": 1, "mask_base": self._aux.take(rows.count)}
                    self.program.load(
                        LoadTarget.AUX,
                        Stage.BP,
                        base=masking["mask_base"],
                        rows=rows.count,
                        d_words=1,
                        descriptor=self._column(mask, rows, block),
                    )
                o_base = self._compute(
                    Stage.BP, layer, block, rows.count, s_base=s_base, d_base=d_base
                )
                self.program.store(Stage.BP, **self._output(dx, rows, block, o_base), **masking)

    def update(
        self,
        layer: Linear,
        tensors: LinearTensors,
        x: Activations,
        dy: Activations,
        step: Step,
    ) -> None:
        """Add WU with the update: gradients of weights and bias straight into the update engine.

        Raises
        ------
        ScheduleError
            The operands of the smallest block don't fit the scratchpads.
        """
        config = self._config
        d_words = x.rows // config.elements
        pending = None
        for tiles in self._input_blocks(layer, tensors, d_words):
            d_base = self._load_transposed_rows(x, tiles, d_words)
            for block in range(tensors.state.output_blocks):
                s_base = self._s.take(self._s_words(Pattern.DENSE, d_words))
                self.program.load(
                    LoadTarget.S,
                    Stage.WU,
                    transpose=1,
                    pattern=Pattern.DENSE,
                    base=s_base,
                    rows=config.elements,
                    d_words=d_words,
                    descriptor=self._column(dy, _Rows(0, dy.rows), block),
                )
                # The load queue must bring these operands before it turns to the state of the
                # block before, which it can only deliver at the pace of the update engine.
                if pending is not None:
                    self._add_updates(layer, tensors, *pending, step)
                with_bias = tiles.start == 0
                o_base = self._compute_gradients(
                    Stage.WU,
                    layer,
                    tiles,
                    block,
                    x.pixels,
                    s_base=s_base,
                    d_base=d_base,
                    with_bias=with_bias,
                )
                pending = (tiles, block, o_base, with_bias)
        if pending is not None:
            self._add_updates(layer, tensors, *pending, step)

    def initialise(self, layer: Linear, tensors: LinearTensors, zeros: Tensor) -> None:
        """Add updates by nothing, which derive the compressed copies from the master weights.

        Parameters
        ----------
        layer, tensors
            The layer, whose state was written.
        zeros
            At least G beats of zeros.
        """
        config = self._config
        for tiles in self._input_blocks(layer, tensors, 1):
            s_base = self._s.take(self._s_words(Pattern.DENSE, 1))
            self.program.load(
                LoadTarget.S,
                Stage.UPDATE,
                pattern=Pattern.DENSE,
                base=s_base,
                rows=config.elements,
                d_words=1,
                descriptor=descriptor(config, zeros.address, config.elements),
            )
            # Zeros against ones: what the D scratchpad holds might be infinite.
            o_base = self._compute_gradients(
                Stage.UPDATE,
                layer,
                tiles,
                0,
                1,
                s_base=s_base,
                with_bias=tiles.start == 0,
                ones=1,
            )
            for block in range(tensors.state.output_blocks):
                self._add_updates(layer, tensors, tiles, block, o_base, tiles.start == 0, Step())

    def _load_rows(self, stage: Stage, x: Activations, rows: _Rows) -> int:
        """Load rows of activations as the D operand; return its base."""
        config = self._config
        base = self._d.take(self._d_words(x.words, rows.count))
        self.program.load(
            LoadTarget.D,
            stage,
            order=LoadOrder.ROWS,
            base=base,
            rows=rows.count,
            d_words=x.words,
            descriptor=descriptor(
                config,
                x.address + rows.start * x.row_bytes,
                x.words,
                (rows.count, x.row_bytes),
            ),
        )
        return base

    def _load_transposed_rows(self, x: Activations, tiles: _Rows, d_words: int) -> int:
        """Load channels of activations, each with all pixels, as the D operand."""
        config = self._config
        rows = tiles.count * config.elements
        base = self._d.take(self._d_words(d_words, rows))
        self.program.load(
            LoadTarget.D,
            Stage.WU,
            order=LoadOrder.TILES,
            transpose=1,
            base=base,
            rows=rows,
            d_words=d_words,
            descriptor=descriptor(
                config,
                x.address + tiles.start * config.beat_bytes,
                1,
                (x.rows, x.row_bytes),
                (tiles.count, config.beat_bytes),
            ),
        )
        return base

    def _load_weights(self, stage: Stage, weights: Compressed, block: int) -> int:
        """Load a block of G rows of compressed weights as the S operand; return its base."""
        config = self._config
        base = self._s.take(self._s_words(weights.pattern, weights.d_words))
        self.program.load(
            LoadTarget.S,
            stage,
            pattern=weights.pattern,
            base=base,
            rows=config.elements,
            d_words=weights.d_words,
            descriptor=descriptor(
                config,
                weights.tile(block, 0),
                weights.d_words * weights.pattern.tile_beats(config),
            ),
        )
        return base

    def _compute(
        self, stage: Stage, layer: Linear, block: int, rows: int, *, s_base: int, d_base: int
    ) -> int:
        """Compute a block of G channels of `rows` pixels; return where they are in O."""
        config = self._config
        channels, k = layer.outputs, layer.inputs
        if stage is Stage.BP:
            channels, k = k, channels
        o_base = self._o.take(self._o_words(rows))
        self.program.compute(
            stage,
            s_base=s_base,
            d_base=d_base,
            o_base=o_base,
            o_stride=_GRADIENT_WORDS,
            **product(
                config,
                layer.pattern,
                a=config.elements,
                a_padding=self._padding(channels, _Rows(block, 1)),
                b=rows,
                k=k,
            ),
        )
        return o_base

    def _compute_gradients(
        self,
        stage: Stage,
        layer: Linear,
        tiles: _Rows,
        block: int,
        k: int,
        *,
        s_base: int,
        d_base: int = 0,
        with_bias: bool,
        ones: int = 0,
    ) -> int:
        """Compute the gradients of G outputs' weights and bias; return where they are in O."""
        config = self._config
        o_base = self._o.take(self._gradient_words(tiles.count))
        rows = tiles.count * config.elements
        places = {"s_base": s_base, "d_base": d_base, "o_stride": _GRADIENT_WORDS}
        outputs: dict[str, Any] = {
            "a": config.elements,
            "a_padding": self._padding(layer.outputs, _Rows(block, 1)),
        }
        weights = product(
            config,
            Pattern.DENSE,
            **outputs,
            b=rows,
            b_padding=self._padding(layer.inputs, tiles),
            k=k,
        )
        self.program.compute(stage, **places, **weights, o_base=o_base, ones=ones)
        if with_bias:
            bias = product(config, Pattern.DENSE, **outputs, b=1, k=k)
            o_bias = o_base + self._o_words(rows)
            self.program.compute(stage, **places, **bias, o_base=o_bias, ones=1)
        return o_base

    def _add_updates(
        self,
        layer: Linear,
        tensors: LinearTensors,
        tiles: _Rows,
        block: int,
        o_base: int,
        with_bias: bool,
        step: Step,
    ) -> None:
        """Add the updates of G outputs' weights and, if wanted, bias."""
        config, state, backward = self._config, tensors.state, tensors.backward
        address = state.tile(block, tiles.start)
        self._load_state(address, tiles.count * config.elements)
        body = {
            "o_base": o_base,
            "o_stride": _GRADIENT_WORDS,
            "tiles": tiles.count,
            "rows": config.elements,
            "state_address": address,
            "column_copy": 1,
            "column_pattern": layer.pattern,
            "column_address": tensors.forward.tile(block, tiles.start),
            "column_stride": tensors.forward.tile_bytes,
        }
        if backward is not None:
            body |= {
                "row_copy": 1,
                "row_pattern": layer.pattern,
                "row_address": backward.tile(tiles.start, block),
                "row_stride": backward.d_words * backward.tile_bytes,
            }
        self.program.update(Stage.UPDATE, **body, **step.fields())
        if not with_bias:
            return
        address = tensors.bias_state.block(block)
        self._load_state(address, 1)
        self.program.update(
            Stage.UPDATE,
            o_base=o_base + self._o_words(tiles.count * config.elements),
            o_stride=_GRADIENT_WORDS,
            tiles=1,
            rows=1,
            state_address=address,
            row_copy=1,
            row_pattern=Pattern.DENSE,
            row_address=tensors.bias.block(block),
            **step.fields(),
        )

    def _load_state(self, address: int, rows: int) -> None:
        """Stream `rows` rows of master weights and momentum to the update engine."""
        row_beats = 2 * _GRADIENT_WORDS
        self.program.load(
            LoadTarget.STREAM,
            Stage.UPDATE,
            rows=rows,
            d_words=row_beats,
            descriptor=descriptor(self._config, address, rows * row_beats),
        )

    def _column(self, x: Activations, rows: _Rows, block: int) -> dict:
        """Return the descriptor of G channels of some pixels."""
        config = self._config
        address = x.address + rows.start * x.row_bytes + block * config.beat_bytes
        return descriptor(config, address, 1, (rows.count, x.row_bytes))

    def _output(self, y: Activations, rows: _Rows, block: int, o_base: int) -> dict:
        """Return the fields common to all STOREs of activations."""
        return {
            "o_base": o_base,
            "o_stride": _GRADIENT_WORDS,
            "rows": rows.count,
            "words": _GRADIENT_WORDS,
            "convert": 1,
            "descriptor": self._column(y, rows, block),
        }

    def _row_blocks(
        self, context: str, rows: int, d_words: int, pattern: Pattern, *, masked: bool = False
    ) -> list[_Rows]:
        """Cut the rows of a D operand into the fewest blocks that fit, overlapped if possible."""
        config = self._config
        self._check_reduction(context, d_words, pattern)

        def fits(count: int, share: int) -> bool:
            d_share = 1 if count == rows else share
            return (
                self._d_words(d_words, count) <= config.d_depth // d_share
                and self._o_words(count) <= config.o_depth // share
                and (not masked or count <= config.aux_depth // share)
            )

        # Blocks of whole tiles, of the largest tiles with which there are fewest blocks.
        units = [config.cols << n for n in reversed(range(config.interleave.bit_length()))]
        for share in (2, 1):
            if fits(rows, share):
                return [_Rows(0, rows)]
            counts = [
                next((n for n in range(rows // unit * unit, 0, -unit) if fits(n, share)), 0)
                for unit in units
            ]
            if any(counts):
                return _cut(rows, min(filter(None, counts), key=lambda count: -(-rows // count)))
        smallest = min(rows, units[-1])
        self._need(context, "D", self._d_words(d_words, smallest), config.d_depth)
        self._need(context, "O", self._o_words(smallest), config.o_depth)
        self._need(context, "AUX", smallest, config.aux_depth)
        raise AssertionError("unreachable: one of them didn't fit")

    def _input_blocks(self, layer: Linear, tensors: LinearTensors, d_words: int) -> list[_Rows]:
        """Cut the input channels of a weight gradient into blocks, counted in tiles of G."""
        config = self._config
        context = f"{layer.name}, WU"
        self._check_reduction(context, d_words, Pattern.DENSE)
        tiles = tensors.state.input_blocks
        for share in (2, 1):
            for count in range(tiles, 0, -1):
                d_share = 1 if count == tiles else share
                if (
                    self._d_words(d_words, count * config.elements) <= config.d_depth // d_share
                    and self._gradient_words(count) <= config.o_depth // share
                ):
                    return _cut(tiles, count)
        self._need(context, "D", self._d_words(d_words, config.elements), config.d_depth)
        self._need(context, "O", self._gradient_words(1), config.o_depth)
        raise AssertionError("unreachable: one of them didn't fit")

    def _check_reduction(self, context: str, d_words: int, pattern: Pattern) -> None:
        """Refuse a reduction too long for the S scratchpad or the accumulators."""
        config = self._config
        self._need(context, "S", self._s_words(pattern, d_words), config.s_depth)
        additions = d_words * pattern.steps(config)
        if additions > config.max_additions:
            raise ScheduleError(
                f"{context}: the reduction takes {additions} additions in a lane, the accumulators "
                f"of configuration '{config.name}' allow {config.max_additions}"
            )

    def _need(self, context: str, space: str, need: int, have: int) -> None:
        if need > have:
            raise ScheduleError(
                f"{context}: needs {need} words of the {space} scratchpad, configuration "
                f"'{self._config.name}' has {have}"
            )

    def _padding(self, channels: int, blocks: _Rows) -> int:
        """Return how many channels of these blocks of G are padding."""
        g = self._config.elements
        return max(0, (blocks.start + blocks.count) * g - channels)

    def _bank_rows(self, rows: int) -> int:
        """Rows in each bank of D and O for `rows` rows, with those that fill up the last tile."""
        config = self._config
        fields = product(config, Pattern.DENSE, a=config.elements, b=rows, k=config.elements)
        return fields["b_tiles"] * (config.interleave >> fields["a_contexts"])

    def _s_words(self, pattern: Pattern, d_words: int) -> int:
        """Words of an S bank for G rows."""
        config = self._config
        return config.elements // config.rows * pattern.words_per_row(config, d_words)

    def _d_words(self, d_words: int, rows: int) -> int:
        """Words of a D bank for `rows` rows."""
        return self._bank_rows(rows) * d_words

    def _o_words(self, rows: int) -> int:
        """Words of an O bank for G outputs of `rows` rows."""
        return self._bank_rows(rows) * _GRADIENT_WORDS

    def _gradient_words(self, tiles: int) -> int:
        """Words of an O bank for gradients of tiles of weights and, after them, of the bias."""
        return self._o_words(tiles * self._config.elements) + self._o_words(1)
