"""Finds the commands that have touched a place, without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["AccessIndex"]

_SMALLEST = 11
"""Binary logarithm of the smallest bins: one for a whole scratchpad, or for a tile in memory."""

_STEP = 3
"""Binary logarithm of the size of a bin over that of the next smaller kind."""

_Entries = dict[tuple[int, int, int], int]
"""Command of each interval and queue."""


class AccessIndex:
    """Intervals of a space that commands of several queues have accessed.

    Each is kept in the bin in which it starts, of the smallest kind that are no shorter than it is:
    what overlaps an interval is in few bins of each kind. (Much as in the binning scheme of W. J.
    Kent et al., "The human genome browser at UCSC", 2002.)
    """

    def __init__(self) -> None:
        # By binary logarithm of a bin's size, then by its number.
        self._bins: dict[int, dict[int, _Entries]] = {}

    def add(self, start: int, stop: int, queue: int, index: int) -> None:
        """Take note that command `index` of `queue` accesses an interval, `stop` excluded."""
        excess = (stop - start - 1).bit_length() - _SMALLEST
        size = _SMALLEST + _STEP * max(0, -(-excess // _STEP))
        entries = self._bins.setdefault(size, {}).setdefault(start >> size, {})
        # Queues run in order: of several commands that access the same the last one counts.
        entries[start, stop, queue] = index

    def latest(self, start: int, stop: int, found: list[int]) -> None:
        """Raise the entries of `found`, one for each queue, to the last command that overlaps."""
        for entries in self._near(start, stop):
            for (first, end, queue), index in entries.items():
                if index > found[queue] and first < stop and start < end:
                    found[queue] = index

    def forget(self, start: int, stop: int) -> None:
        """Drop all accesses that lie within an interval."""
        for entries in self._near(start, stop):
            for key in [key for key in entries if start <= key[0] and key[1] <= stop]:
                del entries[key]

    def _near(self, start: int, stop: int) -> Iterator[_Entries]:
        """Yield the bins that hold all that overlaps an interval."""
        for size, bins in self._bins.items():
            # What starts in the bin before may reach into the interval.
            first, last = (start >> size) - 1, (stop - 1) >> size
            if last - first < len(bins):
                for number in range(first, last + 1):
                    if number in bins:
                        yield bins[number]
            else:
                for number, entries in bins.items():
                    if first <= number <= last:
                        yield entries
