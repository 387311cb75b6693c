"""The golden functions against binary64: accuracy, exact values, special values, monotonicity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from rtl.arithmetic.function_tables import C0_BITS, C1_BITS, C2_BITS, SEGMENTS
from rtl.control.commands import Function
from sim.golden import functions as golden
from sim.golden.arithmetic import CANONICAL_NAN

FRACTIONS = np.arange(1 << 23, dtype=np.uint32)
SIGN = 1 << 31
INFINITY = 0x7F800000
MINUS_INFINITY = SIGN | INFINITY
ONE = 0x3F800000
SMALLEST = 0x00800000
"""The smallest normal number, 2**-126."""
SUBNORMAL = 0x007FFFFF
LARGEST = 0x7F7FFFFF

Numbers = np.ndarray

REFERENCE: dict[Function, Callable[[Numbers], Numbers]] = {
    Function.RECIPROCAL: lambda x: 1 / x,
    Function.RSQRT: lambda x: 1 / np.sqrt(x),
    Function.EXP2: np.exp2,
    Function.LOG2: np.log2,
    Function.NORMAL: lambda x: (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,
    Function.GELU_SLOPE: lambda x: (
        REFERENCE[Function.NORMAL](x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    ),
}


def bits(values: object) -> Numbers:
    """Return numbers as binary32 patterns."""
    return np.asarray(values, np.float32).view(np.uint32)


def numbers(patterns: Numbers) -> Numbers:
    """Return binary32 patterns as binary64."""
    return np.asarray(patterns, np.uint32).view(np.float32).astype(np.float64)


def binade(exponent: int, *, negative: bool = False) -> Numbers:
    """Return all numbers from 2**exponent up to the next power of two, or their negatives."""
    return FRACTIONS + np.uint32(negative << 31 | exponent + 127 << 23)


def anything(seed: int, count: int = 200_000) -> Numbers:
    """Return random normal numbers of every exponent, positive."""
    return np.random.default_rng(seed).integers(SMALLEST, INFINITY, count).astype(np.uint32)


def largest_error(function: Function, x: Numbers, *, relative: bool) -> tuple[float, str]:
    """Return the largest error in the results for `x`, and where it is."""
    result, exact = numbers(golden.apply(function, x)), REFERENCE[function](numbers(x))
    error = np.abs(result - exact)
    if relative:
        error /= np.abs(exact)
    worst = int(error.argmax())
    return float(error[worst]), (
        f"{function.name}({int(x[worst]):#010x}): {result[worst]!r} instead of {exact[worst]!r},"
        f" an error of 2**{np.log2(error[worst]):.3f}"
    )


def assert_monotonic(function: Function, x: Numbers) -> None:
    """`x` ascends; a falling function's results descend."""
    result = numbers(golden.apply(function, x))
    steps = np.diff(result if function in (Function.EXP2, Function.LOG2) else -result)
    worst = int(steps.argmin())
    assert steps[worst] >= 0, f"{function.name} turns back after {int(x[worst]):#010x}"


@pytest.mark.parametrize(
    ("function", "exponent", "bound"),
    [
        (Function.RECIPROCAL, 0, 2**-23.8),
        (Function.RSQRT, 0, 2**-23.4),
        (Function.RSQRT, 1, 2**-23.2),
    ],
)
def test_of_every_fraction(function: Function, exponent: int, bound: float) -> None:
    x = binade(exponent)
    error, where = largest_error(function, x, relative=True)
    assert error < bound, where
    assert_monotonic(function, x)


@pytest.mark.parametrize("negative", [False, True])
def test_exp2_of_every_argument(negative: bool) -> None:
    # Numbers from 0.5 to 1 and their negatives give all 2**24 arguments that the table may get.
    x = binade(-1, negative=negative)
    error, where = largest_error(Function.EXP2, x, relative=True)
    assert error < 2**-23.9, where
    assert_monotonic(Function.EXP2, x[::-1] if negative else x)


@pytest.mark.parametrize("exponent", [-2, -1, 0, 1])
def test_log2_of_every_fraction(exponent: int) -> None:
    x = binade(exponent)
    error, where = largest_error(Function.LOG2, x, relative=False)
    assert error < 2**-23.4, where
    assert_monotonic(Function.LOG2, x)


@pytest.mark.parametrize(
    ("function", "bound"), [(Function.RECIPROCAL, 2**-23.8), (Function.RSQRT, 2**-23.2)]
)
def test_over_the_whole_range(function: Function, bound: float) -> None:
    x = anything(1)
    if function is Function.RECIPROCAL:
        x = x[x <= bits(2.0**126)]  # beyond, the results are subnormal
        mirrored = golden.reciprocal(x | np.uint32(SIGN))
        assert np.array_equal(mirrored, golden.reciprocal(x) | np.uint32(SIGN))
    error, where = largest_error(function, x, relative=True)
    assert error < bound, where
    assert_monotonic(function, np.sort(x))


def test_exp2_over_the_whole_range() -> None:
    rng = np.random.default_rng(2)
    small = anything(3)
    x = np.concatenate(
        [
            bits(rng.uniform(-126, 128, 200_000)),
            small[small < bits(1.0)],
            small[small < bits(1.0)] | np.uint32(SIGN),
        ]
    )
    # A small argument is cut after 24 bits.
    error, where = largest_error(Function.EXP2, x, relative=True)
    assert error < 2**-23.2, where
    assert_monotonic(Function.EXP2, bits(np.sort(numbers(x))))


def test_log2_over_the_whole_range() -> None:
    x = anything(4)
    result, exact = numbers(golden.log2(x)), np.log2(numbers(x))
    allowed = 2**-25 + np.abs(exact) * 2**-24
    excess = np.abs(result - exact) / allowed
    worst = int(excess.argmax())
    assert excess[worst] <= 1, f"LOG2({int(x[worst]):#010x}): {result[worst]!r}, {exact[worst]!r}"
    assert_monotonic(Function.LOG2, np.sort(x))


@pytest.mark.parametrize(
    ("function", "bound"), [(Function.NORMAL, 2**-19.6), (Function.GELU_SLOPE, 2**-17)]
)
def test_of_the_normal_distribution(function: Function, bound: float) -> None:
    x = bits(np.linspace(-9, 9, 200_001))
    error, where = largest_error(function, x, relative=False)
    assert error < bound, where
    if function is Function.NORMAL:
        result = numbers(golden.normal(x))
        # Where it's flat it may turn back by a unit of its last place.
        assert (np.diff(result) >= -(2.0**-24)).all()
        # The first and the last result are exact.
        assert (result[0], result[100_000], result[-1]) == (0, 0.5, 1)


def test_powers_of_two_are_exact() -> None:
    powers = np.arange(-126, 128)
    x = bits(np.exp2(powers.astype(float)))
    fits = powers <= 126
    assert np.array_equal(golden.reciprocal(x[fits]), bits(np.exp2(-powers[fits].astype(float))))
    assert np.array_equal(golden.rsqrt(x[::2]), bits(np.exp2(-powers[::2] / 2)))
    assert np.array_equal(golden.exp2(bits(powers)), x)
    assert np.array_equal(golden.log2(x), bits(powers))


NAN = CANONICAL_NAN


@pytest.mark.parametrize(
    ("function", "cases"),
    [
        (
            golden.reciprocal,
            {0: INFINITY, SIGN: MINUS_INFINITY, SUBNORMAL: INFINITY,
             SIGN | SUBNORMAL: MINUS_INFINITY, INFINITY: 0, MINUS_INFINITY: SIGN,
             # 2**126 is the last whose reciprocal is normal.
             0x7E800000: SMALLEST, 0x7E800001: 0, LARGEST: 0, SIGN | LARGEST: SIGN},
        ),
        (
            golden.rsqrt,
            {0: INFINITY, SIGN: INFINITY, SUBNORMAL: INFINITY, SIGN | SUBNORMAL: INFINITY,
             INFINITY: 0, MINUS_INFINITY: NAN, SIGN | SMALLEST: NAN, SIGN | ONE: NAN},
        ),
        (
            golden.exp2,
            {0: ONE, SIGN: ONE, SUBNORMAL: ONE, SMALLEST: ONE, SIGN | SMALLEST: ONE,
             INFINITY: INFINITY, MINUS_INFINITY: 0, LARGEST: INFINITY, SIGN | LARGEST: 0,
             int(bits(128.0)): INFINITY, int(bits(-126.0)): SMALLEST,
             int(bits(-126.0)) + 1: 0, int(bits(-127.5)): 0, int(bits(-128.0)): 0},
        ),
        (
            golden.log2,
            {0: MINUS_INFINITY, SIGN: MINUS_INFINITY, SUBNORMAL: MINUS_INFINITY,
             SIGN | SUBNORMAL: MINUS_INFINITY, INFINITY: INFINITY, MINUS_INFINITY: NAN,
             SIGN | SMALLEST: NAN, SIGN | ONE: NAN, ONE: 0, LARGEST: int(bits(128.0)),
             SMALLEST: int(bits(-126.0))},
        ),
        (
            golden.normal,
            {0: 0x3F000000, SIGN: 0x3F000000, SUBNORMAL: 0x3F000000, SIGN | SMALLEST: 0x3F000000,
             INFINITY: ONE, MINUS_INFINITY: 0, LARGEST: ONE, SIGN | LARGEST: 0,
             int(bits(8.0)): ONE, int(bits(-8.0)): 0},
        ),
        (
            golden.gelu_slope,
            {0: 0x3F000000, SIGN: 0x3F000000, INFINITY: ONE, MINUS_INFINITY: 0, LARGEST: ONE,
             SIGN | LARGEST: 0, int(bits(8.0)): ONE, int(bits(-8.0)): 0},
        ),
    ],
)  # fmt: skip
def test_special_values(function: Callable[[Numbers], Numbers], cases: dict[int, int]) -> None:
    nans = dict.fromkeys((0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF), NAN)
    for x, expected in (cases | nans).items():
        (result,) = function(np.array([x], np.uint32)).tolist()
        assert result == expected, f"{function.__name__}({x:#010x}): {result:#010x}"


def test_results_have_the_shape_of_the_arguments() -> None:
    x = anything(6, 24).reshape(2, 3, 4)
    for function in SEGMENTS:
        result = golden.apply(function, x)
        assert result.dtype == np.uint32 and result.shape == x.shape
        assert np.array_equal(result.ravel(), golden.apply(function, x.ravel()))


@pytest.mark.parametrize("function", SEGMENTS)
def test_segments_fit_their_widths_and_join(function: Function) -> None:
    segments = SEGMENTS[function]
    for segment, following in itertools.pairwise(segments):
        assert sum(segment) == following.c0
    for c0, c1, c2 in segments:
        assert -(1 << C0_BITS - 1) <= c0 < 1 << C0_BITS - 1
        assert -(1 << C1_BITS - 1) <= c1 < 1 << C1_BITS - 1
        assert -(1 << C2_BITS - 1) <= c2 < 1 << C2_BITS - 1


def test_no_logarithm_of_a_fraction_reaches_one() -> None:
    # The gateware joins it to the exponent without an adder.
    just_below_two = np.array([0x3FFFFFFF], np.uint32)
    assert numbers(golden.log2(just_below_two)) < 1
