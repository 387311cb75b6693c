"""Lets commands that write end, each as memory acknowledges the last of what it wrote."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, wiring
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

        # Bursts are numbered; what a command wrote ends with the burst issued last.
        number = Signal(range(4 * MASTER_BURSTS))
        acknowledged = Signal.like(number)
        m.d.sync += [
            number.eq(number + self.issued),
            acknowledged.eq(acknowledged + self.acknowledged),
        ]
        m.submodules.ends = ends = fifo.SyncFIFO(width=len(number), depth=WRITERS_UNDER_WAY)
        lacking = Signal(len(number))
        m.d.comb += [
            ends.w_data.eq(number),
            ends.w_en.eq(self.handed_over),
            lacking.eq(ends.r_data - acknowledged),
            self.done.eq(ends.r_rdy & ((lacking == 0) | lacking[-1])),
            ends.r_en.eq(self.done),
        ]

        # A response belongs to the oldest command, all else to the one that is carried out.
        with m.If(self.dma_fault.code == Fault.WRITE_RESPONSE):
            with m.If(~self.done):
                m.d.comb += self.fault.eq(self.dma_fault)
        with m.Elif(~ends.r_rdy):
            m.d.comb += self.fault.eq(self.unit_fault)
            with m.If(self.dma_fault.code != Fault.NONE):
                m.d.comb += self.fault.eq(self.dma_fault)

        return m
