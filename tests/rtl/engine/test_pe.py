"""The processing element against exact sums of the golden model."""

import dataclasses
import itertools

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import ACCUMULATOR_BINS, preset
from rtl.engine.pe import (
    DrainSlot,
    ProcessingElement,
    Result,
    Slot,
    drain_distance,
    drain_turns,
    latency,
    sum_bits,
)
from rtl.memory.scratchpad import SOperand
from rtl.technology import Technology
from sim.golden.arithmetic import ExactSum, Operand
from tests.harness import config, pack, rng, simulate, start, unpack
from tests.operands import d_bits, s_bits

CORNERS = [
    0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x8400, 0x3555, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF,
    0x7C00, 0xFC00, 0x7E01,
]  # fmt: skip
"""Zeros, subnormals, the smallest and largest normal numbers, infinities and a NaN."""


class Driver:
    """Drives the ports of a PE slot by slot: while one half accumulates, it drains the other.

    The testbench's sums are the golden model's: `expected` has them as exact integers.
    """

    def __init__(self, dut, configuration, random):
        self.dut = dut
        self.config = configuration
        self.random = random
        self.cycle = 0
        self.half = 0
        self.free = [0, 0]
        """Cycle from which a half takes products."""
        self.drains = []
        """Draining slots to come, each with the first cycle it may be in."""
        self.kept = []
        """Tiles of the sums under way."""
        self.latencies = []
        self.results = []
        self.expected = []
        self.slot_layout = Slot(configuration)
        self.drain_layout = DrainSlot(configuration)
        self.entry_layout = SOperand(configuration)
        self.result_layout = Result(configuration)

    async def slot(self, s=0, d=0, **slot):
        dut = self.dut
        dut.slot.value = pack(self.slot_layout, slot) if slot else 0
        dut.s.value = s
        dut.d.value = d
        dut.drain.value = 0
        if self.drains and self.drains[0][0] <= self.cycle:
            _, drain = self.drains.pop(0)
            dut.drain.value = pack(self.drain_layout, drain)
            if drain["final"] and drain["ends"] and drain["bin"] == ACCUMULATOR_BINS - 1:
                self.latencies.append(self.cycle + latency(self.config))
        await RisingEdge(dut.clk)
        self.cycle += 1
        result = int(dut.result.value)
        assert result == 0 or result & 1
        if result:
            assert self.latencies.pop(0) == self.cycle - 1
            value = unpack(self.result_layout, result).value
            self.results.append(
                (value.units, bool(value.special.positive), bool(value.special.negative))
            )

    async def tile(self, values, indices, activations, pauses=0.0, final=True):
        """Compute one sum for each context, or go on with those that weren't final.

        Parameters
        ----------
        values, indices
            S words ``[steps, lanes]``.
        activations
            D words ``[steps, contexts, elements]``.
        """
        while self.cycle < self.free[self.half] or len(self.drains) > self._slots():
            await self.slot()
        contexts = self.config.interleave
        for step, context in itertools.product(range(len(values)), range(contexts)):
            while self.random.random() < pauses:
                await self.slot()
            s = s_bits(self.entry_layout, values[step], indices[step])
            await self.slot(
                s=s,
                d=d_bits(activations[step, context]),
                multiply=1,
                place={"context": context, "half": self.half},
                first=step == 0,
                fresh=step == 0 and not self.kept,
                last=step == len(values) - 1,
            )
        self._drain(final)
        self.kept.append((values, indices, activations))
        if final:
            self._expect(*(np.concatenate(parts) for parts in zip(*self.kept, strict=True)))
            self.kept.clear()
        self.half ^= 1

    def _slots(self):
        """Draining slots of the last tile, at most."""
        return self.config.interleave * ACCUMULATOR_BINS * (drain_turns(self.config) + 1)

    def _drain(self, final):
        """Queue the slots that drain this half."""
        start = self.cycle - self.config.interleave + drain_distance(self.config)
        if self.drains:
            start = max(start, self.drains[-1][0] + 1)
        turns = drain_turns(self.config) + bool(self.kept)
        slots = itertools.product(
            range(self.config.interleave), range(ACCUMULATOR_BINS), range(turns)
        )
        for context, accumulator_bin, turn in slots:
            drain = {
                "enable": 1, "place": {"context": context, "half": self.half},
                "bin": accumulator_bin, "turn": turn, "ends": turn == turns - 1, "final": final,
            }  # fmt: skip
            self.drains.append((start, drain))
            start += 1
        self.free[self.half] = start

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
        while self.drains:
            await self.slot()
        for _ in range(latency(self.config) + 8):
            await self.slot()
        assert len(self.results) == len(self.expected)
        for index, (result, expected) in enumerate(zip(self.results, self.expected, strict=True)):
            assert result[1:] == expected[1:], index
            # With an infinity the number means nothing.
            assert any(expected[1:]) or result[0] == expected[0], index


async def begin(dut):
    driver = Driver(dut, config(), rng())
    await start(dut)
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
    steps = driver.config.bin_additions
    tiles = min(driver.config.max_additions // steps, 8)
    # The largest products of every bin, of either sign.
    for exponents in ((30, 30), (30, 29), (27, 19), (19, 11), (11, 3)):
        magnitude, activation = (exponent << 10 | 0x3FF for exponent in exponents)
        for sign in (0, 0x8000):
            for tile in range(tiles):
                await driver.tile(
                    *words(driver, steps, value=magnitude | sign, activation=activation),
                    final=tile == tiles - 1,
                )
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
async def random_sums_are_kept_and_go_on(dut):
    driver = await begin(dut)
    random, configuration = driver.random, driver.config
    for tile in range(40):
        values, indices, activations = words(driver, int(random.integers(1, 8)))
        indices[:] = random.integers(0, configuration.group, indices.shape)
        for array in (values, activations):
            array[:] = random.integers(0, 1 << 16, array.shape)
            if tile % 8:
                array &= 0xBFFF
        final = tile == 39 or random.random() < 0.4
        await driver.tile(values, indices, activations, pauses=0.1, final=final)
    await driver.check()


@cocotb.test()
async def outputs_follow_those_drained(dut):
    """In each context from the cycle after the last slot that drains it, and in the last bin."""
    driver = await begin(dut)
    drained = dict.fromkeys(range(driver.config.interleave), -1)
    for _ in range(4):
        values, indices, activations = words(driver, 1)
        for array in (values, activations):
            array[:] = 0x7800 | driver.random.integers(0, 1 << 10, array.shape)
        for context, end in drained.items():
            while driver.cycle <= end:
                await driver.slot()
            await driver.slot(
                s=s_bits(driver.entry_layout, values[0], indices[0]),
                d=d_bits(activations[0, context]),
                multiply=1,
                place={"context": context, "half": driver.half},
                first=1,
                fresh=1,
                last=1,
            )
        driver._drain(final=True)
        driver._expect(values, indices, activations)
        drained |= {drain["place"]["context"]: cycle for cycle, drain in driver.drains}
    await driver.check()


@pytest.mark.parametrize(
    "name, technology, changes",
    [
        *itertools.product(["tiny", "sim", "sim-wide", "sim-8x"], Technology, [{}]),
        ("ulx3s", Technology.ECP5, {}),
        ("sim-wide", Technology.GENERIC, {"bin_ports": 1}),
    ],
)
def test_pe(name, technology, changes):
    configuration = dataclasses.replace(preset(name), **changes)
    ports = configuration.bin_ports
    simulate(
        ProcessingElement(configuration),
        name=f"pe_{name.replace('-', '_')}_{technology.name.lower()}_{ports}",
        testbench=__name__,
        config=configuration,
        technology=technology,
    )


def test_sum_holds_the_longest_reduction():
    configuration = preset("sim")
    largest = 2047 * 2047 << 60 >> 2
    sums = largest * configuration.max_additions * configuration.lanes
    assert sums < 1 << sum_bits(configuration) - 1
