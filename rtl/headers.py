"""Register map and command formats for software, from the objects that make the gateware."""

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

from amaranth.lib import data

from .config import COMMAND_BYTES, Config
from .control import commands
from .interface import register_map
from .sparsity.pattern import Pattern, supported_patterns

__all__ = ["c_header", "describe"]

ENUMERATIONS = (
    commands.Fault,
    commands.Opcode,
    commands.Queue,
    commands.Stage,
    commands.LoadTarget,
    commands.LoadOrder,
    commands.CoefficientKind,
    commands.VectorOperand,
    commands.Mask,
    commands.Function,
    commands.Fold,
    commands.VectorTarget,
    Pattern,
)
"""Enumerations that appear in commands and registers."""

BITS = (register_map.Control, register_map.GlobalInterrupt, register_map.Interrupt)
"""Enumerations of single bits in registers."""

DERIVED = ("macs", "elements", "floats", "beat_bytes", "index_bits", "max_additions")
"""Properties of a configuration that software needs beside its fields."""


def describe(config: Config) -> dict[str, Any]:
    """Return everything that software must know of a card, as JSON has it.

    Keys: ``config`` (fields and derived values), ``config_hash``, ``identity``, ``version``,
    ``registers`` (a list), ``bits`` and ``enumerations`` (by type, then by member), ``patterns``
    (those supported, as text) and ``command``, with the place of every field of the header and of
    each opcode's body: its lowest bit in the command, its width and whether it's signed.
    """
    command = data.Layout.cast(commands.Command)
    body = command["body"]
    return {
        "config": dataclasses.asdict(config) | {name: getattr(config, name) for name in DERIVED},
        "config_hash": config.hash,
        "identity": register_map.IDENTITY,
        "version": register_map.VERSION,
        "registers": [
            dataclasses.asdict(register)
            | {
                "access": register.access.value,
                "content": register.content and register.content.__name__,
                "reset": config.hash if register.name == "CONFIG_HASH" else int(register.reset),
            }
            for register in register_map.REGISTERS.values()
        ],
        "bits": {kind.__name__: _members(kind) for kind in BITS},
        "enumerations": {kind.__name__: _members(kind) for kind in ENUMERATIONS},
        "patterns": [str(pattern) for pattern in supported_patterns(config)],
        "command": {
            "bytes": COMMAND_BYTES,
            "fields": {
                name: {
                    field: {"bit": bit, "width": width, "signed": signed}
                    for field, bit, width, signed in _fields(layout, offset)
                }
                for name, layout, offset in (
                    ("header", commands.Header, command["header"].offset),
                    *(
                        (opcode.name.lower(), layout, body.offset)
                        for opcode, layout in commands.BODIES.items()
                    ),
                )
            },
        },
    }


def _members(kind: type[enum.Enum]) -> dict[str, int]:
    return {member.name: member.value for member in kind}


def _fields(shape: Any, offset: int, name: str = "") -> Iterator[tuple[str, int, int, bool]]:
    """Yield name, lowest bit, width and signedness of each field that has no fields itself."""
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        shape = data.Layout.cast(shape)
    if isinstance(shape, data.Layout):
        for key, field in shape:
            yield from _fields(field.shape, offset + field.offset, f"{name}_{key}".lstrip("_"))
    else:
        plain = shape.as_shape() if hasattr(shape, "as_shape") else shape
        yield name, offset, plain.width, plain.signed


def c_header(config: Config) -> str:
    """Return the C header (C99) of a card: the content of `describe` as macros.

    It includes the registers' own header, which PeakRDL makes (`rtl.systemrdl`).

    A field of a command has ``_BIT``, its lowest bit in the 512-bit little-endian command, and
    ``_WIDTH``.
    """
    card = describe(config)
    guard = f"SAT_{_macro(config.name)}_H"
    sections = [
        ("Identity", {
            "IDENTITY": card["identity"], "VERSION": card["version"],
            "CONFIG_HASH": card["config_hash"],
        }),
        ("Configuration", {
            "CONFIG_NAME" if name == "name" else name: value
            for name, value in card["config"].items()
        }),
        *(
            (f"{kind} codes", _prefixed(kind, members))
            for kind, members in card["enumerations"].items()
        ),
        ("Commands", {"COMMAND_BYTES": card["command"]["bytes"]}),
        *(
            (f"Fields of the command: {part}", {
                f"{part}_{field}_{what}": place[what]
                for field, place in fields.items() for what in ("bit", "width")
            })
            for part, fields in card["command"]["fields"].items()
        ),
    ]  # fmt: skip
    lines = [
        f"/* SAT, configuration '{config.name}'. Made by rtl.build; don't edit. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        '#include "sat_registers.h"',
    ]
    for title, macros in sections:
        lines += ["", f"/* {title} */"]
        lines += [f"#define SAT_{_macro(name)} {_literal(value)}" for name, value in macros.items()]
    return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def _prefixed(kind: str, members: dict[str, int]) -> dict[str, int]:
    """Return `members` with the name of their type in front, its words apart."""
    words = "".join(f"_{c}" if c.isupper() else c for c in kind).lstrip("_")
    return {f"{words}_{name}": value for name, value in members.items()}


def _macro(name: str) -> str:
    return name.upper().replace("-", "_")


def _literal(value: int | str) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return f"UINT{32 if value < 1 << 32 else 64}_C({value if value < 10 else hex(value)})"
