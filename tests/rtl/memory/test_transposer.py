"""Transposer: matrices of random values, and one beat a cycle both ways."""

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import Config, preset
from rtl.memory.transposer import Transposer
from tests.harness import clocks, config, receive, rng, send, simulate, start

CONFIGS = {"tiny": preset("tiny"), "wide": Config("wide", rows=8, lanes=16, drain_rows=8)}


@pytest.mark.parametrize("name", CONFIGS)
def test_transposer(name):
    chosen = CONFIGS[name]
    simulate(Transposer(chosen), name=f"transposer_{name}", testbench=__name__, config=chosen)


def random_matrices(random, count):
    """Return random matrices, and their beats before and after transposition."""
    size = config().elements
    matrices = random.integers(0, 1 << 16, (count, size, size), np.uint16)
    return beats(matrices), beats(matrices.swapaxes(1, 2))


def beats(matrices):
    rows = np.ascontiguousarray(matrices.astype("<u2")).reshape(-1, config().elements)
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


@cocotb.test()
async def transposes(dut):
    random = rng()
    await start(dut)
    before, after = random_matrices(random, 6)
    cocotb.start_soon(send(dut, "i", before, random))
    assert await receive(dut, "o", len(after), random) == after
    await clocks(dut, 4)
    assert dut.empty.value


@cocotb.test()
async def keeps_one_beat_a_cycle(dut):
    random = rng()
    await start(dut)
    before, after = random_matrices(random, 5)
    cocotb.start_soon(send(dut, "i", before))
    dut.o__ready.value = 1
    got, cycles, first = [], 0, None
    while len(got) < len(after):
        await RisingEdge(dut.clk)
        cycles += 1
        if dut.o__valid.value:
            first = cycles if first is None else first
            got.append(int(dut.o__payload.value))
        assert cycles < 1000
    assert got == after
    assert cycles - first + 1 == len(after)


@cocotb.test()
async def holds_what_nobody_takes(dut):
    random = rng()
    await start(dut)
    before, after = random_matrices(random, 4)
    cocotb.start_soon(send(dut, "i", before))
    await clocks(dut, 5 * config().elements)
    assert not dut.i__ready.value
    assert not dut.empty.value
    assert await receive(dut, "o", len(after)) == after
