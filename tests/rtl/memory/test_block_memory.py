"""Block memory: bursts and bytes beside each other, and addresses that aren't there."""

import dataclasses

import cocotb
from cocotb.triggers import RisingEdge

from rtl.config import PRESETS
from rtl.interface.axi import Address, ReadData, Response, WriteData
from rtl.memory.block_memory import BlockMemory
from rtl.memory.ports import ByteAnswer, ByteRequest
from tests.harness import config, pack, receive, rng, send, simulate, start, unpack

SIZE = 1 << 16


def test_block_memory():
    small = dataclasses.replace(PRESETS["tiny"], memory_bytes=SIZE)
    simulate(BlockMemory(small), name="block_memory", testbench=__name__, config=small)


async def write(dut, bursts, random=None):
    """Write bursts, (address, beats, strobe) each; return the responses."""
    addresses = [pack(Address, {"addr": a, "len": len(b) - 1}) for a, b, _ in bursts]
    layout = WriteData(config().beat_bits)
    beats = [
        pack(layout, {"data": beat, "strb": strobe, "last": number == len(burst) - 1})
        for _, burst, strobe in bursts
        for number, beat in enumerate(burst)
    ]
    cocotb.start_soon(send(dut, "write__aw", addresses, random))
    cocotb.start_soon(send(dut, "write__w", beats, random))
    return await receive(dut, "write__b", len(bursts), random)


async def read(dut, bursts, random=None):
    """Read bursts, (address, count) each; return their beats with response."""
    addresses = [pack(Address, {"addr": a, "len": count - 1}) for a, count in bursts]
    cocotb.start_soon(send(dut, "read__ar", addresses, random))
    total = sum(count for _, count in bursts)
    layout = ReadData(config().beat_bits)
    got = [unpack(layout, value) for value in await receive(dut, "read__r", total, random)]
    lasts = [n == count - 1 for _, count in bursts for n in range(count)]
    assert [bool(beat.last) for beat in got] == lasts
    return [(beat.data, beat.resp) for beat in got]


async def access(dut, requests, random=None):
    """Access bytes, (address, byte or nothing) each; return the answers."""
    answers = []
    for address, byte in requests:
        request = {"address": address, "write": byte is not None, "data": byte or 0}
        cocotb.start_soon(send(dut, "access__request", [pack(ByteRequest, request)], random))
        while True:
            await RisingEdge(dut.clk)
            answer = unpack(ByteAnswer, dut.access__answer.value)
            if answer.valid:
                break
        answers.append((answer.data, bool(answer.error)))
    return answers


@cocotb.test()
async def holds_what_is_written(dut):
    await start(dut)
    random, size = rng(), config().beat_bytes
    content = random.bytes(64 * size)
    beats = [int.from_bytes(content[i : i + size], "little") for i in range(0, len(content), size)]
    bursts = [(size * start, beats[start : start + 8], 1) for start in range(0, 64, 8)]
    assert await write(dut, bursts, random) == [Response.OKAY.value] * 8
    # An abandoned burst writes nothing.
    assert await write(dut, [(0, [0] * 4, 0)]) == [Response.OKAY.value]
    tasks = [
        cocotb.start_soon(read(dut, [(0, 32), (32 * size, 31), (63 * size, 1)] * 2, random)),
        cocotb.start_soon(access(dut, [(7 * i, None) for i in range(200)])),
    ]
    assert await tasks[0] == [(beat, Response.OKAY) for beat in beats * 2]
    assert await tasks[1] == [(content[7 * i], False) for i in range(200)]
    # Bytes go between the beats of a burst, and change nothing beside them.
    spare = 128 * size
    changes = {int(place): int(byte) for place, byte in random.integers(0, 256, (80, 2))}
    tasks = [
        cocotb.start_soon(write(dut, [(spare, beats, 1)], random)),
        cocotb.start_soon(access(dut, list(changes.items()))),
    ]
    assert await tasks[0] == [Response.OKAY.value]
    await tasks[1]
    changed = bytearray(content)
    for place, byte in changes.items():
        changed[place] = byte
    expected = [
        int.from_bytes(changed[i : i + size], "little") for i in range(0, len(changed), size)
    ]
    got = await read(dut, [(0, 64), (spare, 64)], random)
    assert got == [(beat, Response.OKAY) for beat in expected + beats]


@cocotb.test()
async def reads_a_beat_a_cycle(dut):
    await start(dut)
    cycles = 0
    dut.read__r__ready.value = 1
    cocotb.start_soon(send(dut, "read__ar", [pack(Address, {"addr": 0, "len": 255})]))
    while not dut.read__r__valid.value:
        await RisingEdge(dut.clk)
    while dut.read__r__valid.value:
        cycles += 1
        await RisingEdge(dut.clk)
    assert cycles == 256


@cocotb.test()
async def answers_errors_outside(dut):
    """Both ends of the memory stay as they are; data that come with an error mean nothing."""
    await start(dut)
    size, random = config().beat_bytes, rng()
    first, last, other = (int.from_bytes(random.bytes(size), "little") for _ in range(3))
    assert await write(dut, [(0, [first], 1), (SIZE - size, [last], 1)]) == [0, 0]
    bad = Response.DECERR.value
    assert await write(dut, [(SIZE, [other], 1), (1 << 63, [other], 1)]) == [bad, bad]
    requests = [(SIZE, ~first & 0xFF), (1 << 39, None)]
    assert [error for _, error in await access(dut, requests)] == [True, True]
    got = await read(dut, [(SIZE, 2), (0, 1), (SIZE - size, 1)])
    assert [response for _, response in got[:2]] == [Response.DECERR] * 2
    assert got[2:] == [(first, Response.OKAY), (last, Response.OKAY)]
