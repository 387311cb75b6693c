"""The golden weight update against scalar arithmetic on SoftFloat."""

from __future__ import annotations

import numpy as np
import pytest
import softfloatpy

from rtl.config import preset
from rtl.sparsity.pattern import Pattern
from sim.golden.arithmetic import to_half
from sim.golden.sparsity import prune, unpack_tiles
from sim.golden.update import sgd, update

SIGN = 1 << 31


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def flush(x: int) -> int:
    return x & SIGN if x & 0x7F800000 == 0 else x


def settle(x: softfloatpy.Float32) -> int:
    pattern = flush(int.from_bytes(x.to_bytes(), "big"))
    return 0x7FC00000 if pattern & 0x7FFFFFFF > 0x7F800000 else pattern


def soft(x: int) -> softfloatpy.Float32:
    return softfloatpy.Float32.from_bytes(flush(x).to_bytes(4, "big"))


def sgd_by_steps(w: int, v: int, g: int, factors: tuple[int, int, int], scale: int) -> list[int]:
    """Return new weight and momentum; right where no product comes near 2**-126."""
    rate, momentum, decay = factors
    power = softfloatpy.Float64.from_float(2.0**-scale)
    scaled = softfloatpy.f64_to_f32(softfloatpy.f64_mul(soft(g).to_f64(), power))
    d = settle(softfloatpy.f32_add(soft(settle(scaled)), soft(settle(soft(decay) * soft(w)))))
    v = settle(softfloatpy.f32_add(soft(settle(soft(momentum) * soft(v))), soft(d)))
    w = settle(softfloatpy.f32_sub(soft(w), soft(settle(soft(rate) * soft(v)))))
    return [w, v]


@pytest.mark.parametrize("scale", [-3, 0, 10])
def test_sgd_matches_scalar_softfloat(scale: int) -> None:
    rng = np.random.default_rng(scale + 5)
    w, v, g = (
        (rng.normal(size=5000) * size).astype(np.float32).view(np.uint32)
        for size in (0.1, 0.01, 2.0**scale)
    )
    corners = [0, SIGN, 0x7F800000, 0xFF800000, 0x7FC00000, 1, 0x80000001, bits(1e38)]
    w[:512] = np.repeat(np.array(corners, np.uint32), 64)
    v[:512] = np.tile(np.repeat(np.array(corners, np.uint32), 8), 8)
    g[:512] = np.tile(np.array(corners, np.uint32), 64)
    factors = (bits(0.05), bits(0.9), bits(5e-4))
    new_w, new_v = sgd(w, v, g, rate=factors[0], momentum=factors[1], decay=factors[2], scale=scale)
    for a, b, c, *result in np.stack([w, v, g, new_w, new_v], -1).tolist():
        assert result == sgd_by_steps(a, b, c, factors, scale), f"{a:08x} {b:08x} {c:08x}"


def test_sgd_by_hand() -> None:
    w, v, g = (np.array([bits(x)], np.uint32) for x in (1.0, 0.5, 8.0))
    w, v = sgd(w, v, g, rate=bits(0.25), momentum=bits(0.5), decay=bits(2.0), scale=2)
    assert v.tolist() == [bits(0.25 + 2.0 + 2.0)]
    assert w.tolist() == [bits(1.0 - 0.25 * 4.25)]


def test_tiles_give_both_copies() -> None:
    config = preset("tiny")
    rng = np.random.default_rng(1)
    w, v, g = rng.normal(size=(3, 4, 16, 16)).astype(np.float32).view(np.uint32)
    factors = {"rate": bits(0.1), "momentum": bits(0.9), "decay": 0, "scale": 0}
    result = update(
        w, v, g, config, **factors, row_pattern=Pattern.N2M8, column_pattern=Pattern.N1M4
    )
    new_w, new_v = sgd(w, v, g, **factors)
    assert np.array_equal(result.w, new_w)
    assert np.array_equal(result.v, new_v)
    halves = to_half(new_w)
    assert result.row_copy is not None
    assert result.column_copy is not None
    for k in range(4):
        rows = unpack_tiles(result.row_copy[k], 16, 1, Pattern.N2M8, config)
        assert np.array_equal(rows, prune(halves[k], Pattern.N2M8))
        columns = unpack_tiles(result.column_copy[k], 16, 1, Pattern.N1M4, config)
        assert np.array_equal(columns, prune(halves[k].T, Pattern.N1M4))


def test_vectors_have_one_dense_copy() -> None:
    config = preset("tiny")
    rng = np.random.default_rng(2)
    w, v, g = rng.normal(size=(3, 2, 1, 16)).astype(np.float32).view(np.uint32)
    factors = {"rate": bits(0.1), "momentum": bits(0.9), "decay": bits(1e-3), "scale": 4}
    result = update(w, v, g, config, **factors, row_pattern=Pattern.DENSE, column_pattern=None)
    assert result.row_copy is not None
    assert result.column_copy is None
    assert np.array_equal(result.row_copy.view("<u2"), to_half(result.w)[:, 0])
