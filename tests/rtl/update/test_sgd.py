"""One SGD lane against the golden model."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.update.sgd import SGDLane
from sim.golden.arithmetic import to_half
from sim.golden.update import sgd
from tests.harness import rng, simulate, start


def test_sgd():
    simulate(SGDLane(), name="sgd_lane", testbench=__name__)


def bits(value):
    return int(np.float32(value).view(np.uint32))


async def check(dut, random, w, v, g, *, rate, momentum, decay, scale):
    """Send weights one after the other, with pauses in which the lane stands still."""
    numbers = {"rate": bits(rate), "momentum": bits(momentum), "decay": bits(decay)}
    for name, value in numbers.items():
        getattr(dut, name).value = value
    dut.scale.value = scale
    new_w, new_v = sgd(w, v, g, scale=scale, **numbers)
    copy = to_half(new_w)
    for cycle in range(len(w) + SGDLane.LATENCY):
        while random.random() < 0.1:
            dut.enable.value = 0
            dut.weight.value = int(random.integers(1 << 32))
            await RisingEdge(dut.clk)
        dut.enable.value = 1
        item = min(cycle, len(w) - 1)
        dut.weight.value, dut.velocity.value = int(w[item]), int(v[item])
        dut.gradient.value = int(g[item])
        await RisingEdge(dut.clk)
        if cycle >= SGDLane.LATENCY:
            item = cycle - SGDLane.LATENCY
            got = [int(getattr(dut, name).value) for name in ("new_weight", "new_velocity", "copy")]
            assert got == [new_w[item], new_v[item], copy[item]], (
                f"weight {w[item]:#x}, velocity {v[item]:#x}, gradient {g[item]:#x}, {numbers},"
                f" scale {scale}: got {[hex(x) for x in got]}"
            )


@cocotb.test()
async def descends(dut):
    await start(dut)
    random = rng()
    w, v, g = (random.normal(0, s, 2000).astype(np.float32) for s in (0.1, 0.01, 20))
    await check(dut, random, *(x.view(np.uint32) for x in (w, v, g)),
                rate=0.05, momentum=0.9, decay=5e-4, scale=10)  # fmt: skip


@cocotb.test()
async def undoes_every_scale(dut):
    """Gradients alone reach both ends of the range: weight and momentum are zero."""
    await start(dut)
    random = rng()
    zeros = np.zeros(60, np.uint32)
    for scale in (-128, -127, -64, -1, 0, 1, 24, 126, 127):
        g = random.integers(0, 1 << 32, 60, dtype=np.uint32)
        # Just above, at and just below where results vanish and overflow.
        edges = np.clip(np.array([-1, 0, 1, 2, 253, 254, 255, 256]) + scale, 0, 255) << 23
        g[: len(edges)] = edges.astype(np.uint32) | 0x80000001
        await check(dut, random, zeros, zeros, g, rate=-1.0, momentum=0.0, decay=0.0, scale=scale)


@cocotb.test()
async def survives_anything(dut):
    await start(dut)
    random = rng()
    for rate, momentum, decay, scale in [(1e-3, 0.5, 1e-2, 3), (np.inf, 1.0, 0.0, -4),
                                         (1.0, np.nan, 0.0, 0), (0.0, 0.0, 0.0, 127)]:  # fmt: skip
        w, v, g = random.integers(0, 1 << 32, (3, 500), dtype=np.uint32)
        await check(dut, random, w, v, g, rate=rate, momentum=momentum, decay=decay, scale=scale)
