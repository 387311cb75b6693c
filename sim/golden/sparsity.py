"""N:M pruning, compression, and the memory layout of operands and state.

The layouts are those of docs/architecture.md. K stands for the length of the reduction; arrays may
have any number of leading dimensions where ``...`` is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from .arithmetic import Floats, Halves

__all__ = [
    "compress",
    "dense_indices",
    "expand",
    "pack_state_tile",
    "pack_tiles",
    "prune",
    "s_words",
    "unpack_state_tile",
    "unpack_tiles",
    "unpack_words",
]

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.uint8]

_VALUE_BEATS_PER_INDEX_BEAT = 4
"""Value beats that one index beat describes."""


def _kept(values: Halves, n: int) -> npt.NDArray[np.int32]:
    """Return, in ascending order, which `n` of the last dimension's values a group keeps."""
    width = values.shape[-1]
    # Every NaN counts the same and more than infinity; the lower index wins a tie.
    preference = np.minimum(values & 0x7FFF, 0x7C01).astype(np.int32) * width
    preference += np.arange(width - 1, -1, -1, dtype=np.int32)
    preference.sort(axis=-1)
    kept = width - 1 - preference[..., width - n :] % width
    kept.sort(axis=-1)
    return kept


def prune(values: Halves, pattern: Pattern) -> Halves:
    """Return `values` ``[..., K]`` with the N largest magnitudes of each group, zeros elsewhere.

    Ties keep the lower index and a NaN counts as larger than any number. Kept values keep their
    bits. A last group shorter than M behaves as if padded with zeros.
    """
    if pattern is Pattern.DENSE:
        return values.copy()
    n, m = pattern.n, pattern.m
    length = values.shape[-1]
    padding = [(0, 0)] * (values.ndim - 1) + [(0, -length % m)]
    groups = np.pad(values, padding).reshape(*values.shape[:-1], -1, m)
    kept = _kept(groups, n)
    pruned = np.zeros_like(groups)
    np.put_along_axis(pruned, kept, np.take_along_axis(groups, kept, -1), -1)
    return pruned.reshape(*values.shape[:-1], -1)[..., :length]


def compress(values: Halves, pattern: Pattern, config: Config) -> tuple[Halves, Indices]:
    """Return the entries of each chunk.

    Parameters
    ----------
    values
        Binary16 ``[..., K]``, K a multiple of ``config.group``. Need not be pruned.

    Returns
    -------
    Values and indices within the chunk, both ``[..., chunks, E]``: entry ``e`` is the
    ``e % n``-th one kept, in index order, of the chunk's group ``e // n``.
    """
    chunks = values.reshape(*values.shape[:-1], -1, config.group)
    if pattern is Pattern.DENSE:
        return chunks, np.broadcast_to(np.arange(config.group, dtype=np.uint8), chunks.shape)
    n, m = pattern.n, pattern.m
    groups = chunks.reshape(*chunks.shape[:-1], config.group // m, m)
    kept = _kept(groups, n)
    entries = np.take_along_axis(groups, kept, -1)
    indices = (kept + m * np.arange(config.group // m)[:, None]).astype(np.uint8)
    shape = (*chunks.shape[:-1], pattern.entries_per_chunk(config))
    return entries.reshape(shape), indices.reshape(shape)


def expand(values: Halves, indices: Indices, config: Config) -> Halves:
    """Return the dense ``[..., K]`` of entries ``[..., chunks, E]``; inverse of `compress`."""
    chunks = np.zeros((*values.shape[:-1], config.group), np.uint16)
    np.put_along_axis(chunks, indices.astype(np.intp), values, -1)
    return chunks.reshape(*values.shape[:-2], -1)


def s_words(values: Halves, pattern: Pattern, config: Config) -> tuple[Halves, Indices]:
    """Return the S words of rows of an operand.

    Parameters
    ----------
    values
        Binary16 ``[..., K]``, K a multiple of G. Need not be pruned.

    Returns
    -------
    Values and indices, both ``[..., d_words, T, lanes]``.
    """
    lanes, steps = config.lanes_per_chunk, pattern.steps(config)

    def arrange(entries: npt.NDArray[Any]) -> npt.NDArray[Any]:
        missing = steps * lanes - entries.shape[-1]
        if missing:
            entries = np.pad(entries, [(0, 0)] * (entries.ndim - 1) + [(0, missing)])
        # [..., d_words, chunk p, step q, lane b of the chunk] to [..., d_words, q, p, b]
        entries = entries.reshape(*values.shape[:-1], -1, config.chunks, steps, lanes)
        return entries.swapaxes(-3, -2).reshape(*values.shape[:-1], -1, steps, config.lanes)

    entries, indices = compress(values, pattern, config)
    return arrange(entries), arrange(indices)


def dense_indices(config: Config) -> Indices:
    """Return the indices ``[T, lanes]`` of a dense operand's S words."""
    step, lane = np.indices((config.ratio, config.lanes))
    return (step * config.lanes_per_chunk + lane % config.lanes_per_chunk).astype(np.uint8)


def _index_nibbles(indices: Indices, config: Config) -> Bytes:
    """Return the index beats ``[..., index beats, bytes]`` of ``[..., value beats, G]`` indices."""
    shape = (*indices.shape[:-2], -1, config.beat_bytes, 2)
    indices = indices.reshape(shape)
    return (indices[..., 0] | indices[..., 1] << 4).astype(np.uint8)


def pack_tiles(matrix: Halves, pattern: Pattern, config: Config) -> Bytes:
    """Return the bytes of an S operand as it lies in memory.

    Parameters
    ----------
    matrix
        Binary16 ``[R, K]``, both multiples of G; pruned here if it isn't yet.

    Returns
    -------
    Tiles of G rows by one D word, all D words of one block of rows after each other:
    ``R // G * K // G * pattern.tile_beats(config)`` beats.
    """
    g = config.elements
    rows, length = matrix.shape
    if rows % g or length % g:
        raise ValueError(f"the matrix is {rows} by {length}, must be multiples of {g}")
    tiles = (rows // g, length // g)
    if pattern is Pattern.DENSE:
        return _bytes(matrix.reshape(tiles[0], g, tiles[1], g).swapaxes(1, 2))

    def in_beats(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
        words = words.reshape(tiles[0], g, tiles[1], -1, config.lanes).swapaxes(1, 2)
        return words.reshape(*tiles, pattern.value_beats(config), g)

    values, indices = s_words(matrix, pattern, config)
    value_beats = np.ascontiguousarray(in_beats(values).astype("<u2")).view(np.uint8)
    index_beats = _index_nibbles(in_beats(indices), config)
    value_index, beat_index = _tile_order(pattern, config)
    memory = np.empty((*tiles, pattern.tile_beats(config), config.beat_bytes), np.uint8)
    memory[:, :, value_index] = value_beats
    memory[:, :, beat_index] = index_beats
    return memory.ravel()


def _tile_order(
    pattern: Pattern, config: Config
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return at which beats of a tile its value beats and its index beats stand."""
    value = np.arange(pattern.value_beats(config))
    if pattern is Pattern.DENSE:
        return value, np.arange(0)
    index = np.arange(pattern.index_beats(config))
    return (
        value + value // _VALUE_BEATS_PER_INDEX_BEAT + 1,
        index * (_VALUE_BEATS_PER_INDEX_BEAT + 1),
    )


def unpack_words(beats: Bytes, pattern: Pattern, config: Config) -> tuple[Halves, Indices]:
    """Return the S words of tiles as they lie in memory.

    Parameters
    ----------
    beats
        ``[tiles, pattern.tile_beats(config), beat bytes]``.

    Returns
    -------
    Values and indices, both ``[tiles, G rows, T, lanes]``.
    """
    g, steps = config.elements, pattern.steps(config)
    shape = (beats.shape[0], g, steps, config.lanes)
    value_index, beat_index = _tile_order(pattern, config)
    values = np.ascontiguousarray(beats[:, value_index]).view("<u2").astype(np.uint16)
    if pattern is Pattern.DENSE:
        rows = values.reshape(-1, g, config.chunks, steps, config.lanes_per_chunk)
        return rows.swapaxes(2, 3).reshape(shape), np.broadcast_to(dense_indices(config), shape)
    nibbles = beats[:, beat_index]
    indices = np.stack([nibbles & 15, nibbles >> 4], -1)
    return values.reshape(shape), indices.reshape(shape)


def unpack_tiles(
    memory: Bytes, rows: int, d_words: int, pattern: Pattern, config: Config
) -> Halves:
    """Return the dense matrix ``[rows, d_words * G]`` of an S operand in memory, with its zeros."""
    g, lanes, steps = config.elements, config.lanes_per_chunk, pattern.steps(config)
    beats = memory.reshape(-1, pattern.tile_beats(config), config.beat_bytes)

    def by_chunk(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
        words = words.reshape(-1, g, steps, config.chunks, lanes).swapaxes(2, 3)
        entries = words.reshape(-1, g, config.chunks, steps * lanes)
        return entries[..., : pattern.entries_per_chunk(config)]

    values, indices = (by_chunk(words) for words in unpack_words(beats, pattern, config))
    dense = expand(values, indices, config)
    return dense.reshape(rows // g, d_words, g, g).swapaxes(1, 2).reshape(rows, d_words * g)


def pack_state_tile(w: Floats, v: Floats) -> Bytes:
    """Return the bytes of state tiles.

    Parameters
    ----------
    w, v
        Weights and momentum, binary32 ``[..., rows, G]``.

    Returns
    -------
    ``[tile][row][2]{weights beat, momentum beat}``; each beat has G/2 values.
    """
    half = w.shape[-1] // 2
    beats = np.stack([part.reshape(*w.shape[:-1], 2, half) for part in (w, v)], -2)
    return np.ascontiguousarray(beats.astype("<u4")).view(np.uint8).ravel()


def unpack_state_tile(memory: Bytes, rows: int, config: Config) -> tuple[Floats, Floats]:
    """Return weights and momentum, each ``[tiles, rows, G]``; inverse of `pack_state_tile`."""
    beats = np.ascontiguousarray(memory).view("<u4").astype(np.uint32)
    beats = beats.reshape(-1, rows, 2, 2, config.floats)
    w, v = (beats[:, :, :, part].reshape(-1, rows, config.elements) for part in (0, 1))
    return w, v


def _bytes(values: Halves) -> Bytes:
    return np.ascontiguousarray(values.astype("<u2")).view(np.uint8).ravel()
