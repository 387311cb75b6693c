"""Allocation of card memory."""

from __future__ import annotations

from .errors import AllocationError

__all__ = ["Allocator"]


class Allocator:
    """First-fit allocator of a memory from address 0.

    Parameters
    ----------
    size
        Bytes of memory.
    alignment
        Every address and size is rounded up to a multiple of it: the bytes of a beat.

    Attributes
    ----------
    free_bytes
        Bytes not allocated; not necessarily in one piece.
    """

    def __init__(self, size: int, alignment: int) -> None:
        if alignment < 1 or size < 0 or size % alignment:
            raise ValueError(f"size {size} is no multiple of the alignment {alignment}")
        self._size = size
        self._alignment = alignment
        self._holes = [(0, size)] if size else []
        self._blocks: dict[int, int] = {}

    @property
    def free_bytes(self) -> int:
        return sum(size for _, size in self._holes)

    def allocate(self, size: int, *, alignment: int | None = None) -> int:
        """Return the address of a new block of at least `size` bytes.

        Parameters
        ----------
        size
            Bytes, at least 1.
        alignment
            Multiple that the address must be of, if more than the allocator's own.

        Raises
        ------
        AllocationError
            No hole is large enough; the message gives the sizes.
        """
        if size < 1:
            raise ValueError(f"cannot allocate {size} bytes")
        size = _round_up(size, self._alignment)
        step = max(alignment or 1, self._alignment)
        for index, (start, room) in enumerate(self._holes):
            address = _round_up(start, step)
            if address + size <= start + room:
                pieces = [(start, address - start), (address + size, start + room - address - size)]
                self._holes[index : index + 1] = [piece for piece in pieces if piece[1]]
                self._blocks[address] = size
                return address
        largest = max((room for _, room in self._holes), default=0)
        raise AllocationError(
            f"no room for {size} bytes: {self.free_bytes} of {self._size} bytes of card memory "
            f"are free, {largest} in one piece"
        )

    def free(self, address: int) -> None:
        """Give back the block at `address`.

        Raises
        ------
        ValueError
            No block starts there.
        """
        try:
            size = self._blocks.pop(address)
        except KeyError:
            raise ValueError(f"no block is allocated at {address:#x}") from None
        merged: list[tuple[int, int]] = []
        for start, room in sorted([*self._holes, (address, size)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + room)
            else:
                merged.append((start, room))
        self._holes = merged


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
