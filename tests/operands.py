"""Operands as the array takes them, decoded without the gateware's help."""

__all__ = ["d_bits", "operand_bits", "s_bits"]


def _decode(half):
    """Return the bits of the decoded operand of one binary16 value, and its kind."""
    fraction, exponent, sign = half & 0x3FF, half >> 10 & 0x1F, half >> 15
    if exponent == 31:
        kind = 3 if fraction else 2
        return (1 << 13 | bool(fraction) << 10 | fraction << 3) | 7 << 14 | sign << 17, kind
    if not exponent and not fraction:
        return 7 << 14 | sign << 17, 1
    significand = fraction | bool(exponent) << 10
    exponent = max(exponent, 1)
    return significand << exponent % 4 | exponent // 4 << 14 | sign << 17, 0


_DECODED = [_decode(half) for half in range(1 << 16)]


def operand_bits(half):
    """Return the decoded operand of a binary16 value, and its kind."""
    return _DECODED[half]


def d_bits(word):
    """Return a decoded D word."""
    bits = 0
    for half in reversed(word.tolist()):
        bits = bits << 18 | _DECODED[half][0]
    return bits


def s_bits(layout, values, indices):
    """Return a decoded S word, entries of `layout`, of binary16 values and indices."""
    bits = 0
    for value, index in zip(values.tolist()[::-1], indices.tolist()[::-1], strict=True):
        operand, kind = _DECODED[value]
        bits = bits << layout.size | operand | kind << 18 | index << 20
    return bits
