"""The register map in SystemRDL says of the gateware's registers what they do, bit by bit."""

import dataclasses
import enum
import itertools

import pytest
from amaranth.sim import Simulator
from systemrdl import RDLCompiler
from systemrdl.node import FieldNode, RegNode
from systemrdl.rdltypes import AccessType, OnWriteType

from rtl.config import PRESETS
from rtl.control.commands import Fault
from rtl.interface.axi import LITE_ADDRESS_BITS
from rtl.interface.register_map import (
    COUNTERS,
    REGISTERS,
    Control,
    Interrupt,
    memory_base_registers,
)
from rtl.interface.registers import RegisterFile
from rtl.systemrdl import systemrdl

TINY = dataclasses.replace(PRESETS["tiny"], name="striped", channels=2)
BASES = [0x40_0000_1000, 0x50_0000_0000]
MAP = REGISTERS | memory_base_registers(2, BASES)
"""With the registers that only some boards have."""
ONES = 0xFFFFFFFF
TIMEOUT = 200_000
"""Steps of a simulation, several a cycle."""


@pytest.fixture(scope="module")
def registers(tmp_path_factory):
    """The registers of the compiled SystemRDL by offset."""
    file = tmp_path_factory.mktemp("rdl") / "sat.rdl"
    file.write_text(systemrdl(TINY, memory_base_registers(2, BASES).values()))
    compiler = RDLCompiler()
    compiler.compile_file(str(file))
    top = compiler.elaborate().top
    assert top.inst_name == "sat"
    nodes = {node.absolute_address: node for node in top.children() if isinstance(node, RegNode)}
    assert len(nodes) == len(MAP)
    return nodes


def fields_of(node):
    return [field for field in node.children() if isinstance(field, FieldNode)]


def bits(field):
    """Mask of a field."""
    return ((1 << field.width) - 1) << field.low


def mask(node, condition):
    """Bits of a register whose field fulfils a condition."""
    return sum(bits(field) for field in fields_of(node) if condition(field))


def stays(field):
    """Software writes the field, and reads what it wrote."""
    return field.get_property("sw") is AccessType.rw and field.get_property("onwrite") is None


def clears(field):
    return field.get_property("onwrite") is OnWriteType.woclr


def acts(field):
    return field.get_property("onwrite") is OnWriteType.woset


def from_hardware(field):
    return field.get_property("hw") in (AccessType.w, AccessType.rw)


def reset_of(node):
    return sum(field.get_property("reset") << field.low for field in fields_of(node))


class Port:
    """The register file in simulation; all counters show the same value."""

    def __init__(self, counters=0):
        self.dut = RegisterFile(TINY, BASES)
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-6)
        self.counters = counters

    def run(self, process):
        is_done = False

        async def testbench(context):
            nonlocal is_done
            self.context = context
            await process(self)
            is_done = True

        async def count(context):
            context.set(self.dut.counter.value, self.counters)
            for index in itertools.cycle(range(len(COUNTERS))):
                context.set(self.dut.counter.index, index)
                await context.tick()

        self.simulator.add_testbench(testbench)
        self.simulator.add_testbench(count, background=True)
        for _ in range(TIMEOUT):
            self.simulator.advance()
            if is_done:
                return
        raise AssertionError("a register didn't answer")

    async def read(self, offset):
        axi, context = self.dut.axi, self.context
        context.set(axi.ar.payload, offset)
        context.set(axi.ar.valid, 1)
        context.set(axi.r.ready, 1)
        await context.tick().until(axi.ar.ready)
        context.set(axi.ar.valid, 0)
        [value] = await context.tick().sample(axi.r.payload.data).until(axi.r.valid)
        return value

    async def write(self, offset, value):
        axi, context = self.dut.axi, self.context
        context.set(axi.aw.payload, offset)
        context.set(axi.w.payload.data, value)
        context.set(axi.w.payload.strb, 0xF)
        context.set(axi.aw.valid, 1)
        context.set(axi.w.valid, 1)
        context.set(axi.b.ready, 1)
        await context.tick().until(axi.aw.ready)
        context.set(axi.aw.valid, 0)
        context.set(axi.w.valid, 0)
        await context.tick().until(axi.b.valid)


def test_names_offsets_and_content_are_those_of_the_map(registers):
    for register in MAP.values():
        node = registers[register.offset]
        assert (node.inst_name, node.get_property("regwidth")) == (register.name, 32)
        assert node.get_property("desc") == register.doc
        found = {field.inst_name: (field.low, field.width) for field in fields_of(node)}
        if register.content is None:
            assert found == {"VALUE": (0, 32)}
        elif issubclass(register.content, enum.IntFlag):
            assert found == {
                member.name: (member.bit_length() - 1, 1) for member in register.content
            }
            assert all(field.get_property("desc") for field in fields_of(node))
    [code_field] = fields_of(registers[REGISTERS["FAULT_CODE"].offset])
    code = code_field.get_property("encode")
    assert {member.name: member.value for member in code} == {
        fault.name: fault.value for fault in Fault
    }


def test_resets_are_those_of_the_gateware(registers):
    """Every word of the address space is read; where there is no register it is zero."""
    found = {}

    async def process(port):
        for offset in range(0, 1 << LITE_ADDRESS_BITS, 4):
            found[offset] = await port.read(offset)

    Port().run(process)
    assert found == {
        offset: reset_of(registers[offset]) if offset in registers else 0 for offset in found
    }
    assert found[REGISTERS["CONFIG_HASH"].offset] == TINY.hash


def test_software_changes_what_it_may(registers):
    """All ones and all zeros are written everywhere: only fields that stay change."""

    async def process(port):
        for offset, node in registers.items():
            if mask(node, acts):
                continue
            for value in (ONES, 0, 0xA5A5A5A5, 0):
                await port.write(offset, value)
                expected = (reset_of(node) & ~mask(node, stays)) | (value & mask(node, stays))
                assert await port.read(offset) == expected, (node.inst_name, hex(value))
        # Nothing was changed by the writes to its neighbours, either.
        for offset, node in registers.items():
            assert await port.read(offset) == reset_of(node) & ~mask(node, stays)

    Port().run(process)


def test_hardware_changes_what_it_may(registers):
    """Each input of the register file is seen in the fields that the hardware writes."""
    values = {}

    async def process(port):
        dut, context = port.dut, port.context
        context.set(dut.fault.address, ONES | (ONES << 32))
        context.set(dut.fault_command, ONES)
        for value in range(16):
            context.set(dut.fault.code.as_value(), value)
            values.setdefault("codes", []).append(await port.read(REGISTERS["FAULT_CODE"].offset))
        for offset in registers:
            values[offset] = await port.read(offset)

    Port(counters=ONES | (ONES << 32)).run(process)
    assert values["codes"] == list(range(16))
    plain = ("CONTROL", "INTERRUPT_STATUS", "INTERRUPT_ENABLE", "GLOBAL_INTERRUPT_ENABLE")
    for offset, node in registers.items():
        if node.inst_name not in plain:
            inputs = mask(node, from_hardware)
            assert values[offset] == (reset_of(node) & ~inputs) | inputs, node.inst_name


def test_status_actions_and_causes(registers):
    """CONTROL's status, what its actions start, and causes that are cleared by ones."""
    control, status = REGISTERS["CONTROL"].offset, REGISTERS["INTERRUPT_STATUS"].offset
    assert mask(registers[control], acts) == Control.START | Control.SOFT_RESET
    assert mask(registers[control], from_hardware) == sum(Control)
    assert mask(registers[status], clears) == sum(Interrupt)

    async def process(port):
        dut, context = port.dut, port.context
        pulses = {Control.START: dut.start, Control.SOFT_RESET: dut.soft_reset}
        for value in (*(1 << bit for bit in range(32)), ONES & ~sum(pulses)):
            context.set(dut.axi.aw.payload, control)
            context.set(dut.axi.w.payload.data, value)
            context.set(dut.axi.w.payload.strb, 0xF)
            context.set(dut.axi.aw.valid, 1)
            context.set(dut.axi.w.valid, 1)
            context.set(dut.axi.b.ready, 1)
            for bit, pulse in pulses.items():
                assert context.get(pulse) == bool(value & bit)
            await context.tick()
            context.set(dut.axi.aw.valid, 0)
            context.set(dut.axi.w.valid, 0)
            await context.tick()
        for signal, read in (
            (dut.running, Control.START),
            (dut.stopped, Control.FAULT),
            (dut.resetting, Control.SOFT_RESET),
        ):
            context.set(signal, 1)
            assert await port.read(control) == read
            context.set(signal, 0)
        context.set(dut.finished, 1)
        await context.tick()
        context.set(dut.finished, 0)
        context.set(dut.stopped, 1)
        await context.tick().repeat(2)
        context.set(dut.stopped, 0)
        assert await port.read(control) == Control.IDLE | Control.DONE
        assert await port.read(status) == Interrupt.DONE | Interrupt.FAULT
        await port.write(status, 0)
        assert await port.read(status) == Interrupt.DONE | Interrupt.FAULT
        await port.write(status, Interrupt.DONE)
        assert await port.read(status) == Interrupt.FAULT
        await port.write(status, ONES)
        assert await port.read(status) == 0

    Port().run(process)
