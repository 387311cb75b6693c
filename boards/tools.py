"""Runs the tools that make and load bitstreams."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["MissingTool", "ToolFailed", "find_tool", "run_tool"]


class MissingTool(RuntimeError):
    """A tool isn't there; the message says which, and how it would be had."""


class ToolFailed(RuntimeError):
    """A tool failed; the message ends with what it said."""


def find_tool(name: str, variable: str) -> str:
    """Return the command `name`: of this Python's packages, or on the path.

    Parameters
    ----------
    name
        The command.
    variable
        Environment variable that names another.

    Raises
    ------
    MissingTool
        There is none.
    """
    wanted = os.environ.get(variable)
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = shutil.which(wanted) if wanted else beside or shutil.which(name)
    if found is None:
        raise MissingTool(
            f"{wanted or name} isn't there; `make setup` installs what the open flow needs, and "
            f"the environment variable {variable} may name the command"
        )
    return found


def run_tool(command: Sequence[str], directory: Path) -> None:
    """Run `command` in `directory`.

    Raises
    ------
    MissingTool
        It can't be started.
    ToolFailed
        It failed.
    """
    print(f"{directory}: {shlex.join(command)}", flush=True)
    try:
        run = subprocess.run(
            command, cwd=directory, text=True, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise MissingTool(f"cannot start {command[0]}: {error.strerror}") from error
    if run.returncode:
        raise ToolFailed(
            f"{Path(command[0]).name} failed with status {run.returncode}, in {directory}:\n"
            f"{run.stdout[-2000:]}"
        )
