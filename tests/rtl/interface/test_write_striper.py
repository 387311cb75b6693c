"""Writes over several channels: data, order, errors and throughput, at any pace of each channel."""

import dataclasses

import cocotb
import pytest

from rtl.config import PAGE_BYTES, preset
from rtl.interface.axi import Address, Response, WriteData, WriteResponse
from rtl.interface.striping import BURSTS
from rtl.interface.write_striper import WriteStriper
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start, unpack

from .channels import Memory, Pace, random_paces, streamed, striped


@pytest.mark.parametrize("channels", [2, 4])
def test_write_striper(channels):
    chosen = dataclasses.replace(preset("tiny"), channels=channels, burst_beats=32)
    simulate(
        WriteStriper(chosen), name=f"write_striper_{channels}", testbench=__name__, config=chosen
    )


async def begin(dut, random, paces):
    await start(dut)
    memory = Memory(dut, random, paces)
    memory.serve(reads=False)
    return memory


class Writes:
    """Bursts of random beats, one in eight of which has its strobe off.

    Attributes
    ----------
    addresses, data
        Packed, for the core's AW and W.
    beats
        In all.
    """

    def __init__(self, random, bursts):
        size = config().beat_bytes
        layout = WriteData(config().beat_bits)
        self.bursts = bursts
        self.addresses = [
            pack(Address, {"addr": first * size, "len": beats - 1}) for first, beats in bursts
        ]
        self.data, self._written = [], []
        for first, beats in bursts:
            for beat in range(beats):
                value = int.from_bytes(random.bytes(size), "little")
                strobe = bool(random.integers(8))
                last = beat == beats - 1
                self.data.append(pack(layout, {"data": value, "strb": strobe, "last": last}))
                if strobe:
                    self._written.append((first + beat, value))
        self.beats = len(self.data)

    def apply(self, beats):
        """Write to a model of memory."""
        for place, value in self._written:
            beats[place] = value


def random_bursts(random, count):
    """Bursts as (beat, beats) within a page each, anywhere in memory; none meets another."""
    page, longest = config().page_beats, config().burst_beats
    pages = random.permutation(config().memory_bytes // PAGE_BYTES)[:count]
    bursts = []
    for number in pages.tolist():
        beats = int(random.integers(1, longest + 1))
        bursts.append((number * page + int(random.integers(page - beats + 1)), beats))
    return bursts


async def passes(dut, memory, writes, random=None):
    """All bursts are written and acknowledged in their order, and nothing else is written."""
    expected = list(memory.beats)
    writes.apply(expected)
    cocotb.start_soon(send(dut, "core__aw", writes.addresses, random))
    cocotb.start_soon(send(dut, "core__w", writes.data, random))
    responses = await receive(dut, "core__b", len(writes.bursts), random)
    assert memory.beats == expected
    return [unpack(WriteResponse, response).resp for response in responses]


@cocotb.test()
async def writes_everything_once(dut):
    """Whatever latencies, rates and pauses the channels have."""
    random = rng()
    memory = await begin(dut, random, [])
    for _ in range(6):
        memory.paces = random_paces(random)
        responses = await passes(dut, memory, Writes(random, random_bursts(random, 40)), random)
        assert set(responses) == {Response.OKAY}


@cocotb.test()
async def writes_at_both_ends_of_pages(dut):
    random = rng()
    memory = await begin(dut, random, [Pace()] * config().channels)
    page, end = config().page_beats, config().memory_bytes // config().beat_bytes
    bursts = [(0, 1), (page - 1, 1), (page, 1), (end - 1, 1), (end - 33, 32), (page - 33, 32)]
    await passes(dut, memory, Writes(random, bursts))


@cocotb.test()
async def errors_stay_with_their_bursts(dut):
    """One channel fails here and there; the same bursts fail in the core, and no others."""
    random = rng()
    paces = [Pace(latency=(0, 60), pause=0.2) for _ in range(config().channels)]
    memory = await begin(dut, random, paces)
    bad = int(random.integers(config().channels))
    bursts = random_bursts(random, 80)
    expected = []
    for first, beats in bursts:
        at = (first + int(random.integers(beats))) * config().beat_bytes
        response = (Response.OKAY, Response.SLVERR, Response.DECERR)[int(random.integers(3))]
        if striped(config(), at)[0] != bad:
            response = Response.OKAY
        memory.errors[at] = response
        expected.append(response)
    assert len(set(expected)) == 3
    assert await passes(dut, memory, Writes(random, bursts), random) == expected


@cocotb.test()
async def a_channel_that_waits_holds_up_no_other(dut):
    """While one channel takes nothing, another writes what comes for it, up to a page for both."""
    random = rng()
    paces = [Pace(pause=1.0), *[Pace()] * (config().channels - 1)]
    memory = await begin(dut, random, paces)
    page = config().page_beats
    pairs = zip(streamed(0, page), streamed(page, page), strict=True)
    writes = Writes(random, [burst for pair in pairs for burst in pair])
    expected = list(memory.beats)
    writes.apply(expected)
    cocotb.start_soon(send(dut, "core__aw", writes.addresses))
    cocotb.start_soon(send(dut, "core__w", writes.data))
    await clocks(dut, 400)
    assert memory.bursts[:2] == [0, len(writes.bursts) // 2]
    assert memory.beats[page : 2 * page] == expected[page : 2 * page]
    assert not dut.core__b__valid.value
    memory.paces = [Pace()] * config().channels
    await receive(dut, "core__b", len(writes.bursts), random)
    assert memory.beats == expected


@cocotb.test()
async def bounds_what_is_under_way(dut):
    """No channel takes anything: so many addresses are accepted, and no beat is lost."""
    random = rng()
    memory = await begin(dut, random, [Pace(pause=1.0)] * config().channels)
    bursts = random_bursts(random, 2 * BURSTS)
    writes = Writes(random, bursts)
    expected = list(memory.beats)
    writes.apply(expected)
    cocotb.start_soon(send(dut, "core__aw", writes.addresses))
    cocotb.start_soon(send(dut, "core__w", writes.data))
    taken = 0
    for _ in range(300):
        await clocks(dut)
        taken += int(dut.core__aw__valid.value) & int(dut.core__aw__ready.value)
    assert taken == BURSTS
    memory.paces = [Pace()] * config().channels
    await receive(dut, "core__b", len(bursts), random)
    assert memory.beats == expected


async def rate(dut, random, bursts):
    """Return the beats in a cycle while `bursts` are written, their last responses apart."""
    writes = Writes(random, bursts)
    cocotb.start_soon(send(dut, "core__aw", writes.addresses))
    answers = cocotb.start_soon(receive(dut, "core__b", len(bursts)))
    sender = cocotb.start_soon(send(dut, "core__w", writes.data))
    cycles = 0
    while not sender.done():
        await clocks(dut, 1)
        cycles += 1
    await answers
    return writes.beats / cycles


@cocotb.test()
async def a_beat_a_cycle(dut):
    """To channels at full speed, to slower ones together, and to a single one."""
    random = rng()
    channels, page = config().channels, config().page_beats
    memory = await begin(dut, random, [Pace()] * channels)
    stream = streamed(0, 4096)
    alone = [burst for i in range(8) for burst in streamed(i * channels * page, page)]
    short = [(int(beat), 1) for beat in random.integers(4096, size=1000)]
    assert await rate(dut, random, stream) >= 0.95
    assert await rate(dut, random, alone) >= 0.95
    assert await rate(dut, random, short) >= 0.95
    memory.paces = [Pace(bandwidth=1 / channels)] * channels
    assert await rate(dut, random, stream) >= 0.95
    assert await rate(dut, random, alone) <= 1.2 / channels
    # Latencies that differ are hidden as well.
    memory.paces = [Pace(latency=(10 * i, 10 * i + 10)) for i in range(channels)]
    assert await rate(dut, random, stream) >= 0.95
