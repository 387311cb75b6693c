"""Finds the commands that have touched a place, without looking at all of them."""

from __future__ import annotations

from rtl.control.commands import Queue

__all__ = ["AccessIndex"]

_SMALLEST = 11
"""Binary logarithm of the smallest bins: one for a whole scratchpad, or for a tile in memory."""

_STEP = 3
"""Binary logarithm of the size of a bin over that of the next smaller kind."""

_Bin = dict[tuple[int, int], int]
"""The last command that has accessed each interval, in the order of the commands."""


class AccessIndex:
    """Intervals of a space that the commands of each queue have accessed.

    Each is kept in the bin in which it starts, of the smallest kind that are no shorter than it is:
    what overlaps an interval is in few bins of each kind. (Much as in the binning scheme of W. J.
    Kent et al., "The human genome browser at UCSC", 2002.)
    """

    def __init__(self) -> None:
        # Of each queue, by binary logarithm of a bin's size, then by its number.
        self._bins: list[dict[int, dict[int, _Bin]]] = [{} for _ in Queue]

    def add(self, start: int, stop: int, queue: int, index: int) -> None:
        """Take note that command `index` of `queue` accesses an interval, `stop` excluded.

        It comes after all commands of this queue that were added before.
        """
        excess = (stop - start - 1).bit_length() - _SMALLEST
        size = _SMALLEST + _STEP * max(0, -(-excess // _STEP))
        entries = self._bins[queue].setdefault(size, {}).setdefault(start >> size, {})
        # Queues run in order: of several commands that access the same the last one counts.
        entries.pop((start, stop), None)
        entries[start, stop] = index

    def latest(self, start: int, stop: int, queue: int, found: int) -> int:
        """Return the last command of `queue` that overlaps an interval, if later than `found`."""
        for entries in self._near(start, stop, queue) if self._bins[queue] else ():
            for (first, end), index in reversed(entries.items()):
                if index <= found:
                    break
                if first < stop and start < end:
                    found = index
                    break
        return found

    def forget(self, start: int, stop: int) -> None:
        """Drop all accesses that lie within an interval."""
        for queue, bins in enumerate(self._bins):
            for entries in self._near(start, stop, queue) if bins else ():
                for key in [key for key in entries if start <= key[0] and key[1] <= stop]:
                    del entries[key]

    def _near(self, start: int, stop: int, queue: int) -> list[_Bin]:
        """Return the bins that hold all that overlaps an interval."""
        near: list[_Bin] = []
        for size, bins in self._bins[queue].items():
            # What starts in the bin before may reach into the interval.
            first, last = (start >> size) - 1, (stop - 1) >> size
            if last - first < len(bins):
                for number in range(first, last + 1):
                    if entries := bins.get(number):
                        near.append(entries)
            else:
                near += [entries for number, entries in bins.items() if first <= number <= last]
        return near
