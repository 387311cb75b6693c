"""The whole accelerator on AXI buses with random pauses, against the functional golden machine."""

import itertools

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from firmware.program import matrix_walks, walk
from rtl.accelerator import Accelerator
from rtl.config import PRESETS
from rtl.control.commands import Fault, LoadTarget, Opcode, Queue, Stage, VectorTarget, encode
from rtl.interface.flatten import Flattened
from rtl.interface.register_map import IDENTITY, REGISTERS, VERSION, Control, Interrupt
from rtl.sparsity.pattern import supported_patterns
from sim.golden.machine import Machine
from tests.harness import clocks, config, rng, simulate, start
from tests.programs import LayerStep
from tests.vectors import VectorProgram

TIMEOUT = 50_000


def test_accelerator():
    tiny = PRESETS["tiny"]
    simulate(
        Flattened(Accelerator(tiny), read="m_axi", write="m_axi", control="s_axi_control"),
        name="accelerator",
        testbench=__name__,
        config=tiny,
    )


class Bench:
    """The accelerator with a memory, a register master and random pauses on every channel."""

    def __init__(self, dut, random, pause):
        self.dut = dut
        self.control = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.clk, dut.rst)
        self.memory = AxiRam(
            AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=config().memory_bytes
        )
        write, read = self.memory.write_if, self.memory.read_if
        channels = (
            write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel,
        )  # fmt: skip
        for channel in channels:
            seeds = np.random.default_rng(random.integers(1 << 32))
            channel.set_pause_generator(_pauses(seeds, pause))

    async def read(self, name):
        return await self.control.read_dword(REGISTERS[name].offset)

    async def write(self, name, value):
        await self.control.write_dword(REGISTERS[name].offset, int(value))

    async def run(self, address, commands):
        """Run a program; return CONTROL after its interrupt."""
        await self.write("GLOBAL_INTERRUPT_ENABLE", 1)
        await self.write("INTERRUPT_ENABLE", Interrupt.DONE | Interrupt.FAULT)
        await self.write("PROGRAM_LOW", address & 0xFFFFFFFF)
        await self.write("PROGRAM_HIGH", address >> 32)
        await self.write("PROGRAM_COMMANDS", commands)
        await self.write("CONTROL", Control.START)
        for _ in range(TIMEOUT):
            await RisingEdge(self.dut.clk)
            if self.dut.interrupt.value:
                break
        else:
            raise AssertionError("the program didn't end")
        status = await self.read("INTERRUPT_STATUS")
        await self.write("INTERRUPT_STATUS", status)
        await clocks(self.dut, 2)
        assert not self.dut.interrupt.value
        control = Control(await self.read("CONTROL"))
        assert status == (Interrupt.FAULT if control & Control.FAULT else Interrupt.DONE)
        return control

    async def soft_reset(self):
        await self.write("CONTROL", Control.SOFT_RESET)
        for _ in range(100):
            if not Control(await self.read("CONTROL")) & Control.SOFT_RESET:
                return
        raise AssertionError("the soft reset didn't end")

    async def fault(self):
        return Fault(await self.read("FAULT_CODE")), await self.read("FAULT_COMMAND")


def _pauses(random, probability):
    while True:
        yield bool(random.random() < probability)


async def begin(dut, pause=0.2):
    random = rng()
    await start(dut)
    return Bench(dut, random, pause), random


async def run_step(bench, pattern, random):
    """Run a layer's step and compare all of memory with the golden machine's."""
    await run_program(bench, LayerStep(config(), pattern, random))


async def run_program(bench, step, golden=None):
    """Run a program and compare all of memory, and the counters, with the golden machine's.

    Returns the counters. `golden` is the machine, a new one if not given.
    """
    golden = golden or Machine(config())
    golden.memory[: step.image.size] = step.image
    bench.memory.write(0, step.image.tobytes())
    result = golden.run(step.address, step.commands)
    before = {name: await bench.read(f"{name}_LOW") for name in result.counters}
    control = await bench.run(step.address, step.commands)
    assert control & Control.DONE, f"{await bench.fault()}"
    memory = np.frombuffer(bench.memory.read(0, step.image.size), np.uint8)
    different = np.flatnonzero(memory != golden.memory[: step.image.size])
    assert not different.size, f"{different.size} bytes differ, first at {different[0]:#x}"
    counted = {name: await bench.read(f"{name}_LOW") - before[name] for name in before}
    for name in ("MAC_SLOTS_FF", "MAC_SLOTS_BP", "MAC_SLOTS_WU", "READ_BEATS", "WRITE_BEATS"):
        assert counted[name] == result.counters[name], name
    assert counted["COMMANDS"] == result.counters["COMMANDS"]
    assert counted["NONFINITE"] == result.counters["NONFINITE"]
    assert counted["CYCLES"] == sum(counted[f"CYCLES_{stage.name}"] for stage in Stage)
    return counted


@cocotb.test()
async def identifies_itself(dut):
    bench, _ = await begin(dut)
    assert await bench.read("IDENTITY") == IDENTITY
    assert await bench.read("VERSION") == VERSION
    assert await bench.read("CONFIG_HASH") == config().hash
    assert Control(await bench.read("CONTROL")) == Control.IDLE
    await bench.write("PROGRAM_HIGH", 0x12345678)
    assert await bench.read("PROGRAM_HIGH") == 0x12345678
    await bench.control.write(REGISTERS["PROGRAM_HIGH"].offset + 1, b"\xab")
    assert await bench.read("PROGRAM_HIGH") == 0x1234AB78
    assert await bench.control.read_dword(0xFFC) == 0


@cocotb.test()
async def trains_a_layer_with_every_pattern(dut):
    bench, random = await begin(dut)
    for pattern in supported_patterns(config()):
        await run_step(bench, pattern, random)


@cocotb.test()
async def carries_out_vectors(dut):
    """Programs of random VECTORs, whose registers stay from one to the next."""
    bench, random = await begin(dut)
    golden = Machine(config())
    for number in range(3):
        program = VectorProgram(config(), random, 20, fill=number == 0)
        counted = await run_program(bench, program, golden)
        assert counted["VECTOR_BUSY"] > 0 and counted["STORE_BUSY"] == 0
    layer = LayerStep(config(), supported_patterns(config())[0], random)
    counted = await run_program(bench, layer)
    assert counted["VECTOR_BUSY"] == 0


@cocotb.test()
async def recovers_from_every_fault(dut):
    """Each fault names its command; after a soft reset the accelerator works as before."""
    bench, random = await begin(dut)
    base = config().memory_bytes // 2
    unit = {"counts": [1, 1, 1, 1], "strides": [0, 0, 0]}
    nop = encode(Opcode.NOP)
    load = {"target": LoadTarget.D, "rows": 1, "d_words": 1}
    stream = load | {"target": LoadTarget.STATE}
    store = {"o_stride": 1, "rows": 1, "words": 1}
    contexts, words = config().interleave, config().d_depth // 8
    sizes = {"a_tiles": 1, "b_tiles": 1, "o_stride": 1}
    compute = {**sizes, "d_words": 1, **matrix_walks(contexts, 1)}
    update = {"tiles": 1, "rows": 1, "row_copy": 1, "o_stride": 2}
    tile = update | {"rows": config().elements}
    outside = {**unit, "address": config().memory_bytes}
    keep = encode(Opcode.COMPUTE, **sizes, keep=1, d_words=words, **matrix_walks(contexts, words))
    vector = {"groups": 1, "window": 1, "rows": 1, "from_registers": 1}
    to_memory = vector | {
        "target": VectorTarget.WIDE,
        "descriptor": {**unit, "counts": [2, 1, 1, 1]},
    }
    cases = (
        (Fault.ADDRESS_RANGE, encode(Opcode.LOAD, **load, descriptor=outside)),
        (Fault.ADDRESS_RANGE, encode(Opcode.LOAD, **stream, descriptor=outside)),
        (Fault.MALFORMED, encode(Opcode.LOAD, **stream | {"rows": 2}, descriptor=unit)),
        (Fault.MALFORMED, encode(Opcode.NOP, wait=1 << Queue.LOAD.value)),
        (Fault.ADDRESS_RANGE, encode(Opcode.STORE, **store, descriptor=outside)),
        (Fault.MALFORMED, encode(Opcode.LOAD, **load, descriptor={**unit, "address": 1})),
        (Fault.MALFORMED, encode(Opcode.LOAD, **load | {"rows": 0}, descriptor=unit)),
        (Fault.MALFORMED, encode(Opcode.STORE, **store | {"words": 0}, descriptor=unit)),
        (Fault.MALFORMED, encode(Opcode.COMPUTE, **compute | {"d_words": 0})),
        (Fault.MALFORMED, encode(Opcode.UPDATE, **update | {"tiles": 0})),
        (Fault.PATTERN, encode(Opcode.COMPUTE, **compute, pattern=6)),
        (Fault.PATTERN, encode(Opcode.UPDATE, **tile, row_pattern=6)),
        (Fault.SCRATCHPAD_RANGE, encode(Opcode.COMPUTE, **compute, s_base=config().s_depth)),
        (
            Fault.SCRATCHPAD_RANGE,
            encode(Opcode.COMPUTE, **compute | {"d_rows": walk((2, -1))}),
        ),
        (Fault.SCRATCHPAD_RANGE, encode(Opcode.LOAD, **load, base=60000, descriptor=unit)),
        (Fault.SCRATCHPAD_RANGE, encode(Opcode.STORE, **store, o_base=60000, descriptor=unit)),
        (Fault.SCRATCHPAD_RANGE, encode(Opcode.UPDATE, **update, o_base=60000)),
        (Fault.MALFORMED, encode(Opcode.VECTOR, **vector | {"groups": 0})),
        (Fault.MALFORMED, encode(Opcode.VECTOR, **to_memory | {"descriptor": unit})),
        (Fault.SCRATCHPAD_RANGE, encode(Opcode.VECTOR, **vector | {"x_register": 63, "rows": 2})),
        (Fault.ADDRESS_RANGE, encode(Opcode.VECTOR, **to_memory | {
            "descriptor": {**outside, "counts": [2, 1, 1, 1]}})),
        (Fault.OVERRUN, keep),
    )  # fmt: skip
    for fault, command in cases:
        repeats = 200 if fault is Fault.OVERRUN else 1
        program = [nop, nop, *[command] * repeats, encode(Opcode.FINISH)]
        bench.memory.write(base, b"".join(program))
        control = await bench.run(base, len(program))
        assert control & Control.FAULT, f"{fault.name}: no fault"
        code, index = await bench.fault()
        if fault is Fault.OVERRUN:
            index -= config().max_additions // (words * config().ratio)
        assert (code, index) == (fault, 2), (fault.name, code, index)
        # A program isn't started on a card that stands at a fault.
        await bench.write("CONTROL", Control.START)
        assert Control(await bench.read("CONTROL")) & Control.FAULT
        await bench.soft_reset()
        assert await bench.fault() == (Fault.NONE, 0)
    await run_step(bench, supported_patterns(config())[-1], random)


@cocotb.test()
async def errors_of_writes_belong_to_their_queue(dut):
    """A STORE and a VECTOR write at the same time; the one whose burst fails is at fault."""
    bench, random = await begin(dut)
    g, burst = config().elements, config().write_burst_beats * config().beat_bytes
    stored, computed = 0x8000, 0x10000

    def descriptor(address, beats):
        return {"address": address, "counts": [beats, 1, 1, 1], "strides": [0, 0, 0]}

    store = {"rows": 4 * g, "words": 2, "o_stride": 2, "descriptor": descriptor(stored, 8 * g)}
    vector = {
        "groups": 1, "window": 1, "rows": g, "from_registers": 1, "target": VectorTarget.WIDE,
        "descriptor": descriptor(computed, 2 * g),
    }  # fmt: skip
    program = [encode(Opcode.STORE, **store), encode(Opcode.VECTOR, **vector)]
    program.append(encode(Opcode.FINISH))
    bench.memory.write(0, b"".join(program))
    write = bench.memory.write_if._write
    for index, bad in ((0, stored + 3 * burst), (1, computed + burst)):

        async def fails(address, data, bad=bad):
            if address == bad:
                raise OSError
            await write(address, data)

        bench.memory.write_if._write = fails
        assert await bench.run(0, len(program)) & Control.FAULT
        assert await bench.fault() == (Fault.WRITE_RESPONSE, index)
        assert await bench.read("FAULT_ADDRESS_LOW") == bad
        await bench.soft_reset()
    bench.memory.write_if._write = write
    await run_step(bench, supported_patterns(config())[0], random)


@cocotb.test()
async def errors_of_reads_belong_to_their_queue(dut):
    """LOADs to a scratchpad and to the update unit read at the same time; one of them fails."""
    bench, random = await begin(dut)
    burst = config().burst_beats * config().beat_bytes
    operand, state = 0x8000, 0x10000

    def load(target, address):
        beats = config().d_depth
        descriptor = {"address": address, "counts": [beats, 1, 1, 1], "strides": [0, 0, 0]}
        sizes = {"rows": beats, "d_words": 1, "descriptor": descriptor}
        return encode(Opcode.LOAD, target=target, **sizes)

    # The UPDATE takes 4 beats a row.
    tiles = config().d_depth // (4 * config().elements)
    update = {"tiles": tiles, "rows": config().elements, "o_stride": 2, "state_address": 0x18000}
    program = [load(LoadTarget.D, operand), load(LoadTarget.STATE, state)]
    program += [encode(Opcode.UPDATE, **update), encode(Opcode.FINISH)]
    bench.memory.write(0, b"".join(program))
    read = bench.memory.read_if._read
    for index, bad in ((0, operand + 3 * burst), (1, state + 5 * burst)):

        async def fails(address, length, bad=bad):
            if address == bad:
                raise OSError
            return await read(address, length)

        bench.memory.read_if._read = fails
        assert await bench.run(0, len(program)) & Control.FAULT
        assert await bench.fault() == (Fault.READ_RESPONSE, index)
        assert await bench.read("FAULT_ADDRESS_LOW") == bad
        await bench.soft_reset()
    bench.memory.read_if._read = read
    await run_step(bench, supported_patterns(config())[0], random)


@cocotb.test()
async def resets_in_the_middle_of_transfers(dut):
    """A soft reset at any moment leaves no trace: the next program gives the right result."""
    bench, random = await begin(dut)
    for pattern in itertools.islice(itertools.cycle(supported_patterns(config())), 8):
        step = LayerStep(config(), pattern, random)
        bench.memory.write(0, step.image.tobytes())
        await bench.write("PROGRAM_LOW", step.address)
        await bench.write("PROGRAM_COMMANDS", step.commands)
        await bench.write("CONTROL", Control.START)
        await clocks(dut, int(random.integers(1500)))
        await bench.soft_reset()
    await run_step(bench, supported_patterns(config())[-1], random)


@cocotb.test()
async def waits_for_tokens_until_reset(dut):
    """A program that waits for a token nobody gives hangs; the soft reset ends it."""
    bench, random = await begin(dut)
    program = encode(Opcode.COMPUTE, wait=1) + encode(Opcode.FINISH)
    bench.memory.write(0, program)
    await bench.write("PROGRAM_COMMANDS", 2)
    await bench.write("CONTROL", Control.START)
    await clocks(dut, 300)
    await bench.soft_reset()
    await run_step(bench, supported_patterns(config())[0], random)
