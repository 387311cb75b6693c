"""ReadDMA against an AXI4 memory model."""

import cocotb
from cocotb.triggers import RisingEdge

from rtl.config import preset
from rtl.control.commands import Fault
from rtl.control.fault import FaultReport
from rtl.interface.flatten import Flattened
from rtl.memory.read_dma import ReadDMA
from tests.harness import config, receive, rng, send, simulate, start, unpack

from .axi import addresses, descriptor, packed, pauses, read_memory, restart, wait_for


def test_read_dma():
    tiny = preset("tiny")
    simulate(
        Flattened(ReadDMA(tiny), axi="m_axi"), name="read_dma", testbench=__name__, config=tiny
    )


async def begin(dut, random, *, busy=True):
    """Reset; return a memory of random content, and pauses on all channels if `busy`."""
    await start(dut)
    ram = read_memory(dut, config(), random.bytes(config().memory_bytes))
    if busy:
        ram.ar_channel.set_pause_generator(pauses(random))
        ram.r_channel.set_pause_generator(pauses(random))
    return ram


def beats(ram, fields):
    """Return what a descriptor reads."""
    size = config().beat_bytes
    return [int.from_bytes(ram.read(a, size), "little") for a in addresses(fields, config())]


def random_descriptor(random):
    size = config().beat_bytes
    counts = (int(random.integers(1, 25)), *(int(n) for n in random.integers(1, 4, 3)))
    strides = tuple(size * int(n) for n in random.integers(-40, 41, 3))
    middle = config().memory_bytes // size // 2
    return descriptor(size * int(random.integers(middle - 300, middle + 300)), counts, strides)


@cocotb.test()
async def reads_what_descriptors_name(dut):
    random = rng()
    ram = await begin(dut, random)
    size, most = config().beat_bytes, config().memory_bytes
    descriptors = [
        descriptor(0, (1,)),
        descriptor(4096 - size, (2,)),
        descriptor(4096 - 3 * size, (4096 // size + 5,)),
        descriptor(most - 4 * size, (4,)),
        descriptor(64 * size, (1, 5), (-3 * size,)),
        descriptor(64 * size, (2, 3, 2, 2), (8 * size, -2 * size, 0)),
        *(random_descriptor(random) for _ in range(25)),
    ]
    cocotb.start_soon(send(dut, "descriptor", map(packed, descriptors), random))
    for fields in descriptors:
        expected = beats(ram, fields)
        got = await receive(dut, "data", len(expected), random)
        assert got == expected, f"descriptor {fields}"
    await wait_for(dut, dut.idle)
    assert unpack(FaultReport, dut.fault.value).code == Fault.NONE


@cocotb.test()
async def uses_the_bus_well(dut):
    random = rng()
    await begin(dut, random, busy=False)
    dut.data__ready.value = 1
    size = config().beat_bytes
    for fields, least in (
        (descriptor(0, (512,)), 0.95),
        (descriptor(size, (24, 16), (40 * size,)), 0.95),
        (descriptor(0, (1, 400), (3 * size,)), 0.95),
        # Of two channel blocks one, in tiles of 16 images: the lines of an image.
        (descriptor(0, (16, 5, 6), (32 * size, 256 * size)), 0.95),
    ):
        count = len(addresses(fields, config()))
        await send(dut, "descriptor", [packed(fields)])
        await wait_for(dut, dut.beat)
        taken, cycles = 1, 1
        while taken < count:
            await RisingEdge(dut.clk)
            cycles += 1
            taken += int(dut.beat.value)
            assert cycles < 5000
        assert count / cycles >= least, f"{count} beats in {cycles} cycles, {fields}"


async def fails(dut, random, ram, fields, code, address, *, bad=None, delivered=0):
    """Check that `fields` gives a fault after `delivered` beats, and that a reset repairs it."""
    ram.bad = set() if bad is None else {bad}
    good = descriptor(0, (20,))
    cocotb.start_soon(send(dut, "descriptor", [packed(good), packed(fields)], random))
    assert await receive(dut, "data", 20, random) == beats(ram, good)
    if delivered:
        named = addresses(fields, config())[:delivered]
        size = config().beat_bytes
        expected = [int.from_bytes(ram.read(a, size), "little") for a in named]
        assert await receive(dut, "data", delivered, random) == expected
    dut.data__ready.value = 1
    for _ in range(200):
        await RisingEdge(dut.clk)
        assert not dut.data__valid.value
    fault = unpack(FaultReport, dut.fault.value)
    assert (fault.code, fault.address) == (code, address)
    assert dut.idle.value
    assert not dut.descriptor__ready.value
    dut.descriptor__valid.value = 0
    dut.data__ready.value = 0

    await restart(dut)
    assert unpack(FaultReport, dut.fault.value).code == Fault.NONE
    await send(dut, "descriptor", [packed(good)])
    assert await receive(dut, "data", 20, random) == beats(ram, good)


@cocotb.test()
async def refuses_malformed_descriptors(dut):
    random = rng()
    ram = await begin(dut, random)
    size = config().beat_bytes
    for position in range(4):
        counts = [2, 2, 2, 2]
        counts[position] = 0
        await fails(dut, random, ram, descriptor(512, tuple(counts)), Fault.MALFORMED, 512)
    await fails(
        dut, random, ram, descriptor(512 + size // 2, (1,)), Fault.MALFORMED, 512 + size // 2
    )
    for position in range(3):
        strides = [size, size, size]
        strides[position] += 2
        await fails(dut, random, ram, descriptor(512, (1,), tuple(strides)), Fault.MALFORMED, 512)


@cocotb.test()
async def stays_inside_memory(dut):
    random = rng()
    ram = await begin(dut, random)
    size, end = config().beat_bytes, config().memory_bytes
    await fails(dut, random, ram, descriptor(end, (1,)), Fault.ADDRESS_RANGE, end)
    await fails(dut, random, ram, descriptor(1 << 63, (1,)), Fault.ADDRESS_RANGE, 1 << 63)
    await fails(
        dut, random, ram, descriptor(end - 3 * size, (5,)), Fault.ADDRESS_RANGE, end, delivered=3
    )
    await fails(
        dut,
        random,
        ram,
        descriptor(2 * size, (1, 4), (-size,)),
        Fault.ADDRESS_RANGE,
        (1 << 64) - size,
        delivered=3,
    )


@cocotb.test()
async def reports_bad_responses(dut):
    random = rng()
    ram = await begin(dut, random)
    size = config().beat_bytes
    fields = descriptor(64 * size, (20,))
    for bad, burst, delivered in ((64, 64, 0), (75, 72, 11), (83, 80, 19)):
        await fails(
            dut,
            random,
            ram,
            fields,
            Fault.READ_RESPONSE,
            burst * size,
            bad=bad * size,
            delivered=delivered,
        )


@cocotb.test()
async def abandons_transfers(dut):
    random = rng()
    ram = await begin(dut, random)
    for wait in (0, 3, 9, 30, 47):
        fields = descriptor(0, (3, 200), (96,))
        await send(dut, "descriptor", [packed(fields)])
        if wait:
            await receive(dut, "data", wait, random)
        dut.abort.value = 1
        # Whoever took the data may be stuck: what is under way ends without it.
        await RisingEdge(dut.clk)
        await wait_for(dut, dut.idle)
        for _ in range(50):
            await RisingEdge(dut.clk)
            assert dut.idle.value
            assert not dut.m_axi_arvalid.value
            assert not dut.data__valid.value
        dut.abort.value = 0
        await restart(dut)
        await send(dut, "descriptor", [packed(fields)])
        expected = beats(ram, fields)
        assert await receive(dut, "data", len(expected), random) == expected
