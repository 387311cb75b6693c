"""Register file behind the AXI4-Lite control port."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..control.counters import CounterValue
from ..control.fault import FaultReport
from .axi import AXI4LiteSignature, Response
from .register_map import (
    COUNTERS,
    REGISTERS,
    Control,
    Interrupt,
    memory_base_registers,
)

__all__ = ["RegisterFile"]


class RegisterFile(wiring.Component):
    """Registers as `rtl.interface.register_map` lists them.

    A read of an offset without a register gives 0, a write to one is ignored; both answer OKAY.
    A read of a counter waits until the counters get to it.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    memory_bases
        Where each channel's memory begins on the bus, as long as no register says otherwise: then
        there are `memory_base_registers`, too.

    Attributes
    ----------
    axi : In
        AXI4-Lite, one access of each kind at a time.
    start : Out
        CONTROL.START was written in this cycle.
    soft_reset : Out
        CONTROL.SOFT_RESET was written in this cycle.
    program, commands : Out
        Address and length of the program.
    running, stopped, resetting : In
        Status for CONTROL.
    finished : In
        A program ended in this cycle.
    fault, fault_command : In
        Shown in the FAULT registers.
    counter : In(CounterValue)
        The value of one of `COUNTERS`, of another each cycle.
    interrupt : Out
        Level, high while an enabled cause is set.
    memory_base : Out
        Where each channel's memory begins, an array; only with `memory_bases`.
    """

    def __init__(self, config: Config, memory_bases: Sequence[int] | None = None) -> None:
        self._config = config
        self._memory_bases = memory_bases
        ports = {
            "axi": In(AXI4LiteSignature()),
            "start": Out(1),
            "soft_reset": Out(1),
            "program": Out(64),
            "commands": Out(32),
            "running": In(1),
            "stopped": In(1),
            "resetting": In(1),
            "finished": In(1),
            "fault": In(FaultReport),
            "fault_command": In(32),
            "counter": In(CounterValue(len(COUNTERS))),
            "interrupt": Out(1),
        }
        if memory_bases is not None:
            ports["memory_base"] = Out(64).array(config.channels)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        done = Signal()
        interrupt_on = Signal()
        enable = Signal(len(Interrupt))
        status = Signal(len(Interrupt))
        control = Signal(32)
        for bit, value in (
            (Control.START, self.running),
            (Control.DONE, done),
            (Control.IDLE, ~self.running & ~self.stopped & ~self.resetting),
            (Control.FAULT, self.stopped),
            (Control.SOFT_RESET, self.resetting),
        ):
            m.d.comb += control[bit.bit_length() - 1].eq(value)

        readable = {
            "CONTROL": control,
            "GLOBAL_INTERRUPT_ENABLE": interrupt_on,
            "INTERRUPT_ENABLE": enable,
            "INTERRUPT_STATUS": status,
            "PROGRAM_LOW": self.program[:32],
            "PROGRAM_HIGH": self.program[32:],
            "PROGRAM_COMMANDS": self.commands,
            "IDENTITY": REGISTERS["IDENTITY"].reset,
            "VERSION": REGISTERS["VERSION"].reset,
            "CONFIG_HASH": self._config.hash,
            "FAULT_CODE": self.fault.code.as_value(),
            "FAULT_COMMAND": self.fault_command,
            "FAULT_ADDRESS_LOW": self.fault.address[:32],
            "FAULT_ADDRESS_HIGH": self.fault.address[32:],
        }
        writable = {
            "GLOBAL_INTERRUPT_ENABLE": interrupt_on,
            "INTERRUPT_ENABLE": enable,
            "PROGRAM_LOW": self.program[:32],
            "PROGRAM_HIGH": self.program[32:],
            "PROGRAM_COMMANDS": self.commands,
        }
        registers = REGISTERS
        if self._memory_bases is not None:
            registers = REGISTERS | memory_base_registers(self._config.channels)
            for channel, address in enumerate(self._memory_bases):
                base = Signal(64, init=address, name=f"memory_base_{channel}")
                m.d.comb += self.memory_base[channel].eq(base)
                for half, value in (("LOW", base[:32]), ("HIGH", base[32:])):
                    readable[f"MEMORY_BASE_{channel}_{half}"] = value
                    writable[f"MEMORY_BASE_{channel}_{half}"] = value

        # Reads: the answer is held until it is taken. A counter's is awaited.
        axi = self.axi
        awaits_counter, is_high = Signal(), Signal()
        awaited = Signal.like(self.counter.index)
        m.d.comb += axi.ar.ready.eq(~axi.r.valid & ~awaits_counter)
        with m.If(axi.ar.valid & axi.ar.ready):
            m.d.sync += [axi.r.valid.eq(1), axi.r.payload.resp.eq(Response.OKAY)]
            with m.Switch(axi.ar.payload[2:]):
                for name, value in readable.items():
                    with m.Case(registers[name].offset // 4):
                        m.d.sync += axi.r.payload.data.eq(value)
                for index, counter in enumerate(COUNTERS):
                    for high, half in enumerate(("LOW", "HIGH")):
                        with m.Case(registers[f"{counter.name}_{half}"].offset // 4):
                            m.d.sync += [
                                axi.r.valid.eq(0),
                                awaits_counter.eq(1),
                                awaited.eq(index),
                                is_high.eq(high),
                            ]
                with m.Default():
                    m.d.sync += axi.r.payload.data.eq(0)
        with m.Elif(awaits_counter):
            m.d.sync += axi.r.payload.data.eq(self.counter.value.word_select(is_high, 32))
            with m.If(self.counter.index == awaited):
                m.d.sync += [axi.r.valid.eq(1), awaits_counter.eq(0)]
        with m.Elif(axi.r.ready):
            m.d.sync += axi.r.valid.eq(0)

        # Writes: address and data may come in any order and are taken together.
        write = Signal()
        m.d.comb += [
            write.eq(axi.aw.valid & axi.w.valid & ~axi.b.valid),
            axi.aw.ready.eq(write),
            axi.w.ready.eq(write),
        ]
        with m.If(write):
            m.d.sync += [axi.b.valid.eq(1), axi.b.payload.resp.eq(Response.OKAY)]
        with m.Elif(axi.b.ready):
            m.d.sync += axi.b.valid.eq(0)

        written = axi.w.payload.data
        strobe = Cat(bit.replicate(8) for bit in axi.w.payload.strb)

        def is_written(name):
            return write & (axi.aw.payload[2:] == registers[name].offset // 4)

        for name, register in writable.items():
            with m.If(is_written(name)):
                m.d.sync += register.eq((written & strobe) | (register & ~strobe))
        with m.If(is_written("CONTROL")):
            asked = written & strobe
            m.d.comb += [
                self.start.eq((asked & Control.START.value).any()),
                self.soft_reset.eq((asked & Control.SOFT_RESET.value).any()),
            ]

        # Interrupt causes: set by events, cleared by writing ones.
        stopped_before = Signal()
        m.d.sync += stopped_before.eq(self.stopped)
        causes = Signal(len(Interrupt))
        cleared = Signal(len(Interrupt))
        m.d.comb += [
            causes.eq(Cat(self.finished, self.stopped & ~stopped_before)),
            self.interrupt.eq(interrupt_on & (status & enable).any()),
        ]
        with m.If(is_written("INTERRUPT_STATUS")):
            m.d.comb += cleared.eq(written & strobe)
        m.d.sync += status.eq((status & ~cleared) | causes)
        with m.If(self.start):
            m.d.sync += done.eq(0)
        with m.Elif(self.finished):
            m.d.sync += done.eq(1)
        with m.If(self.resetting):
            m.d.sync += [done.eq(0), status.eq(0)]
        return m
