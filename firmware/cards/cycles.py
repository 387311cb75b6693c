"""The cycle model as a card."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtl.config import COMMAND_BYTES, Config
from rtl.control.commands import Opcode, Stage, encode
from sim.cycles.gateware import parameters
from sim.cycles.model import Measurement, Outcome, measure
from sim.verilated.model import MemoryTiming

from ..errors import CardError
from . import modelled

__all__ = ["CycleCard"]

_FINISH = np.frombuffer(encode(Opcode.FINISH), np.uint8)


class CycleCard(modelled.ModelledCard):
    """The cycle model behind the card's registers: tells how long programs take, computes nothing.

    Of what the host writes to memory it keeps programs only, which it knows by the FINISH at their
    end, and reads give zeros: a card of many gigabytes takes next to no room.

    Parameters
    ----------
    config
        Configuration to model.
    timing
        How each channel of its memory behaves; without random pauses.

    Attributes
    ----------
    measurement
        Of the program that ran last, when each of its commands began and ended too.

    Raises
    ------
    CardError
        The model doesn't know the configuration.
    """

    computes = False

    def __init__(self, config: Config, *, timing: MemoryTiming | None = None) -> None:
        self.timing = timing or MemoryTiming()
        self._programs: dict[int, bytes] = {}
        self._stage = Stage.FF
        self.measurement: Measurement | None = None
        try:
            parameters(config)
        except ValueError as error:
            raise CardError(str(error)) from None
        super().__init__(config)

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        return np.zeros(size, np.uint8)

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        content = data.reshape(-1)
        if np.array_equal(content[-COMMAND_BYTES:], _FINISH):
            self._programs[address] = content.tobytes()

    def _reset(self) -> None:
        self._stage = Stage.FF
        super()._reset()

    def _execute(self, address: int, commands: int) -> modelled.Outcome:
        program = self._programs.get(address, b"")[: commands * COMMAND_BYTES]
        try:
            measured = measure(
                self.config, self.timing, program, address=address, stage=self._stage
            )
        except ValueError as error:
            raise CardError(f"the program at {address:#x} can't be timed: {error}") from None
        self._stage = measured.stage
        self.measurement = measured
        return modelled.Outcome(measured.counters, measured.outcome is Outcome.FINISHED)
