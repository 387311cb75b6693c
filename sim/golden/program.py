"""Decoding of command programs, by the layouts of `rtl.control.commands` but without Amaranth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

from rtl.config import COMMAND_BYTES
from rtl.control.commands import BODIES, Command, Header
from rtl.memory.descriptor import Descriptor

__all__ = ["Decoded", "DecodedDescriptor", "decode"]

Decoder = Callable[[int], Any]
"""Takes the bits of a whole layout and returns the value of one of its fields."""


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
        Fields of the opcode's body as integers. A part of several fields is a namespace of them,
        or a `DecodedDescriptor`; an array is a tuple.
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


def _decoder(shape: Any, offset: int = 0) -> Decoder:
    """Return what decodes a field of `shape` at `offset`."""
    layout = isinstance(shape, type) and issubclass(shape, data.Struct)
    if isinstance(shape, data.ArrayLayout):
        elements = [_decoder(field.shape, offset + field.offset) for _, field in shape]
        return lambda bits: tuple(element(bits) for element in elements)
    if layout or isinstance(shape, data.Layout):
        fields = {
            str(name): _decoder(field.shape, offset + field.offset)
            for name, field in data.Layout.cast(shape)
        }
        kind = DecodedDescriptor if shape is Descriptor else SimpleNamespace
        return lambda bits: kind(**{name: field(bits) for name, field in fields.items()})
    cast = Shape.cast(shape)
    width, sign = cast.width, 1 << cast.width - 1 if cast.signed else 0
    return lambda bits: ((bits >> offset & (1 << width) - 1) ^ sign) - sign


_HEADER = _decoder(Header)
_BODY_OFFSET = data.Layout.cast(Command)["body"].offset
_BODIES = {opcode.value: _decoder(body) for opcode, body in BODIES.items()}


@functools.lru_cache(maxsize=1 << 16)
def decode(command: bytes) -> Decoded:
    """Return the command in these 64 bytes."""
    if len(command) != COMMAND_BYTES:
        raise ValueError(f"a command has {COMMAND_BYTES} bytes, got {len(command)}")
    bits = int.from_bytes(command, "little")
    header = _HEADER(bits)
    body = _BODIES.get(header.opcode, lambda _: SimpleNamespace())
    return Decoded(**vars(header), body=body(bits >> _BODY_OFFSET))
