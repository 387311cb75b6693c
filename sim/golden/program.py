"""Decoding of command programs, by the layouts of `rtl.control.commands` but without Amaranth."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

from rtl.config import COMMAND_BYTES
from rtl.control.commands import BODIES, Command, Header

__all__ = ["Decoded", "DecodedDescriptor", "decode"]

Fields = list[tuple[str, int, int, bool]]
"""Name, offset, width and signedness of each field; the parts of a field have dotted names."""


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
        Fields of the opcode's body as integers. A descriptor has the attributes ``address``,
        ``counts`` and ``strides``, of which the latter two are tuples.
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


def _fields(layout: data.Layout, prefix: str = "", base: int = 0) -> Fields:
    fields: Fields = []
    for name, field in layout:
        shape, path, offset = field.shape, f"{prefix}{name}", base + field.offset
        if isinstance(shape, data.Layout) or (
            isinstance(shape, type) and issubclass(shape, data.Struct)
        ):
            fields += _fields(data.Layout.cast(shape), f"{path}.", offset)
        else:
            cast = Shape.cast(shape)
            fields.append((path, offset, cast.width, cast.signed))
    return fields


_HEADER = _fields(data.Layout.cast(Header))
_BODY_OFFSET = data.Layout.cast(Command)["body"].offset
_BODIES = {opcode.value: _fields(data.Layout.cast(body)) for opcode, body in BODIES.items()}


def _extract(bits: int, fields: Fields) -> dict[str, int]:
    values = {}
    for name, offset, width, signed in fields:
        value = bits >> offset & (1 << width) - 1
        values[name] = value - (1 << width) if signed and value >> width - 1 else value
    return values


@functools.lru_cache(maxsize=1 << 16)
def decode(command: bytes) -> Decoded:
    """Return the command in these 64 bytes."""
    if len(command) != COMMAND_BYTES:
        raise ValueError(f"a command has {COMMAND_BYTES} bytes, got {len(command)}")
    bits = int.from_bytes(command, "little")
    header = _extract(bits, _HEADER)
    fields = _extract(bits >> _BODY_OFFSET, _BODIES.get(header["opcode"], []))
    body: dict[str, Any] = {name: value for name, value in fields.items() if "." not in name}
    if "descriptor.address" in fields:
        counts, strides = (
            tuple(value for name, value in fields.items() if name.startswith(f"descriptor.{kind}."))
            for kind in ("counts", "strides")
        )
        body["descriptor"] = DecodedDescriptor(fields["descriptor.address"], counts, strides)
    return Decoded(**header, body=SimpleNamespace(**body))
