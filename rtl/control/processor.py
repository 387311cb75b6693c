"""The command processor: fetches a program, deals its commands to queues, stops at faults."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..delay import delayed
from ..interface.axi import AXI4ReadSignature
from ..memory.write_completion import WRITERS_UNDER_WAY
from .command_fifo import CommandPart
from .commands import (
    QUEUE_OF,
    STREAMS,
    Command,
    Fault,
    Opcode,
    Queue,
    Stage,
    queue_of,
    queues_of,
)
from .fault import FaultReport
from .fetcher import Fetcher
from .queue import CommandQueue

__all__ = ["CommandProcessor", "State"]

_UNDER_WAY = {
    Queue.LOAD: 2,
    Queue.COMPUTE: 2,
    Queue.STORE: WRITERS_UNDER_WAY,
    Queue.VECTOR: WRITERS_UNDER_WAY,
    Queue.STREAM: 2,
}
"""The array starts on a tile while the last results of the one before travel, a load unit reads for
a LOAD while the beats of the one before arrive, and what was written is acknowledged while
the next commands are carried out."""

_STAGE_ORDER = (Queue.COMPUTE, Queue.STORE, Queue.VECTOR, Queue.LOAD, Queue.STREAM)
"""Whose stage a cycle is attributed to: that of the first of these that is busy."""


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
    load, compute, store, vector, stream : Out
        Commands for the units, in order; `store` also carries UPDATE. Nothing comes from a queue
        that the configuration doesn't have.
    load_done, compute_done, store_done, vector_done, stream_done : In
        The oldest command issued there has ended (one that writes to memory: there).
    load_fault, compute_fault, store_fault, vector_fault, stream_fault : In
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
        store queue's, the vector queue's, the load queue's or the stream queue's, else that of the
        cycle before.
    store_opcode : Out
        Opcode issued last in the store queue.
    busy, waiting, ended : Out(5)
        By queue: a command is under way, the next lacks a token, a command ended.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(64),
                "count": In(32),
                **{queue.name.lower(): Out(stream.Signature(Command)) for queue in Queue},
                **{f"{queue.name.lower()}_done": In(1) for queue in Queue},
                **{f"{queue.name.lower()}_fault": In(FaultReport) for queue in Queue},
                "state": Out(State),
                "finished": Out(1),
                "fault": Out(FaultReport),
                "fault_command": Out(32),
                "abort": In(1),
                "fetch_idle": Out(1),
                "stage": Out(Stage),
                "store_opcode": Out(Opcode),
                "busy": Out(len(Queue)),
                "waiting": Out(len(Queue)),
                "ended": Out(len(Queue)),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self._config)
        queues = {}
        for queue in queues_of(self._config):
            queues[queue] = CommandQueue(self._config, under_way=_UNDER_WAY[queue])
            m.submodules[queue.name.lower()] = queues[queue]
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

        # Dispatch: each command goes to its queue; FINISH waits for all of them. The first part of
        # a command says which it is, the others follow.
        part = fetcher.commands.payload
        head = Command(Cat(part.command, Const(0, Command.as_shape().size - len(part.command))))
        header = head.header
        malformed = Signal()
        found = Signal(data.StructLayout({"queue": Queue, "finish": 1}))
        followed = Signal.like(found, reset_less=True)
        way = found.shape()(Mux(fetcher.first_part, found.as_value(), followed.as_value()))
        with m.If(fetcher.first_part):
            m.d.sync += followed.eq(found)
        named = header.wait | header.signal
        with m.Switch(header.opcode):
            for opcode, queue in QUEUE_OF.items():
                with m.Case(opcode):
                    m.d.comb += found.queue.eq(queue)
                    if opcode is Opcode.LOAD:
                        with m.Switch(head.body.load.target):
                            for target in STREAMS:
                                with m.Case(target):
                                    m.d.comb += found.queue.eq(
                                        queue_of(self._config, opcode, target)
                                    )
            with m.Case(Opcode.NOP):
                m.d.comb += found.queue.eq(header.queue)
            with m.Case(Opcode.FINISH):
                m.d.comb += [found.finish.eq(fetcher.last), malformed.eq(~fetcher.last)]
            with m.Default():
                m.d.comb += malformed.eq(1)
        with m.Switch(found.queue):
            for queue in queues:
                others = sum(1 << other.value for other in queues if other is not queue)
                with m.Case(queue), m.If((named & ~others).any() & ~found.finish):
                    m.d.comb += malformed.eq(1)
            with m.Default():
                m.d.comb += malformed.eq(1)
        with m.If(~fetcher.first_part):
            m.d.comb += malformed.eq(0)
        passes = running & fetcher.commands.valid & ~malformed
        offered = passes & ~way.finish

        # Parts stop in a register on their way, one every other cycle: by now it's late in a cycle,
        # and on a small device the queues lie far apart.
        sends, taken = Signal(), Signal()
        sent = Signal(
            data.StructLayout({"queue": Queue, "part": CommandPart(self._config)}), reset_less=True
        )
        if self._config.command_parts == 1:
            m.d.comb += [
                sends.eq(offered),
                sent.queue.eq(way.queue),
                sent.part.eq(part),
                fetcher.commands.ready.eq(taken),
            ]
        else:
            m.d.comb += fetcher.commands.ready.eq(offered & ~sends)
            with m.If(~sends):
                m.d.sync += [sends.eq(offered), sent.queue.eq(way.queue), sent.part.eq(part)]
            with m.Elif(taken):
                m.d.sync += sends.eq(0)
        with m.Switch(sent.queue):
            for queue, instance in queues.items():
                with m.Case(queue):
                    m.d.comb += [
                        instance.commands.valid.eq(sends),
                        taken.eq(sends & instance.commands.ready),
                    ]
        for instance in queues.values():
            m.d.comb += instance.commands.payload.eq(sent.part)
        all_empty = Cat(instance.empty for instance in queues.values()).all()
        m.d.comb += self.finished.eq(passes & way.finish & fetcher.last_part & all_empty & ~sends)
        with m.If(passes & way.finish & ~fetcher.last_part):
            m.d.comb += fetcher.commands.ready.eq(1)

        # Queues, units and tokens.
        for queue, instance in queues.items():
            name, i = queue.name.lower(), queue.value
            wiring.connect(m, wiring.flipped(getattr(self, name)), instance.issue)
            m.d.comb += [
                instance.done.eq(getattr(self, f"{name}_done")),
                instance.stop.eq(~running | self.abort),
                instance.clear.eq(start),
                *(
                    instance.give[other.value].eq(giver.signal[i])
                    for other, giver in queues.items()
                ),
                self.busy[i].eq(instance.busy),
                self.waiting[i].eq(instance.waiting),
                self.ended[i].eq(instance.ended),
            ]
        m.d.comb += self.store_opcode.eq(queues[Queue.STORE].opcode)
        stage_before = Signal(Stage)
        m.d.comb += self.stage.eq(stage_before)
        for queue in reversed([queue for queue in _STAGE_ORDER if queue in queues]):
            with m.If(queues[queue].busy):
                m.d.comb += self.stage.eq(queues[queue].stage)
        m.d.sync += stage_before.eq(self.stage)

        with m.If(start):
            m.d.sync += self.state.eq(State.RUNNING)
        with m.If(self.finished):
            m.d.sync += self.state.eq(State.IDLE)
            m.d.comb += fetcher.commands.ready.eq(1)

        # The first fault stops the program. That of the array belongs to the command it got last;
        # the others are reported only when the commands before have ended, but for NOPs.
        sources = [
            (self.compute_fault, instance.index, Const(0))
            if queue is Queue.COMPUTE
            else (getattr(self, f"{queue.name.lower()}_fault"), instance.oldest, instance.ended)
            for queue, instance in queues.items()
        ]
        sources.append((fetcher.fault, fetcher.index, Const(0)))
        # It does so a cycle later, as it's known late whether a command has ended.
        found_faults = [
            (
                delayed(m, (report.code != Fault.NONE) & ~waits, reset=True),
                delayed(m, report),
                delayed(m, index),
            )
            for report, index, waits in sources
        ]
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
            for found, report, index in found_faults:
                with m.If(found):
                    m.d.sync += [
                        self.state.eq(State.STOPPED),
                        self.fault.eq(report),
                        self.fault_command.eq(index),
                    ]
        return m
