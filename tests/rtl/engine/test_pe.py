"""The processing element against exact sums of the golden model."""

import itertools

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.arithmetic.accumulator import Operation
from rtl.config import ACCUMULATOR_BINS, preset
from rtl.engine.pe import ProcessingElement, Result, Slot, latency, sum_bits
from rtl.memory.ports import SWord
from sim.golden.arithmetic import ExactSum, Operand
from tests.harness import config, pack, rng, simulate, start, unpack

CORNERS = [
    0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x8400, 0x3555, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF,
    0x7C00, 0xFC00, 0x7E01,
]  # fmt: skip
"""Zeros, subnormals, the smallest and largest normal numbers, infinities and a NaN."""


class Driver:
    """Drives the ports of a PE slot by slot, and takes its results.

    The testbench's sums are the golden model's: `expected` has them as exact integers.
    """

    def __init__(self, dut, configuration, random):
        self.dut = dut
        self.config = configuration
        self.random = random
        self.cycle = 0
        self.takes = {}
        self.results = []
        self.expected = []
        self.slot_layout = Slot(configuration)
        self.entry_bits = SWord(configuration).size // configuration.lanes
        self.result_layout = Result(configuration)

    async def slot(self, operation=Operation.IDLE, context=0, accumulator_bin=0, s=0, d=0):
        dut = self.dut
        dut.slot.value = pack(
            self.slot_layout, {"operation": operation, "context": context, "bin": accumulator_bin}
        )
        dut.s.value = s
        dut.d.value = d
        dut.take.value = self.takes.pop(self.cycle, 0)
        if operation is Operation.DRAIN and accumulator_bin == ACCUMULATOR_BINS - 1:
            # The next context's sum comes 4 cycles later at the earliest.
            self.takes[self.cycle + latency(self.config) + int(self.random.integers(4))] = 1
        await RisingEdge(dut.clk)
        self.cycle += 1
        result = int(dut.below.value)
        if result & 1:
            value = unpack(self.result_layout, result).value
            self.results.append(
                (value.units, bool(value.special.positive), bool(value.special.negative))
            )

    async def tile(self, values, indices, activations, pauses=0.0):
        """Compute one sum for each context.

        Parameters
        ----------
        values, indices
            S words ``[steps, lanes]``.
        activations
            D words ``[steps, contexts, elements]``.
        """
        for step, context in itertools.product(range(len(values)), range(self.config.interleave)):
            while self.random.random() < pauses:
                await self.slot()
            s = sum(
                (int(value) | int(index) << 16) << self.entry_bits * lane
                for lane, (value, index) in enumerate(zip(values[step], indices[step], strict=True))
            )
            d = int.from_bytes(activations[step, context].astype("<u2").tobytes(), "little")
            await self.slot(Operation.MULTIPLY, context, s=s, d=d)
        for context in range(self.config.interleave):
            for accumulator_bin in range(ACCUMULATOR_BINS):
                await self.slot(Operation.DRAIN, context, accumulator_bin)
        self._expect(values, indices, activations)

    def _expect(self, values, indices, activations):
        steps, contexts, elements = activations.shape
        chunk = np.arange(self.config.lanes) // self.config.lanes_per_chunk * self.config.group
        columns = indices + chunk + np.arange(steps)[:, None] * elements
        s = Operand.compressed(values.reshape(1, -1), columns.reshape(1, -1), steps * elements)
        d = Operand.dense(activations.swapaxes(0, 1).reshape(contexts, -1))
        sums = ExactSum.of(s, d)
        for context in range(contexts):
            high, middle, low = (
                int(part[context, 0]) for part in (sums.high, sums.middle, sums.low)
            )
            specials = (
                part is not None and bool(part[context, 0])
                for part in (sums.positive, sums.negative)
            )
            self.expected.append(((high << 40) + (middle << 20) + low, *specials))

    async def check(self):
        for _ in range(latency(self.config) + 8):
            await self.slot()
        assert len(self.results) == len(self.expected)
        for index, (result, expected) in enumerate(zip(self.results, self.expected, strict=True)):
            assert result[1:] == expected[1:], index
            # With an infinity the number means nothing.
            assert any(expected[1:]) or result[0] == expected[0], index


async def begin(dut):
    random = rng()
    driver = Driver(dut, config(), random)
    await start(dut)
    for context, accumulator_bin in itertools.product(
        range(config().interleave), range(ACCUMULATOR_BINS)
    ):
        await driver.slot(Operation.DRAIN, context, accumulator_bin)
    for _ in range(20):
        await driver.slot()
    driver.results.clear()
    return driver


def words(driver, steps, *, value=None, activation=None):
    """S words, indices and D words with `value` and `activation` everywhere, or zeros."""
    lanes, elements = driver.config.lanes, driver.config.elements
    return (
        np.full((steps, lanes), value or 0, np.uint16),
        np.zeros((steps, lanes), np.int64),
        np.full((steps, driver.config.interleave, elements), activation or 0, np.uint16),
    )


@cocotb.test()
async def single_products_are_exact(dut):
    driver = await begin(dut)
    interleave = driver.config.interleave
    for value in CORNERS:
        for first in range(0, len(CORNERS), interleave):
            values, indices, activations = words(driver, 1)
            lane = int(driver.random.integers(driver.config.lanes))
            index = int(driver.random.integers(driver.config.group))
            values[0, lane], indices[0, lane] = value, index
            place = lane // driver.config.lanes_per_chunk * driver.config.group + index
            for context, activation in enumerate(CORNERS[first : first + interleave]):
                activations[0, context, place] = activation
            await driver.tile(values, indices, activations)
    await driver.check()


@cocotb.test()
async def longest_sums_dont_overflow(dut):
    driver = await begin(dut)
    steps = min(driver.config.max_additions, 256)
    # The largest products of every bin, of either sign: 2047 * 2047 shifted by 15, or 12 in the
    # last.
    for exponents in ((30, 30), (30, 17), (16, 15), (14, 1)):
        magnitude, activation = (exponent << 10 | 0x3FF for exponent in exponents)
        for sign in (0, 0x8000):
            await driver.tile(*words(driver, steps, value=magnitude | sign, activation=activation))
    await driver.check()


@cocotb.test()
async def cancellation_leaves_the_smallest(dut):
    driver = await begin(dut)
    for sign in (0, 0x8000):
        values, indices, activations = words(driver, 3)
        values[:, 0] = [0x7BFF, 0x0001 | sign, 0xFBFF]
        activations[:, :, 0] = np.array([0x7BFF, 0x0001, 0x7BFF])[:, None]
        await driver.tile(values, indices, activations)
    # Equal products of different bins' neighbourhoods cancel to an exact zero.
    values, indices, activations = words(driver, 2)
    values[:, 0] = [0x7800, 0xF400]
    activations[:, :, 0] = np.array([0x0400, 0x0800])[:, None]
    await driver.tile(values, indices, activations)
    await driver.check()
    assert [units for units, *_ in driver.results[:: driver.config.interleave]] == [1, -1, 0]


@cocotb.test()
async def infinities_stay_in_their_context(dut):
    driver = await begin(dut)
    values, indices, activations = words(driver, 2, value=0x3C00, activation=0x3C00)
    for context, special in enumerate((0x7C00, 0xFC00, 0x7E00)):
        activations[0, context, 0] = special
    await driver.tile(values, indices, activations)
    # The sums that follow begin anew.
    await driver.tile(*words(driver, 1, value=0x3C00, activation=0x3C00))
    await driver.check()
    assert [special for _, *special in driver.results[:4]] == [
        [True, False], [False, True], [True, True], [False, False],
    ]  # fmt: skip


@cocotb.test()
async def random_sums_are_exact(dut):
    driver = await begin(dut)
    random, configuration = driver.random, driver.config
    for tile in range(60):
        values, indices, activations = words(driver, int(random.integers(1, 8)))
        indices[:] = random.integers(0, configuration.group, indices.shape)
        for array in (values, activations):
            array[:] = random.integers(0, 1 << 16, array.shape)
            # Infinities and NaNs in a few tiles only; some with products of like size, or
            # subnormal.
            if tile % 4:
                array &= 0xFFFF ^ (0x4000 >> int(random.integers(5)))
            if tile % 5 == 0:
                array &= 0x83FF
        await driver.tile(values, indices, activations, pauses=0.2 * (tile % 2))
    await driver.check()


@cocotb.test()
async def results_go_down_the_chain(dut):
    driver = await begin(dut)
    layout, value = Result(config()), {"units": -5, "special": {"positive": 0, "negative": 1}}
    dut.above.value = pack(layout, {"valid": 1, "value": value})
    dut.take.value = 0
    await RisingEdge(dut.clk)
    dut.above.value = 0
    await RisingEdge(dut.clk)
    below = unpack(layout, int(dut.below.value))
    assert below.valid and below.value.units == -5 and below.value.special.negative
    await driver.slot()
    assert not int(dut.below.value) & 1


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_pe(name):
    configuration = preset(name)
    simulate(
        ProcessingElement(configuration),
        name=f"pe_{name}",
        testbench=__name__,
        config=configuration,
    )


def test_sum_holds_the_longest_reduction():
    configuration = preset("sim")
    largest = 2047 * 2047 << 60 >> 2
    sums = largest * configuration.max_additions * configuration.lanes
    assert sums < 1 << sum_bits(configuration) - 1
