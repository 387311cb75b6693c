"""The N:M reducer against the golden model."""

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import Config, preset
from rtl.sparsity.pattern import Pattern, supported_patterns
from rtl.sparsity.reducer import ChunkEntries, DenseChunk, NMReducer
from sim.golden.sparsity import compress
from tests.harness import config, receive, rng, send, simulate, start, unpack

CONFIGS = {8: preset("tiny"), 16: Config("wide-groups", group=16)}
SPECIALS = [
    0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00,
    0x7C01, 0xFC01, 0x7E00, 0xFFFF,
]  # fmt: skip


@pytest.mark.parametrize("group", CONFIGS)
def test_reducer(group):
    simulate(
        NMReducer(CONFIGS[group]), name="nm_reducer", testbench=__name__, config=CONFIGS[group]
    )


def packed(chunks, patterns):
    """Return chunks as bits, as `DenseChunk` lays them out."""
    offset = DenseChunk(config())["pattern"].offset
    values = [sum(int(value) << 16 * place for place, value in enumerate(c)) for c in chunks]
    return [bits | pattern.value << offset for bits, pattern in zip(values, patterns)]


def check(got, chunks, patterns):
    for bits, chunk, pattern in zip(got, chunks, patterns, strict=True):
        values, indices = (part[0] for part in compress(chunk, pattern, config()))
        entries = list(unpack(ChunkEntries(config()), bits))[: len(values)]
        found = [(entry.value.as_bits(), entry.index) for entry in entries]
        assert found == list(zip(values, indices)), (
            f"{pattern} of {[hex(value) for value in chunk]}: {found}"
        )


async def reduce(dut, chunks, patterns, random=None):
    cocotb.start_soon(send(dut, "i", packed(chunks, patterns), random))
    check(await receive(dut, "o", len(chunks), random), chunks, patterns)


def repeated(chunks):
    """Return each chunk once for each pattern, and these patterns."""
    patterns = supported_patterns(config())
    return np.repeat(chunks, len(patterns), axis=0), list(patterns) * len(chunks)


@cocotb.test()
async def orders_corners(dut):
    await start(dut)
    size = config().group
    chunks = [
        [0] * size,
        [0x8000] * size,
        [0x8000 if place % 2 else 0 for place in range(size)],
        [0x3C00 if place % 2 else 0xBC00 for place in range(size)],
        [0x7C00] * (size - 1) + [0x7C01],
        [0xFFFF, 0x7C01] * (size // 2),
        [0x7C00, 0xFE00] * (size // 2),
        list(range(1, size + 1)),
        list(range(size, 0, -1)),
        [*([1] * (size // 2)), *([2] * (size // 2))],
    ]
    await reduce(dut, *repeated(np.array(chunks, np.uint16)))


@cocotb.test()
async def reduces_anything(dut):
    await start(dut)
    random = rng()
    shape = 150, config().group
    chunks = np.concatenate(
        [
            random.integers(0, 1 << 16, shape),
            random.choice(SPECIALS, shape),
            random.choice([0x3C00, 0xBC00, 0x3C01, 0xBBFF], shape),
        ]
    ).astype(np.uint16)
    await reduce(dut, *repeated(chunks), random)


@cocotb.test()
async def takes_a_chunk_every_cycle(dut):
    await start(dut)
    chunks = rng().integers(0, 1 << 16, (200, config().group)).astype(np.uint16)
    patterns = [Pattern.N2M8] * len(chunks)
    payloads = packed(chunks, patterns)
    dut.o__ready.value = 1
    got = []
    for cycle in range(len(chunks) + NMReducer.LATENCY):
        dut.i__valid.value = cycle < len(chunks)
        dut.i__payload.value = payloads[min(cycle, len(chunks) - 1)]
        await RisingEdge(dut.clk)
        assert dut.i__ready.value
        assert bool(dut.o__valid.value) == (cycle >= NMReducer.LATENCY)
        if dut.o__valid.value:
            got.append(int(dut.o__payload.value))
    check(got, chunks, patterns)
