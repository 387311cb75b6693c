"""Event counters."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..interface.register_map import COUNTERS

__all__ = ["Counters"]


class Counters(wiring.Component):
    """One 64-bit counter for each entry of `COUNTERS`.

    Parameters
    ----------
    config
        Configuration of the accelerator; no event happens more than `Config.macs` times a cycle.

    Attributes
    ----------
    steps : In
        By how much each counts in this cycle.
    values : Out
        The counters; one cycle late.
    """

    def __init__(self, config: Config) -> None:
        step = unsigned(config.macs.bit_length())
        super().__init__(
            {
                "steps": In(data.ArrayLayout(step, len(COUNTERS))),
                "values": Out(data.ArrayLayout(64, len(COUNTERS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for i in range(len(COUNTERS)):
            m.d.sync += self.values[i].eq(self.values[i] + self.steps[i])
        return m
