"""The vector unit against the golden machine: results, registers, timing, faults."""

import dataclasses

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import PRESETS, VECTOR_REGISTERS
from rtl.control.commands import (
    CoefficientKind,
    Fold,
    LoadTarget,
    Opcode,
    VectorBody,
    VectorTarget,
    encode,
)
from rtl.control.fault import FaultReport
from rtl.memory.descriptor import Descriptor
from rtl.vector.vector_unit import VectorUnit
from sim.golden.machine import Machine
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start, unpack
from tests.vectors import beats_written, random_body, random_stream

CONFIGS = {
    "tiny": PRESETS["tiny"],
    "wide": dataclasses.replace(PRESETS["sim"], name="wide", d_depth=64),
}
INPUT, OUTPUT = 0x1_0000, 0x4_0000


@pytest.mark.parametrize("name", CONFIGS)
def test_vector_unit(name):
    configuration = CONFIGS[name]
    simulate(
        VectorUnit(configuration), name="vector_unit", testbench=__name__, config=configuration
    )


def immediate(value, negative=0):
    bits = int(np.float32(value).view(np.uint32))
    return {"kind": CoefficientKind.IMMEDIATE, "value": bits, "negative": negative}


def register(number):
    return {"kind": CoefficientKind.REGISTER, "value": number}


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


def spills(machine):
    """Jobs that write all registers to memory."""
    g = config().elements
    for first in range(0, VECTOR_REGISTERS, g):
        rows = min(g, VECTOR_REGISTERS - first)
        body = {
            "groups": 1, "window": 1, "rows": rows, "held": 0, "wide": 0, "from_registers": 1,
            "x_register": first, "a": immediate(1), "fold": Fold.NONE,
            "target": VectorTarget.WIDE, "descriptor": descriptor(2 * rows),
        }  # fmt: skip
        yield Job(machine, body, np.zeros(0, np.uint8))


async def run(dut, jobs, random=None):
    """Carry out `jobs` and compare what they write; return the cycles that each took."""
    tasks = [
        cocotb.start_soon(
            send(dut, "command", [pack(VectorBody, job.body) for job in jobs], random,
                 timeout=50_000)
        ),
        cocotb.start_soon(
            send(dut, "beats", [beat for job in jobs for beat in job.taken], random,
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
        while True:
            await RisingEdge(dut.clk)
            cycles[-1] += int(dut.busy.value)
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
    jobs = []
    for number in range(250 if config().name == "tiny" else 60):
        body = random_body(config(), random, OUTPUT)
        jobs.append(Job(machine, body, random_stream(config(), random, body)))
        if number % 5 == 4:
            jobs += spills(machine)
    await run(dut, jobs, random)
