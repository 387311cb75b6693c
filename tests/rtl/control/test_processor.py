"""The command processor between a memory with a program and units that take random times."""

import itertools

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiReadBus

from rtl.config import PRESETS
from rtl.control.commands import (
    Command,
    Fault,
    LoadTarget,
    Opcode,
    Queue,
    Stage,
    encode,
    queue_of,
    queues_of,
)
from rtl.control.fault import FaultReport
from rtl.control.processor import CommandProcessor, State
from rtl.interface.flatten import Flattened
from rtl.memory.write_completion import WRITERS_UNDER_WAY
from tests.harness import clocks, config, pack, rng, simulate, start, unpack

PROGRAM = 0x4000
TIMEOUT = 20_000
BUSY_OPCODES = {
    Queue.LOAD: (Opcode.LOAD,),
    Queue.COMPUTE: (Opcode.COMPUTE,),
    Queue.STORE: (Opcode.STORE, Opcode.UPDATE),
    Queue.VECTOR: (Opcode.VECTOR,),
    Queue.STREAM: (Opcode.LOAD,),
}


@pytest.mark.parametrize("preset", ["tiny", "sim", "ulx3s"])
def test_processor(preset):
    """The last one has no stream queue."""
    chosen = PRESETS[preset]
    simulate(
        Flattened(CommandProcessor(chosen), axi="m_axi"),
        name=f"processor_{preset}",
        testbench=__name__,
        config=chosen,
    )


class Unit:
    """A unit that takes commands at random times and ends them, in order, at random times.

    The command `fault_at` never ends: the array reports its fault once it has got it, the others
    when those before have ended, and all have checked it for some cycles.
    """

    def __init__(self, dut, queue, random, log):
        self.dut, self.queue, self.random, self.log = dut, queue, random, log
        self.name = queue.name.lower()
        self.under_way = []
        self.fault_at = None
        self.most_under_way = 0
        cocotb.start_soon(self._run())

    async def _run(self):
        dut, name = self.dut, self.name
        ready, valid = getattr(dut, f"{name}__ready"), getattr(dut, f"{name}__valid")
        payload, done = getattr(dut, f"{name}__payload"), getattr(dut, f"{name}_done")
        checks = 3
        while True:
            ready.value = int(self.random.random() < 0.5)
            oldest = self.under_way[0] if self.under_way else None
            ends = oldest not in (None, self.fault_at) and self.random.random() < 0.1
            done.value = int(ends)
            fails = self.under_way if self.queue is Queue.COMPUTE else [oldest]
            if self.fault_at is not None and self.fault_at in fails:
                checks -= 1
            if checks == 0:
                report = {"code": Fault.OVERRUN, "address": 0x123}
                getattr(dut, f"{name}_fault").value = pack(FaultReport, report)
            await RisingEdge(dut.clk)
            now = cocotb.utils.get_sim_time("step")
            if ends:
                self.log.append(("end", self.under_way.pop(0), now))
            if valid.value and ready.value:
                index = int(unpack(Command, int(payload.value)).body.raw) >> 16 & 0xFFFF
                self.log.append(("begin", index, now))
                self.under_way.append(index)
                self.most_under_way = max(self.most_under_way, len(self.under_way))


def command(opcode, index, *, queue=Queue.LOAD, **header):
    """A command whose body holds its index, so that a unit can tell which it got."""
    target = LoadTarget.STATE if queue is Queue.STREAM else LoadTarget.S
    body = {"target": target} if opcode is Opcode.LOAD else {}
    encoded = int.from_bytes(encode(opcode, queue=queue, **header, **body), "little")
    return (encoded | index << 48).to_bytes(64, "little")


async def begin(dut, program, *, address=PROGRAM, count=None):
    random = rng()
    await start(dut)
    memory = AxiRamRead(
        AxiReadBus.from_prefix(dut, "m_axi"),
        dut.clk,
        dut.rst,
        size=1 << 20,
        reset_active_level=True,
    )
    memory.r_channel.set_pause_generator(int(bit) for bit in _forever(random))
    memory.write(PROGRAM, b"".join(program))
    log = []
    units = [Unit(dut, queue, random, log) for queue in queues_of(config())]
    dut.address.value = address
    dut.count.value = len(program) if count is None else count
    dut.start.value = 1
    await clocks(dut)
    dut.start.value = 0
    return memory, units, log, random


def _forever(random):
    while True:
        yield random.random() < 0.3


async def until_finished(dut):
    for _ in range(TIMEOUT):
        await RisingEdge(dut.clk)
        if dut.finished.value:
            return
        assert int(dut.state.value) != State.STOPPED.value, f"fault {int(dut.fault.value):#x}"
    raise AssertionError("the program didn't finish")


async def until_stopped(dut):
    for _ in range(TIMEOUT):
        await RisingEdge(dut.clk)
        if int(dut.state.value) == State.STOPPED.value:
            return unpack(FaultReport, int(dut.fault.value)), int(dut.fault_command.value)
    raise AssertionError("the program didn't stop")


def random_program(random, length):
    """Commands with random tokens, such that no queue can wait for ever.

    Returns the program; for each command, those that must have ended before it begins; and for
    each, its queue and opcode.
    """
    queues = queues_of(config())
    given = {pair: [] for pair in itertools.permutations(queues, 2)}
    taken = dict.fromkeys(given, 0)
    program, needs = [], []
    kinds = []
    for index in range(length):
        queue = queues[int(random.integers(len(queues)))]
        opcode = random.choice((*BUSY_OPCODES[queue], Opcode.NOP))
        wait = signal = 0
        before = []
        for other in queues:
            if other is queue:
                continue
            if taken[other, queue] < len(given[other, queue]) and random.random() < 0.6:
                before.append(given[other, queue][taken[other, queue]])
                taken[other, queue] += 1
                wait |= 1 << other.value
            if random.random() < 0.5:
                given[queue, other].append(index)
                signal |= 1 << other.value
        stage = Stage(int(random.integers(4)))
        program.append(
            command(
                Opcode(opcode),
                0 if Opcode(opcode) is Opcode.NOP else index,
                queue=queue,
                wait=wait,
                signal=signal,
                stage=stage,
            )
        )
        needs.append(before)
        kinds.append((queue, Opcode(opcode)))
    program.append(encode(Opcode.FINISH))
    return program, needs, kinds


@cocotb.test()
async def keeps_order_and_tokens(dut):
    """Commands begin in order in each queue, none before the commands it waits for have ended."""
    random = np.random.default_rng(rng().integers(1 << 32))
    program, needs, kinds = random_program(random, 200)
    _, units, log, _ = await begin(dut, program)
    await until_finished(dut)
    began = {index: time for event, index, time in log if event == "begin"}
    ended = {index: time for event, index, time in log if event == "end"}
    real = [i for i, (_, opcode) in enumerate(kinds) if opcode is not Opcode.NOP]
    assert sorted(began) == sorted(ended) == real
    for queue in Queue:
        mine = [i for i in real if kinds[i][0] is queue]
        assert sorted(mine, key=began.__getitem__) == mine

    def earliest_end(index):
        """When a command had ended at the earliest: a NOP ends after all before it in its queue."""
        if kinds[index][1] is not Opcode.NOP:
            return ended[index]
        before = [earliest_end(i) for i in needs[index]]
        before += [ended[i] for i in real if i < index and kinds[i][0] is kinds[index][0]]
        return max(before, default=0)

    for index in real:
        for other in needs[index]:
            assert began[index] > earliest_end(other), (index, other)
    most = [unit.most_under_way for unit in units]
    assert most[:2] == [2, 2]
    assert max(most[2:4]) == WRITERS_UNDER_WAY
    assert most[4:] in ([], [2])
    await clocks(dut)
    assert int(dut.state.value) == State.IDLE.value


@cocotb.test()
async def runs_programs_one_after_another(dut):
    """Tokens left over by a program are forgotten; the next one can't take them."""
    first = [command(Opcode.LOAD, 1, signal=0b1110), encode(Opcode.FINISH)]
    memory, _, log, _ = await begin(dut, first)
    await until_finished(dut)
    second = [
        command(Opcode.COMPUTE, 1, wait=0b001),
        command(Opcode.LOAD, 2, signal=0b010),
        encode(Opcode.FINISH),
    ]
    memory.write(PROGRAM, b"".join(second))
    log.clear()
    dut.count.value = len(second)
    dut.start.value = 1
    await clocks(dut)
    dut.start.value = 0
    await until_finished(dut)
    assert [(event, index) for event, index, _ in log] == [
        ("begin", 2), ("end", 2), ("begin", 1), ("end", 1),
    ]  # fmt: skip


@cocotb.test()
async def names_the_command_at_fault(dut):
    """Of all commands under way it's the oldest that fails, but for those of the array."""
    opcodes = [Opcode.LOAD] * 4 + [Opcode.COMPUTE] * 3 + [Opcode.STORE] * 5 + [Opcode.VECTOR] * 5
    # NOPs end by themselves, and are in the way of nothing.
    opcodes[9:9] = opcodes[14:14] = [Opcode.NOP] * 2
    kinds = [(opcode, Queue.STORE) for opcode in opcodes]
    kinds += [(Opcode.LOAD, Queue.STREAM)] * 3
    program = [
        command(opcode, 0 if opcode is Opcode.NOP else index, queue=queue)
        for index, (opcode, queue) in enumerate(kinds)
    ]
    real = [index for index, (opcode, _) in enumerate(kinds) if opcode is not Opcode.NOP]
    random_fault = int(rng().choice(real))
    _, units, log, _ = await begin(dut, [*program, encode(Opcode.FINISH)])
    opcode, queue = kinds[random_fault]
    target = LoadTarget.STATE if queue is Queue.STREAM else LoadTarget.S
    units[queue_of(config(), opcode, target).value].fault_at = random_fault
    report, index = await until_stopped(dut)
    assert (report.code, report.address, index) == (Fault.OVERRUN, 0x123, random_fault)
    await clocks(dut, 20)
    begun = len(log)
    await clocks(dut, 500)
    assert not [entry for entry in log[begun:] if entry[0] == "begin"], "issued after the fault"


@cocotb.test()
async def refuses_malformed_programs(dut):
    good = command(Opcode.LOAD, 1)
    unknown_opcode = (15).to_bytes(64, "little")
    own_token = encode(Opcode.COMPUTE, wait=0b010)
    finish = encode(Opcode.FINISH)
    no_queue = (Queue.STREAM.value + 1) << 4
    for bits in (no_queue, no_queue + (2 << 4)):
        unknown = bits.to_bytes(64, "little")
        await begin(dut, [good, unknown, finish])
        report, index = await until_stopped(dut)
        assert (report.code, index) == (Fault.MALFORMED, 1)
    if Queue.STREAM not in queues_of(config()):
        absent = {"wait": 1 << Queue.STREAM.value}, {"signal": 1 << Queue.STREAM.value}
        for header in ({"queue": Queue.STREAM}, *absent):
            await begin(dut, [good, encode(Opcode.NOP, **header), finish])
            report, index = await until_stopped(dut)
            assert (report.code, index) == (Fault.MALFORMED, 1), header
    for program, at in (
        ([good, unknown_opcode, finish], 1),
        ([good, own_token, finish], 1),
        ([good, good], 2),
        ([finish, good], 0),
    ):
        await begin(dut, program)
        report, index = await until_stopped(dut)
        assert (report.code, index) == (Fault.MALFORMED, at), (program, report, index)
    await begin(dut, [finish], count=0)
    assert (await until_stopped(dut))[0].code == Fault.MALFORMED


@cocotb.test()
async def reports_faults_of_the_fetch(dut):
    finish = encode(Opcode.FINISH)
    await begin(dut, [finish], address=PROGRAM + 8)
    assert (await until_stopped(dut))[0].code == Fault.MALFORMED
    await begin(dut, [finish], address=1 << 40)
    report, index = await until_stopped(dut)
    assert (report.code, report.address, index) == (Fault.ADDRESS_RANGE, 1 << 40, 0)
