"""Runs whole networks through the scheduler and the cycle model, and reports what they take.

``python -m sim.networks --help`` lists the options. Writes ``networks.json``, ``networks.txt`` with
the tables that are printed, and ``networks.html`` with these and pictures. Ends with status 0 only
if every network could be scheduled with every method at every design point, and SCALE-Sim be run.

Keys of ``networks.json``
-------------------------
points
    A list: ``name``, ``macs``, ``bandwidth_bytes_per_s``, ``clock_hz``; ``networks``, by network
    and method the figures below; ``geomean`` of the speedups over the networks that have them, by
    method, ``geomean_ceiling`` of their ceilings, and but for the first point
    ``geomean_over_first``.
points.networks.NAME.METHOD
    ``preset`` and ``batch``; ``cycles`` by stage and in ``total``; ``cycles_dense`` on the same
    card; ``utilisation``, multiply-adds of the network after pruning of all slots; ``bytes``,
    those read and written together; ``images_per_s``, and ``images_per_s_allowed`` if only moving
    its bytes (``memory``, ``port``) or its multiply-adds (``multipliers``) took time; ``speedup``,
    its ``ceiling`` by multiply-adds, and the ``shortfall`` between them, of the ceiling; ``lost``
    slots by cause; ``held``, cycles by what held the card; ``causes``, all cycles by what the
    multipliers did or waited for; ``gap``, what each cause adds to a shortfall of more than 3 %;
    ``over_first``, images a second over those of the first point, with what is allowed.
failed
    What couldn't be done: ``job`` and ``reason``.
scalesim
    A list of products: ``layer``, ``m``, ``n``, ``k``, ``pattern``, ``macs``, ``cycles_scalesim``,
    ``cycles_model``, from empty scratchpads to the last write acknowledged, and ``slots_model``,
    those in which the array multiplied.
model
    ``max_relative_error`` and ``speed_ratio`` of the cycle model against the Verilated card, with
    ``preset``: those of ``engine.json`` beside, if ``python -m sim.bench --only speed`` was run,
    else measured on the smallest preset.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from firmware.model import METHODS, Method
from firmware.models import NETWORKS

from . import report
from .evaluate import BATCHES, Job
from .fidelity import model_figures
from .figures import jobs, summary
from .points import POINTS
from .scalesim import PATTERNS, PRODUCTS, QUICK_PRODUCTS, Product, ScaleSimError, compare
from .sweep import Result, Runner, in_processes, on_cluster, sweep

__all__ = ["main"]

_QUICK = {"network": ["resnet9"], "method": ["dense", "bdwp-2:8"], "point": ["1k"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: all done. 1: a network couldn't be scheduled, or SCALE-Sim couldn't be run; the report says
    which and why, and all else was done.
    """
    options = _parse(arguments)
    console = Console(stderr=True)
    points = [POINTS[name] for name in options.point]
    networks = {name: options.batch or BATCHES[name] for name in options.network}
    wanted = jobs(points, networks, options.method)
    run = (
        functools.partial(on_cluster, address=options.dask)
        if options.dask
        else functools.partial(in_processes, processes=options.jobs)
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        results = _sweep(wanted, run, progress)
        figures = summary(points, networks, options.method, results)
        if not options.no_scalesim:
            _compare(figures, QUICK_PRODUCTS if options.quick else PRODUCTS, options.jobs, progress)
    figures["model"] = model_figures(options.output)
    print(report.text(figures))
    for path in report.write(figures, results, options.output):
        print(f"written to {path}")
    return 1 if figures["failed"] else 0


def _sweep(wanted: Sequence[Job], run: Runner, progress: Progress) -> dict[Job, Result]:
    """Carry out jobs; those that can't be done are told at once."""
    task = progress.add_task("networks", total=len(wanted))

    def done(job: Job, result: Result) -> None:
        progress.update(task, advance=1)
        if "error" in result:
            _tell(progress, f"{job}: {result['error']}")

    return sweep(wanted, run, done)


def _compare(
    figures: dict[str, Any], products: Sequence[Product], workers: int, progress: Progress
) -> None:
    """Add what SCALE-Sim says to the figures, or why it says nothing."""
    task = progress.add_task("SCALE-Sim", total=len(products) * len(PATTERNS))
    try:
        rows = figures["scalesim"] = []
        for row in compare(products, workers):
            rows.append(row)
            progress.update(task, advance=1)
    except ScaleSimError as error:
        figures["failed"].append({"job": "SCALE-Sim", "reason": str(error)})
        _tell(progress, str(error))


def _tell(progress: Progress, message: str) -> None:
    progress.console.print(f"[red]{escape(message)}[/]", highlight=False, soft_wrap=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim.networks",
        description="Schedule whole networks, run their training steps through the cycle model, "
        "and compare methods of sparse training with each other and with dense training. Results "
        "are kept: a second run computes only what has changed.",
    )
    names = list(NETWORKS)
    parser.add_argument(
        "--network", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)} (all)"
    )
    methods = list(map(str, METHODS))
    parser.add_argument(
        "--method",
        nargs="+",
        type=_method,
        metavar="METHOD",
        help=f"dense or KIND-N:M ({', '.join(methods)})",
    )
    parser.add_argument("--point", nargs="+", choices=POINTS, help="design points (all)")
    parser.add_argument("--batch", type=_positive, help="images in a step (by the network)")
    parser.add_argument(
        "--jobs", type=_positive, default=os.cpu_count() or 1, help="processes (%(default)s)"
    )
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, to work there")
    parser.add_argument("--quick", action="store_true", help="a part that takes about a minute")
    parser.add_argument(
        "--no-scalesim", action="store_true", help="leave out the comparison with SCALE-Sim"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    everything = {"network": names, "method": methods, "point": list(POINTS)}
    for name, values in (everything | (_QUICK if options.quick else {})).items():
        if getattr(options, name) is None:
            setattr(options, name, values)
    if str(methods[0]) not in options.method:
        options.method = [methods[0], *options.method]
    return options


def _method(text: str) -> str:
    try:
        return str(Method.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
