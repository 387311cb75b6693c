"""Runs programs on a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rtl.config import COMMAND_BYTES
from rtl.control.commands import Fault
from rtl.interface.register_map import (
    COUNTERS,
    IDENTITY,
    REGISTERS,
    VERSION,
    Control,
    Interrupt,
)

from .allocator import Allocator
from .cards import Card
from .errors import CardError, CardFault, CardTimeout
from .program import Program

__all__ = ["Driver", "RunResult"]

_RESET_LOOKS = 16
"""Looks at the card before a soft reset is given up; the time between them doubles."""


@dataclass(frozen=True)
class RunResult:
    """What a program did: by how much it raised each counter."""

    counters: Mapping[str, int]

    @property
    def cycles(self) -> int:
        """Cycles in which the program ran; zero on a card that has no clock."""
        return self.counters["CYCLES"]

    def __add__(self, other: RunResult) -> RunResult:
        return RunResult(
            {name: value + other.counters[name] for name, value in self.counters.items()}
        )


class Driver:
    """Runs programs on a card, with a bound on every wait.

    Parameters
    ----------
    card
        The card; it must be the very gateware that this source tree describes.

    Attributes
    ----------
    card, config
        The card and its configuration.
    memory
        Allocator of the card's memory.

    Raises
    ------
    CardError
        Identity, version or configuration hash isn't what is expected.
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        self.config = card.config
        self.memory = Allocator(card.memory_bytes, self.config.beat_bytes)
        self._resident: dict[int, bytes] = {}
        for name, expected, meaning in (
            ("IDENTITY", IDENTITY, "this is no SAT card"),
            ("VERSION", VERSION, "gateware and software are of different versions"),
            (
                "CONFIG_HASH",
                self.config.hash,
                f"the gateware was not made from configuration '{self.config.name}' of this "
                "software",
            ),
        ):
            value = self._read(name)
            if value != expected:
                raise CardError(f"{meaning}: {name} is {value:#010x}, expected {expected:#010x}")
        self._enable_interrupts()

    def run(self, program: Program, timeout: float | None = None) -> RunResult:
        """Run a program and wait for its end.

        Parameters
        ----------
        program
            Placed in card memory at its first run; written again only where it changed.
        timeout
            Longest wait, in the card's `Card.timeout_unit`; `Card.default_timeout` if not given.

        Raises
        ------
        CardFault
            The program stopped at a fault.
        CardTimeout
            It didn't end in time.
        """
        address = self._place(program)
        control = Control(self._read("CONTROL"))
        if not control & Control.IDLE or control & Control.FAULT:
            raise CardError(f"the card isn't ready (CONTROL is {control!r}): reset it")
        before = self.counters()
        self._write("INTERRUPT_STATUS", Interrupt.DONE | Interrupt.FAULT)
        self._write("PROGRAM_LOW", address & 0xFFFFFFFF)
        self._write("PROGRAM_HIGH", address >> 32)
        self._write("PROGRAM_COMMANDS", len(program))
        self._write("CONTROL", Control.START)
        limit = self.card.default_timeout if timeout is None else timeout
        self.card.wait_interrupt(limit)
        control = Control(self._read("CONTROL"))
        after = self.counters()
        counters = {name: after[name] - before[name] for name in after}
        if control & Control.FAULT:
            index = self._read("FAULT_COMMAND")
            raise CardFault(
                code=_fault_name(self._read("FAULT_CODE")),
                index=index,
                command=program.describe(index),
                address=self._read_wide("FAULT_ADDRESS"),
                counters=counters,
            )
        if not control & Control.DONE:
            raise CardTimeout(
                f"{program.name} didn't end within {limit:g} {self.card.timeout_unit}; "
                f"CONTROL is {control!r}",
                status=int(control),
                counters=counters,
            )
        return RunResult(counters)

    def reset(self) -> None:
        """Soft reset: abandon what runs, clear faults and counters. Card memory stays as it is.

        Raises
        ------
        CardTimeout
            The card didn't come out of reset.
        """
        self._write("CONTROL", Control.SOFT_RESET)
        for look in range(_RESET_LOOKS):
            control = Control(self._read("CONTROL"))
            if not control & Control.SOFT_RESET:
                break
            # The interrupt stays low: this only lets time pass, on a simulated card as well.
            self.card.wait_interrupt(self.card.default_timeout / (1 << (_RESET_LOOKS - look)))
        else:
            raise CardTimeout(
                f"the card didn't come out of reset; CONTROL is {control!r}",
                status=int(control),
                counters=self.counters(),
            )
        self._enable_interrupts()

    def unload(self, program: Program) -> None:
        """Free the memory of a program that was run."""
        if program.address is not None:
            self.memory.free(program.address)
            del self._resident[program.address]
            program.address = None

    def counters(self) -> dict[str, int]:
        """Return every counter; exact while no program runs."""
        return {counter.name: self._read_wide(counter.name) for counter in COUNTERS}

    def _place(self, program: Program) -> int:
        """Bring a program into card memory, or up to date there; return its address."""
        code = program.encode()
        if program.address is not None and len(self._resident[program.address]) != len(code):
            self.unload(program)
        if program.address is None:
            program.address = self.memory.allocate(len(code), alignment=COMMAND_BYTES)
            self._resident[program.address] = b""
        if self._resident[program.address] != code:
            self.card.write_memory(program.address, np.frombuffer(code, np.uint8))
            self._resident[program.address] = code
        return program.address

    def _enable_interrupts(self) -> None:
        self._write("INTERRUPT_ENABLE", Interrupt.DONE | Interrupt.FAULT)
        self._write("GLOBAL_INTERRUPT_ENABLE", 1)

    def _read(self, name: str) -> int:
        return self.card.read_register(REGISTERS[name].offset)

    def _read_wide(self, name: str) -> int:
        return self._read(f"{name}_LOW") | self._read(f"{name}_HIGH") << 32

    def _write(self, name: str, value: int) -> None:
        self.card.write_register(REGISTERS[name].offset, int(value))


def _fault_name(code: int) -> str:
    try:
        return Fault(code).name
    except ValueError:
        return f"fault {code}"
