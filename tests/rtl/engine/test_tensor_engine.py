"""The tensor engine at its ports: scratchpads written, COMPUTE carried out, O read."""

import dataclasses
import itertools

import cocotb
import numpy as np
import pytest
from amaranth.utils import exact_log2
from cocotb.triggers import RisingEdge

from firmware.program import matrix_walks, walk
from rtl.config import preset
from rtl.control.commands import WALK_DIMENSIONS, ComputeBody, Fault
from rtl.control.fault import FaultReport
from rtl.engine.pe import drain_distance
from rtl.engine.tensor_engine import TensorEngine
from rtl.memory.ports import O_READ_LATENCY, SWord
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.arithmetic import ExactSum, Operand, add
from sim.golden.program import DecodedWalk
from sim.golden.sparsity import s_words
from tests.harness import clocks, config, pack, rng, send, simulate, start, unpack

ONE = 0x3C00

GOOD = {"o_stride": 1, "d_words": 1, "a_tiles": 1, "b_tiles": 1, "pattern": Pattern.N2M8}


def command(configuration, **body):
    """Return the bits of a COMPUTE; what isn't told is good, and D lies there as a matrix."""
    body = GOOD | body
    contexts = configuration.interleave >> body.get("a_contexts", 0)
    walks = matrix_walks(max(1, body["b_tiles"] * contexts), max(1, body["d_words"]))
    return pack(ComputeBody, walks | body)


def walked(fields):
    """Return a walk as the golden model has it."""
    return DecodedWalk(tuple(fields["counts"]), tuple(fields["steps"]))


def first_rows(operand, rows):
    """Return the first rows of an operand."""
    parts = {name: getattr(operand, name)[:rows] for name in ("high", "low", "values", "columns")}
    return dataclasses.replace(operand, **parts)


class Bench:
    """Fills scratchpads, sends commands, and keeps what the O banks should hold."""

    def __init__(self, dut, configuration, random):
        self.dut = dut
        self.config = configuration
        self.random = random
        self.done = 0
        self.mac_slots = 0
        self.counted = {"useful": 0, "edge": 0, "filler": 0}
        self.activity = []
        self.kept = None
        self.commands = []
        self.written = {}
        self.expected = {}

    async def watch(self):
        """Count strobes; runs beside the test."""
        while True:
            await RisingEdge(self.dut.clk)
            self.done += int(self.dut.done.value)
            self.mac_slots += int(self.dut.mac.value)
            for name in self.counted:
                self.counted[name] += int(getattr(self.dut, name).value)
            self.activity.append(bool(self.dut.mac.value))

    def halves(self, shape, *, special=False):
        """Random binary16 of all sizes, infinities and NaNs only if `special`."""
        values = self.random.integers(0, 1 << 16, shape).astype(np.uint16)
        infinite = values & 0x7C00 == 0x7C00
        return values if special else np.where(infinite, values & 0x83FF, values)

    async def write_s(self, base, values, pattern):
        """Write the rows of `values` ``[A, K]``; returns the operand as the golden model has it."""
        configuration, dut = self.config, self.dut
        rows, length = values.shape
        entries, indices = s_words(values, pattern, configuration)
        steps = pattern.steps(configuration)
        d_words = length // configuration.elements
        stride = pattern.words_per_row(configuration, d_words)
        bits = SWord(configuration).size
        for a in range(rows):
            bank = a % configuration.rows
            words = zip(
                entries[a].reshape(-1, configuration.lanes),
                indices[a].reshape(-1, configuration.lanes),
                strict=True,
            )
            for number, (word_values, word_indices) in enumerate(words):
                word = sum(
                    (int(value) | int(index) << 16) << bits // configuration.lanes * lane
                    for lane, (value, index) in enumerate(
                        zip(word_values, word_indices, strict=True)
                    )
                )
                quarter = number % configuration.ratio
                place = bank % configuration.ratio * configuration.ratio + quarter
                dut.s_write__enable.value = 1 << bank
                dut.s_write__quarters.value = 1 << quarter
                dut.s_write__address.value = (
                    base + a // configuration.rows * stride + number // configuration.ratio
                )
                dut.s_write__words.value = word << place * bits
                await RisingEdge(dut.clk)
        dut.s_write__enable.value = 0
        chunk = np.arange(configuration.lanes) // configuration.lanes_per_chunk
        columns = (
            np.arange(d_words)[:, None, None] * configuration.elements
            + chunk * configuration.group
            + indices
        )
        assert entries.shape == (rows, d_words, steps, configuration.lanes)
        return Operand.compressed(entries.reshape(rows, -1), columns.reshape(rows, -1), length)

    async def write_d(self, base, values):
        """Write the rows of `values` ``[B, K]``."""
        configuration, dut = self.config, self.dut
        beats = values.reshape(len(values), -1, configuration.elements)
        for b, row in enumerate(beats):
            for word, beat in enumerate(row):
                dut.d_write__enable.value = 1 << b % configuration.cols
                dut.d_write__address.value = base + b // configuration.cols * len(row) + word
                dut.d_write__data.value = int.from_bytes(beat.astype("<u2").tobytes(), "little")
                await RisingEdge(dut.clk)
        dut.d_write__enable.value = 0

    def compute(self, s, d, **body):
        """Queue a command for operands that have been written."""
        sums = ExactSum.of(s, d)
        if self.kept is not None:
            sums = sums + self.kept
        self.kept = sums if body.get("keep") else None
        if not body.get("keep"):
            result = sums.round()
            b, a = (index.ravel() for index in np.indices(result.shape))
            columns, floats = self.config.cols, self.config.floats
            words = body["o_base"] + b // columns * body["o_stride"] + a // floats
            indices = (b % columns, words, a % floats)
            places = list(zip(*(index.tolist() for index in indices), strict=True))
            values = result.ravel()
            if body.get("accumulate"):
                values = add(np.array([self.written[place] for place in places]), values)
            self.expected.update(zip(places, values, strict=True))
            self.written.update(self.expected)
        self.commands.append(command(self.config, **body))

    async def run(self, pauses=None):
        """Send the queued commands, wait for their end, and compare the O banks."""
        before = self.done
        await send(self.dut, "command", self.commands, pauses)
        await self.until(lambda: self.done == before + len(self.commands))
        assert not int(self.dut.busy.value)
        self.commands.clear()
        await self.compare()

    async def until(self, condition, limit=20_000):
        for _ in range(limit):
            assert not int(self.dut.fault.value), "a fault"
            if condition():
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError("waited in vain")

    async def compare(self):
        dut, floats = self.dut, self.config.floats
        while not int(dut.o_read__ready.value):
            await RisingEdge(dut.clk)
        words = sorted({(bank, word) for bank, word, _ in self.expected})
        read = []
        for bank, word in [*words, *[words[-1]] * O_READ_LATENCY]:
            dut.o_read__bank.value = bank
            dut.o_read__address.value = word
            await RisingEdge(dut.clk)
            read.append(int(dut.o_read__data.value))
        for (bank, word), data in zip(words, read[O_READ_LATENCY:], strict=True):
            for position in range(floats):
                if (bank, word, position) in self.expected:
                    value = data >> 32 * position & 0xFFFFFFFF
                    expected = int(self.expected[bank, word, position])
                    assert value == expected, (
                        f"bank {bank}, word {word}, position {position}:"
                        f" {value:08x}, not {expected:08x}"
                    )
        self.expected.clear()

    def shape(self, a_tiles, b_tiles, d_words, a_contexts=0):
        """Rows of S, rows of D, length."""
        configuration = self.config
        return (
            a_tiles * configuration.rows << a_contexts,
            b_tiles * (configuration.interleave >> a_contexts) * configuration.cols,
            d_words * configuration.elements,
        )


async def begin(dut):
    random = rng()
    bench = Bench(dut, config(), random)
    await start(dut)
    cocotb.start_soon(bench.watch())
    return bench


@cocotb.test()
async def every_pattern(dut):
    """Every pattern with every way to share the contexts out, sums of any length, specials."""
    bench = await begin(dut)
    configuration, random = bench.config, bench.random
    for pattern, a_contexts in itertools.product(
        supported_patterns(configuration), range(exact_log2(configuration.interleave) + 1)
    ):
        for least, special in ((1, False), (2, True)):
            a_tiles, b_tiles, d_words = (int(n) for n in random.integers(least, least + 2, 3))
            a, b, k = bench.shape(a_tiles, b_tiles, d_words, a_contexts)
            s_base, d_base, o_base = (int(random.integers(4)) for _ in range(3))
            o_stride = -(-a // configuration.floats) + int(random.integers(2))
            d = bench.halves((b, k), special=special)
            s = await bench.write_s(s_base, bench.halves((a, k), special=special), pattern)
            await bench.write_d(d_base, d)
            macs = bench.mac_slots
            bench.compute(
                s, Operand.dense(d), s_base=s_base, d_base=d_base, o_base=o_base,
                o_stride=o_stride, d_words=d_words, a_tiles=a_tiles, b_tiles=b_tiles,
                pattern=pattern, a_contexts=a_contexts,
            )  # fmt: skip
            await bench.run()
            slots = a_tiles * b_tiles * configuration.interleave
            assert bench.mac_slots - macs == slots * d_words * pattern.steps(configuration)


@cocotb.test()
async def every_mac_is_accounted_for(dut):
    """Useful, padding and left-out products, counted one by one from the shapes."""
    bench = await begin(dut)
    configuration, random = bench.config, bench.random
    for _ in range(24):
        pattern = random.choice(supported_patterns(configuration))
        a_contexts = int(random.integers(exact_log2(configuration.interleave) + 1))
        a_tiles, b_tiles, d_words = (int(random.integers(1, 3)) for _ in range(3))
        a, b, _ = bench.shape(a_tiles, b_tiles, d_words, a_contexts)
        a_padding, b_padding = int(random.integers(a)), int(random.integers(b))
        # Real elements of the last D word, and the entries that are kept of them.
        real = int(random.integers(1, configuration.elements + 1))
        groups = -(-real // pattern.m) if pattern.m > 1 else real
        entries = groups * pattern.n
        per_chunk = pattern.entries_per_chunk(configuration)
        tail = (0, 0) if real == configuration.elements else divmod(entries, per_chunk)
        if tail[0] == configuration.chunks:
            tail = (0, 0)
        body = {
            "o_stride": -(-a // configuration.floats), "d_words": d_words, "a_tiles": a_tiles,
            "b_tiles": b_tiles, "pattern": pattern, "a_contexts": a_contexts,
            "a_padding": a_padding, "b_padding": b_padding,
            "tail_chunks": tail[0], "tail_entries": tail[1],
        }  # fmt: skip
        bench.counted = dict.fromkeys(bench.counted, 0)
        slots, done = bench.mac_slots, bench.done
        await send(dut, "command", [command(configuration, **body)])
        await bench.until(lambda done=done: bench.done == done + 1)
        slots = bench.mac_slots - slots
        length = (d_words - 1) * per_chunk * configuration.chunks + entries
        counted = bench.counted
        assert counted["useful"] == (a - a_padding) * (b - b_padding) * length
        assert sum(counted.values()) == slots * configuration.macs
        assert (counted["filler"] > 0) == (per_chunk < configuration.lanes_per_chunk)


@cocotb.test()
async def walks_find_their_words(dut):
    """Random walks, forwards and backwards, that stand still, begin again, or reach far."""
    bench = await begin(dut)
    configuration, random = bench.config, bench.random
    depth, contexts, d_words = configuration.d_depth, configuration.interleave, 5
    words = bench.halves((depth, configuration.cols, configuration.elements))
    await bench.write_d(0, words.reshape(-1, configuration.elements))
    a, _, k = bench.shape(contexts, 1, d_words)
    patterns = (Pattern.DENSE, Pattern.N2M4, Pattern.N1M8)
    s = [
        await bench.write_s(index * contexts * d_words, bench.halves((a, k)), pattern)
        for index, pattern in enumerate(patterns)
    ]
    o_base, o_stride = 0, a // configuration.floats

    def random_walk():
        loops = []
        for _ in range(WALK_DIMENSIONS):
            count = int(random.choice([1, 2, 3, 5, 8]))
            # Six loops together stay in the scratchpad.
            longest = (depth - 1) // (2 * WALK_DIMENSIONS) // max(1, count - 1)
            loops.append((count, int(random.integers(-longest, longest + 1))))
        return walk(*loops)

    for number in range(60):
        kept, keep = bench.kept is not None, int(number < 59 and random.integers(4) == 0)
        # Sums are kept for one tile, in which all rows of S are contexts.
        whole = kept or keep
        a_contexts = exact_log2(contexts) - (0 if whole else int(random.integers(3)))
        b_tiles = 1 if whole else int(random.integers(1, 4))
        rows, reduction = random_walk(), random_walk()
        lowest, highest = map(sum, zip(walked(rows).reach, walked(reduction).reach, strict=True))
        d_base = int(random.choice([-lowest, depth - 1 - highest]))
        if random.integers(2):
            d_base = int(random.integers(-lowest, depth - highest))
        bank_rows = b_tiles * contexts >> a_contexts
        places = walked(rows).offsets(bank_rows)[:, None] + walked(reduction).offsets(d_words)
        d = words[d_base + places].swapaxes(1, 2).reshape(-1, k)
        if o_base + bank_rows * o_stride > configuration.o_depth:
            await bench.run(random if number % 2 else None)
            o_base = 0
        index = int(random.integers(len(patterns)))
        bench.compute(
            s[index], Operand.dense(d), s_base=index * contexts * d_words, d_base=d_base,
            o_base=o_base, o_stride=o_stride, d_words=d_words, d_rows=rows, d_reduction=reduction,
            a_tiles=contexts >> a_contexts, b_tiles=b_tiles, pattern=patterns[index],
            a_contexts=a_contexts, keep=keep,
        )  # fmt: skip
        o_base += 0 if keep else bank_rows * o_stride
    await bench.run()


@cocotb.test()
async def a_kernel_moves_over_pixels(dut):
    """Outputs of a convolution with stride 2, from input pixels that lie there once."""
    bench = await begin(dut)
    configuration = bench.config
    images, size, kernel, stride = 2, 2, 3, 2
    edge, d_words = stride * (size - 1) + kernel, kernel * kernel
    pixels = bench.halves((edge, edge, images, configuration.cols, configuration.elements))
    base = configuration.d_depth - edge * edge * images
    await bench.write_d(base, pixels.reshape(-1, configuration.elements))
    a, _, k = bench.shape(1, 1, d_words)
    s = await bench.write_s(0, bench.halves((a, k)), Pattern.DENSE)
    taps = np.stack([
        pixels[i : i + stride * size : stride, j : j + stride * size : stride]
        for i, j in np.ndindex(kernel, kernel)
    ], axis=-2)  # fmt: skip
    bench.compute(
        s, Operand.dense(taps.reshape(-1, k)), d_base=base, o_base=0, pattern=Pattern.DENSE,
        o_stride=-(-a // configuration.floats), d_words=d_words, a_tiles=1,
        b_tiles=size * size * images // configuration.interleave,
        d_rows=walk((images, 1), (size, stride * images), (size, stride * edge * images)),
        d_reduction=walk((1, 0), (kernel, images), (kernel, edge * images)),
    )  # fmt: skip
    await bench.run()


@cocotb.test()
async def ones_sum_the_s_operand(dut):
    bench = await begin(dut)
    a, b, k = bench.shape(2, 1, 2)
    s = await bench.write_s(0, bench.halves((a, k)), Pattern.DENSE)
    bench.compute(
        s, Operand.dense(np.full((b, k), ONE, np.uint16)), o_base=1,
        o_stride=-(-a // bench.config.floats), d_words=2, a_tiles=2, b_tiles=1,
        pattern=Pattern.DENSE, ones=1,
    )  # fmt: skip
    await bench.run()


@cocotb.test()
async def kept_sums_go_on(dut):
    bench = await begin(dut)
    a, b, k = bench.shape(1, 1, 2)
    patterns = (Pattern.N2M8, Pattern.DENSE, Pattern.N1M4)
    for index, pattern in enumerate(patterns):
        d = bench.halves((b, k))
        base = 2 * index * bench.config.interleave
        s = await bench.write_s(4 * index, bench.halves((a, k)), pattern)
        await bench.write_d(base, d)
        bench.compute(
            s, Operand.dense(d), s_base=4 * index, d_base=base, o_base=3, o_stride=2, d_words=2,
            a_tiles=1, b_tiles=1, pattern=pattern, keep=index < 2,
        )  # fmt: skip
    await bench.run()


@cocotb.test()
async def results_are_added_up(dut):
    """Parts of long reductions, long and short ones, to places that others have just got to."""
    bench = await begin(dut)
    configuration, random = bench.config, bench.random
    contexts, floats = configuration.interleave, configuration.floats
    shape = (configuration.d_depth, configuration.cols, configuration.elements)
    words = bench.halves(shape)
    words = np.where(random.random(shape) < 1e-3, bench.halves(shape, special=True), words)
    await bench.write_d(0, words.reshape(-1, configuration.elements))
    a, _, _ = bench.shape(2 * contexts, 1, 1)
    s = []
    for index, (pattern, d_words) in enumerate(((Pattern.N2M8, 1), (Pattern.DENSE, 3))):
        values = bench.halves((a, d_words * configuration.elements))
        s.append((await bench.write_s(2 * contexts * index, values, pattern), pattern, d_words))

    def compute(kind, o_base, a_tiles, b_tiles, a_contexts, o_stride, **body):
        operand, pattern, d_words = s[kind]
        a, b, k = bench.shape(a_tiles, b_tiles, d_words, a_contexts)
        bank_rows = b // configuration.cols
        d_base = int(random.integers(configuration.d_depth - bank_rows - d_words))
        places = d_base + np.arange(bank_rows)[:, None] + np.arange(d_words)
        bench.compute(
            first_rows(operand, a), Operand.dense(words[places].swapaxes(1, 2).reshape(b, k)),
            s_base=2 * contexts * kind, d_base=d_base, o_base=o_base, o_stride=o_stride,
            d_words=d_words, d_rows=walk((bank_rows, 1)), d_reduction=walk((d_words, 1)),
            a_tiles=a_tiles, b_tiles=b_tiles, pattern=pattern, a_contexts=a_contexts, **body,
        )  # fmt: skip

    a_tiles = -(-floats // configuration.rows)
    compute(0, 0, a_tiles, 6, 0, 1)
    for number in range(150):
        a_contexts = int(random.integers(exact_log2(contexts) + 1))
        a_tiles, b_tiles = int(random.integers(1, 3)), int(random.integers(1, 3))
        least = -(-(a_tiles * configuration.rows << a_contexts) // floats)
        o_stride = least + int(random.integers(2))
        last = ((b_tiles * contexts >> a_contexts) - 1) * o_stride + least - 1
        if last < 6 * contexts:
            o_base = int(random.integers(6 * contexts - last))
            kind = int(random.random() < 0.2)
            compute(
                kind, o_base, a_tiles, b_tiles, a_contexts, o_stride,
                accumulate=int(random.random() < 0.9),
            )  # fmt: skip
        if number % 50 == 49:
            await bench.run(random if number == 99 else None)


@cocotb.test()
async def results_are_added_to_what_has_just_come(dut):
    """The last output of a product is where the first one of the next is."""
    bench = await begin(dut)
    contexts, products = bench.config.interleave, 12
    a, b, k = bench.shape(1, 1, 1)
    d = bench.halves((b, k))
    s = await bench.write_s(0, bench.halves((a, k)), Pattern.N2M8)
    await bench.write_d(0, d)
    stride = -(-a // bench.config.floats)
    body = GOOD | {"o_stride": stride}
    for o_base in range(0, products * contexts, contexts):
        bench.compute(s, Operand.dense(d), o_base=o_base * stride, **body)
    for number in range(products):
        o_base = number * (contexts - 1) * stride
        bench.compute(s, Operand.dense(d), o_base=o_base, accumulate=1, **body)
    await bench.run()


@cocotb.test()
async def reads_wait_for_what_is_added_to(dut):
    """A read is carried out in the cycles in which the port is ready, and in all without such."""
    bench = await begin(dut)
    configuration, random = bench.config, bench.random
    a, b, k = bench.shape(1, 1, 4)
    d = bench.halves((b, k))
    s = await bench.write_s(0, bench.halves((a, k)), Pattern.DENSE)
    await bench.write_d(0, d)
    stride = -(-a // configuration.floats)
    body = {"d_words": 4, "pattern": Pattern.DENSE, "o_stride": stride, "a_tiles": 1, "b_tiles": 1}
    rows = configuration.interleave * stride
    bench.compute(s, Operand.dense(d), **body, o_base=0)
    await bench.run()
    standing = dict(bench.written)
    waits = []

    async def read():
        asked = []
        while True:
            bank, word = int(random.integers(configuration.cols)), int(random.integers(rows))
            dut.o_read__bank.value, dut.o_read__address.value = bank, word
            await RisingEdge(dut.clk)
            ready = int(dut.o_read__ready.value)
            waits.append(not ready)
            asked.append((bank, word) if ready else None)
            if len(asked) > O_READ_LATENCY and (place := asked.pop(0)):
                data = int(dut.o_read__data.value)
                for position in range(configuration.floats):
                    if (*place, position) in standing:
                        value = data >> 32 * position & 0xFFFFFFFF
                        assert value == int(standing[*place, position])

    reader = cocotb.start_soon(read())
    for accumulate in (0, 1):
        waits.clear()
        for number in range(8):
            o_base = rows * (1 + number % 2)
            bench.compute(
                s, Operand.dense(d), **body, o_base=o_base,
                accumulate=int(accumulate and number > 1),
            )  # fmt: skip
        done = bench.done + len(bench.commands)
        await send(dut, "command", bench.commands)
        await bench.until(lambda done=done: bench.done == done)
        bench.commands.clear()
        assert any(waits) == bool(accumulate)
    reader.cancel()
    await bench.compare()


@cocotb.test()
async def commands_follow_each_other(dut):
    """Small commands back to back: more than the engine can have under way, then with pauses."""
    bench = await begin(dut)
    a, b, k = bench.shape(1, 1, 1)
    d = bench.halves((b, k))
    operand = await bench.write_s(0, bench.halves((a, k)), Pattern.N2M8)
    await bench.write_d(0, d)
    stride = -(-a // bench.config.floats)
    for pauses in (None, bench.random):
        for index in range(12):
            keep = int(bench.random.integers(2)) if index < 11 else 0
            bench.compute(
                operand, Operand.dense(d), o_base=4 * (index % 4), o_stride=stride, d_words=1,
                a_tiles=1, b_tiles=1, pattern=Pattern.N2M8, keep=keep,
            )  # fmt: skip
        await bench.run(pauses)


@cocotb.test()
async def products_keep_the_array_busy(dut):
    """No cycle is lost between tiles or products, as long as draining a tile hides behind one."""
    bench = await begin(dut)
    configuration = bench.config
    contexts = configuration.interleave
    # A way out passes on one result a cycle.
    drain = contexts * max(4, configuration.drain_rows)
    for d_words, (a_tiles, b_tiles) in itertools.product((4, 3, 2, 1), ((2, 1), (1, 2))):
        a, b, k = bench.shape(a_tiles, b_tiles, d_words)
        d = bench.halves((b, k))
        s = await bench.write_s(0, bench.halves((a, k)), Pattern.N2M4)
        await bench.write_d(0, d)
        products = 4
        for index in range(products):
            bench.compute(
                s, Operand.dense(d), o_base=2 * contexts * index,
                o_stride=-(-a // configuration.floats), d_words=d_words, a_tiles=a_tiles,
                b_tiles=b_tiles, pattern=Pattern.N2M4,
            )  # fmt: skip
        bench.activity.clear()
        await bench.run()
        tile = contexts * d_words * Pattern.N2M4.steps(configuration)
        first, *_, last = [cycle for cycle, active in enumerate(bench.activity) if active]
        # The first two tiles find both halves of the bins empty.
        bound = (products * a_tiles * b_tiles - 2) * max(tile, drain) + 2 * tile
        assert last - first + 1 <= bound + (0 if tile >= drain else drain_distance(configuration))


@cocotb.test()
async def done_says_that_results_can_be_read(dut):
    bench = await begin(dut)
    configuration = bench.config
    dut.o_read__bank.value = configuration.cols - 1
    dut.o_read__address.value = configuration.interleave - 1
    position = (configuration.rows - 1) % configuration.floats
    for _ in range(2):
        a, b, k = bench.shape(1, 1, 1)
        d = bench.halves((b, k))
        s = await bench.write_s(0, bench.halves((a, k)), Pattern.N2M8)
        await bench.write_d(0, d)
        await send(dut, "command", [command(configuration)])
        while not int(dut.done.value):
            await RisingEdge(dut.clk)
        # This was the edge that ended the cycle of `done`, in which the address was there.
        await clocks(dut, O_READ_LATENCY)
        last = int(dut.o_read__data.value) >> 32 * position & 0xFFFFFFFF
        assert last == int(ExactSum.of(s, Operand.dense(d)).round()[-1, -1])


@cocotb.test()
async def faults_stop_the_engine(dut):
    configuration = config()
    contexts = configuration.interleave
    cases = [
        ({"d_words": 0}, Fault.MALFORMED, 0),
        ({"a_tiles": 0}, Fault.MALFORMED, 0),
        ({"b_tiles": 0}, Fault.MALFORMED, 0),
        ({"keep": 1, "a_tiles": 2}, Fault.MALFORMED, 0),
        ({"keep": 1, "b_tiles": 2}, Fault.MALFORMED, 0),
        ({"keep": 1, "accumulate": 1}, Fault.MALFORMED, 0),
        ({"accumulate": 1, "o_stride": 0}, Fault.MALFORMED, 0),
        (
            {"accumulate": 1, "a_tiles": 2 * configuration.floats // configuration.rows + 1,
             "o_stride": 2}, Fault.MALFORMED, 0,
        ),
        ({"a_contexts": exact_log2(contexts) + 1}, Fault.MALFORMED, 0),
        ({"a_padding": configuration.rows}, Fault.MALFORMED, 0),
        ({"b_padding": contexts * configuration.cols}, Fault.MALFORMED, 0),
        ({"a_contexts": 1, "b_padding": contexts * configuration.cols // 2}, Fault.MALFORMED, 0),
        ({"a_tiles": 2, "a_padding": 2 * configuration.rows}, Fault.MALFORMED, 0),
        ({"tail_chunks": configuration.chunks}, Fault.MALFORMED, 0),
        ({"tail_entries": configuration.group // 4 + 1}, Fault.MALFORMED, 0),
        ({"s_base": configuration.s_depth}, Fault.SCRATCHPAD_RANGE, configuration.s_depth),
        (
            {"s_base": configuration.s_depth - 1, "a_tiles": 2},
            Fault.SCRATCHPAD_RANGE, configuration.s_depth - 1,
        ),
        (
            {"d_base": configuration.d_depth - contexts + 1},
            Fault.SCRATCHPAD_RANGE, configuration.d_depth - contexts + 1,
        ),
        ({"b_tiles": 0xFFFF, "d_base": 2, "d_rows": walk((0xFFFF, 1))}, Fault.SCRATCHPAD_RANGE, 2),
        (
            {"o_base": configuration.o_depth - contexts + 1},
            Fault.SCRATCHPAD_RANGE, configuration.o_depth - contexts + 1,
        ),
        ({"o_stride": 0xFFFF, "o_base": 5}, Fault.SCRATCHPAD_RANGE, 5),
        # Walks: no round, and words above and below those of the scratchpad.
        *(
            ({name: walk(*[(1, 1)] * place, (0, 1))}, Fault.MALFORMED, 0)
            for name in ("d_rows", "d_reduction") for place in range(3)
        ),
        *(
            ({"d_base": base, name: walk(*[(1, 9)] * place, (count, step))},
             Fault.SCRATCHPAD_RANGE, base)
            for name in ("d_rows", "d_reduction") for place in range(3)
            for base, count, step in (
                (1, configuration.d_depth, 1), (0, 2, configuration.d_depth), (1, 3, -1),
                (configuration.d_depth - 1, 0xFFFF, -0x8000), (1, 0xFFFF, 0x7FFF),
                # As many words as would do if addresses had 16 or 32 bits.
                (3, 3, -0x8000), (0, 5, 0x4000),
            )
        ),
        *(
            ({name: walk(*[(0xFFFF, step)] * 3) for name in ("d_rows", "d_reduction")}
             | {"d_base": 7}, Fault.SCRATCHPAD_RANGE, 7)
            for step in (0x7FFF, -0x8000)
        ),
        # Each within its bounds, but not both.
        (
            {"d_base": 2, "d_rows": walk((3, 1), (2, configuration.d_depth - 8)),
             "d_reduction": walk((2, 4))}, Fault.SCRATCHPAD_RANGE, 2,
        ),
        ({"d_base": 4, "d_rows": walk((3, -1)), "d_reduction": walk((4, -1))},
         Fault.SCRATCHPAD_RANGE, 4),
        # Which of several faults is told.
        ({"d_rows": walk((0, 1)), "pattern": Pattern.N2M16}, Fault.MALFORMED, 0),
        ({"d_base": 0xFFFF, "s_base": 0xFFFE}, Fault.SCRATCHPAD_RANGE, 0xFFFE),
        ({"d_base": 0xFFFF, "o_base": 0xFFFE}, Fault.SCRATCHPAD_RANGE, 0xFFFF),
        # Ones are in no scratchpad.
        ({"ones": 1, "d_base": 0xFFFF, "d_rows": walk((0, 1)), "o_base": 0xFFFE},
         Fault.SCRATCHPAD_RANGE, 0xFFFE),
    ]  # fmt: skip
    if Pattern.N2M16 not in supported_patterns(configuration):
        cases.append(({"pattern": Pattern.N2M16}, Fault.PATTERN, 0))
    bench = await begin(dut)
    for changed, code, address in cases:
        await send(dut, "command", [command(configuration), command(configuration, **changed)])
        await expect_fault(bench, code, address, done=1)


@cocotb.test()
async def kept_sums_keep_their_contexts(dut):
    bench = await begin(dut)
    kept = command(bench.config, keep=1, a_contexts=1)
    await send(dut, "command", [kept, command(bench.config)])
    await expect_fault(bench, Fault.MALFORMED, 0, done=1)


@cocotb.test()
async def largest_addresses_are_accepted(dut):
    configuration = config()
    bench = await begin(dut)
    a, b, k = bench.shape(1, 1, 1)
    base = configuration.d_depth - configuration.interleave
    d = bench.halves((b, k))
    s = await bench.write_s(configuration.s_depth - 1, bench.halves((a, k)), Pattern.N2M8)
    await bench.write_d(base, d)
    bench.compute(
        s, Operand.dense(d), s_base=configuration.s_depth - 1, d_base=base,
        o_base=configuration.o_depth - configuration.interleave,
        **GOOD,
    )  # fmt: skip
    await bench.run()


@cocotb.test()
async def overrun_stops_the_engine(dut):
    """Only where a few products make the longest reduction."""
    configuration = config()
    bench = await begin(dut)
    longest = configuration.max_additions // configuration.ratio
    words = min(configuration.d_depth // configuration.interleave, longest)
    steps = words * configuration.ratio
    commands = configuration.max_additions // steps
    if commands > 64:
        return
    body = {"d_words": words, "pattern": Pattern.DENSE}
    kept = command(configuration, **body, keep=1)
    exact = [kept] * (commands - 1) + [command(configuration, **body)]
    await send(dut, "command", [*exact, *[kept] * commands])
    await send(dut, "command", [command(configuration)])
    await expect_fault(bench, Fault.OVERRUN, 0, done=2 * commands)


async def expect_fault(bench, code, address, done):
    """Check a fault after `done` commands since reset; then reset."""
    dut = bench.dut
    dut.command__valid.value = 1
    dut.command__payload.value = command(bench.config)
    for _ in range(5_000):
        await RisingEdge(dut.clk)
        if int(dut.fault.value):
            break
    assert bench.done == done
    for _ in range(100):
        await RisingEdge(dut.clk)
        assert not int(dut.done.value) and not int(dut.command__ready.value)
        report = unpack(FaultReport, int(dut.fault.value))
        assert (report.code, report.address) == (code, address)
    dut.command__valid.value = 0
    dut.rst.value = 1
    await clocks(dut, 1)
    dut.rst.value = 0
    await clocks(dut, 1)
    bench.done = 0


@cocotb.test()
async def reset_forgets_sums(dut):
    """A reset at any time: what was under way leaves nothing behind."""
    bench = await begin(dut)
    a, b, k = bench.shape(1, 1, 1)
    d = bench.halves((b, k), special=True)
    s = await bench.write_s(0, bench.halves((a, k), special=True), Pattern.DENSE)
    await bench.write_d(0, d)
    body = GOOD | {"pattern": Pattern.DENSE, "o_stride": -(-a // bench.config.floats)}
    for wait in (12, 23, 40, 55):
        commands = [command(bench.config, **body), command(bench.config, **body, keep=1)]
        await send(dut, "command", commands)
        await clocks(dut, wait)
        dut.rst.value = 1
        await clocks(dut, 1)
        dut.rst.value = 0
        bench.compute(s, Operand.dense(d), o_base=4, **body)
        await bench.run()


SHAPES = {
    "tiny": preset("tiny"),
    "tall": dataclasses.replace(
        preset("tiny"), name="tall", rows=8, cols=1, interleave=8, lanes=8, group=16, drain_rows=8,
        bin_bits=44, accumulator_bits=50, s_depth=128, d_depth=128, o_depth=128,
    ),
    "wide": dataclasses.replace(
        preset("tiny"), name="wide", rows=8, cols=2, lanes=4, ratio=8, group=16, drain_rows=4,
        bin_bits=45, bin_ports=1, accumulator_bits=64,
    ),
}  # fmt: skip
"""The smallest, one of a single column whose sums share their way, and one with two ways out and
single ports of the bins."""


@pytest.mark.parametrize("name", SHAPES)
def test_tensor_engine(name):
    simulate(
        TensorEngine(SHAPES[name]),
        name=f"tensor_engine_{name}",
        testbench=__name__,
        config=SHAPES[name],
    )
