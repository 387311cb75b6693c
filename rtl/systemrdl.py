"""The register map in SystemRDL 2.0 (Accellera), and what PeakRDL makes of it."""

from __future__ import annotations

import ast
import enum
import inspect
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape

from .config import Config
from .control.commands import Fault
from .interface.register_map import REGISTERS, Access, Control, Register

__all__ = ["register_header", "systemrdl", "write_register_pages"]

_ACTIONS = Control.START | Control.SOFT_RESET
"""Bits of CONTROL that start something when they are written 1."""


def systemrdl(config: Config, registers: Iterable[Register] = ()) -> str:
    """Return the register map of a card as SystemRDL: one address map, called ``sat``.

    Parameters
    ----------
    config
        The card's configuration.
    registers
        Registers that it has besides those of every card.
    """
    lines = [
        f"// SAT, configuration '{config.name}'. Made by rtl.build; don't edit.",
        "",
        "enum Fault {",
        *(
            f"    {code.name} = {code.value} {{ {_description(doc)} }};"
            for code, doc in _documented(Fault)
        ),
        "};",
        "",
        "addrmap sat {",
        f'    name = "SAT, configuration {config.name}";',
        '    desc = "Registers of the accelerator, behind an AXI4-Lite port.";',
        "    default regwidth = 32;",
        "    default accesswidth = 32;",
    ]
    for register in (*REGISTERS.values(), *registers):
        reset = config.hash if register.name == "CONFIG_HASH" else register.reset
        lines += [
            "",
            "    reg {",
            f"        {_description(register.doc)}",
            *(f"        {field}" for field in _fields(register, reset)),
            f"    }} {register.name} @ {register.offset:#05x};",
        ]
    return "\n".join([*lines, "};", ""])


def _fields(register: Register, reset: int) -> Iterator[str]:
    """Yield a register's fields."""
    content = register.content
    if content is None:
        yield f"field {{ {_access(register)} }} VALUE[31:0] = {reset:#x};"
    elif issubclass(content, enum.IntFlag):
        for member, doc in _documented(content):
            bit = member.bit_length() - 1
            yield (
                f"field {{ {_description(doc)} {_access(register, member)} }} "
                f"{member.name}[{bit}:{bit}] = {reset >> bit & 1};"
            )
    else:
        width = Shape.cast(content).width
        yield (
            f"field {{ encode = {content.__name__}; {_access(register)} }} "
            f"CODE[{width - 1}:0] = {reset:#x};"
        )


def _access(register: Register, member: int = 0) -> str:
    """Return the properties of a field that say who may change it, and how."""
    match register.access:
        case Access.READ_WRITE:
            return "sw = rw; hw = r;"
        case Access.READ_ONLY:
            # What is the same for ever is no business of the hardware's.
            constant = register.reset or register.name == "CONFIG_HASH"
            return f"sw = r; hw = {'na' if constant else 'w'};"
        case Access.WRITE_ONE_TO_CLEAR:
            return "sw = rw; hw = w; hwset; onwrite = woclr;"
    # What starts an action reads as its progress.
    return "sw = rw; hw = rw; onwrite = woset;" if member & _ACTIONS else "sw = r; hw = w;"


def _documented(kind: type[enum.Enum]) -> Iterator[tuple[Any, str]]:
    """Yield the members of an enumeration with the docstrings behind them in the source."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {
        statement.targets[0].id: behind.value.value
        for statement, behind in zip(definition.body, definition.body[1:])
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(behind, ast.Expr)
        and isinstance(behind.value, ast.Constant)
    }
    for member in kind:
        yield member, str(docs.get(member.name, ""))


def _description(words: str) -> str:
    """Return the property that holds a text; nothing if there is none."""
    text = " ".join(words.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'desc = "{text}";' if text else ""


@contextmanager
def _compiled(config: Config, registers: Iterable[Register]) -> Iterator[Any]:
    """Compile a card's register map; its source is there as long as it may be asked for."""
    from systemrdl import RDLCompiler  # here, as it takes half a second to import

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "sat.rdl"
        file.write_text(systemrdl(config, registers))
        compiler = RDLCompiler()
        compiler.compile_file(str(file))
        yield compiler.elaborate()


def register_header(config: Config, registers: Iterable[Register] = ()) -> str:
    """Return the C header of the registers, by PeakRDL: masks and a ``struct``, ``sat_t``.

    Parameters are those of `systemrdl`.
    """
    from peakrdl_cheader.c_standards import CStandard
    from peakrdl_cheader.exporter import CHeaderExporter

    with _compiled(config, registers) as node, tempfile.TemporaryDirectory() as directory:
        # The name of the file is that of its include guard.
        file = Path(directory) / "sat_registers.h"
        CHeaderExporter().export(node, str(file), std=CStandard.gnu99)
        return file.read_text()


def write_register_pages(config: Config, directory: Path) -> None:
    """Write the registers' documentation by PeakRDL: ``index.html`` and what it needs."""
    from peakrdl_html import HTMLExporter

    with _compiled(config, ()) as node:
        HTMLExporter().export(node, str(directory))
