"""Runs Tcl scripts with recorded stand-ins for the vendors' commands."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from boards.tcl import tcl_list

__all__ = ["Call", "Run", "run_tcl"]

STANDINS = Path(__file__).parent / "standins.tcl"

TKINTER = """
import sys, tkinter
tcl = tkinter.Tcl()
tcl.call("set", "argv", tuple(sys.argv[2:]))
tcl.call("source", sys.argv[1])
"""
"""Does what tclsh does, by the interpreter that comes with Python."""

SECONDS = 60


@dataclass(frozen=True)
class Call:
    """A call of a stand-in: the command, and its arguments after substitution."""

    command: str
    words: tuple[str, ...]

    def option(self, name: str) -> str:
        """Return the value of an option, nothing if the call doesn't have it."""
        return self.words[self.words.index(name) + 1] if name in self.words else ""


@dataclass(frozen=True)
class Run:
    """What a script did."""

    status: int
    output: str
    calls: list[Call]

    def of(self, command: str) -> list[Call]:
        """Return the calls of a command, in order."""
        return [call for call in self.calls if call.command == command]


def run_tcl(
    script: Path,
    record: Path,
    answers: Mapping[Sequence[str], str] | None = None,
    arguments: Sequence[str] = (),
) -> Run:
    """Run `script`; its calls are written to `record`.

    `answers` are what certain calls return, by command and arguments. Syntax errors, unknown
    commands and options that a command doesn't have end a script with a status that isn't 0.
    """
    pairs = [item for call, result in (answers or {}).items() for item in (tuple(call), result)]
    run = subprocess.run(
        [*_interpreter(), str(STANDINS), str(record), tcl_list(pairs), str(script), *arguments],
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    words = [entry.split("\x1f") for entry in record.read_text().split("\x1e")[:-1]]
    return Run(run.returncode, run.stdout, [Call(first, tuple(rest)) for first, *rest in words])


def _interpreter() -> list[str]:
    tclsh = shutil.which("tclsh")
    if tclsh:
        return [tclsh]
    try:
        import tkinter  # noqa: F401
    except ImportError:
        message = "no Tcl interpreter: neither tclsh (Debian: apt install tcl) nor Python's tkinter"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return [sys.executable, "-c", TKINTER]
