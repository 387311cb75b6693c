"""The cycle model beside the Verilated card: what it says, and how much sooner.

All stages of a small convolution in 2:8, with its operands in card memory, run on both: programs of
every kind of command, in which array, memory and vector unit are busy in turn. Times are those of
the processor, of one thread each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from firmware.cards import Card
from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver, RunResult
from firmware.program import Program
from rtl.config import preset
from rtl.sparsity.pattern import Pattern

from ..cycles.model import measure as predict
from . import memory

__all__ = ["measure"]

_SECONDS = 0.1
"""For which the model runs a program again and again to tell its speed."""


class _BothDriver(Driver):
    """Runs each program on the card and in the model."""

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.cycles = 0
        self.card_seconds = self.model_seconds = 0.0
        self.errors: list[float] = []

    def run(self, program: Program, timeout: float | None = None) -> RunResult:
        started = time.process_time()
        result = super().run(program, timeout)
        self.card_seconds += time.process_time() - started
        timing, code = memory.timing_for(self.config), program.encode()
        assert program.address is not None, "a program that has run has its place"
        started, runs = time.process_time(), 0
        while (spent := time.process_time() - started) < _SECONDS:
            predicted = predict(self.config, timing, code, address=program.address).cycles
            runs += 1
        self.model_seconds += spent / runs
        self.cycles += result.cycles
        self.errors.append(abs(predicted - result.cycles) / result.cycles)
        return result


def measure(name: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the programs on preset `name`, as the Verilated card and in the model.

    Returns
    -------
    ``max_relative_error`` of the cycles of a program, and ``speed_ratio``, by how much more cycles
    a second the model runs than the card; with ``preset``, ``macs``, ``cycles`` in all, and
    ``card_cycles_per_second`` and ``model_cycles_per_second``.
    """
    config = preset(name)
    progress(f"build {name}, {config.macs} MACs")
    with VerilatedCard(config, timing=memory.timing_for(config)) as card:
        progress(f"{name}: the cycle model beside the Verilated card")
        driver = _BothDriver(card)
        layer = memory.QUICK_LAYERS[0]
        workload = memory.Workload(driver, layer, Pattern.N2M8)
        for stage in layer.stages:
            workload.run(stage)
    return {
        "preset": name,
        "macs": config.macs,
        "cycles": driver.cycles,
        "card_cycles_per_second": round(driver.cycles / driver.card_seconds),
        "model_cycles_per_second": round(driver.cycles / driver.model_seconds),
        "max_relative_error": max(driver.errors),
        "speed_ratio": round(driver.card_seconds / driver.model_seconds, 1),
    }
