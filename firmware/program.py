"""Programs: commands in order, with the tokens that keep their effects in order."""

from __future__ import annotations

import copy
import math
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rtl.config import COMMAND_BYTES, Config
from rtl.control.commands import (
    WALK_DIMENSIONS,
    CoefficientKind,
    Frame,
    LoadTarget,
    Opcode,
    Queue,
    Stage,
    VectorTarget,
    encode,
    queue_of,
)
from rtl.memory.descriptor import DIMENSIONS
from rtl.sparsity.pattern import Pattern

from .access_index import AccessIndex

__all__ = ["Program", "descriptor", "matrix_walks", "product", "walk"]

_LARGEST_COUNT = (1 << 16) - 1

_MEMORY = "memory"

_OTHER_QUEUES = {own: [queue.value for queue in Queue if queue is not own] for own in Queue}

_STATE_BEATS = 4
"""Beats of weights and momentum in a row of a tile."""

_TO_MEMORY = (VectorTarget.NARROW, VectorTarget.WIDE)


def descriptor(config: Config, address: int, beats: int, *loops: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of a DMA descriptor.

    Parameters
    ----------
    config
        Gives the size of a beat.
    address
        Byte address of the first beat.
    beats
        Beats that follow each other in memory.
    *loops
        ``(count, stride in bytes)`` from the innermost to the outermost. Loops of one round are
        dropped and loops whose rounds follow each other are merged, so that bursts are long.
    """
    counts: list[int] = [beats]
    strides: list[int] = []
    for count, stride in loops:
        if count == 1:
            continue
        contiguous = not strides and stride == counts[0] * config.beat_bytes
        if contiguous and counts[0] * count <= _LARGEST_COUNT:
            counts[0] *= count
        else:
            counts.append(count)
            strides.append(stride)
    missing = DIMENSIONS - len(counts)
    if missing < 0:
        raise ValueError(f"a descriptor has {DIMENSIONS} loops, {len(counts)} are needed")
    return {
        "address": address,
        "counts": counts + [1] * missing,
        "strides": strides + [0] * missing,
    }


def walk(*loops: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of a walk over the words of a scratchpad.

    Parameters
    ----------
    *loops
        ``(count, step in words)`` from the innermost to the outermost, at most three.
    """
    missing = WALK_DIMENSIONS - len(loops)
    if missing < 0:
        raise ValueError(f"a walk has {WALK_DIMENSIONS} loops, {len(loops)} are needed")
    loops += ((1, 0),) * missing
    return {"counts": [count for count, _ in loops], "steps": [step for _, step in loops]}


def matrix_walks(bank_rows: int, d_words: int) -> dict[str, Any]:
    """Return the walks over a D operand that was loaded as a matrix.

    Parameters
    ----------
    bank_rows
        Rows in each bank: contexts along b of all tiles.
    d_words
        D words of a row.
    """
    return {"d_rows": walk((bank_rows, d_words)), "d_reduction": walk((d_words, 1))}


def product(
    config: Config,
    pattern: Pattern,
    *,
    a: int,
    b: int,
    k: int,
    a_padding: int = 0,
    b_padding: int = 0,
    a_contexts: int | None = None,
    d_rows: dict[str, Any] | None = None,
    d_reduction: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of a COMPUTE that follow from the sizes of its product.

    Parameters
    ----------
    config
        Configuration that is to run it.
    pattern
        N:M pattern of the S operand.
    a, b
        Rows of the S and of the D operand.
    k
        Length of the reduction, without the padding of its last D word.
    a_padding, b_padding
        How many of these rows, the last, are padding themselves. Fewer than all of them.
    a_contexts
        Binary logarithm of a tile's contexts along a. If not given, that with which the product
        takes the fewest tiles, and among several the smallest, which reads the fewest S words.
    d_rows, d_reduction
        How the D operand lies in its scratchpad, as `walk` has it: the rows of a bank, and the D
        words of a row. If not given, as `matrix_walks` has it.
    """
    limit = min(config.interleave, config.elements // config.rows).bit_length()
    choices = range(limit) if a_contexts is None else (a_contexts,)

    def tiles(choice: int) -> tuple[int, int]:
        return (
            -(-a // (config.rows << choice)),
            -(-b // (config.cols * config.interleave >> choice)),
        )

    a_contexts = min(choices, key=lambda choice: math.prod(tiles(choice)))
    a_tile, b_tile = config.rows << a_contexts, config.cols * config.interleave >> a_contexts
    a_tiles, b_tiles = tiles(a_contexts)
    d_words = -(-k // config.elements)
    full_chunks, elements = divmod(k, config.group)
    walks = matrix_walks(b_tiles * (config.interleave >> a_contexts), d_words)
    return {
        "pattern": pattern,
        "d_words": d_words,
        "d_rows": d_rows or walks["d_rows"],
        "d_reduction": d_reduction or walks["d_reduction"],
        "a_tiles": a_tiles,
        "b_tiles": b_tiles,
        "a_contexts": a_contexts,
        "a_padding": a_tiles * a_tile - a + a_padding,
        "b_padding": b_tiles * b_tile - b + b_padding,
        "tail_chunks": full_chunks % config.chunks,
        # A group of the pattern has all its entries as soon as it has one element.
        "tail_entries": pattern.n * -(-elements // pattern.m),
    }


def _reach(*walks: dict[str, Any]) -> tuple[int, int]:
    """Return the lowest and the highest offset of walks that are added up."""
    spans = [
        (count - 1) * step
        for fields in walks
        for count, step in zip(fields["counts"], fields["steps"], strict=True)
    ]
    return sum(min(0, span) for span in spans), sum(max(0, span) for span in spans)


def _coefficient(fields: dict[str, Any]) -> str:
    """Return a coefficient of a VECTOR in words."""
    sign, value = "-" if fields.get("negative") else "", fields.get("value", 0)
    match fields["kind"]:
        case CoefficientKind.IMMEDIATE:
            [number] = struct.unpack("<f", struct.pack("<I", value))
            return f"{sign}{number:g}"
        case CoefficientKind.REGISTER:
            return f"{sign}r{value}"
    return "none"


class _Region(NamedTuple):
    """Words of a scratchpad or bytes of memory, `stop` excluded."""

    space: str
    start: int
    stop: int


@dataclass(slots=True)
class _Command:
    """One command and the latest of each queue that must have ended before it starts."""

    opcode: Opcode
    queue: Queue
    stage: Stage
    body: dict[str, Any]
    label: str
    after: list[int] = field(default_factory=lambda: [-1] * len(Queue))
    wait: int = 0
    signal: int = 0

    def encode(self) -> bytes:
        return encode(
            self.opcode,
            queue=self.queue,
            wait=self.wait,
            signal=self.signal,
            stage=self.stage,
            **self.body,
        )


class Program:
    """Builder of a program.

    Commands are added in an order in which they could be carried out one by one. From what each
    reads and writes (scratchpad words, memory) the builder works out which must wait for which, and
    expresses that in as few tokens as possible: queues run apart wherever that is safe.

    Parameters
    ----------
    config
        The configuration that is to run it.
    name
        What it does, for messages.

    Attributes
    ----------
    address
        Where the driver placed it in card memory, if it did.
    """

    def __init__(self, config: Config, name: str = "program") -> None:
        self.config = config
        self.name = name
        self.address: int | None = None
        self._label = ""
        self._commands: list[_Command] = []
        self._reads: dict[str, AccessIndex] = defaultdict(AccessIndex)
        self._writes: dict[str, AccessIndex] = defaultdict(AccessIndex)
        self._encoded: list[bytes] | None = None
        self._last = -1

    def __len__(self) -> int:
        """Commands, with the FINISH that ends every program."""
        return len(self._commands) + 1

    def part(self, label: str) -> Program:
        """Return the program as one of its parts sees it, a layer say.

        What is added through it belongs to `label`, of which there may be several under way.
        """
        part = copy.copy(self)
        part._label = label
        return part

    def load(self, target: LoadTarget, stage: Stage, **body: Any) -> None:
        """Add a LOAD to a scratchpad.

        `body` holds the other fields of `rtl.control.commands.LoadBody`.
        Its `descriptor` names the beats in memory; `rows` and `d_words` count those of its `frame`,
        if it has one, as well.
        """
        config = self.config
        rows, d_words, base = body["rows"], body["d_words"], body.get("base", 0)
        reads, writes = [self._extent(body["descriptor"])], []
        match target:
            case LoadTarget.S:
                row_words = body["pattern"].words_per_row(config, d_words)
                writes = [_Region("S", base, base + rows // config.rows * row_words)]
            case LoadTarget.D:
                writes = [_Region("D", base, base + -(-rows // config.cols) * d_words)]
            case LoadTarget.AUX:
                writes = [_Region("AUX", base, base + rows * d_words)]
            case _:
                raise ValueError(
                    f"{self.name}: a LOAD to {target.name} is added with the command it feeds, "
                    "only those to S, D and AUX by themselves"
                )
        self._add(Opcode.LOAD, stage, {"target": target} | body, reads, writes)

    def compute(self, stage: Stage, **body: Any) -> None:
        """Add a COMPUTE; `body` holds the fields of `rtl.control.commands.ComputeBody`.

        `product` gives those that follow from its sizes, the walks over the D operand among them.
        """
        config = self.config
        a_contexts = body.get("a_contexts", 0)
        row_words = body["pattern"].words_per_row(config, body["d_words"])
        s_rows = body["a_tiles"] << a_contexts
        o_rows = body["b_tiles"] * (config.interleave >> a_contexts)
        s_base, d_base, o_base = (body.get(f"{space}_base", 0) for space in "sdo")
        o_row_words = -(-s_rows * config.rows // config.floats)
        o_words = (o_rows - 1) * body["o_stride"] + o_row_words
        reads = [_Region("S", s_base, s_base + s_rows * row_words)]
        if not body.get("ones"):
            lowest, highest = _reach(body["d_rows"], body["d_reduction"])
            reads.append(_Region("D", d_base + lowest, d_base + highest + 1))
        writes = [_Region("O", o_base, o_base + o_words)]
        if body.get("accumulate"):
            reads += writes
        self._add(Opcode.COMPUTE, stage, body, reads, writes)

    def store(self, stage: Stage, **body: Any) -> None:
        """Add a STORE; `body` holds the fields of `rtl.control.commands.StoreBody`.

        With ``compress`` its descriptor names the beats of tiles, ``pattern.tile_beats(config)``
        each.
        """
        config = self.config
        o_base, words, rows = body.get("o_base", 0), body["words"], body["rows"]
        last = (-(-rows // config.cols) - 1) * body["o_stride"]
        reads = [_Region("O", o_base, o_base + last + words)]
        if body.get("bias"):
            start = body.get("bias_base", 0)
            reads.append(_Region("AUX", start, start + -(-words // 2)))
        for step in ("add", "mask"):
            if body.get(step):
                start = body.get(f"{step}_base", 0)
                reads.append(_Region("AUX", start, start + rows * words // 2))
        self._add(Opcode.STORE, stage, body, reads, [self._extent(body["descriptor"])])

    def update(self, stage: Stage, feeds: Sequence[dict[str, Any]] = (), **body: Any) -> None:
        """Add the LOADs that feed an UPDATE and, behind them, the UPDATE.

        Parameters
        ----------
        stage
            Of all of them.
        feeds
            Fields of the LOADs, to STATE; fewer of them than a queue holds.
        **body
            Fields of `rtl.control.commands.UpdateBody`.
        """
        config = self.config
        if len(feeds) >= config.queue_depth:
            raise ValueError(
                f"{self.name}: an UPDATE is fed by {len(feeds)} LOADs, there must be less than "
                f"{config.queue_depth}: configuration '{config.name}' has queues of that depth"
            )
        self._feed(feeds, LoadTarget.STATE, stage, len(self._commands) + len(feeds))
        tiles, rows, o_base = body["tiles"], body["rows"], body.get("o_base", 0)
        bank_rows = -(-((tiles - 1) * config.elements + rows) // config.cols)
        reads = [_Region("O", o_base, o_base + (bank_rows - 1) * body["o_stride"] + 2)]
        address = body["state_address"]
        writes = [
            _Region(_MEMORY, address, address + tiles * rows * _STATE_BEATS * config.beat_bytes)
        ]
        for side in ("row", "column"):
            if body.get(f"{side}_copy"):
                address = body[f"{side}_address"]
                beats = self._copy_beats(body, side)
                last = (tiles - 1) * body.get(f"{side}_stride", 0)
                stop = address + last + beats * config.beat_bytes
                writes.append(_Region(_MEMORY, address, stop))
        self._add(Opcode.UPDATE, stage, body, reads, writes)

    def vector(self, stage: Stage, feeds: Sequence[dict[str, Any]] = (), **body: Any) -> None:
        """Add a VECTOR and, behind it, the LOADs that feed it.

        It goes first, so that it takes their beats however many they are: their queue might not
        hold them all.

        Parameters
        ----------
        stage
            Of all of them.
        feeds
            Fields of the LOADs, to STREAM.
        **body
            Fields of `rtl.control.commands.VectorBody`.
        """
        index = len(self._commands)
        vector = self._append(Opcode.VECTOR, stage, body)
        self._feed(feeds, LoadTarget.STREAM, stage, index)
        to_memory = body.get("target") in _TO_MEMORY
        writes = [self._extent(body["descriptor"])] if to_memory else []
        self._depend(vector, index, [], writes)
        self._last = index

    @property
    def last(self) -> int:
        """Index of the command added last; of a VECTOR, not of what feeds it."""
        return self._last

    def change(self, index: int, **fields: Any) -> None:
        """Change fields of a command that say neither where nor how much it reads and writes."""
        command = self._commands[index]
        command.body.update(fields)
        if self._encoded is not None:
            self._encoded[index] = command.encode()

    def encode(self) -> bytes:
        """Return the program as it lies in memory, FINISH at its end."""
        if self._encoded is None or len(self._encoded) != len(self):
            self._assign_tokens()
            finish = encode(Opcode.FINISH)
            self._encoded = [*(command.encode() for command in self._commands), finish]
        return b"".join(self._encoded)

    @property
    def labels(self) -> list[str]:
        """What each command but FINISH belongs to: the label of its `part`."""
        return [command.label for command in self._commands]

    @property
    def stages(self) -> list[Stage]:
        """Stage of each command but FINISH."""
        return [command.stage for command in self._commands]

    @property
    def queues(self) -> list[Queue]:
        """Queue of each command but FINISH."""
        return [command.queue for command in self._commands]

    @property
    def opcodes(self) -> list[Opcode]:
        """Opcode of each command but FINISH."""
        return [command.opcode for command in self._commands]

    def traffic(self, index: int) -> tuple[int, int]:
        """Return the bytes that command `index` reads from memory, and those that it writes."""
        command = self._commands[index]
        body = command.body
        beat = self.config.beat_bytes
        match command.opcode:
            case Opcode.LOAD:
                return math.prod(body["descriptor"]["counts"]) * beat, 0
            case Opcode.STORE:
                return 0, math.prod(body["descriptor"]["counts"]) * beat
            case Opcode.VECTOR if body.get("target") in _TO_MEMORY:
                return 0, math.prod(body["descriptor"]["counts"]) * beat
            case Opcode.UPDATE:
                beats = body["rows"] * _STATE_BEATS
                for side in ("row", "column"):
                    if body.get(f"{side}_copy"):
                        beats += self._copy_beats(body, side)
                return 0, body["tiles"] * beats * beat
        return 0, 0

    def beats(self, first: int) -> tuple[int, int]:
        """Return the beats that the commands from `first` on read, and those that they write."""
        commands = range(first, len(self._commands))
        read, written = map(sum, zip((0, 0), *map(self.traffic, commands)))
        return read // self.config.beat_bytes, written // self.config.beat_bytes

    @property
    def nbytes(self) -> int:
        return len(self) * COMMAND_BYTES

    def describe(self, index: int) -> str:
        """Return command `index` in words."""
        self.encode()
        if index == len(self._commands):
            return f"{index:4}  FINISH"
        if not 0 <= index < len(self._commands):
            return f"{index:4}  (not a command of {self.name}, which has {len(self)})"
        command = self._commands[index]
        parts = [f"{index:4}  {command.opcode.name:<7} {command.stage.name:<6}"]
        for name, value in command.body.items():
            if name == "descriptor":
                counts = "x".join(str(count) for count in value["counts"] if count > 1) or "1"
                parts.append(f"memory={value['address']:#x}[{counts}]")
            elif name in ("d_rows", "d_reduction"):
                loops = zip(value["counts"], value["steps"], strict=True)
                rounds = [f"{count}*{step:+}" for count, step in loops if count > 1]
                parts.append(f"{name}=[{' '.join(rounds) or 1}]")
            elif name == "frame":
                sizes = (value.get(part, 0) for part, _ in Frame.as_shape())
                text = "{}x({}+{}+{})x({}+{}+{})".format(*sizes)
                parts.append(f"frame={text}")
            elif name in ("a", "b", "c") and isinstance(value, dict):
                parts.append(f"{name}={_coefficient(value)}")
            elif name.endswith("_address"):
                parts.append(f"{name}={value:#x}")
            elif isinstance(value, Pattern):
                parts.append(f"{name}={value}")
            elif isinstance(value, (LoadTarget, Opcode)):
                parts.append(value.name)
            elif value:
                parts.append(f"{name}={getattr(value, 'name', value)}")
        for name, mask in (("wait", command.wait), ("signal", command.signal)):
            queues = [queue.name for queue in Queue if mask >> queue.value & 1]
            if queues:
                parts.append(f"{name}:{'+'.join(queues)}")
        return " ".join(parts)

    def listing(self) -> str:
        """Return the whole program in words, a command to a line."""
        return "\n".join(self.describe(index) for index in range(len(self)))

    def _copy_beats(self, body: dict[str, Any], side: str) -> int:
        """Return the beats that an UPDATE writes of a compressed copy, for each tile."""
        whole = body["rows"] == self.config.elements
        return body[f"{side}_pattern"].tile_beats(self.config) if whole else body["rows"]

    def _extent(self, fields: dict[str, Any]) -> _Region:
        """Return the range of memory that a descriptor reaches over."""
        lowest, highest = _reach({"counts": fields["counts"][1:], "steps": fields["strides"]})
        address, length = fields["address"], fields["counts"][0] * self.config.beat_bytes
        return _Region(_MEMORY, address + lowest, address + highest + length)

    def _add(
        self,
        opcode: Opcode,
        stage: Stage,
        body: dict[str, Any],
        reads: list[_Region],
        writes: list[_Region],
    ) -> None:
        """Append a command that depends on earlier ones by what it reads and writes."""
        self._last = len(self._commands)
        command = self._append(opcode, stage, body)
        self._depend(command, self._last, reads, writes)

    def _feed(
        self, feeds: Sequence[dict[str, Any]], target: LoadTarget, stage: Stage, taker: int
    ) -> None:
        """Append the LOADs that feed command `taker`.

        They end only as it takes their beats, and must not be waited for: whoever writes what they
        have read waits for it.
        """
        reader = Queue.VECTOR if target is LoadTarget.STREAM else Queue.STORE
        for feed in feeds:
            load = self._append(Opcode.LOAD, stage, {"target": target} | feed)
            reads = [self._extent(feed["descriptor"])]
            self._depend(load, taker, reads, [], reader=reader)

    def _append(self, opcode: Opcode, stage: Stage, body: dict[str, Any]) -> _Command:
        queue = queue_of(self.config, opcode, body.get("target"))
        command = _Command(opcode, queue, stage, body, self._label)
        self._commands.append(command)
        return command

    def _depend(
        self,
        command: _Command,
        index: int,
        reads: list[_Region],
        writes: list[_Region],
        *,
        reader: Queue | None = None,
    ) -> None:
        """Let a command wait for those before `index`, its own or that of what it feeds.

        Whoever writes what it reads waits for command `index`, of queue `reader` if that isn't the
        command's own.
        """
        own = command.queue.value
        for space, start, stop in reads:
            self._await(command, self._writes[space], start, stop)
            self._reads[space].add(start, stop, own if reader is None else reader.value, index)
        for space, start, stop in writes:
            # Whoever depends on what this write covers depends on this write as well.
            for earlier in (self._reads[space], self._writes[space]):
                self._await(command, earlier, start, stop)
                earlier.forget(start, stop)
            self._writes[space].add(start, stop, own, index)

    def _await(self, command: _Command, accesses: AccessIndex, start: int, stop: int) -> None:
        """Let a command wait for those of other queues that have accessed an interval."""
        for queue in _OTHER_QUEUES[command.queue]:
            command.after[queue] = accesses.latest(start, stop, queue, command.after[queue])

    def _assign_tokens(self) -> None:
        """Turn dependencies into tokens.

        Queues run in order, so that a command which waits for one command of another queue has also
        waited for all before it there: only a later one needs a further token, and the n-th token
        awaited is the n-th given.
        """
        for command in self._commands:
            command.wait = command.signal = 0
        reached = [[-1] * len(Queue) for _ in Queue]
        for command in self._commands:
            own = command.queue.value
            for queue, latest in enumerate(command.after):
                if latest > reached[queue][own]:
                    reached[queue][own] = latest
                    command.wait |= 1 << queue
                    self._commands[latest].signal |= 1 << own
