"""The shared write port: two masters on one memory, either of which may have no beats for long."""

import cocotb
from cocotb.triggers import RisingEdge

from rtl.config import PRESETS
from rtl.interface.axi import Address, Response, WriteData, WriteResponse
from rtl.interface.flatten import Flattened
from rtl.interface.write_arbiter import MASTER_BURSTS, WriteArbiter
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack
from tests.rtl.memory.axi import pauses, write_memory

MASTERS = ("store", "vector")
HALF = 1 << 16
"""Of memory each master has one."""


def test_write_arbiter():
    tiny = PRESETS["tiny"]
    simulate(
        Flattened(WriteArbiter(tiny), axi="m_axi"),
        name="write_arbiter",
        testbench=__name__,
        config=tiny,
    )


class Writes:
    """Bursts of random beats of one master, in its half of memory.

    Attributes
    ----------
    addresses, data
        Packed, for AW and W.
    bursts
        As (address, beats).
    """

    def __init__(self, random, number, count, shortest=1):
        size, longest = config().beat_bytes, config().write_burst_beats
        places = random.permutation(HALF // (size * longest))[:count] * size * longest
        self.bursts = [
            (int(number * HALF + place), int(random.integers(shortest, longest + 1)))
            for place in places
        ]
        self.addresses = [pack(Address, {"addr": at, "len": n - 1}) for at, n in self.bursts]
        self._content, self.data = {}, []
        layout = WriteData(config().beat_bits)
        for address, beats in self.bursts:
            content = random.bytes(beats * size)
            self._content[address] = content
            for i in range(beats):
                value = int.from_bytes(content[i * size : (i + 1) * size], "little")
                beat = {"data": value, "strb": 1, "last": i == beats - 1}
                self.data.append(pack(layout, beat))

    def are_in(self, memory):
        return all(memory.read(at, len(data)) == data for at, data in self._content.items())


async def begin(dut, pause=0.0):
    await start(dut)
    random = rng()
    memory = write_memory(dut, config())
    if pause:
        for channel in (memory.aw_channel, memory.w_channel, memory.b_channel):
            channel.set_pause_generator(pauses(random, pause))
    return memory, random


def give(dut, name, writes, random=None, timeout=20_000):
    cocotb.start_soon(send(dut, f"{name}__aw", writes.addresses, random, timeout=timeout))
    cocotb.start_soon(send(dut, f"{name}__w", writes.data, random, timeout=timeout))


@cocotb.test()
async def writes_what_both_have(dut):
    """Every beat goes where its master wants it, every burst is acknowledged, at any pace."""
    memory, random = await begin(dut, 0.4)
    writes = {name: Writes(random, i, 100) for i, name in enumerate(MASTERS)}
    responses = []
    for name, own in writes.items():
        give(dut, name, own, random)
        answers = receive(dut, f"{name}__b", len(own.bursts), random, timeout=20_000)
        responses.append(cocotb.start_soon(answers))
    for task in responses:
        assert {unpack(WriteResponse, b).resp for b in await task} == {Response.OKAY}
    for own in writes.values():
        assert own.are_in(memory)


@cocotb.test()
async def answers_stay_with_their_masters(dut):
    """Memory fails at some bursts; just these fail, each in its master's order."""
    memory, random = await begin(dut, 0.2)
    writes = {name: Writes(random, i, 60) for i, name in enumerate(MASTERS)}
    bad = {at for own in writes.values() for at, _ in own.bursts if random.random() < 0.3}
    memory.bad = bad
    tasks = {}
    for name, own in writes.items():
        give(dut, name, own, random)
        tasks[name] = cocotb.start_soon(receive(dut, f"{name}__b", len(own.bursts), random))
    for name, own in writes.items():
        wrong = [unpack(WriteResponse, b).resp is not Response.OKAY for b in await tasks[name]]
        assert wrong == [at in bad for at, _ in own.bursts] and any(wrong)


@cocotb.test()
async def passes_by_one_that_waits(dut):
    """A master whose burst lacks its last beat, with all the addresses it may have, is passed."""
    memory, random = await begin(dut)
    for waiting, other in (MASTERS, MASTERS[::-1]):
        halves = {name: i for i, name in enumerate(MASTERS)}
        stuck = Writes(random, halves[waiting], MASTER_BURSTS, shortest=2)
        cocotb.start_soon(send(dut, f"{waiting}__aw", stuck.addresses))
        first = stuck.bursts[0][1] - 1
        await send(dut, f"{waiting}__w", stuck.data[:first])
        free = Writes(random, halves[other], 40)
        give(dut, other, free)
        await receive(dut, f"{other}__b", len(free.bursts))
        assert free.are_in(memory) and not stuck.are_in(memory)
        cocotb.start_soon(send(dut, f"{waiting}__w", stuck.data[first:]))
        await receive(dut, f"{waiting}__b", len(stuck.bursts))
        assert stuck.are_in(memory)


@cocotb.test()
async def uses_the_port_well(dut):
    """Alone a master has all of it, and both together share it evenly."""
    longest = config().write_burst_beats
    _, random = await begin(dut)
    for busy in (MASTERS[:1], MASTERS[1:], MASTERS):
        responses, given = [], dict.fromkeys(busy, 0)
        for name in busy:
            writes = Writes(random, MASTERS.index(name), 100, shortest=longest)
            give(dut, name, writes)
            responses.append(cocotb.start_soon(receive(dut, f"{name}__b", len(writes.bursts))))
        while not dut.m_axi_wvalid.value:
            await RisingEdge(dut.clk)
        # While all have beats to give.
        written, cycles = 0, 80 * longest * len(busy)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
            written += int(dut.m_axi_wvalid.value and dut.m_axi_wready.value)
            for name in busy:
                valid, ready = (getattr(dut, f"{name}__w__{side}") for side in ("valid", "ready"))
                given[name] += int(valid.value and ready.value)
        assert written >= 0.95 * cycles, (busy, written, cycles)
        assert max(given.values()) - min(given.values()) <= 2 * longest
        for task in responses:
            await task
