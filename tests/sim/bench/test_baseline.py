"""The baseline MAC against NumPy's binary32 arithmetic."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from sim.bench.baseline import LATENCY, LOOP, FloatMac
from tests.harness import rng, simulate, start

ROUNDS = 3000


def test_baseline():
    simulate(FloatMac(), name="float_mac", testbench=__name__)


def operands(random, count):
    """Binary16 numbers whose products meet far from and close to each other, zeros among them."""
    exponent = np.where(
        random.random(count) < 0.5, random.integers(1, 31, count), random.integers(13, 18, count)
    )
    fraction = random.integers(0, 1 << 10, count)
    fraction = np.where(random.random(count) < 0.3, random.choice([0, 1, 1023], count), fraction)
    bits = random.integers(0, 2, count) << 15 | exponent << 10 | fraction
    # Zeros, and subnormals that count as such.
    small = random.random(count) < 0.05
    return np.where(small, bits & ~0x7C00, bits).astype(np.uint16)


def value(bits):
    flushed = np.where(bits & 0x7C00 == 0, np.uint16(0), bits).astype(np.uint16)
    return flushed.view(np.float16).astype(np.float32)


@cocotb.test()
async def sums_are_those_of_ieee_754(dut):
    random = rng()
    await start(dut)
    count = ROUNDS * LOOP
    a, b = operands(random, count), operands(random, count)
    # Every now and then the product that cancels the one before.
    repeat = random.random(count) < 0.2
    repeat[:LOOP] = False
    for place in np.flatnonzero(repeat):
        a[place], b[place] = a[place - LOOP] ^ 0x8000, b[place - LOOP]
    first = random.random(count) < 0.03
    first[:LOOP] = True
    index = random.integers(0, 8, count)
    expected = np.zeros(count, np.float32)
    products = value(a) * value(b)
    for place in range(count):
        before = np.float32(0) if first[place] else expected[place - LOOP]
        expected[place] = before + products[place]
    expected = np.where(expected == 0, np.float32(0), expected).view(np.uint32)

    for place in range(count + LATENCY):
        if place < count:
            others = random.integers(0, 1 << 16, 8)
            others[index[place]] = b[place]
            dut.a.value = int(a[place])
            dut.elements.value = sum(int(other) << 16 * i for i, other in enumerate(others))
            dut.index.value = int(index[place])
            dut.first.value = int(first[place])
        await RisingEdge(dut.clk)
        if place >= LATENCY:
            result, wanted = int(dut.sum.value), int(expected[place - LATENCY])
            assert result == wanted, f"sum {place - LATENCY} is {result:08x}, expected {wanted:08x}"
