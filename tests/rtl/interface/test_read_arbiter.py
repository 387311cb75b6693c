"""The shared read port: a fetch and two masters that may stall for ever on one memory."""

import cocotb
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotbext.axi import AxiRamRead, AxiReadBus

from rtl.config import PRESETS
from rtl.interface.axi import Address, AXI4ReadSignature, ReadData
from rtl.interface.flatten import Flattened
from rtl.interface.read_arbiter import ReadArbiter
from rtl.interface.read_buffer import ReadBuffer
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack

MEMORY = 1 << 16


class SharedPort(wiring.Component):
    """A fetch, and loads and streams behind a buffer each, as in the core."""

    def __init__(self, config):
        self._config = config
        signature = AXI4ReadSignature(config.beat_bits)
        members = dict.fromkeys(("fetch", "load", "stream"), In(signature))
        super().__init__({**members, "axi": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = ReadArbiter(self._config, masters=3, bursts=32)
        wiring.connect(m, wiring.flipped(self.fetch), arbiter.masters[0])
        for number, master in enumerate((self.load, self.stream), 1):
            m.submodules[f"buffer_{number}"] = buffer = ReadBuffer(self._config)
            wiring.connect(m, wiring.flipped(master), buffer.master)
            wiring.connect(m, buffer.axi, arbiter.masters[number])
        wiring.connect(m, arbiter.axi, wiring.flipped(self.axi))
        return m


def test_read_arbiter():
    tiny = PRESETS["tiny"]
    simulate(
        Flattened(SharedPort(tiny), axi="m_axi"),
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
async def serves_all(dut):
    """Each master gets its own bursts, in its order, whatever the others do."""
    memory, random = await begin(dut)
    bursts = {port: random_bursts(random, 60) for port in ("load", "stream", "fetch")}
    memory.r_channel.set_pause_generator(bool(random.random() < 0.2) for _ in iter(int, 1))
    tasks = {}
    for port, idle in (("load", 0.5), ("stream", 0.3), ("fetch", 0.0)):
        cocotb.start_soon(send(dut, f"{port}__ar", addresses(bursts[port]), random))
        count = sum(beats for _, beats in bursts[port])
        tasks[port] = cocotb.start_soon(take(dut, port, count, random, idle))
    for port, task in tasks.items():
        assert await task == expected(memory, bursts[port]), port


@cocotb.test()
async def goes_on_past_stalled_masters(dut):
    """Two take nothing, and ask for more than there is room for; the third goes on."""
    memory, random = await begin(dut)
    room = config().outstanding_reads * config().burst_beats
    for ports in (("load", "stream", "fetch"), ("stream", "load", "fetch")):
        stalled, other = ports[0], ports[1:]
        waiting = random_bursts(random, 40)
        assert sum(beats for _, beats in waiting) > room
        cocotb.start_soon(send(dut, f"{stalled}__ar", addresses(waiting), timeout=10**6))
        for port in other:
            bursts = random_bursts(random, 30)
            cocotb.start_soon(send(dut, f"{port}__ar", addresses(bursts), random))
            count = sum(beats for _, beats in bursts)
            assert await take(dut, port, count, random, 0.0) == expected(memory, bursts)
        count = sum(beats for _, beats in waiting)
        assert await take(dut, stalled, count, random, 0.3) == expected(memory, waiting)


@cocotb.test()
async def takes_turns(dut):
    """Of two that always ask, each has every other burst."""
    _, random = await begin(dut)
    whole = [(0, config().burst_beats)] * 100
    taken = dict.fromkeys(("load", "stream"), 0)

    async def drain(port):
        for _ in whole:
            await take(dut, port, config().burst_beats, random, 0.0)
            taken[port] += 1
            assert abs(taken["load"] - taken["stream"]) <= 3

    tasks = []
    for port in taken:
        cocotb.start_soon(send(dut, f"{port}__ar", addresses(whole), timeout=10**6))
        tasks.append(cocotb.start_soon(drain(port)))
    for task in tasks:
        await task
    assert taken == {"load": 100, "stream": 100}
