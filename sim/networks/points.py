"""Design points: cards of a size, with the memory that they have."""

from __future__ import annotations

from dataclasses import dataclass

from rtl.config import Config, preset

from ..verilated.model import MemoryTiming

__all__ = ["BANDWIDTH", "CLOCK_HZ", "LATENCY", "POINTS", "Point", "timing_for"]

CLOCK_HZ = 250_000_000

BANDWIDTH = 77_000_000_000
"""Bytes a second of the card's memory, all channels together: four DIMMs of DDR4-2400."""

LATENCY = 64
"""Cycles from an address to its first beat, and from the last beat written to the response."""

_PORT_BEATS = 2.0
"""Beats that the port of a channel moves in a cycle: one read, one written."""


@dataclass(frozen=True)
class Point:
    """Multipliers at `CLOCK_HZ`, with memory of `BANDWIDTH`.

    Parameters
    ----------
    name
        Of the point.
    preset
        Its configuration.
    """

    name: str
    preset: str

    @property
    def macs(self) -> int:
        """Its multipliers."""
        return preset(self.preset).macs


POINTS = {
    "1k": Point("1k", "u250-1k"),
    "4k": Point("4k", "u250"),
}
"""By name: the published system's scale, and four times as many multipliers on the same memory."""


def timing_for(config: Config) -> MemoryTiming:
    """Return how each memory channel of a card behaves."""
    beats = BANDWIDTH / CLOCK_HZ / config.channels / config.beat_bytes
    return MemoryTiming(latency=LATENCY, bandwidth=min(beats, _PORT_BEATS))
