"""Measures the tensor engine: ``python -m sim.bench``.

Three parts: ``area`` synthesises every preset, module by module, and elaborates it; ``gemm`` runs
matrix products on the Verilated card; ``speed`` times the simulation. Writes ``engine.json`` with
all figures, ``engine.txt`` with the tables that it prints, and ``engine.html`` with both and
pictures. Every figure is shown with its change against the accepted run in ``docs/bench``.

Keys of ``engine.json``
-----------------------
pe
    ``lut_per_mac``, ``dsp_per_mac`` and others of the processing element of the preset named
    there, as made for its device; under ``presets`` of every preset, with the board-neutral one.
baseline
    The same of a plain FP16 multiplier plus FP32 adder (`sim.bench.baseline`).
presets.NAME
    ``macs``, ``lut``, ``ff``, ``dsp``, ``lutram``, ``bram``, ``uram``; ``share`` of each that the
    device has; ``elaborate_seconds``, ``elaborate_cpu_seconds`` and ``elaborate_peak_bytes`` of
    ``python -m rtl.build``; ``modules`` with the resources of one instance and how many there are.
depth
    The longest paths in that processing element, by the delay model of `sim.bench.depth`.
gemm
    A list of products: ``m``, ``n``, ``k``, ``pattern``, ``macs``, ``cycles``, ``utilisation``, and
    ``lost`` MAC slots by cause; ``utilisation`` and all of ``lost`` together are 1. ``allowed`` is
    the utilisation without any pause of multiplying or draining, ``stationary`` that of a
    weight-stationary dataflow at best.
simulation
    ``cycles_per_second`` of the Verilated card with 256 MACs, while they multiply.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtl.config import PRESETS, ConfigError, preset

from . import gemm, hardware, report

PARTS = ("area", "gemm", "speed")

ACCEPTED = Path(__file__).parents[2] / "docs" / "bench"

_QUICK_PRESETS = ("tiny",)

_REFERENCE = "vcu1525"
"""Preset whose processing element stands for all, if it's measured."""


class _Progress:
    """Says on standard error what is under way, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"[{seconds:6.1f} s] {text}", file=sys.stderr, flush=True)


def measure(
    only: Sequence[str], presets: Sequence[str], quick: bool, progress: _Progress
) -> dict[str, Any]:
    """Return the figures of the parts `only`; see the module for their meaning."""
    figures: dict[str, Any] = {"quick": quick}
    if "area" in only:
        ordered = sorted(presets, key=lambda name: name == _REFERENCE)
        figures |= hardware.measure(ordered, progress)
        progress("warm up the elaboration")
        hardware.elaboration("tiny")
        for name in presets:
            progress(f"time the elaboration of {name}")
            figures["presets"][name] |= hardware.elaboration(name)
    shapes = [
        shape for shape in (gemm.QUICK_SHAPES if quick else gemm.SHAPES) if shape.preset in presets
    ]
    if "gemm" in only:
        figures |= gemm.measure(shapes, progress)
    elif "speed" in only:
        longest = max(shapes, key=lambda shape: shape.m * shape.n * shape.k, default=None)
        if longest:
            figures["simulation"] = gemm.measure([longest], progress)["simulation"]
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.bench", description="Measure the tensor engine: area, products, speed."
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--preset", nargs="+", help="configurations (all; tiny with --quick)")
    parser.add_argument("--quick", action="store_true", help="a part that takes about a minute")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="(%(default)s)")
    parser.add_argument(
        "--accept", action="store_true", help="keep this run's table as the one to compare with"
    )
    options = parser.parse_args(arguments)
    presets = options.preset or (_QUICK_PRESETS if options.quick else list(PRESETS))
    try:
        for name in presets:
            preset(name)
    except ConfigError as error:
        parser.error(str(error))
    whole = not (options.quick or options.preset) and set(options.only) == set(PARTS)
    if options.accept and not whole:
        parser.error("--accept takes a whole run: all parts of all presets")
    figures = measure(options.only, presets, options.quick, _Progress())
    accepted = ACCEPTED / "engine.json"
    before = json.loads(accepted.read_text()) if accepted.exists() else {}
    print(report.text(figures, before))
    for path in report.write(figures, before, options.out):
        print(f"written to {path}")
    if options.accept:
        for path in report.accept(figures, ACCEPTED):
            print(f"accepted in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
