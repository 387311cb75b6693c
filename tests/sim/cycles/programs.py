"""Random programs of every kind of command, for their time only."""

import math

import numpy as np

from firmware.program import Program, descriptor, walk
from rtl.config import VECTOR_REGISTERS
from rtl.control.commands import (
    CoefficientKind,
    Fold,
    Function,
    LoadOrder,
    LoadTarget,
    Mask,
    Stage,
    VectorOperand,
    VectorTarget,
)
from rtl.sparsity.pattern import Pattern, supported_patterns

__all__ = ["random_program"]


def random_program(config, rng, commands):
    """Return a program of about so many commands, which the card carries out without a fault."""
    return _Builder(config, rng).build(commands)


class _Builder:
    def __init__(self, config, rng):
        self.config, self.rng = config, rng
        self.program = Program(config, "random program")
        self.patterns = supported_patterns(config)

    def build(self, commands):
        kinds = [self._load, self._compute, self._store, self._update, self._vector]
        while len(self.program) < commands:
            # Several of a kind, so that queues fill.
            kind = kinds[self.rng.integers(len(kinds))]
            for _ in range(self._upto(4)):
                kind()
        return self.program

    def _upto(self, most):
        return int(self.rng.integers(1, most + 1))

    def _maybe(self, chance=0.5):
        return bool(self.rng.random() < chance)

    def _choice(self, options):
        return options[self.rng.integers(len(options))]

    def _base(self, depth, words):
        """Return where so many words, or registers, may lie."""
        return int(self.rng.integers(depth - words + 1))

    def _stage(self):
        return self._choice(list(Stage))

    def _descriptor(self, beats):
        """Name so many beats somewhere in memory, in a nest of loops."""
        beat = self.config.beat_bytes
        counts, left = [], beats
        while len(counts) < 3:
            counts.append(self._choice([n for n in range(1, left + 1) if left % n == 0]))
            left //= counts[-1]
        counts.append(left)
        most = min(96, self.config.memory_bytes // (3 * beat * sum(counts)))
        loops = [(n, beat * int(self.rng.integers(most))) for n in counts[1:]]
        reach = beat * counts[0] + sum((n - 1) * stride for n, stride in loops)
        places = (self.config.memory_bytes // 2 - reach) // beat
        address = self.config.memory_bytes // 2 + beat * int(self.rng.integers(places))
        return descriptor(self.config, address, counts[0], *loops)

    def _load(self):
        config, g = self.config, self.config.elements
        target = self._choice([LoadTarget.S, LoadTarget.D, LoadTarget.AUX])
        order = self._choice(list(LoadOrder))
        body = {"target": target, "stage": self._stage(), "d_words": self._upto(4)}
        pattern, transpose = Pattern.DENSE, self._maybe()
        if target is LoadTarget.S:
            pattern = Pattern.DENSE if transpose else self._choice(self.patterns)
            rows = g * self._upto(2)
            beats = rows // g * body["d_words"] * pattern.tile_beats(config)
        else:
            tiles = target is LoadTarget.D and order is LoadOrder.TILES
            rows = g * self._upto(3) if tiles or transpose else self._upto(3 * g)
            if target is LoadTarget.AUX:
                body["d_words"] = 1
            beats = rows * body["d_words"]
        words = rows * body["d_words"]
        if target is LoadTarget.S:
            words = rows // config.rows * pattern.words_per_row(config, body["d_words"])
        elif target is LoadTarget.D:
            words = -(-rows // config.cols) * body["d_words"]
        depth = getattr(config, f"{target.name.lower()}_depth")
        frame = {}
        if self._maybe():
            frame = self._frame(beats)
            inside = frame["images"] * frame["lines"] * frame["beats"]
        self.program.load(
            **body, rows=rows, pattern=pattern, order=order, transpose=transpose, frame=frame,
            base=self._base(depth, words),
            descriptor=self._descriptor(inside if frame else beats),
        )  # fmt: skip

    def _frame(self, beats):
        """Put zeros into some of the beats of a LOAD."""
        width = self._choice([n for n in range(1, beats + 1) if beats % n == 0])
        height = self._choice([n for n in range(1, beats // width + 1) if beats // width % n == 0])
        before, above = (int(self.rng.integers(0, size)) for size in (width, height))
        inner, lines = self._upto(width - before), self._upto(height - above)
        return {
            "images": beats // width // height,
            "above": above, "lines": lines, "below": height - above - lines,
            "before": before, "beats": inner, "after": width - before - inner,
        }  # fmt: skip

    def _compute(self):
        """Add a COMPUTE, or several that keep their sums and one that ends them."""
        config = self.config
        contexts = int(self.rng.integers(config.interleave.bit_length()))
        left = config.max_additions
        for more in reversed(range(self._upto(3))):
            pattern = self._choice(self.patterns)
            # Those that follow have to be left a word of any pattern each.
            most = min((left - more * config.ratio) // pattern.steps(config), 24)
            words = self._upto(most if self._maybe() else min(most, 3))
            last = more == 0
            single = not last or self._maybe()
            a_tiles = 1 if single else self._upto(3)
            b_tiles = 1 if single else self._upto(3)
            while a_tiles << contexts > config.s_depth // pattern.words_per_row(config, words):
                words -= 1
            left -= words * pattern.steps(config)
            a_rows = a_tiles * config.rows << contexts
            o_stride = -(-a_rows // config.floats)
            s_words = (a_tiles << contexts) * pattern.words_per_row(config, words)
            b_words = b_tiles * config.interleave >> contexts
            b_rows = b_tiles * config.cols * config.interleave >> contexts
            self.program.compute(
                self._stage(), pattern=pattern, d_words=words,
                a_tiles=a_tiles, b_tiles=b_tiles, a_contexts=contexts,
                a_padding=int(self.rng.integers(a_rows)), b_padding=int(self.rng.integers(b_rows)),
                tail_chunks=int(self.rng.integers(config.chunks)),
                tail_entries=int(self.rng.integers(pattern.entries_per_chunk(config) + 1)),
                ones=self._maybe(0.2), keep=not last, accumulate=last and self._maybe(),
                s_base=self._base(config.s_depth, s_words),
                d_base=self._base(config.d_depth, b_words + words),
                o_base=self._base(config.o_depth, b_words * o_stride), o_stride=o_stride,
                d_rows=walk((b_words, 1)), d_reduction=walk((words, 1)),
            )  # fmt: skip

    def _store(self):
        config, g = self.config, self.config.elements
        compress = self._maybe(0.4)
        convert = compress or self._maybe()
        words = 2 * self._upto(3) if convert else self._upto(5)
        rows = g * self._upto(2) if compress else self._upto(2 * g)
        pattern = self._choice(self.patterns)
        beats = rows * words // (2 if convert else 1)
        if compress:
            beats = beats // g * pattern.tile_beats(config)
        self.program.store(
            self._stage(), rows=rows, words=words, convert=convert, o_stride=words,
            o_base=self._base(config.o_depth, -(-rows // config.cols) * words),
            compress=compress, pattern=pattern, descriptor=self._descriptor(beats),
        )  # fmt: skip

    def _update(self):
        config, g = self.config, self.config.elements
        whole = self._maybe(0.7)
        rows = g if whole else self._upto(g - 1)
        tiles = self._upto(3)
        row_pattern = self._choice(self.patterns) if whole else Pattern.DENSE
        stage = self._stage()
        state = self._descriptor(tiles * rows * 4)
        addresses = iter(config.memory_bytes // 4 * (1 + self.rng.permutation(3)))
        self.program.update(
            stage, [{"rows": tiles * rows * 4, "d_words": 1, "descriptor": state}],
            tiles=tiles, rows=rows, o_stride=2,
            o_base=self._base(config.o_depth, 2 * tiles * g // config.cols),
            row_copy=self._maybe(), row_pattern=row_pattern,
            column_copy=whole and self._maybe(), column_pattern=self._choice(self.patterns),
            row_stride=3 * g * config.beat_bytes, column_stride=2 * g * config.beat_bytes,
            **{f"{part}_address": int(next(addresses)) for part in ("state", "row", "column")},
        )  # fmt: skip

    def _coefficient(self):
        value = int(self.rng.integers(VECTOR_REGISTERS))
        kind, negative = self._choice(list(CoefficientKind)), self._maybe()
        return {"kind": kind, "value": value, "negative": negative}

    def _vector(self):
        g = self.config.elements
        held = int(self.rng.integers(3))
        from_registers = self._maybe(0.2)
        target = self._choice(list(VectorTarget))
        fold = self._choice(list(Fold))
        groups, window, rows = self._upto(3), self._upto(3), self._upto(g)
        wide = self._maybe(0.3)
        if from_registers:
            held, groups, window = 0, 1, 1
        if target is VectorTarget.REGISTERS:
            groups, window = 1, 1 if fold is Fold.NONE else window
        operands = [VectorOperand.X]
        masks = [Mask.NONE]
        if held:
            operands.append(VectorOperand.HELD_0)
            masks.append(Mask.HELD_0_POSITIVE)
            if not wide and fold is Fold.NONE:
                masks.append(Mask.FIRST_EQUAL)
        if held > 1:
            operands.append(VectorOperand.HELD_1)
            masks.append(Mask.HELD_1_POSITIVE)
        if from_registers:
            operands.append(VectorOperand.REGISTER)
        b, reduce_product = self._coefficient(), self._maybe(0.3)
        if b["kind"] is CoefficientKind.ABSENT and not reduce_product:
            operands.append(VectorOperand.NONE)
        to_memory = target in (VectorTarget.NARROW, VectorTarget.WIDE)
        times_y = to_memory and fold is Fold.NONE and self._maybe(0.2)
        if times_y and VectorOperand.NONE in operands:
            operands.remove(VectorOperand.NONE)
        tiles = groups * (window if fold is Fold.NONE else 1)
        beats = tiles * (2 * rows if target is VectorTarget.WIDE else g)
        where = {"descriptor": self._descriptor(beats)} if to_memory else {}
        streamed = groups * (held * g + window * (2 * rows if wide else g))
        feeds = [] if from_registers else self._feeds(streamed)
        self.program.vector(
            self._stage(), feeds, groups=groups, window=window, rows=rows, held=held,
            wide=wide and not from_registers, from_registers=from_registers,
            y=self._choice(operands), a=self._coefficient(), b=b, c=self._coefficient(),
            function=self._choice(list(Function)), mask=self._choice(masks), fold=fold,
            target=target, reduce=self._choice(list(Fold)), reduce_product=reduce_product,
            times_y=times_y,
            **{
                f"{part}_register": self._base(VECTOR_REGISTERS, rows)
                for part in ("x", "y", "target", "reduce", "product")
            },
            **where,
        )  # fmt: skip

    def _feeds(self, beats):
        """Cut the beats that a VECTOR takes into LOADs, fewer than a queue holds."""
        count = min(self._upto(2), beats)
        cuts = sorted(self.rng.choice(np.arange(1, beats), count - 1, replace=False).tolist())
        sizes = np.diff([0, *cuts, beats]).tolist()
        assert math.fsum(sizes) == beats
        return [
            {"rows": size, "d_words": 1, "descriptor": self._descriptor(size)} for size in sizes
        ]
