"""Event counters."""

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..interface.register_map import COUNTERS

__all__ = ["Counters"]

STEP_BITS = 8


class Counters(wiring.Component):
    """One 64-bit counter for each entry of `COUNTERS`.

    Attributes
    ----------
    steps : In
        By how much each counts in this cycle.
    values : Out
        The counters; one cycle late.
    """

    steps: In(data.ArrayLayout(STEP_BITS, len(COUNTERS)))
    values: Out(data.ArrayLayout(64, len(COUNTERS)))

    def __init__(self, config: Config) -> None:
        if config.elements >= 1 << STEP_BITS:
            raise ValueError(f"{config.elements} events in a cycle, at most {(1 << STEP_BITS) - 1}")
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        for i in range(len(COUNTERS)):
            m.d.sync += self.values[i].eq(self.values[i] + self.steps[i])
        return m
