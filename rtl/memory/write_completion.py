"""Lets commands that write end, each as memory acknowledges the last of what it wrote."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..control.commands import Fault
from ..control.fault import FaultReport
from ..interface.write_arbiter import MASTER_BURSTS

__all__ = ["WRITERS_UNDER_WAY", "WriteCompletion"]

WRITERS_UNDER_WAY = 4
"""Commands of a queue that are carried out or await acknowledgements. Short ones take 50 cycles,
memory 100 and more."""


class WriteCompletion(wiring.Component):
    """Follows the commands of one unit that have handed over all their beats to its write DMA.

    The unit goes on with its next command meanwhile. Commands end in their order, one a cycle at
    most, and at the earliest a cycle after they were handed over. A fault is reported once all
    commands before the one that it belongs to have ended.

    Attributes
    ----------
    handed_over : In(1)
        The unit's command has handed over its last beat, or has none. No more than
        `WRITERS_UNDER_WAY` of them may not have ended.
    issued, acknowledged : In(1)
        Of the write DMA: a burst more has been issued, or acknowledged without an error.
    unit_fault, dma_fault : In(FaultReport)
        Faults of the unit and of its write DMA; they stay until reset.
    done : Out(1)
        The oldest command has ended.
    fault : Out(FaultReport)
        Of the oldest command that hasn't ended.
    """

    handed_over: In(1)
    issued: In(1)
    acknowledged: In(1)
    unit_fault: In(FaultReport)
    dma_fault: In(FaultReport)
    done: Out(1)
    fault: Out(FaultReport)

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        outstanding = Signal(range(2 * MASTER_BURSTS))
        remaining = Signal.like(outstanding)
        m.d.comb += remaining.eq(outstanding - self.acknowledged)
        m.d.sync += outstanding.eq(remaining + self.issued)

        # How many of its bursts each command lacks, the oldest command first. All of them are
        # acknowledged in order, so that each acknowledgement is one less for every command.
        waiting = Signal(range(WRITERS_UNDER_WAY + 1))
        lacking = [
            Signal.like(outstanding, name=f"lacking_{place}") for place in range(WRITERS_UNDER_WAY)
        ]
        m.d.comb += self.done.eq((waiting != 0) & (lacking[0] == 0))
        m.d.sync += waiting.eq(waiting + self.handed_over - self.done)
        for place, (count, next_count) in enumerate(pairwise((*lacking, Const(0)))):
            kept = Mux(self.done, next_count, count)
            with m.If(self.handed_over & Mux(self.done, waiting == place + 1, waiting == place)):
                m.d.sync += count.eq(remaining)
            with m.Else():
                m.d.sync += count.eq(kept - (self.acknowledged & (kept != 0)))

        # A response belongs to the oldest command, all else to the one that is carried out.
        with m.If(self.dma_fault.code == Fault.WRITE_RESPONSE):
            with m.If(~self.done):
                m.d.comb += self.fault.eq(self.dma_fault)
        with m.Elif(waiting == 0):
            m.d.comb += self.fault.eq(self.unit_fault)
            with m.If(self.dma_fault.code != Fault.NONE):
                m.d.comb += self.fault.eq(self.dma_fault)

        return m
