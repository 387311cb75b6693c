"""The golden model as a card."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from sim.golden.machine import Machine

from .modelled import ModelledCard, Outcome

__all__ = ["GoldenCard"]


class GoldenCard(ModelledCard):
    """The golden model behind the card's registers.

    It has no clock: every counter of cycles stays zero.

    Parameters
    ----------
    config
        Configuration to model.
    """

    def __init__(self, config: Config) -> None:
        self._machine = Machine(config)
        super().__init__(config)

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        return self._machine.memory[address : address + size].copy()

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, len(data))
        self._machine.memory[address : address + len(data)] = data

    def _reset(self) -> None:
        self._machine.reset()
        super()._reset()

    def _execute(self, address: int, commands: int) -> Outcome:
        result = self._machine.run(address, commands)
        return Outcome(
            counters=result.counters,
            finished=result.finished,
            fault=result.fault,
            fault_command=result.fault_command,
            fault_address=result.fault_address,
        )
