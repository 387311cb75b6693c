"""Rounding of exact sums against exact fractions."""

from fractions import Fraction

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.arithmetic.formats import CANONICAL_NAN
from rtl.arithmetic.rounding import FixedPoint, Rounder
from rtl.config import preset
from rtl.engine.pe import sum_bits
from tests.harness import pack, parameters, rng, simulate, start


def rounded(units):
    """Binary32 nearest to `units` times 2**-48, ties to even, as bits."""
    if units == 0:
        return 0
    magnitude = abs(units)
    exponent = magnitude.bit_length() - 1
    significand = round(Fraction(magnitude, 1 << exponent) * (1 << 23))
    # A significand that was rounded up to 2**24 carries into the exponent.
    bits = (exponent - 48 + 127 << 23) + significand - (1 << 23)
    return bits | (units < 0) << 31


async def check(dut, sums, random=None):
    """Send (units, positive, negative) triples, with pauses if there's `random`."""
    layout = FixedPoint(parameters()["bits"])
    expected, results = [], []
    await start(dut)
    for units, positive, negative in sums:
        while random is not None and random.random() < 0.3:
            await step(dut, results)
        dut.valid.value = 1
        special = {"positive": positive, "negative": negative}
        dut.sum.value = pack(layout, {"units": units, "special": special})
        expected.append(
            CANONICAL_NAN if positive and negative
            else 0x7F800000 if positive
            else 0xFF800000 if negative
            else rounded(units)
        )  # fmt: skip
        await step(dut, results)
    for _ in range(Rounder.LATENCY):
        await step(dut, results)
    for (units, *_), result, right in zip(sums, results, expected, strict=True):
        assert result == right, f"{units:x}: {result:08x}, not {right:08x}"


async def step(dut, results):
    await RisingEdge(dut.clk)
    dut.valid.value = 0
    if int(dut.valid_next.value):
        results.append(int(dut.result.value))


@cocotb.test()
async def corners(dut):
    bits = parameters()["bits"]
    numbers = {0, 1, 2, 3, (1 << bits - 1) - 1, -1 << bits - 1}
    for position in range(bits - 1):
        numbers |= {1 << position, (1 << position) - 1, (1 << position) + 1}
        # A tie with an even and an odd neighbour, and the numbers beside it.
        for pattern in (0x1000001, 0x1000003, 0x1FFFFFF):
            for tail in (-1, 0, 1):
                numbers.add((pattern << position) + tail)
    numbers = {number for number in numbers if number < 1 << bits - 1}
    numbers |= {-number for number in numbers if number != -1 << bits - 1}
    await check(dut, [(number, 0, 0) for number in sorted(numbers)])


@cocotb.test()
async def specials(dut):
    await check(dut, [(units, p, n) for units in (0, 5, -5) for p in (0, 1) for n in (0, 1)])


@cocotb.test()
async def random_sums(dut):
    random = rng()
    bits = parameters()["bits"]
    sums = []
    for _ in range(3000):
        magnitude = int.from_bytes(random.bytes(16), "little") >> 128 - int(
            random.integers(1, bits)
        )
        # Long runs of zeros make the sticky bit matter.
        magnitude &= -1 << int(random.integers(bits)) | int(random.integers(2))
        special = random.random(2) < 0.05
        sums.append((magnitude * (1 if random.random() < 0.5 else -1), *map(int, special)))
    await check(dut, sums, random)


def test_rounder():
    bits = sum_bits(preset("sim"))
    simulate(Rounder(bits), name="rounder", testbench=__name__, parameters={"bits": bits})


def test_oracle_agrees_with_numpy():
    random = np.random.default_rng(0)
    for units in random.integers(-(1 << 52), 1 << 52, 1000).tolist():
        assert rounded(units) == int(np.float32(units * 2.0**-48).view(np.uint32))
