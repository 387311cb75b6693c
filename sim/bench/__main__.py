"""Measures the accelerator: ``python -m sim.bench``.

Four parts: ``area`` synthesises every preset, module by module, and elaborates it; ``gemm`` runs
matrix products on the Verilated card; ``speed`` times the simulation, and the cycle model beside
it; ``memory`` runs convolutions with their operands in card memory, on an array of 256 MACs unless
``--preset`` names others. The first three write ``engine.json`` with all figures,
``engine.txt`` with the tables that are printed, and ``engine.html`` with both and pictures;
``memory`` writes the same three files of its own. Every figure is shown with its change against the
accepted run in ``docs/bench``.

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
model
    The cycle model beside the Verilated card, on the last of the presets named, or else on the
    largest card of all, ``vcu1525``: ``max_relative_error`` of the cycles of a program and
    ``speed_ratio``, with ``preset``, ``macs``, ``cycles``, ``card_cycles_per_second`` and
    ``model_cycles_per_second``.

Keys of ``memory.json``
-----------------------
cards.NAME
    ``macs`` and ``beat_bytes``; ``bytes_per_cycle`` and ``latency`` of its memory, and what they
    stand for is told in `sim.bench.memory`; ``stream`` as below.
layers
    A list of programs: ``card``; ``name`` of the layer with its ``side``, ``inputs``, ``outputs``,
    ``stride`` and ``batch``; ``stage``, ``pattern``, ``cycles``, ``utilisation``, and ``lost`` MAC
    slots by cause; ``utilisation`` and all of ``lost`` together are 1. ``bytes_read`` and
    ``bytes_written``, commands included, and ``bandwidth``, their share of what memory could have
    moved.
stream
    ``read`` and ``write``: AXI data slots that long LOADs and long STOREs use, of the first card.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl.config import PRESETS, ConfigError, preset

from . import cycle_model, engine_report, gemm, hardware, memory, memory_report
from .report import Report

PARTS = ("area", "gemm", "speed", "memory")

ACCEPTED = Path(__file__).parents[2] / "docs" / "bench"

_QUICK_PRESETS = ("tiny",)

_REFERENCE = "vcu1525"
"""Preset whose processing element stands for all, and beside whose card the model is timed."""


class _Progress:
    """Says on standard error what is under way, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"[{seconds:6.1f} s] {text}", file=sys.stderr, flush=True)


def _measure_engine(options: argparse.Namespace, progress: _Progress) -> dict[str, Any]:
    only, quick = options.only, options.quick
    presets = options.preset or (_QUICK_PRESETS if quick else list(PRESETS))
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
    if "speed" in only:
        name = presets[-1] if options.preset or quick else _REFERENCE
        figures["model"] = cycle_model.measure(name, progress)
    return figures


def _measure_memory(options: argparse.Namespace, progress: _Progress) -> dict[str, Any]:
    if options.quick:
        configs = [preset(name) for name in options.preset or _QUICK_PRESETS]
    else:
        configs = [memory.card_config(name) for name in options.preset or (memory.PRESET,)]
    layers = memory.QUICK_LAYERS if options.quick else memory.LAYERS
    return {"quick": options.quick} | memory.measure(configs, layers, progress)


@dataclass(frozen=True)
class _Measured:
    """A report, the parts that it tells of, and how to measure them."""

    report: Report
    parts: frozenset[str]
    measure: Callable[[argparse.Namespace, _Progress], dict[str, Any]]


_REPORTS = (
    _Measured(engine_report.REPORT, frozenset(("area", "gemm", "speed")), _measure_engine),
    _Measured(memory_report.REPORT, frozenset(("memory",)), _measure_memory),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.bench",
        description="Measure the accelerator: area, products, speed, and convolutions with their "
        "operands in card memory.",
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument(
        "--preset",
        nargs="+",
        help=f"configurations (all, for memory {memory.PRESET}; tiny with --quick)",
    )
    parser.add_argument("--quick", action="store_true", help="a part that takes about a minute")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="(%(default)s)")
    parser.add_argument(
        "--accept", action="store_true", help="keep this run's table as the one to compare with"
    )
    options = parser.parse_args(arguments)
    try:
        for name in options.preset or ():
            preset(name)
    except ConfigError as error:
        parser.error(str(error))
    wanted = [one for one in _REPORTS if one.parts & set(options.only)]
    whole = all(one.parts <= set(options.only) for one in wanted)
    if options.accept and (options.quick or options.preset or not whole):
        parser.error("--accept takes a whole run: all parts of a report, all presets")
    progress = _Progress()
    for one in wanted:
        figures = one.measure(options, progress)
        before = one.report.accepted(ACCEPTED)
        print(one.report.text(figures, before))
        for path in one.report.write(figures, before, options.out):
            print(f"written to {path}")
        if options.accept:
            for path in one.report.accept(figures, ACCEPTED):
                print(f"accepted in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
