"""Decoding of command programs, by the layouts of `rtl.control.commands` but without Amaranth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Shape
from amaranth.lib import data

from rtl.config import COMMAND_BYTES
from rtl.control.commands import BODIES, Command, Header, Walk
from rtl.memory.descriptor import Descriptor

__all__ = ["Decoded", "DecodedDescriptor", "DecodedWalk", "decode"]


@dataclass(frozen=True)
class Decoded:
    """One command.

    Attributes
    ----------
    opcode, queue, stage
        Values of the header's enumerations as integers, known to the gateware or not.
    wait, signal
        Bits, one per queue.
    body
        Fields of the opcode's body as integers; those of an array are a tuple. A field with fields
        of its own has them as attributes.
    """

    opcode: int
    queue: int
    wait: int
    signal: int
    stage: int
    body: SimpleNamespace


@dataclass(frozen=True)
class DecodedDescriptor:
    """A DMA descriptor."""

    address: int
    counts: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def beats(self) -> int:
        """Beats of the whole nest of loops."""
        return math.prod(self.counts)


@dataclass(frozen=True)
class DecodedWalk:
    """A walk over the words of a scratchpad."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, int]:
        """Lowest and highest offset of the whole nest of loops."""
        spans = [(count - 1) * step for count, step in zip(self.counts, self.steps, strict=True)]
        return sum(min(0, span) for span in spans), sum(max(0, span) for span in spans)

    def offsets(self, rounds: int) -> npt.NDArray[np.int64]:
        """Return the offsets of the first `rounds` rounds."""
        remaining = np.arange(rounds)
        offsets = np.zeros(rounds, np.int64)
        for count, step in zip(self.counts, self.steps, strict=True):
            remaining, index = np.divmod(remaining, count)
            offsets += index * step
        return offsets


_KINDS: dict[Any, Callable[..., Any]] = {Descriptor: DecodedDescriptor, Walk: DecodedWalk}
"""What becomes of a struct; the fields of others are gathered in a namespace."""


def _decoder(shape: Any) -> Callable[[int], Any]:
    """Return what decodes a field of `shape` from the bits that begin with it."""
    if isinstance(shape, data.ArrayLayout):
        element, length = _decoder(shape.elem_shape), shape.length
        width = shape.size // length
        return lambda bits: tuple(element(bits >> index * width) for index in range(length))
    if isinstance(shape, data.Layout) or (
        isinstance(shape, type) and issubclass(shape, data.Struct)
    ):
        kind = _KINDS.get(shape, SimpleNamespace)
        parts = [
            (name, field.offset, _decoder(field.shape)) for name, field in data.Layout.cast(shape)
        ]
        return lambda bits: kind(**{name: part(bits >> offset) for name, offset, part in parts})
    cast = Shape.cast(shape)
    values, sign = 1 << cast.width, cast.signed << cast.width - 1
    return lambda bits: ((bits & values - 1) ^ sign) - sign


_HEADER = _decoder(Header)
_BODY_OFFSET = data.Layout.cast(Command)["body"].offset
_BODIES = {opcode.value: _decoder(body) for opcode, body in BODIES.items()}


@functools.lru_cache(maxsize=1 << 16)
def decode(command: bytes) -> Decoded:
    """Return the command in these 64 bytes."""
    if len(command) != COMMAND_BYTES:
        raise ValueError(f"a command has {COMMAND_BYTES} bytes, got {len(command)}")
    bits = int.from_bytes(command, "little")
    header = vars(_HEADER(bits))
    body = _BODIES.get(header["opcode"], lambda _: SimpleNamespace())
    return Decoded(**header, body=body(bits >> _BODY_OFFSET))
