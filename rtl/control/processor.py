"""The command processor: fetches a program, deals its commands to three queues, stops at faults."""

from amaranth.hdl import Module, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..interface.axi import AXI4ReadSignature
from .commands import QUEUE_OF, Command, Fault, Opcode, Queue, Stage
from .fault import FaultReport
from .fetcher import Fetcher
from .queue import CommandQueue

__all__ = ["CommandProcessor", "State"]

_UNDER_WAY = {Queue.LOAD: 2, Queue.COMPUTE: 2, Queue.STORE: 1}
"""The array starts on a tile while the last results of the one before travel, and the load unit
reads for a LOAD while the beats of the one before arrive. The store queue's commands end one by one
anyway, as memory acknowledges what they wrote."""


class State(enum.Enum, shape=2):
    """What the processor is doing."""

    IDLE = 0
    RUNNING = 1
    STOPPED = 2
    """A fault; only reset leaves this state."""


class CommandProcessor(wiring.Component):
    """Command processor.

    Attributes
    ----------
    start : In
        Run the program of `count` commands at `address`; ignored unless idle.
    address, count : In
        The program.
    load, compute, store : Out
        Commands for the units, in order; `store` also carries UPDATE and VECTOR.
    load_done, compute_done, store_done : In
        The oldest command issued there has ended (one that writes to memory: there).
    load_fault, compute_fault, store_fault : In
        Faults of the units; they stay until reset.
    axi : Out
        Command fetch.
    state : Out
        Idle, running or stopped at a fault.
    finished : Out
        The program reached its FINISH in this cycle.
    fault : Out
        The first fault since reset.
    fault_command : Out
        Index of the command at fault.
    abort : In
        Stop fetching and issuing.
    fetch_idle : Out
        No fetch is outstanding.
    stage : Out
        Stage to which this cycle is attributed: that of the compute queue's command, else of the
        store queue's, else of the load queue's, else that of the cycle before.
    store_opcode : Out
        Opcode issued last in the store queue.
    busy, waiting, ended : Out(3)
        By queue: a command is under way, the next lacks a token, a command ended.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(64),
                "count": In(32),
                "load": Out(stream.Signature(Command)),
                "compute": Out(stream.Signature(Command)),
                "store": Out(stream.Signature(Command)),
                "load_done": In(1),
                "compute_done": In(1),
                "store_done": In(1),
                "load_fault": In(FaultReport),
                "compute_fault": In(FaultReport),
                "store_fault": In(FaultReport),
                "state": Out(State),
                "finished": Out(1),
                "fault": Out(FaultReport),
                "fault_command": Out(32),
                "abort": In(1),
                "fetch_idle": Out(1),
                "stage": Out(Stage),
                "store_opcode": Out(Opcode),
                "busy": Out(3),
                "waiting": Out(3),
                "ended": Out(3),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self._config)
        queues = []
        for queue, under_way in _UNDER_WAY.items():
            instance = CommandQueue(self._config, under_way=under_way)
            m.submodules[queue.name.lower()] = instance
            queues.append(instance)
        wiring.connect(m, wiring.flipped(self.axi), fetcher.axi)

        running = self.state == State.RUNNING
        start = Signal()
        m.d.comb += [
            start.eq(self.start & (self.state == State.IDLE)),
            fetcher.start.eq(start),
            fetcher.address.eq(self.address),
            fetcher.count.eq(self.count),
            fetcher.abort.eq(self.abort),
            self.fetch_idle.eq(fetcher.idle),
        ]

        # Dispatch: each command goes to its queue; FINISH waits for all of them.
        head = fetcher.commands.payload
        header = head.command.header
        malformed = Signal()
        finish = Signal()
        to_queue = Signal(Queue)
        with m.Switch(header.opcode):
            for opcode, queue in QUEUE_OF.items():
                with m.Case(opcode):
                    m.d.comb += to_queue.eq(queue)
            with m.Case(Opcode.NOP):
                m.d.comb += to_queue.eq(header.queue)
                with m.If(header.queue.as_value() >= len(Queue)):
                    m.d.comb += malformed.eq(1)
            with m.Case(Opcode.FINISH):
                m.d.comb += [finish.eq(fetcher.last), malformed.eq(~fetcher.last)]
            with m.Default():
                m.d.comb += malformed.eq(1)
        for queue, instance in zip(Queue, queues, strict=True):
            m.d.comb += instance.commands.payload.eq(head)
            with m.If(to_queue == queue):
                with m.If((header.wait[queue.value] | header.signal[queue.value]) & ~finish):
                    m.d.comb += malformed.eq(1)
                with m.If(running & fetcher.commands.valid & ~finish & ~malformed):
                    m.d.comb += [
                        instance.commands.valid.eq(1),
                        fetcher.commands.ready.eq(instance.commands.ready),
                    ]
        all_empty = queues[0].empty & queues[1].empty & queues[2].empty
        m.d.comb += self.finished.eq(running & fetcher.commands.valid & finish & all_empty)

        # Queues, units and tokens.
        units = (
            (self.load, self.load_done),
            (self.compute, self.compute_done),
            (self.store, self.store_done),
        )
        for i, (instance, (issue, done)) in enumerate(zip(queues, units, strict=True)):
            wiring.connect(m, wiring.flipped(issue), instance.issue)
            m.d.comb += [
                instance.done.eq(done),
                instance.stop.eq(~running | self.abort),
                instance.clear.eq(start),
                *(instance.give[j].eq(other.signal[i]) for j, other in enumerate(queues)),
                self.busy[i].eq(instance.busy),
                self.waiting[i].eq(instance.waiting),
                self.ended[i].eq(instance.ended),
            ]
        load, compute, store = queues
        m.d.comb += self.store_opcode.eq(store.opcode)
        stage_before = Signal(Stage)
        m.d.sync += stage_before.eq(self.stage)
        with m.If(compute.busy):
            m.d.comb += self.stage.eq(compute.stage)
        with m.Elif(store.busy):
            m.d.comb += self.stage.eq(store.stage)
        with m.Elif(load.busy):
            m.d.comb += self.stage.eq(load.stage)
        with m.Else():
            m.d.comb += self.stage.eq(stage_before)

        with m.If(start):
            m.d.sync += self.state.eq(State.RUNNING)
        with m.If(self.finished):
            m.d.sync += self.state.eq(State.IDLE)
            m.d.comb += fetcher.commands.ready.eq(1)

        # The first fault stops the program. The load unit reports one only when the commands before
        # have ended; those of the other units belong to the command they got last.
        sources = (
            (self.load_fault, load.oldest),
            (self.compute_fault, compute.index),
            (self.store_fault, store.index),
            (fetcher.fault, fetcher.index),
        )
        with m.If(running):
            with m.If(
                (fetcher.commands.valid & malformed) | (fetcher.ended & ~fetcher.commands.valid)
            ):
                # A malformed command, or a program that doesn't end with FINISH.
                m.d.sync += [
                    self.state.eq(State.STOPPED),
                    self.fault.code.eq(Fault.MALFORMED),
                    self.fault.address.eq(0),
                    self.fault_command.eq(fetcher.index),
                ]
            for report, index in sources:
                with m.If(report.code != Fault.NONE):
                    m.d.sync += [
                        self.state.eq(State.STOPPED),
                        self.fault.eq(report),
                        self.fault_command.eq(index),
                    ]
        return m
