"""StoreUnit and its epilogue against the golden model."""

import dataclasses
import itertools

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import Config, preset
from rtl.control.commands import Fault, StoreBody
from rtl.control.fault import FaultReport
from rtl.engine.epilogue import Epilogue
from rtl.memory.descriptor import Descriptor
from rtl.memory.ports import O_READ_LATENCY
from rtl.memory.store_unit import StoreUnit
from rtl.sparsity.pattern import Pattern, supported_patterns
from rtl.sparsity.reducer import NMReducer
from sim.golden.arithmetic import is_finite
from sim.golden.engine import epilogue
from sim.golden.sparsity import pack_tiles
from tests.harness import (
    clocks,
    config,
    pack,
    receive,
    rng,
    send,
    simulate,
    start,
    unpack,
)

from .axi import descriptor, restart

CONFIGS = {
    "tiny": preset("tiny"),
    "sliced": dataclasses.replace(preset("tiny"), name="sliced", epilogue_slices=4),
    "one_lane": dataclasses.replace(preset("tiny"), name="one_lane", epilogue_slices=8),
    "column": Config("column", cols=1, lanes=4, o_depth=64, aux_depth=32),
    # Two chunks of a row arrive together.
    "wide": Config("wide", rows=4, cols=4, o_depth=64, aux_depth=128),
    # As many banks as a tile has rows, and patterns of up to 16.
    "groups_of_16": Config("groups_of_16", cols=32, group=16, o_depth=64, aux_depth=256),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_store_unit(name):
    chosen = CONFIGS[name]
    simulate(StoreUnit(chosen), name=f"store_unit_{name}", testbench=__name__, config=chosen)


def test_store_unit_without_compression():
    """Beats are as narrow as they can be without."""
    chosen = dataclasses.replace(
        preset("tiny"), name="plain", ratio=2, update_slices=2, compressed_stores=0
    )
    simulate(
        StoreUnit(chosen), name="store_unit_plain", testbench=__name__, config=chosen,
        testcase=["stores_every_way", "stores_random_results", "compresses_where_it_can"],
    )  # fmt: skip


SPECIAL_FLOATS = np.array(
    [
        0x00000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x3F800000, 0xBF800000, 0x477FEFFF,
        0x477FF000, 0x38800000, 0x33800000, 0x33000000, 0x33000001, 0xB3000000, 0x337FFFFF,
        0x387FE000, 0x387FF000, 0xC77FF000, 0x27800000, 0xA7800000, 0x4F7FFFFF,
    ],
    np.uint32,
)  # fmt: skip
"""What sums can be: zero, infinities, the NaN, and numbers about the edges of binary16."""

ON_THE_WAY = O_READ_LATENCY + Epilogue.LATENCY + NMReducer.LATENCY + 2
"""Cycles from the read of a word to when it can leave as a beat."""

SPECIAL_HALVES = np.array(
    [
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x3C00,
        0xBC00,
        0x7BFF,
        0x7C00,
        0xFC00,
        0x7C01,
        0xFE00,
        0x7E00,
    ],
    np.uint16,
)


def random_floats(random, *shape):
    """Return normal numbers, mostly about the range of binary16, and special values."""
    exponents = random.integers(127 - 30, 127 + 18, shape, np.uint32)
    signs = random.integers(0, 2, shape, np.uint32)
    values = signs << 31 | exponents << 23 | random.integers(0, 1 << 23, shape, np.uint32)
    return np.where(random.random(shape) < 0.15, random.choice(SPECIAL_FLOATS, shape), values)


def random_halves(random, *shape):
    values = random.integers(0, 1 << 16, shape, np.uint16)
    return np.where(random.random(shape) < 0.2, random.choice(SPECIAL_HALVES, shape), values)


class Card:
    """O scratchpad, auxiliary scratchpad and counts of `done` and `nonfinite`."""

    def __init__(self, dut, random):
        c = config()
        self.dut, self.random = dut, random
        self.o = random_floats(random, c.cols, c.o_depth, c.floats)
        self.aux = random_halves(random, c.aux_depth, c.elements)
        self.ready = 1.0
        """How often the O scratchpad is ready."""
        self.done = 0
        self.nonfinite = 0
        cocotb.start_soon(self._read_o())
        cocotb.start_soon(self._count())

    async def _read_o(self):
        dut = self.dut
        bank = getattr(dut, "o_read__bank", None)
        words = [0] * O_READ_LATENCY
        while True:
            ready = int(self.random.random() < self.ready)
            dut.o_read__ready.value = ready
            await RisingEdge(dut.clk)
            address = int(dut.o_read__address.value) % config().o_depth
            word = self.o[int(bank.value) if bank is not None else 0, address]
            # What another read finds means nothing.
            word = word if ready else random_floats(self.random, config().floats)
            words.append(int.from_bytes(word.astype("<u4").tobytes(), "little"))
            dut.o_read__data.value = words[-O_READ_LATENCY]

    async def _count(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.done += int(self.dut.done.value)
            self.nonfinite += int(self.dut.nonfinite.value)

    async def fill_aux(self):
        dut = self.dut
        for address, row in enumerate(self.aux):
            dut.aux_write__enable.value = 1
            dut.aux_write__address.value = address
            dut.aux_write__data.value = int.from_bytes(row.astype("<u2").tobytes(), "little")
            await RisingEdge(dut.clk)
        dut.aux_write__enable.value = 0

    def result(self, fields):
        """Return what leaves the epilogue, as an array."""
        c = config()
        rows, words = fields["rows"], fields["words"]
        b = np.arange(rows)[:, None]
        addresses = fields["o_base"] + b // c.cols * fields["o_stride"] + np.arange(words)
        o = self.o[b % c.cols, addresses].reshape(rows, -1)
        columns = o.shape[1]
        bias = self.aux[fields.get("bias_base", 0) :].ravel()[:columns]
        addend, mask = (
            self.aux[fields.get(f"{step}_base", 0) :].ravel() for step in ("add", "mask")
        )
        return epilogue(
            o,
            bias=bias if fields.get("bias") else None,
            addend=addend[: o.size].reshape(o.shape) if fields.get("add") else None,
            relu=bool(fields.get("relu")),
            mask=mask[: o.size].reshape(o.shape) if fields.get("mask") else None,
            convert=bool(fields.get("convert")),
        )


async def begin(dut, random):
    await start(dut)
    card = Card(dut, random)
    await card.fill_aux()
    return card


def store(o_base, o_stride, rows, words, **other):
    """Return a command's fields; the descriptor has the right number of beats."""
    beats = words // 2 if other.get("convert") else words
    counts = beats, rows
    if other.get("compress"):
        g = config().elements
        counts = other["pattern"].tile_beats(config()) * beats, rows // g
    fields = {"o_base": o_base, "o_stride": o_stride, "rows": rows, "words": words}
    return fields | {"descriptor": descriptor(4096, counts, (1 << 12,))} | other


def beats_of(result, fields):
    """Return the beats that a command writes of `result`."""
    if fields.get("compress"):
        raw = pack_tiles(result, fields["pattern"], config()).tobytes()
    else:
        raw = result.astype(result.dtype.newbyteorder("<")).tobytes()
    size = config().beat_bytes
    return [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]


async def run(dut, card, commands, random=None, *, wait=0):
    """Carry out commands and compare what they give, taken after `wait` cycles."""
    before, nonfinite = card.done, card.nonfinite
    card.ready = 1.0 if random is None else 0.8
    expected, descriptors, bad = [], [], 0
    for fields in commands:
        result = card.result(fields)
        bad += int(np.count_nonzero(~is_finite(result)))
        expected += beats_of(result, fields)
        descriptors.append(pack(Descriptor, fields["descriptor"]))
    cocotb.start_soon(
        send(dut, "command", [pack(StoreBody, fields) for fields in commands], random)
    )
    addresses = cocotb.start_soon(receive(dut, "descriptor", len(descriptors), random))
    await clocks(dut, wait)
    got = await receive(dut, "data", len(expected), random)
    assert got == expected, f"{commands}"
    assert await addresses == descriptors
    await clocks(dut, 4)
    assert card.done == before + len(commands)
    assert card.nonfinite == nonfinite + bad


@cocotb.test()
async def stores_every_way(dut):
    random = rng()
    card = await begin(dut, random)
    ways = itertools.product((0, 1), repeat=5)
    for convert, bias, add, relu, mask in ways:
        if convert or not add | mask:
            fields = store(
                2, 5, 2 * config().cols + 1, 4, convert=convert, bias=bias, add=add, relu=relu,
                mask=mask, bias_base=3, add_base=5, mask_base=7,
            )  # fmt: skip
            await run(dut, card, [fields], random)
    await run(dut, card, [store(9, 0, 1, 1), store(0, 3, 4, 3, bias=1)], random)


@cocotb.test()
async def stores_random_results(dut):
    random = rng()
    card = await begin(dut, random)
    c = config()
    for _ in range(12):
        commands = []
        while len(commands) < 3:
            rows, words = int(random.integers(1, 12)), int(random.integers(1, 9))
            convert, bias, add, relu, mask = (int(bit) for bit in random.integers(0, 2, 5))
            words += words & convert
            stride = int(random.integers(0, 12))
            base = int(random.integers(0, 8))
            beats = rows * words // 2
            if base + (rows - 1) // c.cols * stride + words > c.o_depth or beats > c.aux_depth:
                continue
            commands.append(
                store(
                    base, stride, rows, words, convert=convert, bias=bias, add=add & convert,
                    relu=relu, mask=mask & convert,
                    bias_base=int(random.integers(0, c.aux_depth - 8)),
                    add_base=int(random.integers(0, c.aux_depth - beats + 1)),
                    mask_base=int(random.integers(0, c.aux_depth - beats + 1)),
                )
            )  # fmt: skip
        await run(dut, card, commands, random)


def compressed(o_base, o_stride, blocks, d_words, pattern, **other):
    """Return the fields of a command that writes tiles."""
    rows = blocks * config().elements
    return store(
        o_base, o_stride, rows, 2 * d_words, convert=1, compress=1, pattern=pattern, **other
    )


@cocotb.test()
async def compresses_every_pattern(dut):
    random = rng()
    card = await begin(dut, random)
    patterns = supported_patterns(config())
    # One tile of each, then with neighbours along the rows, and between results as they are.
    await run(dut, card, [compressed(0, 2, 1, 1, pattern) for pattern in patterns], random)
    for pattern in patterns:
        commands = [
            store(1, 3, 3, 2, convert=1),
            compressed(1, 3, 1, 2, pattern, relu=1),
            store(2, 3, 5, 3),
        ]
        await run(dut, card, commands, random)


@cocotb.test()
async def prunes_corners(dut):
    """Ties, zeros, infinities and NaNs, more of them than a group keeps."""
    random = rng()
    card = await begin(dut, random)
    tied = [0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F802000]
    for choice in (tied, [0, 0x80000000 | 0x33800000, 0x33000000], [0x7F800000, 0x7FC00000, 0]):
        card.o = random.choice(np.array(choice, np.uint32), card.o.shape)
        commands = [compressed(0, 2, 1, 1, pattern) for pattern in supported_patterns(config())]
        await run(dut, card, commands)


@cocotb.test()
async def compresses_where_it_can(dut):
    card = await begin(dut, rng())
    fields = compressed(0, 2, 1, 1, Pattern.N2M8)
    if config().compressed_stores:
        await run(dut, card, [fields])
        return
    sender = cocotb.start_soon(send(dut, "command", [pack(StoreBody, fields)] * 2))
    await clocks(dut, 40)
    fault = unpack(FaultReport, dut.fault.value)
    assert (fault.code, fault.address) == (Fault.PATTERN, 0)
    assert not dut.command__ready.value and not dut.descriptor__valid.value
    sender.cancel()


@cocotb.test()
async def compresses_random_results(dut):
    random = rng()
    card = await begin(dut, random)
    c = config()
    bank_rows = c.elements // c.cols
    for _ in range(6):
        commands = []
        while len(commands) < 3:
            blocks, d_words = int(random.integers(1, 4)), int(random.integers(1, 5))
            stride, base = int(random.integers(0, 2 * d_words + 2)), int(random.integers(0, 6))
            bias, add, relu, mask = (int(bit) for bit in random.integers(0, 2, 4))
            beats = blocks * c.elements * d_words
            if base + (blocks * bank_rows - 1) * stride + 2 * d_words > c.o_depth:
                continue
            if add | mask and beats > c.aux_depth:
                continue
            commands.append(
                compressed(
                    base, stride, blocks, d_words, random.choice(supported_patterns(c)),
                    bias=bias, add=add, relu=relu, mask=mask,
                    bias_base=int(random.integers(0, c.aux_depth - d_words + 1)),
                    add_base=int(random.integers(0, max(c.aux_depth - beats, 0) + 1)),
                    mask_base=int(random.integers(0, max(c.aux_depth - beats, 0) + 1)),
                )
            )  # fmt: skip
        await run(dut, card, commands, random)


@cocotb.test()
async def compresses_a_word_a_cycle(dut):
    """Memory that takes every beat never slows a compressed result down, whatever the pattern.

    But for dense ones of small tiles, which take a little longer to leave than to arrive.
    """
    random = rng()
    card = await begin(dut, random)
    c = config()
    d_words = min(8, c.o_depth // (c.elements // c.cols) // 2)
    for pattern in supported_patterns(c):
        fields = compressed(0, 2 * d_words, 1, d_words, pattern)
        words = c.elements * d_words * 2
        # A tile has one of two places from its first word's read until its last beat has left.
        tile = max(
            2 * c.elements * c.epilogue_slices,
            c.elements * c.epilogue_slices + (pattern.tile_beats(c) + ON_THE_WAY) // 2,
        )
        beats = len(beats_of(card.result(fields), fields))
        dut.descriptor__ready.value = 1
        dut.data__ready.value = 1
        cocotb.start_soon(send(dut, "command", [pack(StoreBody, fields)]))
        taken, cycles = 0, 0
        while taken < beats:
            await RisingEdge(dut.clk)
            taken += int(dut.data__valid.value)
            cycles += 1
            assert cycles < 10_000
        # Check, pipeline, and the last tile on its way out.
        least = d_words * tile + pattern.tile_beats(c)
        assert cycles <= least + 40, f"{pattern}: {cycles} for {words}"
        dut._log.info("%s: %d words, %d beats, %d cycles", pattern, words, beats, cycles)
        await clocks(dut, 4)


@cocotb.test()
async def keeps_one_word_a_cycle(dut):
    random = rng()
    card = await begin(dut, random)
    c = config()
    for convert in (0, 1):
        rows = min(4 * c.cols, c.aux_depth // 4)
        fields = store(0, 8, rows, 8, convert=convert, bias=1, add=convert, relu=1)
        beats = rows * 8 >> convert
        dut.descriptor__ready.value = 1
        dut.data__ready.value = 1
        cocotb.start_soon(send(dut, "command", [pack(StoreBody, fields)]))
        taken, cycles = 0, 0
        while taken < beats:
            await RisingEdge(dut.clk)
            taken += int(dut.data__valid.value)
            cycles += taken > 0
            assert cycles < 2000
        assert cycles == (beats - 1 << convert) * c.epilogue_slices + 1
        await clocks(dut, 4)
        assert card.done == convert + 1


@cocotb.test()
async def waits_for_memory(dut):
    random = rng()
    card = await begin(dut, random)
    c = config()
    # Room is counted apart for tiles and for beats: neither result uses up, or frees, the other's.
    for convert in (0, 1):
        plain = store(0, 8, c.cols * c.o_depth // 8, 8, convert=convert)
        await run(dut, card, [plain], wait=300)
        await run(dut, card, [compressed(0, 0, 2, 4, Pattern.N2M8)], wait=300)
        await run(dut, card, [plain], wait=300)


@cocotb.test()
async def refuses_bad_commands(dut):
    random = rng()
    card = await begin(dut, random)
    c = config()
    good = store(1, 4, 2 * c.cols, 4, convert=1, bias=1, add=1, mask=1)
    malformed = (
        good | {"rows": 0},
        good | {"words": 0},
        good | {"words": 3},
        good | {"convert": 0, "add": 0},
        good | {"convert": 0, "mask": 0},
        good | {"descriptor": descriptor(0, (3, 2 * c.cols))},
        good | {"descriptor": descriptor(0, (65535, 65535, 65535, 2))},
    )
    beats = 4 * c.cols
    out_of_range = (
        (good | {"o_base": c.o_depth - 7}, c.o_depth - 7),
        (good | {"o_base": 65535}, 65535),
        (good | {"o_stride": 65535}, 1),
        (good | {"bias_base": c.aux_depth - 1}, c.aux_depth - 1),
        (good | {"add_base": c.aux_depth - beats + 1, "mask_base": 65535}, c.aux_depth - beats + 1),
        (good | {"mask_base": c.aux_depth - beats + 1}, c.aux_depth - beats + 1),
    )
    tile = compressed(1, 2, 1, 1, Pattern.N2M8, bias=1, add=1, mask=1)
    malformed += (
        tile | {"rows": 0},
        tile | {"rows": c.elements + 1},
        tile | {"words": 3},
        tile | {"convert": 0, "add": 0, "mask": 0},
        tile | {"descriptor": descriptor(0, (1, c.elements))},
        tile | {"pattern": Pattern.N4M8},
        tile | {"compress": 0},
    )
    # Whatever else is wrong with beats and bases: how many there are depends on the pattern.
    unsupported = tile | {"pattern": Pattern.DENSE, "o_base": 65535}
    pattern = StoreBody.as_shape()["pattern"].offset
    numbers = [7] if c.group == 16 else [Pattern.N2M16.value, 7]
    out_of_range += (
        (tile | {"o_base": c.o_depth - 1}, c.o_depth - 1),
        (tile | {"bias_base": c.aux_depth}, c.aux_depth),
        (tile | {"add_base": c.aux_depth - c.elements + 1}, c.aux_depth - c.elements + 1),
        (tile | {"mask_base": c.aux_depth - c.elements + 1}, c.aux_depth - c.elements + 1),
    )
    for bits, code, address in (
        *((pack(StoreBody, fields), Fault.MALFORMED, 0) for fields in malformed),
        *((pack(StoreBody, unsupported) | n << pattern, Fault.PATTERN, 0) for n in numbers),
        *((pack(StoreBody, f), Fault.SCRATCHPAD_RANGE, address) for f, address in out_of_range),
    ):
        await run(dut, card, [good])
        done = card.done
        sender = cocotb.start_soon(send(dut, "command", [bits] * 2))
        await clocks(dut, 40)
        fault = unpack(FaultReport, dut.fault.value)
        assert (fault.code, fault.address) == (code, address), f"{unpack(StoreBody, bits)}"
        assert not dut.command__ready.value
        assert not dut.descriptor__valid.value
        assert not dut.data__valid.value
        assert card.done == done
        sender.cancel()
        dut.command__valid.value = 0
        await restart(dut)
    # The widest that fits.
    top = good | {
        "o_base": c.o_depth - 8, "bias_base": c.aux_depth - 2, "mask_base": c.aux_depth - beats,
        "add_base": c.aux_depth - beats,
    }  # fmt: skip
    await run(dut, card, [top])
    bank_rows = c.elements // c.cols
    top = tile | {
        "o_base": c.o_depth - 2 * bank_rows, "bias_base": c.aux_depth - 1,
        "add_base": c.aux_depth - c.elements, "mask_base": c.aux_depth - c.elements,
    }  # fmt: skip
    await run(dut, card, [top])


@cocotb.test()
async def recovers_from_a_reset_on_the_way(dut):
    """Nothing of a tile that was being made is left."""
    random = rng()
    card = await begin(dut, random)
    fields = compressed(0, 2, 2, 1, Pattern.N4M8)
    for cycles in (20, 50, 90):
        sender = cocotb.start_soon(send(dut, "command", [pack(StoreBody, fields)] * 2))
        dut.descriptor__ready.value = 1
        dut.data__ready.value = int(random.integers(0, 2))
        await clocks(dut, cycles)
        sender.cancel()
        dut.command__valid.value = dut.descriptor__ready.value = dut.data__ready.value = 0
        await restart(dut)
        card.done = card.nonfinite = 0
        await run(dut, card, [fields], random)
