"""One of the command processor's queues: tokens, issue in order, completion in order."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .command_fifo import INDEX_BITS, CommandFIFO, CommandPart
from .commands import Command, Opcode, Queue, Stage

__all__ = ["CommandQueue"]


class _UnderWay(data.Struct):
    """What has to be done when an issued command has ended."""

    signal: unsigned(len(Queue))
    immediate: 1
    """A NOP: ends as soon as it is the oldest."""
    index: unsigned(INDEX_BITS)


class CommandQueue(wiring.Component):
    """A queue of commands and the tokens it holds from the other queues.

    Up to `under_way` commands are handed to the unit before the oldest has ended, so that a unit
    can start on a command while the last results of the one before still travel.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    under_way
        Commands issued and not yet ended.

    Attributes
    ----------
    commands : In
        From the dispatcher, in parts.
    issue : Out
        To the unit.
    done : In
        From the unit: the oldest issued command has ended.
    give : In(5)
        Bit i: ``Queue(i)`` gives this queue a token in this cycle.
    signal : Out(5)
        Tokens that this queue gives to others in this cycle.
    stop : In
        Issue nothing more.
    clear : In
        Forget all tokens.
    index, stage, opcode : Out
        Of the command issued last.
    oldest : Out(32)
        Index of the oldest command that has been issued and hasn't ended.
    busy : Out
        A command is under way.
    waiting : Out
        The next command waits for a token.
    empty : Out
        No command is queued or under way.
    ended : Out
        A command has ended in this cycle.
    """

    def __init__(self, config: Config, *, under_way: int) -> None:
        self._config = config
        self._under_way = under_way
        super().__init__(
            {
                "commands": In(stream.Signature(CommandPart(config))),
                "issue": Out(stream.Signature(Command)),
                "done": In(1),
                "give": In(len(Queue)),
                "signal": Out(len(Queue)),
                "stop": In(1),
                "clear": In(1),
                "index": Out(INDEX_BITS),
                "stage": Out(Stage),
                "opcode": Out(Opcode),
                "oldest": Out(INDEX_BITS),
                "busy": Out(1),
                "waiting": Out(1),
                "empty": Out(1),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queued = queued = CommandFIFO(self._config)
        wiring.connect(m, wiring.flipped(self.commands), queued.parts)
        m.submodules.issued = issued = fifo.SyncFIFOBuffered(
            width=_UnderWay.as_shape().size, depth=self._under_way
        )

        head = queued.commands.payload
        header = head.command.header
        is_nop = header.opcode == Opcode.NOP
        tokens = [Signal(16, name=f"tokens_{queue.name.lower()}") for queue in Queue]
        holds = Signal(len(Queue))
        """Which of the tokens aren't zero, known early in a cycle."""
        lacking = Signal(len(Queue))
        m.d.comb += lacking.eq(header.wait & ~holds)
        may_issue = queued.commands.valid & (lacking == 0) & issued.w_rdy & ~self.stop
        m.d.comb += [
            self.waiting.eq(queued.commands.valid & (lacking != 0)),
            self.issue.payload.eq(head.command),
            self.issue.valid.eq(may_issue & ~is_nop),
        ]
        is_issued = Signal()
        m.d.comb += [
            is_issued.eq(may_issue & (is_nop | self.issue.ready)),
            queued.commands.ready.eq(is_issued),
            issued.w_en.eq(is_issued),
        ]
        record = _UnderWay(issued.w_data)
        m.d.comb += [
            record.signal.eq(header.signal),
            record.immediate.eq(is_nop),
            record.index.eq(head.index),
        ]
        with m.If(is_issued):
            m.d.sync += [
                self.index.eq(head.index),
                self.stage.eq(header.stage),
                self.opcode.eq(header.opcode),
            ]
        for i, count in enumerate(tokens):
            given, taken = self.give[i], is_issued & header.wait[i]
            with m.If(self.clear):
                m.d.sync += [count.eq(0), holds[i].eq(0)]
            with m.Else():
                m.d.sync += count.eq(count + given - taken)
                with m.If(given & ~taken):
                    m.d.sync += holds[i].eq(1)
                with m.Elif(taken & ~given & (count == 1)):
                    m.d.sync += holds[i].eq(0)

        # A unit's `done` may come before the record of its command is visible, or while a NOP is
        # the oldest, so it is counted.
        oldest = _UnderWay(issued.r_data)
        dones = Signal(range(self._under_way + 2))
        m.d.comb += [
            self.ended.eq(issued.r_rdy & (oldest.immediate | (dones != 0) | self.done)),
            issued.r_en.eq(self.ended),
            self.oldest.eq(oldest.index),
            self.busy.eq(issued.level != 0),
            self.empty.eq((issued.level == 0) & queued.empty),
        ]
        m.d.sync += dones.eq(dones + self.done - (self.ended & ~oldest.immediate))
        with m.If(self.ended):
            m.d.comb += self.signal.eq(oldest.signal)
        return m
