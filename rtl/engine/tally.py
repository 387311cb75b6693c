"""Counts the products that the array adds, by what they are good for."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..delay import delayed

__all__ = ["SlotSize", "SlotTally"]


class SlotSize(data.StructLayout):
    """How much of the array a multiplying slot uses.

    ``rows``, ``cols`` and ``lanes`` (of each processing element) multiply for a result, ``active``
    lanes multiply anything but the zeros that stand for entries that a pattern hasn't got.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "multiply": 1,
                "rows": range(config.rows + 1),
                "cols": range(config.cols + 1),
                "lanes": range(config.lanes + 1),
                "active": range(config.lanes + 1),
            }
        )


class SlotTally(wiring.Component):
    """Multiplies out the sizes of slots.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    size : In(SlotSize)
        One slot in each cycle.
    useful, edge, filler : Out(range(macs + 1))
        Products that belong to a result, that pad a tile or a reduction, and that are left out; a
        few cycles later. Together they are all of the array, or zero if the slot doesn't multiply.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "size": In(SlotSize(config)),
                "useful": Out(range(config.macs + 1)),
                "edge": Out(range(config.macs + 1)),
                "filler": Out(range(config.macs + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        elements = config.rows * config.cols

        size = delayed(m, self.size, reset=True)
        outputs = delayed(m, size.rows * size.cols)
        size = delayed(m, size, reset=True)
        useful = delayed(m, outputs * size.lanes)
        active = delayed(m, size.active * elements)
        multiply = delayed(m, size.multiply, reset=True)

        for port in (self.useful, self.edge, self.filler):
            m.d.sync += port.eq(0)
        with m.If(multiply):
            m.d.sync += [
                self.useful.eq(useful),
                self.edge.eq(active - useful),
                self.filler.eq(config.macs - active),
            ]
        return m
