"""The functional machine: programs against direct products, faults, tokens and deadlocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from firmware.program import matrix_walks, product, walk
from rtl.config import PRESETS, Config, preset
from rtl.control.commands import Fault, LoadOrder, LoadTarget, Opcode, Queue, Stage, encode
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.arithmetic import dot, to_half
from sim.golden.engine import epilogue
from sim.golden.machine import Machine, Result
from sim.golden.sparsity import (
    pack_state_tile,
    pack_tiles,
    prune,
    unpack_state_tile,
    unpack_tiles,
)
from sim.golden.update import update
from tests.harness import default_seed

# Shallow, so that small commands reach the ends of the scratchpads.
TINY = dataclasses.replace(
    preset("tiny"), name="shallow", s_depth=64, d_depth=64, o_depth=64, aux_depth=64
)
PROGRAM = 0x0
FROM_LOAD, FROM_COMPUTE, FROM_STORE, FROM_VECTOR, FROM_STREAM = (
    1 << queue.value for queue in Queue
)
TO_LOAD, TO_COMPUTE, TO_STORE, TO_VECTOR = FROM_LOAD, FROM_COMPUTE, FROM_STORE, FROM_VECTOR

S_AT, D_AT, AUX_AT, STATE_AT, OUT_AT, ROW_AT, COLUMN_AT = range(0x10000, 0x80000, 0x10000)

# Block RAM, which is all the memory that the smallest board has, is too small for all these places.
CONFIGS = [
    dataclasses.replace(config, memory_bytes=max(config.memory_bytes, 1 << 20))
    for config in PRESETS.values()
]
CASES = [
    pytest.param(config, pattern, id=f"{config.name}-{pattern}")
    for config in CONFIGS
    for pattern in supported_patterns(config)
]


def nest(address: int, *counts: int, strides: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return a descriptor; dimensions not given have a count of 1."""
    return {
        "address": address,
        "counts": [*counts, *[1] * (4 - len(counts))],
        "strides": [*strides, *[0] * (3 - len(strides))],
    }


def run(machine: Machine, *commands: bytes, finish: bool = True) -> Result:
    """Run `commands` and a FINISH."""
    program = b"".join([*commands, *([encode(Opcode.FINISH)] if finish else [])])
    put(machine, PROGRAM, np.frombuffer(program, np.uint8))
    return machine.run(PROGRAM, len(program) // 64)


def put(machine: Machine, address: int, values: np.ndarray) -> None:
    data = np.ascontiguousarray(values).view(np.uint8).ravel()
    machine.memory[address : address + data.size] = data


def get(
    machine: Machine, address: int, shape: tuple[int, ...], dtype: Any = np.uint16
) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return machine.memory[address : address + size].view(dtype).reshape(shape)


def random_halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float16).view(np.uint16)


def load_s(config: Config, pattern: Pattern, rows: int, d_words: int, **fields: Any) -> bytes:
    beats = rows // config.elements * d_words * pattern.tile_beats(config)
    fields = {"descriptor": nest(S_AT, beats), **fields}
    return encode(
        Opcode.LOAD, target=LoadTarget.S, pattern=pattern, rows=rows, d_words=d_words, **fields
    )


def load_d(rows: int, d_words: int, **fields: Any) -> bytes:
    fields = {"descriptor": nest(D_AT, rows * d_words), **fields}
    return encode(Opcode.LOAD, target=LoadTarget.D, rows=rows, d_words=d_words, **fields)


def load_stream(kind: LoadTarget, address: int, beats: int, **fields: Any) -> bytes:
    return encode(
        Opcode.LOAD, target=kind, rows=beats, d_words=1, descriptor=nest(address, beats), **fields
    )


def compute(config: Config, d_words: int, **fields: Any) -> bytes:
    tile = config.rows << fields.get("a_contexts", 0)
    fields = {"a_tiles": config.elements // tile, "b_tiles": 1, "o_stride": 2, **fields}
    bank_rows = fields["b_tiles"] * (config.interleave >> fields.get("a_contexts", 0))
    walks = matrix_walks(max(1, bank_rows), max(1, d_words))
    return encode(Opcode.COMPUTE, d_words=d_words, **walks | fields)


def store(rows: int, words: int, *, convert: bool = True, **fields: Any) -> bytes:
    beats = rows * words // (2 if convert else 1)
    if fields.get("compress"):
        beats = beats // TINY.elements * fields["pattern"].tile_beats(TINY)
    fields = {"o_stride": words, "descriptor": nest(OUT_AT, beats), **fields}
    return encode(Opcode.STORE, rows=rows, words=words, convert=convert, **fields)


def operands(machine: Machine, pattern: Pattern, d_words: int, b_tiles: int = 1) -> tuple[Any, Any]:
    """Put one block of S rows and the D rows for `b_tiles` tiles into memory; return both."""
    config, rng = machine.config, np.random.default_rng(d_words)
    s = random_halves(rng, config.elements, d_words * config.elements)
    d = random_halves(rng, b_tiles * config.interleave * config.cols, d_words * config.elements)
    put(machine, S_AT, pack_tiles(s, pattern, config))
    put(machine, D_AT, d)
    return prune(s, pattern), d


# Products


@pytest.mark.parametrize(("config", "pattern"), CASES)
def test_product(config: Config, pattern: Pattern) -> None:
    machine = Machine(config)
    s, d = operands(machine, pattern, d_words=3, b_tiles=2)
    result = run(
        machine,
        load_s(config, pattern, config.elements, 3, base=1),
        load_d(len(d), 3, base=2, signal=TO_COMPUTE),
        compute(
            config, 3, pattern=pattern, s_base=1, d_base=2, o_base=5, o_stride=3, b_tiles=2,
            wait=FROM_LOAD, signal=TO_STORE, stage=Stage.BP,
        ),
        store(len(d), 2, o_base=5, o_stride=3, wait=FROM_COMPUTE),
    )  # fmt: skip
    assert result.finished
    assert np.array_equal(get(machine, OUT_AT, (len(d), config.elements)), to_half(dot(s, d)))
    slots = config.elements // config.rows * 2 * 3 * pattern.steps(config) * config.interleave
    macs = len(d) * 3 * config.elements**2 * pattern.n // pattern.m
    counters = {
        "COMMANDS": 4,
        "READ_BEATS": 3 * pattern.tile_beats(config) + 3 * len(d),
        "WRITE_BEATS": len(d),
        "MAC_SLOTS_BP": slots,
        "USEFUL_MACS": macs,
        "FILLER_MACS": slots * config.macs - macs,
    }
    moved = {name: count for name, count in counters.items() if count}
    assert {name: count for name, count in result.counters.items() if count} == moved


@pytest.mark.parametrize(("config", "pattern"), CASES)
@pytest.mark.parametrize("b_tiles", [1, 3])
def test_contexts_along_a(config: Config, pattern: Pattern, b_tiles: int) -> None:
    """However a tile's contexts are shared out, the same outputs come to the same places."""
    most = min(config.interleave, config.elements // config.rows).bit_length() - 1
    for a_contexts in range(1, most + 1):
        machine = Machine(config)
        s, d = operands(machine, pattern, d_words=2, b_tiles=b_tiles)
        d = d[: len(d) >> a_contexts]
        result = run(
            machine,
            load_s(config, pattern, config.elements, 2, base=1),
            load_d(len(d), 2, base=2, signal=TO_COMPUTE),
            compute(
                config, 2, pattern=pattern, s_base=1, d_base=2, o_base=5, o_stride=3,
                b_tiles=b_tiles, a_contexts=a_contexts, wait=FROM_LOAD, signal=TO_STORE,
            ),
            store(len(d), 2, o_base=5, o_stride=3, wait=FROM_COMPUTE),
        )  # fmt: skip
        assert result.finished
        assert np.array_equal(get(machine, OUT_AT, (len(d), config.elements)), to_half(dot(s, d)))
        tiles = (config.elements // config.rows >> a_contexts) * b_tiles
        assert (
            result.counters["MAC_SLOTS_FF"] == tiles * 2 * pattern.steps(config) * config.interleave
        )


def macs_slot_by_slot(config: Config, pattern: Pattern, fields: dict[str, int]) -> dict[str, int]:
    """Count as the array does: what each multiplier is good for in each of its slots."""
    a_contexts = 1 << fields["a_contexts"]
    b_contexts = config.interleave // a_contexts
    kept, lanes = pattern.entries_per_chunk(config), config.lanes_per_chunk
    a_end = fields["a_tiles"] * a_contexts * config.rows - fields["a_padding"]
    b_end = fields["b_tiles"] * b_contexts * config.cols - fields["b_padding"]
    counts = dict.fromkeys(("USEFUL_MACS", "EDGE_MACS", "FILLER_MACS"), 0)
    ranges = [fields["b_tiles"], fields["a_tiles"], fields["d_words"], pattern.steps(config)]
    for b_tile, a_tile, word, step, context in np.ndindex(*ranges, config.interleave):
        a_first = (a_tile * a_contexts + context // b_contexts) * config.rows
        b_first = (b_tile * b_contexts + context % b_contexts) * config.cols
        tail = word == fields["d_words"] - 1 and (fields["tail_chunks"], fields["tail_entries"])
        for chunk, lane in np.ndindex(config.chunks, lanes):
            entry = step * lanes + lane
            in_row = not tail or tail == (0, 0) or chunk < tail[0] or (
                chunk == tail[0] and entry < tail[1]
            )  # fmt: skip
            for row, column in np.ndindex(config.rows, config.cols):
                inside = a_first + row < a_end and b_first + column < b_end
                kind = (
                    "FILLER_MACS" if entry >= kept
                    else "USEFUL_MACS" if inside and in_row else "EDGE_MACS"
                )  # fmt: skip
                counts[kind] += 1
    return counts


@pytest.mark.parametrize("config", [TINY, preset("sim-8x")], ids=lambda config: config.name)
def test_macs_are_counted_slot_by_slot(config: Config) -> None:
    """Useful products, padding and lanes without an entry, for random sizes of both."""
    seed = default_seed()
    rng = np.random.default_rng(seed)
    for pattern in supported_patterns(config):
        for a_contexts in range(3):
            a_tiles, b_tiles, d_words = (int(rng.integers(1, 3)) for _ in range(3))
            a_rows = a_tiles * config.rows << a_contexts
            b_rows = b_tiles * config.cols * config.interleave >> a_contexts
            sizes = {
                "a_contexts": a_contexts,
                "a_tiles": a_tiles,
                "b_tiles": b_tiles,
                "d_words": d_words,
                "a_padding": int(rng.integers(a_rows)),
                "b_padding": int(rng.integers(b_rows)),
                "tail_chunks": int(rng.integers(config.chunks)),
                "tail_entries": int(rng.integers(pattern.entries_per_chunk(config) + 1)),
            }
            result = run(Machine(config), compute(config, pattern=pattern, **sizes))
            expected = macs_slot_by_slot(config, pattern, sizes)
            counted = {name: result.counters[name] for name in expected}
            assert counted == expected, f"{pattern} {sizes}, SAT_SEED={seed}"
            assert sum(expected.values()) == result.counters["MAC_SLOTS_FF"] * config.macs


def test_blocks_of_s_rows_follow_each_other() -> None:
    machine, rng = Machine(TINY), np.random.default_rng(1)
    s, d = random_halves(rng, 48, 32), random_halves(rng, 8, 32)
    put(machine, S_AT, pack_tiles(s, Pattern.N4M8, TINY))
    put(machine, D_AT, d)
    assert run(
        machine,
        load_s(TINY, Pattern.N4M8, 48, 2),
        load_d(8, 2, signal=TO_COMPUTE),
        compute(
            TINY, 2, pattern=Pattern.N4M8, a_tiles=12, o_stride=6, wait=FROM_LOAD, signal=TO_STORE
        ),
        store(8, 6, wait=FROM_COMPUTE, convert=False),
    ).finished
    expected = dot(prune(s, Pattern.N4M8), d)
    assert np.array_equal(get(machine, OUT_AT, (8, 48), np.uint32), expected)


@pytest.mark.parametrize("transpose", [False, True])
def test_tiles_of_d(transpose: bool) -> None:
    """A D operand that arrives tile by tile, as it is or as columns of a matrix in memory."""
    machine, rng = Machine(TINY), np.random.default_rng(2)
    s, d = random_halves(rng, 16, 48), random_halves(rng, 32, 48)
    put(machine, S_AT, pack_tiles(s, Pattern.DENSE, TINY))
    put(machine, D_AT, d.T if transpose else d)
    if transpose:
        # [k][b]: for each block of 16 b, for each block of 16 k, 16 rows.
        descriptor = nest(D_AT, 1, 16, 3, 2, strides=(64, 16 * 64, 32))
    else:
        descriptor = nest(D_AT, 1, 16, 3, 2, strides=(96, 32, 16 * 96))
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 3),
        load_d(32, 3, order=LoadOrder.TILES, transpose=transpose, descriptor=descriptor,
               base=4, signal=TO_COMPUTE),
        compute(TINY, 3, d_base=4, b_tiles=4, wait=FROM_LOAD, signal=TO_STORE),
        store(32, 2, wait=FROM_COMPUTE, convert=False),
    ).finished  # fmt: skip
    assert np.array_equal(get(machine, OUT_AT, (32, 16), np.uint32), dot(s, d))


def framed(machine: Machine) -> tuple[dict[str, Any], npt.NDArray[np.uint16]]:
    """Put two images of 2 by 4 beats into memory, with gaps between their lines.

    Return what a LOAD says that puts them into frames of 5 by 8 beats, and these beats.
    """
    g = machine.config.elements
    images = random_halves(np.random.default_rng(10), 2, 2, 4, g)
    memory = np.full((2, 2, 6, g), 0x7E00, np.uint16)
    memory[:, :, :4] = images
    put(machine, D_AT, memory)
    frame = {"images": 2, "above": 1, "lines": 2, "below": 2, "before": 1, "beats": 4, "after": 3}
    whole = np.zeros((2, 1 + 2 + 2, 1 + 4 + 3, g), np.uint16)
    whole[:, 1:3, 1:5] = images
    beat = machine.config.beat_bytes
    descriptor = nest(D_AT, 4, 2, 2, strides=(6 * beat, 12 * beat))
    return {"frame": frame, "descriptor": descriptor}, whole.reshape(-1, g)


def in_d(machine: Machine, rows: int, d_words: int, **fields: Any) -> npt.NDArray[np.uint16]:
    """Load a D operand and return its rows, multiplied by ones a block at a time."""
    g = machine.config.elements
    units = np.eye(d_words * g).astype(np.float16).view(np.uint16)
    put(machine, S_AT, pack_tiles(units, Pattern.DENSE, machine.config))
    assert run(machine, load_d(rows, d_words, **fields)).finished
    found = np.zeros((-(-rows // g), g, d_words, g), np.uint16)
    for block, word in np.ndindex(len(found), d_words):
        columns = nest(S_AT + word * d_words * g * machine.config.beat_bytes, d_words * g)
        d_base = block * g // machine.config.cols * d_words
        assert run(
            machine,
            load_s(TINY, Pattern.DENSE, g, d_words, descriptor=columns, signal=TO_COMPUTE),
            compute(TINY, d_words, d_base=d_base, b_tiles=2, wait=FROM_LOAD, signal=TO_STORE),
            store(g, 2, wait=FROM_COMPUTE),
        ).finished
        found[block, :, word] = get(machine, OUT_AT, (g, g))
    return found.reshape(-1, d_words * g)[:rows]


def test_frame_of_rows() -> None:
    """Zeros go where the frame says, and are no beats of memory."""
    machine = Machine(TINY)
    load, beats = framed(machine)
    assert np.array_equal(in_d(machine, 40, 2, **load), beats.reshape(40, 32))
    assert run(machine, load_d(40, 2, **load)).counters["READ_BEATS"] == 16


def test_frame_of_tiles() -> None:
    """Tiles of G rows by a D word; as they arrive or, framed first, transposed."""
    for transpose in (0, 1):
        machine = Machine(TINY)
        load, beats = framed(machine)
        tiles = beats.reshape(5, 16, 16)
        expected = tiles.swapaxes(1, 2) if transpose else tiles
        fields: dict[str, Any] = {**load, "order": LoadOrder.TILES, "transpose": transpose}
        assert np.array_equal(in_d(machine, 80, 1, **fields), expected.reshape(80, 16))
        # As one block of rows: the D words of a row come from different tiles.
        machine = Machine(TINY)
        framed(machine)
        rows = expected.swapaxes(0, 1).reshape(16, 80)
        assert np.array_equal(in_d(machine, 16, 5, **fields), rows)


@pytest.mark.parametrize("transpose", [0, 1])
def test_frame_of_an_s_operand(transpose: int) -> None:
    machine = Machine(TINY)
    load, beats = framed(machine)
    put(machine, ROW_AT, np.eye(16).astype(np.float16).view(np.uint16))
    tiles = beats.reshape(5, 16, 16)
    s = (tiles.swapaxes(1, 2) if transpose else tiles).reshape(80, 16)
    load_operand = load_s(TINY, Pattern.DENSE, 80, 1, transpose=transpose, **load)
    assert run(machine, load_operand).finished
    for half in range(2):
        unit_rows = nest(ROW_AT + half * 8 * TINY.beat_bytes, 8)
        assert run(
            machine,
            load_d(8, 1, descriptor=unit_rows, signal=TO_COMPUTE),
            compute(TINY, 1, a_tiles=20, o_stride=10, wait=FROM_LOAD, signal=TO_STORE),
            store(8, 10, wait=FROM_COMPUTE),
        ).finished
        assert np.array_equal(get(machine, OUT_AT, (8, 80)), s.T[8 * half :][:8])


def test_frame_of_a_sparse_operand() -> None:
    """A tile after one of zeros, whose indices are zeros as well."""
    machine, pattern = Machine(TINY), Pattern.N2M8
    s, d = operands(machine, pattern, d_words=2)
    beats = pattern.tile_beats(TINY)
    frame = {"images": 1, "above": 1, "lines": 1, "beats": 2 * beats}
    assert run(
        machine,
        load_s(TINY, pattern, 32, 2, descriptor=nest(S_AT, 2 * beats), frame=frame),
        load_d(8, 2, signal=TO_COMPUTE),
        compute(TINY, 2, pattern=pattern, a_tiles=8, o_stride=4, wait=FROM_LOAD, signal=TO_STORE),
        store(8, 4, wait=FROM_COMPUTE, convert=False),
    ).finished
    sums = get(machine, OUT_AT, (8, 32), np.uint32)
    assert np.array_equal(sums[:, 16:], dot(s, d))
    assert not sums[:, :16].any()


def test_frame_into_aux_and_into_the_stream() -> None:
    machine = Machine(TINY)
    values = random_halves(np.random.default_rng(11), 24, 16)
    put(machine, D_AT, values)
    put(machine, S_AT, np.zeros((16, 16), np.uint16))
    aux: dict[str, Any] = {"rows": 32, "d_words": 1, "descriptor": nest(D_AT, 24), "base": 1}
    frame = {"images": 1, "lines": 1, "before": 3, "beats": 24, "after": 5}
    put(machine, STATE_AT, np.ones(32, np.float32))
    state = {"images": 1, "lines": 1, "beats": 4, "before": 4}
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1, descriptor=nest(S_AT, 16)),
        encode(Opcode.LOAD, target=LoadTarget.AUX, frame=frame, signal=TO_COMPUTE, **aux),
        compute(TINY, 1, b_tiles=4, wait=FROM_LOAD, signal=TO_STORE),
        store(32, 2, add=1, add_base=1, wait=FROM_COMPUTE),
        encode(Opcode.LOAD, target=LoadTarget.STATE, rows=8, d_words=1, frame=state,
               descriptor=nest(STATE_AT, 4)),
        encode(Opcode.UPDATE, tiles=2, rows=1, o_stride=0, state_address=ROW_AT),
    ).finished  # fmt: skip
    assert np.array_equal(get(machine, OUT_AT, (32, 16)), np.pad(values, ((3, 5), (0, 0))))
    weights, _ = unpack_state_tile(get(machine, ROW_AT, (256,), np.uint8), 1, TINY)
    assert weights.reshape(2, 16).tolist() == [[0] * 16, [0x3F800000] * 16]


def test_weight_gradient_from_transposed_loads() -> None:
    machine, rng = Machine(TINY), np.random.default_rng(3)
    x, dy = random_halves(rng, 32, 16), random_halves(rng, 32, 16)
    put(machine, D_AT, x)
    put(machine, S_AT, dy)
    transposed = {"transpose": 1, "signal": TO_COMPUTE}
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 2, **transposed),
        load_d(16, 2, order=LoadOrder.TILES, **transposed),
        compute(TINY, 2, b_tiles=2, wait=FROM_LOAD),
        compute(TINY, 2, ones=1, o_base=32, wait=FROM_LOAD, signal=TO_STORE),
        store(16, 2, wait=FROM_COMPUTE, convert=False),
        store(1, 2, o_base=32, convert=False, descriptor=nest(ROW_AT, 2)),
    ).finished
    weights = dot(np.ascontiguousarray(dy.T), np.ascontiguousarray(x.T))
    assert np.array_equal(get(machine, OUT_AT, (16, 16), np.uint32), weights)
    ones = np.full((1, 32), 0x3C00, np.uint16)
    expected = dot(np.ascontiguousarray(dy.T), ones)
    assert np.array_equal(get(machine, ROW_AT, (1, 16), np.uint32), expected)


@pytest.mark.parametrize("a_contexts", range(3))
def test_kept_sums_are_rounded_once(a_contexts: int) -> None:
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.N2M8, d_words=3)
    d = d[: 8 >> a_contexts]
    part = {"pattern": Pattern.N2M8, "a_tiles": 1, "a_contexts": a_contexts}
    assert run(
        machine,
        load_s(TINY, Pattern.N2M8, 16, 3),
        load_d(len(d), 3, signal=TO_COMPUTE),
        compute(TINY, 3, keep=1, wait=FROM_LOAD, **part),
        compute(TINY, 3, keep=1, **part),
        compute(TINY, 3, signal=TO_STORE, **part | {"a_tiles": 4 >> a_contexts}),
        store(len(d), 2, convert=False, wait=FROM_COMPUTE),
    ).finished
    result = get(machine, OUT_AT, (len(d), 16), np.uint32)
    three = dot(np.tile(s, 3), np.tile(d, 3))
    kept = 4 << a_contexts
    assert np.array_equal(result[:, :kept], three[:, :kept])
    assert np.array_equal(result[:, kept:], dot(s, d)[:, kept:])


def test_results_are_added_up_in_order() -> None:
    """Each rounded, then their sum in binary32; infinities and NaNs as that has them."""
    machine = Machine(TINY)
    random = np.random.default_rng(default_seed())
    parts, rows = 5, 8
    s = random.normal(0, 1, (parts, 16, 32)).astype(np.float16).view(np.uint16)
    d = random.normal(0, 1, (parts, rows, 32)).astype(np.float16).view(np.uint16)
    d[1, 2, 3], d[2, 2, 3], d[3, 4, 5], d[4, 6, 7] = 0x7C00, 0xFC00, 0x7E00, 0xFC00
    expected = None
    for part in range(parts):
        put(machine, S_AT, pack_tiles(s[part], Pattern.DENSE, TINY))
        put(machine, D_AT, d[part])
        assert run(
            machine,
            load_s(TINY, Pattern.DENSE, 16, 2),
            load_d(rows, 2, signal=TO_COMPUTE),
            compute(TINY, 2, accumulate=int(part > 0), wait=FROM_LOAD, signal=TO_STORE),
            store(rows, 2, convert=False, wait=FROM_COMPUTE),
        ).finished
        product = dot(s[part], d[part]).view(np.float32)
        with np.errstate(invalid="ignore"):
            expected = product if expected is None else expected + product
        bits = np.where(np.isnan(expected), np.uint32(0x7FC00000), expected.view(np.uint32))
        assert np.array_equal(get(machine, OUT_AT, (rows, 16), np.uint32), bits)
    whole = dot(np.concatenate(list(s), 1), np.concatenate(list(d), 1))
    assert not np.array_equal(bits, whole), "rounded once"


def test_kept_infinities_stay_until_drained() -> None:
    machine = Machine(TINY)
    put(machine, S_AT, np.full((16, 16), 0x3C00, np.uint16))
    d = np.full((8, 16), 0x3C00, np.uint16)
    d[0, 3], d[1, 4] = 0x7C00, 0xFC00
    put(machine, D_AT, np.concatenate([d, np.full((8, 16), 0xFC00, np.uint16)]))
    load = [load_s(TINY, Pattern.DENSE, 16, 1), load_d(16, 1, signal=TO_COMPUTE)]
    assert run(
        machine,
        *load,
        compute(TINY, 1, a_tiles=1, keep=1, wait=FROM_LOAD),
        compute(TINY, 1, a_tiles=1, d_base=4),
        compute(TINY, 1, a_tiles=1, d_base=0, o_base=8, o_stride=1, signal=TO_STORE),
        store(8, 2, convert=False, wait=FROM_COMPUTE),
        store(8, 1, convert=False, o_base=8, descriptor=nest(ROW_AT, 8)),
    ).finished
    # Bank 0 holds the even rows: d_base 4 is row 8.
    first = get(machine, OUT_AT, (8, 16), np.uint32)[:, 0].tolist()
    assert first == [0x7FC00000] + [0xFF800000] * 7
    again = get(machine, ROW_AT, (8, 8), np.uint32)[:, 0].tolist()
    assert again == [0x7F800000, 0xFF800000] + [0x41800000] * 6


def test_holes_of_sparse_operands_meet_no_infinity() -> None:
    machine = Machine(TINY)
    s = np.zeros((16, 16), np.uint16)
    s[:, [0, 1, 8, 9]] = 0x3C00
    put(machine, S_AT, pack_tiles(s, Pattern.N2M8, TINY))
    d = np.zeros((8, 16), np.uint16)
    d[0, 5] = d[1, 1] = 0x7C00
    put(machine, D_AT, d)
    assert run(
        machine,
        load_s(TINY, Pattern.N2M8, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, pattern=Pattern.N2M8, wait=FROM_LOAD, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE),
    ).counters["NONFINITE"] == 16  # fmt: skip
    assert get(machine, OUT_AT, (8, 16))[:, 0].tolist() == [0, 0x7C00, 0, 0, 0, 0, 0, 0]


def test_lanes_without_an_entry_meet_the_first_element_of_their_chunk() -> None:
    """1:8 at ratio 4 leaves every other lane a zero with index 0."""
    machine = Machine(TINY)
    s = np.zeros((16, 16), np.uint16)
    s[:, [3, 11]] = 0x3C00
    put(machine, S_AT, pack_tiles(s, Pattern.N1M8, TINY))
    d = np.full((8, 16), 0x3C00, np.uint16)
    d[0, 0] = d[1, 1] = d[2, 3] = 0x7C00
    put(machine, D_AT, d)
    assert run(
        machine,
        load_s(TINY, Pattern.N1M8, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, pattern=Pattern.N1M8, wait=FROM_LOAD, signal=TO_STORE),
        store(3, 2, wait=FROM_COMPUTE),
    ).finished
    assert get(machine, OUT_AT, (3, 16))[:, 0].tolist() == [0x7E00, 0x4000, 0x7C00]


def test_a_load_replaces_what_was_computed_with_before() -> None:
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    put(machine, AUX_AT, pack_tiles(s[::-1], Pattern.DENSE, TINY))
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, wait=FROM_LOAD, signal=TO_LOAD),
        load_s(TINY, Pattern.DENSE, 16, 1, descriptor=nest(AUX_AT, 16), wait=FROM_COMPUTE),
        load_d(8, 1, descriptor=nest(D_AT, 1, 8, strides=(0,)), signal=TO_COMPUTE),
        compute(TINY, 1, wait=FROM_LOAD, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE, convert=False),
    ).finished
    expected = np.broadcast_to(dot(s[::-1], d[:1]), (8, 16))
    assert np.array_equal(get(machine, OUT_AT, (8, 16), np.uint32), expected)


def test_an_index_has_only_the_bits_that_a_group_needs() -> None:
    """M = 8 takes three bits of each nibble."""
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.N2M8, d_words=1)
    machine.memory[S_AT : S_AT + TINY.beat_bytes] |= 0x88
    assert run(
        machine,
        load_s(TINY, Pattern.N2M8, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, pattern=Pattern.N2M8, wait=FROM_LOAD, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE, convert=False),
    ).finished
    assert np.array_equal(get(machine, OUT_AT, (8, 16), np.uint32), dot(s, d))


def test_wrong_addresses_give_what_lies_there() -> None:
    """Bases and strides are honoured, not guessed: a shifted S base computes another product."""
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=2)
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 2),
        load_d(8, 2, signal=TO_COMPUTE),
        compute(TINY, 1, s_base=1, d_base=1, a_tiles=2, wait=FROM_LOAD, signal=TO_STORE),
        store(4, 1, wait=FROM_COMPUTE, convert=False, o_stride=2),
    ).finished
    # Word n of a bank is part n % 2 of row n // 2, but is taken for a row of its own.
    s_words = s.reshape(4, 4, 2, 16).swapaxes(0, 1).reshape(4, 8, 16)
    d_words = d.reshape(4, 2, 2, 16).swapaxes(0, 1).reshape(2, 8, 16)
    rows = s_words[:, 1:3].swapaxes(0, 1).reshape(8, 16)
    columns = d_words[:, 1:5].swapaxes(0, 1).reshape(8, 16)
    assert np.array_equal(get(machine, OUT_AT, (4, 8), np.uint32), dot(rows, columns)[:4])


def offset_of(fields: dict[str, Any], number: int) -> int:
    """Return the offset of a round of a walk, loop by loop."""
    offset = 0
    for count, step in zip(fields["counts"], fields["steps"], strict=True):
        number, index = divmod(number, count)
        offset += index * step
    return offset


@pytest.mark.parametrize("config", CONFIGS, ids=PRESETS)
def test_d_operands_are_walked_over(config: Config) -> None:
    """Random walks: forwards, backwards, standing still, and beginning again."""
    seed = default_seed()
    rng = np.random.default_rng(seed)
    machine = Machine(config)
    most = min(config.interleave, config.elements // config.rows).bit_length() - 1
    g, d_words, base = config.elements, 3, 12
    s, d = random_halves(rng, g, d_words * g), random_halves(rng, 2 * base + 1, config.cols, g)
    put(machine, S_AT, pack_tiles(s, Pattern.DENSE, config))
    put(machine, D_AT, d)
    loads = [load_s(config, Pattern.DENSE, g, d_words), load_d(d.shape[0] * config.cols, 1)]
    assert run(machine, *loads).finished
    for _ in range(24):
        # Six loops of at most two steps each stay within the words around the base.
        rows, reduction = (
            walk(*((int(rng.integers(1, 4)), int(rng.integers(-1, 2))) for _ in range(3)))
            for _ in range(2)
        )
        a_contexts, b_tiles = int(rng.integers(most + 1)), int(rng.integers(1, 3))
        bank_rows = b_tiles * config.interleave >> a_contexts
        places = [
            [base + offset_of(rows, row) + offset_of(reduction, word) for word in range(d_words)]
            for row in range(bank_rows)
        ]
        assert run(
            machine,
            compute(config, d_words, a_contexts=a_contexts, b_tiles=b_tiles, d_base=base,
                    d_rows=rows, d_reduction=reduction, signal=TO_STORE),
            store(bank_rows * config.cols, 2, wait=FROM_COMPUTE, convert=False),
        ).finished  # fmt: skip
        expected = dot(s, d[places].swapaxes(1, 2).reshape(-1, d_words * g))
        result = get(machine, OUT_AT, expected.shape, np.uint32)
        assert np.array_equal(result, expected), f"{rows} {reduction} SAT_SEED={seed}"


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 1)])
def test_convolutions_are_walks(stride: int, kernel: int) -> None:
    """Outputs and gradients of a convolution of padded images, from one copy of each in D."""
    rng = np.random.default_rng(stride + kernel)
    g, channels, size = TINY.elements, 32, 2
    blocks, edge = channels // g, stride * (size - 1) + kernel
    x = random_halves(rng, edge, edge, g, channels)
    w = random_halves(rng, g, kernel, kernel, channels)
    # A patch has more words than the scratchpads of `tiny`, and longer sums.
    config = dataclasses.replace(TINY, s_depth=256, d_depth=1024, o_depth=512, accumulator_bits=52)
    machine = Machine(config)
    put(machine, S_AT, pack_tiles(w.reshape(g, -1), Pattern.DENSE, config))
    put(machine, D_AT, x.reshape(edge * edge, g, blocks, g).swapaxes(1, 2))
    d_words, bank_images = kernel * kernel * blocks, g // config.cols
    rows, k = size * size * g, d_words * g
    pixel = bank_images * blocks
    assert run(
        machine,
        load_s(config, Pattern.DENSE, g, d_words),
        load_d(edge * edge * g, blocks, order=LoadOrder.TILES, signal=TO_COMPUTE),
        encode(
            Opcode.COMPUTE, o_stride=2, wait=FROM_LOAD, signal=TO_STORE,
            **product(
                config, Pattern.DENSE, a=g, b=rows, k=k,
                d_rows=walk(
                    (bank_images, blocks), (size, stride * pixel), (size, stride * edge * pixel)
                ),
                d_reduction=walk((blocks, 1), (kernel, pixel), (kernel, edge * pixel)),
            ),
        ),
        store(rows, 2, wait=FROM_COMPUTE, convert=False),
    ).finished  # fmt: skip
    patches = np.stack([
        x[stride * i : stride * i + kernel, stride * j : stride * j + kernel]
        for i, j in np.ndindex(size, size)
    ])  # fmt: skip
    # [pixel, tap row, tap column, image, channel]
    expected = dot(w.reshape(g, -1), patches.transpose(0, 3, 1, 2, 4).reshape(rows, k))
    assert np.array_equal(get(machine, OUT_AT, (rows, g), np.uint32), expected)

    # The gradient of the weights reduces over the images of the output's pixels.
    dy = random_halves(rng, size * size * g, g)
    put(machine, S_AT, dy)
    bank_channels = channels // config.cols
    inputs = channels * kernel * kernel
    assert run(
        machine,
        load_s(config, Pattern.DENSE, g, size * size, transpose=1),
        load_d(
            channels, edge * edge, order=LoadOrder.TILES, transpose=1, signal=TO_COMPUTE,
            # [channel block][pixel][image]
            descriptor=nest(D_AT, g, edge * edge, blocks, strides=(
                g * channels * 2, g * config.beat_bytes)),
        ),
        encode(
            Opcode.COMPUTE, o_stride=2, wait=FROM_LOAD, signal=TO_STORE, stage=Stage.WU,
            **product(
                config, Pattern.DENSE, a=g, b=inputs, k=size * size * g,
                d_rows=walk((bank_channels, edge * edge), (kernel, 1), (kernel, edge)),
                d_reduction=walk((size, stride), (size, stride * edge)),
            ),
        ),
        store(inputs, 2, wait=FROM_COMPUTE, convert=False),
    ).finished  # fmt: skip
    # [tap row, tap column, channel, pixel, image]
    taps = patches.transpose(1, 2, 4, 0, 3).reshape(inputs, -1)
    expected = dot(np.ascontiguousarray(dy.T), np.ascontiguousarray(taps))
    assert np.array_equal(get(machine, OUT_AT, (inputs, g), np.uint32), expected)


def test_overlapping_rows_of_o_keep_what_is_drained_last() -> None:
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, o_stride=1, wait=FROM_LOAD, signal=TO_STORE),
        store(10, 1, convert=False, wait=FROM_COMPUTE),
    ).finished
    # Context t fills words t and t + 1 of its bank; the upper half of a is drained after the lower.
    products = dot(s, d).reshape(4, 2, 2, 8)
    expected = [products[0, :, 0], *(products[t, :, 1] for t in range(4))]
    assert np.array_equal(get(machine, OUT_AT, (5, 2, 8), np.uint32), np.stack(expected))


def test_overlapping_rows_of_o_keep_the_last_context() -> None:
    """Two contexts along a, two along b: of those that meet in a word the later one stays."""
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        compute(TINY, 1, a_contexts=1, b_tiles=2, o_stride=0, wait=FROM_LOAD, signal=TO_STORE),
        store(2, 2, convert=False, wait=FROM_COMPUTE),
    ).finished
    # All rows of a bank meet in its first two words: those of the last context along b stay.
    assert np.array_equal(get(machine, OUT_AT, (2, 16), np.uint32), dot(s, d)[6:])
    assert run(
        machine,
        compute(TINY, 1, a_contexts=1, o_stride=1, signal=TO_STORE),
        store(6, 1, convert=False, wait=FROM_COMPUTE),
    ).finished
    # The second tile (the upper half of a) comes after the first, so that word 1 holds its row 0.
    products = dot(s, d)[:4].reshape(2, 2, 2, 8)
    expected = [products[0, :, 0], products[0, :, 1], products[1, :, 1]]
    assert np.array_equal(get(machine, OUT_AT, (3, 2, 8), np.uint32), np.stack(expected))


# Results


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("bias", [0, 1])
def test_store_applies_the_epilogue(bias: int, add: int, relu: int, mask: int) -> None:
    machine, rng = Machine(TINY), np.random.default_rng(4)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    vector, (masks, addend) = random_halves(rng, 16), random_halves(rng, 2, 5, 16)
    put(machine, AUX_AT, np.concatenate([vector[None], masks, addend]))
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(8, 1),
        load_stream(LoadTarget.AUX, AUX_AT, 11, base=3, signal=TO_COMPUTE),
        compute(TINY, 1, wait=FROM_LOAD, signal=TO_STORE),
        store(5, 2, bias=bias, add=add, relu=relu, mask=mask, bias_base=3, mask_base=4, add_base=9,
              wait=FROM_COMPUTE, descriptor=nest(OUT_AT, 1, 5, strides=(64,))),
    ).finished  # fmt: skip
    expected = epilogue(
        dot(s, d)[:5],
        bias=vector if bias else None,
        addend=addend if add else None,
        relu=bool(relu),
        mask=masks if mask else None,
    )
    assert np.array_equal(get(machine, OUT_AT, (5, 32))[:, :16], expected)
    assert not get(machine, OUT_AT, (5, 32))[:, 16:].any()


@pytest.mark.parametrize("pattern", supported_patterns(TINY), ids=str)
def test_store_compresses_what_leaves_the_epilogue(pattern: Pattern) -> None:
    """Two by two tiles, each of which has the channels of G pixels; the mask is row-major."""
    machine, rng = Machine(TINY), np.random.default_rng(7)
    s, d = random_halves(rng, 32, 16), random_halves(rng, 32, 16)
    d[3, 2], d[17, 4] = 0x7C00, 0x7E01
    vector, masks = random_halves(rng, 2, 16), random_halves(rng, 32, 32)
    put(machine, S_AT, pack_tiles(s, Pattern.DENSE, TINY))
    put(machine, D_AT, d)
    put(machine, AUX_AT, np.concatenate([masks.reshape(-1, 16), vector])[2:])
    product = [
        load_s(TINY, Pattern.DENSE, 32, 1),
        load_d(32, 1),
        load_stream(LoadTarget.AUX, AUX_AT, 64, signal=TO_COMPUTE),
        compute(TINY, 1, a_tiles=8, b_tiles=4, o_stride=4, wait=FROM_LOAD, signal=TO_STORE),
    ]
    compressed: dict[str, Any] = {"compress": 1, "pattern": pattern}
    tiles, row = pattern.tile_beats(TINY), 2 * 16
    result = run(
        machine,
        *product,
        store(32, 4, relu=1, bias=1, bias_base=62, **compressed, wait=FROM_COMPUTE),
        # The upper half of the rows, masked, with a gap between its two tiles.
        store(16, 4, o_base=32, add=1, add_base=1, mask=1, mask_base=30, **compressed,
              descriptor=nest(ROW_AT, tiles, 2, strides=(2 * tiles * 32,))),
    )  # fmt: skip
    assert result.finished
    sums = dot(s, d)
    whole = epilogue(sums, bias=vector.ravel(), relu=True)
    memory = get(machine, OUT_AT, (4 * tiles * row,), np.uint8)
    assert np.array_equal(memory, pack_tiles(whole, pattern, TINY))
    assert np.array_equal(unpack_tiles(memory, 32, 2, pattern, TINY), prune(whole, pattern))
    addend = masks.reshape(-1, 16)[3:35].reshape(16, 32)
    upper = epilogue(sums[16:], addend=addend, mask=masks[16:])
    halves = get(machine, ROW_AT, (2, 2 * tiles * row), np.uint8)[:, : tiles * row]
    assert np.array_equal(halves.ravel(), pack_tiles(upper, pattern, TINY))
    bad = sum(int(np.count_nonzero(part >> 10 & 31 == 31)) for part in (whole, upper))
    assert bad and result.counters["NONFINITE"] == bad
    assert result.counters["WRITE_BEATS"] == 6 * tiles


# Updates

FACTORS: dict[str, Any] = {
    name: int(np.float32(value).view(np.uint32))
    for name, value in (("rate", 0.1), ("momentum", 0.9), ("decay", 1e-3))
}


@pytest.mark.parametrize("loads", [(128,), (1, 70, 57)])
def test_update(loads: tuple[int, ...]) -> None:
    """Two tiles, whose state comes by one or several loads."""
    machine, rng = Machine(TINY), np.random.default_rng(5)
    x, dy = random_halves(rng, 32, 16), random_halves(rng, 16, 16)
    w, v = rng.normal(size=(2, 2, 16, 16)).astype(np.float32).view(np.uint32)
    put(machine, S_AT, pack_tiles(dy, Pattern.DENSE, TINY))
    put(machine, D_AT, x)
    put(machine, STATE_AT, pack_state_tile(w, v))
    starts = np.cumsum([0, *loads]).tolist()
    result = run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(32, 1, signal=TO_COMPUTE),
        compute(TINY, 1, b_tiles=4, wait=FROM_LOAD, signal=TO_STORE),
        *(
            load_stream(LoadTarget.STATE, STATE_AT + 32 * start, beats)
            for start, beats in zip(starts, loads, strict=False)
        ),
        encode(
            Opcode.UPDATE, wait=FROM_COMPUTE, o_stride=2, tiles=2, rows=16, scale=3,
            row_copy=1, row_pattern=Pattern.N2M8, row_address=ROW_AT, row_stride=0x400,
            column_copy=1, column_pattern=Pattern.N1M4, column_address=COLUMN_AT,
            column_stride=0x200, state_address=STATE_AT, **FACTORS,
        ),
    )  # fmt: skip
    assert result.finished
    expected = update(
        w, v, dot(dy, x).reshape(2, 16, 16), TINY, **FACTORS, scale=3,
        row_pattern=Pattern.N2M8, column_pattern=Pattern.N1M4,
    )  # fmt: skip
    new_w, new_v = unpack_state_tile(get(machine, STATE_AT, (4096,), np.uint8), 16, TINY)
    assert np.array_equal(new_w, expected.w)
    assert np.array_equal(new_v, expected.v)
    for copy, address, stride in (
        (expected.row_copy, ROW_AT, 0x400),
        (expected.column_copy, COLUMN_AT, 0x200),
    ):
        assert copy is not None
        for k in range(2):
            assert np.array_equal(
                get(machine, address + k * stride, copy[k].shape, np.uint8), copy[k]
            )


def test_update_of_a_vector() -> None:
    machine, rng = Machine(TINY), np.random.default_rng(6)
    w, v = rng.normal(size=(2, 2, 1, 16)).astype(np.float32).view(np.uint32)
    put(machine, STATE_AT, pack_state_tile(w, v))
    s, d = operands(machine, Pattern.DENSE, d_words=1, b_tiles=4)
    result = run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(32, 1, signal=TO_COMPUTE),
        compute(TINY, 1, b_tiles=4, wait=FROM_LOAD, signal=TO_STORE),
        load_stream(LoadTarget.STATE, STATE_AT, 8),
        encode(
            Opcode.UPDATE, wait=FROM_COMPUTE, o_stride=2, tiles=2, rows=1, row_copy=1,
            row_address=ROW_AT, row_stride=64, state_address=STATE_AT, **FACTORS,
        ),
    )  # fmt: skip
    assert result.finished
    assert result.counters["WRITE_BEATS"] == 2 * 5
    gradients = dot(s, d)[[0, 16]].reshape(2, 1, 16)
    expected = update(
        w, v, gradients, TINY, **FACTORS, scale=0, row_pattern=Pattern.DENSE, column_pattern=None
    )
    new_w, new_v = unpack_state_tile(get(machine, STATE_AT, (256,), np.uint8), 1, TINY)
    assert np.array_equal(new_w, expected.w)
    assert np.array_equal(new_v, expected.v)
    assert np.array_equal(get(machine, ROW_AT, (2, 32))[:, :16], to_half(expected.w)[:, 0])


# Tokens


def nop(queue: Queue, **fields: Any) -> bytes:
    return encode(Opcode.NOP, queue=queue, **fields)


def test_commands_wait_for_their_tokens() -> None:
    """A STORE that stands first in the program writes what a later COMPUTE gives."""
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    assert run(
        machine,
        store(8, 2, wait=FROM_COMPUTE, signal=TO_LOAD),
        compute(TINY, 1, wait=FROM_LOAD, signal=TO_STORE),
        load_s(TINY, Pattern.DENSE, 16, 1),
        load_d(8, 1, signal=TO_COMPUTE),
        load_d(8, 1, wait=FROM_STORE, descriptor=nest(OUT_AT, 8), signal=TO_COMPUTE),
        compute(TINY, 1, wait=FROM_LOAD, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE, descriptor=nest(ROW_AT, 8)),
    ).finished
    first = to_half(dot(s, d))
    assert np.array_equal(get(machine, OUT_AT, (8, 16)), first)
    assert np.array_equal(get(machine, ROW_AT, (8, 16)), to_half(dot(s, first)))


def test_tokens_are_counted_by_their_giver_and_end_with_the_program() -> None:
    machine = Machine(TINY)
    give = nop(Queue.LOAD, signal=TO_COMPUTE | TO_STORE)
    assert run(machine, give, give, nop(Queue.COMPUTE, wait=FROM_LOAD)).counters["COMMANDS"] == 3
    assert run(machine, nop(Queue.COMPUTE, wait=FROM_LOAD)).hung
    machine.reset()
    assert run(
        machine, nop(Queue.STORE, signal=TO_COMPUTE), nop(Queue.COMPUTE, wait=FROM_LOAD)
    ).hung


def test_deadlock_is_reported() -> None:
    machine = Machine(TINY)
    result = run(
        machine,
        nop(Queue.LOAD),
        nop(Queue.LOAD, wait=FROM_VECTOR, signal=TO_COMPUTE),
        nop(Queue.COMPUTE, wait=FROM_LOAD, signal=TO_STORE),
        nop(Queue.STORE, wait=FROM_COMPUTE, signal=TO_VECTOR),
        nop(Queue.VECTOR, wait=FROM_STORE, signal=TO_LOAD),
    )
    assert (result.finished, result.hung, result.fault) == (False, True, Fault.NONE)
    assert result.counters["COMMANDS"] == 1
    with pytest.raises(RuntimeError, match="reset"):
        machine.run(PROGRAM, 1)


@pytest.mark.parametrize(("queued", "finished"), [(4, True), (5, False)])
def test_a_full_queue_holds_up_those_behind(queued: int, finished: bool) -> None:
    """Preset tiny has queues of four: the fifth waiting command hides what would free the first."""
    waiting = [nop(Queue.COMPUTE, wait=FROM_LOAD)] * queued
    result = run(Machine(TINY), *waiting, *[nop(Queue.LOAD, signal=TO_COMPUTE)] * queued)
    assert (result.finished, result.hung) == (finished, not finished)


@pytest.mark.parametrize("stream_queue", [1, 0])
def test_state_is_handed_over_only_to_an_update(stream_queue: int) -> None:
    """A LOAD to the update engine ends when an UPDATE has taken its beats, not before."""
    config = dataclasses.replace(TINY, stream_queue=stream_queue)
    machine = Machine(config)
    learns: dict[str, Any] = {"tiles": 1, "rows": 1, "o_stride": 2, "state_address": STATE_AT}
    update_command = encode(Opcode.UPDATE, **learns)
    state = load_stream(LoadTarget.STATE, STATE_AT, 4)
    own, from_own = (Queue.STREAM, FROM_STREAM) if stream_queue else (Queue.LOAD, FROM_LOAD)
    assert run(machine, state, nop(own, signal=TO_STORE), update_command).finished
    assert run(machine, state).hung
    machine.reset()
    assert run(machine, update_command).hung
    machine.reset()
    # The UPDATE waits for what the queue behind its own state would give.
    waiting = encode(Opcode.UPDATE, **learns, wait=from_own)
    assert run(machine, state, nop(own, signal=TO_STORE), waiting).hung
    # With a queue of its own, state keeps nothing but streams from going on.
    machine.reset()
    waiting = encode(Opcode.UPDATE, **learns, wait=FROM_LOAD)
    result = run(machine, state, nop(Queue.LOAD, signal=TO_STORE), waiting)
    assert result.finished == bool(stream_queue)


@pytest.mark.parametrize(
    "header",
    [{"queue": Queue.STREAM}, {"wait": FROM_STREAM}, {"signal": FROM_STREAM}],
    ids=str,
)
def test_a_queue_that_is_not_there_is_not_named(header: dict[str, Any]) -> None:
    command = encode(Opcode.NOP, **header)
    result = run(Machine(dataclasses.replace(TINY, stream_queue=0)), nop(Queue.LOAD), command)
    assert (result.fault, result.fault_command) == (Fault.MALFORMED, 1)
    assert run(Machine(TINY), command, nop(Queue.STREAM, signal=TO_LOAD)).fault is Fault.NONE


# Faults

UPDATE: dict[str, Any] = {"tiles": 1, "rows": 16, "o_stride": 2, "state_address": STATE_AT}
TOP = TINY.memory_bytes


def framed_load(**changes: Any) -> bytes:
    """Return a LOAD to D of 2 images of 2 by 3 beats, framed to 4 by 6, with changes."""
    frame = {"images": 2, "above": 1, "lines": 2, "below": 2, "before": 1, "beats": 3, "after": 2}
    fields: dict[str, Any] = {"rows": 60, "d_words": 1, "descriptor": nest(D_AT, 12)} | changes
    frame = {name: fields.pop(name, value) for name, value in frame.items()}
    return load_d(frame=frame, **fields)


FAULTS = {
    "opcode": (b"\x09" + bytes(63), Fault.MALFORMED, 0),
    "unknown queue": (b"\x50" + bytes(63), Fault.MALFORMED, 0),
    "own wait": (nop(Queue.STORE, wait=FROM_STORE), Fault.MALFORMED, 0),
    "own signal": (load_d(8, 1, signal=TO_LOAD), Fault.MALFORMED, 0),
    "early finish": (encode(Opcode.FINISH), Fault.MALFORMED, 0),
    "load target": (bytes([1, 0, 0, 0, 5, *load_d(8, 1)[5:]]), Fault.MALFORMED, 0),
    "load no rows": (load_d(0, 1), Fault.MALFORMED, 0),
    "load no words": (load_d(1, 0), Fault.MALFORMED, 0),
    "load ragged S": (load_s(TINY, Pattern.DENSE, 17, 1), Fault.MALFORMED, 0),
    "load ragged tiles": (load_d(8, 2, order=LoadOrder.TILES), Fault.MALFORMED, 0),
    "load ragged transpose": (load_d(8, 1, transpose=1), Fault.MALFORMED, 0),
    "load sparse transpose": (
        load_s(TINY, Pattern.N2M4, 16, 1, transpose=1), Fault.MALFORMED, 0),
    "load other size": (load_d(8, 1, descriptor=nest(D_AT, 9)), Fault.MALFORMED, 0),
    "load count": (load_d(8, 1, descriptor=nest(D_AT, 8, 0)), Fault.MALFORMED, 0),
    "load address": (load_d(8, 1, descriptor=nest(D_AT + 8, 8)), Fault.MALFORMED, D_AT + 8),
    "load stride": (
        load_d(8, 1, descriptor=nest(D_AT, 4, 2, strides=(48,))), Fault.MALFORMED, D_AT),
    "load pattern": (load_s(TINY, Pattern.N2M16, 16, 1), Fault.PATTERN, 0),
    "load S range": (
        load_s(TINY, Pattern.DENSE, 16, 16, base=1), Fault.SCRATCHPAD_RANGE, 1),
    "load D range": (load_d(126, 1, base=2), Fault.SCRATCHPAD_RANGE, 2),
    "load AUX range": (
        load_stream(LoadTarget.AUX, AUX_AT, 4, base=61), Fault.SCRATCHPAD_RANGE, 61),
    "load frame no images": (framed_load(images=0), Fault.MALFORMED, 0),
    "load frame no lines": (framed_load(lines=0), Fault.MALFORMED, 0),
    "load frame no beats": (framed_load(beats=0), Fault.MALFORMED, 0),
    "load frame of nothing": (load_d(8, 1, frame={"above": 1}), Fault.MALFORMED, 0),
    "load frame other descriptor": (framed_load(images=3, rows=90), Fault.MALFORMED, 0),
    "load frame other operand": (framed_load(after=1), Fault.MALFORMED, 0),
    "load frame of a long line": (
        framed_load(images=1, above=0, lines=1, below=0, before=65535, beats=1, after=0,
                    rows=16384, d_words=4, descriptor=nest(D_AT, 1)), Fault.MALFORMED, 0),
    "load frame of a high image": (
        framed_load(images=1, above=1, lines=65535, below=0, before=0, beats=1, after=0,
                    rows=16384, d_words=4, descriptor=nest(D_AT, 65535)), Fault.MALFORMED, 0),
    "load frame D range": (framed_load(base=41), Fault.SCRATCHPAD_RANGE, 41),
    "load frame ragged transpose": (framed_load(above=2, rows=84, transpose=1),
        Fault.MALFORMED, 0),
    "load frame pattern": (
        load_s(TINY, Pattern.N2M16, 16, 1, frame={"lines": 1}), Fault.MALFORMED, 0),
    "load frame beyond": (
        framed_load(descriptor=nest(TOP - 32 * 7, 12)), Fault.ADDRESS_RANGE, TOP),
    "load beyond": (
        load_d(8, 1, descriptor=nest(TOP - 64, 8)), Fault.ADDRESS_RANGE, TOP),
    "load below": (
        load_d(8, 1, descriptor=nest(64, 1, 8, strides=(-32,))),
        Fault.ADDRESS_RANGE, (1 << 64) - 32),
    "compute nothing": (compute(TINY, 0), Fault.MALFORMED, 0),
    "compute no a": (compute(TINY, 1, a_tiles=0), Fault.MALFORMED, 0),
    "compute no b": (compute(TINY, 1, b_tiles=0), Fault.MALFORMED, 0),
    "compute keep": (compute(TINY, 1, keep=1), Fault.MALFORMED, 0),
    "compute keep and accumulate": (
        compute(TINY, 1, a_tiles=1, keep=1, accumulate=1), Fault.MALFORMED, 0),
    "compute accumulate overlapping": (
        compute(TINY, 1, accumulate=1, o_stride=1), Fault.MALFORMED, 0),
    "compute contexts": (compute(TINY, 1, a_tiles=1, a_contexts=3), Fault.MALFORMED, 0),
    "compute a padding": (compute(TINY, 1, a_contexts=1, a_padding=16), Fault.MALFORMED, 0),
    "compute b padding": (
        compute(TINY, 1, a_contexts=1, b_tiles=2, b_padding=8), Fault.MALFORMED, 0),
    "compute tail chunks": (compute(TINY, 1, tail_chunks=2), Fault.MALFORMED, 0),
    "compute tail entries": (
        compute(TINY, 1, pattern=Pattern.N2M8, tail_entries=3), Fault.MALFORMED, 0),
    "compute other contexts": (
        compute(TINY, 1, a_tiles=1, a_contexts=1, keep=1)
        + compute(TINY, 1, a_tiles=1, a_contexts=2), Fault.MALFORMED, 0),
    "compute contexts S range": (
        compute(TINY, 1, a_contexts=2, s_base=61), Fault.SCRATCHPAD_RANGE, 61),
    "compute contexts D range": (
        compute(TINY, 1, a_contexts=2, d_base=60, b_tiles=5), Fault.SCRATCHPAD_RANGE, 60),
    "compute contexts O range": (
        compute(TINY, 1, a_contexts=2, o_base=55, b_tiles=5), Fault.SCRATCHPAD_RANGE, 55),
    "compute pattern": (compute(TINY, 1, pattern=Pattern.N2M16), Fault.PATTERN, 0),
    "compute S range": (compute(TINY, 1, s_base=61), Fault.SCRATCHPAD_RANGE, 61),
    "compute D range": (compute(TINY, 1, d_base=61), Fault.SCRATCHPAD_RANGE, 61),
    "compute O range": (compute(TINY, 1, o_base=57), Fault.SCRATCHPAD_RANGE, 57),
    "compute no rounds of rows": (
        compute(TINY, 1, d_rows=walk((4, 1), (0, 1))), Fault.MALFORMED, 0),
    "compute no rounds of the reduction": (
        compute(TINY, 1, d_reduction=walk((1, 1), (1, 1), (0, 1))), Fault.MALFORMED, 0),
    "compute rounds before the pattern": (
        compute(TINY, 1, pattern=Pattern.N2M16, d_rows=walk((0, 1))), Fault.MALFORMED, 0),
    "compute rows above D": (
        compute(TINY, 1, d_base=1, d_rows=walk((4, 1), (2, 20), (3, 20))),
        Fault.SCRATCHPAD_RANGE, 1),
    "compute rows below D": (
        compute(TINY, 1, d_base=2, d_rows=walk((4, 10), (4, -1))), Fault.SCRATCHPAD_RANGE, 2),
    "compute reduction above D": (
        compute(TINY, 1, d_base=60, d_reduction=walk((2, 1))), Fault.SCRATCHPAD_RANGE, 60),
    "compute reduction below D": (
        compute(TINY, 1, d_base=2, d_reduction=walk((2, -1), (3, -1))),
        Fault.SCRATCHPAD_RANGE, 2),
    "compute far above D": (
        compute(TINY, 1, d_rows=walk(*[(65535, 32767)] * 3)), Fault.SCRATCHPAD_RANGE, 0),
    "compute far below D": (
        compute(TINY, 1, d_base=63, d_rows=walk(*[(65535, -32768)] * 3),
                d_reduction=walk(*[(65535, -32768)] * 3)), Fault.SCRATCHPAD_RANGE, 63),
    "compute walks that meet": (
        compute(TINY, 1, d_base=2, d_rows=walk((4, 20)), d_reduction=walk((2, 2))),
        Fault.SCRATCHPAD_RANGE, 2),
    "compute S before D": (
        compute(TINY, 1, s_base=61, d_base=64), Fault.SCRATCHPAD_RANGE, 61),
    "compute D before O": (
        compute(TINY, 1, d_base=61, o_base=64), Fault.SCRATCHPAD_RANGE, 61),
    "compute overrun": (
        compute(TINY, 16, a_tiles=1, s_base=1, keep=1) + compute(TINY, 1, a_tiles=1, s_base=2),
        Fault.OVERRUN, 2),
    "store no rows": (store(0, 2), Fault.MALFORMED, 0),
    "store no words": (store(2, 0), Fault.MALFORMED, 0),
    "store odd words": (
        store(2, 3, descriptor=nest(OUT_AT, 3)), Fault.MALFORMED, 0),
    "store binary32 mask": (store(2, 2, convert=False, mask=1), Fault.MALFORMED, 0),
    "store other size": (store(2, 2, descriptor=nest(OUT_AT, 3)), Fault.MALFORMED, 0),
    "store compressed binary32": (
        store(16, 2, convert=False, compress=1, pattern=Pattern.DENSE), Fault.MALFORMED, 0),
    "store ragged tiles": (
        store(24, 2, compress=1, pattern=Pattern.N2M8, descriptor=nest(OUT_AT, 5)),
        Fault.MALFORMED, 0),
    "store other tiles": (
        store(16, 2, compress=1, pattern=Pattern.N2M8, descriptor=nest(OUT_AT, 16)),
        Fault.MALFORMED, 0),
    "store pattern": (store(16, 2, compress=1, pattern=Pattern.N2M16), Fault.PATTERN, 0),
    "store compressed mask range": (
        store(16, 2, compress=1, pattern=Pattern.N2M8, mask=1, mask_base=49),
        Fault.SCRATCHPAD_RANGE, 49),
    "store binary32 add": (store(2, 2, convert=False, add=1), Fault.MALFORMED, 0),
    "store add range": (
        store(8, 2, add=1, add_base=57, mask=1, mask_base=58), Fault.SCRATCHPAD_RANGE, 57),
    "store compressed add range": (
        store(16, 2, compress=1, pattern=Pattern.N2M8, add=1, add_base=49),
        Fault.SCRATCHPAD_RANGE, 49),
    "store O range": (store(8, 2, o_base=57), Fault.SCRATCHPAD_RANGE, 57),
    "store bias range": (
        store(8, 4, o_base=0, bias=1, bias_base=63), Fault.SCRATCHPAD_RANGE, 63),
    "store mask range": (store(8, 2, mask=1, mask_base=57), Fault.SCRATCHPAD_RANGE, 57),
    "store address": (
        store(8, 2, descriptor=nest(OUT_AT + 16, 8)), Fault.MALFORMED, OUT_AT + 16),
    "store beyond": (
        store(8, 2, descriptor=nest(TOP - 96, 1, 8, strides=(64,))),
        Fault.ADDRESS_RANGE, TOP + 32),
    "update no tiles": (encode(Opcode.UPDATE, **UPDATE | {"tiles": 0}), Fault.MALFORMED, 0),
    "update no rows": (encode(Opcode.UPDATE, **UPDATE | {"rows": 0}), Fault.MALFORMED, 0),
    "update rows": (encode(Opcode.UPDATE, **UPDATE | {"rows": 17}), Fault.MALFORMED, 0),
    "update sparse vector": (
        encode(Opcode.UPDATE, row_copy=1, row_pattern=Pattern.N2M16, **UPDATE | {"rows": 1}),
        Fault.MALFORMED, 0),
    "update column of vector": (
        encode(Opcode.UPDATE, column_copy=1, **UPDATE | {"rows": 1}), Fault.MALFORMED, 0),
    "update row pattern": (
        encode(Opcode.UPDATE, row_copy=1, row_pattern=Pattern.N2M16, **UPDATE), Fault.PATTERN, 0),
    "update column pattern": (
        encode(Opcode.UPDATE, column_copy=1, column_pattern=Pattern.N2M16, **UPDATE),
        Fault.PATTERN, 0),
    "update O range": (
        encode(Opcode.UPDATE, o_base=49, **UPDATE), Fault.SCRATCHPAD_RANGE, 64),
    "update address": (
        load_stream(LoadTarget.STATE, STATE_AT, 64)
        + encode(Opcode.UPDATE, **UPDATE | {"state_address": STATE_AT + 4}),
        Fault.MALFORMED, STATE_AT + 4),
    "update beyond": (
        load_stream(LoadTarget.STATE, STATE_AT, 128)
        + encode(Opcode.UPDATE, row_copy=1, row_address=TOP - 512, row_stride=1024,
                 **UPDATE | {"tiles": 2}),
        Fault.ADDRESS_RANGE, TOP + 512),
}  # fmt: skip


@pytest.mark.parametrize(("command", "code", "address"), FAULTS.values(), ids=FAULTS)
def test_faults_stop_the_program(command: bytes, code: Fault, address: int) -> None:
    machine = Machine(TINY)
    put(machine, OUT_AT, np.full(0x1000, 0xA5, np.uint8))
    before = machine.memory[0x1000:].copy()
    result = run(machine, nop(Queue.LOAD), command)
    place = len(command) // 64
    assert (result.finished, result.hung) == (False, False)
    assert (result.fault, result.fault_command, result.fault_address) == (code, place, address)
    if address not in (TOP + 32, TOP + 512):
        assert np.array_equal(machine.memory[0x1000:], before)
    with pytest.raises(RuntimeError, match="reset"):
        machine.run(PROGRAM, 1)
    machine.reset()
    assert run(machine, nop(Queue.LOAD)).finished


def test_limits_themselves_are_no_faults() -> None:
    """Scratchpads filled to their last word, and 64 additions where the accumulator allows 64."""
    machine = Machine(TINY)
    long = {"a_tiles": 1, "keep": 1}
    assert run(
        machine,
        load_s(TINY, Pattern.DENSE, 16, 1, base=60),
        load_d(126, 1, base=1),
        load_stream(LoadTarget.AUX, AUX_AT, 4, base=60, signal=TO_COMPUTE),
        compute(TINY, 1, s_base=60, d_base=60, o_base=56, wait=FROM_LOAD),
        compute(TINY, 1, s_base=60, d_base=59, o_base=54, a_contexts=2, b_tiles=5,
                a_padding=15, b_padding=9, tail_chunks=1, tail_entries=8),
        compute(TINY, 1, d_base=1, d_rows=walk((4, 20)), d_reduction=walk((2, 2))),
        compute(TINY, 1, d_base=63, d_rows=walk((4, -1), (11, -4)), d_reduction=walk((21, -1))),
        compute(TINY, 1, ones=1, d_base=65535, d_rows=walk((0, 9)),
                d_reduction=walk((65535, -32768))),
        compute(TINY, 15, **long),
        compute(TINY, 1, a_tiles=1),
        compute(TINY, 16, **long),
        store(8, 2, o_base=56, bias=1, bias_base=63, add=1, add_base=56, mask=1, mask_base=56),
        framed_load(base=34),
        load_stream(LoadTarget.STATE, TOP - 2048, 64),
        encode(Opcode.UPDATE, o_base=48, **UPDATE | {"state_address": TOP - 2048}),
    ).finished  # fmt: skip


def test_writes_before_an_address_out_of_range_land() -> None:
    machine = Machine(TINY)
    machine.memory[:] = 0xA5
    result = run(machine, store(8, 2, descriptor=nest(TOP - 96, 1, 8, strides=(64,))))
    assert (result.fault, result.counters["WRITE_BEATS"]) == (Fault.ADDRESS_RANGE, 2)
    assert get(machine, TOP - 96, (3, 32), np.uint8).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("address", "commands", "code", "at", "index"),
    [
        (8, 1, Fault.MALFORMED, 8, 0),
        (TOP - 64, 2, Fault.ADDRESS_RANGE, TOP, 1),
        (0, 0, Fault.MALFORMED, 0, 0),
        (0, 2, Fault.MALFORMED, 0, 2),
    ],
)
def test_faults_of_the_fetch(address: int, commands: int, code: Fault, at: int, index: int) -> None:
    machine = Machine(TINY)
    result = machine.run(address, commands)
    assert (result.fault, result.fault_address, result.fault_command) == (code, at, index)


def test_reset_forgets_kept_sums_and_leaves_memory() -> None:
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    load = [load_s(TINY, Pattern.DENSE, 16, 1), load_d(8, 1, signal=TO_COMPUTE)]
    keep = compute(TINY, 1, a_tiles=1, keep=1, wait=FROM_LOAD)
    assert run(machine, *load, keep, nop(Queue.COMPUTE, wait=FROM_STORE)).hung
    machine.reset()
    assert run(
        machine,
        compute(TINY, 1, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE, convert=False),
    ).finished
    assert np.array_equal(get(machine, OUT_AT, (8, 16), np.uint32), dot(s, d))


def test_kept_sums_outlive_a_program() -> None:
    machine = Machine(TINY)
    s, d = operands(machine, Pattern.DENSE, d_words=1)
    load = [load_s(TINY, Pattern.DENSE, 16, 1), load_d(8, 1, signal=TO_COMPUTE)]
    assert run(machine, *load, compute(TINY, 1, a_tiles=1, keep=1, wait=FROM_LOAD)).finished
    assert run(
        machine,
        compute(TINY, 1, signal=TO_STORE),
        store(8, 2, wait=FROM_COMPUTE, convert=False),
    ).finished
    result = get(machine, OUT_AT, (8, 16), np.uint32)
    assert np.array_equal(result[:, :4], dot(np.tile(s, 2), np.tile(d, 2))[:, :4])
    assert np.array_equal(result[:, 4:], dot(s, d)[:, 4:])
