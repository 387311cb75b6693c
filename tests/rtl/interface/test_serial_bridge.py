"""The serial bridge on a line of bits: every command, what goes wrong, and no write twice."""

import math
import zlib

import cocotb
import pytest
from cocotb.triggers import (
    ClockCycles,
    Event,
    FallingEdge,
    RisingEdge,
    SimTimeoutError,
    ValueChange,
    with_timeout,
)
from cocotb.utils import get_sim_time

from rtl.interface import serial_protocol as protocol
from rtl.interface.serial_bridge import SerialBridge
from rtl.interface.serial_protocol import Command, Status
from rtl.memory.ports import ByteAnswer, ByteRequest
from tests.harness import clocks, pack, parameters, rng, simulate, start, unpack

CLOCK_HERTZ, SILENCE_MICROSECONDS = 4_000_000, 250
SILENCE = CLOCK_HERTZ * SILENCE_MICROSECONDS // 1_000_000
MEMORY = 4096
BAD_REGISTER = 0x40
CLOCK_NANOSECONDS = 10
"""Of the testbench."""

LONG = {4: protocol.MAX_COUNT, 6.4: 256, 40: 64}
"""Most data bytes in a frame, by the cycles in a bit: at a slow rate the longest takes too long."""


@pytest.mark.parametrize("cycles_per_bit", LONG)
def test_serial_bridge(cycles_per_bit):
    baud = round(CLOCK_HERTZ / cycles_per_bit)
    simulate(
        SerialBridge(CLOCK_HERTZ, baud, SILENCE_MICROSECONDS),
        name=f"serial_bridge_{baud}",
        testbench=__name__,
        parameters={"cycles_per_bit": cycles_per_bit},
    )


@pytest.mark.parametrize("baud", [61, 1_000_001])
def test_refuses_rates_that_the_clock_cannot_serve(baud):
    with pytest.raises(ValueError, match=f"baud is {baud}, must be 62 to 1000000 at a clock of"):
        SerialBridge(CLOCK_HERTZ, baud).elaborate(None)


class Bench:
    """The host's end of the line, and registers and memory behind the bridge."""

    def __init__(self, dut):
        self.dut = dut
        self.random = rng()
        self.arrived = Event()
        self.memory = bytearray(self.random.bytes(MEMORY))
        self.registers = {offset: int(self.random.integers(1 << 32)) for offset in range(0, 64, 4)}
        self.writes = []
        self.received = bytearray()
        self.sequence = int(self.random.integers(256))
        for task in (self._receive, self._serve_memory, self._serve_reads, self._serve_writes):
            cocotb.start_soon(task())

    async def _bit(self, state):
        """Let the time of a bit pass, on the average exactly; `state` is its start."""
        state["due"] += parameters()["cycles_per_bit"]
        cycles = math.ceil(state["due"] - state["now"])
        await ClockCycles(self.dut.clk, cycles)
        state["now"] += cycles

    async def silence(self):
        """Leave the line alone for as long as the bridge needs to listen again."""
        await ClockCycles(self.dut.clk, SILENCE + int(40 * parameters()["cycles_per_bit"]))

    async def send(self, content, broken=None):
        """Send bytes; that at `broken` has no stop bit."""
        state = {"now": 0, "due": 0.0}
        for place, byte in enumerate(content):
            for bit in (0, *(byte >> i & 1 for i in range(8)), place != broken):
                self.dut.rx.value = int(bit)
                await self._bit(state)
        self.dut.rx.value = 1

    async def _receive(self):
        while True:
            await FallingEdge(self.dut.tx)
            await RisingEdge(self.dut.clk)
            state = {"now": 0, "due": -parameters()["cycles_per_bit"] / 2}
            bits = []
            for _ in range(10):
                await self._bit(state)
                bits.append(int(self.dut.tx.value))
            assert bits[0] == 0 and bits[9] == 1, bits
            self.received.append(sum(bit << i for i, bit in enumerate(bits[1:9])))
            self.arrived.set()

    async def _serve_memory(self):
        dut = self.dut
        while True:
            await RisingEdge(dut.clk)
            dut.memory__answer.value = 0
            if not dut.memory__request__valid.value:
                await RisingEdge(dut.memory__request__valid)
            dut.memory__request__ready.value = int(self.random.integers(2))
            await RisingEdge(dut.clk)
            if not (dut.memory__request__valid.value and dut.memory__request__ready.value):
                continue
            request = unpack(ByteRequest, dut.memory__request__payload.value)
            error = request.address >= MEMORY
            if request.write and not error:
                self.memory[request.address] = request.data
                self.writes.append(request.address)
            byte = 0 if error else self.memory[request.address]
            dut.memory__request__ready.value = 0
            await clocks(dut, int(self.random.integers(3)) + 1)
            answer = {"valid": 1, "data": byte, "error": error}
            dut.memory__answer.value = pack(ByteAnswer, answer)

    async def _serve_reads(self):
        dut = self.dut
        while True:
            dut.control__ar__ready.value = 1
            if not dut.control__ar__valid.value:
                await RisingEdge(dut.control__ar__valid)
            await RisingEdge(dut.clk)
            if dut.control__ar__valid.value and dut.control__ar__ready.value:
                offset = int(dut.control__ar__payload.value)
                dut.control__ar__ready.value = 0
                await clocks(dut, int(self.random.integers(1, 4)))
                error = offset == BAD_REGISTER
                word = 0 if error else self.registers[offset]
                dut.control__r__payload.value = word | (2 << 32 if error else 0)
                dut.control__r__valid.value = 1
                await RisingEdge(dut.clk)
                while not dut.control__r__ready.value:
                    await RisingEdge(dut.clk)
                dut.control__r__valid.value = 0

    async def _serve_writes(self):
        dut = self.dut
        while True:
            if not dut.control__aw__valid.value:
                await RisingEdge(dut.control__aw__valid)
            ready = dut.control__aw__valid.value and dut.control__w__valid.value
            dut.control__aw__ready.value = dut.control__w__ready.value = int(ready)
            await RisingEdge(dut.clk)
            if not (ready and dut.control__aw__valid.value):
                continue
            offset = int(dut.control__aw__payload.value)
            content = int(dut.control__w__payload.value)
            assert content >> 32 == 0xF
            dut.control__aw__ready.value = dut.control__w__ready.value = 0
            if offset != BAD_REGISTER:
                self.registers[offset] = content & 0xFFFF_FFFF
                self.writes.append(("register", offset))
            dut.control__b__payload.value = 2 if offset == BAD_REGISTER else 0
            dut.control__b__valid.value = 1
            await RisingEdge(dut.clk)
            while not dut.control__b__ready.value:
                await RisingEdge(dut.clk)
            dut.control__b__valid.value = 0

    def frame(self, command, address=0, count=1, content=b"", *, sequence=None):
        """Return a request."""
        if sequence is None:
            self.sequence = sequence = (self.sequence + 1) % 256
        code = command.value if isinstance(command, Command) else command
        header = bytes([sequence, code]) + count.to_bytes(2, "little")
        body = header + address.to_bytes(5, "little") + content
        return bytes([protocol.REQUEST_START]) + body + zlib.crc32(body).to_bytes(4, "little")

    async def answer(self):
        """Return sequence, status and data of the answer, or nothing if none comes in time.

        In time is before the host would ask again: the longest answer, and a silence.
        """
        cycles_per_bit = parameters()["cycles_per_bit"]
        longest = protocol.ANSWER_BYTES + LONG[cycles_per_bit] + protocol.CHECKSUM_BYTES
        access = 20
        cycles = longest * (int(10 * cycles_per_bit) + access) + SILENCE
        try:
            return await with_timeout(self._take_answer(), cycles * CLOCK_NANOSECONDS, "ns")
        except SimTimeoutError:
            return None

    async def _take_answer(self):
        header = await self._take(protocol.ANSWER_BYTES)
        content = await self._take(int.from_bytes(header[3:5], "little"))
        checksum = await self._take(protocol.CHECKSUM_BYTES)
        assert header[0] == protocol.ANSWER_START
        assert zlib.crc32(header[1:] + content).to_bytes(4, "little") == checksum
        return header[1], Status(header[2]), content

    async def _take(self, count):
        """Return the next `count` bytes from the card."""
        while len(self.received) < count:
            self.arrived.clear()
            await self.arrived.wait()
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    async def ask(self, *arguments, **fields):
        """Send a request and return status and data of its answer."""
        await self.send(self.frame(*arguments, **fields))
        sequence, status, content = await self.answer()
        assert sequence == fields.get("sequence", self.sequence)
        return status, content


async def begin(dut):
    """Return a bench once the bridge listens: while it was reset, no host held the line high."""
    await start(dut)
    bench = Bench(dut)
    dut.rx.value = 1
    await bench.silence()
    return bench


@cocotb.test()
async def carries_out_every_command(dut):
    bench = await begin(dut)
    assert await bench.ask(Command.PING) == (Status.OK, bytes([protocol.PROTOCOL]))
    for level in (0, 1):
        dut.interrupt.value = level
        assert await bench.ask(Command.INTERRUPT) == (Status.OK, bytes([level]))
    for offset in (0, 20):
        word = bench.random.bytes(4)
        assert await bench.ask(Command.WRITE_REGISTER, offset, 4, word) == (Status.OK, b"")
        assert bench.registers[offset] == int.from_bytes(word, "little")
        assert await bench.ask(Command.READ_REGISTER, offset, 4) == (Status.OK, word)
    for address, count in ((0, 1), (7, 64), (MEMORY - 5, 5)):
        content = bench.random.bytes(count)
        before = bytes(bench.memory)
        assert await bench.ask(Command.WRITE_MEMORY, address, count, content) == (Status.OK, b"")
        assert bench.memory == before[:address] + content + before[address + count :]
        assert await bench.ask(Command.READ_MEMORY, address, count) == (Status.OK, content)


@cocotb.test()
async def sends_bits_of_equal_length(dut):
    bench = await begin(dut)
    cycles_per_bit = parameters()["cycles_per_bit"]
    cocotb.start_soon(bench.send(bench.frame(Command.PING)))
    await FallingEdge(dut.tx)
    begun = get_sim_time("ns")
    start_byte = [0, *(protocol.ANSWER_START >> bit & 1 for bit in range(8)), 1]
    changes = [place for place in range(1, 10) if start_byte[place] != start_byte[place - 1]]
    for place in changes:
        await ValueChange(dut.tx)
        cycles = (get_sim_time("ns") - begun) / CLOCK_NANOSECONDS
        assert abs(cycles - place * cycles_per_bit) < max(1, cycles_per_bit / 20), place


@cocotb.test()
async def carries_long_frames(dut):
    bench = await begin(dut)
    content = bench.random.bytes(LONG[parameters()["cycles_per_bit"]])
    assert await bench.ask(Command.WRITE_MEMORY, 9, len(content), content) == (Status.OK, b"")
    assert await bench.ask(Command.READ_MEMORY, 9, len(content)) == (Status.OK, content)


@cocotb.test()
async def refuses_what_it_cannot_do(dut):
    bench = await begin(dut)
    for command, address, count, content in (
        (0x77, 0, 3, bytes(3)), (0x12, 0, 1, b""), (Command.PING, 0, 2, b""),
        (Command.READ_REGISTER, 2, 4, b""), (Command.READ_REGISTER, 0, 8, b""),
        (Command.READ_REGISTER, 1 << 12, 4, b""), (Command.WRITE_REGISTER, 0, 2, bytes(2)),
        (Command.READ_MEMORY, 0, 0, b""), (Command.WRITE_MEMORY, 0, 0, b""),
    ):  # fmt: skip
        result = await bench.ask(command, address, count, content)
        assert result == (Status.BAD_REQUEST, b""), (command, result)
    assert not bench.writes
    outside = (Status.BUS_ERROR, b"")
    assert await bench.ask(Command.READ_MEMORY, MEMORY - 1, 2) == outside
    assert await bench.ask(Command.WRITE_MEMORY, MEMORY, 2, bytes(2)) == outside
    assert await bench.ask(Command.READ_MEMORY, (1 << 40) - 1, 1) == outside
    assert await bench.ask(Command.READ_REGISTER, BAD_REGISTER, 4) == outside
    assert await bench.ask(Command.WRITE_REGISTER, BAD_REGISTER, 4, bytes(4)) == outside
    assert await bench.ask(Command.PING) == (Status.OK, bytes([protocol.PROTOCOL]))


@cocotb.test()
async def does_nothing_twice(dut):
    bench = await begin(dut)
    frame = bench.frame(Command.WRITE_MEMORY, 5, 2, b"ab")
    for _ in range(3):
        await bench.send(frame)
        assert await bench.answer() == (bench.sequence, Status.OK, b"")
    assert bench.writes == [5, 6]
    # The status of a write that failed is repeated, too.
    bad = bench.frame(Command.WRITE_MEMORY, MEMORY, 1, b"x")
    for _ in range(2):
        await bench.send(bad)
        assert await bench.answer() == (bench.sequence, Status.BUS_ERROR, b"")
    # A read may be carried out again; a PING begins with any number, and the next one is new.
    read = bench.frame(Command.READ_MEMORY, 5, 2)
    for _ in range(2):
        await bench.send(read)
        assert await bench.answer() == (bench.sequence, Status.OK, b"ab")
    same = bench.sequence
    assert (await bench.ask(Command.PING, sequence=same))[0] is Status.OK
    assert (await bench.ask(Command.WRITE_MEMORY, 5, 1, b"z"))[0] is Status.OK
    assert bench.memory[5:7] == b"zb"


@cocotb.test()
async def the_first_request_is_new_whatever_its_number(dut):
    bench = await begin(dut)
    assert (await bench.ask(Command.WRITE_MEMORY, 3, 1, b"q", sequence=0))[0] is Status.OK
    assert bench.writes == [3]


@cocotb.test()
async def hears_again_after_a_silence(dut):
    """Damaged frames are not carried out nor answered, nor is what follows without a silence."""
    bench = await begin(dut)
    frame = bench.frame(Command.WRITE_MEMORY, 5, 3, b"abc")
    too_long = bench.frame(Command.READ_MEMORY, 0, protocol.MAX_COUNT + 1, sequence=78)
    flipped = [
        frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :]
        for place, bit in ((0, 3), (1, 0), (2, 6), (3, 0), (7, 5), (11, 7), (len(frame) - 1, 2))
    ]
    good = bench.frame(Command.WRITE_MEMORY, 100, 1, b"g", sequence=77)
    for broken in (*flipped, frame[1:], b"\0" + frame, too_long):
        await bench.send(broken)
        # One more, to be ignored as well: it stands in the broken one's shadow.
        await bench.send(good)
        await bench.silence()
        assert not bench.received and not bench.writes, broken.hex()
    await bench.send(frame, broken=8)
    await bench.silence()
    assert not bench.received and not bench.writes
    # An interrupted frame has had its silence.
    await bench.send(frame[:6])
    await bench.silence()
    await bench.send(frame)
    assert await bench.answer() == (bench.sequence, Status.OK, b"")
    assert bench.writes == [5, 6, 7]


@cocotb.test()
async def bytes_before_the_answer_need_a_silence(dut):
    bench = await begin(dut)
    await bench.send(bench.frame(Command.PING) + protocol.REQUEST_START.to_bytes())
    assert (await bench.answer())[1] is Status.OK
    await bench.send(bench.frame(Command.PING))
    assert await bench.answer() is None
    await bench.silence()
    assert (await bench.ask(Command.PING))[0] is Status.OK


@cocotb.test()
async def ignores_short_disturbances(dut):
    """A low line of less than half a bit is no start bit."""
    bench = await begin(dut)
    for _ in range(3):
        dut.rx.value = 0
        await clocks(dut, 1)
        dut.rx.value = 1
        await clocks(dut, 80)
    assert (await bench.ask(Command.PING))[0] is Status.OK
