"""The shared read port: two masters on one memory, one of which may stall for ever."""

import cocotb
from cocotbext.axi import AxiRamRead, AxiReadBus

from rtl.config import PRESETS
from rtl.interface.axi import Address, ReadData
from rtl.interface.flatten import Flattened
from rtl.interface.read_arbiter import ReadArbiter
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack

MEMORY = 1 << 16


def test_read_arbiter():
    tiny = PRESETS["tiny"]
    simulate(
        Flattened(ReadArbiter(tiny), axi="m_axi"),
        name="read_arbiter",
        testbench=__name__,
        config=tiny,
    )


async def begin(dut):
    await start(dut)
    random = rng()
    memory = AxiRamRead(AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=MEMORY)
    memory.write(0, random.bytes(MEMORY))
    return memory, random


def random_bursts(random, count):
    """Bursts as (address, beats) that stay in memory and in their 4 KiB."""
    beat, longest = config().beat_bytes, config().burst_beats
    starts = random.integers(MEMORY // (beat * longest), size=count) * beat * longest
    return [(int(address), int(random.integers(1, longest + 1))) for address in starts]


def addresses(bursts):
    return [pack(Address, {"addr": address, "len": beats - 1}) for address, beats in bursts]


def expected(memory, bursts):
    """Data and `last` of every beat."""
    beat = config().beat_bytes
    return [
        (int.from_bytes(memory.read(address + i * beat, beat), "little"), i == beats - 1)
        for address, beats in bursts
        for i in range(beats)
    ]


async def take(dut, port, count, random, idle):
    beats = await receive(dut, f"{port}__r", count, random, idle=idle)
    layout = ReadData(config().beat_bits)
    return [(unpack(layout, beat).data, bool(unpack(layout, beat).last)) for beat in beats]


@cocotb.test()
async def serves_both(dut):
    """Each master gets its own bursts, in its order, whatever the other does."""
    memory, random = await begin(dut)
    bursts = {port: random_bursts(random, 60) for port in ("load", "fetch")}
    memory.r_channel.set_pause_generator(bool(random.random() < 0.2) for _ in iter(int, 1))
    tasks = {}
    for port, idle in (("load", 0.5), ("fetch", 0.0)):
        cocotb.start_soon(send(dut, f"{port}__ar", addresses(bursts[port]), random))
        count = sum(beats for _, beats in bursts[port])
        tasks[port] = cocotb.start_soon(take(dut, port, count, random, idle))
    for port, task in tasks.items():
        assert await task == expected(memory, bursts[port]), port


@cocotb.test()
async def fetches_past_a_stalled_load(dut):
    """The load unit takes nothing, and asks for more than there is room for; the fetch goes on."""
    memory, random = await begin(dut)
    room = config().outstanding_reads * config().burst_beats
    loads = random_bursts(random, 40)
    assert sum(beats for _, beats in loads) > room
    cocotb.start_soon(send(dut, "load__ar", addresses(loads), timeout=10**6))
    fetches = random_bursts(random, 30)
    cocotb.start_soon(send(dut, "fetch__ar", addresses(fetches), random))
    count = sum(beats for _, beats in fetches)
    assert await take(dut, "fetch", count, random, 0.0) == expected(memory, fetches)
    count = sum(beats for _, beats in loads)
    assert await take(dut, "load", count, random, 0.3) == expected(memory, loads)
