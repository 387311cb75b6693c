"""The update unit against the golden model: state, both copies, order, faults."""

import dataclasses
from dataclasses import dataclass, field

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import Config, preset
from rtl.control.commands import Fault, UpdateBody
from rtl.control.fault import FaultReport
from rtl.memory.descriptor import Descriptor
from rtl.sparsity.pattern import Pattern, supported_patterns
from rtl.update.pregeneration import UpdateUnit
from sim.golden.sparsity import pack_state_tile
from sim.golden.update import update
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start, unpack

CONFIGS = {
    "tiny": preset("tiny"),
    "sliced": dataclasses.replace(preset("tiny"), name="sliced", update_slices=2),
    "one-lane": dataclasses.replace(preset("tiny"), name="one-lane", update_slices=8),
    "one-chunk-rows": dataclasses.replace(
        preset("tiny"), name="one-chunk-rows", ratio=2, update_slices=2, compressed_stores=0
    ),
    "two-chunk-beats": Config("two-chunk-beats", rows=4, cols=4, o_depth=64),
    "wide-groups": Config("wide-groups", rows=4, cols=4, group=16, o_depth=64),
}

STATE, ROW, COLUMN = 0x10_0000, 0x20_0000, 0x30_0000
SPACING = 0x1_0000
"""Between the addresses of one job and the next."""
SPECIALS = np.array(
    [0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345,
     0x7F7FFFFF, 0x33000000, 0x477FF000, 0x3F800000, 0xBF800000],
    np.uint32,
)  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_update_unit(name):
    configuration = CONFIGS[name]
    simulate(
        UpdateUnit(configuration), name="update_unit", testbench=__name__, config=configuration
    )


def floats(values):
    return np.asarray(values, np.float32).view(np.uint32)


def bits(value):
    return int(floats([value])[0])


@dataclass
class Job:
    """One command with its operands and what it must write."""

    body: dict
    state: list[int]
    image: dict[int, int] = field(default_factory=dict)


def beats_of(raw, c):
    raw = np.ascontiguousarray(raw).reshape(-1, c.beat_bytes)
    return [int.from_bytes(beat.tobytes(), "little") for beat in raw]


def values(random, shape, specials, spread=0.1):
    """Return random binary32 bits, a share of them `SPECIALS`."""
    result = floats(random.normal(0, spread, shape))
    # Few significant bits: magnitudes that tie once they are binary16.
    coarse = random.random(shape) < 0.3
    result = np.where(coarse, result & 0xFFC00000, result).astype(np.uint32)
    return np.where(random.random(shape) < specials, random.choice(SPECIALS, shape), result).astype(
        np.uint32
    )


def make_job(bench, *, tiles=1, rows=None, row=None, column=None, base=0, **body):
    """Return a job with random state; `row` and `column` are patterns of copies, None for none.

    Addresses are moved by `base`.
    """
    c = config()
    rows = rows or c.elements
    where = {"o_base": 3, "o_stride": 2} | body
    w = values(bench.random, (tiles, rows, c.elements), bench.specials)
    v = values(bench.random, (tiles, rows, c.elements), bench.specials, 0.01)
    b = np.arange(tiles)[:, None] * c.elements + np.arange(rows)
    words = where["o_base"] + b // c.cols * where["o_stride"]
    g = bench.o[(b % c.cols)[..., None], words[..., None] + np.arange(2)].reshape(w.shape)
    numbers = {"rate": bits(0.05), "momentum": bits(0.9), "decay": bits(5e-4), "scale": 10}
    numbers |= {name: body.pop(name) for name in list(body) if name in numbers}
    golden = update(w, v, g, c, row_pattern=row, column_pattern=column, **numbers)

    job = Job(
        {
            "tiles": tiles,
            "rows": rows,
            "row_pattern": row or Pattern.DENSE,
            "column_pattern": column or Pattern.DENSE,
            "row_copy": row is not None,
            "column_copy": column is not None,
            "state_address": STATE + base,
            "row_address": ROW + base,
            "column_address": COLUMN + base,
            "row_stride": 3 * c.elements * c.beat_bytes,
            "column_stride": 5 * c.elements * c.beat_bytes,
            **numbers,
            **where,
        },
        beats_of(pack_state_tile(w, v), c),
    )
    for beat, value in enumerate(beats_of(pack_state_tile(golden.w, golden.v), c)):
        job.image[job.body["state_address"] + beat * c.beat_bytes] = value
    for copy, kind in ((golden.row_copy, "row"), (golden.column_copy, "column")):
        if copy is not None:
            for tile in range(tiles):
                address = job.body[f"{kind}_address"] + tile * job.body[f"{kind}_stride"]
                for beat, value in enumerate(beats_of(copy[tile], c)):
                    job.image[address + beat * c.beat_bytes] = value
    return job


class Bench:
    """The unit with an O scratchpad, and the memory that its results make."""

    def __init__(self, dut, *, specials=0.0):
        c = config()
        self.dut = dut
        self.random = rng()
        self.specials = specials
        self.o = values(self.random, (c.cols, c.o_depth, c.floats), specials, 30.0)
        self.ready = 1.0
        """How often the O scratchpad is ready."""
        self.memory = {}
        self.parts = []
        self.data_beats = 0
        self.beats_at_done = []

    async def scratchpad(self):
        dut, word = self.dut, 0
        words = [beats_of(bank.astype("<u4").view(np.uint8), config()) for bank in self.o]
        while True:
            ready = int(self.random.random() < self.ready)
            dut.o_read__ready.value = ready
            await RisingEdge(dut.clk)
            dut.o_read__data.value = word
            # What another read finds means nothing.
            word = words[int(dut.o_read__bank.value) if ready else 0][
                int(dut.o_read__address.value) if ready else 0
            ]

    async def watch(self):
        """Count `done` and see that beats never overtake their descriptor."""
        dut, announced = self.dut, 0
        while True:
            await RisingEdge(dut.clk)
            if dut.data__valid.value and dut.data__ready.value:
                assert self.data_beats < announced, "a beat came before its descriptor"
                self.data_beats += 1
            if dut.descriptor__valid.value and dut.descriptor__ready.value:
                descriptor = unpack(Descriptor, dut.descriptor__payload.value)
                announced += descriptor.counts[0]
            if dut.done.value:
                self.beats_at_done.append(self.data_beats)

    async def run(self, jobs, random=None):
        """Carry out `jobs` back to back and check what they write; return the cycles taken."""
        dut, c = self.dut, config()
        self.ready = 1.0 if random is None else 0.8
        tasks = [cocotb.start_soon(task) for task in (self.scratchpad(), self.watch())]
        state = [beat for job in jobs for beat in job.state]
        bodies = [pack(UpdateBody, job.body) for job in jobs]
        tasks += [
            cocotb.start_soon(send(dut, "command", bodies, random, timeout=20_000)),
            cocotb.start_soon(send(dut, "state", state, random)),
        ]
        total = sum(len(job.image) for job in jobs)

        async def descriptors():
            taken = 0
            while taken < total:
                [payload] = await receive(dut, "descriptor", 1, random)
                descriptor = unpack(Descriptor, payload)
                assert list(descriptor.counts)[1:] == [1, 1, 1]
                self.parts.append((int(descriptor.address), int(descriptor.counts[0])))
                taken += self.parts[-1][1]

        tasks.append(cocotb.start_soon(descriptors()))
        received = cocotb.start_soon(receive(dut, "data", total, random))
        cycles = 0
        while len(self.beats_at_done) < len(jobs):
            await RisingEdge(dut.clk)
            cycles += 1
            assert not int(dut.fault.value)
        assert self.beats_at_done == list(np.cumsum([len(job.image) for job in jobs]))
        for task in tasks:
            task.cancel()

        beats = iter(received.result())
        for start_address, count in self.parts:
            for address in range(start_address, start_address + count * c.beat_bytes, c.beat_bytes):
                assert address not in self.memory, f"{address:#x} is written twice"
                self.memory[address] = next(beats)
        self.check(jobs)
        return cycles

    def check(self, jobs):
        expected = {}
        for job in jobs:
            expected |= job.image
        assert self.memory.keys() == expected.keys()
        wrong = [address for address in expected if self.memory[address] != expected[address]]
        assert not wrong, "\n".join(
            f"{address:#x}: {self.memory[address]:#x}, expected {expected[address]:#x}"
            for address in wrong[:4]
        )


@cocotb.test()
async def makes_every_pattern(dut):
    await start(dut)
    bench = Bench(dut, specials=0.05)
    patterns = supported_patterns(config())
    jobs = [
        make_job(bench, row=row, column=column, base=index * SPACING)
        for index, (row, column) in enumerate(zip(patterns, patterns[3:] + patterns[:3]))
    ]
    await bench.run(jobs, bench.random)


@cocotb.test()
async def makes_any_choice_of_copies(dut):
    await start(dut)
    bench = Bench(dut)
    jobs = [
        make_job(bench, tiles=2, row=row, column=column, base=index * SPACING)
        for index, (row, column) in enumerate(
            [(None, None), (Pattern.N2M8, None), (None, Pattern.N2M8), (Pattern.DENSE, None)]
        )
    ]
    await bench.run(jobs, bench.random)


@cocotb.test()
async def updates_vectors(dut):
    await start(dut)
    bench = Bench(dut)
    g = config().elements
    jobs = [
        make_job(bench, tiles=tiles, rows=rows, row=row, o_stride=1,
                 base=index * SPACING)
        for index, (tiles, rows, row) in enumerate(
            [(1, 1, Pattern.DENSE), (3, 1, Pattern.DENSE), (2, 3, Pattern.DENSE),
             (2, g - 1, Pattern.DENSE), (4, 2, None), (1, config().group, Pattern.DENSE)]
        )
    ]  # fmt: skip
    await bench.run(jobs, bench.random)


@cocotb.test()
async def writes_several_tiles_in_order(dut):
    await start(dut)
    bench = Bench(dut)
    job = make_job(bench, tiles=3, row=Pattern.N2M8, column=Pattern.N4M8, o_base=0, o_stride=2)
    await bench.run([job], bench.random)
    g, c = config().elements, config()
    parts = [address for address, _ in bench.parts]
    for tile in range(3):
        last_state = STATE + ((tile + 1) * g - c.group) * 4 * c.beat_bytes
        row = ROW + tile * job.body["row_stride"]
        column = COLUMN + tile * job.body["column_stride"]
        assert parts.index(last_state) < parts.index(row) < parts.index(column)


@cocotb.test()
async def keeps_the_write_bus_busy(dut):
    await start(dut)
    for row, column in [(Pattern.N2M8, Pattern.N2M8), (Pattern.DENSE, Pattern.DENSE)]:
        bench = Bench(dut)
        job = make_job(bench, tiles=12, row=row, column=column, o_stride=0)
        cycles = await bench.run([job])
        # The pipeline fills once; the last column copy waits for the transposer, which takes one
        # element a cycle from a single lane. With few lanes, they are what is busy: two beats of
        # state go through them at a time.
        c = config()
        state = 12 * c.elements * 4
        least = max(len(job.image), state // 2 * (c.floats // c.update_lanes))
        last_tile = 2 * c.elements**2 if c.update_lanes == 1 else 0
        # Tiles whose rows are a single chunk are too short to hide all of the way to the next.
        least += 12 * 8 if c.chunks == 1 else 0
        assert cycles <= least + last_tile + 80, f"{cycles} cycles for {len(job.image)} beats"


@cocotb.test()
async def rounds_any_hyperparameters(dut):
    await start(dut)
    bench = Bench(dut, specials=0.2)
    jobs = [
        make_job(
            bench, row=Pattern.N2M8, column=Pattern.N2M8, base=index * SPACING,
            rate=bits(rate), momentum=bits(momentum), decay=bits(decay), scale=scale,
        )
        for index, (rate, momentum, decay, scale) in enumerate(
            [(1.0, 0.0, 0.0, 0), (1e-38, 1.0, 1e30, 127), (3e38, 0.5, -1.0, -128),
             (float("nan"), 0.9, 0.0, 5)]
        )
    ]  # fmt: skip
    await bench.run(jobs, bench.random)


@cocotb.test()
async def stops_at_faults(dut):
    await start(dut)
    c = config()
    g = c.elements
    valid = {"tiles": 1, "rows": g, "row_copy": 1, "row_pattern": Pattern.N2M8, "o_stride": 2}
    fill = g // c.cols
    for change, fault, address in [
        ({"tiles": 0}, Fault.MALFORMED, 0),
        ({"rows": 0}, Fault.MALFORMED, 0),
        ({"rows": g + 1}, Fault.MALFORMED, 0),
        ({"rows": g - 1}, Fault.MALFORMED, 0),
        ({"rows": 1, "row_copy": 0, "column_copy": 1}, Fault.MALFORMED, 0),
        *([({"row_pattern": Pattern.N2M16}, Fault.PATTERN, 0)] if c.group < 16 else []),
        ({"o_base": c.o_depth - 2 * fill + 1}, Fault.SCRATCHPAD_RANGE, c.o_depth),
        ({"o_base": 65535}, Fault.SCRATCHPAD_RANGE, 65535 + 2 * fill - 1),
        ({"tiles": 65535, "o_stride": 65535}, Fault.SCRATCHPAD_RANGE,
         (65535 * fill - 1) * 65535 + 1),
    ]:  # fmt: skip
        await reset(dut)
        command = cocotb.start_soon(send(dut, "command", [pack(UpdateBody, valid | change)]))
        dut.state__valid.value = 1
        for _ in range(20):
            await RisingEdge(dut.clk)
            assert not dut.descriptor__valid.value and not dut.data__valid.value
            assert not dut.state__ready.value and not dut.done.value
        report = unpack(FaultReport, dut.fault.value)
        assert (report.code, report.address) == (fault, address), change
        assert not dut.command__ready.value
        assert command.done()

    await reset(dut)
    bench = Bench(dut)
    await bench.run([make_job(bench, row=Pattern.N2M8, o_base=c.o_depth - 2 * fill)], bench.random)


@cocotb.test()
async def recovers_from_a_reset_on_the_way(dut):
    await start(dut)
    body = {"tiles": 2, "rows": config().elements, "row_copy": 1, "column_copy": 1, "o_stride": 2}
    for cycles in (5, 30, 90):
        command = cocotb.start_soon(send(dut, "command", [pack(UpdateBody, body)]))
        dut.state__valid.value = dut.descriptor__ready.value = dut.data__ready.value = 1
        await clocks(dut, cycles)
        command.cancel()
        dut.command__valid.value = 0
        await reset(dut)
        dut.descriptor__ready.value = dut.data__ready.value = 0
        bench = Bench(dut)
        job = make_job(bench, tiles=2, row=Pattern.N4M8, column=Pattern.N2M8, o_stride=1)
        await bench.run([job], bench.random)


async def reset(dut):
    dut.state__valid.value = 0
    dut.rst.value = 1
    await clocks(dut, 2)
    dut.rst.value = 0
    await clocks(dut, 1)
