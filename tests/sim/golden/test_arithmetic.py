"""The golden arithmetic against integers, Fractions and Berkeley SoftFloat."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import softfloatpy

from sim.golden.arithmetic import (
    CANONICAL_NAN,
    ExactSum,
    Operand,
    add,
    dot,
    is_finite,
    is_positive,
    multiply,
    scale_down,
    to_float,
    to_half,
)

PAIRS = 100_000

SIGN = np.uint32(1 << 31)

NAN = 0x7E00
INFINITY = 0x7C00
NEGATIVE_INFINITY = 0xFC00
ONE = 0x3C00
MINUS_ONE = 0xBC00
LARGEST = 0x7BFF
SMALLEST = 0x0001

FLOAT_CORNERS = [
    sign | magnitude
    for sign in (0, 1 << 31)
    for magnitude in (
        0x00000000, 0x00000001, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF,
        0x01000000, 0x1FFFFFFF, 0x20000000, 0x20000001, 0x33000000, 0x33800000, 0x3F7FFFFF,
        0x3F800000, 0x3F800001, 0x4B7FFFFF, 0x4B800000, 0x7F000000, 0x7F7FFFFF, 0x7F800000,
        0x7F800001, 0x7FC00000, 0x7FFFFFFF,
    )
]  # fmt: skip


def half_units(bits: int) -> int:
    """Return a finite binary16 in units of 2**-24."""
    exponent, fraction = bits >> 10 & 31, bits & 1023
    magnitude = fraction if exponent == 0 else fraction + 1024 << exponent - 1
    return -magnitude if bits >> 15 else magnitude


def round_to_float(value: Fraction) -> int:
    """Return a nonzero value of normal magnitude, or zero, as binary32: nearest even."""
    if value == 0:
        return 0
    sign, magnitude = value < 0, abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    significand = round(magnitude / Fraction(2) ** (exponent - 23))
    if significand == 1 << 24:
        significand, exponent = 1 << 23, exponent + 1
    if exponent > 127:
        return sign << 31 | 0x7F800000
    return sign << 31 | exponent + 127 << 23 | significand - (1 << 23)


def expected_dot(s: list[int], d: list[int]) -> int:
    """Return a dot product of binary16 values by integers and case distinctions."""
    total, infinities = 0, set()
    for a, b in zip(s, d, strict=True):
        if (a & 0x7FFF) > INFINITY or (b & 0x7FFF) > INFINITY:
            return CANONICAL_NAN
        if INFINITY in (a & 0x7FFF, b & 0x7FFF):
            if 0 in (a & 0x7FFF, b & 0x7FFF):
                return CANONICAL_NAN
            infinities.add((a ^ b) >> 15)
        else:
            total += half_units(a) * half_units(b)
    if len(infinities) == 2:
        return CANONICAL_NAN
    if infinities:
        return infinities.pop() << 31 | 0x7F800000
    return round_to_float(Fraction(total, 1 << 48))


def half_power(exponent: int) -> int:
    """Return 2**exponent as binary16."""
    return exponent + 15 << 10 if exponent > -15 else 1 << exponent + 24


def random_halves(
    rng: np.random.Generator, shape: tuple[int, ...], *, special: float = 0.0
) -> np.ndarray:
    """Return binary16 with every exponent equally likely, a part of them infinities and NaNs."""
    values = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    values[values & 0x7C00 == 0x7C00] &= 0x83FF
    specials = np.array([INFINITY, NEGATIVE_INFINITY, NAN, 0xFC01], np.uint16)
    return np.where(rng.random(shape) < special, rng.choice(specials, shape), values)


def assert_dot(s: np.ndarray, d: np.ndarray) -> None:
    result = dot(s, d)
    for b, row in enumerate(d.tolist()):
        for a, column in enumerate(s.tolist()):
            assert int(result[b, a]) == expected_dot(column, row), (a, b)


@pytest.mark.parametrize(
    ("s", "d", "expected"),
    [
        ([ONE], [ONE], 0x3F800000),
        ([0x8000], [ONE], 0),
        ([ONE, MINUS_ONE], [ONE, ONE], 0),
        ([SMALLEST], [SMALLEST], 127 - 48 << 23),
        ([0x8001], [SMALLEST], 1 << 31 | 127 - 48 << 23),
        ([LARGEST], [LARGEST], 0x4F7FC004),
        ([LARGEST, SMALLEST, 0xFBFF], [LARGEST, SMALLEST, LARGEST], 127 - 48 << 23),
        ([INFINITY], [ONE], 0x7F800000),
        ([INFINITY], [MINUS_ONE], 0xFF800000),
        ([INFINITY], [0x8000], CANONICAL_NAN),
        ([0], [NEGATIVE_INFINITY], CANONICAL_NAN),
        ([INFINITY, INFINITY], [ONE, MINUS_ONE], CANONICAL_NAN),
        ([INFINITY, INFINITY], [ONE, SMALLEST], 0x7F800000),
        ([NAN], [0], CANONICAL_NAN),
        ([0xFE00], [ONE], CANONICAL_NAN),
        ([INFINITY, LARGEST], [INFINITY, LARGEST], 0x7F800000),
    ],
)
def test_dot_corners(s: list[int], d: list[int], expected: int) -> None:
    assert int(dot(np.array([s], np.uint16), np.array([d], np.uint16))[0, 0]) == expected


def test_dot_rounds_once_to_even() -> None:
    # 2**24 + 1 and + 3 lie half-way between binary32 numbers; one more smallest product decides.
    two_24 = [(0x6C00, 0x6C00)]  # 4096 * 4096
    for units, nudge, expected in (
        (1, 0, 1 << 24),
        (3, 0, (1 << 24) + 4),
        (1, 1, (1 << 24) + 2),
        (3, -1, (1 << 24) + 2),
    ):
        pairs = two_24 + [(ONE, ONE)] * units
        if nudge:
            pairs.append((SMALLEST if nudge > 0 else 0x8000 | SMALLEST, SMALLEST))
        s, d = (np.array([column], np.uint16) for column in zip(*pairs, strict=True))
        assert int(dot(s, d)[0, 0]) == round_to_float(Fraction(expected)), (units, nudge)


@pytest.mark.parametrize("length", [1, 2, 7, 31, 64, 65, 300, 4096, 8192, 8193, 20_000])
def test_dot_of_any_exponents(length: int) -> None:
    rng = np.random.default_rng(length)
    assert_dot(random_halves(rng, (3, length)), random_halves(rng, (4, length)))


@pytest.mark.parametrize("length", [2, 64, 3000])
def test_dot_with_cancellation(length: int) -> None:
    rng = np.random.default_rng(length)
    s, d = random_halves(rng, (4, length)), random_halves(rng, (4, length))
    s[:, 1::2], d[:, 1::2] = s[:, ::2] ^ 0x8000, d[:, ::2]
    s[1:, 0] ^= 1
    s[2:, -1] ^= 2
    assert_dot(s, d)


@pytest.mark.parametrize("negative", [False, True])
def test_dot_near_ties_of_every_magnitude(negative: bool) -> None:
    # 1025 * 2**n + 2**(n - 14) lies half-way; a product far below decides how it rounds.
    s, d = [], []
    for top in range(-10, 21):
        for tie in range(top - 18, top - 9):
            for nudge in (0, SMALLEST, 0x8000 | SMALLEST):
                powers = [(e // 2, e - e // 2) for e in (top + 10, top, tie)]
                s.append([half_power(left) for left, _ in powers] + [nudge])
                d.append([half_power(right) for _, right in powers] + [SMALLEST])
    left, right = np.array(s, np.uint16), np.array(d, np.uint16)
    if negative:
        left ^= 0x8000
    for one, other in zip(left, right, strict=True):
        assert_dot(one[None], other[None])


def test_dot_of_largest_values_is_exact_at_the_longest_part() -> None:
    s = np.full((2, 8192), LARGEST, np.uint16)
    s[1] ^= 0x8000
    assert_dot(s, s)


@pytest.mark.parametrize("special", [0.002, 0.02, 0.3])
def test_dot_with_infinities_and_nans(special: float) -> None:
    rng = np.random.default_rng(int(special * 1000))
    s = random_halves(rng, (12, 48), special=special)
    d = random_halves(rng, (12, 48), special=special)
    s[rng.random(s.shape) < 0.05] = 0
    assert_dot(s, d)


def test_holes_of_a_compressed_operand_meet_no_infinity() -> None:
    rng = np.random.default_rng(5)
    values = random_halves(rng, (8, 10), special=0.01)
    values[rng.random(values.shape) < 0.1] = 0x8000
    columns = np.stack([rng.permutation(40)[:10] for _ in range(8)])
    d = random_halves(rng, (8, 40), special=0.05)
    result = ExactSum.of(Operand.compressed(values, columns, 40), Operand.dense(d)).round()
    for b in range(8):
        for a in range(8):
            expected = expected_dot(values[a].tolist(), d[b][columns[a]].tolist())
            assert int(result[b, a]) == expected, (a, b)


def test_entries_that_share_an_element_are_summed_exactly() -> None:
    rng = np.random.default_rng(6)
    values, columns = random_halves(rng, (4, 32)), rng.integers(0, 32, (4, 32))
    d = random_halves(rng, (3, 32))
    result = ExactSum.of(Operand.compressed(values, columns, 32), Operand.dense(d)).round()
    for b in range(3):
        for a in range(4):
            expected = expected_dot(values[a].tolist(), d[b][columns[a]].tolist())
            assert int(result[b, a]) == expected, (a, b)


@pytest.mark.parametrize("special", [0.0, 0.01])
def test_parts_of_a_sum_add_up_to_the_whole(special: float) -> None:
    rng = np.random.default_rng(7)
    s = random_halves(rng, (5, 90), special=special)
    d = random_halves(rng, (6, 90), special=special)
    parts = [
        ExactSum.of(Operand.dense(s[:, part]), Operand.dense(d[:, part]))
        for part in (slice(0, 20), slice(20, 21), slice(21, 90))
    ]
    assert np.array_equal((parts[0] + parts[1] + parts[2]).round(), dot(s, d))
    part = (slice(1, 4), slice(2))
    assert np.array_equal((parts[0] + parts[1] + parts[2])[part].round(), dot(s, d)[part])


def soft(bits: int) -> softfloatpy.Float32:
    """Return a binary32, a subnormal flushed, for SoftFloat."""
    if bits & 0x7F800000 == 0:
        bits &= 1 << 31
    return softfloatpy.Float32.from_bytes(bits.to_bytes(4, "big"))


def canonical(bits: int) -> int:
    return CANONICAL_NAN if (bits & 0x7FFFFFFF) > 0x7F800000 else bits


def soft_add(a: int, b: int) -> int:
    result = int.from_bytes(softfloatpy.f32_add(soft(a), soft(b)).to_bytes(), "big")
    return result & 1 << 31 if result & 0x7F800000 == 0 else canonical(result)


def soft_multiply(a: int, b: int) -> int:
    exact = softfloatpy.f64_mul(soft(a).to_f64(), soft(b).to_f64())
    bits = int.from_bytes(exact.to_bytes(), "big")
    if bits >> 52 & 0x7FF < 1023 - 126:
        return bits >> 63 << 31
    return canonical(int.from_bytes(softfloatpy.f64_to_f32(exact).to_bytes(), "big"))


def float_pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of corners, random pairs, and pairs of near magnitude."""
    corners = np.array(FLOAT_CORNERS, np.uint32)
    a = rng.integers(0, 1 << 32, PAIRS, np.uint32)
    b = rng.integers(0, 1 << 32, PAIRS, np.uint32)
    near = slice(0, PAIRS // 2)
    shift = rng.integers(-30, 31, PAIRS // 2) << 23
    b[near] = (a[near].astype(np.int64) + shift + rng.integers(-4, 5, PAIRS // 2)) & 0x7FFFFFFF
    b[near] |= ~a[near] & SIGN
    return (
        np.concatenate([np.repeat(corners, len(corners)), a]),
        np.concatenate([np.tile(corners, len(corners)), b]),
    )


def test_add_and_multiply_match_softfloat() -> None:
    a, b = float_pairs(np.random.default_rng(1))
    # Products near the smallest normal number, where flushing is decided.
    exponent = 1 + (a >> 23) % 126
    c = ((a & 0x807FFFFF) | exponent << 23).astype(np.uint32)
    d = ((b & 0x807FFFFF) | 127 - exponent << 23).astype(np.uint32)
    for operation, oracle, left, right in (
        (add, soft_add, a, b),
        (multiply, soft_multiply, a, b),
        (multiply, soft_multiply, c, d),
    ):
        result = operation(left, right).tolist()
        pairs = zip(left.tolist(), right.tolist(), result, strict=True)
        for x, y, z in pairs:
            assert z == oracle(x, y), f"{operation.__name__}({x:08x}, {y:08x}) gave {z:08x}"


def test_flushing_is_decided_before_rounding() -> None:
    # (1 - 2**-24) * 2**-126 would round up to the smallest normal number.
    below, smallest = np.array([0x3F7FFFFF], np.uint32), np.array([0x00800000], np.uint32)
    assert multiply(below, smallest).tolist() == [0]
    assert multiply(below | SIGN, smallest).tolist() == [1 << 31]
    assert add(np.array([0x00800001], np.uint32), smallest | SIGN).tolist() == [0]
    assert add(np.array([0x80800001], np.uint32), smallest).tolist() == [1 << 31]


def test_zeros_of_a_sum() -> None:
    zero, minus = np.zeros(1, np.uint32), np.full(1, 1 << 31, np.uint32)
    one = np.array([0x3F800000], np.uint32)
    assert add(one, one | SIGN).tolist() == [0]
    assert add(zero, minus).tolist() == [0]
    assert add(minus, minus).tolist() == [1 << 31]


@pytest.mark.parametrize("k", [-128, -17, -1, 0, 1, 10, 127])
def test_scale_down_is_an_exact_power_of_two(k: int) -> None:
    rng = np.random.default_rng(k + 200)
    x = np.concatenate(
        [np.array(FLOAT_CORNERS, np.uint32), rng.integers(0, 1 << 32, 2000, np.uint32)]
    )
    for bits, result in zip(x.tolist(), scale_down(x, k).tolist(), strict=True):
        exponent = bits >> 23 & 255
        if exponent == 255:
            expected = canonical(bits)
        elif exponent == 0 or exponent - k < 1:
            expected = bits & 1 << 31
        elif exponent - k > 254:
            expected = bits & 1 << 31 | 0x7F800000
        else:
            expected = bits - (k << 23)
        assert result == expected, f"{bits:08x} * 2**-{k}"


def test_to_half_matches_softfloat() -> None:
    rng = np.random.default_rng(3)
    halves = rng.integers(0, 1 << 16, PAIRS // 2).astype(np.uint16)
    near = to_float(halves) + rng.integers(-2, 3, PAIRS // 2).astype(np.uint32)
    ties = to_float(halves) + (rng.integers(0, 4, PAIRS // 2) << 11).astype(np.uint32)
    small = rng.integers(0x32000000, 0x39000000, PAIRS, np.uint32)
    small |= rng.integers(0, 2, PAIRS, np.uint32) << 31
    x = np.concatenate([np.array(FLOAT_CORNERS, np.uint32), near, ties, small])
    for bits, result in zip(x.tolist(), to_half(x).tolist(), strict=True):
        operand = softfloatpy.Float32.from_bytes(bits.to_bytes(4, "big"))
        expected = int.from_bytes(softfloatpy.f32_to_f16(operand).to_bytes(), "big")
        if (bits & 0x7FFFFFFF) > 0x7F800000:
            expected = NAN
        assert result == expected, f"{bits:08x}"


def test_to_float_is_exact_for_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    floats = to_float(halves)
    for bits, result in zip(halves.tolist(), floats.tolist(), strict=True):
        if bits & 0x7C00 != 0x7C00:
            zero = bits >> 15 << 31
            assert result == (round_to_float(Fraction(half_units(bits), 1 << 24)) or zero)
        elif bits & 0x3FF:
            assert result == CANONICAL_NAN
        else:
            assert result == bits >> 15 << 31 | 0x7F800000
    number = (halves & 0x7FFF) <= INFINITY
    assert np.array_equal(to_half(floats)[number], halves[number])


def test_predicates() -> None:
    halves = np.array(
        [0, 0x8000, 1, 0x8001, ONE, INFINITY, NEGATIVE_INFINITY, NAN, 0xFE00], np.uint16
    )
    assert is_positive(halves).tolist() == [
        False,
        False,
        True,
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert is_finite(halves).tolist() == [True] * 5 + [False] * 4
    assert is_finite(to_float(halves)).tolist() == [True] * 5 + [False] * 4
