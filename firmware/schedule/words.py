"""What operands and results take in the scratchpads, and products of the array."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from ..program import product

__all__ = ["ROW_WORDS", "o_words", "padding", "product_slots", "product_tiles", "s_words"]

ROW_WORDS = 2
"""O words in a row of G outputs."""


def s_words(config: Config, pattern: Pattern, d_words: int) -> int:
    """Return the words of an S bank that G rows of `d_words` D words take."""
    return config.elements // config.rows * pattern.words_per_row(config, d_words)


@functools.cache
def o_words(config: Config, rows: int) -> int:
    """Return the words of an O bank for `rows` rows of G outputs.

    Those that fill up the last tile are among them.
    """
    fields = product(config, Pattern.DENSE, a=config.elements, b=rows, k=config.elements)
    return fields["b_tiles"] * (config.interleave >> fields["a_contexts"]) * ROW_WORDS


def padding(config: Config, channels: int, block: int) -> int:
    """Return how many channels of this block of G are padding."""
    return max(0, (block + 1) * config.elements - channels)


@functools.cache
def product_tiles(config: Config, blocks: int) -> int:
    """Return the tiles of a product that gives G rows a for `blocks` blocks of G rows b."""
    g = config.elements
    fields = product(config, Pattern.DENSE, a=g, b=blocks * g, k=g)
    return fields["a_tiles"] * fields["b_tiles"]


def product_slots(config: Config, fields: Mapping[str, Any]) -> int:
    """Return the cycles that the array works on a product, from the fields of its COMPUTE."""
    tiles = fields["a_tiles"] * fields["b_tiles"]
    return tiles * config.interleave * fields["d_words"] * fields["pattern"].steps(config)
