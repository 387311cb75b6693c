"""The registers of cards that are models in software."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

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

from ..errors import CardError
from .base import Card

__all__ = ["ModelledCard", "Outcome"]

_NAMES = {register.offset: name for name, register in REGISTERS.items()}


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes
    ----------
    counters
        By how much it raised each counter; one that isn't there, not at all.
    finished
        It reached its FINISH. If it neither did nor met a fault, it hangs.
    fault, fault_command, fault_address
        Why and where it stopped, if it did.
    """

    counters: Mapping[str, int]
    finished: bool
    fault: Fault = Fault.NONE
    fault_command: int = 0
    fault_address: int = 0


class ModelledCard(Card):
    """A model behind the card's registers.

    A program has ended when the write that starts it returns. One that hangs leaves the card busy
    until a soft reset.

    Parameters
    ----------
    config
        Configuration to model.
    """

    timeout_unit = "cycles"
    default_timeout = 1_000_000

    def __init__(self, config: Config) -> None:
        self.config = config
        # What the host wrote, by the name of the register.
        self._written = dict.fromkeys(REGISTERS, 0)
        self._reset()

    @abstractmethod
    def _execute(self, address: int, commands: int) -> Outcome:
        """Carry out the program of `commands` commands at `address`."""

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
                self._reset()
            elif value & Control.START and self._status & Control.IDLE:
                self._run()
        elif name == "INTERRUPT_STATUS":
            self._causes &= ~Interrupt(value)
        elif REGISTERS[name].access is Access.READ_WRITE:
            self._written[name] = value & 0xFFFFFFFF

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
        outcome = self._execute(address, self._written["PROGRAM_COMMANDS"])
        for name, count in outcome.counters.items():
            self._counters[name] += count
        if outcome.finished:
            self._status = Control.IDLE | Control.DONE
            self._causes |= Interrupt.DONE
        elif outcome.fault is Fault.NONE:
            self._status = Control.START
        else:
            self._status = Control.FAULT
            self._causes |= Interrupt.FAULT
            self._fault = (outcome.fault, outcome.fault_command, outcome.fault_address)

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
