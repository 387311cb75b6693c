"""The function unit against the golden functions, bit by bit."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.arithmetic.function import FunctionUnit
from rtl.arithmetic.function_tables import FINE, INDEX_BITS, OFFSET_BITS, SEGMENTS
from rtl.control.commands import Function
from sim.golden import functions as golden
from tests.harness import rng, simulate, start

TABULATED = [*SEGMENTS]

MAGNITUDES = [
    # Zeros, subnormal numbers, the smallest normal ones; infinity and NaNs.
    0, 1, 0x400000, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x1000001,
    0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF,
    # Around one, two and four.
    0x3F7FFFFE, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF, 0x40000000, 0x40000001, 0x407FFFFF,
    0x40800000, 0x40800001,
    # Around 2**125, 2**126 and 2**127, whose reciprocals meet the smallest normal number.
    0x7DFFFFFF, 0x7E000000, 0x7E7FFFFF, 0x7E800000, 0x7E800001, 0x7EFFFFFF, 0x7F000000, 0x7F000001,
    # Powers of two that overflow or vanish: 126 to 129, and 149 to 151; whole ones and halves.
    0x42FBFFFF, 0x42FC0000, 0x42FC0001, 0x42FD0000, 0x42FE0000, 0x42FE0001, 0x42FFFFFF, 0x43000000,
    0x43000001, 0x43010000, 0x43150000, 0x43160000, 0x43170000, 0x437F0000, 0x43800000, 0x3F000000,
    # Powers of two that are one, or nearly so.
    0x32FFFFFF, 0x33000000, 0x33000001, 0x33800000, 0x34000000, 0x34000001, 0x347FFFFF, 0x35000000,
    # Around eight, where FINE functions are constant, and the zero of GELU's slope.
    0x40FFFFFF, 0x41000000, 0x41000001, 0x3F40754C, 0x3F407556, 0x3F407560, 0x3F407600,
]  # fmt: skip


def test_function_unit():
    simulate(FunctionUnit(), name="function_unit", testbench=__name__)


def both_signs(magnitudes):
    magnitudes = np.asarray(magnitudes, np.uint32)
    return np.concatenate([magnitudes, magnitudes | np.uint32(1 << 31)])


async def check(dut, functions, x, random=None):
    """Send operands one after the other, with random gaps of `enable` if `random` is given."""
    expected = np.empty_like(x)
    for function in TABULATED:
        chosen = functions == function.value
        expected[chosen] = golden.apply(function, x[chosen])
    for cycle in range(len(x) + FunctionUnit.LATENCY):
        if cycle < len(x):
            dut.i.value, dut.function.value = int(x[cycle]), int(functions[cycle])
        while random is not None and random.random() < 0.4:
            dut.enable.value = 0
            await RisingEdge(dut.clk)
        dut.enable.value = 1
        await RisingEdge(dut.clk)
        done = cycle - FunctionUnit.LATENCY
        if done >= 0:
            got, right = int(dut.o.value), int(expected[done])
            assert got == right, (
                f"{Function(functions[done]).name}({x[done]:#010x}): got {got:#010x}, expected"
                f" {right:#010x}"
            )


async def check_each(dut, functions, x):
    """Check all `functions` of all `x`, one function after the other at each operand."""
    numbers = [function.value for function in functions]
    await check(dut, np.tile(numbers, len(x)), np.repeat(x, len(functions)))


@cocotb.test()
async def meets_every_corner(dut):
    await start(dut)
    await check_each(dut, TABULATED, both_signs(MAGNITUDES))


@cocotb.test()
async def meets_the_ends_of_every_segment(dut):
    await start(dut)
    # The first and the last of a segment, what is next to them, and its middle. Fractions have a
    # bit less than arguments; EXP2 gets all of these by numbers from 0.5 to 1 and their negatives.
    starts = np.arange(1 << INDEX_BITS, dtype=np.uint32) << OFFSET_BITS
    middle = 1 << OFFSET_BITS - 1
    arguments = (starts[:, None] + np.array([-2, -1, 0, 1, 2, middle - 1, middle])).ravel()
    arguments = arguments[arguments >= 0].astype(np.uint32)
    fractions = np.unique(np.concatenate([arguments >> 1, arguments & 0x7FFFFF]))
    for exponent in (126, 127, 128, 133):
        await check_each(dut, TABULATED, fractions | np.uint32(exponent << 23))
    await check_each(dut, [Function.EXP2], fractions | np.uint32(1 << 31 | 126 << 23))
    await check_each(dut, [Function.EXP2], fractions | np.uint32(1 << 31 | 133 << 23))
    # FINE functions have segments of a sixteenth, up to eight.
    ends = np.arange(1 << INDEX_BITS, dtype=np.float32) / 16
    near = ends.view(np.uint32)[:, None] + np.array([0xFFFFFFFF, 0, 1, 1 << 18], np.uint32)
    await check_each(dut, FINE, both_signs(near.ravel()))


@cocotb.test()
async def computes_powers_of_two(dut):
    await start(dut)
    await check_each(dut, TABULATED, both_signs(np.arange(256) << 23))


@cocotb.test()
async def computes_any_function_of_anything(dut):
    await start(dut)
    random = rng()
    count = 20_000
    x = random.integers(0, 1 << 32, count, np.uint32)
    # EXP2 has work to do from 2**-24 to 2**7 only; logarithms normalise most near 1.
    near = random.random(count) < 0.5
    exponent = random.integers(101, 136, count).astype(np.uint32) << 23
    x = np.where(near, x & 0x807FFFFF | exponent, x).astype(np.uint32)
    small = random.random(count) < 0.1
    x = np.where(small, 0x3F800000 + random.integers(-4000, 4000, count), x).astype(np.uint32)
    await check(dut, random.choice([f.value for f in TABULATED], count), x)


@cocotb.test()
async def waits_for_enable(dut):
    await start(dut)
    random = rng()
    x = random.integers(0x30000000, 0x48000000, 1000).astype(np.uint32)
    await check(dut, random.choice([f.value for f in TABULATED], 1000), x, random)
