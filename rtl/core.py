"""Everything that a soft reset resets: processor, units and counters."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from .config import Config
from .control.commands import STREAMS, Fault, LoadTarget, Opcode, Queue
from .control.counters import Counters, CounterValue
from .control.fault import FaultReport
from .control.processor import CommandProcessor, State
from .delay import delayed
from .engine.tensor_engine import TensorEngine
from .interface.axi import AXI4ReadSignature, AXI4WriteSignature
from .interface.read_arbiter import ReadArbiter
from .interface.read_buffer import ReadBuffer
from .interface.register_map import COUNTERS, STAGE_NAMES
from .interface.write_arbiter import WriteArbiter
from .memory.load_unit import LoadUnit
from .memory.store_unit import StoreUnit
from .memory.write_completion import WriteCompletion
from .memory.write_dma import WriteDMA
from .update.pregeneration import UpdateUnit
from .vector.vector_unit import VectorUnit

__all__ = ["Core"]


class Core(wiring.Component):
    """The accelerator between its registers and its memory ports.

    Attributes
    ----------
    reads : Out
        Memory, by one port or several: `Config.read_ports`.
    write : Out
        Memory.
    start, program, commands : In
        Run the program of `commands` commands at address `program`.
    running, stopped : Out
        Status.
    finished : Out
        A program ended in this cycle.
    fault, fault_command : Out
        The first fault since reset.
    counter : Out(CounterValue)
        The value of one of `COUNTERS`, of another each cycle, in their order.
    abort : In
        Start nothing new from the next cycle on, and let the memory transfers under way end.
    idle : Out
        No memory transfer is under way.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "program": In(64),
                "commands": In(32),
                "running": Out(1),
                "stopped": Out(1),
                "finished": Out(1),
                "fault": Out(FaultReport),
                "fault_command": Out(32),
                "counter": Out(CounterValue(len(COUNTERS))),
                "abort": In(1),
                "idle": Out(1),
                "reads": Out(AXI4ReadSignature(config.beat_bits)).array(config.read_ports),
                "write": Out(AXI4WriteSignature(config.beat_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.processor = processor = CommandProcessor(config)
        m.submodules.write_arbiter = write_arbiter = WriteArbiter(config)
        scratchpads = [target for target in LoadTarget if target not in STREAMS]
        if config.stream_queue:
            m.submodules.load = load = LoadUnit(config, scratchpads)
            m.submodules.stream = stream = LoadUnit(config, STREAMS)
            loaders = {Queue.LOAD: load, Queue.STREAM: stream}
        else:
            m.submodules.load = load = stream = LoadUnit(config)
            loaders = {Queue.LOAD: load}
        m.submodules.engine = engine = TensorEngine(config)
        m.submodules.store = store = StoreUnit(config)
        m.submodules.update = update = UpdateUnit(config)
        m.submodules.vector = vector = VectorUnit(config)
        m.submodules.store_dma = store_dma = WriteDMA(config)
        m.submodules.vector_dma = vector_dma = WriteDMA(config)

        m.d.comb += [
            processor.start.eq(self.start),
            processor.address.eq(self.program),
            processor.count.eq(self.commands),
            self.running.eq(processor.state == State.RUNNING),
            self.stopped.eq(processor.state == State.STOPPED),
            self.finished.eq(processor.finished),
            self.fault.eq(processor.fault),
            self.fault_command.eq(processor.fault_command),
        ]
        # A stopped program leaves no transfers behind, so that a soft reset finds the bus quiet.
        # They end from a cycle after it stopped, or `abort`, which keeps both out of long paths.
        abort = Signal()
        m.d.comb += [
            abort.eq(delayed(m, self.abort | self.stopped, reset=True)),
            processor.abort.eq(abort),
            *(loader.abort.eq(abort) for loader in loaders.values()),
            store_dma.abort.eq(abort),
            vector_dma.abort.eq(abort),
            self.idle.eq(
                processor.fetch_idle
                & Cat(loader.idle for loader in loaders.values()).all()
                & store_dma.idle
                & vector_dma.idle
            ),
        ]

        # Memory: reads of the command fetch and of LOADs, writes of the two queues that do. With a
        # port of its own a load unit needs no buffer, as there is one in its striper.
        readers = [processor.axi]
        for queue, loader in loaders.items():
            if queue is Queue.STREAM and config.read_ports > 1:
                wiring.connect(m, loader.axi, wiring.flipped(self.reads[1]))
            else:
                m.submodules[f"{queue.name.lower()}_buffer"] = buffer = ReadBuffer(config)
                wiring.connect(m, loader.axi, buffer.master)
                readers.append(buffer.axi)
        m.submodules.read_arbiter = read_arbiter = ReadArbiter(
            config,
            masters=len(readers),
            bursts=config.outstanding_reads * config.burst_beats,
        )
        for reader, port in zip(readers, read_arbiter.masters, strict=True):
            wiring.connect(m, reader, port)
        wiring.connect(m, read_arbiter.axi, wiring.flipped(self.reads[0]))
        wiring.connect(m, store_dma.axi, write_arbiter.store)
        wiring.connect(m, vector_dma.axi, write_arbiter.vector)
        wiring.connect(m, write_arbiter.axi, wiring.flipped(self.write))

        # Load, stream.
        for queue, loader in loaders.items():
            name = queue.name.lower()
            commands = getattr(processor, name)
            m.d.comb += [
                loader.command.payload.eq(commands.payload.body.load),
                loader.command.valid.eq(commands.valid),
                commands.ready.eq(loader.command.ready),
                getattr(processor, f"{name}_done").eq(loader.done),
                getattr(processor, f"{name}_fault").eq(loader.fault),
            ]
        wiring.connect(m, load.s_write, engine.s_write)
        wiring.connect(m, load.d_write, engine.d_write)
        wiring.connect(m, load.aux_write, store.aux_write)

        # Compute.
        m.d.comb += [
            engine.command.payload.eq(processor.compute.payload.body.compute),
            engine.command.valid.eq(processor.compute.valid),
            engine.stage.eq(processor.compute.payload.header.stage),
            processor.compute.ready.eq(engine.command.ready),
            processor.compute_done.eq(engine.done),
            processor.compute_fault.eq(engine.fault),
        ]

        # Store: one command at a time, which has the O scratchpad and the write DMA.
        m.submodules.store_completion = store_completion = WriteCompletion()
        units = (
            (Opcode.STORE, store, processor.store.payload.body.store),
            (Opcode.UPDATE, update, processor.store.payload.body.update),
        )
        next_opcode = processor.store.payload.header.opcode
        store_working = Signal()
        with m.If(processor.store.valid & processor.store.ready):
            m.d.sync += store_working.eq(1)
        with m.Elif(store_completion.handed_over):
            m.d.sync += store_working.eq(0)
        for opcode, unit, body in units:
            m.d.comb += unit.command.payload.eq(body)
            with m.If((next_opcode == opcode) & ~store_working):
                m.d.comb += [
                    unit.command.valid.eq(processor.store.valid),
                    processor.store.ready.eq(unit.command.ready),
                ]
            with m.If(processor.store_opcode == opcode):
                wiring.connect(m, unit.descriptor, store_dma.descriptor)
                wiring.connect(m, unit.data, store_dma.data)
        state = stream.state
        if config.update_lanes == 1:
            state = _decoupled(m, "update_beats", config, state)
        wiring.connect(m, state, update.state)
        with m.If(processor.store_opcode == Opcode.UPDATE):
            m.d.comb += [
                engine.o_read.bank.eq(update.o_read.bank),
                engine.o_read.address.eq(update.o_read.address),
            ]
        with m.Else():
            m.d.comb += [
                engine.o_read.bank.eq(store.o_read.bank),
                engine.o_read.address.eq(store.o_read.address),
            ]
        for unit in (store, update):
            m.d.comb += [
                unit.o_read.ready.eq(engine.o_read.ready),
                unit.o_read.data.eq(engine.o_read.data),
            ]
        m.d.comb += [
            store_completion.handed_over.eq(store.done | update.done),
            store_completion.unit_fault.eq(store.fault),
            processor.store_done.eq(store_completion.done),
            processor.store_fault.eq(store_completion.fault),
        ]
        with m.If(update.fault.code != Fault.NONE):
            m.d.comb += store_completion.unit_fault.eq(update.fault)

        # Vector: one command at a time, beside those of the store queue.
        m.submodules.vector_completion = vector_completion = WriteCompletion()
        m.d.comb += [
            vector.command.payload.eq(processor.vector.payload.body.vector),
            vector.command.valid.eq(processor.vector.valid),
            processor.vector.ready.eq(vector.command.ready),
            vector_completion.handed_over.eq(vector.done),
            vector_completion.unit_fault.eq(vector.fault),
            processor.vector_done.eq(vector_completion.done),
            processor.vector_fault.eq(vector_completion.fault),
        ]
        beats = stream.stream
        if config.vector_lanes == 1:
            beats = _decoupled(m, "vector_beats", config, beats)
        wiring.connect(m, beats, vector.beats)
        wiring.connect(m, vector.descriptor, vector_dma.descriptor)
        wiring.connect(m, vector.data, vector_dma.data)
        for completion, dma in ((store_completion, store_dma), (vector_completion, vector_dma)):
            m.d.comb += [
                completion.issued.eq(dma.issued),
                completion.acknowledged.eq(dma.acknowledged),
                completion.dma_fault.eq(dma.fault),
            ]

        # Counters.
        steps = {
            "CYCLES": self.running,
            "LOST_DRAIN": self.running & ~engine.mac & engine.draining,
            "LOST_FILL": self.running & ~engine.mac & ~engine.draining & engine.busy,
            "LOST_OPERAND": self.running & ~engine.mac & ~engine.draining & ~engine.busy,
            "USEFUL_MACS": engine.useful,
            "EDGE_MACS": engine.edge,
            "FILLER_MACS": engine.filler,
            "READ_BEATS": sum((loader.beat for loader in loaders.values()), Const(0, 1)),
            "WRITE_BEATS": self.write.w.valid & self.write.w.ready,
            "COMMANDS": sum(processor.ended, Const(0, 1)),
            "NONFINITE": store.nonfinite + vector.nonfinite,
        }
        for queue in Queue:
            steps[f"{queue.name}_BUSY"] = processor.busy[queue.value]
            steps[f"{queue.name}_WAIT"] = processor.waiting[queue.value]
        for number, stage in enumerate(STAGE_NAMES):
            steps[f"CYCLES_{stage}"] = self.running & (processor.stage.as_value() == number)
            steps[f"MAC_SLOTS_{stage}"] = engine.mac & (engine.mac_stage.as_value() == number)
        m.submodules.counters = counters = Counters(
            {counter.name: len(Value.cast(steps[counter.name])) for counter in COUNTERS}
        )
        m.d.comb += [
            *(counters.steps[name].eq(step) for name, step in steps.items()),
            self.counter.eq(counters.value),
        ]
        return m


def _decoupled(m: Module, name: str, config: Config, beats: Any) -> Any:
    """Return a stream of beats behind a FIFO, so that no path leads from one unit into the other.

    For units with one lane, which small and slow devices have: whether they take a beat is known
    late in a cycle, and so is whether there is one.
    """
    m.submodules[name] = buffer = fifo.SyncFIFOBuffered(width=config.beat_bits, depth=4)
    wiring.connect(m, beats, buffer.w_stream)
    return buffer.r_stream
