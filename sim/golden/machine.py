"""The functional machine: carries out command programs as the gateware does, without a clock."""

from __future__ import annotations

import functools
import math
import mmap
import sys
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl.config import COMMAND_BYTES, VECTOR_REGISTERS, Config
from rtl.control.commands import (
    QUEUE_OF,
    STREAMS,
    CoefficientKind,
    Fault,
    Fold,
    Function,
    LoadOrder,
    LoadTarget,
    Mask,
    Opcode,
    Queue,
    VectorOperand,
    VectorTarget,
    queue_of,
    queues_of,
)
from rtl.interface.register_map import COUNTERS, STAGE_NAMES
from rtl.sparsity.pattern import Pattern, supported_patterns

from .arithmetic import (
    ExactSum,
    Floats,
    Halves,
    Operand,
    add,
    is_finite,
    is_positive,
    multiply,
    to_float,
    to_half,
)
from .engine import epilogue
from .frame import Frame
from .program import Decoded, DecodedDescriptor, decode
from .sparsity import Bytes, pack_state_tile, pack_tiles, unpack_state_tile, unpack_words
from .update import update
from .vector import affine, first_equal, fold_window, last_step, reduce_rows

__all__ = ["Machine", "Result"]

_ONE = 0x3C00
"""1.0 in binary16."""

_STATE_BEATS_PER_ROW = 4

_LOAD_TARGETS = {target.value for target in LoadTarget}

_OPCODES = {opcode.value: opcode for opcode in QUEUE_OF}
"""Those that have a body, and a queue by it."""

_STREAMS = {target.value: target for target in STREAMS}


class _FaultError(Exception):
    """A command cannot be carried out."""

    def __init__(self, code: Fault, address: int) -> None:
        super().__init__(f"{code.name} at {address:#x}")
        self.code = code
        self.address = address & (1 << 64) - 1


@dataclass(frozen=True)
class Result:
    """How a program ended.

    Attributes
    ----------
    finished
        It reached its FINISH.
    hung
        Its queues wait for tokens that nobody gives; the gateware would wait for ever.
    fault, fault_command, fault_address
        Why and where it stopped, as the gateware's registers name them; NONE, 0, 0 if it didn't.
    counters
        What this program added to each of `COUNTERS`. Those of cycles, lost ones among them, are
        zero, as this machine has no clock.
    """

    finished: bool
    hung: bool
    fault: Fault
    fault_command: int
    fault_address: int
    counters: dict[str, int]


@dataclass
class _Queue:
    """A command queue with the command that it carries out and the tokens that it holds."""

    waiting: deque[tuple[int, Decoded]] = field(default_factory=deque)
    tokens: list[int] = field(default_factory=lambda: [0] * len(Queue))
    index: int = 0
    command: Decoded | None = None
    steps: Iterator[None] = field(default_factory=lambda: iter(()))

    @property
    def empty(self) -> bool:
        return not self.waiting and self.command is None


class Machine:
    """The accelerator with its memory.

    Scratchpads keep their content from program to program, and over `reset`; they begin as zeros,
    on which no program may rely. After a fault in the middle of a transfer it is undefined which of
    its beats were moved.

    Parameters
    ----------
    config
        Configuration of the gateware that is modelled.

    Attributes
    ----------
    memory
        The card's memory, ``config.memory_bytes`` bytes.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.memory = _sparse_zeros(config.memory_bytes)
        self._beats = self.memory.reshape(-1, config.beat_bytes)
        s_shape = (config.rows, config.s_depth * config.ratio, config.lanes)
        self._s_values: Halves = np.zeros(s_shape, np.uint16)
        self._s_indices = np.zeros(s_shape, np.uint8)
        self._d: Halves = np.zeros((config.cols, config.d_depth, config.elements), np.uint16)
        self._o: Floats = np.zeros((config.cols, config.o_depth, config.floats), np.uint32)
        self._aux: Halves = np.zeros((config.aux_depth, config.elements), np.uint16)
        self._registers: Floats = np.zeros((VECTOR_REGISTERS, config.elements), np.uint32)
        self._queue_bits = sum(1 << queue.value for queue in queues_of(config))
        self._patterns = {pattern.value: pattern for pattern in supported_patterns(config)}
        # Operands as COMPUTE last read them, until a LOAD writes their scratchpad.
        self._s_operands: dict[tuple[int, ...], Operand] = {}
        self._d_operands: dict[tuple[int, ...], Operand] = {}
        self.reset()

    def reset(self) -> None:
        """Do what the soft reset does: memory and scratchpads stay, all else is forgotten."""
        self._kept: ExactSum | None = None
        self._kept_contexts = 0
        self._additions = 0
        self._stopped = False

    def run(self, address: int, commands: int) -> Result:
        """Carry out the program of `commands` commands at memory `address`.

        Raises
        ------
        RuntimeError
            The program before this one hung or stopped at a fault, and `reset` wasn't called since.
        """
        if self._stopped:
            raise RuntimeError("the machine has stopped and must be reset first")
        self._stopped = True
        self._queues = [_Queue() for _ in Queue]
        nothing = np.zeros((0, self.config.beat_bytes), np.uint8)
        self._offered = dict.fromkeys(STREAMS, nothing)
        self._counters = {counter.name: 0 for counter in COUNTERS}
        self._at_fault = 0
        fault, fault_address, finished = Fault.NONE, 0, False
        try:
            finished = self._run(address, commands)
        except _FaultError as error:
            fault, fault_address = error.code, error.address
        self._stopped = not finished
        return Result(
            finished=finished,
            hung=not finished and fault is Fault.NONE,
            fault=fault,
            fault_command=self._at_fault,
            fault_address=fault_address,
            counters=self._counters,
        )

    # Queues and tokens

    def _run(self, address: int, commands: int) -> bool:
        """Return whether the program reached its FINISH; if not it hangs."""
        next_command = 0
        while True:
            progress = False
            while True:
                self._at_fault = next_command
                command, queue = self._fetch(address, next_command, commands)
                if command.opcode == Opcode.FINISH.value:
                    if all(queue.empty for queue in self._queues):
                        self._at_fault = 0
                        return True
                    break
                if len(self._queues[queue].waiting) == self.config.queue_depth:
                    break
                self._queues[queue].waiting.append((next_command, command))
                next_command += 1
                progress = True
            for number, state in enumerate(self._queues):
                while self._advance(number, state):
                    progress = True
            if not progress:
                self._at_fault = 0
                return False

    def _fetch(self, address: int, index: int, commands: int) -> tuple[Decoded, int]:
        """Return command `index` and its queue (that of a FINISH means nothing)."""
        if index == commands:
            raise _FaultError(Fault.MALFORMED, 0)
        start = address + index * COMMAND_BYTES
        if address % self.config.beat_bytes:
            raise _FaultError(Fault.MALFORMED, address)
        if start + COMMAND_BYTES > self.memory.size:
            raise _FaultError(Fault.ADDRESS_RANGE, start)
        command = decode(self.memory[start : start + COMMAND_BYTES].tobytes())
        if command.opcode == Opcode.FINISH.value:
            self._refuse_if(index != commands - 1)
            return command, Queue.LOAD.value
        if command.opcode == Opcode.NOP.value:
            queue = command.queue
        else:
            self._refuse_if(command.opcode not in _OPCODES)
            target = _STREAMS.get(getattr(command.body, "target", -1))
            queue = queue_of(self.config, _OPCODES[command.opcode], target).value
        others = self._queue_bits & ~(1 << queue)
        self._refuse_if(not self._queue_bits >> queue & 1)
        self._refuse_if(bool((command.wait | command.signal) & ~others))
        return command, queue

    def _advance(self, number: int, queue: _Queue) -> bool:
        """Go on with a queue's command, or begin its next; return whether anything happened."""
        begun = queue.command is None
        if begun:
            if not queue.waiting:
                return False
            index, command = queue.waiting[0]
            wanted = [other for other in range(len(Queue)) if command.wait >> other & 1]
            if not all(queue.tokens[other] for other in wanted):
                return False
            for other in wanted:
                queue.tokens[other] -= 1
            queue.waiting.popleft()
            queue.index, queue.command = index, command
            queue.steps = self._carry_out(command)
        self._at_fault = queue.index
        for _ in queue.steps:
            return begun
        assert queue.command is not None
        for other, receiver in enumerate(self._queues):
            receiver.tokens[number] += queue.command.signal >> other & 1
        queue.command = None
        self._counters["COMMANDS"] += 1
        return True

    def _carry_out(self, command: Decoded) -> Iterator[None]:
        """Carry a command out, pausing where it waits for another unit."""
        body = command.body
        if command.opcode == Opcode.LOAD.value:
            yield from self._load(body)
        elif command.opcode == Opcode.COMPUTE.value:
            self._compute(body, STAGE_NAMES[command.stage])
        elif command.opcode == Opcode.STORE.value:
            self._store(body)
        elif command.opcode == Opcode.UPDATE.value:
            yield from self._update(body)
        elif command.opcode == Opcode.VECTOR.value:
            yield from self._vector(body)

    # Memory

    def _find(
        self, descriptor: DecodedDescriptor
    ) -> tuple[npt.NDArray[np.int64], _FaultError | None]:
        """Return the beats of memory that `descriptor` names, in their order, up to a fault."""
        beat_bytes = self.config.beat_bytes
        if (
            0 in descriptor.counts
            or descriptor.address % beat_bytes
            or any(stride % beat_bytes for stride in descriptor.strides)
        ):
            raise _FaultError(Fault.MALFORMED, descriptor.address)
        beats = descriptor.address // beat_bytes + _offsets(
            descriptor.counts, tuple(stride // beat_bytes for stride in descriptor.strides)
        )
        outside = (beats < 0) | (beats >= len(self._beats))
        if not outside.any():
            return beats, None
        first = int(np.argmax(outside))
        return beats[:first], _FaultError(Fault.ADDRESS_RANGE, int(beats[first]) * beat_bytes)

    def _read(self, descriptor: DecodedDescriptor) -> Bytes:
        """Return the beats that `descriptor` names."""
        places, fault = self._find(descriptor)
        self._counters["READ_BEATS"] += len(places)
        if fault is not None:
            raise fault
        return self._beats[places]

    def _write(self, descriptor: DecodedDescriptor, values: Bytes) -> None:
        """Write beats where `descriptor` says."""
        places, fault = self._find(descriptor)
        self._beats[places] = values.reshape(-1, self.config.beat_bytes)[: len(places)]
        self._counters["WRITE_BEATS"] += len(places)
        if fault is not None:
            raise fault

    def _write_row(self, address: int, values: Bytes) -> None:
        """Write contiguous beats at `address`."""
        beats = values.size // self.config.beat_bytes
        address &= (1 << 64) - 1
        self._write(DecodedDescriptor(address, (beats, 1, 1, 1), (0, 0, 0)), values)

    # Checks

    def _pattern(self, value: int) -> Pattern:
        try:
            return self._patterns[value]
        except KeyError:
            raise _FaultError(Fault.PATTERN, 0) from None

    @staticmethod
    def _refuse_if(malformed: bool) -> None:
        if malformed:
            raise _FaultError(Fault.MALFORMED, 0)

    @staticmethod
    def _check_range(base: int, words: int, depth: int) -> None:
        """Refuse `words` words from `base` of a scratchpad with `depth` words in a bank."""
        if base + words > depth:
            raise _FaultError(Fault.SCRATCHPAD_RANGE, base)

    # LOAD

    def _load(self, body: SimpleNamespace) -> Iterator[None]:
        config = self.config
        g, target = config.elements, body.target
        is_s = target == LoadTarget.S.value
        is_d = target == LoadTarget.D.value
        in_tiles = is_s or (is_d and body.order == LoadOrder.TILES.value)
        frame = Frame.of(body.frame)
        self._refuse_if(target not in _LOAD_TARGETS or 0 in (body.rows, body.d_words))
        self._refuse_if(in_tiles and body.rows % g != 0)
        self._refuse_if(frame is not None and frame.malformed)
        pattern = self._pattern(body.pattern) if is_s else Pattern.DENSE
        self._refuse_if(bool(body.transpose) and pattern is not Pattern.DENSE)
        beats_wanted = body.rows * body.d_words
        if is_s:
            beats_wanted = beats_wanted // g * pattern.tile_beats(config)
        self._refuse_if(bool(body.transpose) and beats_wanted % g != 0)
        beats_named = body.descriptor.beats
        if frame is None:
            self._refuse_if(beats_named != beats_wanted)
        else:
            self._refuse_if(beats_named != math.prod(frame.inside))
            self._refuse_if(beats_wanted != math.prod(frame.whole))
        if is_s:
            words = body.rows // config.rows * pattern.words_per_row(config, body.d_words)
            self._check_range(body.base, words, config.s_depth)
        elif is_d:
            words = -(-body.rows // config.cols) * body.d_words
            self._check_range(body.base, words, config.d_depth)
        elif target == LoadTarget.AUX.value:
            self._check_range(body.base, beats_wanted, config.aux_depth)

        beats = self._read(body.descriptor)
        if frame is not None:
            beats = frame.put_around(beats)
        if body.transpose:
            beats = np.ascontiguousarray(_halves(beats).reshape(-1, g, g).swapaxes(1, 2), "<u2")
            beats = beats.reshape(-1, g).view(np.uint8)
        if is_s:
            self._write_s(body, pattern, beats)
        elif is_d:
            self._write_d(body, _halves(beats))
        elif target == LoadTarget.AUX.value:
            self._aux[body.base : body.base + len(beats)] = _halves(beats)
        else:
            way = LoadTarget(target)
            self._offered[way] = beats
            while len(self._offered[way]):
                yield

    def _write_s(self, body: SimpleNamespace, pattern: Pattern, beats: Bytes) -> None:
        config = self.config
        g, steps = config.elements, pattern.steps(config)
        words = pattern.words_per_row(config, body.d_words)
        tiles = beats.reshape(-1, pattern.tile_beats(config), config.beat_bytes)
        area = (slice(None), slice(body.base * config.ratio, None))
        values, indices = unpack_words(tiles, pattern, config)
        pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
            (self._s_values, values),
            (self._s_indices, indices),
        ]
        for bank, loaded in pairs:
            rows = loaded.reshape(-1, body.d_words, g, steps * config.lanes).swapaxes(1, 2)
            rows = rows.reshape(-1, config.rows, body.d_words * steps, config.lanes)
            room = bank[area][:, : len(rows) * words * config.ratio]
            room = room.reshape(config.rows, len(rows), words * config.ratio, config.lanes)
            room[:, :, : body.d_words * steps] = rows.swapaxes(0, 1)
        self._s_operands.clear()

    def _write_d(self, body: SimpleNamespace, values: Halves) -> None:
        config = self.config
        if body.order == LoadOrder.TILES.value:
            values = values.reshape(-1, body.d_words, config.elements, config.elements)
            values = values.swapaxes(1, 2)
        values = values.reshape(body.rows, body.d_words, config.elements)
        for bank in range(min(config.cols, body.rows)):
            rows = values[bank :: config.cols].reshape(-1, config.elements)
            self._d[bank, body.base : body.base + len(rows)] = rows
        self._d_operands.clear()

    # COMPUTE

    def _compute(self, body: SimpleNamespace, stage: str) -> None:
        config = self.config
        self._refuse_if(0 in (body.d_words, body.a_tiles, body.b_tiles))
        self._refuse_if(bool(body.keep) and (body.a_tiles, body.b_tiles) != (1, 1))
        self._refuse_if(1 << body.a_contexts > config.interleave)
        if not body.ones:
            self._refuse_if(0 in body.d_rows.counts + body.d_reduction.counts)
        continues = self._kept is not None
        self._refuse_if(continues and body.a_contexts != self._kept_contexts)
        a_contexts = 1 << body.a_contexts
        b_contexts = config.interleave // a_contexts
        a_blocks, b_blocks = body.a_tiles * a_contexts, body.b_tiles * b_contexts
        a_rows, b_rows = a_blocks * config.rows, b_blocks * config.cols
        overlap = body.o_stride * config.floats < a_rows
        self._refuse_if(bool(body.accumulate) and (bool(body.keep) or overlap))
        self._refuse_if(body.a_padding >= a_rows or body.b_padding >= b_rows)
        supported = self._patterns.get(body.pattern)
        entries = supported.entries_per_chunk(config) if supported else 0
        self._refuse_if(body.tail_chunks >= config.chunks or body.tail_entries > entries)
        pattern = self._pattern(body.pattern)
        s_words = pattern.words_per_row(config, body.d_words)
        self._check_range(body.s_base, a_blocks * s_words, config.s_depth)
        if not body.ones:
            lowest, highest = map(sum, zip(body.d_rows.reach, body.d_reduction.reach, strict=True))
            if body.d_base + lowest < 0 or body.d_base + highest >= config.d_depth:
                raise _FaultError(Fault.SCRATCHPAD_RANGE, body.d_base)
        o_words = (b_blocks - 1) * body.o_stride + -(-a_rows // config.floats)
        self._check_range(body.o_base, o_words, config.o_depth)
        steps = body.d_words * pattern.steps(config)
        if self._additions + steps > config.max_additions:
            raise _FaultError(Fault.OVERRUN, body.s_base)

        s = self._read_s(body, a_blocks, s_words, steps)
        d = self._read_d(body, b_blocks)
        sums = ExactSum.of(s, d)
        self._count_macs(body, pattern, a_rows, b_rows, stage)
        if body.keep:
            self._kept = sums if self._kept is None else self._kept + sums
            self._kept_contexts = body.a_contexts
            self._additions += steps
            return
        result = sums.round()
        if self._kept is not None:
            first = (slice(b_contexts * config.cols), slice(a_contexts * config.rows))
            result[first] = (self._kept + sums[first]).round()
            self._kept, self._additions = None, 0
        self._write_o(body, result.reshape(b_blocks, config.cols, a_rows))

    def _count_macs(
        self, body: SimpleNamespace, pattern: Pattern, a_rows: int, b_rows: int, stage: str
    ) -> None:
        """Count the slots of a product of so many rows, and what their multipliers did."""
        config = self.config
        steps = body.d_words * pattern.steps(config)
        slots = steps * a_rows * b_rows // (config.rows * config.cols)
        in_chunk = pattern.entries_per_chunk(config)
        in_word = config.chunks * in_chunk
        tail = body.tail_chunks * in_chunk + body.tail_entries
        row = (body.d_words - 1) * in_word + (tail or in_word)
        useful = (a_rows - body.a_padding) * (b_rows - body.b_padding) * row
        added = a_rows * b_rows * body.d_words * in_word
        self._counters[f"MAC_SLOTS_{stage}"] += slots
        self._counters["USEFUL_MACS"] += useful
        self._counters["EDGE_MACS"] += added - useful
        self._counters["FILLER_MACS"] += slots * config.macs - added

    def _read_s(self, body: SimpleNamespace, blocks: int, words: int, steps: int) -> Operand:
        """Return the S operand, `blocks` rows from each bank.

        Each has `words` bank words, of which `steps` S words are read.
        """
        config = self.config
        key = (body.s_base, blocks, body.d_words, body.pattern)
        if key not in self._s_operands:
            area = slice(body.s_base * config.ratio, (body.s_base + blocks * words) * config.ratio)

            def in_rows(bank: npt.NDArray[Any]) -> npt.NDArray[Any]:
                rows = bank[:, area].reshape(config.rows, blocks, -1, config.lanes)
                rows = rows[:, :, :steps].swapaxes(0, 1)
                return rows.reshape(-1, body.d_words, steps // body.d_words, config.lanes)

            values, indices = in_rows(self._s_values), in_rows(self._s_indices)
            chunk = np.arange(config.lanes) // config.lanes_per_chunk
            word = np.arange(body.d_words)[:, None, None]
            # The select of a lane has just the bits that a group needs.
            columns = word * config.elements + chunk * config.group + (indices & config.group - 1)
            rows = len(values)
            self._s_operands[key] = Operand.compressed(
                values.reshape(rows, -1), columns.reshape(rows, -1), body.d_words * config.elements
            )
        return self._s_operands[key]

    def _read_d(self, body: SimpleNamespace, blocks: int) -> Operand:
        """Return the D operand, `blocks` rows from each bank."""
        config = self.config
        if body.ones:
            key: tuple[Any, ...] = (blocks, body.d_words)
        else:
            key = (body.d_base, blocks, body.d_words, body.d_rows, body.d_reduction)
        if key not in self._d_operands:
            shape = (blocks * config.cols, body.d_words * config.elements)
            if body.ones:
                values = np.full(shape, _ONE, np.uint16)
            else:
                words = body.d_base + body.d_reduction.offsets(body.d_words)
                places = body.d_rows.offsets(blocks)[:, None] + words
                values = self._d[:, places].swapaxes(0, 1).reshape(shape)
            self._d_operands[key] = Operand.dense(values)
        return self._d_operands[key]

    def _write_o(self, body: SimpleNamespace, result: Floats) -> None:
        """Write ``[block of b, column, a]``, or add it to what stands there."""
        config = self.config
        b_blocks, _, a_rows = result.shape
        banks = self._o.reshape(config.cols, -1)
        starts = (body.o_base + np.arange(b_blocks) * body.o_stride) * config.floats
        if body.o_stride * config.floats >= a_rows:
            places = starts[:, None] + np.arange(a_rows)
            result = result.swapaxes(0, 1)
            banks[:, places] = add(banks[:, places], result) if body.accumulate else result
            return
        # Rows overlap: the last to be drained stays.
        a_tile = config.rows << body.a_contexts
        b_tile = config.interleave >> body.a_contexts
        for b_first in range(0, b_blocks, b_tile):
            for a_first in range(0, a_rows, a_tile):
                for a in range(a_first, a_first + a_tile, config.rows):
                    for b in range(b_first, b_first + b_tile):
                        start = starts[b] + a
                        banks[:, start : start + config.rows] = result[b, :, a : a + config.rows]

    # STORE

    def _read_o(self, base: int, stride: int, first: int, rows: int, words: int) -> Floats:
        """Return `rows` rows of `words` O words, from row `first`, as ``[rows, words * G/2]``."""
        b = np.arange(first, first + rows)[:, None]
        address = base + b // self.config.cols * stride + np.arange(words)
        return self._o[b % self.config.cols, address].reshape(rows, -1)

    def _o_words(self, stride: int, rows: int, words: int) -> int:
        """Return the words of an O bank from the base to the last one read."""
        return (rows - 1) // self.config.cols * stride + words

    def _store(self, body: SimpleNamespace) -> None:
        config = self.config
        self._refuse_if(0 in (body.rows, body.words))
        self._refuse_if(bool(body.convert) and body.words % 2 != 0)
        self._refuse_if(bool(body.add | body.mask | body.compress) and not body.convert)
        self._refuse_if(bool(body.compress) and body.rows % config.elements != 0)
        if body.compress and not config.compressed_stores:
            raise _FaultError(Fault.PATTERN, 0)
        pattern = self._pattern(body.pattern) if body.compress else None
        beats = body.rows * body.words // (2 if body.convert else 1)
        written = beats
        if pattern is not None:
            written = beats // config.elements * pattern.tile_beats(config)
        self._refuse_if(body.descriptor.beats != written)
        o_words = self._o_words(body.o_stride, body.rows, body.words)
        self._check_range(body.o_base, o_words, config.o_depth)
        bias_words = -(-body.words // 2)
        if body.bias:
            self._check_range(body.bias_base, bias_words, config.aux_depth)
        if body.add:
            self._check_range(body.add_base, beats, config.aux_depth)
        if body.mask:
            self._check_range(body.mask_base, beats, config.aux_depth)

        o = self._read_o(body.o_base, body.o_stride, 0, body.rows, body.words)
        bias = self._aux[body.bias_base : body.bias_base + bias_words].ravel()[: o.shape[1]]

        def like_o(base: int) -> Halves:
            return self._aux[base : base + beats].reshape(o.shape)

        result = epilogue(
            o,
            bias=bias if body.bias else None,
            addend=like_o(body.add_base) if body.add else None,
            relu=bool(body.relu),
            mask=like_o(body.mask_base) if body.mask else None,
            convert=bool(body.convert),
        )
        if pattern is not None:
            memory = pack_tiles(result.astype(np.uint16), pattern, config)
        else:
            memory = result.astype(result.dtype.newbyteorder("<")).view(np.uint8)
        self._write(body.descriptor, memory)
        self._counters["NONFINITE"] += int(np.count_nonzero(~is_finite(result)))

    # Streams

    def _take(self, way: LoadTarget, beats: int) -> Generator[None, None, Bytes]:
        """Return that many beats of those that LOADs to `way` offer, waiting for them."""
        taken: list[Bytes] = []
        while beats:
            while not len(self._offered[way]):
                yield
            taken.append(self._offered[way][:beats])
            self._offered[way] = self._offered[way][beats:]
            beats -= len(taken[-1])
        return np.concatenate(taken)

    # UPDATE

    def _update(self, body: SimpleNamespace) -> Iterator[None]:
        config = self.config
        g, tiles, rows = config.elements, body.tiles, body.rows
        self._refuse_if(0 in (tiles, rows) or rows > g)
        dense_row_copy = not body.row_copy or body.row_pattern == Pattern.DENSE.value
        self._refuse_if(rows < g and (not dense_row_copy or bool(body.column_copy)))
        row_pattern = self._pattern(body.row_pattern) if body.row_copy else None
        column_pattern = self._pattern(body.column_pattern) if body.column_copy else None
        last = body.o_base + self._o_words(body.o_stride, (tiles - 1) * g + rows, 2) - 1
        if last >= config.o_depth:
            raise _FaultError(Fault.SCRATCHPAD_RANGE, last)

        tile_beats = _STATE_BEATS_PER_ROW * rows
        state = yield from self._take(LoadTarget.STATE, tiles * tile_beats)
        w, v = unpack_state_tile(state, rows, config)
        gradients = np.stack(
            [self._read_o(body.o_base, body.o_stride, k * g, rows, 2) for k in range(tiles)]
        )
        updated = update(
            w,
            v,
            gradients,
            config,
            rate=body.rate,
            momentum=body.momentum,
            decay=body.decay,
            scale=body.scale,
            row_pattern=row_pattern,
            column_pattern=column_pattern,
        )
        for k in range(tiles):
            state_address = body.state_address + k * tile_beats * config.beat_bytes
            self._write_row(state_address, pack_state_tile(updated.w[k], updated.v[k]))
            if updated.row_copy is not None:
                self._write_row(body.row_address + k * body.row_stride, updated.row_copy[k])
            if updated.column_copy is not None:
                self._write_row(
                    body.column_address + k * body.column_stride, updated.column_copy[k]
                )

    # VECTOR

    def _vector(self, body: SimpleNamespace) -> Iterator[None]:
        config = self.config
        g, groups, window, rows = config.elements, body.groups, body.window, body.rows
        self._check_vector(body)
        a, b, c = (self._coefficient(term) for term in (body.a, body.b, body.c))

        # Operands, as [group, tile of the window, row, column].
        held = np.zeros((groups, 0, g, g), np.uint16)
        halves: Halves | None = None
        if body.from_registers:
            x = self._read_registers(body.x_register, rows)
        else:
            tile_beats = 2 * rows if body.wide else g
            count = groups * (body.held * g + window * tile_beats)
            beats = yield from self._take(LoadTarget.STREAM, count)
            beats = beats.reshape(groups, -1, config.beat_bytes)
            held = _halves(beats[:, : body.held * g]).reshape(groups, body.held, g, g)[:, :, :rows]
            values = beats[:, body.held * g :]
            if body.wide:
                x = np.ascontiguousarray(values).view("<u4").astype(np.uint32, copy=False)
                x = x.reshape(groups, window, rows, g)
            else:
                halves = _halves(values).reshape(groups, window, g, g)[:, :, :rows]
                x = to_float(halves)
        y: Floats | None = None
        match VectorOperand(body.y):
            case VectorOperand.X:
                y = x
            case VectorOperand.HELD_0 | VectorOperand.HELD_1:
                tile = body.y - VectorOperand.HELD_0.value
                y = np.broadcast_to(to_float(held[:, tile : tile + 1]), x.shape)
            case VectorOperand.REGISTER:
                y = self._read_registers(body.y_register, rows)

        result = last_step(Function(body.function), affine(x, y, a, b, c))
        match Mask(body.mask):
            case Mask.HELD_0_POSITIVE | Mask.HELD_1_POSITIVE:
                tile = body.mask - Mask.HELD_0_POSITIVE.value
                result = np.where(is_positive(held[:, tile : tile + 1]), result, np.uint32(0))
            case Mask.FIRST_EQUAL:
                assert halves is not None
                result = np.where(first_equal(halves, held[:, :1]), result, np.uint32(0))

        products = multiply(result, y) if y is not None else None
        folded = fold_window(result, Fold(body.fold))
        if body.times_y:
            assert products is not None
            folded = products
        match VectorTarget(body.target):
            case VectorTarget.NARROW:
                tiles = np.zeros((folded.size // (rows * g), g, g), np.uint16)
                tiles[:, :rows] = to_half(folded.reshape(-1, rows, g))
                self._write_vector(body.descriptor, tiles)
            case VectorTarget.WIDE:
                self._write_vector(body.descriptor, folded)
            case VectorTarget.REGISTERS:
                first = body.target_register
                self._registers[first : first + rows] = folded.reshape(rows, g)
        if body.reduce != Fold.NONE.value:
            total = reduce_rows(result.reshape(-1, g), Fold(body.reduce))
            self._registers[body.reduce_register] = total
        if body.reduce_product:
            assert products is not None
            total = reduce_rows(products.reshape(-1, g), Fold.SUM)
            self._registers[body.product_register] = total

    def _check_vector(self, body: SimpleNamespace) -> None:
        """Refuse a VECTOR that can't be carried out."""
        config = self.config
        groups, window, rows = body.groups, body.window, body.rows
        self._refuse_if(0 in (groups, window, rows) or rows > config.elements or body.held > 2)
        terms = (body.a, body.b, body.c)
        for value, kind in (
            *((term.kind, CoefficientKind) for term in terms),
            (body.y, VectorOperand),
            (body.function, Function),
            (body.mask, Mask),
            (body.fold, Fold),
            (body.reduce, Fold),
        ):
            self._refuse_if(value not in [member.value for member in kind])
        y, mask = VectorOperand(body.y), Mask(body.mask)
        needed = max(
            {VectorOperand.HELD_0: 1, VectorOperand.HELD_1: 2}.get(y, 0),
            {Mask.NONE: 0, Mask.HELD_1_POSITIVE: 2}.get(mask, 1),
        )
        self._refuse_if(body.held < needed)
        self._refuse_if((y is VectorOperand.REGISTER) > bool(body.from_registers))
        self._refuse_if(bool(body.from_registers) and (groups, window, body.held) != (1, 1, 0))
        folds = body.fold != Fold.NONE.value
        self._refuse_if(mask is Mask.FIRST_EQUAL and bool(body.wide or folds))
        uses_y = (
            bool(body.reduce_product or body.times_y) or body.b.kind != CoefficientKind.ABSENT.value
        )
        self._refuse_if(y is VectorOperand.NONE and uses_y)
        tiles = groups if folds else groups * window
        target = VectorTarget(body.target)
        self._refuse_if(target is VectorTarget.REGISTERS and tiles != 1)
        to_memory = target in (VectorTarget.NARROW, VectorTarget.WIDE)
        self._refuse_if(bool(body.times_y) and (folds or not to_memory))
        if to_memory:
            tile_beats = config.elements if target is VectorTarget.NARROW else 2 * rows
            self._refuse_if(body.descriptor.beats != tiles * tile_beats)

        for term in terms:
            if term.kind == CoefficientKind.REGISTER.value:
                self._check_range(term.value, 1, VECTOR_REGISTERS)
        for used, first in (
            (body.from_registers, body.x_register),
            (y is VectorOperand.REGISTER, body.y_register),
            (target is VectorTarget.REGISTERS, body.target_register),
        ):
            if used:
                self._check_range(first, rows, VECTOR_REGISTERS)

    def _read_registers(self, first: int, rows: int) -> Floats:
        """Return registers as ``[1, 1, rows, G]``, as they are before the command changes any."""
        return self._registers[first : first + rows].copy()[None, None]

    def _coefficient(self, term: SimpleNamespace) -> Floats | None:
        """Return a coefficient's values, one for each column; None if it's absent."""
        sign = np.uint32(term.negative << 31)
        match CoefficientKind(term.kind):
            case CoefficientKind.ABSENT:
                return None
            case CoefficientKind.IMMEDIATE:
                return np.full(self.config.elements, term.value, np.uint32) ^ sign
            case CoefficientKind.REGISTER:
                return np.asarray(self._registers[term.value] ^ sign)

    def _write_vector(self, descriptor: DecodedDescriptor, values: Halves | Floats) -> None:
        self._counters["NONFINITE"] += int(np.count_nonzero(~is_finite(values)))
        ordered = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
        self._write(descriptor, ordered.view(np.uint8))


def _sparse_zeros(size: int) -> Bytes:
    """Return `size` bytes of zeros, of which only those written take room on the host."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if sys.platform == "linux":
        flags |= 0x4000  # MAP_NORESERVE, which the module has no name for before Python 3.13.
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)


@functools.lru_cache(maxsize=4096)
def _offsets(counts: tuple[int, ...], strides: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the beats of a nest of loops, in units of beats from its address."""
    offsets = np.zeros(1, np.int64)
    for count, stride in zip(counts, (1, *strides), strict=True):
        offsets = (np.arange(count, dtype=np.int64)[:, None] * stride + offsets).ravel()
    return offsets


def _halves(beats: Bytes) -> Halves:
    return np.ascontiguousarray(beats).view("<u2").astype(np.uint16, copy=False)
