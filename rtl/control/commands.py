"""Commands that the host writes to card memory and the command processor carries out.

A command takes 64 bytes: a header and one body. Scratchpad addresses and counts are in words of the
scratchpad they name, memory addresses and strides in bytes.
"""

from typing import Any

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

from ..config import COMMAND_BYTES
from ..memory.descriptor import Descriptor
from ..sparsity.pattern import Pattern

__all__ = [
    "BODIES",
    "QUEUE_OF",
    "Command",
    "ComputeBody",
    "Fault",
    "Header",
    "LoadBody",
    "LoadOrder",
    "LoadTarget",
    "Opcode",
    "Queue",
    "Stage",
    "StoreBody",
    "UpdateBody",
    "encode",
]


class Opcode(enum.Enum, shape=4):
    """What a command does."""

    NOP = 0
    """Nothing but its tokens, in the queue that the header names."""
    LOAD = 1
    COMPUTE = 2
    STORE = 3
    UPDATE = 4
    FINISH = 5
    """Ends the program once every queue has become idle, and raises the interrupt."""


class Queue(enum.Enum, shape=2):
    """The three queues, each of which carries out its commands in order."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2
    """Carries out STORE and UPDATE."""


QUEUE_OF = {
    Opcode.LOAD: Queue.LOAD,
    Opcode.COMPUTE: Queue.COMPUTE,
    Opcode.STORE: Queue.STORE,
    Opcode.UPDATE: Queue.STORE,
}
"""Queue of each opcode; a NOP names its own, and FINISH goes into none."""


class Stage(enum.Enum, shape=2):
    """Part of a training step that a command belongs to; cycles are counted by it."""

    FF = 0
    BP = 1
    WU = 2
    UPDATE = 3


class LoadTarget(enum.Enum, shape=2):
    """Where a LOAD puts its beats."""

    S = 0
    D = 1
    AUX = 2
    UPDATE = 3
    """Streamed to the update engine (weights and momentum), as an UPDATE command asks for them."""


class LoadOrder(enum.Enum, shape=1):
    """Order in which the beats of a D operand arrive."""

    ROWS = 0
    """Row after row, each with all its D words."""
    TILES = 1
    """Tile after tile of G rows by one D word; within a block of G rows all its D words."""


class Fault(enum.Enum, shape=4):
    """Why a program stopped."""

    NONE = 0
    READ_RESPONSE = 1
    """AXI answered a read with SLVERR or DECERR."""
    WRITE_RESPONSE = 2
    """AXI answered a write with SLVERR or DECERR."""
    ADDRESS_RANGE = 3
    """A descriptor reaches outside the card's memory."""
    MALFORMED = 4
    """Unknown opcode, a count of zero, an address or stride that isn't a multiple of a beat."""
    PATTERN = 5
    """An N:M pattern that the configuration doesn't support."""
    OVERRUN = 6
    """A reduction too long for the accumulator."""
    SCRATCHPAD_RANGE = 7
    """A scratchpad address outside its scratchpad."""


class Header(data.Struct):
    """Common part of all commands.

    Before it starts, a command takes one token from each queue in ``wait``; when it has ended (a
    STORE: when memory has acknowledged its last write) it gives one to each queue in ``signal``.
    Bit ``i`` of either names ``Queue(i)``; a queue's own bit must be zero.
    """

    opcode: Opcode
    queue: Queue
    """Queue of a NOP; ignored in other commands."""
    wait: unsigned(3)
    signal: unsigned(3)
    stage: Stage


class LoadBody(data.Struct):
    """Memory to scratchpad.

    S operands arrive as tiles of G rows by one D word (`Pattern.tile_beats` beats each), all tiles
    of a block of G rows before those of the next block. Row ``a`` goes to bank ``a % rows`` at
    ``base + a // rows * Pattern.words_per_row(d_words)``.
    D operands: row ``b`` goes to bank ``b % cols`` at ``base + b // cols * d_words``, in `order`.
    With `transpose` every G beats that arrive are transposed as a G by G matrix of binary16 first,
    so that beat ``i`` of the G that leave holds element ``i`` of each. AUX is filled linearly.
    """

    target: LoadTarget
    order: LoadOrder
    transpose: unsigned(1)
    pattern: Pattern
    base: unsigned(16)
    rows: unsigned(16)
    """Rows of the operand; a multiple of G for S and for tiles."""
    d_words: unsigned(16)
    """D words in a row: the reduction's length in units of G."""
    descriptor: Descriptor


class ComputeBody(data.Struct):
    """``O[b, a] = sum over k of S[a, k] * D[b, k]``, rounded once to binary32.

    Of the I contexts of a tile (`Config.interleave`) ``Ia = 2**a_contexts`` lie along a and
    ``Ib = I / Ia`` along b: ``a < a_tiles * Ia * rows``, ``b < b_tiles * Ib * cols``. Element
    ``(b, a)`` goes to O bank ``b % cols``, word ``o_base + b // cols * o_stride + a // (G/2)``,
    position ``a % (G/2)``. Tiles run with a innermost.
    """

    s_base: unsigned(16)
    d_base: unsigned(16)
    o_base: unsigned(16)
    o_stride: unsigned(16)
    d_words: unsigned(16)
    a_tiles: unsigned(16)
    b_tiles: unsigned(16)
    pattern: Pattern
    ones: unsigned(1)
    """The D operand is 1.0 everywhere (sums of the S operand, for bias gradients)."""
    keep: unsigned(1)
    """Leave the sums in the accumulators for the next COMPUTE; needs a_tiles = b_tiles = 1."""
    a_contexts: unsigned(3)
    """Binary logarithm of the contexts along a; at most that of the interleave."""

    # How much of the product is padding: for the counters of useful and lost MACs only.
    a_padding: unsigned(16)
    """How many of the last rows along a are padding; fewer than there are."""
    b_padding: unsigned(16)
    """The same along b."""
    tail_chunks: unsigned(4)
    """Chunks of M elements that are full in the last D word of a row."""
    tail_entries: unsigned(5)
    """Entries of the chunk after these. Both zero: the last D word is full."""


class StoreBody(data.Struct):
    """O scratchpad through the epilogue to memory.

    For each row ``b``, `words` consecutive O words of G/2 binary32 values: add bias, apply ReLU,
    convert, apply mask. Converted, two O words make one beat. With `compress` the result is written
    as an S operand whose rows are the rows b and whose groups run along a, as a LOAD to S takes it:
    tiles of G rows by one beat's worth of values, all tiles of a block of G rows before those of
    the next block.
    """

    o_base: unsigned(16)
    o_stride: unsigned(16)
    rows: unsigned(16)
    """Rows b; a multiple of G if `compress`."""
    words: unsigned(16)
    """O words in a row; even if `convert`."""
    bias: unsigned(1)
    """Add the binary16 vector at `bias_base` of AUX (element ``a`` to column ``a``)."""
    relu: unsigned(1)
    mask: unsigned(1)
    """Zero where the binary16 value at `mask_base` of AUX, row after row, isn't > 0."""
    convert: unsigned(1)
    """Convert to binary16; otherwise binary32 is written."""
    compress: unsigned(1)
    """Prune to `pattern` and write tiles; needs `convert`."""
    pattern: Pattern
    """Ignored unless `compress`."""
    bias_base: unsigned(16)
    mask_base: unsigned(16)
    descriptor: Descriptor


class UpdateBody(data.Struct):
    """SGD on `tiles` tiles, whose gradients are in the O scratchpad, and their compressed copies.

    Tile ``k`` has the gradient rows ``b = k*G .. k*G + rows - 1``, each two O words (G values along
    a). Its state arrives by a LOAD to UPDATE and goes back to `state_address`: for each row and O
    word one beat of weights, then one of momentum, binary32. The row copy has the rows b as S rows
    and groups along a; the column copy the rows a and groups along b. ``rows < G`` needs a dense
    row copy and no column copy (vectors).
    """

    o_base: unsigned(16)
    o_stride: unsigned(16)
    tiles: unsigned(16)
    rows: unsigned(8)
    row_pattern: Pattern
    column_pattern: Pattern
    row_copy: unsigned(1)
    column_copy: unsigned(1)
    scale: signed(8)
    """Gradients are multiplied by 2**-scale first."""
    state_address: unsigned(64)
    row_address: unsigned(64)
    column_address: unsigned(64)
    row_stride: unsigned(32)
    column_stride: unsigned(32)
    rate: unsigned(32)
    """Learning rate, binary32 as bits; so are the two below."""
    momentum: unsigned(32)
    decay: unsigned(32)


BODIES = {
    Opcode.LOAD: LoadBody,
    Opcode.COMPUTE: ComputeBody,
    Opcode.STORE: StoreBody,
    Opcode.UPDATE: UpdateBody,
}
"""Layout of each opcode's body; NOP and FINISH have none."""

_HEADER_BITS = 16


class Command(data.Struct):
    """One command as it lies in memory, little-endian."""

    header: Header
    _pad: unsigned(_HEADER_BITS - Header.as_shape().size)
    body: data.UnionLayout(
        {opcode.name.lower(): body for opcode, body in BODIES.items()}
        | {"raw": unsigned(COMMAND_BYTES * 8 - _HEADER_BITS)}
    )


def encode(
    opcode: Opcode,
    *,
    queue: Queue = Queue.LOAD,
    wait: int = 0,
    signal: int = 0,
    stage: Stage = Stage.FF,
    **body: Any,
) -> bytes:
    """Return the 64 bytes of a command.

    Parameters
    ----------
    opcode, queue, wait, signal, stage
        The header.
    **body
        Fields of the opcode's body; those not given are zero.

    Raises
    ------
    ValueError
        A field doesn't exist or its value doesn't fit; the message names both.
    """
    header = {"opcode": opcode, "queue": queue, "wait": wait, "signal": signal, "stage": stage}
    bits = _pack(Header, header)
    if body:
        if opcode not in BODIES:
            raise ValueError(f"{opcode.name} takes no body, got {', '.join(body)}")
        bits |= _pack(BODIES[opcode], body) << _HEADER_BITS
    return bits.to_bytes(COMMAND_BYTES, "little")


def _pack(layout: type[data.Struct], values: dict[str, Any]) -> int:
    """Pack `values` into the bits of `layout`, checking each against its field's range."""
    shape: data.Layout = layout.as_shape()
    bits = 0
    for name, value in values.items():
        try:
            field = shape[name]
        except KeyError:
            fields = ", ".join(key for key, _ in shape)
            raise ValueError(f"{layout.__name__} has no field '{name}'; it has {fields}") from None
        bits |= _pack_field(f"{layout.__name__}.{name}", field.shape, value) << field.offset
    return bits


def _pack_field(name: str, shape: Any, value: Any) -> int:
    if isinstance(shape, data.ArrayLayout):
        if len(value) != shape.length:
            raise ValueError(f"{name} has {shape.length} elements, got {len(value)}")
        width = data.Layout.cast(shape).size // shape.length
        return sum(
            _pack_field(f"{name}[{index}]", shape.elem_shape, element) << index * width
            for index, element in enumerate(value)
        )
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return _pack(shape, value)
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        return shape(value).value
    low, high = (-(1 << shape.width - 1), (1 << shape.width - 1) - 1) if shape.signed else (
        0, (1 << shape.width) - 1)  # fmt: skip
    value = int(value)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, must be {low} to {high}")
    return value & (1 << shape.width) - 1
