"""Allocation of card memory."""

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.errors import AllocationError


def test_blocks_are_aligned_and_first_fit():
    memory = Allocator(1024, 32)
    first, second, third = (memory.allocate(size) for size in (1, 33, 32))
    assert (first, second, third) == (0, 32, 96)
    memory.free(second)
    assert memory.allocate(64) == second
    assert memory.allocate(32, alignment=128) == 128


def test_neighbouring_holes_merge():
    memory = Allocator(96, 32)
    blocks = [memory.allocate(32) for _ in range(3)]
    for block in (blocks[0], blocks[2], blocks[1]):
        memory.free(block)
    assert memory.allocate(96) == 0


def test_error_gives_the_sizes():
    memory = Allocator(128, 32)
    blocks = [memory.allocate(32) for _ in range(4)]
    memory.free(blocks[0])
    memory.free(blocks[2])
    with pytest.raises(AllocationError, match=r"no room for 64 bytes: 64 of 128 .* 32 in one"):
        memory.allocate(40)


def test_wrong_use_is_refused():
    memory = Allocator(128, 32)
    with pytest.raises(ValueError, match="0x20"):
        memory.free(32)
    with pytest.raises(ValueError, match="0 bytes"):
        memory.allocate(0)
    with pytest.raises(ValueError, match="100"):
        Allocator(100, 32)


def test_random_blocks_never_overlap():
    rng = np.random.default_rng(0)
    memory = Allocator(1 << 14, 64)
    blocks: dict[int, int] = {}
    for _ in range(1000):
        if blocks and rng.random() < 0.45:
            address = list(blocks)[rng.integers(len(blocks))]
            del blocks[address]
            memory.free(address)
            continue
        size = int(rng.integers(1, 1000))
        try:
            address = memory.allocate(size)
        except AllocationError:
            continue
        assert address % 64 == 0 and address + size <= 1 << 14
        assert all(address + size <= a or a + s <= address for a, s in blocks.items())
        blocks[address] = size
    used = sum(-(-size // 64) * 64 for size in blocks.values())
    assert memory.free_bytes == (1 << 14) - used
