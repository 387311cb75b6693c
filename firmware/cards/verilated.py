"""The gateware, simulated by Verilator, as a card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from sim.verilated.model import Direction, MemoryTiming, RegisterTimeout, VerilatedModel

from ..errors import CardError
from .base import Card

__all__ = ["Direction", "MemoryTiming", "VerilatedCard"]

_SLICE = 1 << 17
"""Cycles between two chances for an interrupt from the keyboard."""


class VerilatedCard(Card):
    """Simulated card. Its clock runs only during register accesses and `wait_interrupt`.

    Parameters
    ----------
    config
        Configuration that is elaborated.
    timing
        How its memory behaves.
    trace
        File for a waveform (FST).

    Attributes
    ----------
    model
        The simulation, for what only a simulated card can do: injected errors, memory timing.
    """

    timeout_unit = "cycles"
    default_timeout = 20_000_000.0

    def __init__(
        self, config: Config, *, timing: MemoryTiming | None = None, trace: Path | None = None
    ) -> None:
        self.config = config
        self.model = VerilatedModel(config, timing=timing, trace=trace)

    def read_register(self, offset: int) -> int:
        try:
            return self.model.read_register(offset)
        except RegisterTimeout as error:
            raise CardError(str(error)) from None

    def write_register(self, offset: int, value: int) -> None:
        try:
            self.model.write_register(offset, value)
        except RegisterTimeout as error:
            raise CardError(str(error)) from None

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        return self.model.memory[address : address + size].copy()

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        self.model.memory[address : address + data.size] = data.reshape(-1)

    def wait_interrupt(self, timeout: float) -> bool:
        left = int(timeout)
        while True:
            cycles = min(left, _SLICE)
            if self.model.wait_interrupt(cycles):
                return True
            left -= cycles
            if left <= 0:
                return False

    def stop_trace(self) -> None:
        self.model.stop_trace()

    def close(self) -> None:
        self.model.close()
