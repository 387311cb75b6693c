"""Design points: cards of a size, with the memory that they have."""

from __future__ import annotations

from dataclasses import dataclass

from firmware.model import Method
from rtl.config import Config, preset
from rtl.sparsity.pattern import Pattern

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
    presets
        Configurations of as many multipliers, by their largest ratio M/N, ascending.
    """

    name: str
    presets: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Its multipliers."""
        return preset(self.presets[0]).macs

    def preset_for(self, method: Method) -> str:
        """Return the configuration that a method runs on: the least that is no slower than its
        patterns allow."""
        ratio = max(map(_ratio, (method.forward, method.backward)))
        for name in self.presets:
            if preset(name).ratio >= ratio:
                return name
        return self.presets[-1]


def _ratio(pattern: Pattern) -> int:
    return pattern.m // pattern.n


POINTS = {
    "1k": Point("1k", ("vcu1525-1k", "u250-1k")),
    "4k": Point("4k", ("vcu1525", "u250")),
}
"""By name: the published system's scale, and four times as many multipliers on the same memory."""


def timing_for(config: Config) -> MemoryTiming:
    """Return how each memory channel of a card behaves."""
    beats = BANDWIDTH / CLOCK_HZ / config.channels / config.beat_bytes
    return MemoryTiming(latency=LATENCY, bandwidth=min(beats, _PORT_BEATS))
