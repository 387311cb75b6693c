"""Which places of an image a convolution's outputs need, in one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..tensor import Span

__all__ = ["Axis", "cut", "needed_span", "sizes"]


@dataclass(frozen=True)
class Axis:
    """Which places of an image meet which taps, in one direction.

    Output ``o`` meets at tap ``t`` the place ``origin + o * stride + t * direction``.
    """

    origin: int
    stride: int
    direction: int
    taps: int
    outputs: int
    size: int
    """Places of the image."""

    def place(self, output: int) -> int:
        """Return the place that an output meets at its first tap."""
        return self.origin + output * self.stride

    def reach(self, outputs: range) -> tuple[int, int]:
        """Return the lowest and the highest place that some outputs meet."""
        reach = (self.taps - 1) * self.direction
        return (
            self.place(outputs.start) + min(0, reach),
            self.place(outputs.stop - 1) + max(0, reach),
        )


def needed_span(parts: Sequence[tuple[Axis, range]]) -> Span:
    """Return what some outputs need of the image; those of several products together."""
    size = parts[0][0].size
    lowest, highest = zip(*(axis.reach(outputs) for axis, outputs in parts))
    # At least one place lies in the image, so that there is something to load.
    low, high = min(*lowest, size - 1), max(*highest, 0)
    before, after = max(0, -low), max(0, high - size + 1)
    return Span(
        start=max(0, low), count=high - low + 1 - before - after, before=before, after=after
    )


def cut(total: int, size: int) -> list[range]:
    """Return the numbers below `total` in ranges of `size`, the last one maybe shorter."""
    return [range(first, min(first + size, total)) for first in range(0, total, size)]


def sizes(total: int) -> list[int]:
    """Return the sizes in which `total` is cut into 1, 2, 3 ... ranges, the largest first."""
    return sorted({-(-total // count) for count in range(1, total + 1)}, reverse=True)
