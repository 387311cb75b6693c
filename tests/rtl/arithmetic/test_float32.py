"""Binary32 units against the golden model and against rational numbers."""

from fractions import Fraction

import cocotb
import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import RisingEdge

from rtl.arithmetic.float32 import FloatAdder, FloatMultiplier, FloatToHalf, HalfToFloat
from rtl.arithmetic.formats import FLOAT, HALF
from rtl.technology import Technology
from sim.golden import arithmetic as golden
from tests.harness import clocks, rng, simulate, start

NAN = 0x7FC00000
MAGNITUDES = [
    0, 1, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001,
    0x33800000, 0x33800001, 0x34000000, 0x4B000000, 0x4B800000, 0x4B800001, 0x1FFFFFFF, 0x20000000,
    0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF,
]  # fmt: skip


class Units(wiring.Component):
    """All units side by side, so that one model tests them."""

    a: In(FLOAT)
    b: In(FLOAT)
    maximum: In(1)
    enable: In(1)
    sum: Out(FLOAT)
    product: Out(FLOAT)
    half: Out(HALF)
    widened: Out(FLOAT)

    def elaborate(self, platform):
        m = Module()
        m.submodules.adder = adder = FloatAdder()
        m.submodules.multiplier = multiplier = FloatMultiplier()
        m.submodules.to_half = to_half = FloatToHalf()
        m.submodules.to_float = to_float = HalfToFloat()
        for unit, result in ((adder, self.sum), (multiplier, self.product)):
            m.d.comb += [
                unit.a.eq(self.a),
                unit.b.eq(self.b),
                unit.enable.eq(self.enable),
                result.eq(unit.o),
            ]
        m.d.comb += [
            adder.maximum.eq(self.maximum),
            to_half.i.eq(self.a),
            self.half.eq(to_half.o),
            to_float.i.eq(self.a.as_value()[: HALF.size]),
            self.widened.eq(to_float.o),
        ]
        return m


@pytest.mark.parametrize("technology", Technology, ids=lambda technology: technology.value)
def test_float32(technology):
    name = f"float_units_{technology.value}"
    simulate(Units(), name=name, testbench=__name__, technology=technology)


def floats(sign, exponent, fraction):
    return (sign << 31 | exponent << 23 | fraction).astype(np.uint32)


def random_pairs(random, count):
    """Return pairs whose exponents make sums cancel and products meet both ends of the range."""

    def any_of(exponent):
        fraction = random.integers(0, 1 << 23, count)
        # Long runs of equal bits are where roundings carry and tie.
        runs = random.choice([0, 1, 0x400000, 0x7FFFFF, 0x7FFFFE, 0x3FFFFF], count)
        fraction = np.where(random.random(count) < 0.4, runs, fraction)
        return floats(random.integers(0, 2, count), np.clip(exponent, 0, 255), fraction)

    exponent = random.integers(0, 256, count)
    near = exponent + random.integers(-27, 28, count)
    least = 128 - exponent + random.integers(-2, 2, count)
    most = 381 - exponent + random.integers(-2, 3, count)
    anything = random.integers(0, 256, count)
    kind = random.integers(0, 6, count)
    a, b = any_of(exponent), any_of(np.choose(np.minimum(kind, 3), [near, least, most, anything]))
    # Neighbours with opposite signs: cancellation down to the last place.
    neighbour = (a ^ np.uint32(1 << 31)) + random.integers(-2, 3, count).astype(np.uint32)
    return a, np.where(kind == 4, neighbour, b)


def exact(operation, a, b):
    """Return what the units' specification says, by rational arithmetic."""

    def number(bits):
        exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
        if exponent == 0:
            return Fraction(0)
        return (-1) ** (bits >> 31) * Fraction(fraction | 1 << 23) * Fraction(2) ** (exponent - 150)

    def kind(bits):
        magnitude = bits & 0x7FFFFFFF
        return "nan" if magnitude > 0x7F800000 else "inf" if magnitude == 0x7F800000 else ""

    signs = a >> 31, b >> 31
    kinds = kind(a), kind(b)
    if "nan" in kinds:
        return NAN
    if operation == "maximum":
        flushed = (x if x & 0x7F800000 else x & 1 << 31 for x in (a, b))
        return max(flushed, key=lambda x: -(x & 0x7FFFFFFF) - 1 if x >> 31 else x)
    if operation == "sum":
        if "inf" in kinds:
            if kinds[0] == kinds[1] and signs[0] != signs[1]:
                return NAN
            return a if kinds[0] else b
        value = number(a) + number(b)
        sign = (value < 0) if value else (signs[0] & signs[1] if not number(a) else 0)
    else:
        sign = signs[0] ^ signs[1]
        if "inf" in kinds:
            zero = any(not kind and not number(x) for kind, x in zip(kinds, (a, b)))
            return NAN if zero else sign << 31 | 0x7F800000
        value = number(a) * number(b)
    return sign << 31 | rounded(abs(value))


def rounded(magnitude):
    if magnitude < Fraction(1, 1 << 126):
        return 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    significand = round(magnitude / Fraction(2) ** (exponent - 23))  # ties to even
    return min(((exponent + 126) << 23) + significand, 0x7F800000)


async def feed(dut, a, b, random=None, maximum=None):
    """Return sums and products of all pairs, with random gaps of `enable` if `random` is given.

    Where `maximum` is set there are maxima instead of sums.
    """
    latency = {"sum": FloatAdder.LATENCY, "product": FloatMultiplier.LATENCY}
    results = {name: [] for name in latency}
    for cycle in range(len(a) + max(latency.values())):
        pair = min(cycle, len(a) - 1)
        dut.a.value, dut.b.value = int(a[pair]), int(b[pair])
        dut.maximum.value = 0 if maximum is None else int(maximum[pair])
        while random is not None and random.random() < 0.4:
            dut.enable.value = 0
            await RisingEdge(dut.clk)
        dut.enable.value = 1
        await RisingEdge(dut.clk)
        for name, cycles in latency.items():
            if cycles <= cycle < len(a) + cycles:
                results[name].append(int(getattr(dut, name).value))
    return results


def compare(results, a, b, operations=("sum", "product")):
    for operation in operations:
        oracle = golden.add if operation == "sum" else golden.multiply
        modelled = oracle(a, b)
        for x, y, got, model in zip(a, b, results[operation], modelled, strict=True):
            expected = exact(operation, int(x), int(y))
            assert got == expected == model, (
                f"{operation} of {x:#010x} and {y:#010x}: got {got:#010x}, expected"
                f" {expected:#010x}, golden model {model:#010x}"
            )


@cocotb.test()
async def meets_every_corner(dut):
    await start(dut)
    corners = np.array([sign | m for m in MAGNITUDES for sign in (0, 1 << 31)], np.uint32)
    a, b = (x.ravel() for x in np.meshgrid(corners, corners))
    compare(await feed(dut, a, b), a, b)


@cocotb.test()
async def finds_maxima_between_sums(dut):
    await start(dut)
    random = rng()
    corners = np.array([sign | m for m in MAGNITUDES for sign in (0, 1 << 31)], np.uint32)
    a, b = (x.ravel() for x in np.meshgrid(corners, corners))
    more_a, more_b = random_pairs(random, 6_000)
    a, b = np.concatenate([a, more_a, more_a]), np.concatenate([b, more_b, more_a])
    maximum = random.integers(0, 2, len(a))
    results = (await feed(dut, a, b, maximum=maximum))["sum"]
    for x, y, largest, got in zip(a, b, maximum, results, strict=True):
        expected = exact("maximum" if largest else "sum", int(x), int(y))
        assert got == expected, (
            f"{'maximum' if largest else 'sum'} of {x:#010x} and {y:#010x}: got {got:#010x}, "
            f"expected {expected:#010x}"
        )


@cocotb.test()
async def adds_and_multiplies(dut):
    await start(dut)
    a, b = random_pairs(rng(), 24_000)
    compare(await feed(dut, a, b), a, b)


@cocotb.test()
async def waits_for_enable(dut):
    await start(dut)
    random = rng()
    a, b = random_pairs(random, 500)
    compare(await feed(dut, a, b, random), a, b)


@cocotb.test()
async def converts_to_half(dut):
    await start(dut)
    random = rng()
    halves = np.arange(0, 1 << 16, 13).astype(np.uint16)
    # Binary16 values, the points half-way to their neighbours, and what is next to both.
    wide = golden.to_float(halves)
    near = (wide[:, None] + np.array([-1, 0, 1, 0xFFF, 0x1000, 0x1001])).astype(np.uint32).ravel()
    exponent = random.integers(99, 116, 4000)
    tiny = floats(random.integers(0, 2, 4000), exponent, random.integers(0, 1 << 23, 4000))
    halfway = floats(random.integers(0, 2, 200), random.integers(100, 114, 200),
                     random.choice([0, 0x400000, 0x600000, 0x700000], 200))  # fmt: skip
    corners = np.array([sign | m for m in MAGNITUDES for sign in (0, 1 << 31)], np.uint32)
    x = np.concatenate([near, tiny, halfway, corners])
    for value, expected in zip(x, golden.to_half(x)):
        dut.a.value = int(value)
        await clocks(dut)
        await RisingEdge(dut.clk)
        assert int(dut.half.value) == expected, f"{value:#010x}"


@cocotb.test()
async def widens_halves(dut):
    await start(dut)
    x = np.concatenate([np.arange(1 << 10), np.arange(1 << 10, 1 << 16, 7)]).astype(np.uint16)
    for value, expected in zip(x, golden.to_float(x)):
        dut.a.value = int(value)
        await clocks(dut, 2)
        assert int(dut.widened.value) == expected, f"{value:#06x}"
