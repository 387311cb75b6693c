"""Commands that the host writes to card memory and the command processor carries out.

A command takes 64 bytes: a header and one body. Scratchpad addresses and counts are in words of the
scratchpad they name, memory addresses and strides in bytes.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, cast

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

from ..config import COMMAND_BYTES, Config
from ..memory.descriptor import Descriptor
from ..sparsity.pattern import Pattern

__all__ = [
    "BODIES",
    "QUEUE_OF",
    "STREAMS",
    "WALK_DIMENSIONS",
    "Coefficient",
    "CoefficientKind",
    "Command",
    "ComputeBody",
    "Fault",
    "Fold",
    "Frame",
    "Function",
    "Header",
    "LoadBody",
    "LoadOrder",
    "LoadTarget",
    "Mask",
    "Opcode",
    "Queue",
    "Stage",
    "StoreBody",
    "UpdateBody",
    "VectorBody",
    "VectorOperand",
    "VectorTarget",
    "Walk",
    "encode",
    "queue_of",
    "queues_of",
]


WALK_DIMENSIONS = 3


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
    VECTOR = 6


class Queue(enum.Enum, shape=3):
    """The five queues, each of which carries out its commands in order."""

    LOAD = 0
    """Carries out LOADs to scratchpads; without `Config.stream_queue` all LOADs."""
    COMPUTE = 1
    STORE = 2
    """Carries out STORE and UPDATE."""
    VECTOR = 3
    STREAM = 4
    """Carries out LOADs to the vector and to the update unit."""


QUEUE_OF = {
    Opcode.LOAD: Queue.LOAD,
    Opcode.COMPUTE: Queue.COMPUTE,
    Opcode.STORE: Queue.STORE,
    Opcode.UPDATE: Queue.STORE,
    Opcode.VECTOR: Queue.VECTOR,
}
"""Queue of each opcode, see `queue_of`; a NOP names its own, and FINISH goes into none."""


class Stage(enum.Enum, shape=2):
    """Part of a training step that a command belongs to; cycles are counted by it."""

    FF = 0
    BP = 1
    WU = 2
    UPDATE = 3


class LoadTarget(enum.Enum, shape=3):
    """Where a LOAD puts its beats."""

    S = 0
    D = 1
    AUX = 2
    STREAM = 3
    """Streamed to the vector unit; VECTORs take what they need of these beats, in their order."""
    STATE = 4
    """Streamed to the update engine: weights and momentum, for UPDATEs in their order."""


STREAMS = (LoadTarget.STREAM, LoadTarget.STATE)
"""Targets that are units, which take beats when they want them."""


class LoadOrder(enum.Enum, shape=1):
    """Order in which the beats of a D operand arrive."""

    ROWS = 0
    """Row after row, each with all its D words."""
    TILES = 1
    """Tile after tile of G rows by one D word; within a block of G rows all its D words."""


class CoefficientKind(enum.Enum, shape=2):
    """What a coefficient of a VECTOR is."""

    ABSENT = 0
    IMMEDIATE = 1
    REGISTER = 2
    """A register: a value for each column."""


class VectorOperand(enum.Enum, shape=3):
    """What ``y`` of a VECTOR is."""

    NONE = 0
    X = 1
    """``x`` itself."""
    HELD_0 = 2
    """The row of the first tile held."""
    HELD_1 = 3
    REGISTER = 4
    """Register `y_register` plus the row; only if ``x`` is a register too."""


class Mask(enum.Enum, shape=3):
    """Which results of a VECTOR stay; the others are +0."""

    NONE = 0
    HELD_0_POSITIVE = 1
    """Those where the first tile held is greater than zero."""
    HELD_1_POSITIVE = 2
    FIRST_EQUAL = 3
    """Of each window the first where ``x`` equals the first tile held: where its maximum was."""


class Function(enum.Enum, shape=3):
    """Last step of a VECTOR."""

    IDENTITY = 0
    RELU = 1
    RECIPROCAL = 2
    RSQRT = 3
    """Reciprocal of the square root."""
    EXP2 = 4
    LOG2 = 5
    NORMAL = 6
    """Distribution function of the normal distribution; times its argument it is GELU."""
    GELU_SLOPE = 7
    """Derivative of GELU."""


class Fold(enum.Enum, shape=2):
    """How values become one."""

    NONE = 0
    SUM = 1
    MAXIMUM = 2


class VectorTarget(enum.Enum, shape=2):
    """Where the results of a VECTOR go."""

    NONE = 0
    """Only into `reduce`."""
    NARROW = 1
    """To memory, converted to binary16."""
    WIDE = 2
    """To memory in binary32."""
    REGISTERS = 3
    """To `target_register` plus the row; one group with a window of one or a fold."""


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

    Before it starts, a command takes one token from each queue in ``wait``; when it has ended (one
    that writes to memory: when that has acknowledged all) it gives one to each queue in ``signal``.
    Bit ``i`` of either names ``Queue(i)``; a queue's own bit must be zero.
    """

    opcode: Opcode
    queue: Queue
    """Queue of a NOP; ignored in other commands."""
    wait: unsigned(len(Queue))
    signal: unsigned(len(Queue))
    stage: Stage


class Walk(data.Struct):
    """A nest of three loops over the words of a scratchpad.

    Dimension ``i`` takes ``counts[i]`` rounds, ``steps[i]`` words apart; dimension 0 is innermost.
    A walk that has ended begins again. No count is zero.
    """

    counts: data.ArrayLayout(unsigned(16), WALK_DIMENSIONS)
    steps: data.ArrayLayout(signed(16), WALK_DIMENSIONS)


class Frame(data.Struct):
    """Zeros around the beats that a LOAD reads: the padding of images.

    An image has ``above`` lines of zeros, `lines` lines and ``below`` lines of zeros; each of the
    `lines` has ``before`` beats of zeros, `beats` beats from memory, and ``after`` beats of zeros;
    the lines of zeros are as long. There are `images` of them, one after the other. With its zeros
    a line has less than 2**16 beats, and an image less than 2**16 lines. All is zero if there is no
    frame.
    """

    images: unsigned(16)
    above: unsigned(8)
    lines: unsigned(16)
    below: unsigned(8)
    before: unsigned(16)
    beats: unsigned(16)
    after: unsigned(16)


class LoadBody(data.Struct):
    """Memory to scratchpad.

    S operands arrive as tiles of G rows by one D word (`Pattern.tile_beats` beats each), all tiles
    of a block of G rows before those of the next block. Row ``a`` goes to bank ``a % rows`` at
    ``base + a // rows * Pattern.words_per_row(d_words)``.
    D operands: row ``b`` goes to bank ``b % cols`` at ``base + b // cols * d_words``, in `order`.
    With `transpose` every G beats that arrive are transposed as a G by G matrix of binary16 first,
    so that beat ``i`` of the G that leave holds element ``i`` of each. AUX is filled linearly.

    The beats that the descriptor names are put into `frame` first, before they are transposed; the
    operand has as many beats as they are then.
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
    frame: Frame


class ComputeBody(data.Struct):
    """``O[b, a] = sum over k of S[a, k] * D[b, k]``, rounded once to binary32.

    With `accumulate` it is ``O[b, a] += ...``: how a reduction that is longer than the scratchpads
    or the accumulators is put together from parts, whose order then counts.

    Of the I contexts of a tile (`Config.interleave`) ``Ia = 2**a_contexts`` lie along a and
    ``Ib = I / Ia`` along b: ``a < a_tiles * Ia * rows``, ``b < b_tiles * Ib * cols``. Element
    ``(b, a)`` goes to O bank ``b % cols``, word ``o_base + b // cols * o_stride + a // (G/2)``,
    position ``a % (G/2)``. Tiles run with a innermost.

    S rows lie one after the other. Word ``k`` of D row ``b`` is in D bank ``b % cols`` at `d_base`
    plus round ``b // cols`` of the walk `d_rows` plus round ``k`` of the walk `d_reduction`: a row
    of a matrix, the pixels under a kernel, or a channel of all pixels, moved under the kernel.
    """

    s_base: unsigned(16)
    d_base: unsigned(16)
    o_base: unsigned(16)
    o_stride: unsigned(16)
    d_words: unsigned(16)
    """D words of a row: the reduction's length in units of G."""
    d_rows: Walk
    d_reduction: Walk
    a_tiles: unsigned(16)
    b_tiles: unsigned(16)
    pattern: Pattern
    ones: unsigned(1)
    """The D operand is 1.0 everywhere (sums of the S operand, for bias gradients)."""
    keep: unsigned(1)
    """Leave the sums in the accumulators for the next COMPUTE; needs a_tiles = b_tiles = 1."""
    accumulate: unsigned(1)
    """Add each result, in binary32, to the value in its place, which it replaces otherwise. Not
    with `keep`; rows must not overlap: `o_stride` covers all rows a."""
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

    For each row ``b``, `words` consecutive O words of G/2 binary32 values: add bias, add another
    tensor, apply ReLU, convert, apply mask. Converted, two O words make one beat. With `compress`
    the result is written as an S operand whose rows are the rows b and whose groups run along a, as
    a LOAD to S takes it: tiles of G rows by one beat's worth of values, all tiles of a block of G
    rows before those of the next block.
    """

    o_base: unsigned(16)
    o_stride: unsigned(16)
    rows: unsigned(16)
    """Rows b; a multiple of G if `compress`."""
    words: unsigned(16)
    """O words in a row; even if `convert`."""
    bias: unsigned(1)
    """Add the binary16 vector at `bias_base` of AUX (element ``a`` to column ``a``)."""
    add: unsigned(1)
    """Add the binary16 values at `add_base` of AUX, row after row; needs `convert`."""
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
    add_base: unsigned(16)
    descriptor: Descriptor


class UpdateBody(data.Struct):
    """SGD on `tiles` tiles, whose gradients are in the O scratchpad, and their compressed copies.

    Tile ``k`` has the gradient rows ``b = k*G .. k*G + rows - 1``, each two O words (G values along
    a). Its state arrives by LOADs to STATE and goes back to `state_address`: for each row and O
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


class Coefficient(data.Struct):
    """A factor or summand of a VECTOR."""

    kind: CoefficientKind
    negative: unsigned(1)
    """Take its negative."""
    value: unsigned(32)
    """The number, binary32 as bits, or the register."""


class VectorBody(data.Struct):
    """Element-wise arithmetic in binary32 on tiles, or on registers, and sums over them.

    Registers hold G binary32 values each. A narrow tile is G beats, rows of G binary16 values, of
    which the first `rows` are worked on; a wide tile is `rows` rows of two beats, G binary32
    values. From the stream come `groups` groups: first `held` narrow tiles, then `window` tiles,
    all narrow or all wide. For each element of each of those, ``x``::

        r = function(a * x + b * y + c)

    with every operation rounded, from left to right. An absent coefficient leaves its term out.
    `b`, `reduce_product` and `times_y` need a ``y``. ``r`` is +0 where `mask` says so. If `fold` is
    given, the results of a window become one tile, element by element, else each tile gives one.
    They go to `target`; narrow tiles are completed with rows of zeros. With `times_y`, which needs
    a target in memory and no fold, the products ``r * y`` go there instead. `reduce` takes all
    results of a command together, row by row. Registers are read before any is written; `target`,
    `reduce` and `reduce_product` write them in this order.

    With `from_registers` there is no stream: ``x`` is the register `x_register` plus the row, there
    are no held tiles, and one group with a window of one.
    """

    groups: unsigned(16)
    window: unsigned(16)
    rows: unsigned(7)
    held: unsigned(2)
    """At most two."""
    wide: unsigned(1)
    """Tiles of the window are binary32."""
    from_registers: unsigned(1)
    y: VectorOperand
    a: Coefficient
    b: Coefficient
    c: Coefficient
    function: Function
    mask: Mask
    fold: Fold
    target: VectorTarget
    reduce: Fold
    """What of all results goes to `reduce_register`: sum or maximum, of each of the G columns."""
    reduce_product: unsigned(1)
    """The sum of all products of result and ``y`` goes to `product_register`."""
    times_y: unsigned(1)
    """Results are multiplied by ``y`` before they are converted and written."""
    x_register: unsigned(6)
    y_register: unsigned(6)
    target_register: unsigned(6)
    reduce_register: unsigned(6)
    product_register: unsigned(6)
    descriptor: Descriptor
    """Where the beats of the result go, if they go to memory."""


BODIES = {
    Opcode.LOAD: LoadBody,
    Opcode.COMPUTE: ComputeBody,
    Opcode.STORE: StoreBody,
    Opcode.UPDATE: UpdateBody,
    Opcode.VECTOR: VectorBody,
}
"""Layout of each opcode's body; NOP and FINISH have none."""

_HEADER_BITS = 32


class Command(data.Struct):
    """One command as it lies in memory, little-endian."""

    header: Header
    _pad: unsigned(_HEADER_BITS - Header.as_shape().size)
    body: data.UnionLayout(
        {opcode.name.lower(): body for opcode, body in BODIES.items()}
        | {"raw": unsigned(COMMAND_BYTES * 8 - _HEADER_BITS)}
    )


def queues_of(config: Config) -> tuple[Queue, ...]:
    """Return the queues that `config` has."""
    return tuple(queue for queue in Queue if config.stream_queue or queue is not Queue.STREAM)


def queue_of(config: Config, opcode: Opcode, target: LoadTarget | None = None) -> Queue:
    """Return the queue that carries a command out on `config`.

    Parameters
    ----------
    config
        Says whether there is a queue for streams.
    opcode
        Of the command, in `QUEUE_OF`.
    target
        Of a LOAD.
    """
    if config.stream_queue and opcode is Opcode.LOAD and target in STREAMS:
        return Queue.STREAM
    return QUEUE_OF[opcode]


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


_Packer = Callable[[Any], int]
"""Returns the bits of a layout that hold a value, which it checks."""


def _pack(layout: type[data.Struct], values: dict[str, Any]) -> int:
    """Pack `values` into the bits of `layout`, checking each against its field's range."""
    packers = _packers(cast(Hashable, layout))
    bits = 0
    for name, value in values.items():
        if name not in packers:
            raise ValueError(
                f"{layout.__name__} has no field '{name}'; it has {', '.join(packers)}"
            )
        bits |= packers[name](value)
    return bits


@functools.cache
def _packers(layout: Any) -> dict[str, _Packer]:
    """Return what packs each field: a program has very many, so layouts are looked at once."""
    shape: data.Layout = layout.as_shape()
    return {
        name: _packer(f"{layout.__name__}.{name}", field.shape, field.offset)
        for name, field in shape
    }


def _packer(name: str, shape: Any, offset: int) -> _Packer:
    if isinstance(shape, data.ArrayLayout):
        width = data.Layout.cast(shape).size // shape.length
        elements = [
            _packer(f"{name}[{index}]", shape.elem_shape, offset + index * width)
            for index in range(shape.length)
        ]
        return functools.partial(_pack_array, name, elements)
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return lambda value: _pack(shape, value) << offset
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        # A member stands for itself, as does its value.
        codes = {member: member.value << offset for member in shape}
        codes |= {member.value: member.value << offset for member in shape}
        return lambda value: codes[value] if value in codes else shape(value).value << offset
    low, high = (-(1 << shape.width - 1), (1 << shape.width - 1) - 1) if shape.signed else (
        0, (1 << shape.width) - 1)  # fmt: skip
    mask = (1 << shape.width) - 1

    def pack_number(value: Any) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"{name} is {number}, must be {low} to {high}")
        return (number & mask) << offset

    return pack_number


def _pack_array(name: str, elements: list[_Packer], values: Any) -> int:
    if len(values) != len(elements):
        raise ValueError(f"{name} has {len(elements)} elements, got {len(values)}")
    bits = 0
    for pack, value in zip(elements, values):
        bits |= pack(value)
    return bits
