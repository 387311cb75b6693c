"""WriteDMA against an AXI4 memory model."""

import cocotb
from cocotb.triggers import RisingEdge

from rtl.config import preset
from rtl.control.commands import Fault
from rtl.control.fault import FaultReport
from rtl.interface.flatten import Flattened
from rtl.memory.write_dma import WriteDMA
from tests.harness import clocks, config, rng, send, simulate, start, unpack

from .axi import addresses, descriptor, packed, pauses, restart, wait_for, write_memory


def test_write_dma():
    tiny = preset("tiny")
    simulate(
        Flattened(WriteDMA(tiny), axi="m_axi"), name="write_dma", testbench=__name__, config=tiny
    )


async def begin(dut, random, *, busy=True):
    """Reset; return a memory of random content, and pauses on all channels if `busy`."""
    await start(dut)
    ram = write_memory(dut, config())
    ram.write(0, random.bytes(config().memory_bytes))
    if busy:
        for channel in (ram.aw_channel, ram.w_channel, ram.b_channel):
            channel.set_pause_generator(pauses(random))
    return ram


def random_beats(random, fields):
    """Return a beat for every address of a descriptor."""
    count = len(addresses(fields, config()))
    return [int.from_bytes(random.bytes(config().beat_bytes), "little") for _ in range(count)]


def image(ram):
    return bytearray(ram.read(0, config().memory_bytes))


def written(before, fields, beats):
    """Return the memory image `before` with `beats` written."""
    after = bytearray(before)
    size = config().beat_bytes
    for address, beat in zip(addresses(fields, config()), beats, strict=False):
        after[address : address + size] = beat.to_bytes(size, "little")
    return after


@cocotb.test()
async def writes_where_descriptors_say(dut):
    random = rng()
    ram = await begin(dut, random)
    size, most = config().beat_bytes, config().memory_bytes
    descriptors = [
        descriptor(0, (1,)),
        descriptor(4096 - size, (2,)),
        descriptor(most - 12 * size, (12,)),
        descriptor(64 * size, (1, 5), (-3 * size,)),
        descriptor(64 * size, (2, 3, 2, 2), (8 * size, -2 * size, 0)),
    ]
    for _ in range(25):
        counts = (int(random.integers(1, 20)), *(int(n) for n in random.integers(1, 4, 3)))
        strides = tuple(size * int(n) for n in random.integers(-40, 41, 3))
        first = size * int(random.integers(2000, 4000))
        descriptors.append(descriptor(first, counts, strides))
    expected = image(ram)
    beats = []
    for fields in descriptors:
        new = random_beats(random, fields)
        expected = written(expected, fields, new)
        beats += new
    cocotb.start_soon(send(dut, "descriptor", map(packed, descriptors), random))
    await send(dut, "data", beats, random)
    assert not dut.idle.value
    await wait_for(dut, dut.idle)
    assert image(ram) == expected
    assert unpack(FaultReport, dut.fault.value).code == Fault.NONE


@cocotb.test()
async def uses_the_bus_well(dut):
    random = rng()
    await begin(dut, random, busy=False)
    size = config().beat_bytes
    for fields, least in (
        (descriptor(0, (512,)), 0.95),
        (descriptor(size, (24, 16), (40 * size,)), 0.95),
        (descriptor(0, (1, 400), (3 * size,)), 0.95),
        # Rows of four channel blocks, written as tiles of 16 images.
        (descriptor(0, (1, 4, 16, 4), (16 * size, size, 64 * size)), 0.95),
    ):
        beats = random_beats(random, fields)
        await send(dut, "descriptor", [packed(fields)])
        cocotb.start_soon(send(dut, "data", beats))
        await wait_for(dut, dut.m_axi_wvalid)
        taken, cycles = int(dut.m_axi_wready.value), 1
        while taken < len(beats):
            await RisingEdge(dut.clk)
            cycles += 1
            taken += int(dut.m_axi_wvalid.value and dut.m_axi_wready.value)
            assert cycles < 5000
        assert len(beats) / cycles >= least, f"{len(beats)} beats in {cycles} cycles, {fields}"
        await wait_for(dut, dut.idle)


async def fails(dut, random, ram, fields, code, address, *, bad=None, accepted=0):
    """Check that `fields` gives a fault, `accepted` beats of it written; a reset repairs it."""
    ram.bad = set() if bad is None else {bad}
    good = descriptor(0, (20,))
    before, first, second = image(ram), random_beats(random, good), random_beats(random, good)
    named = addresses(fields, config())[:accepted]
    beats = random_beats(random, descriptor(0, (len(named),))) if named else []
    descriptors = cocotb.start_soon(send(dut, "descriptor", [packed(good), packed(fields)], random))
    feed = cocotb.start_soon(send(dut, "data", [*first, *beats, 0], random))
    for _ in range(2000):
        await RisingEdge(dut.clk)
        fault = unpack(FaultReport, dut.fault.value)
        if fault.code != Fault.NONE and dut.idle.value:
            break
    assert (fault.code, fault.address) == (code, address)
    expected = written(before, good, first)
    if code is not Fault.WRITE_RESPONSE:
        expected = written(expected, fields, beats)
        assert image(ram) == expected
    await clocks(dut, 50)
    assert dut.idle.value
    assert not dut.data__ready.value
    assert not dut.descriptor__ready.value
    for task in (descriptors, feed):
        task.cancel()
    dut.data__valid.value = 0
    dut.descriptor__valid.value = 0
    ram.bad = set()

    await restart(dut)
    assert unpack(FaultReport, dut.fault.value).code == Fault.NONE
    expected = written(image(ram), good, second)
    await send(dut, "descriptor", [packed(good)])
    await send(dut, "data", second, random)
    await wait_for(dut, dut.idle)
    assert image(ram) == expected


@cocotb.test()
async def refuses_malformed_descriptors(dut):
    random = rng()
    ram = await begin(dut, random)
    size = config().beat_bytes
    for fields in (
        descriptor(1024, (0,)),
        descriptor(1024, (1, 1, 1, 0)),
        descriptor(1024 + size // 4, (1,)),
        descriptor(1024, (1,), (0, 0, size // 2)),
    ):
        await fails(dut, random, ram, fields, Fault.MALFORMED, fields["address"])


@cocotb.test()
async def stays_inside_memory(dut):
    random = rng()
    ram = await begin(dut, random)
    size, end = config().beat_bytes, config().memory_bytes
    await fails(dut, random, ram, descriptor(end, (1,)), Fault.ADDRESS_RANGE, end)
    beyond = descriptor(end - 13 * size, (20,))
    await fails(dut, random, ram, beyond, Fault.ADDRESS_RANGE, end, accepted=13)
    below = descriptor(2 * size, (1, 4), (-size,))
    await fails(dut, random, ram, below, Fault.ADDRESS_RANGE, (1 << 64) - size, accepted=3)


@cocotb.test()
async def reports_bad_responses(dut):
    random = rng()
    ram = await begin(dut, random)
    size = config().beat_bytes
    fields = descriptor(64 * size, (20,))
    for bad, burst in ((64, 64), (75, 72), (83, 80)):
        await fails(
            dut,
            random,
            ram,
            fields,
            Fault.WRITE_RESPONSE,
            burst * size,
            bad=bad * size,
            accepted=20,
        )


@cocotb.test()
async def abandons_transfers(dut):
    random = rng()
    ram = await begin(dut, random)
    size = config().beat_bytes
    fields = descriptor(0, (3, 100), (4 * size,))
    for given in (0, 1, 7, 40, 100):
        before, beats = image(ram), random_beats(random, fields)
        await send(dut, "descriptor", [packed(fields)])
        await send(dut, "data", beats[:given], random)
        dut.abort.value = 1
        await wait_for(dut, dut.idle)
        assert image(ram) == written(before, fields, beats[:given])
        for _ in range(50):
            await RisingEdge(dut.clk)
            assert dut.idle.value
            assert not dut.m_axi_awvalid.value
            assert not dut.m_axi_wvalid.value
        dut.abort.value = 0
        await restart(dut)
        await send(dut, "descriptor", [packed(fields)])
        await send(dut, "data", beats, random)
        await wait_for(dut, dut.idle)
        assert image(ram) == written(before, fields, beats)
