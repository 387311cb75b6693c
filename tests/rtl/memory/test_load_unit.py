"""LoadUnit: what each kind of LOAD leaves in the scratchpads."""

import dataclasses
import itertools
from types import SimpleNamespace

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import Config, preset
from rtl.control.commands import Fault, LoadBody, LoadOrder, LoadTarget
from rtl.control.fault import FaultReport
from rtl.interface.flatten import Flattened
from rtl.memory.load_unit import LoadUnit
from rtl.memory.ports import SWord
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.frame import Frame
from sim.golden.sparsity import pack_tiles, s_words
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack

from .axi import descriptor, pauses, read_memory, restart, wait_for

CONFIGS = {
    "tiny": preset("tiny"),
    "other": Config(
        "other", rows=8, cols=4, lanes=4, group=16, ratio=8, s_depth=64, d_depth=64, aux_depth=64,
        memory_bytes=1 << 20,
    ),
    "narrow": dataclasses.replace(
        preset("tiny"), name="narrow", ratio=2, update_slices=2, compressed_stores=0,
        device="lfe5u-85f",
    ),
}  # fmt: skip
"""The second has patterns of 1, 2, 4 and 8 steps, and 2:16; the third a single chunk in a beat."""


@pytest.mark.parametrize("name", CONFIGS)
def test_load_unit(name):
    chosen = CONFIGS[name]
    simulate(
        Flattened(LoadUnit(chosen), axi="m_axi"),
        name=f"load_unit_{name}",
        testbench=__name__,
        config=chosen,
    )


class Scratchpads:
    """What the write ports were told, by bank and address; counts `done` pulses and beats."""

    def __init__(self, dut):
        self.s, self.d, self.aux = {}, {}, {}
        self.done = 0
        self.beats = 0
        self._dut = dut
        self._task = cocotb.start_soon(self._watch())

    async def _watch(self):
        dut, ratio = self._dut, config().ratio
        word_bits = SWord(config()).size
        while True:
            await RisingEdge(dut.clk)
            self.done += int(dut.done.value)
            self.beats += int(dut.beat.value)
            enable = int(dut.s_write__enable.value)
            if enable:
                words = int(dut.s_write__words.value)
                quarters = int(dut.s_write__quarters.value)
                address = int(dut.s_write__address.value)
                for bank in range(config().rows):
                    for quarter in range(ratio):
                        if enable >> bank & 1 and quarters >> quarter & 1:
                            place = word_bits * (bank % ratio * ratio + quarter)
                            word = words >> place & (1 << word_bits) - 1
                            self.s[bank, address, quarter] = word
            enable = int(dut.d_write__enable.value)
            if enable:
                assert enable & (enable - 1) == 0
                bank, address = enable.bit_length() - 1, int(dut.d_write__address.value)
                self.d[bank, address] = int(dut.d_write__data.value)
            if dut.aux_write__enable.value:
                self.aux[int(dut.aux_write__address.value)] = int(dut.aux_write__data.value)

    def forget(self):
        self.s, self.d, self.aux = {}, {}, {}


async def begin(dut, random, *, busy=True):
    await start(dut)
    ram = read_memory(dut, config())
    if busy:
        ram.ar_channel.set_pause_generator(pauses(random, 0.2))
        ram.r_channel.set_pause_generator(pauses(random, 0.2))
    return ram, Scratchpads(dut)


def random_halves(random, *shape):
    return random.integers(0, 1 << 16, shape, np.uint16)


def beats(halves):
    """Return rows of G values as beats."""
    rows = np.ascontiguousarray(halves.astype("<u2")).reshape(-1, config().elements)
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def in_memory(halves):
    return np.ascontiguousarray(halves.astype("<u2")).tobytes()


def load(target, base, rows, d_words, fields, **other):
    """Return a command's fields."""
    command = {"target": target, "base": base, "rows": rows, "d_words": d_words}
    return command | {"descriptor": fields} | other


async def run(dut, commands, scratchpads, random=None):
    """Send commands and wait for the last `done`."""
    before = scratchpads.done
    cocotb.start_soon(
        send(dut, "command", [pack(LoadBody, command) for command in commands], random)
    )
    for _ in range(50_000):
        await RisingEdge(dut.clk)
        if scratchpads.done == before + len(commands):
            break
    assert scratchpads.done == before + len(commands)
    # A `done` goes with its last write, which the watcher sees at the same edge.
    await RisingEdge(dut.clk)
    assert scratchpads.done == before + len(commands)
    assert unpack(FaultReport, dut.fault.value).code == Fault.NONE


def expected_s(matrix, pattern, base):
    """Return the S words of `matrix` by bank, address and quarter."""
    c = config()
    values, indices = s_words(matrix, pattern, c)
    rows, d_words, steps, _ = values.shape
    stride = pattern.words_per_row(c, d_words)
    expected = {}
    for row in range(rows):
        for word in range(d_words * steps):
            entries = zip(
                values[row].reshape(-1, c.lanes)[word],
                indices[row].reshape(-1, c.lanes)[word],
                strict=True,
            )
            bits = 0
            for lane, (value, index) in enumerate(entries):
                bits |= (int(value) | int(index) << 16) << lane * (16 + c.index_bits)
            address = base + row // c.rows * stride + word // c.ratio
            expected[row % c.rows, address, word % c.ratio] = bits
    return expected


def expected_d(matrix, base):
    """Return the D words of `matrix` ``[rows, d_words * G]`` by bank and address."""
    c = config()
    d_words = matrix.shape[1] // c.elements
    words = beats(matrix)
    return {
        (row % c.cols, base + row // c.cols * d_words + kw): words[row * d_words + kw]
        for row in range(len(matrix))
        for kw in range(d_words)
    }


@cocotb.test()
async def places_s_operands(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    for pattern in supported_patterns(c):
        for blocks, d_words, base in ((1, 1, 3), (2, 3, 0), (1, 5, 7)):
            stride = pattern.words_per_row(c, d_words)
            if base + blocks * c.elements // c.rows * stride > c.s_depth:
                continue
            matrix = random_halves(random, blocks * c.elements, d_words * c.elements)
            image = pack_tiles(matrix, pattern, c)
            ram.write(4096, image.tobytes())
            count = len(image) // c.beat_bytes
            fields = descriptor(4096, (count,))
            command = load(
                LoadTarget.S, base, blocks * c.elements, d_words, fields, pattern=pattern
            )
            scratchpads.forget()
            await run(dut, [command], scratchpads)
            assert scratchpads.s == expected_s(matrix, pattern, base), (
                f"{pattern} {blocks} {d_words}"
            )
            assert not scratchpads.d
            assert not scratchpads.aux


@cocotb.test()
async def transposes_s_operands(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g, blocks, d_words = c.elements, 1, 2
    activations = random_halves(random, d_words * g, blocks * g)
    ram.write(0, in_memory(activations))
    # Tile (A, kw): G pixels from kw * G, at channel block A.
    fields = descriptor(
        0,
        (1, g, d_words, blocks),
        (blocks * c.beat_bytes, blocks * g * c.beat_bytes, c.beat_bytes),
    )
    command = load(LoadTarget.S, 2, blocks * g, d_words, fields, transpose=1)
    await run(dut, [command], scratchpads)
    assert scratchpads.s == expected_s(activations.T, Pattern.DENSE, 2)


@cocotb.test()
async def places_d_operands(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g = c.elements
    for rows, d_words, base in ((1, 1, 5), (c.cols + 1, 3, 0), (2 * c.cols, 1, 9), (g, 2, 2)):
        matrix = random_halves(random, rows, d_words * g)
        ram.write(8192, in_memory(matrix))
        # A pattern means nothing to D.
        fields = descriptor(8192, (d_words, rows), (d_words * c.beat_bytes,))
        command = load(LoadTarget.D, base, rows, d_words, fields, pattern=Pattern.N1M8)
        scratchpads.forget()
        await run(dut, [command], scratchpads)
        assert scratchpads.d == expected_d(matrix, base)
        assert not scratchpads.s

    # Tiles, as they are and transposed from [reduction, rows].
    rows, d_words = 2 * g, 2
    matrix = random_halves(random, rows, d_words * g)
    tiles = matrix.reshape(rows // g, g, d_words, g).swapaxes(1, 2)
    ram.write(0, in_memory(tiles))
    command = load(
        LoadTarget.D, 0, rows, d_words, descriptor(0, (rows * d_words,)), order=LoadOrder.TILES
    )
    scratchpads.forget()
    await run(dut, [command], scratchpads)
    assert scratchpads.d == expected_d(matrix, 0)

    rows, d_words = g, 2
    activations = random_halves(random, d_words * g, rows)
    ram.write(0, in_memory(activations))
    fields = descriptor(0, (d_words * g,))
    command = load(LoadTarget.D, 1, rows, d_words, fields, order=LoadOrder.TILES, transpose=1)
    scratchpads.forget()
    await run(dut, [command], scratchpads)
    assert scratchpads.d == expected_d(activations.T, 1)


@cocotb.test()
async def fills_aux_and_streams_updates(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    matrix = random_halves(random, 60, c.elements)
    ram.write(0, in_memory(matrix))
    await run(dut, [load(LoadTarget.AUX, 4, 20, 3, descriptor(0, (60,)))], scratchpads)
    assert scratchpads.aux == {4 + i: beat for i, beat in enumerate(beats(matrix))}

    scratchpads.forget()
    for target in (LoadTarget.STREAM, LoadTarget.STATE):
        taker = cocotb.start_soon(receive(dut, target.name.lower(), 60, random))
        await run(dut, [load(target, 60000, 30, 2, descriptor(0, (60,)))], scratchpads)
        assert await taker == beats(matrix)
    assert not (scratchpads.s or scratchpads.d or scratchpads.aux)


@cocotb.test()
async def carries_out_commands_back_to_back(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g, pattern = c.elements, Pattern.N2M8
    weights = random_halves(random, g, g)
    activations = random_halves(random, g, g)
    rows = random_halves(random, 6, 2 * g)
    ram.write(0, pack_tiles(weights, pattern, c).tobytes())
    ram.write(1 << 16, in_memory(activations))
    ram.write(2 << 16, in_memory(rows))
    turn = descriptor(1 << 16, (g,))
    commands = [
        load(LoadTarget.S, 1, g, 1, descriptor(0, (pattern.tile_beats(c),)), pattern=pattern),
        load(LoadTarget.D, 0, g, 1, turn, order=LoadOrder.TILES, transpose=1),
        load(LoadTarget.AUX, 0, g, 1, turn),
        load(LoadTarget.S, 40, g, 1, turn, transpose=1),
        load(LoadTarget.D, 50, 6, 2, descriptor(2 << 16, (12,))),
    ]
    await run(dut, commands, scratchpads, random)
    assert scratchpads.s == expected_s(weights, pattern, 1) | expected_s(
        activations.T, Pattern.DENSE, 40
    )
    assert scratchpads.d == expected_d(activations.T, 0) | expected_d(rows, 50)
    assert scratchpads.aux == dict(enumerate(beats(activations)))


def frame(inside, vertical=(0, 0), horizontal=(0, 0)):
    """Return the fields of a frame: what is inside, and the margins."""
    (images, lines, beats), (above, below), (before, after) = inside, vertical, horizontal
    return {
        "images": images, "above": above, "lines": lines, "below": below,
        "before": before, "beats": beats, "after": after,
    }  # fmt: skip


def framed(random, ram, address, fields):
    """Put images for a frame into memory, with gaps between their lines.

    Return what a LOAD says of them, and the values in the frame, a row for each beat.
    """
    golden = Frame.of(SimpleNamespace(**fields))
    images, lines, count = golden.inside
    values = random_halves(random, images, lines, count, config().elements)
    gap = int(random.integers(0, 3))
    ram.write(address, in_memory(np.pad(values, ((0, 0), (0, 0), (0, gap), (0, 0)))))
    line = (count + gap) * config().beat_bytes
    where = descriptor(address, (count, lines, images), (line, line * lines))
    whole = golden.put_around(values.reshape(-1, config().elements))
    return {"frame": fields, "descriptor": where}, whole


def random_frame(random, beats):
    """Return the fields of a frame of so many beats."""
    divisors = [n for n in range(1, beats + 1) if beats % n == 0]
    images = int(random.choice(divisors))
    height = int(random.choice([n for n in divisors if beats // images % n == 0]))
    sides = []
    for side in (height, beats // images // height):
        before = int(random.integers(0, min(side, 200)))
        after = int(random.integers(0, min(side - before, 200)))
        sides.append((side - before - after, (before, after)))
    (lines, vertical), (inside, horizontal) = sides
    return frame((images, lines, inside), vertical, horizontal)


@cocotb.test()
async def frames_operands(dut):
    """Zeros around images, for every target, as they are and transposed, in one go."""
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g = c.elements
    sparse = Pattern.N2M8
    for _ in range(4):
        scratchpads.forget()
        commands, s, d, aux, stream = [], {}, {}, {}, []

        def add(target, base, rows, d_words, count, commands=commands, **other):
            address = 4096 + (len(commands) << 15)
            images, values = framed(random, ram, address, random_frame(random, count))
            command = load(target, base, rows, d_words, None, **other)
            commands.append(command | images)
            return values

        rows = int(random.integers(1, 2 * c.cols))
        d |= expected_d(add(LoadTarget.D, 0, rows, 3, 3 * rows).reshape(rows, -1), 0)
        for turned in random.permutation(2).tolist():
            base = 10 + 20 * turned
            tiles = add(
                LoadTarget.D, base, g, 2, 2 * g, order=LoadOrder.TILES, transpose=turned
            ).reshape(2, g, g)
            tiles = tiles.swapaxes(1, 2) if turned else tiles
            d |= expected_d(tiles.swapaxes(0, 1).reshape(g, -1), base)
            tile = add(LoadTarget.S, 20 * turned, g, 1, g, transpose=turned)
            s |= expected_s(tile.T if turned else tile, Pattern.DENSE, 20 * turned)
        packed = random_halves(random, g, g)
        count = sparse.tile_beats(c)
        ram.write(0, pack_tiles(packed, sparse, c).tobytes())
        tile = frame((1, 1, count), (1, 0))
        commands.append(
            load(
                LoadTarget.S, 40, 2 * g, 1, descriptor(0, (count,)), pattern=sparse, frame=tile
            )
        )  # fmt: skip
        s |= expected_s(np.concatenate([packed, packed]), sparse, 40)
        # Index beats are zeros as well.
        zeros = expected_s(packed, sparse, 40)
        s |= dict.fromkeys(zeros, 0)
        aux |= dict(enumerate(beats(add(LoadTarget.AUX, 3, 10, 2, 20)), 3))
        stream += beats(add(LoadTarget.STREAM, 0, 6, 5, 30))
        taker = cocotb.start_soon(receive(dut, "stream", len(stream), random))
        # In any order; but for one LOAD of each target the places are apart.
        order = random.permutation(len(commands))
        await run(dut, [commands[i] for i in order], scratchpads, random)
        assert await taker == stream
        assert scratchpads.s == s
        assert scratchpads.d == d
        assert scratchpads.aux == aux


@cocotb.test()
async def streams_framed_tiles(dut):
    """Tiles in frames, one LOAD after the other, fill the scratchpad at 95 % of a beat a cycle."""
    random = rng()
    ram, scratchpads = await begin(dut, random, busy=False)
    c = config()
    g = c.elements
    words = min(8, c.d_depth // (2 * g // c.cols))
    assert words % 4 == 0
    for transpose in (0, 1):
        for fields in (
            frame((1, 1, g * words)),
            frame((1, 2, g * words // 4), (1, 1)),
            frame((1, 2, g * words // 4 - g // 2), (1, 1), (g // 4, g // 4)),
        ):
            images, _ = framed(random, ram, 4096, fields)
            commands = [
                load(
                    LoadTarget.D, base, g, words, None, order=LoadOrder.TILES,
                    transpose=transpose,
                ) | images
                for base in (0, c.d_depth // 2)
            ] * 4  # fmt: skip
            placed = []
            watch = cocotb.start_soon(cycles_with(dut, dut.d_write__enable, placed))
            await run(dut, commands, scratchpads)
            watch.cancel()
            assert len(placed) == 8 * g * words
            share = len(placed) / (placed[-1] - placed[0] + 1)
            dut._log.info("transpose %d, %s: %.1f %%", transpose, fields, 100 * share)
            assert share >= 0.95, f"{share:.3f} of a beat a cycle, {transpose=}, {fields}"


async def cycles_with(dut, signal, cycles):
    """Append to `cycles` the number of each cycle in which `signal` isn't zero."""
    cycle = 0
    while True:
        await RisingEdge(dut.clk)
        if int(signal.value):
            cycles.append(cycle)
        cycle += 1


@cocotb.test()
async def uses_the_bus_well(dut):
    random = rng()
    _, scratchpads = await begin(dut, random, busy=False)
    c = config()
    g = c.elements
    fields = descriptor(0, (g,))
    commands = [
        load(LoadTarget.D, 0, g, 1, fields),
        load(LoadTarget.D, 0, g, 1, fields),
        load(LoadTarget.S, 0, g, 1, fields),
        load(LoadTarget.D, 0, g, 1, fields),
    ] * 4
    start_of_data = cocotb.start_soon(wait_for(dut, dut.beat))
    cycles = 0

    async def count():
        nonlocal cycles
        await start_of_data
        while True:
            await RisingEdge(dut.clk)
            cycles += 1

    counter = cocotb.start_soon(count())
    await run(dut, commands, scratchpads)
    counter.cancel()
    # Commands as small as these are bound by their checks, which overlap the data before them.
    assert scratchpads.beats == len(commands) * g
    assert cycles <= len(commands) * max(g + 2, 20)


async def fails(dut, ram, scratchpads, command, code, address):
    """Check that `command`, coming after a good one, is refused alone; a reset repairs it."""
    c = config()
    matrix = random_halves(rng(), 3, c.elements)
    ram.write(0, in_memory(matrix))
    good = load(LoadTarget.D, 4, 3, 1, descriptor(0, (3,)))
    scratchpads.forget()
    before = scratchpads.done
    commands = [pack(LoadBody, command) for command in (good, command, good)]
    sender = cocotb.start_soon(send(dut, "command", commands))
    for _ in range(2000):
        await RisingEdge(dut.clk)
        fault = unpack(FaultReport, dut.fault.value)
        if fault.code != Fault.NONE:
            break
    assert (fault.code, fault.address) == (code, address), f"{command}"
    for _ in range(60):
        await RisingEdge(dut.clk)
        assert not dut.command__ready.value
    assert scratchpads.done == before + 1
    # Of the one that failed there may be zeros of its frame.
    written = expected_d(matrix, 4)
    assert {place: scratchpads.d[place] for place in written} == written
    assert "frame" in command or scratchpads.d == written
    assert dut.idle.value
    sender.cancel()
    dut.command__valid.value = 0
    await restart(dut)
    scratchpads.forget()
    await run(dut, [good], scratchpads)
    assert scratchpads.d == expected_d(matrix, 4)


@cocotb.test()
async def refuses_bad_commands(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g, end = c.elements, c.memory_bytes
    whole = descriptor(4096, (g,))
    good = load(LoadTarget.S, 0, g, 1, whole)
    malformed = [
        good | {"rows": 0},
        good | {"d_words": 0},
        good | {"rows": g + 1},
        good | {"descriptor": descriptor(4096, (g - 1,))},
        good | {"descriptor": descriptor(4096, (g, 2))},
        good | {"descriptor": descriptor(4096, (65535, 65535, 65535, 65535))},
        good | {"pattern": Pattern.N2M4},
        good | {"pattern": Pattern.N2M4, "transpose": 1},
        load(LoadTarget.D, 0, g - 1, 1, descriptor(4096, (g - 1,)), order=LoadOrder.TILES),
        load(LoadTarget.D, 0, g - 1, 1, descriptor(4096, (g - 1,)), transpose=1),
        load(LoadTarget.AUX, 0, 3, 2, descriptor(4096, (5,))),
        load(LoadTarget.STREAM, 0, 3, 2, descriptor(4096, (7,))),
        load(LoadTarget.STATE, 0, 3, 2, descriptor(4096, (7,))),
    ]
    for command in malformed:
        await fails(dut, ram, scratchpads, command, Fault.MALFORMED, 0)
    unaligned = load(LoadTarget.AUX, 0, 1, 1, descriptor(4096 + 2, (1,)))
    await fails(dut, ram, scratchpads, unaligned, Fault.MALFORMED, 4096 + 2)

    for pattern in set(Pattern) - set(supported_patterns(c)):
        command = good | {"pattern": pattern}
        await fails(dut, ram, scratchpads, command, Fault.PATTERN, 0)

    images = frame((2, 2, 3), (1, 2), (1, 2))
    around = load(LoadTarget.D, 6, 60, 1, descriptor(4096, (12,)), frame=images)
    most = (1 << 16) - 1
    long = {"rows": 1 << 14, "d_words": 4}
    for command in (
        around | {"frame": images | {"images": 0}},
        around | {"frame": images | {"lines": 0}},
        around | {"frame": images | {"beats": 0}},
        good | {"frame": frame((0, 0, 0), (1, 0))},
        around | {"frame": images | {"images": 3}},
        around | {"frame": images | {"after": 3}},
        around | {"rows": 59},
        around | {"descriptor": descriptor(4096, (13,))},
        around | long | {"frame": frame((1, 1, 1), (0, 0), (most, 0))}
        | {"descriptor": descriptor(4096, (1,))},
        around | long | {"frame": frame((1, most, 1), (0, 1))}
        | {"descriptor": descriptor(4096, (most,))},
        # The beats of the operand, not those of memory, are transposed.
        load(LoadTarget.D, 0, g + 1, 1, descriptor(4096, (g,)), transpose=1,
             frame=frame((1, 1, g), (0, 0), (1, 0))),
        good | {"pattern": Pattern.N2M4, "transpose": 1, "frame": images},
    ):  # fmt: skip
        await fails(dut, ram, scratchpads, command, Fault.MALFORMED, 0)
    beyond = around | {"base": c.d_depth - 1}
    await fails(dut, ram, scratchpads, beyond, Fault.SCRATCHPAD_RANGE, c.d_depth - 1)
    outside = around | {"descriptor": descriptor(end - 7 * c.beat_bytes, (12,))}
    await fails(dut, ram, scratchpads, outside, Fault.ADDRESS_RANGE, end)

    stride = g // c.rows
    for command in (
        good | {"base": c.s_depth - stride + 1},
        good | {"base": 65535},
        load(LoadTarget.D, c.d_depth - 2, c.cols + 1, 2, descriptor(0, (2 * (c.cols + 1),))),
        load(LoadTarget.AUX, c.aux_depth - 5, 3, 2, descriptor(0, (6,))),
        load(LoadTarget.D, 0, 65535, 65535, descriptor(0, (65535, 65535))),
    ):
        await fails(dut, ram, scratchpads, command, Fault.SCRATCHPAD_RANGE, command["base"])

    beyond = load(LoadTarget.STREAM, 0, 1, 1, descriptor(end, (1,)))
    await fails(dut, ram, scratchpads, beyond, Fault.ADDRESS_RANGE, end)
    ram.bad = {64 << 10}
    refused = load(LoadTarget.S, 0, g, 1, descriptor(64 << 10, (g,)), transpose=1)
    await fails(dut, ram, scratchpads, refused, Fault.READ_RESPONSE, 64 << 10)
    # The first beat and the last, with zeros before and after either.
    for line in (0, 3):
        where = (64 << 10) - line * 4096
        lines = descriptor(where, (3, 2, 2), (4096, 8192))
        refused = around | {"descriptor": lines}
        await fails(dut, ram, scratchpads, refused, Fault.READ_RESPONSE, 64 << 10)


@cocotb.test()
async def ends_commands_before_a_fault_of_the_next(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g = c.elements
    activations = random_halves(random, g, g)
    ram.write(0, in_memory(activations))
    ram.bad = {64 << 10}
    turned = load(LoadTarget.D, 0, g, 1, descriptor(0, (g,)), order=LoadOrder.TILES, transpose=1)
    # Zeros that are still to come as the next LOAD's read fails.
    half = frame((1, 1, g // 2), (0, 1))
    padded = turned | {"descriptor": descriptor(0, (g // 2,)), "frame": half}
    activations_of = {0: activations, 1: activations.copy()}
    activations_of[1][g // 2 :] = 0
    wrongs = (
        {"rows": 0},
        {"descriptor": descriptor(c.memory_bytes - c.beat_bytes, (g,))},
        {"descriptor": descriptor(64 << 10, (g,))},
        {"descriptor": descriptor(64 << 10, (g // 2,)), "frame": frame((1, 1, g // 2), (1, 0))},
    )
    for good, change in itertools.product((turned, padded, padded | {"transpose": 0}), wrongs):
        wrong = turned | change
        loaded = activations_of["frame" in good]
        scratchpads.forget()
        scratchpads.done = 0
        commands = [pack(LoadBody, command) for command in (good, wrong)]
        cocotb.start_soon(send(dut, "command", commands))
        for _ in range(2000):
            await RisingEdge(dut.clk)
            if unpack(FaultReport, dut.fault.value).code != Fault.NONE:
                break
        assert unpack(FaultReport, dut.fault.value).code != Fault.NONE
        assert scratchpads.done == 1
        written = expected_d(loaded.T if good["transpose"] else loaded, 0)
        assert {place: scratchpads.d[place] for place in written} == written
        await wait_for(dut, dut.idle)
        await restart(dut)


@cocotb.test()
async def abandons_loads(dut):
    random = rng()
    ram, scratchpads = await begin(dut, random)
    c = config()
    g = c.elements
    activations = random_halves(random, g, 3 * g)
    ram.write(0, in_memory(activations))
    rows = load(LoadTarget.D, 0, g, 3, descriptor(0, (3 * g,)))
    update = load(LoadTarget.STATE, 0, g, 3, descriptor(0, (3 * g,)))
    padded = load(
        LoadTarget.D, 0, 2 * g, 2, descriptor(0, (g,)), order=LoadOrder.TILES, transpose=1,
        frame=frame((1, 2, g // 2), (1, 1), (g // 4, g // 4)),
    )  # fmt: skip
    moments = [(rows, 10), (rows, 25), (rows, 50), (update, 60)]
    moments += [(padded, wait) for wait in (16, 20, 30, 40, 50, 60, 80)]
    for command, wait in moments:
        await send(dut, "command", [pack(LoadBody, command)])
        for _ in range(wait):
            await RisingEdge(dut.clk)
        dut.abort.value = 1
        await wait_for(dut, dut.idle)
        for _ in range(30):
            await RisingEdge(dut.clk)
            assert dut.idle.value
        dut.abort.value = 0
        await restart(dut)
        scratchpads.forget()
        await run(dut, [rows], scratchpads)
        assert scratchpads.d == expected_d(activations, 0)
