"""Reads over several channels: data, order, errors and throughput, at any pace of each channel."""

import dataclasses

import cocotb
import pytest

from rtl.config import PAGE_BYTES, preset
from rtl.interface.axi import Address, ReadData, Response
from rtl.interface.read_striper import BEATS, ReadStriper
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start, unpack

from .channels import Memory, Pace, random_paces, streamed, striped


@pytest.mark.parametrize("channels", [2, 4])
def test_read_striper(channels):
    chosen = dataclasses.replace(preset("tiny"), channels=channels, burst_beats=32)
    simulate(
        ReadStriper(chosen), name=f"read_striper_{channels}", testbench=__name__, config=chosen
    )


async def begin(dut, random, paces):
    await start(dut)
    memory = Memory(dut, random, paces)
    memory.serve(reads=True)
    return memory


def address(beat, beats):
    return pack(Address, {"addr": beat * config().beat_bytes, "len": beats - 1})


def random_bursts(random, count, pages=None):
    """Bursts as (beat, beats) within a page each, of `pages` or anywhere in memory."""
    page, longest = config().page_beats, config().burst_beats
    bursts = []
    for _ in range(count):
        beats = int(random.integers(1, longest + 1))
        offset = int(random.integers(page - beats + 1))
        if pages is None:
            number = int(random.integers(config().memory_bytes // PAGE_BYTES))
        else:
            number = int(random.choice(pages))
        bursts.append((number * page + offset, beats))
    return bursts


def expected(memory, bursts):
    return [
        (
            memory.beats[beat],
            memory.errors.get(beat * config().beat_bytes, Response.OKAY),
            beat == first + beats - 1,
        )
        for first, beats in bursts
        for beat in range(first, first + beats)
    ]


async def take(dut, bursts, random=None, idle=0.3):
    layout = ReadData(config().beat_bits)
    beats = await receive(dut, "core__r", sum(beats for _, beats in bursts), random, idle=idle)
    taken = (unpack(layout, beat) for beat in beats)
    return [(beat.data, beat.resp, bool(beat.last)) for beat in taken]


async def passes(dut, memory, bursts, random=None, idle=0.3):
    """The beats of all bursts arrive in their order."""
    cocotb.start_soon(send(dut, "core__ar", (address(*burst) for burst in bursts), random))
    assert await take(dut, bursts, random, idle) == expected(memory, bursts)


@cocotb.test()
async def keeps_the_order(dut):
    """Whatever latencies, rates and pauses the channels have."""
    random = rng()
    memory = await begin(dut, random, [])
    for _ in range(6):
        memory.paces = random_paces(random)
        await passes(dut, memory, random_bursts(random, 40), random, float(random.random() * 0.6))


@cocotb.test()
async def reads_at_both_ends_of_pages(dut):
    random = rng()
    memory = await begin(dut, random, [Pace()] * config().channels)
    page, end = config().page_beats, config().memory_bytes // config().beat_bytes
    bursts = [(0, 1), (page - 1, 1), (page, 1), (end - 1, 1), (end - 32, 32), (page - 32, 32)]
    await passes(dut, memory, bursts)


@cocotb.test()
async def errors_stay_with_their_beats(dut):
    """One channel fails here and there; the same beats fail in the core, and no others."""
    random = rng()
    paces = [Pace(latency=(0, 60), pause=0.2) for _ in range(config().channels)]
    memory = await begin(dut, random, paces)
    bad = int(random.integers(config().channels))
    bursts = random_bursts(random, 80)
    for first, beats in bursts:
        at = (first + int(random.integers(beats))) * config().beat_bytes
        if striped(config(), at)[0] == bad:
            memory.errors[at] = (Response.SLVERR, Response.DECERR)[int(random.integers(2))]
    assert memory.errors
    await passes(dut, memory, bursts, random)


@cocotb.test()
async def a_channel_that_waits_holds_up_no_other(dut):
    """While one channel takes no address, another reads all that there is room for."""
    random = rng()
    paces = [Pace(pause=1.0), *[Pace()] * (config().channels - 1)]
    memory = await begin(dut, random, paces)
    # A page of the first channel and one of the second, burst by burst.
    page = config().page_beats
    pairs = zip(streamed(0, page), streamed(page, page), strict=True)
    bursts = [burst for pair in pairs for burst in pair]
    cocotb.start_soon(send(dut, "core__ar", (address(*burst) for burst in bursts)))
    await clocks(dut, 400)
    assert memory.bursts[:2] == [0, len(bursts) // 2]
    assert not dut.core__r__valid.value
    memory.paces = [Pace()] * config().channels
    assert await take(dut, bursts, random) == expected(memory, bursts)


@cocotb.test()
async def takes_no_more_than_it_has_room_for(dut):
    """The core asks for everything and takes nothing: channels are never held up, all is kept."""
    random = rng()
    memory = await begin(dut, random, [Pace(latency=(0, 40))] * config().channels)
    bursts = random_bursts(random, 150)
    assert sum(beats for _, beats in bursts) > 3 * BEATS
    cocotb.start_soon(send(dut, "core__ar", (address(*burst) for burst in bursts)))
    await clocks(dut, 2 * BEATS)
    for number in range(config().channels):
        assert not getattr(dut, f"channels__{number}__r__valid").value
    assert BEATS // 4 < sum(memory.sent) <= BEATS
    assert await take(dut, bursts, random) == expected(memory, bursts)


async def rate(dut, bursts):
    """Return the beats in a cycle after the first page, which every channel takes its time for."""
    cocotb.start_soon(send(dut, "core__ar", (address(*burst) for burst in bursts)))
    dut.core__r__ready.value = 1
    beats = sum(beats for _, beats in bursts)
    count, cycles = 0, 0
    while count < beats:
        await clocks(dut, 1)
        cycles += count > config().page_beats
        count += int(dut.core__r__valid.value)
        assert cycles < 10 * beats
    dut.core__r__ready.value = 0
    return (beats - config().page_beats) / cycles


@cocotb.test()
async def a_beat_a_cycle(dut):
    """From channels at full speed, from slower ones together, and from a single one."""
    random = rng()
    channels, page = config().channels, config().page_beats
    memory = await begin(dut, random, [Pace()] * channels)
    stream = streamed(0, 4096)
    alone = [burst for i in range(8) for burst in streamed(i * channels * page, page)]
    short = [(int(beat), 1) for beat in random.integers(4096, size=1000)]
    assert await rate(dut, stream) >= 0.95
    assert await rate(dut, alone) >= 0.95
    assert await rate(dut, short) >= 0.95
    memory.paces = [Pace(bandwidth=1 / channels)] * channels
    assert await rate(dut, stream) >= 0.95
    assert await rate(dut, alone) <= 1.05 / channels
    # Latencies that differ are hidden as well.
    memory.paces = [Pace(latency=(10 * i, 10 * i + 10)) for i in range(channels)]
    assert await rate(dut, stream) >= 0.95
