"""The narrow waist between host software and whatever carries out its programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config

from ..errors import CardError

__all__ = ["Card"]


class Card(ABC):
    """An accelerator with its memory.

    Everything above this class runs unchanged on every implementation of it.

    Attributes
    ----------
    config
        Configuration that the card claims to have; the driver checks it against ``CONFIG_HASH``.
    timeout_unit
        What `wait_interrupt` counts: ``"seconds"``, or ``"cycles"`` on a simulated card, whose
        time-outs then don't depend on the speed of the host.
    default_timeout
        Time-out, in that unit, which is ample for a program of a training step.
    computes
        Memory holds what programs compute. A card that only tells the time has zeros there.
    """

    config: Config
    timeout_unit: str = "seconds"
    default_timeout: float = 10.0
    computes: bool = True

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that there are, at most those of the configuration."""
        return self.config.memory_bytes

    @abstractmethod
    def read_register(self, offset: int) -> int:
        """Return the 32-bit register at byte `offset`."""

    @abstractmethod
    def write_register(self, offset: int, value: int) -> None:
        """Write the 32-bit register at byte `offset`."""

    @abstractmethod
    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        """Return a copy of `size` bytes of card memory from byte `address`.

        Raises
        ------
        CardError
            The range reaches outside the card's memory.
        """

    @abstractmethod
    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        """Write the bytes `data` to card memory from byte `address`.

        Raises
        ------
        CardError
            The range reaches outside the card's memory.
        """

    @abstractmethod
    def wait_interrupt(self, timeout: float) -> bool:
        """Wait until the interrupt line is high, for `timeout` at most (see `timeout_unit`).

        A simulated card also lets its clock run here. Returns whether the line is high.
        """

    def stop_trace(self) -> None:  # noqa: B027 (most cards have none)
        """End the waveform that the card records since it was opened, if it records one."""

    def remarks(self) -> list[str]:
        """Return what a person should know of how the card has worked so far, if anything."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Let the card go; calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_range(self, address: int, size: int) -> None:
        """Refuse an access outside the card's memory."""
        if address < 0 or size < 0 or address + size > self.memory_bytes:
            raise CardError(
                f"{size} bytes at {address:#x} reach outside the card's memory of "
                f"{self.memory_bytes} bytes"
            )
