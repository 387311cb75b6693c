"""N:M pruning against a naive loop, and the memory layouts against docs/architecture.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rtl.config import PRESETS, Config, preset
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.sparsity import (
    compress,
    dense_indices,
    expand,
    pack_state_tile,
    pack_tiles,
    prune,
    s_words,
    unpack_state_tile,
    unpack_tiles,
)

CONFIGS = [
    *PRESETS.values(),
    dataclasses.replace(preset("sim"), name="group-16", group=16),
    dataclasses.replace(preset("tiny"), name="ratio-2", lanes=8, ratio=2),
    dataclasses.replace(preset("sim"), name="ratio-8", group=16, ratio=8, rows=8),
    dataclasses.replace(preset("sim"), name="lanes-4", lanes=4, group=16, ratio=8, rows=8),
]
CASES = [
    pytest.param(config, pattern, id=f"{config.name}-{pattern}")
    for config in CONFIGS
    for pattern in supported_patterns(config)
]
SPARSE = [pattern for pattern in Pattern if pattern is not Pattern.DENSE]


def random_values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return binary16 with many ties, zeros of both signs, infinities and NaNs."""
    few = rng.choice(
        np.array([0, 0x8000, 1, 0x3C00, 0xBC00, 0x7BFF, 0x7C00, 0xFC00, 0x7C01, 0xFFFF], np.uint16),
        shape,
    )
    return np.where(rng.random(shape) < 0.5, few, rng.integers(0, 1 << 16, shape)).astype(np.uint16)


def kept_by_loop(group: list[int], n: int) -> list[int]:
    """Return the indices that a group keeps, choosing the largest left one by one."""
    kept: list[int] = []
    for _ in range(n):
        best = -1
        for index, value in enumerate(group):
            magnitude = min(value & 0x7FFF, 0x7C01)
            if index not in kept and (best < 0 or magnitude > min(group[best] & 0x7FFF, 0x7C01)):
                best = index
        kept.append(best)
    return sorted(kept)


@pytest.mark.parametrize("pattern", SPARSE, ids=str)
@pytest.mark.parametrize("length", [1, 16, 48, 53])
def test_prune_matches_a_naive_loop(pattern: Pattern, length: int) -> None:
    rng = np.random.default_rng(length)
    values = random_values(rng, (2, 20, length))
    pruned = prune(values, pattern)
    assert pruned.shape == values.shape
    for row, result in zip(
        values.reshape(-1, length).tolist(), pruned.reshape(-1, length).tolist(), strict=True
    ):
        expected = []
        for start in range(0, length, pattern.m):
            group = row[start : start + pattern.m]
            kept = kept_by_loop(group + [0] * (pattern.m - len(group)), pattern.n)
            expected += [value if index in kept else 0 for index, value in enumerate(group)]
        assert result == expected


def test_prune_directed() -> None:
    group = np.array([0x3C00, 0xBC00, 0x3C00, 0x4000], np.uint16)
    assert prune(group, Pattern.N2M4).tolist() == [0x3C00, 0, 0, 0x4000]
    nan = np.array([0x7C00, 0xFC00, 0xFFFF, 0x7C01], np.uint16)
    assert prune(nan, Pattern.N1M4).tolist() == [0, 0, 0xFFFF, 0]
    zeros = np.array([0x8000, 0, 0x8000, 0], np.uint16)
    assert prune(zeros, Pattern.N1M4).tolist() == [0x8000, 0, 0, 0]
    dense = np.array([1, 0, 3], np.uint16)
    assert prune(dense, Pattern.DENSE).tolist() == [1, 0, 3]


@pytest.mark.parametrize(("config", "pattern"), CASES)
def test_compress_keeps_n_of_each_group_in_index_order(config: Config, pattern: Pattern) -> None:
    rng = np.random.default_rng(1)
    values = random_values(rng, (3, 2 * config.elements))
    entries, indices = compress(values, pattern, config)
    assert entries.shape == (3, 2 * config.chunks, pattern.entries_per_chunk(config))
    assert (np.diff(indices.astype(int), axis=-1) > 0).all()
    groups = indices // pattern.m if pattern is not Pattern.DENSE else indices
    assert (groups == np.arange(indices.shape[-1]) // pattern.n).all()
    assert np.array_equal(expand(entries, indices, config), prune(values, pattern))


@pytest.mark.parametrize(("config", "pattern"), CASES)
def test_tiles_round_trip(config: Config, pattern: Pattern) -> None:
    rng = np.random.default_rng(2)
    rows, d_words = 2 * config.elements, 3
    matrix = random_values(rng, (rows, d_words * config.elements))
    memory = pack_tiles(matrix, pattern, config)
    assert memory.size == 2 * d_words * pattern.tile_beats(config) * config.beat_bytes
    pruned = prune(matrix, pattern)
    assert np.array_equal(unpack_tiles(memory, rows, d_words, pattern, config), pruned)
    assert np.array_equal(pack_tiles(pruned, pattern, config), memory)


@pytest.mark.parametrize(("config", "pattern"), CASES)
def test_tiles_follow_the_layout_word_by_word(config: Config, pattern: Pattern) -> None:
    """Every value and index looked up where docs/architecture.md puts it."""
    rng = np.random.default_rng(3)
    g, lanes, steps = config.elements, config.lanes, pattern.steps(config)
    per_chunk, kept = config.lanes_per_chunk, pattern.entries_per_chunk(config)
    matrix = random_values(rng, (2 * g, 2 * g))
    memory = pack_tiles(matrix, pattern, config)
    beats = memory.reshape(-1, pattern.tile_beats(config), config.beat_bytes)
    entries, indices = compress(matrix, pattern, config)
    for block, kw, row, q, lane in rng.integers(0, [2, 2, g, steps, lanes], (300, 5)).tolist():
        tile = beats[block * 2 + kw]
        chunk, entry = lane // per_chunk, per_chunk * q + lane % per_chunk
        a, place = block * g + row, kw * config.chunks + chunk
        if pattern is Pattern.DENSE:
            value = int(tile[row].view("<u2")[chunk * config.group + entry])
            assert value == int(matrix[a, kw * g + chunk * config.group + entry])
            continue
        s = row * steps + q
        beat, position = s // config.ratio, lanes * (s % config.ratio) + lane
        value = int(tile[beat + beat // 4 + 1].view("<u2")[position])
        index_beat = int.from_bytes(tile[beat // 4 * 5].tobytes(), "little")
        index = index_beat >> 4 * g * (beat % 4) + 4 * position & 15
        if entry < kept:
            assert (value, index) == (int(entries[a, place, entry]), int(indices[a, place, entry]))
        else:
            assert (value, index) == (0, 0)


def test_a_tile_by_hand() -> None:
    """Preset tiny, 2:8: G = 16, four lanes, a value beat holds the S words of four rows."""
    config = preset("tiny")
    matrix = np.zeros((16, 16), np.uint16)
    matrix[0, [1, 6, 8, 15]] = 0x3C01, 0x3C06, 0xBC08, 0x3C0F
    matrix[5, [7, 9]] = 0x4007, 0x4009
    beats = pack_tiles(matrix, Pattern.N2M8, config).reshape(5, 32)
    values = beats[1:].view("<u2").reshape(16, 4)
    assert values[0].tolist() == [0x3C01, 0x3C06, 0xBC08, 0x3C0F]
    # A group with one nonzero value also keeps the first of its zeros.
    assert values[5].tolist() == [0, 0x4007, 0, 0x4009]
    assert not values[[1, 2, 3, 4, *range(6, 16)]].any()
    nibbles = f"{int.from_bytes(beats[0].tobytes(), 'little'):064x}"[::-1]
    assert nibbles[0:4] == "1607"
    assert nibbles[4:8] == "0101"
    assert nibbles[20:24] == "0701"


def test_dense_tiles_are_in_natural_order() -> None:
    config = preset("tiny")
    matrix = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    words = pack_tiles(matrix, Pattern.DENSE, config).view("<u2").reshape(2, 2, 16, 16)
    assert words[0, 1, 3].tolist() == matrix[3, 16:].tolist()
    assert words[1, 0, 2].tolist() == matrix[18, :16].tolist()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_dense_s_words_have_the_generated_indices(config: Config) -> None:
    values, indices = s_words(
        np.arange(2 * config.elements, dtype=np.uint16)[None], Pattern.DENSE, config
    )
    assert np.array_equal(indices[0, 1], dense_indices(config))
    chunk = np.arange(config.lanes) // config.lanes_per_chunk
    expected = config.elements + chunk * config.group + dense_indices(config)
    assert np.array_equal(values[0, 1], expected)


def test_pack_tiles_refuses_ragged_shapes() -> None:
    with pytest.raises(ValueError, match="16 by 20"):
        pack_tiles(np.zeros((16, 20), np.uint16), Pattern.DENSE, preset("tiny"))


@pytest.mark.parametrize("rows", [1, 16])
def test_state_tiles(rows: int) -> None:
    config = preset("tiny")
    w = np.arange(3 * rows * 16, dtype=np.uint32).reshape(3, rows, 16)
    v = w + 0x10000
    memory = pack_state_tile(w, v)
    beats = memory.view("<u4").reshape(3, rows, 2, 2, 8)
    assert beats[1, rows - 1, 1, 0].tolist() == w[1, rows - 1, 8:].tolist()
    assert beats[2, 0, 0, 1].tolist() == v[2, 0, :8].tolist()
    unpacked = unpack_state_tile(memory, rows, config)
    assert np.array_equal(unpacked[0], w)
    assert np.array_equal(unpacked[1], v)
