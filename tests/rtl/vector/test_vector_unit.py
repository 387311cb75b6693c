"""The vector unit against the golden machine: results, registers, timing, faults."""

import dataclasses
from itertools import product

import cocotb
import numpy as np
import pytest
from amaranth.lib import data
from cocotb.triggers import RisingEdge

from rtl.config import PRESETS, VECTOR_REGISTERS
from rtl.control.commands import (
    Command,
    Fault,
    Fold,
    Function,
    LoadTarget,
    Mask,
    Opcode,
    VectorBody,
    VectorOperand,
    VectorTarget,
    encode,
)
from rtl.control.fault import FaultReport
from rtl.memory.descriptor import Descriptor
from rtl.vector.lane import PARTS
from rtl.vector.vector_unit import VectorUnit
from sim.golden.machine import Machine
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start, unpack
from tests.sim.golden.test_vector import FAULTS, ROWS, UNKNOWN, immediate, register
from tests.vectors import beats_written, random_body, random_stream, with_raw_field

CONFIGS = {
    "tiny": PRESETS["tiny"],
    "one lane": dataclasses.replace(
        PRESETS["tiny"], name="one", ratio=2, vector_slices=8, update_slices=2, compressed_stores=0
    ),
    "whole rows": dataclasses.replace(PRESETS["sim"], name="rows", d_depth=64, vector_slices=1),
}
INPUT, OUTPUT = 0x1_0000, 0x4_0000


@pytest.mark.parametrize("name", CONFIGS)
def test_vector_unit(name):
    configuration = CONFIGS[name]
    simulate(
        VectorUnit(configuration), name="vector_unit", testbench=__name__, config=configuration
    )


def descriptor(beats, address=OUTPUT):
    return {"address": address, "counts": [beats, 1, 1, 1], "strides": [0, 0, 0]}


class Job:
    """A command with its stream, and what the golden machine writes."""

    def __init__(self, machine, body, stream):
        c = machine.config
        self.body = body
        self.taken = _beats(stream, c)
        load = []
        if self.taken:
            machine.memory[INPUT : INPUT + stream.size] = stream
            load.append(
                encode(Opcode.LOAD, target=LoadTarget.STREAM, rows=len(self.taken), d_words=1,
                       descriptor=descriptor(len(self.taken), INPUT))
            )  # fmt: skip
        program = b"".join([*load, encode(Opcode.VECTOR, **body), encode(Opcode.FINISH)])
        machine.memory[: len(program)] = np.frombuffer(program, np.uint8)
        self.golden = machine.run(0, len(program) // 64)
        assert self.golden.finished, (self.golden, body)
        count = beats_written(c, body)
        self.written = _beats(machine.memory[OUTPUT : OUTPUT + count * c.beat_bytes], c)


def _beats(data, c):
    return [int.from_bytes(beat.tobytes(), "little") for beat in data.reshape(-1, c.beat_bytes)]


def for_all_registers(**fields):
    """Fields of commands that take all registers in turn."""
    g = config().elements
    for first in range(0, VECTOR_REGISTERS, g):
        rows = min(g, VECTOR_REGISTERS - first)
        yield {
            "groups": 1, "window": 1, "rows": rows, "held": 0, "wide": 0, "from_registers": 0,
            "x_register": first, "target_register": first, "a": immediate(1), "fold": Fold.NONE,
            "descriptor": descriptor(2 * rows),
        } | fields  # fmt: skip


def fills(machine, random):
    """Jobs that give all registers random values; they stay from one test to the next."""
    for body in for_all_registers(wide=1, target=VectorTarget.REGISTERS):
        values = random.normal(size=(body["rows"], config().elements)).astype(np.float32)
        yield Job(machine, body, values.view(np.uint8).ravel())


def spills(machine):
    """Jobs that write all registers to memory."""
    for body in for_all_registers(from_registers=1, target=VectorTarget.WIDE):
        yield Job(machine, body, np.zeros(0, np.uint8))


async def run(dut, jobs, random=None, idle=0.3):
    """Carry out `jobs` and compare what they write; return the cycles that each took.

    Beats pause with probability `idle`, if `random` is given.
    """
    tasks = [
        cocotb.start_soon(
            send(dut, "command", [pack(VectorBody, job.body) for job in jobs], random,
                 timeout=50_000)
        ),
        cocotb.start_soon(
            send(dut, "beats", [beat for job in jobs for beat in job.taken], random, idle=idle,
                 timeout=50_000)
        ),
    ]  # fmt: skip
    writing = [job for job in jobs if job.written]
    nonfinite = 0
    cycles = []

    async def watch():
        nonlocal nonfinite
        while True:
            await RisingEdge(dut.clk)
            nonfinite += int(dut.nonfinite.value)

    async def write():
        for job in writing:
            [payload] = await receive(dut, "descriptor", 1, random, timeout=50_000)
            assert unpack(Descriptor, payload).counts[0] == len(job.written)
            beats = await receive(dut, "data", len(job.written), random, timeout=50_000)
            for number, (got, wanted) in enumerate(zip(beats, job.written)):
                assert got == wanted, (
                    f"command {jobs.index(job)}, beat {number}: {got:#x}, expected {wanted:#x}, "
                    f"{job.body}"
                )

    tasks += [cocotb.start_soon(task()) for task in (watch, write)]
    for _ in jobs:
        cycles.append(0)
        busy = False
        while True:
            await RisingEdge(dut.clk)
            cycles[-1] += busy
            busy |= bool(dut.command__valid.value and dut.command__ready.value)
            assert not int(dut.fault.value), unpack(FaultReport, dut.fault.value)
            if dut.done.value:
                break
            assert cycles[-1] < 50_000, jobs[len(cycles) - 1].body
    await clocks(dut, 4)
    assert tasks[-1].done() and tasks[0].done() and tasks[1].done()
    tasks[-1].result()
    for task in tasks:
        task.cancel()
    assert nonfinite == sum(job.golden.counters["NONFINITE"] for job in jobs)
    return cycles


@cocotb.test()
async def carries_out_random_commands(dut):
    await start(dut)
    random, machine = rng(), Machine(config())
    jobs = list(fills(machine, random))
    for number in range(250 if config().name == "tiny" else 60):
        body = random_body(config(), random, OUTPUT)
        jobs.append(Job(machine, body, random_stream(config(), random, body)))
        if number % 5 == 4:
            jobs += spills(machine)
    await run(dut, jobs, random)


@cocotb.test()
async def folds_rows_that_come_late(dut):
    """Tiles of few rows, the last of which may be close before the first of the next tile."""
    await start(dut)
    random, machine = rng(), Machine(config())
    jobs = list(fills(machine, random))
    for rows in (1, 2, 3, 5):
        for wide in (0, 1):
            for fold, target in product(
                (Fold.SUM, Fold.MAXIMUM), (VectorTarget.WIDE, VectorTarget.REGISTERS)
            ):
                groups = 3 if target is VectorTarget.WIDE else 1
                body = {
                    "groups": groups, "window": 8, "rows": rows, "held": 0, "wide": wide,
                    "from_registers": 0,
                    "a": immediate(1.5), "fold": fold, "target": target,
                    "descriptor": descriptor(groups * rows * 2),
                }  # fmt: skip
                jobs.append(Job(machine, body, random_stream(config(), random, body)))
    await run(dut, [*jobs, *spills(machine)], random, idle=0.7)


def tiles(machine, random, **fields):
    """Return a job on many narrow tiles, whose operands are finite."""
    c = machine.config
    g = c.elements
    body = {
        "groups": 8, "window": 1, "rows": g, "held": 0, "wide": 0, "from_registers": 0,
        "a": immediate(1.5), "fold": Fold.NONE, "target": VectorTarget.NONE,
    } | fields  # fmt: skip
    count = body["groups"] * (body["held"] + body["window"]) * g * g
    body["descriptor"] = descriptor(max(1, beats_written(c, body)))
    values = random.normal(size=count).astype(np.float16)
    return Job(machine, body, values.view(np.uint8))


NARROW = {"target": VectorTarget.NARROW}
SUMS = {"reduce": Fold.SUM, "reduce_product": 1}
TERMS = {"held": 1, "y": VectorOperand.HELD_0, "b": register(1), "c": register(2)}
TIMING = {
    "normalise": (1, NARROW | {"c": register(3), "function": Function.RELU}),
    "square sums": (1, SUMS | {"y": VectorOperand.X}),
    "masked product sums": (
        1, SUMS | {"held": 1, "y": VectorOperand.HELD_0, "mask": Mask.HELD_0_POSITIVE}),
    "three terms": (1, NARROW | TERMS),
    "pool": (1, NARROW | {"window": 4, "groups": 2, "fold": Fold.MAXIMUM}),
    "average": (1, NARROW | {"window": 4, "groups": 2, "fold": Fold.SUM}),
    "unpool": (1, NARROW | {
        "window": 4, "groups": 2, "held": 2, "y": VectorOperand.HELD_1, "b": immediate(1),
        "a": {}, "mask": Mask.FIRST_EQUAL}),
    "maximum": (1, {"reduce": Fold.MAXIMUM}),
    "exponentials": (1, NARROW | SUMS | {
        "held": 2, "y": VectorOperand.HELD_1, "mask": Mask.HELD_0_POSITIVE,
        "function": Function.EXP2}),
    "sums of sums": (2, {"reduce": Fold.SUM} | TERMS),
    "product sums of sums": (2, {"reduce_product": 1} | TERMS),
    "sums and average": (
        2, NARROW | {"window": 4, "groups": 2, "fold": Fold.SUM, "reduce": Fold.MAXIMUM}),
    "sums and average of sums": (
        3, NARROW | SUMS | TERMS | {
            "window": 4, "groups": 2, "fold": Fold.SUM, "function": Function.RECIPROCAL}),
    "gelu": (1, NARROW | {"y": VectorOperand.X, "times_y": 1, "function": Function.NORMAL}),
    "times y": (1, NARROW | {
        "held": 1, "y": VectorOperand.HELD_0, "times_y": 1, "c": register(2)}),
    "times y and sums": (2, NARROW | SUMS | TERMS | {"times_y": 1}),
    "wide": (2, {"target": VectorTarget.WIDE, "function": Function.LOG2}),
}  # fmt: skip
"""Commands with the cycles that a slice of theirs takes at most."""


@cocotb.test()
async def takes_a_slice_a_cycle(dut):
    await start(dut)
    random, machine = rng(), Machine(config())
    await run(dut, list(fills(machine, random)))
    slices = config().vector_slices
    for name, (spacing, fields) in TIMING.items():
        job = tiles(machine, random, **fields)
        [cycles] = await run(dut, [job])
        body = job.body
        held, computed = (body["groups"] * body[part] * config().elements
                          for part in ("held", "window"))  # fmt: skip
        if job.body["target"] is VectorTarget.WIDE and slices > 1:
            spacing = 1
        expected = held + slices * spacing * computed
        # Checks, coefficients, the lanes once, the parts of sums.
        fixed = 80 + 3 * slices
        if "reduce" in body or "reduce_product" in body:
            fixed += max(60, 2 * (PARTS - 1) * slices + 10)
        assert expected < cycles <= expected + fixed, f"{name}: {cycles}, expected {expected}"
    await run(dut, list(spills(machine)))


@cocotb.test()
async def does_arithmetic_of_registers_quickly(dut):
    await start(dut)
    random, machine = rng(), Machine(config())
    await run(dut, list(fills(machine, random)))
    jobs = []
    for number in range(8):
        body = {
            "groups": 1, "window": 1, "rows": 1, "held": 0, "wide": 0, "from_registers": 1,
            "x_register": number, "y": VectorOperand.REGISTER, "y_register": 7 - number,
            "a": immediate(number), "b": register(number), "c": register(1), "fold": Fold.NONE,
            "target": VectorTarget.REGISTERS, "target_register": 8 + number,
        }  # fmt: skip
        jobs.append(Job(machine, body, np.zeros(0, np.uint8)))
    cycles = await run(dut, jobs)
    # The lanes once, and for each slice three coefficients and at most three cycles to its next.
    assert max(cycles) <= 36 + 6 * config().vector_slices, cycles
    await run(dut, list(spills(machine)))


@cocotb.test()
async def stops_at_faults(dut):
    await start(dut)
    own = {"too many rows": {"rows": config().elements + 1}}
    # The others are the write DMA's to report.
    faults = {
        name: (pack(VectorBody, body | own.get(name, {})), code, address)
        for name, (body, code, address) in FAULTS.items()
        if name not in ("unaligned", "outside")
    }
    body_field = data.Layout.cast(Command)["body"]
    for name, value in UNKNOWN.items():
        command = with_raw_field(encode(Opcode.VECTOR, **ROWS), name, value)
        faults[f"unknown {name}"] = (
            int.from_bytes(command, "little") >> body_field.offset, Fault.MALFORMED, 0
        )  # fmt: skip
    for name, (body, code, address) in faults.items():
        await reset(dut)
        command = cocotb.start_soon(
            send(dut, "command", [body & (1 << VectorBody.as_shape().size) - 1])
        )
        dut.beats__valid.value = 1
        for _ in range(24):
            await RisingEdge(dut.clk)
            assert not dut.descriptor__valid.value and not dut.data__valid.value, name
            assert not dut.beats__ready.value and not dut.done.value, name
        report = unpack(FaultReport, dut.fault.value)
        assert (report.code, report.address) == (code, address), name
        assert command.done() and not dut.command__ready.value
    await reset(dut)
    random, machine = rng(), Machine(config())
    await run(dut, [*fills(machine, random), tiles(machine, random, **NARROW)], random)


@cocotb.test()
async def recovers_from_a_reset_on_the_way(dut):
    await start(dut)
    random, machine = rng(), Machine(config())
    await run(dut, list(fills(machine, random)))
    for cycles in (5, 16, 30, 60, 100):
        job = tiles(machine, random, **TIMING["average"][1], reduce=Fold.SUM)
        command = cocotb.start_soon(send(dut, "command", [pack(VectorBody, job.body)]))
        dut.beats__valid.value = dut.descriptor__ready.value = 1
        await clocks(dut, cycles)
        command.cancel()
        dut.command__valid.value = 0
        await reset(dut)
        dut.descriptor__ready.value = 0
        await run(dut, [tiles(machine, random, **TIMING["average"][1])], random)


async def reset(dut):
    dut.beats__valid.value = 0
    dut.rst.value = 1
    await clocks(dut, 2)
    dut.rst.value = 0
    await clocks(dut, 1)
