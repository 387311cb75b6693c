"""How a unit reports that it cannot carry out a command."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from .commands import Fault

__all__ = ["FaultReport"]


class FaultReport(data.Struct):
    """A unit's fault; `code` stays set, with the unit stopped, until reset."""

    code: Fault
    address: unsigned(64)
    """Memory or scratchpad address concerned."""
