"""The golden epilogue."""

from __future__ import annotations

import numpy as np
import pytest

from sim.golden.arithmetic import add, to_float, to_half
from sim.golden.engine import epilogue

NAN = 0x7FC00000


def floats(*values: float) -> np.ndarray:
    return np.array([values], np.float32).view(np.uint32)


def halves(*values: float) -> np.ndarray:
    return np.array(values, np.float16).view(np.uint16)


def test_nothing_asked_for_changes_nothing() -> None:
    o = floats(1.5, -2.0, 0.0, np.inf)
    assert np.array_equal(epilogue(o, convert=False), o)
    assert epilogue(o).dtype == np.uint16
    assert epilogue(o).tolist() == [halves(1.5, -2.0, 0.0, np.inf).tolist()]


def test_bias_goes_to_every_row() -> None:
    o = np.concatenate([floats(1.0, 2.0), floats(-1.0, 2.0**-13)])
    result = epilogue(o, bias=halves(1.0, -2.0), convert=False)
    assert result.view(np.float32).tolist() == [[2.0, 0.0], [0.0, 2.0**-13 - 2.0]]


def test_another_tensor_is_added_after_the_bias() -> None:
    """Each sum is rounded: the bias is lost in the sum before the other tensor takes that away."""
    o = np.concatenate([floats(2.0**25, 1.0), floats(3.0, np.inf)])
    addend = np.array([halves(-(2.0**14), 0.5), halves(4.0, -np.inf)])
    result = epilogue(o, bias=halves(1.0, 2.0), addend=addend, convert=False)
    assert result[0].view(np.float32).tolist() == [2.0**25 - 2.0**14, 3.5]
    assert result[1].tolist() == [floats(8.0)[0, 0], NAN]
    relu = epilogue(floats(1.0, -1.0), addend=halves(-2.0, 2.0)[None], relu=True)
    assert relu.tolist() == [halves(0.0, 1.0).tolist()]


def test_relu() -> None:
    o = np.array([[1 << 31, 0xFF800000, 0x7F800000, NAN, 0xFFC00000, 0xBF800000, 1]], np.uint32)
    result = epilogue(o, relu=True, convert=False)
    assert result.tolist() == [[0, 0, 0x7F800000, NAN, 0xFFC00000, 0, 1]]


def test_mask_passes_where_it_is_greater_than_zero() -> None:
    mask = np.array([[0x3C00, 0, 0x8000, 0xBC00, 1, 0x7C00, 0xFC00, 0x7E00]], np.uint16)
    o = floats(*[np.inf] * 8)
    passed = epilogue(o, mask=mask) == 0x7C00
    assert passed.tolist() == [[True, False, False, False, True, True, False, False]]
    assert not epilogue(o, mask=mask)[~passed].any()


@pytest.mark.parametrize("relu", [False, True])
def test_steps_come_in_order(relu: bool) -> None:
    rng = np.random.default_rng(1)
    o = (rng.normal(size=(6, 16)) * 100).astype(np.float32).view(np.uint32)
    bias = halves(*(rng.normal(size=16) * 100))
    addend = halves(*(rng.normal(size=(6, 16)) * 100))
    mask = rng.integers(0, 1 << 16, (6, 16)).astype(np.uint16)
    result = epilogue(o, bias=bias, addend=addend, relu=relu, mask=mask)
    biased = add(o, np.broadcast_to(to_float(bias), o.shape))
    expected = to_half(add(biased, to_float(addend)))
    if relu:
        expected = np.where(expected >> 15, 0, expected)
    with np.errstate(invalid="ignore"):
        expected = np.where(mask.view(np.float16) > 0, expected, 0)
    assert np.array_equal(result, expected)
