"""N:M patterns and how their groups are laid out in S words, in memory and in the scratchpad.

A D word has G elements of the reduction dimension, in G/M chunks of M. Lanes ``M/r * p + b`` select
from chunk ``p``. A pattern that keeps E entries in a chunk takes ``T = max(1, E * r / M)`` steps
for one D word: at step ``q`` lane ``(p, b)`` takes entry ``M/r * q + b`` of chunk ``p``, or a zero
where the chunk has no such entry (patterns sparser than the configuration's ratio).
"""

from __future__ import annotations

from amaranth.lib import enum

from ..config import Config

__all__ = ["Pattern", "PatternError", "supported_patterns"]


class PatternError(ValueError):
    """An N:M pattern that the configuration doesn't support."""


class Pattern(enum.Enum, shape=3):
    """Runtime-selectable N:M pattern of a compressed operand."""

    DENSE = 0
    N1M4 = 1
    N2M4 = 2
    N1M8 = 3
    N2M8 = 4
    N4M8 = 5
    N2M16 = 6

    @property
    def n(self) -> int:
        """Entries kept in each group (1 of 1 if dense)."""
        return {"DENSE": 1, "N1M4": 1, "N2M4": 2, "N1M8": 1, "N2M8": 2, "N4M8": 4, "N2M16": 2}[
            self.name
        ]

    @property
    def m(self) -> int:
        """Elements in each group (1 if dense)."""
        return {"DENSE": 1, "N1M4": 4, "N2M4": 4, "N1M8": 8, "N2M8": 8, "N4M8": 8, "N2M16": 16}[
            self.name
        ]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern written as ``dense`` or ``N:M``."""
        for pattern in cls:
            if str(pattern) == text:
                return pattern
        raise PatternError(f"no N:M pattern '{text}'; choose from: {', '.join(map(str, cls))}")

    def __str__(self) -> str:
        return "dense" if self is Pattern.DENSE else f"{self.n}:{self.m}"

    def entries_per_chunk(self, config: Config) -> int:
        """Values kept of one chunk of ``config.group`` elements."""
        return config.group * self.n // self.m

    def steps(self, config: Config) -> int:
        """S words that one D word serves ("T")."""
        return max(1, self.entries_per_chunk(config) // config.lanes_per_chunk)

    def value_beats(self, config: Config) -> int:
        """Beats of values in a tile of G rows by one D word."""
        return self.steps(config) * config.elements // config.ratio

    def index_beats(self, config: Config) -> int:
        """Beats of indices in a tile; each goes before the up to four value beats it describes."""
        return 0 if self is Pattern.DENSE else -(-self.value_beats(config) // 4)

    def tile_beats(self, config: Config) -> int:
        """Beats of a tile of G rows by one D word in memory."""
        return self.value_beats(config) + self.index_beats(config)

    def words_per_row(self, config: Config, d_words: int) -> int:
        """Words of an S bank that one row with `d_words` D words takes."""
        return -(-d_words * self.steps(config) // config.ratio)


def supported_patterns(config: Config) -> tuple[Pattern, ...]:
    """Patterns that `config` supports, dense first."""
    return tuple(pattern for pattern in Pattern if pattern.m <= config.group)
