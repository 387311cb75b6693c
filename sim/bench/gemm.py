"""Matrix products on the Verilated card: cycles, and where the MAC slots go.

A first program loads the operands into the scratchpads, which are made deep enough for that; a
second one is a COMPUTE alone, whose counters are the figures; a third stores the result, which must
be that of the golden model bit for bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver
from firmware.program import Program, descriptor, product
from rtl.config import ACCUMULATOR_BINS, Config, preset
from rtl.control.commands import LoadTarget, Stage
from rtl.sparsity.pattern import Pattern
from sim.golden.arithmetic import dot
from sim.golden.sparsity import pack_tiles, prune

from .slots import account

__all__ = ["QUICK_SHAPES", "SHAPES", "Shape", "config_for", "measure", "stationary_cycles"]

Halves = NDArray[np.uint16]

SIMULATED_MACS = 256
"""Size of the array that the speed of simulation is told of."""

_LONGEST = 100_000_000
"""Cycles that a program may take."""


@dataclass(frozen=True)
class Shape:
    """A product ``O[m, n] = D[m, k] S[n, k]^T`` on a preset's array.

    Parameters
    ----------
    preset
        Configuration whose array it runs on.
    m, n, k
        Rows of the dense operand D, rows of the operand S, and length of the reduction.
    pattern
        N:M pattern of S.
    a_contexts
        Binary logarithm of the contexts along n; None for what the host would choose.
    """

    preset: str
    m: int
    n: int
    k: int
    pattern: str
    a_contexts: int | None = None


def _every(name: str, *sizes: tuple[int, int, int], patterns: Iterable[str]) -> list[Shape]:
    return [Shape(name, *size, pattern) for size in sizes for pattern in patterns]


_PATTERNS_OF_8 = ("dense", "1:4", "2:4", "1:8", "2:8", "4:8")

SHAPES = (
    *_every("sim", (1024, 1024, 1024), patterns=("dense", "2:8")),
    *_every("sim", (512, 512, 512), patterns=_PATTERNS_OF_8),
    # Short reductions.
    *_every("sim", (1024, 1024, 64), (1024, 1024, 128), patterns=("dense", "2:8")),
    # Few rows, with the contexts along either operand.
    *(
        Shape("sim", 64, 1024, 1024, pattern, a_contexts)
        for pattern in ("dense", "2:8")
        for a_contexts in (0, 1, 2)
    ),
    *(Shape("sim", 8, 1024, 1024, "2:8", a_contexts) for a_contexts in (0, 1, 2)),
    # Edges on all sides.
    Shape("sim", 1, 1, 1, "dense"),
    Shape("sim", 100, 75, 200, "dense"),
    Shape("sim", 301, 130, 345, "2:8"),
    *_every("sim-8x", (512, 512, 512), patterns=("dense", "2:8", "1:8", "2:16")),
    *_every("sim-wide", (512, 512, 512), patterns=("dense", "2:8")),
    *_every("vcu1525", (1024, 1024, 1024), (1024, 1024, 64), patterns=("2:8",)),
    *(Shape("vcu1525", 64, 1024, 1024, "2:8", a_contexts) for a_contexts in (0, 1)),
)
"""What ``python -m sim.bench`` measures."""

QUICK_SHAPES = (
    *_every("tiny", (32, 32, 32), patterns=("dense", "2:8")),
    Shape("tiny", 13, 21, 37, "1:4"),
    Shape("tiny", 1, 1, 1, "dense"),
)
"""A few that take seconds, and fit the preset as it is."""


def _depth(words: int) -> int:
    return max(16, 1 << (words - 1).bit_length())


def config_for(name: str, shapes: Sequence[Shape]) -> Config:
    """Return the preset `name`, its scratchpads made as deep as the operands of `shapes` need."""
    config = preset(name)
    s_words, d_words, o_words = [config.s_depth], [config.d_depth], [config.o_depth]
    for shape in shapes:
        pattern = Pattern.parse(shape.pattern)
        words = -(-shape.k // config.elements)
        a = _padded(shape.n, max(config.elements, config.rows * config.interleave))
        b = _padded(shape.m, config.cols * config.interleave)
        s_words.append(a // config.rows * pattern.words_per_row(config, words))
        d_words.append(b // config.cols * words)
        o_words.append(b // config.cols * _o_stride(config, shape))
    deep = dataclasses.replace(
        config,
        s_depth=_depth(max(s_words)),
        d_depth=_depth(max(d_words)),
        o_depth=_depth(max(o_words)),
    )
    if deep == config:
        return config
    return dataclasses.replace(deep, name=f"{name}-deep", memory_bytes=1 << 26)


def _padded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _o_stride(config: Config, shape: Shape) -> int:
    """Return the O words of a row of the result."""
    return _padded(shape.n, max(config.elements, config.rows * config.interleave)) // config.floats


def _operand(random: np.random.Generator, rows: int, length: int) -> Halves:
    """Return random binary16 numbers, a few of them subnormal."""
    values = random.standard_normal((rows, length)).astype(np.float16)
    values[random.random(values.shape) < 0.01] *= np.float16(1e-6)
    return values.view(np.uint16)


def run(driver: Driver, shape: Shape, seed: int = 0) -> dict[str, Any]:
    """Run one product; return its figures.

    Raises
    ------
    AssertionError
        The result isn't that of the golden model, or slots don't add up.
    """
    config, card = driver.config, driver.card
    pattern = Pattern.parse(shape.pattern)
    g = config.elements
    random = np.random.default_rng([seed, shape.m, shape.n, shape.k])
    words = -(-shape.k // g)
    s = np.zeros((_padded(shape.n, g), words * g), np.uint16)
    d = np.zeros((shape.m, words * g), np.uint16)
    s[: shape.n, : shape.k] = _operand(random, shape.n, shape.k)
    d[:, : shape.k] = _operand(random, shape.m, shape.k)
    s = prune(s, pattern)
    tiles = pack_tiles(s, pattern, config)
    o_words = _padded(shape.n, config.floats) // config.floats
    stride = _o_stride(config, shape)

    addresses = [driver.memory.allocate(size) for size in (
        tiles.size, d.nbytes, shape.m * o_words * config.beat_bytes
    )]  # fmt: skip
    s_address, d_address, o_address = addresses
    card.write_memory(s_address, tiles)
    card.write_memory(d_address, np.ascontiguousarray(d).reshape(-1).view(np.uint8))

    load = Program(config, "operands")
    load.load(
        LoadTarget.S, Stage.FF, pattern=pattern, rows=len(s), d_words=words,
        descriptor=_descriptor(config, s_address, tiles.size // config.beat_bytes, len(s) // g),
    )  # fmt: skip
    load.load(
        LoadTarget.D, Stage.FF, rows=shape.m, d_words=words,
        descriptor=_descriptor(config, d_address, shape.m * words, shape.m),
    )  # fmt: skip
    compute = Program(config, "product")
    fields = product(config, pattern, a=shape.n, b=shape.m, k=shape.k, a_contexts=shape.a_contexts)
    compute.compute(Stage.FF, o_stride=stride, **fields)
    store = Program(config, "result")
    store.store(
        Stage.FF, o_stride=stride, rows=shape.m, words=o_words,
        descriptor=_descriptor(config, o_address, shape.m * o_words, shape.m),
    )  # fmt: skip

    driver.run(load, _LONGEST)
    started = time.monotonic()
    counters = driver.run(compute, _LONGEST).counters
    seconds = time.monotonic() - started
    driver.run(store, _LONGEST)
    size = shape.m * o_words * config.beat_bytes
    result = card.read_memory(o_address, size).view(np.uint32).reshape(shape.m, -1)[:, : shape.n]
    for program in (load, compute, store):
        driver.unload(program)
    for address in addresses:
        driver.memory.free(address)

    wrong = np.count_nonzero(result != dot(s, d)[:, : shape.n])
    assert not wrong, f"{shape}: {wrong} of {result.size} results differ from the golden model"
    useful = counters["USEFUL_MACS"]
    shares = account(shape, counters, config.macs)
    expected = shape.m * shape.n * _entries(shape.k, pattern)
    assert useful == expected, f"{shape}: {useful} useful MACs, expected {expected}"
    return {
        **dataclasses.asdict(shape),
        "a_contexts": fields["a_contexts"],
        "macs": config.macs,
        "cycles": counters["CYCLES"],
        "useful": useful,
        "utilisation": shares["utilisation"],
        "allowed": round(useful / (_fewest_cycles(config, fields) * config.macs), 5),
        "stationary": round(useful / (stationary_cycles(config, shape) * config.macs), 5),
        "lost": shares["lost"],
        "seconds": round(seconds, 3),
    }


def _fewest_cycles(config: Config, fields: dict[str, Any]) -> int:
    """Return the cycles that a product takes without filling: all its slots, or all its drains.

    While a tile is multiplied the one before it is drained, a context in as many cycles as there
    are rows to one way out, and at least one for each bin; again whenever the bins may be full.
    """
    words = fields["d_words"] * fields["pattern"].steps(config)
    drains = -(-words // config.bin_additions) * max(ACCUMULATOR_BINS, config.drain_rows)
    return fields["a_tiles"] * fields["b_tiles"] * config.interleave * max(words, drains)


def stationary_cycles(config: Config, shape: Shape) -> int:
    """Return the cycles that a weight-stationary dataflow would take on this array, at best.

    Each processing element holds an S word while the rows of D pass; sums go down the chain of
    those on one way out, which passes on one a cycle. A chain holds S words of one row of S, which
    takes several passes if there are more, whose sums are assumed to be kept at no cost. While rows
    pass, the next S words are loaded, one a cycle for each chain. Filling isn't counted.
    """
    pattern = Pattern.parse(shape.pattern)
    words = -(-shape.k // config.elements) * pattern.steps(config)
    passes = shape.n * -(-words // config.drain_rows)
    rounds = -(-passes // (config.cols * config.exits))
    return rounds * max(shape.m, min(words, config.drain_rows))


def _entries(k: int, pattern: Pattern) -> int:
    """Return the entries that a row of S has along a reduction of length `k`."""
    return pattern.n * -(-k // pattern.m)


def _descriptor(config: Config, address: int, beats: int, rows: int) -> dict[str, Any]:
    """Describe contiguous beats, of which a loop counts at most 65,535."""
    if beats < 1 << 16:
        return descriptor(config, address, beats)
    row = beats // rows
    return descriptor(config, address, row, (rows, row * config.beat_bytes))


def _speed(results: Sequence[dict[str, Any]]) -> float:
    """Return cycles per second of the longest run that multiplies nearly all the time."""
    longest = max(results, key=lambda result: result["cycles"])
    return float(round(longest["cycles"] / longest["seconds"]))


def measure(shapes: Sequence[Shape], progress: Callable[[str], None]) -> dict[str, Any]:
    """Run products.

    Returns
    -------
    ``gemm``, a list, and ``simulation``: cycles per second while multiplying, of each preset and,
    at its top, of the first that has `SIMULATED_MACS`.
    """
    results: list[dict[str, Any]] = []
    speeds: dict[str, Any] = {}
    for name in dict.fromkeys(shape.preset for shape in shapes):
        own = [shape for shape in shapes if shape.preset == name]
        config = config_for(name, own)
        progress(f"build {name}, {config.macs} MACs")
        with VerilatedCard(config) as card:
            driver = Driver(card)
            measured = []
            for shape in own:
                progress(f"{name}: {shape.m} x {shape.n} x {shape.k}, {shape.pattern}")
                measured.append(run(driver, shape))
        speeds[name] = {"macs": config.macs, "cycles_per_second": _speed(measured)}
        results += measured
    chosen = next((s for s in speeds.values() if s["macs"] == SIMULATED_MACS), None)
    return {
        "gemm": results,
        "simulation": (chosen or next(iter(speeds.values()))) | {"presets": speeds},
    }
