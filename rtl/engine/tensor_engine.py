"""The tensor engine: COMPUTE commands in, results in the O banks."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import Config
from ..control.commands import ComputeBody, Stage
from ..control.fault import FaultReport
from ..delay import delayed
from ..memory.ports import DWriteSignature, OReadSignature, SWriteSignature
from .array import ProcessingArray, result_latency
from .checker import CommandChecker
from .mapper import InterleavedMapper
from .tally import SlotTally
from .writer import ResultWriter

__all__ = ["TensorEngine"]


class TensorEngine(wiring.Component):
    """Carries out COMPUTE commands: checks them, maps them to the array, and files the results.

    A command is checked while the one before it is computed, and computed while the last results of
    the one before it are still under way. A command at fault is reported when all before it are
    done.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    command : In(stream)
        The commands.
    stage : In(Stage)
        Part of a training step that the command belongs to.
    done : Out(1)
        A command has ended, in order: all its results can be read (or, if its sums are kept, its
        operands may be overwritten).
    fault : Out(FaultReport)
        Why it stopped; until then NONE.
    s_write, d_write, o_read : In
        Ports of the scratchpads.
    mac : Out(1)
        The array multiplies in this cycle.
    mac_stage : Out(Stage)
        For which part of a training step.
    draining : Out(1)
        It doesn't, as sums have to leave the accumulators first.
    useful, edge, filler : Out
        Products added, as `SlotTally` counts them.
    busy : Out(1)
        A command is under way.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(ComputeBody)),
                "stage": In(Stage),
                "done": Out(1),
                "fault": Out(FaultReport),
                "s_write": In(SWriteSignature(config)),
                "d_write": In(DWriteSignature(config)),
                "o_read": In(OReadSignature(config)),
                "mac": Out(1),
                "mac_stage": Out(Stage),
                "draining": Out(1),
                "useful": Out(range(config.macs + 1)),
                "edge": Out(range(config.macs + 1)),
                "filler": Out(range(config.macs + 1)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        m.submodules.checker = checker = CommandChecker(config)
        m.submodules.mapper = mapper = InterleavedMapper(config)
        m.submodules.array = array = ProcessingArray(config)
        m.submodules.writer = writer = ResultWriter(config)
        m.submodules.tally = tally = SlotTally(config)

        connect(m, flipped(self.command), checker.command)

        # Mapper and writer take a product together; the writer isn't concerned where sums are kept.
        product = checker.product
        keep = product.payload.keep
        taken = product.valid & product.ready
        m.d.comb += [
            mapper.product.payload.eq(product.payload),
            writer.product.payload.eq(product.payload),
            mapper.product.valid.eq(product.valid & (writer.product.ready | keep)),
            writer.product.valid.eq(product.valid & mapper.product.ready & ~keep),
            product.ready.eq(mapper.product.ready & (writer.product.ready | keep)),
        ]

        # While one product is multiplied, the next one is being checked.
        checked_stage, mapped_stage = (Signal(Stage, reset_less=True) for _ in range(2))
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += checked_stage.eq(self.stage)
        with m.If(taken):
            m.d.sync += mapped_stage.eq(checked_stage)
        m.d.sync += self.mac_stage.eq(mapped_stage)

        connect(m, mapper.issue, array.issue)
        m.d.comb += [
            self.mac.eq(mapper.issue.slot.multiply),
            self.draining.eq(mapper.draining),
            tally.size.eq(mapper.size),
            self.useful.eq(tally.useful),
            self.edge.eq(tally.edge),
            self.filler.eq(tally.filler),
            writer.valid.eq(array.valid),
            array.place.eq(writer.place),
            array.accumulate.eq(writer.accumulate),
        ]
        for port in ("s_write", "d_write", "o_read"):
            connect(m, flipped(getattr(self, port)), getattr(array, port))

        # A kept sum has no results to wait for, but its command ends as late as one that has: in
        # order.
        m.d.comb += self.done.eq(delayed(m, mapper.last, result_latency(config), reset=True))

        # A command takes at least one slot for each context, which bounds how many are under way.
        under_way = Signal(range(result_latency(config) // config.interleave + 3))
        m.d.sync += under_way.eq(under_way + taken - self.done)
        m.d.comb += self.busy.eq((under_way != 0) | ~mapper.idle | ~checker.command.ready)
        with m.If(under_way == 0):
            m.d.comb += self.fault.eq(checker.fault)
        return m
