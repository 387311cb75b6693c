"""A program in the making, with the places that it uses in the scratchpads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ScheduleError
from ..program import Program, descriptor

__all__ = ["Assembly", "Ring", "Step", "nests"]

_LARGEST_COUNT = (1 << 16) - 1

_STRIDES = 1 << 31
"""Bytes that a descriptor's stride stays below."""


@dataclass(frozen=True)
class Step:
    """Parameters of one weight update.

    Parameters
    ----------
    rate, momentum, decay
        Of stochastic gradient descent; rounded to binary32.
    scale
        Binary logarithm of the loss scale, which the update divides by.
    """

    rate: float = 0.0
    momentum: float = 0.0
    decay: float = 0.0
    scale: int = 0

    def fields(self) -> dict[str, int]:
        """Return the fields of an UPDATE."""
        reals = (("rate", self.rate), ("momentum", self.momentum), ("decay", self.decay))
        return {name: float_bits(value) for name, value in reals} | {"scale": self.scale}


def float_bits(value: float) -> int:
    """Return `value` rounded to binary32, as bits."""
    return int(np.float32(value).view(np.uint32))


class Ring:
    """Hands out places in a scratchpad, one after the other and from the start again.

    What was there before may still be in use: the program's tokens see to that.

    Attributes
    ----------
    name, depth
        Of the scratchpad.
    taken
        Words that it has handed out or left out: a place stays untouched until as many have been
        taken, from its first word on, as there are.
    """

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        self.taken = 0
        self._next = 0

    def take(self, words: int) -> int:
        """Return the base of `words` words, at most as many as there are."""
        return self._hand_out(self._next if self._next + words <= self.depth else 0, words)

    def take_half(self) -> int:
        """Return the base of one half, in turns."""
        half = self.depth // 2
        return self._hand_out(half if self._next <= half else 0, half)

    def _hand_out(self, base: int, words: int) -> int:
        left_out = (base - self._next) % self.depth
        self.taken += left_out + words
        self._next = base + words
        return base


class Assembly:
    """A program, its scratchpads, and which of its commands change from step to step.

    Parameters
    ----------
    program
        Receives the commands; made for the configuration that is to run them.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.config = config = program.config
        self.s = Ring("S", config.s_depth)
        self.d = Ring("D", config.d_depth)
        self.o = Ring("O", config.o_depth)
        self.aux = Ring("AUX", config.aux_depth)
        self._adjustments: list[tuple[int, Callable[[Step], dict[str, Any]]]] = []

    def part(self, label: str) -> Assembly:
        """Return the assembly as one of its parts sees it, as `Program.part` has it."""
        part = copy.copy(self)
        part.program = self.program.part(label)
        return part

    def adjust(self, fields: Callable[[Step], dict[str, Any]]) -> None:
        """Let `fields` give fields of the command added last, for each step anew."""
        self._adjustments.append((self.program.last, fields))

    def set_step(self, step: Step) -> None:
        """Change the commands that depend on the step."""
        for index, fields in self._adjustments:
            self.program.change(index, **fields(step))

    def need(self, context: str, ring: Ring, words: int) -> None:
        """Refuse what takes more `words` than a scratchpad has."""
        if words > ring.depth:
            raise ScheduleError(
                f"{context}: needs {words} words of the {ring.name} scratchpad, configuration "
                f"'{self.config.name}' has {ring.depth}"
            )

    def feeds(self, tiles: Sequence[int], beats: int, *, transpose: bool = False) -> list[dict]:
        """Return the LOADs that bring tiles of `beats` beats, at these addresses, to a unit.

        As `Program.vector` and `Program.update` take them.
        """
        return [
            {
                "rows": beats,
                "d_words": count,
                "transpose": int(transpose),
                "descriptor": descriptor(self.config, tiles[first], beats, *loops),
            }
            for first, count, loops in nests(tiles)
        ]


def nests(addresses: Sequence[int], dimensions: int = 3) -> list[tuple[int, int, list]]:
    """Cut a sequence of addresses into nests of loops with constant strides.

    Returns
    -------
    For each nest the index of its first address, how many it has, and its loops as
    `firmware.program.descriptor` takes them. Greedy: a run of equal distances is the innermost
    loop, its repetitions the next.
    """
    all_addresses = np.asarray(addresses, np.int64)
    found = []
    first = 0
    while first < len(all_addresses):
        rest = all_addresses[first:]
        size, loops = 1, []
        for _ in range(dimensions):
            rounds, stride = _rounds(rest, size)
            if rounds > 1:
                loops.append((rounds, stride))
                size *= rounds
        found.append((first, size, loops))
        first += size
    return found


def _rounds(addresses: np.ndarray, size: int) -> tuple[int, int]:
    """Return how often the first `size` addresses are repeated, and how far apart."""
    if len(addresses) < 2 * size:
        return 1, 0
    stride = int(addresses[size] - addresses[0])
    if abs(stride) >= _STRIDES:
        return 1, 0
    blocks = addresses[: len(addresses) // size * size].reshape(-1, size)
    distance = stride * np.arange(len(blocks))[:, None]
    differs = (blocks != blocks[0] + distance).any(axis=1)
    rounds = int(np.argmax(differs)) if differs.any() else len(blocks)
    return min(rounds, _LARGEST_COUNT), stride
