"""The accelerator with a memory of its own behind a serial line, for boards without a host bus."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .accelerator import Accelerator
from .config import Config
from .interface.serial_bridge import SerialBridge
from .memory.block_memory import BlockMemory

__all__ = ["SerialTop"]


class SerialTop(wiring.Component):
    """Serial bridge, accelerator and card memory in one clock domain.

    A board adds clock, reset and pins; a simulator the same, and the line.

    Parameters
    ----------
    config
        Configuration of the accelerator, with one memory channel.
    clock_hertz, baud
        Clock of the domain ``sync``, and bits a second on the line.

    Attributes
    ----------
    rx : In(1)
        The line from the host; may change at any time.
    tx : Out(1)
        The line to the host.
    interrupt : Out(1)
        Of the accelerator, which the host can ask for.

    Raises
    ------
    ValueError
        The configuration has several memory channels.
    """

    def __init__(self, config: Config, clock_hertz: int, baud: int) -> None:
        if config.channels != 1:
            raise ValueError(
                f"configuration '{config.name}': channels is {config.channels}, must be 1 behind a "
                "serial line"
            )
        self._config = config
        self._clock_hertz = clock_hertz
        self._baud = baud
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "interrupt": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.bridge = bridge = SerialBridge(self._clock_hertz, self._baud)
        m.submodules.accelerator = accelerator = Accelerator(self._config)
        m.submodules.memory = memory = BlockMemory(self._config)
        wiring.connect(m, bridge.control, accelerator.control)
        wiring.connect(m, bridge.memory, memory.access)
        wiring.connect(m, accelerator.read, memory.read)
        wiring.connect(m, accelerator.write, memory.write)
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            bridge.interrupt.eq(accelerator.interrupt),
            self.interrupt.eq(accelerator.interrupt),
        ]
        return m
