"""Registers, core and soft reset."""

from collections.abc import Sequence

from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Module,
    ResetSignal,
    Signal,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import Config
from .core import Core
from .interface.axi import AXI4LiteSignature, AXI4ReadSignature, AXI4WriteSignature
from .interface.registers import RegisterFile
from .interface.striped_reads import StripedReads
from .interface.write_striper import WriteStriper

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """The accelerator.

    A soft reset first lets the memory transfers under way end, as AXI has no way to abandon them;
    should memory never answer, it stays pending, visible in CONTROL.

    Parameters
    ----------
    config
        Its configuration.
    memory_bases
        Where the memory of each channel begins on the bus, for systems in which that isn't 0. It's
        added to all addresses, and registers of its own change it, for a runtime that allocates
        the memory.

    Attributes
    ----------
    read, write : Out
        AXI4 master; with several channels an array of masters, one for each.
    control : In
        AXI4-Lite slave with the registers of `rtl.interface.register_map`.
    interrupt : Out
        Level, active high.
    """

    def __init__(self, config: Config, memory_bases: Sequence[int] | None = None) -> None:
        self._config = config
        self._memory_bases = memory_bases
        read = Out(AXI4ReadSignature(config.beat_bits))
        write = Out(AXI4WriteSignature(config.beat_bits))
        if config.channels > 1:
            read, write = read.array(config.channels), write.array(config.channels)
        super().__init__(
            {
                "control": In(AXI4LiteSignature()),
                "interrupt": Out(1),
                "read": read,
                "write": write,
            }
        )

    def elaborate(self, platform):
        m = Module()
        # The core's blocks take their reset from the domain around them, so that the soft reset has
        # to be one of a domain.
        core_reset = Signal()
        m.domains.core = core_domain = ClockDomain(local=True)
        m.d.comb += [
            core_domain.clk.eq(ClockSignal()),
            core_domain.rst.eq(ResetSignal() | core_reset),
        ]
        core = Core(self._config)
        m.submodules.core = DomainRenamer("core")(core)
        m.submodules.registers = registers = RegisterFile(self._config, self._memory_bases)
        if self._config.channels == 1:
            reads, writes = [(core.reads[0], self.read)], [(core.write, self.write)]
        else:
            # They need no soft reset: nothing is under way in them by then.
            m.submodules.reads = striped_reads = StripedReads(self._config)
            m.submodules.writes = write_striper = WriteStriper(self._config)
            for port, striped_port in zip(core.reads, striped_reads.core, strict=True):
                wiring.connect(m, port, striped_port)
            wiring.connect(m, core.write, write_striper.core)
            reads = list(zip(striped_reads.channels, self.read, strict=True))
            writes = list(zip(write_striper.channels, self.write, strict=True))
        for inside, outside in (*reads, *writes):
            wiring.connect(m, inside, wiring.flipped(outside))
        if self._memory_bases is not None:
            for base, (read, read_bus), (write, write_bus) in zip(
                registers.memory_base, reads, writes, strict=True
            ):
                m.d.comb += [
                    read_bus.ar.payload.addr.eq(read.ar.payload.addr + base),
                    write_bus.aw.payload.addr.eq(write.aw.payload.addr + base),
                ]
        wiring.connect(m, wiring.flipped(self.control), registers.axi)

        m.d.comb += [
            core.start.eq(registers.start),
            core.program.eq(registers.program),
            core.commands.eq(registers.commands),
            registers.running.eq(core.running),
            registers.stopped.eq(core.stopped),
            registers.finished.eq(core.finished),
            registers.fault.eq(core.fault),
            registers.fault_command.eq(core.fault_command),
            registers.counter.eq(core.counter),
            self.interrupt.eq(registers.interrupt),
        ]

        with m.FSM() as fsm:
            with m.State("Operate"):
                with m.If(registers.soft_reset):
                    m.next = "Stop-Transfers"
            with m.State("Stop-Transfers"):
                m.next = "Let-Transfers-End"
            with m.State("Let-Transfers-End"):
                with m.If(core.idle):
                    m.next = "Reset"
            with m.State("Reset"):
                m.d.sync += core_reset.eq(1)
                m.next = "Leave-Reset"
            with m.State("Leave-Reset"):
                m.d.sync += core_reset.eq(0)
                m.next = "Operate"
        resetting = ~fsm.ongoing("Operate")
        m.d.comb += [core.abort.eq(resetting), registers.resetting.eq(resetting)]
        return m
