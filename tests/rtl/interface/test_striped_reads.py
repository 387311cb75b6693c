"""Two read ports at the same channels: each has its own data, and none waits for the other."""

import dataclasses

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import preset
from rtl.interface.axi import Address, ReadData, Response
from rtl.interface.read_striper import BEATS
from rtl.interface.striped_reads import StripedReads
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack

from .channels import Memory, Pace, random_paces, streamed


@pytest.mark.parametrize("channels", [2, 4])
def test_striped_reads(channels):
    chosen = dataclasses.replace(preset("tiny"), channels=channels, burst_beats=32)
    simulate(
        StripedReads(chosen), name=f"striped_reads_{channels}", testbench=__name__, config=chosen
    )


PORTS = (0, 1)


async def begin(dut, paces):
    random = rng()
    await start(dut)
    memory = Memory(dut, random, paces or [Pace()] * config().channels)
    memory.serve(reads=True)
    return memory, random


def random_bursts(random, count):
    """Bursts as (beat, beats) within a page each."""
    page, longest = config().page_beats, config().burst_beats
    lengths = random.integers(1, longest + 1, count).tolist()
    pages = random.integers(config().memory_bytes // config().beat_bytes // page, size=count)
    return [
        (int(number) * page + int(random.integers(page - beats + 1)), beats)
        for number, beats in zip(pages, lengths, strict=True)
    ]


def ask(dut, port, bursts, random=None):
    beat = config().beat_bytes
    items = (pack(Address, {"addr": first * beat, "len": beats - 1}) for first, beats in bursts)
    return cocotb.start_soon(send(dut, f"core__{port}__ar", items, random, timeout=10**6))


async def arrives(dut, port, memory, bursts, random, idle):
    """The beats of all bursts arrive at `port` in their order."""
    count = sum(beats for _, beats in bursts)
    layout = ReadData(config().beat_bits)
    beats = await receive(dut, f"core__{port}__r", count, random, idle=idle)
    taken = [unpack(layout, beat) for beat in beats]
    assert [(beat.data, beat.resp, bool(beat.last)) for beat in taken] == [
        (memory.beats[beat], Response.OKAY, beat == first + beats - 1)
        for first, beats in bursts
        for beat in range(first, first + beats)
    ]


@cocotb.test()
async def each_has_its_own_data(dut):
    """In order, whatever latencies, rates and pauses there are on either side."""
    memory, random = await begin(dut, None)
    for _ in range(4):
        memory.paces = random_paces(random)
        tasks = []
        for port in PORTS:
            bursts = random_bursts(random, 40)
            ask(dut, port, bursts, random)
            idle = float(random.random() * 0.6)
            task = arrives(dut, port, memory, bursts, random, idle)
            tasks.append(cocotb.start_soon(task))
        for task in tasks:
            await task


@cocotb.test()
async def none_waits_for_the_other(dut):
    """One asks for more than there is room for, and takes nothing; the other goes on."""
    memory, random = await begin(dut, None)
    for stalled in PORTS:
        waiting, bursts = random_bursts(random, 80), random_bursts(random, 80)
        assert sum(beats for _, beats in waiting) > BEATS
        ask(dut, stalled, waiting)
        ask(dut, 1 - stalled, bursts)
        await arrives(dut, 1 - stalled, memory, bursts, random, 0.1)
        await arrives(dut, stalled, memory, waiting, random, 0.1)


@cocotb.test()
async def two_beats_a_cycle(dut):
    """Both stream at once at nearly a beat a cycle each, from channels at full speed."""
    await begin(dut, None)
    page, longest = config().page_beats, config().burst_beats
    starts = (0, config().memory_bytes // config().beat_bytes // 2 + page)
    for port, first in zip(PORTS, starts, strict=True):
        ask(dut, port, streamed(first, 4096 // longest * longest))
        getattr(dut, f"core__{port}__r__ready").value = 1
    counts, cycles = [0, 0], 0
    while sum(counts) < 2 * 2048:
        await RisingEdge(dut.clk)
        cycles += min(counts) > page
        for port in PORTS:
            counts[port] += int(getattr(dut, f"core__{port}__r__valid").value)
        assert cycles < 10 * 4096
    rate = (sum(counts) - 2 * page) / cycles
    dut._log.info(f"{rate:.2f} beats a cycle of {counts}")
    assert rate >= 1.5 and min(counts) > 1500
