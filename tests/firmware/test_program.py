"""Programs: descriptors, tokens, listing."""

import dataclasses
from collections import defaultdict

import numpy as np
import pytest

from firmware.cards.golden import GoldenCard
from firmware.driver import Driver
from firmware.model import (
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    MaxPool,
    Method,
    Model,
    linear,
)
from firmware.network import Network
from firmware.program import Program, descriptor, matrix_walks, product, walk
from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.commands import (
    CoefficientKind,
    LoadTarget,
    Opcode,
    Queue,
    Stage,
    VectorTarget,
    queue_of,
)
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.program import decode
from tests.harness import default_seed

TINY = PRESETS["tiny"]
BDWP = Method.bdwp(Pattern.N2M8)


def test_descriptor_merges_what_is_contiguous():
    beat = TINY.beat_bytes
    assert descriptor(TINY, 64, 2, (8, 2 * beat))["counts"] == [16, 1, 1, 1]
    rows = descriptor(TINY, 64, 2, (8, 4 * beat), (1, 0), (3, beat))
    assert rows == {"address": 64, "counts": [2, 8, 3, 1], "strides": [4 * beat, beat, 0]}
    with pytest.raises(ValueError, match="4 loops, 5"):
        descriptor(TINY, 0, 1, *[(2, 7 * beat)] * 4)


def test_walks_have_three_loops():
    assert walk((5, -2), (3, 7)) == {"counts": [5, 3, 1], "steps": [-2, 7, 0]}
    with pytest.raises(ValueError, match="3 loops, 4"):
        walk(*[(1, 1)] * 4)


def test_products_walk_over_a_matrix_or_as_told():
    sizes = {"a": 16, "b": 20, "k": 40}
    fields = product(TINY, Pattern.DENSE, **sizes)
    bank_rows = fields["b_tiles"] * TINY.interleave >> fields["a_contexts"]
    assert fields["d_rows"] == {"counts": [bank_rows, 1, 1], "steps": [3, 0, 0]}
    assert fields["d_reduction"] == {"counts": [3, 1, 1], "steps": [1, 0, 0]}
    walks = {"d_rows": walk((2, 5)), "d_reduction": walk((1, 0), (3, -1))}
    assert product(TINY, Pattern.DENSE, **sizes, **walks) == fields | walks


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_products_take_the_fewest_tiles(config):
    """Contexts are shared out for the least padding, and along b as far as that permits."""
    limit = min(config.interleave, config.elements // config.rows)
    for b in range(1, 2 * config.cols * config.interleave + 2):
        sizes = {"a": config.elements, "b": b, "k": config.elements}
        fields = product(config, Pattern.DENSE, **sizes)
        tiles = {
            n: -(-b // (config.cols * config.interleave >> n)) * (config.elements >> n)
            for n in range(limit.bit_length())
        }
        assert fields["a_contexts"] == min(tiles, key=lambda n: (tiles[n], n))
        assert fields["a_padding"] == 0
        assert 0 <= fields["b_padding"] < config.cols * config.interleave >> fields["a_contexts"]
    # The sums for a bias are one row: no more contexts along b than there must be.
    bias = product(config, Pattern.DENSE, a=config.elements, b=1, k=1)
    assert 1 << bias["a_contexts"] == limit and bias["b_tiles"] == 1


@pytest.mark.parametrize("preset", ["tiny", "sim", "sim-8x"])
def test_products_are_counted_to_the_last_entry(preset):
    """The card counts as useful just the entries of just the outputs that there are."""
    config, seed = PRESETS[preset], default_seed()
    rng = np.random.default_rng(seed)
    driver = Driver(GoldenCard(config))
    for pattern in supported_patterns(config):
        for _ in range(8):
            a, k = (int(rng.integers(1, 3 * config.elements)) for _ in range(2))
            # Three D words of more rows than this wouldn't fit the scratchpad of `tiny`.
            b = int(rng.integers(1, 2 * config.elements))
            a_padding, b_padding = int(rng.integers(a)), int(rng.integers(b))
            paddings = {"a_padding": a_padding, "b_padding": b_padding}
            fields = product(config, pattern, a=a, b=b, k=k, **paddings)
            program = Program(config)
            program.compute(Stage.FF, o_stride=0, **fields)
            counters = driver.run(program).counters
            message = f"{a} x {b} x {k}, {pattern}, {paddings}, SAT_SEED={seed}"
            outputs = (a - a_padding) * (b - b_padding)
            assert counters["USEFUL_MACS"] == outputs * pattern.n * -(-k // pattern.m), message
            macs = sum(counters[f"{kind}_MACS"] for kind in ("USEFUL", "EDGE", "FILLER"))
            assert macs == counters["MAC_SLOTS_FF"] * config.macs, message


def test_padding_is_told_over_all_tiles():
    """What fills up the last tile and the padding of the operands themselves, of any length."""
    sizes = {"a": 16, "b": 8, "k": 16}
    fields = product(TINY, Pattern.DENSE, **sizes, a_padding=3, b_padding=5)
    assert (fields["a_padding"], fields["b_padding"], fields["b_tiles"]) == (3, 5, 1)
    fields = product(TINY, Pattern.DENSE, a=13, b=6, k=16, a_padding=9, b_padding=5, a_contexts=1)
    assert (fields["a_padding"], fields["b_padding"]) == (16 - 4, 8 - 1)
    assert (fields["a_tiles"], fields["b_tiles"]) == (2, 2)


def _load(program, target, base, address, rows=16):
    program.load(
        target, Stage.FF, base=base, rows=rows, d_words=1, pattern=Pattern.DENSE,
        descriptor=descriptor(TINY, address, 16),
    )  # fmt: skip


def _compute(program, s_base=0, o_base=0):
    program.compute(
        Stage.FF, pattern=Pattern.DENSE, s_base=s_base, o_base=o_base, o_stride=2, d_words=1,
        a_tiles=4, b_tiles=1, **matrix_walks(TINY.interleave, 1),
    )  # fmt: skip


def _tokens(program):
    """Return (queue, wait, signal) of every command but FINISH."""
    code = program.encode()
    commands = [decode(code[i : i + COMMAND_BYTES]) for i in range(0, len(code), COMMAND_BYTES)]
    return [(_queue(c, program.config), c.wait, c.signal) for c in commands[:-1]]


def test_one_token_covers_all_earlier_commands():
    program = Program(TINY)
    _load(program, LoadTarget.S, 0, 0)
    _load(program, LoadTarget.D, 0, 1024)
    _compute(program)
    load, compute = 1 << Queue.LOAD.value, 1 << Queue.COMPUTE.value
    assert _tokens(program) == [(0, 0, 0), (0, 0, compute), (1, load, 0)]


def test_a_buffer_is_only_overwritten_when_read():
    program = Program(TINY)
    _load(program, LoadTarget.S, 0, 0)
    _compute(program)
    _load(program, LoadTarget.S, 4, 0)
    _load(program, LoadTarget.S, 0, 0)
    load, compute = 1 << Queue.LOAD.value, 1 << Queue.COMPUTE.value
    assert _tokens(program) == [(0, 0, compute), (1, load, load), (0, 0, 0), (0, compute, 0)]


@pytest.mark.parametrize(
    ("d_base", "reduction", "waits"),
    [
        # The rows take 4, 8, 12 and 16 words from the base, less what the reduction steps back.
        (0, (1, 0), True),
        (0, (4, -1), True),
        (4, (1, 0), False),
        (4, (4, -1), True),
        (4, (4, 1), False),
    ],
)
def test_a_product_waits_for_all_that_it_walks_over(d_base, reduction, waits):
    """A LOAD fills the words 0 to 7 of D, and the product begins at `d_base` + 4."""
    program = Program(TINY)
    _load(program, LoadTarget.D, 0, 1024)
    program.compute(
        Stage.FF, pattern=Pattern.DENSE, o_stride=2, d_words=4, a_tiles=4, b_tiles=1,
        d_base=d_base + 4, d_rows=walk((4, 4)), d_reduction=walk(reduction),
    )  # fmt: skip
    load = 1 << Queue.LOAD.value
    assert _tokens(program)[1] == (1, load if waits else 0, 0)


def test_a_tensor_is_there_before_it_is_added():
    """A STORE waits for the LOAD of what it adds, and that part of AUX for the STORE."""
    program = Program(TINY)
    sizes = {"rows": 4, "d_words": 1, "descriptor": descriptor(TINY, 0, 4)}
    for base in (0, 4, 8):
        program.load(LoadTarget.AUX, Stage.FF, base=base, **sizes)
    program.store(
        Stage.FF, rows=4, words=2, o_stride=2, convert=1, add=1, add_base=4,
        descriptor=descriptor(TINY, 1024, 4),
    )  # fmt: skip
    program.load(LoadTarget.AUX, Stage.FF, base=0, **sizes)
    program.load(LoadTarget.AUX, Stage.FF, base=7, **sizes)
    load, store = 1 << Queue.LOAD.value, 1 << Queue.STORE.value
    assert _tokens(program) == [
        (0, 0, 0), (0, 0, store), (0, 0, 0), (2, load, load), (0, 0, 0), (0, store, 0),
    ]  # fmt: skip


def test_fields_change_in_place():
    program = Program(TINY)
    program.update(Stage.UPDATE, tiles=1, rows=16, o_stride=2, state_address=0, rate=1, momentum=2)
    assert program.last == 0
    program.encode()
    program.change(0, rate=5)
    body = decode(program.encode()[:COMMAND_BYTES]).body
    assert (body.rate, body.momentum) == (5, 2)


def test_vectors_go_before_what_feeds_them():
    """Beats that a VECTOR writes are read only when they are there; nothing else need wait."""
    program = Program(TINY)

    def feed(*addresses):
        beats = {"rows": 16, "d_words": 1}
        return [beats | {"descriptor": descriptor(TINY, address, 16)} for address in addresses]

    tile = {
        "groups": 1, "window": 1, "rows": 16, "target": VectorTarget.NARROW,
        "a": {"kind": CoefficientKind.IMMEDIATE, "value": 0x3FC00000, "negative": 1},
        "c": {"kind": CoefficientKind.REGISTER, "value": 5},
    }  # fmt: skip
    program.vector(Stage.FF, feed(0), **tile, descriptor=descriptor(TINY, 0x400, 16))
    assert program.last == 0
    # In place, with another operand that nobody writes.
    in_place = descriptor(TINY, 0x400, 16)
    program.vector(Stage.FF, feed(0, 0x400), **tile, descriptor=in_place)
    assert program.last == 2
    # Neither what goes to registers nor a descriptor that isn't looked at.
    ignored = {"target": VectorTarget.NONE, "descriptor": descriptor(TINY, 0x800, 16)}
    program.vector(Stage.FF, feed(0x800), **tile | ignored)
    program.vector(Stage.FF, feed(0x800), **tile, descriptor=descriptor(TINY, 0, 16))
    stream, vector = 1 << Queue.STREAM.value, 1 << Queue.VECTOR.value
    assert _tokens(program) == [
        (3, 0, stream), (4, 0, 0), (3, 0, 0), (4, 0, 0), (4, vector, 0), (3, 0, 0), (4, 0, 0),
        (3, 0, 0), (4, 0, 0),
    ]  # fmt: skip
    assert "NARROW a=-1.5 c=r5 memory=0x400[16]" in program.describe(0)


def test_what_a_command_was_fed_is_only_overwritten_when_it_has_ended():
    """The LOADs that feed an UPDATE or a VECTOR aren't waited for, the command is."""
    program = Program(TINY)

    def beats(address):
        return {"rows": 4, "d_words": 1, "descriptor": descriptor(TINY, address, 4)}

    sums = {"groups": 1, "window": 4, "rows": 1, "target": VectorTarget.NONE}
    tile = {"groups": 1, "window": 1, "rows": 16, "target": VectorTarget.NARROW}
    stored = {"rows": 4, "words": 2, "o_stride": 2, "convert": 1}
    learns = {"tiles": 1, "rows": 1, "o_stride": 2}
    program.vector(Stage.FF, [beats(0)], **sums)
    program.store(Stage.FF, **stored, descriptor=descriptor(TINY, 0, 4))
    program.update(Stage.UPDATE, [beats(0x400)], **learns, state_address=0x800)
    program.vector(Stage.FF, **tile, descriptor=descriptor(TINY, 0x400, 16))
    program.store(Stage.FF, **stored, descriptor=descriptor(TINY, 0x2000, 4))
    store, vector = 1 << Queue.STORE.value, 1 << Queue.VECTOR.value
    assert _tokens(program) == [
        (3, 0, store), (4, 0, 0), (2, vector, 0),
        (4, 0, 0), (2, 0, vector), (3, store, 0), (2, 0, 0),
    ]  # fmt: skip


def test_feeds_are_not_added_by_themselves():
    program = Program(TINY, "example")
    for target in (LoadTarget.STATE, LoadTarget.STREAM):
        message = f"example: a LOAD to {target.name} is added with the command it feeds"
        with pytest.raises(ValueError, match=message):
            _load(program, target, 0, 0)


def test_what_feeds_an_update_fits_its_queue():
    """It stands before the UPDATE, which nothing could bring to its queue otherwise."""
    depth = TINY.queue_depth
    feed = {"rows": 4, "d_words": 1, "descriptor": descriptor(TINY, 0, 4)}
    learns = {"tiles": depth, "rows": 1, "o_stride": 2, "state_address": 0}
    program = Program(TINY, "example")
    program.update(Stage.UPDATE, [feed] * (depth - 1), **learns)
    with pytest.raises(ValueError, match=rf"example: .* by {depth} LOADs, .* less than {depth}"):
        program.update(Stage.UPDATE, [feed] * depth, **learns)


def test_listing_names_every_command():
    program = Program(TINY, "example")
    _load(program, LoadTarget.S, 8, 0x400)
    _compute(program, s_base=8)
    first, second, last = program.listing().splitlines()
    assert "LOAD    FF     S" in first and "memory=0x400[16]" in first
    assert "signal:COMPUTE" in first and "wait:LOAD" in second
    assert "d_rows=[4*+1] d_reduction=[1]" in second
    assert last.split() == ["2", "FINISH"]
    frame = {"images": 1, "above": 1, "lines": 8, "below": 1, "before": 16, "beats": 128}
    program.load(
        LoadTarget.D, Stage.FF, rows=1440, d_words=1, frame=frame,
        descriptor=descriptor(TINY, 0, 1024),
    )  # fmt: skip
    assert "frame=1x(1+8+1)x(16+128+0)" in program.describe(2)
    assert "not a command of example" in program.describe(7)


def _cells(space, *ranges):
    """Return the single words or beats that bank-word and memory ranges name."""
    return {(space, cell) for start, stop in ranges for cell in range(start, stop)}


def _beats(config, fields):
    places = np.array([fields.address])
    for count, stride in zip(fields.counts, (config.beat_bytes, *fields.strides)):
        places = (places[:, None] + np.arange(count) * stride).ravel()
    return {("memory", int(place) // config.beat_bytes) for place in places}


def _effects(config, command):
    """Return the words and beats that a command reads and writes, one by one."""
    body, beat = command.body, config.beat_bytes
    g = config.elements
    match Opcode(command.opcode):
        case Opcode.LOAD:
            reads = _beats(config, body.descriptor)
            match LoadTarget(body.target):
                case LoadTarget.S:
                    steps = Pattern(body.pattern).steps(config)
                    words = -(-body.d_words * steps // config.ratio) * (body.rows // config.rows)
                    return reads, _cells("S", (body.base, body.base + words))
                case LoadTarget.D:
                    words = -(-body.rows // config.cols) * body.d_words
                    return reads, _cells("D", (body.base, body.base + words))
                case LoadTarget.AUX:
                    words = body.rows * body.d_words
                    return reads, _cells("AUX", (body.base, body.base + words))
            return reads, set()
        case Opcode.COMPUTE:
            steps = Pattern(body.pattern).steps(config)
            blocks = body.a_tiles << body.a_contexts
            words = -(-body.d_words * steps // config.ratio) * blocks
            bank_rows = body.b_tiles * (config.interleave >> body.a_contexts)
            reads = _cells("S", (body.s_base, body.s_base + words))
            if not body.ones:
                words = body.d_base + body.d_reduction.offsets(body.d_words)
                places = body.d_rows.offsets(bank_rows)[:, None] + words
                reads |= {("D", place) for place in places.ravel().tolist()}
            width = -(-blocks * config.rows // config.floats)
            starts = [body.o_base + row * body.o_stride for row in range(bank_rows)]
            return reads, _cells("O", *((start, start + width) for start in starts))
        case Opcode.STORE:
            bank_rows = -(-body.rows // config.cols)
            starts = [body.o_base + row * body.o_stride for row in range(bank_rows)]
            reads = _cells("O", *((start, start + body.words) for start in starts))
            if body.bias:
                reads |= _cells("AUX", (body.bias_base, body.bias_base + body.words // 2))
            words = body.rows * body.words // 2
            if body.add:
                reads |= _cells("AUX", (body.add_base, body.add_base + words))
            if body.mask:
                reads |= _cells("AUX", (body.mask_base, body.mask_base + words))
            return reads, _beats(config, body.descriptor)
        case Opcode.UPDATE:
            reads, writes = set(), set()
            for tile in range(body.tiles):
                for row in range(body.rows):
                    start = body.o_base + (tile * g + row) // config.cols * body.o_stride
                    reads |= _cells("O", (start, start + 2))
            start = body.state_address // beat
            writes |= _cells("memory", (start, start + 4 * body.tiles * body.rows))
            for copy in ("row", "column"):
                if getattr(body, f"{copy}_copy"):
                    pattern = Pattern(getattr(body, f"{copy}_pattern"))
                    length = pattern.tile_beats(config) if body.rows == g else body.rows
                    for tile in range(body.tiles):
                        address = getattr(body, f"{copy}_address")
                        start = (address + tile * getattr(body, f"{copy}_stride")) // beat
                        writes |= _cells("memory", (start, start + length))
            return reads, writes
        case Opcode.VECTOR:
            to_memory = body.target in (VectorTarget.NARROW.value, VectorTarget.WIDE.value)
            return set(), _beats(config, body.descriptor) if to_memory else set()
    raise AssertionError(command)


def _streams(config, commands):
    """Return which UPDATE or VECTOR takes the beats of each LOAD that feeds one."""
    loads, takers = defaultdict(list), []
    for index, command in enumerate(commands):
        body = command.body
        match Opcode(command.opcode):
            case Opcode.LOAD if body.target in (LoadTarget.STATE.value, LoadTarget.STREAM.value):
                loads[LoadTarget(body.target)].append((index, body.rows * body.d_words))
            case Opcode.UPDATE:
                takers.append((index, LoadTarget.STATE, 4 * body.tiles * body.rows))
            case Opcode.VECTOR if not body.from_registers:
                tile = 2 * body.rows if body.wide else config.elements
                beats = body.held * config.elements + body.window * tile
                takers.append((index, LoadTarget.STREAM, body.groups * beats))
    found = {}
    for taker, way, beats in takers:
        while beats:
            load, count = loads[way].pop(0)
            found[load] = taker
            beats -= count
            assert beats >= 0, f"command {taker} takes only a part of what {load} brings"
    assert not any(loads.values())
    return found


def _conflicts(config, commands, streams):
    """Return the pairs of commands of different queues whose order matters.

    Of several in a row that touch the same place only each and the next.
    """
    writers, readers = {}, defaultdict(set)
    # What feeds a VECTOR stands behind it, but reads before it writes.
    order = sorted(
        range(len(commands)), key=lambda index: (streams.get(index, index), index not in streams)
    )
    found = set()
    for index in order:
        reads, writes = _effects(config, commands[index])
        for cell in reads:
            if cell in writers:
                found.add((writers[cell], index))
            readers[cell].add(index)
        for cell in writes:
            found.update((reader, index) for reader in readers.pop(cell, ()))
            if cell in writers:
                found.add((writers[cell], index))
            writers[cell] = index
    return [
        (earlier, later)
        for earlier, later in found
        if _queue(commands[earlier], config) != _queue(commands[later], config)
        and streams.get(earlier) != later
    ]


def _queue(command, config):
    opcode = Opcode(command.opcode)
    target = LoadTarget(command.body.target) if opcode is Opcode.LOAD else None
    return queue_of(config, opcode, target).value


def _run_in_random_order(config, commands, streams, rng):
    """Carry commands out in an order that queues and tokens allow; return when each began, ended.

    A LOAD that feeds a command ends only after that has begun, which itself ends only after it.
    """
    count = len(Queue)
    queues: list[list[int]] = [[] for _ in Queue]
    tokens = np.zeros((count, count), int)
    fetched, clock = 0, 0
    running: dict[int, int] = {}
    began, ended = {}, {}
    fed = defaultdict(list)
    for load, taker in streams.items():
        fed[taker].append(load)
    while len(ended) < len(commands):
        choices = []
        if fetched < len(commands):
            destination = queues[_queue(commands[fetched], config)]
            if len(destination) < config.queue_depth:
                choices.append(("fetch", 0))
        for number, waiting in enumerate(queues):
            if number in running:
                index = running[number]
                taken = streams.get(index, index) in began
                if taken and all(load in ended for load in fed[index]):
                    choices.append(("end", number))
            elif waiting:
                wanted = [q for q in range(count) if commands[waiting[0]].wait >> q & 1]
                if all(tokens[q, number] for q in wanted):
                    choices.append(("begin", number))
        assert choices, f"deadlock with commands {[q[:1] for q in queues]} next"
        action, number = choices[rng.integers(len(choices))]
        clock += 1
        if action == "fetch":
            destination.append(fetched)
            fetched += 1
        elif action == "begin":
            index = running[number] = queues[number].pop(0)
            for q in range(count):
                tokens[q, number] -= commands[index].wait >> q & 1
            began[index] = clock
        else:
            index = running.pop(number)
            ended[index] = clock
            for q in range(count):
                tokens[number, q] += commands[index].signal >> q & 1
    return began, ended


def _perceptron():
    x = [Input("image", 1, 1, 40)]
    x.append(linear("first", x[-1], 48, rectified=True))
    x.append(linear("second", x[-1], 64, rectified=True, method=Method.bdwp(Pattern.N2M8)))
    x.append(linear("third", x[-1], 5))
    return Model("perceptron", tuple(x))


def _residual():
    """Layers of all kinds, an output that three take, and pixels that no window has."""
    x = [Input("image", 3, 3, 4)]
    x.append(Convolution("stem", x[-1], 20, bias=True))
    stem = x[-1]
    x.append(BatchNorm("norm", stem, rectified=True))
    x.append(Convolution("block", x[-1], 20, bias=True, method=BDWP, add=stem))
    x.append(BatchNorm("block norm", x[-1], add=stem))
    block = x[-1]
    x.append(MaxPool("pool", block))
    pool = x[-1]
    x.append(GlobalAveragePool("mean", block))
    x.append(Convolution("join", pool, 20, add=x[-1]))
    x.append(linear("classes", x[-1], 5))
    return Model("residual", tuple(x))


@pytest.mark.parametrize(
    "config",
    [TINY, PRESETS["sim"], dataclasses.replace(TINY, name="one load queue", stream_queue=0)],
    ids=lambda config: config.name,
)
@pytest.mark.parametrize("make", [_perceptron, _residual])
def test_tokens_keep_every_conflict_in_order(config, make):
    """However the queues run against each other, nothing is read too early or overwritten."""
    rng = np.random.default_rng(default_seed())
    with GoldenCard(config) as card:
        network = Network(Driver(card), make(), 20 if make is _perceptron else 16)
    for program in network.programs.values():
        code = program.encode()
        commands = [
            decode(code[i : i + COMMAND_BYTES])
            for i in range(0, len(code) - COMMAND_BYTES, COMMAND_BYTES)
        ]
        streams = _streams(config, commands)
        conflicts = _conflicts(config, commands, streams)
        assert conflicts
        for _ in range(8):
            began, ended = _run_in_random_order(config, commands, streams, rng)
            for earlier, later in conflicts:
                assert ended[earlier] < began[later], (
                    program.name, program.describe(earlier), program.describe(later),
                    f"SAT_SEED={default_seed()}",
                )  # fmt: skip
