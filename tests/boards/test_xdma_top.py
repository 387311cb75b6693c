"""The VCU1525's top level as its PCIe DMA engine drives it, on a memory that both share."""

import cocotb
import numpy as np
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
from rtl.interface.register_map import IDENTITY, REGISTERS, Control, Interrupt
from rtl.sparsity.pattern import supported_patterns
from sim.golden.machine import Machine
from tests.harness import config, parameters, rng, simulate
from tests.programs import LayerStep

PROGRAM_LIMIT = 500
"""Microseconds after which a program has failed."""


def test_host_and_accelerator_share_memory():
    four = configure("tiny", ["name=tiny-four", "channels=4"])
    top = XdmaTop(four, DIMM_BYTES)
    simulate(
        top,
        name="sat_xdma",
        testbench=__name__,
        config=four,
        parameters={"inputs": [name for name, port in top.signature.members.items() if port.flow.value == "In"]},
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


class Card:
    """What XDMA, memory controllers and interconnects are to the top level."""

    def __init__(self, dut):
        self.dut = dut
        self.memory = Memory()
        reset = {"reset": dut.ap_rst_n, "reset_active_level": False}
        for name in masters(config()):
            AxiSlave(AxiBus.from_prefix(dut, name), dut.ap_clk, target=self.memory, **reset)
        AxiSlave(
            AxiBus.from_prefix(dut, "m_axi_host"), dut.host_clk, target=self.memory, **reset
        )
        self.host = AxiMaster(AxiBus.from_prefix(dut, "s_axi_host"), dut.host_clk, **reset)
        self.registers = AxiLiteMaster(
            AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.ap_clk, **reset
        )

    async def read(self, name):
        return await self.registers.read_dword(REGISTERS[name].offset)

    async def write(self, name, value):
        await self.registers.write_dword(REGISTERS[name].offset, int(value))

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


def bus_address(address):
    """Where a byte of the card is: its page's channel, and the page among those of the channel."""
    page, offset = divmod(address, PAGE_BYTES)
    window, place = page % config().channels, page // config().channels
    return window * DIMM_BYTES + place * PAGE_BYTES + offset


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


async def run_layer(card, random):
    """Train a layer for a step, data in and out by the host; compare all with the golden model."""
    step = LayerStep(config(), supported_patterns(config())[-1], random)
    golden = Machine(config())
    golden.memory[: step.image.size] = step.image
    golden.run(step.address, step.commands)
    await card.host.write(0, step.image.tobytes())
    control = await card.run(step.address, step.commands)
    assert control & Control.DONE, Fault(await card.read("FAULT_CODE"))
    result = (await card.host.read(0, step.image.size)).data
    different = np.flatnonzero(np.frombuffer(result, np.uint8) != golden.memory[: step.image.size])
    assert not different.size, f"{different.size} bytes differ, first at {different[0]:#x}"


@cocotb.test()
async def host_reaches_all_memory(dut):
    """The host sees the card's addresses; behind them pages alternate between the channels."""
    card, random = await begin(dut), rng()
    size = 3 * PAGE_BYTES
    for address in (0, 5 * PAGE_BYTES + 40, config().channels * DIMM_BYTES - size):
        content = random.bytes(size)
        await card.host.write(address, content)
        for offset in (0, 1, PAGE_BYTES - 1, PAGE_BYTES, size - 1):
            place = bus_address(address + offset)
            assert card.memory[place : place + 1] == content[offset : offset + 1], hex(address)
        assert (await card.host.read(address, size)).data == content
    beyond = config().channels * DIMM_BYTES
    for address in (beyond, beyond + PAGE_BYTES, 1 << 40):
        assert (await card.host.write(address, b"lost")).resp != AxiResp.OKAY
        assert (await card.host.read(address, 64)).resp != AxiResp.OKAY


@cocotb.test()
async def trains_a_layer(dut):
    card, random = await begin(dut), rng()
    assert await card.read("IDENTITY") == IDENTITY
    assert await card.read("CONFIG_HASH") == config().hash
    await run_layer(card, random)


@cocotb.test()
async def recovers_from_errors(dut):
    """A descriptor beyond memory, and memory that answers with an error, then a layer as before."""
    card, random = await begin(dut), rng()
    base, bad = config().memory_bytes // 2, 7 * PAGE_BYTES
    for fault, address in (
        (Fault.ADDRESS_RANGE, config().memory_bytes),
        (Fault.READ_RESPONSE, bad),
    ):
        card.memory.bad = range(bus_address(bad), bus_address(bad) + PAGE_BYTES)
        descriptor = {"address": address, "counts": [1, 1, 1, 1], "strides": [0, 0, 0]}
        load = encode(
            Opcode.LOAD, target=LoadTarget.D, rows=1, d_words=1, descriptor=descriptor
        )
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
