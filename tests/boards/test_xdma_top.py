"""The VCU1525's top level as its PCIe DMA engine drives it, on a memory that both share."""

import cocotb
import numpy as np
from amaranth.lib.wiring import In
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, Timer, with_timeout
from cocotbext.axi import (
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiMaster,
    AxiResp,
    AxiSlave,
    SparseMemoryRegion,
)

from boards.vcu1525 import DIMM_BYTES
from boards.xdma_top import XdmaTop, masters
from rtl.build import configure
from rtl.config import PAGE_BYTES
from rtl.control.commands import Fault, LoadTarget, Opcode, encode
from rtl.interface.register_map import (
    IDENTITY,
    REGISTERS,
    Control,
    Interrupt,
    memory_base_registers,
)
from rtl.sparsity.pattern import supported_patterns
from sim.golden.machine import Machine
from tests.harness import config, parameters, rng, simulate
from tests.programs import LayerStep

PROGRAM_LIMIT = 500
"""Microseconds after which a program has failed."""


def test_host_and_accelerator_share_memory():
    four = configure("tiny", ["channels=4"])
    top = XdmaTop(four, DIMM_BYTES)
    inputs = [name for name, port in top.signature.members.items() if port.flow is In]
    simulate(
        top,
        name="sat_xdma",
        testbench=__name__,
        config=four,
        parameters={"inputs": inputs},
    )


class Memory(SparseMemoryRegion):
    """The controllers' memory; any address beyond it, or in `bad`, is answered with an error."""

    def __init__(self):
        super().__init__(size=config().channels * DIMM_BYTES)
        self.bad = range(0)

    async def _read(self, address, length, **kwargs):
        if address in self.bad:
            raise OSError
        return await super()._read(address, length, **kwargs)


class Pages:
    """The card's memory with its channels at any place of the controllers' memory."""

    def __init__(self, memory, bases):
        self.memory, self.bases = memory, bases

    def places(self, address, size):
        """Yield where each part of a range within one page is, and how long it is."""
        while size:
            page, offset = divmod(address, PAGE_BYTES)
            length = min(size, PAGE_BYTES - offset)
            place, channel = divmod(page, len(self.bases))
            yield self.bases[channel] + place * PAGE_BYTES + offset, length
            address, size = address + length, size - length

    async def write(self, address, content):
        for place, length in self.places(address, len(content)):
            self.memory[place : place + length], content = content[:length], content[length:]

    async def read(self, address, size):
        return b"".join(self.memory[place : place + n] for place, n in self.places(address, size))


class Host:
    """The DMA engine."""

    def __init__(self, axi):
        self.axi = axi

    async def write(self, address, content):
        return (await self.axi.write(address, content)).resp

    async def read(self, address, size):
        answer = await self.axi.read(address, size)
        return answer.data if answer.resp == AxiResp.OKAY else answer.resp


class Card:
    """What XDMA, memory controllers and interconnects are to the top level."""

    def __init__(self, dut):
        self.dut = dut
        self.memory = Memory()
        reset = {"reset": dut.ap_rst_n, "reset_active_level": False}
        for name in masters(config()):
            AxiSlave(AxiBus.from_prefix(dut, name), dut.ap_clk, target=self.memory, **reset)
        AxiSlave(AxiBus.from_prefix(dut, "m_axi_host"), dut.host_clk, target=self.memory, **reset)
        host = AxiMaster(AxiBus.from_prefix(dut, "s_axi_host"), dut.host_clk, **reset)
        self.host = Host(host)
        self.registers = AxiLiteMaster(
            AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.ap_clk, **reset
        )

    async def read(self, name):
        return await self.registers.read_dword(offsets()[name])

    async def write(self, name, value):
        await self.registers.write_dword(offsets()[name], int(value))

    async def run(self, address, commands):
        """Run a program; return CONTROL after the interrupt, which the host then clears."""
        await self.write("GLOBAL_INTERRUPT_ENABLE", 1)
        await self.write("INTERRUPT_ENABLE", Interrupt.DONE | Interrupt.FAULT)
        await self.write("PROGRAM_LOW", address)
        await self.write("PROGRAM_COMMANDS", commands)
        assert not self.dut.interrupt.value
        await self.write("CONTROL", Control.START)
        await with_timeout(RisingEdge(self.dut.interrupt), PROGRAM_LIMIT, "us")
        await self.write("INTERRUPT_STATUS", await self.read("INTERRUPT_STATUS"))
        await ClockCycles(self.dut.host_clk, 4)
        assert not self.dut.interrupt.value
        return Control(await self.read("CONTROL"))

    async def soft_reset(self):
        await self.write("CONTROL", Control.SOFT_RESET)
        for _ in range(100):
            if not Control(await self.read("CONTROL")) & Control.SOFT_RESET:
                return
        raise AssertionError("the soft reset didn't end")


def windows():
    """Where the channels' memory begins."""
    return [channel * DIMM_BYTES for channel in range(config().channels)]


def offsets():
    registers = REGISTERS | memory_base_registers(config().channels)
    return {register.name: register.offset for register in registers.values()}


async def begin(dut):
    """Start both clocks, of different rates, and reset."""
    for port in parameters()["inputs"]:
        getattr(dut, port).value = 0
    Clock(dut.ap_clk, 5, "ns").start()
    Clock(dut.host_clk, 4, "ns").start()
    await Timer(40, "ns")
    dut.ap_rst_n.value = 1
    await ClockCycles(dut.ap_clk, 2)
    return Card(dut)


async def run_layer(card, random, transfer=None):
    """Train a layer for a step and compare all of memory with the golden model's.

    `transfer` is what writes and reads memory, at the card's addresses: the host unless given.
    """
    transfer = transfer or card.host
    step = LayerStep(config(), supported_patterns(config())[-1], random)
    golden = Machine(config())
    golden.memory[: step.image.size] = step.image
    golden.run(step.address, step.commands)
    await transfer.write(0, step.image.tobytes())
    control = await card.run(step.address, step.commands)
    assert control & Control.DONE, Fault(await card.read("FAULT_CODE"))
    result = bytes(await transfer.read(0, step.image.size))
    different = np.flatnonzero(np.frombuffer(result, np.uint8) != golden.memory[: step.image.size])
    assert not different.size, f"{different.size} bytes differ, first at {different[0]:#x}"


@cocotb.test()
async def host_reaches_all_memory(dut):
    """The host sees the card's addresses; behind them pages alternate between the channels."""
    card, random = await begin(dut), rng()
    pages = Pages(card.memory, windows())
    size, end = 3 * PAGE_BYTES, config().channels * DIMM_BYTES
    for address in (0, 5 * PAGE_BYTES + 40, end - size):
        content = random.bytes(size)
        assert await card.host.write(address, content) == AxiResp.OKAY
        assert await pages.read(address, size) == content
        assert await card.host.read(address, size) == content
    for address in (end, end + PAGE_BYTES, 1 << 40):
        assert await card.host.write(address, b"lost") == AxiResp.SLVERR
        assert await card.host.read(address, 64) == AxiResp.SLVERR


@cocotb.test()
async def trains_a_layer(dut):
    card, random = await begin(dut), rng()
    assert await card.read("IDENTITY") == IDENTITY
    assert await card.read("CONFIG_HASH") == config().hash
    await run_layer(card, random)


@cocotb.test()
async def memory_can_be_anywhere(dut):
    """Registers move the channels' memory, as a runtime does that allocates it."""
    card, random = await begin(dut), rng()
    bases = []
    for channel, window in enumerate(reversed(windows())):
        bases.append(window + PAGE_BYTES * int(random.integers(1 << 20)))
        await card.write(f"MEMORY_BASE_{channel}_LOW", bases[-1] & 0xFFFFFFFF)
        await card.write(f"MEMORY_BASE_{channel}_HIGH", bases[-1] >> 32)
        assert await card.read(f"MEMORY_BASE_{channel}_LOW") == bases[-1] & 0xFFFFFFFF
        assert await card.read(f"MEMORY_BASE_{channel}_HIGH") == bases[-1] >> 32
    await run_layer(card, random, Pages(card.memory, bases))


@cocotb.test()
async def recovers_from_errors(dut):
    """A descriptor beyond memory, and memory that answers with an error, then a layer as before."""
    card, random = await begin(dut), rng()
    base, bad = config().memory_bytes // 2, 7 * PAGE_BYTES
    for fault, address in (
        (Fault.ADDRESS_RANGE, config().memory_bytes),
        (Fault.READ_RESPONSE, bad),
    ):
        card.memory.bad = [place for place, _ in Pages(card.memory, windows()).places(bad, 1)]
        descriptor = {"address": address, "counts": [1, 1, 1, 1], "strides": [0, 0, 0]}
        load = encode(Opcode.LOAD, target=LoadTarget.D, rows=1, d_words=1, descriptor=descriptor)
        program = [encode(Opcode.NOP), load, encode(Opcode.FINISH)]
        await card.host.write(base, b"".join(program))
        assert await card.run(base, len(program)) & Control.FAULT
        assert Fault(await card.read("FAULT_CODE")) is fault
        assert await card.read("FAULT_COMMAND") == 1
        assert await card.read("FAULT_ADDRESS_LOW") == address & 0xFFFFFFFF
        await card.soft_reset()
        assert Fault(await card.read("FAULT_CODE")) is Fault.NONE
    card.memory.bad = range(0)
    await run_layer(card, random)
