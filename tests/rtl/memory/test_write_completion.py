"""Commands that write end in order, as their bursts are acknowledged."""

from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from rtl.control.commands import Fault
from rtl.control.fault import FaultReport
from rtl.interface.write_arbiter import MASTER_BURSTS
from rtl.memory.write_completion import WRITERS_UNDER_WAY, WriteCompletion
from tests.harness import pack, rng, simulate, start, unpack

NONE = pack(FaultReport, {"code": Fault.NONE, "address": 0})


def test_write_completion():
    simulate(WriteCompletion(), name="write_completion", testbench=__name__)


class Writer:
    """A unit and its write DMA; sees that commands end as they may, and no later.

    Attributes
    ----------
    under_way
        For each command that has been handed over, how many bursts there were up to its end.
    issued, acknowledged
        Bursts.
    """

    def __init__(self, dut):
        self.dut = dut
        self.under_way = deque()
        self.issued = self.acknowledged = self.ended = 0

    async def cycle(self, *, hand_over=False, issue=False, acknowledge=False):
        """Do so; tell whether a command ends in this cycle."""
        dut = self.dut
        dut.handed_over.value, dut.issued.value = int(hand_over), int(issue)
        dut.acknowledged.value = int(acknowledge)
        ends = bool(self.under_way) and self.under_way[0] <= self.acknowledged
        await RisingEdge(dut.clk)
        assert bool(dut.done.value) == ends, (self.under_way, self.acknowledged)
        if ends:
            self.under_way.popleft()
            self.ended += 1
        if hand_over:
            self.under_way.append(self.issued)
        self.issued += issue
        self.acknowledged += acknowledge
        dut.handed_over.value = dut.issued.value = dut.acknowledged.value = 0
        return ends


@cocotb.test()
async def ends_commands_with_their_last_burst(dut):
    """Commands with many bursts, few and none; memory at any pace, bursts numbered many times."""
    await start(dut)
    random, writer = rng(), Writer(dut)
    handed_over, pace = 0, 0.5
    while writer.ended < 600:
        if random.random() < 0.01:
            pace = random.random()
        under_way = writer.issued - writer.acknowledged
        # Whoever hands over has room, even if none ends in this cycle.
        hand_over = len(writer.under_way) < WRITERS_UNDER_WAY and random.random() < 0.2
        handed_over += hand_over
        await writer.cycle(
            hand_over=hand_over,
            issue=under_way < MASTER_BURSTS and random.random() < 0.5,
            acknowledge=under_way > 0 and random.random() < pace,
        )
    assert handed_over >= writer.ended


@cocotb.test()
async def reports_a_response_once_those_before_have_ended(dut):
    await start(dut)
    writer = Writer(dut)
    # Two commands without a burst wait behind one with a burst.
    await writer.cycle(issue=True)
    for _ in range(3):
        await writer.cycle(hand_over=True)
    await writer.cycle(issue=True)
    await writer.cycle(hand_over=True)
    await writer.cycle(acknowledge=True)
    report = pack(FaultReport, {"code": Fault.WRITE_RESPONSE, "address": 0x1000})
    dut.dma_fault.value = report
    for _ in range(3):
        assert await writer.cycle()
        assert int(dut.fault.value) == NONE
    assert not await writer.cycle()
    assert int(dut.fault.value) == report
    assert writer.ended == 3


@cocotb.test()
async def reports_faults_of_the_command_that_is_carried_out(dut):
    """Once all that were handed over have ended; the DMA's before the unit's."""
    for port, code in (("unit_fault", Fault.PATTERN), ("dma_fault", Fault.ADDRESS_RANGE)):
        await start(dut)
        writer = Writer(dut)
        await writer.cycle(issue=True)
        await writer.cycle(hand_over=True)
        getattr(dut, port).value = pack(FaultReport, {"code": code, "address": 0})
        for _ in range(20):
            assert not await writer.cycle()
            assert int(dut.fault.value) == NONE
        await writer.cycle(acknowledge=True)
        assert await writer.cycle()
        await writer.cycle()
        assert unpack(FaultReport, int(dut.fault.value)).code == code
