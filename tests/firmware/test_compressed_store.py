"""A drained tensor, compressed along its channels, is the S operand of the next product."""

import numpy as np
import pytest

from firmware.errors import CardFault
from firmware.program import Program, descriptor, matrix_walks
from rtl.config import PRESETS, Config
from rtl.control.commands import LoadTarget, Stage
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.arithmetic import dot, is_finite
from sim.golden.engine import epilogue
from sim.golden.sparsity import pack_tiles
from tests.harness import default_seed

TINY = PRESETS["tiny"]
G = TINY.elements
PIXELS, INPUTS, CHANNELS, OUTPUTS = 2 * G, G, 2 * G, G
WEIGHTS, X, AUX, COMPRESSED, Z, RESULT = range(0x8000, 0x20000, 0x4000)


def kept(group: list[int], n: int) -> list[int]:
    """Return which of a group's bit patterns stay: the contract, word by word."""
    magnitude = [min(value & 0x7FFF, 0x7C01) for value in group]
    ranking = sorted(range(len(group)), key=lambda index: (-magnitude[index], index))
    return sorted(ranking[:n])


def tile_in_memory(tile: np.ndarray, pattern: Pattern, config: Config) -> bytes:
    """Return a tile of G rows by one D word as docs/architecture.md lays it out, value by value."""
    g, lanes, ratio = config.elements, config.lanes, config.ratio
    if pattern is Pattern.DENSE:
        return b"".join(int(value).to_bytes(2, "little") for value in tile.ravel())
    lam, steps = config.group // ratio, pattern.steps(config)
    values = [[0] * g for _ in range(g * steps // ratio)]
    nibbles = [[0] * g for _ in values]
    for row in range(g):
        for chunk in range(g // config.group):
            entries = []
            for start in range(0, config.group, pattern.m):
                first = chunk * config.group + start
                group = [int(value) for value in tile[row, first : first + pattern.m]]
                entries += [(group[i], start + i) for i in kept(group, pattern.n)]
            for entry, (value, index) in enumerate(entries):
                word = row * steps + entry // lam
                place = lanes * (word % ratio) + lam * chunk + entry % lam
                values[word // ratio][place] = value
                nibbles[word // ratio][place] = index
    memory = b""
    for first in range(0, len(values), 4):
        described = [nibble for beat in nibbles[first : first + 4] for nibble in beat]
        bits = sum(nibble << 4 * place for place, nibble in enumerate(described))
        memory += bits.to_bytes(config.beat_bytes, "little")
        for beat in values[first : first + 4]:
            memory += b"".join(value.to_bytes(2, "little") for value in beat)
    return memory


def tiles_in_memory(matrix: np.ndarray, pattern: Pattern, config: Config) -> bytes:
    g = config.elements
    return b"".join(
        tile_in_memory(matrix[row : row + g, column : column + g], pattern, config)
        for row in range(0, matrix.shape[0], g)
        for column in range(0, matrix.shape[1], g)
    )


def pruned(matrix: np.ndarray, pattern: Pattern) -> np.ndarray:
    result = np.zeros_like(matrix)
    for row, values in enumerate(matrix):
        for start in range(0, len(values), pattern.m):
            for index in kept([int(v) for v in values[start : start + pattern.m]], pattern.n):
                result[row, start + index] = values[start + index]
    return result


def rows_of(address: int, rows: int, words: int):
    return descriptor(TINY, address, rows * words)


def program(pattern: Pattern, **steps: int) -> Program:
    """``Y = X W`` through the epilogue to memory, compressed; from there ``R = Z Y'``."""
    result = Program(TINY, "compressed store")
    words, tile = CHANNELS // G, pattern.tile_beats(TINY)
    result.load(
        LoadTarget.S, Stage.FF, pattern=Pattern.DENSE, rows=CHANNELS, d_words=1,
        descriptor=rows_of(WEIGHTS, CHANNELS, 1),
    )  # fmt: skip
    result.load(
        LoadTarget.D, Stage.FF, pattern=Pattern.DENSE, rows=PIXELS, d_words=1,
        descriptor=rows_of(X, PIXELS, 1),
    )  # fmt: skip
    aux = words if steps.get("bias") else PIXELS * words
    result.load(LoadTarget.AUX, Stage.FF, rows=aux, d_words=1, descriptor=rows_of(AUX, aux, 1))
    result.compute(
        Stage.FF, pattern=Pattern.DENSE, d_words=1, o_stride=2 * words,
        a_tiles=CHANNELS // TINY.rows, b_tiles=PIXELS // (TINY.cols * TINY.interleave),
        **matrix_walks(PIXELS // TINY.cols, 1),
    )  # fmt: skip
    blocks = PIXELS // G
    tiles = rows_of(COMPRESSED, blocks, words * tile)
    result.store(
        Stage.FF, o_stride=2 * words, rows=PIXELS, words=2 * words, convert=1, compress=1,
        pattern=pattern, descriptor=tiles, **steps,
    )  # fmt: skip
    result.load(
        LoadTarget.S, Stage.BP, pattern=pattern, rows=PIXELS, d_words=words, descriptor=tiles
    )
    result.load(
        LoadTarget.D, Stage.BP, pattern=Pattern.DENSE, rows=OUTPUTS, d_words=words,
        descriptor=rows_of(Z, OUTPUTS, words),
    )  # fmt: skip
    result.compute(
        Stage.BP, pattern=pattern, d_words=words, o_stride=2 * blocks,
        a_tiles=PIXELS // TINY.rows, b_tiles=OUTPUTS // (TINY.cols * TINY.interleave),
        **matrix_walks(OUTPUTS // TINY.cols, words),
    )  # fmt: skip
    result.store(
        Stage.BP, o_stride=2 * blocks, rows=OUTPUTS, words=2 * blocks,
        descriptor=rows_of(RESULT, OUTPUTS, 2 * blocks),
    )  # fmt: skip
    return result


@pytest.mark.parametrize("steps", [("bias", "relu"), ("mask",), ("add", "relu"), ("add", "mask")])
@pytest.mark.parametrize("pattern", supported_patterns(TINY), ids=str)
def test_compressed_store_is_the_next_operand(driver, pattern, steps):
    seed = default_seed()
    random = np.random.default_rng([seed, pattern.value, *map(len, steps)])

    def operand(rows, columns):
        # Few values, so that many magnitudes tie.
        return random.integers(-2, 3, (rows, columns)).astype(np.float16).view(np.uint16)

    weights, x, z = operand(CHANNELS, INPUTS), operand(PIXELS, INPUTS), operand(OUTPUTS, CHANNELS)
    # A pixel of infinities and NaNs, one of zeros, one beyond binary16.
    x[3, 0], x[5], x[G + 1] = 0x7C00, 0, 0x7BFF
    aux = operand(1 if "bias" in steps else PIXELS, CHANNELS)
    card = driver.card
    for address, values in ((X, x), (AUX, aux), (Z, z)):
        card.write_memory(address, values.reshape(-1).view(np.uint8))
    card.write_memory(WEIGHTS, pack_tiles(weights, Pattern.DENSE, TINY))
    size = PIXELS * CHANNELS // G**2 * pattern.tile_beats(TINY) * TINY.beat_bytes
    card.write_memory(COMPRESSED, np.full(size + TINY.beat_bytes, 0xA5, np.uint8))

    result = driver.run(program(pattern, **dict.fromkeys(steps, 1)), 200_000)

    y = epilogue(
        dot(weights, x),
        bias=aux[0] if "bias" in steps else None,
        addend=aux if "add" in steps else None,
        relu="relu" in steps,
        mask=aux if "mask" in steps else None,
    )
    assert not is_finite(y).all() and len(np.unique(y[0])) < CHANNELS
    memory = card.read_memory(COMPRESSED, size + TINY.beat_bytes)
    assert memory[:size].tobytes() == tiles_in_memory(y, pattern, TINY), f"seed {seed}"
    np.testing.assert_array_equal(memory[:size], pack_tiles(y, pattern, TINY))
    assert (memory[size:] == 0xA5).all()
    product = card.read_memory(RESULT, OUTPUTS * PIXELS * 4).view(np.uint32)
    expected = dot(pruned(y, pattern), z)
    np.testing.assert_array_equal(product.reshape(expected.shape), expected, f"seed {seed}")
    assert result.counters["NONFINITE"] == np.count_nonzero(~is_finite(y)) + np.count_nonzero(
        expected & 0x7F800000 == 0x7F800000
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pattern": Pattern.N2M16}, "PATTERN"),
        ({"pattern": Pattern.N4M8}, "MALFORMED"),
        ({"rows": G + TINY.cols}, "MALFORMED"),
        ({"convert": 0}, "MALFORMED"),
        ({"o_base": TINY.o_depth - 1}, "SCRATCHPAD_RANGE"),
    ],
)
def test_results_that_cannot_be_compressed(driver, change, code):
    """They are refused before memory is touched, and the card works after a reset."""
    before = np.full(0x1000, 0xA5, np.uint8)
    driver.card.write_memory(COMPRESSED, before)
    body = {
        "o_stride": 2, "rows": G, "words": 2, "convert": 1, "compress": 1, "pattern": Pattern.N2M8,
        "descriptor": rows_of(COMPRESSED, 1, Pattern.N2M8.tile_beats(TINY)),
    }  # fmt: skip
    for fields, fault in ((body | change, code), (body, None)):
        commands = Program(TINY, "store")
        commands.store(Stage.BP, **fields)
        if fault:
            with pytest.raises(CardFault, match=fault):
                driver.run(commands)
            np.testing.assert_array_equal(driver.card.read_memory(COMPRESSED, 0x1000), before)
            driver.reset()
        else:
            assert driver.run(commands).counters["WRITE_BEATS"] == 5


def test_program_shows_what_is_compressed():
    *_, store, _, _, _, _, _ = program(Pattern.N2M8, relu=1).listing().splitlines()
    assert "STORE   FF" in store and "compress=1 pattern=2:8" in store
    assert "signal:LOAD" in store
