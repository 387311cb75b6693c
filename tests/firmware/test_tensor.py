"""Tensors in card memory: formats, padding, round trips."""

import itertools

import numpy as np
import pytest

from firmware.allocator import Allocator
from firmware.cards.golden import GoldenCard
from firmware.model import Shape
from firmware.tensor import (
    Activations,
    Compressed,
    KernelState,
    Records,
    Vector,
    VectorState,
    padded,
)
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern
from tests.harness import default_seed

TINY = PRESETS["tiny"]
G = TINY.elements


@pytest.fixture
def card():
    """A card whose memory is full of something else."""
    with GoldenCard(TINY) as card:
        card.write_memory(0, np.full(TINY.memory_bytes, 0xA5, np.uint8))
        yield card


@pytest.fixture
def memory():
    memory = Allocator(TINY.memory_bytes, TINY.beat_bytes)
    # Nothing is at address 0, which a forgotten offset would find.
    memory.allocate(3 * TINY.beat_bytes)
    return memory


def _random(*shape):
    return np.random.default_rng(default_seed()).standard_normal(shape)


def test_padded():
    assert [padded(TINY, count) for count in (1, G, G + 1)] == [G, G, 2 * G]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("images", "shape"),
    [(1, Shape(1, 1, 1)), (G, Shape(3, 2, G)), (G + 5, Shape(2, 3, 2 * G + 1))],
)
def test_activations_are_tiles_of_images_and_channels(card, memory, images, shape, transposed):
    tensor = Activations(TINY, memory, images, shape, transposed=transposed)
    values = _random(images, shape.height, shape.width, shape.channels).astype(np.float16)
    tensor.write(card, values)
    np.testing.assert_array_equal(tensor.read(card), values)
    bits = tensor.read_bytes(card).view(np.float16)
    assert np.count_nonzero(bits) == np.count_nonzero(values), "padding isn't zero"
    random = np.random.default_rng(default_seed())
    for _ in range(20):
        image, y, x, channel = (int(random.integers(size)) for size in values.shape)
        tile = tensor.tile(image // G, y, x, channel // G)
        place = (channel % G) * G + image % G if transposed else (image % G) * G + channel % G
        beat = card.read_memory(tile + 2 * place, 2).view(np.float16)
        assert beat[0] == values[image, y, x, channel], f"SAT_SEED={default_seed()}"
    columns = [tensor.column(word) for word in range(tensor.words)]
    assert sorted(itertools.chain(*columns)) == list(
        range(tensor.address, tensor.address + tensor.nbytes, tensor.tile_bytes)
    )
    assert all(column == sorted(column) for column in columns)
    assert sum(tensor.rows(block) for block in range(tensor.batch_blocks)) == images


def test_fewer_images_are_followed_by_zeros(card, memory):
    tensor = Activations(TINY, memory, G + 2, Shape(1, 2, 3))
    tensor.write(card, np.ones((G + 2, 1, 2, 3)))
    tensor.write(card, np.ones((2, 1, 2, 3)))
    values = tensor.read(card)
    assert (values[:2] == 1).all() and not values[2:].any()


def test_activations_are_rounded_to_binary16(card, memory):
    tensor = Activations(TINY, memory, 1, Shape(1, 1, 3))
    tensor.write(card, np.array([1 + 2.0**-11, 1e5, 2.0**-24]).reshape(1, 1, 1, 3))
    assert tensor.read(card).ravel().tolist() == [1, np.inf, 2.0**-24]


@pytest.mark.parametrize("shape", [(5, 2, 2, 3), (4, 2, 2, 4), (4, 2, 3), (4, 3, 2, 3)])
def test_images_of_another_shape_are_refused(card, memory, shape):
    tensor = Activations(TINY, memory, 4, Shape(2, 2, 3))
    with pytest.raises(ValueError, match="room for 4 images 2 x 2 x 3"):
        tensor.write(card, np.zeros(shape))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (9, G, G), (4, G + 1, 2 * G + 3)])
def test_kernels_are_tiles_of_inputs_and_outputs(card, memory, sizes):
    """A tile has for each input the weights of G outputs, half of them a beat, with momentum."""
    taps, inputs, outputs = sizes
    state = KernelState(TINY, memory, *sizes)
    weights = _random(*sizes).astype(np.float32)
    state.write(card, weights)
    found = state.read(card)
    np.testing.assert_array_equal(found["weights"], weights)
    assert found["momentum"].shape == sizes and not found["momentum"].any()
    assert np.count_nonzero(state.read_bytes(card).view(np.float32)) == weights.size
    tap, row, column = taps - 1, inputs - 1, outputs - 1
    tile = state.tile(column // G, row // G, tap)
    half, place = divmod(column % G, TINY.floats)
    beat = tile + ((row % G * 2 + half) * 2) * TINY.beat_bytes
    weight = card.read_memory(beat + 4 * place, 4).view(np.float32)[0]
    assert weight == weights[tap, row, column]
    card.write_memory(beat + TINY.beat_bytes + 4 * place, np.float32([7]).view(np.uint8))
    momentum = state.read(card)["momentum"]
    assert momentum[tap, row, column] == 7 and np.count_nonzero(momentum) == 1
    with pytest.raises(ValueError, match="weights are"):
        state.write(card, weights[:, :, 1:])


def test_vectors(card, memory):
    length = G + 3
    state, copy = VectorState(TINY, memory, length), Vector(TINY, memory, length)
    values = _random(length).astype(np.float32)
    state.write(card, values)
    found = state.read(card)
    np.testing.assert_array_equal(found["weights"], values)
    assert not found["momentum"].any()
    block = card.read_memory(state.block(1), TINY.beat_bytes).view(np.float32)
    np.testing.assert_array_equal(block[:3], values[G:])
    copy.clear(card)
    card.write_memory(copy.block(1), np.float16([1.5]).view(np.uint8))
    assert copy.read(card).tolist() == [0] * G + [1.5, 0, 0]
    with pytest.raises(ValueError, match="19 elements"):
        state.write(card, values[1:])


def test_records_are_rows_of_channels(card, memory):
    length = G + 3
    records = Records(TINY, memory, length, ["first", "second", "third"])
    values = _random(length).astype(np.float32)
    records.write(card, second=values, third=2)
    found = records.read(card)
    np.testing.assert_array_equal(found["second"], values)
    assert (found["third"] == 2).all() and not found["first"].any()
    row = card.read_memory(records.row(1, "second"), 2 * TINY.beat_bytes).view(np.float32)
    np.testing.assert_array_equal(row, [*values[G:], *[0] * (G - 3)])


@pytest.mark.parametrize("pattern", [Pattern.DENSE, Pattern.N2M8, Pattern.N4M8])
def test_compressed_tiles_follow_each_other(memory, pattern):
    """All tiles of a block of rows, tap after tap; none overlaps another."""
    copy = Compressed(TINY, memory, pattern, G + 1, 9, G + 1)
    assert (copy.blocks, copy.words, copy.d_words) == (2, 2, 18)
    tiles = [
        copy.tile(block, tap, word) for block in range(2) for tap in range(9) for word in range(2)
    ]
    size = pattern.tile_beats(TINY) * TINY.beat_bytes
    assert tiles == list(range(copy.address, copy.address + copy.nbytes, size))
