"""Finds the commands that have touched a place, without looking at all of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from rtl.control.commands import Queue

__all__ = ["AccessIndex"]

_PAGE_BITS = 23
"""Binary logarithm of the size of a page. Larger ones hold longer lists, of smaller ones a tensor
has more."""

_NOBODY = -1


class _Page:
    """Who has accessed each part of a page last.

    Attributes
    ----------
    last
        Nobody has accessed the page later.
    """

    __slots__ = ("_commands", "_starts", "last")

    def __init__(self, start: int) -> None:
        # Where each part starts, in order, up to the next; and the command.
        self._starts = [start]
        self._commands = [_NOBODY]
        self.last = _NOBODY

    def note(self, start: int, stop: int, command: int) -> None:
        """Note `command` for an interval of the page, `stop` excluded."""
        starts, commands = self._starts, self._commands
        first = bisect_left(starts, start)
        end = bisect_left(starts, stop, first)
        bounds = {} if first and commands[first - 1] == command else {start: command}
        if end == len(starts) or starts[end] != stop:
            bounds[stop] = commands[end - 1]
        starts[first:end], commands[first:end] = bounds.keys(), bounds.values()
        self.last = max(self.last, command)

    def latest(self, start: int, stop: int) -> int:
        """Return the last command that has accessed any of an interval."""
        starts = self._starts
        first = max(bisect_right(starts, start) - 1, 0)
        return max(self._commands[first : bisect_left(starts, stop, first + 1)])


class AccessIndex:
    """Intervals of a space that the commands of each queue have accessed.

    Queues run in order: of several commands of a queue that access a place the last one counts.
    """

    def __init__(self) -> None:
        self._pages: list[dict[int, _Page]] = [{} for _ in Queue]

    def add(self, start: int, stop: int, queue: int, index: int) -> None:
        """Take note that command `index` of `queue` accesses an interval, `stop` excluded.

        It comes after all commands of this queue that were added before.
        """
        pages = self._pages[queue]
        for number in range(start >> _PAGE_BITS, (stop - 1 >> _PAGE_BITS) + 1):
            page = pages.get(number)
            if page is None:
                page = pages[number] = _Page(number << _PAGE_BITS)
            page.note(*_within(number, start, stop), index)

    def latest(self, start: int, stop: int, queue: int, found: int) -> int:
        """Return the last command of `queue` that overlaps an interval, if later than `found`."""
        for _, page in self._near(start, stop, queue):
            if page.last > found:
                found = max(found, page.latest(start, stop))
        return found

    def forget(self, start: int, stop: int) -> None:
        """Drop all accesses to an interval."""
        for queue in range(len(self._pages)):
            for number, page in self._near(start, stop, queue):
                if page.last > _NOBODY:
                    page.note(*_within(number, start, stop), _NOBODY)

    def _near(self, start: int, stop: int, queue: int) -> Sequence[tuple[int, _Page]]:
        """Return the pages that an interval touches, with their numbers."""
        pages = self._pages[queue]
        first, last = start >> _PAGE_BITS, stop - 1 >> _PAGE_BITS
        if first == last:
            page = pages.get(first)
            return [(first, page)] if page else ()
        if last - first < len(pages):
            return [(i, pages[i]) for i in range(first, last + 1) if i in pages]
        return [(i, page) for i, page in pages.items() if first <= i <= last]


def _within(number: int, start: int, stop: int) -> tuple[int, int]:
    """Return the part of an interval that is in a page."""
    return max(start, number << _PAGE_BITS), min(stop, number + 1 << _PAGE_BITS)
