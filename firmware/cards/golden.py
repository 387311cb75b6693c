"""The golden model as a card."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from rtl.control.commands import Fault
from rtl.interface.register_map import (
    COUNTERS,
    IDENTITY,
    REGISTERS,
    VERSION,
    Access,
    Control,
    Interrupt,
)
from sim.golden.machine import Machine

from ..errors import CardError
from .base import Card

__all__ = ["GoldenCard"]

_NAMES = {register.offset: name for name, register in REGISTERS.items()}


class GoldenCard(Card):
    """The golden model behind the card's registers.

    It has no clock: a program has ended when the write that starts it returns, and every counter of
    cycles stays zero. A program that hangs leaves the card busy until a soft reset.

    Parameters
    ----------
    config
        Configuration to model.
    """

    timeout_unit = "cycles"
    default_timeout = 1_000_000

    def __init__(self, config: Config) -> None:
        self.config = config
        self._machine = Machine(config)
        # What the host wrote, by the name of the register.
        self._written = dict.fromkeys(REGISTERS, 0)
        self._reset()

    def read_register(self, offset: int) -> int:
        name = self._name(offset)
        if name == "CONTROL":
            return int(self._status)
        if name == "INTERRUPT_STATUS":
            return int(self._causes)
        return self._read_only().get(name, self._written[name])

    def write_register(self, offset: int, value: int) -> None:
        name = self._name(offset)
        if name == "CONTROL":
            if value & Control.SOFT_RESET:
                self._machine.reset()
                self._reset()
            elif value & Control.START and self._status & Control.IDLE:
                self._run()
        elif name == "INTERRUPT_STATUS":
            self._causes &= ~Interrupt(value)
        elif REGISTERS[name].access is Access.READ_WRITE:
            self._written[name] = value & 0xFFFFFFFF

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        return self._machine.memory[address : address + size].copy()

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, len(data))
        self._machine.memory[address : address + len(data)] = data

    def wait_interrupt(self, timeout: float) -> bool:
        enabled = self._causes & Interrupt(self._written["INTERRUPT_ENABLE"])
        return bool(self._written["GLOBAL_INTERRUPT_ENABLE"] & 1 and enabled)

    def close(self) -> None:
        """Nothing is held outside the process."""

    def _name(self, offset: int) -> str:
        try:
            return _NAMES[offset]
        except KeyError:
            raise CardError(f"there is no register at offset {offset:#x}") from None

    def _reset(self) -> None:
        """Forget the last program and clear the counters."""
        self._status = Control.IDLE
        self._causes = Interrupt(0)
        self._fault = (Fault.NONE, 0, 0)
        self._counters = {counter.name: 0 for counter in COUNTERS}

    def _run(self) -> None:
        """Carry out the program that the registers name, to its end."""
        address = self._written["PROGRAM_LOW"] | self._written["PROGRAM_HIGH"] << 32
        result = self._machine.run(address, self._written["PROGRAM_COMMANDS"])
        for name, count in result.counters.items():
            self._counters[name] += count
        if result.finished:
            self._status = Control.IDLE | Control.DONE
            self._causes |= Interrupt.DONE
        elif result.hung:
            self._status = Control.START
        else:
            self._status = Control.FAULT
            self._causes |= Interrupt.FAULT
            self._fault = (result.fault, result.fault_command, result.fault_address)

    def _read_only(self) -> dict[str, int]:
        """Return the registers that the host cannot write."""
        code, command, address = self._fault
        values = {
            "IDENTITY": IDENTITY,
            "VERSION": VERSION,
            "CONFIG_HASH": self.config.hash,
            "FAULT_CODE": code.value,
            "FAULT_COMMAND": command,
        }
        wide = self._counters | {"FAULT_ADDRESS": address}
        for name, value in wide.items():
            values[f"{name}_LOW"] = value & 0xFFFFFFFF
            values[f"{name}_HIGH"] = value >> 32
        return values
