"""Builds the library of the cycle model."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..cache import digest, locked
from .gateware import header

__all__ = ["BuildError", "build_library"]

SOURCES = Path(__file__).parent
CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "cycles"

_COMPILER = "g++"
_OPTIONS = ("-std=c++17", "-O3", "-Wall", "-Wextra", "-fPIC", "-shared")


class BuildError(RuntimeError):
    """The cycle model couldn't be compiled; the message ends with the compiler's output."""


def build_library() -> Path:
    """Return the shared library, which serves every configuration, building it if it isn't cached.

    Raises
    ------
    BuildError
        There is no compiler, or it failed.
    """
    made = header()
    sources = sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.cpp")])
    folder = CACHE / digest([made, _OPTIONS, [source.read_text() for source in sources]])
    library = folder / "libcycles.so"
    with locked(folder):
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "gateware.hpp").write_text(made)
            _compile(folder, library)
    return library


def _compile(folder: Path, library: Path) -> None:
    partial = folder / "partial.so"
    command = [
        _COMPILER, *_OPTIONS, "-I", str(folder), "-o", str(partial), str(SOURCES / "core.cpp"),
    ]  # fmt: skip
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"building the cycle model needs {_COMPILER}, which isn't there") from None
    if run.returncode:
        raise BuildError(f"building the cycle model in {folder} failed:\n{run.stderr[-4000:]}")
    partial.rename(library)
