"""What can go wrong between the host and a card."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "AllocationError",
    "CardError",
    "CardFault",
    "CardTimeout",
    "ModelError",
    "ScheduleError",
]


class AllocationError(MemoryError):
    """Card memory has no room; the message gives the sizes."""


class ModelError(ValueError):
    """A network isn't possible; the message names the layer and what is wrong with it."""


class ScheduleError(ValueError):
    """A layer can't be scheduled on the configuration; the message says what it lacks."""


class CardError(RuntimeError):
    """A card is missing, isn't what it should be, or can't do what was asked of it."""


class CardTimeout(CardError):
    """A card didn't answer in time.

    Attributes
    ----------
    status
        ``CONTROL`` when the wait ended.
    counters
        What every counter rose by since the program was started.
    """

    def __init__(self, message: str, *, status: int, counters: Mapping[str, int]) -> None:
        super().__init__(f"{message}\n{_table(counters)}")
        self.status = status
        self.counters = dict(counters)


class CardFault(CardError):
    """A program stopped at a fault; only `Driver.reset` makes the card usable again.

    Attributes
    ----------
    code
        Name of the `rtl.control.commands.Fault`.
    index
        Index of the command at fault in the program.
    command
        That command in words.
    address
        Memory or scratchpad address concerned.
    counters
        What every counter rose by since the program was started.
    """

    def __init__(
        self, *, code: str, index: int, command: str, address: int, counters: Mapping[str, int]
    ) -> None:
        super().__init__(
            f"{code} at command {index}, address {address:#x}\n  {command}\n{_table(counters)}"
        )
        self.code = code
        self.index = index
        self.command = command
        self.address = address
        self.counters = dict(counters)


def _table(counters: Mapping[str, int]) -> str:
    """Return the counters that moved, one to a line."""
    moved = {name: value for name, value in counters.items() if value}
    if not moved:
        return "  no counter moved"
    width = max(map(len, moved))
    return "\n".join(f"  {name:<{width}}  {value:>14,}" for name, value in moved.items())
