"""Trains a network dense and with N:M sparse weights on a card, and compares the two.

``python -m firmware.train --help`` lists the options. Ends with status 0 only if every weight came
out of the card as it does from the golden model.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rtl.config import PRESETS, Config
from rtl.sparsity.pattern import Pattern, PatternError, supported_patterns

from . import report
from .cards import BOARDS, KINDS
from .cards import MODELS as MODEL_KINDS
from .errors import AllocationError, CardError, ScheduleError
from .loss import LossScale
from .model import METHOD_KINDS
from .training import MODELS, Diverged, Outcome, Settings, compare, train, train_reference
from .training import Progress as TrainingProgress

__all__ = ["main"]

_messages: Any = None
_stop: Any = None
"""In a process that trains: where it sends its progress, and what tells it to end."""

_LONGEST_WAIT = 0.2
"""Seconds between two looks at the processes that train."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: trained, and equal to the golden model if compared. 1: not equal. 2: it couldn't be done.
    """
    options = _parse(arguments)
    console = Console(stderr=True)
    settings = Settings(
        card=options.card,
        model=options.model,
        method=options.method,
        hidden=options.layers,
        widths=options.widths,
        epochs=options.epochs or MODELS[options.model],
        batch=options.batch,
        seed=options.seed,
        rate=options.learning_rate,
        momentum=options.momentum,
        decay=options.decay,
        loss_scale=options.loss_scale,
        growth_interval=options.growth_interval,
        steps=options.steps,
        description=options.description,
    )
    start = time.monotonic()
    try:
        config = _prepare(settings, options.pattern, options.trace, console)
        dense, sparse = _train_both(settings, config, options, console)
    except (CardError, ScheduleError, AllocationError, Diverged) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    figures = report.summary(settings, config, dense, sparse, time.monotonic() - start)
    paths = report.write(figures, options.out)
    return _conclude(figures, paths)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m firmware.train",
        description="Train a network on scikit-learn's digits twice, dense and with N:M sparse "
        "weights; test both on the card, and compare every bit with the golden model. The first "
        "and the last layer stay dense.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    kinds = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    cards = [*(f"{kind}:PRESET" for kind in MODEL_KINDS), *(form for form, _ in BOARDS.values())]
    parser.add_argument(
        "--card",
        default=defaults.card,
        metavar="CARD",
        help=f"what to train on: {', '.join(cards)} ({kinds}); presets: {', '.join(PRESETS)}",
    )
    parser.add_argument(
        "--description",
        metavar="FILE",
        help="JSON file by rtl.build of a board whose configuration is no preset",
    )
    parser.add_argument(
        "--model",
        choices=MODELS,
        default=defaults.model,
        help="mlp: fully connected layers; cnn: a residual network of 3 x 3 convolutions",
    )
    parser.add_argument(
        "--pattern", type=_pattern, default=Pattern.N2M8, metavar="N:M", help="of the sparse run"
    )
    parser.add_argument(
        "--method",
        choices=METHOD_KINDS,
        default=defaults.method,
        help="what the sparse run prunes; bdwp: forward and backward weights; ff: forward weights "
        "only; bp: backward weights only",
    )
    epochs = ", ".join(f"{model}: {count}" for model, count in MODELS.items())
    parser.add_argument("--epochs", type=_positive, help=f"default: {epochs}")
    parser.add_argument("--batch", type=_positive, default=defaults.batch, help="images in a step")
    parser.add_argument(
        "--layers",
        type=_widths,
        default=",".join(map(str, defaults.hidden)),
        metavar="WIDTH,...",
        help="widths of the mlp's hidden layers, at least two",
    )
    parser.add_argument(
        "--widths",
        type=_widths,
        default=",".join(map(str, defaults.widths)),
        metavar="CHANNELS,...",
        help="channels of the cnn's residual blocks",
    )
    parser.add_argument("--seed", type=_natural, default=defaults.seed)
    parser.add_argument(
        "--learning-rate", type=float, default=defaults.rate, help="peak of the one-cycle rate"
    )
    parser.add_argument("--momentum", type=float, default=defaults.momentum)
    parser.add_argument("--decay", type=float, default=defaults.decay, help="weight decay")
    parser.add_argument(
        "--loss-scale",
        type=_loss_scale,
        default=str(1 << defaults.loss_scale),
        metavar="SCALE",
        help="first loss scale, a power of two",
    )
    parser.add_argument(
        "--growth-interval",
        type=_positive,
        default=defaults.growth_interval,
        metavar="STEPS",
        help="clean steps after which the loss scale doubles",
    )
    parser.add_argument(
        "--steps", type=_positive, help="end after so many steps, though epochs be left"
    )
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the reports")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE.fst",
        help="record a waveform of the sparse run's initialisation and first step",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="don't train again on the golden model to compare the results",
    )
    options = parser.parse_args(arguments)
    if len(options.layers) < 2:
        parser.error("--layers: the first and the last layer stay dense; name two widths or more")
    return options


def _prepare(settings: Settings, pattern: Pattern, trace: Path | None, console: Console) -> Config:
    """Open the card once, which builds what has to be built, and return its configuration."""
    with (
        console.status(f"preparing card {settings.card}"),
        settings.open_card(trace) as card,
    ):
        config = card.config
        if not card.computes:
            raise CardError(f"card '{settings.card}' computes no values; train on another kind")
    if trace is not None:
        # The dense run has no waveform, and needs the card without.
        with console.status("preparing the card without waveforms"):
            settings.open_card().close()
    if pattern not in supported_patterns(config):
        choices = ", ".join(map(str, supported_patterns(config)))
        raise CardError(
            f"configuration '{config.name}' doesn't support {pattern}; choose from: {choices}"
        )
    return config


@dataclass(frozen=True)
class _Job:
    """One training: of the card, or of the golden model to compare it with."""

    run: str
    pattern: Pattern
    phase: str
    config: Config
    trace: Path | None = None

    def carry_out(self, settings: Settings, tell: Callable[[TrainingProgress], None]) -> Outcome:
        if self.phase == "verify":
            return train_reference(settings, self.pattern, self.config, report=tell)
        return train(settings, self.pattern, trace=self.trace, report=tell)


def _train_both(
    settings: Settings, config: Config, options: argparse.Namespace, console: Console
) -> tuple[Outcome, Outcome]:
    """Train dense and sparse, and on the golden model as well; side by side where it's faster."""
    jobs = [
        _Job("dense", Pattern.DENSE, "train", config),
        _Job(str(options.pattern), options.pattern, "train", config, options.trace),
    ]
    if not options.no_verify:
        jobs += [_Job(job.run, job.pattern, "verify", config) for job in jobs]
    with Progress(
        TextColumn("{task.description:<13}"),
        BarColumn(),
        TextColumn("{task.completed:>4.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=console,
    ) as display:
        tasks = [
            display.add_task(f"{job.run:<6} {job.phase}", total=1, start=False, figures="waits")
            for job in jobs
        ]

        def show(index: int, progress: TrainingProgress) -> None:
            cycles = f"  {progress.cycles / 1e6:.2f} M cycles" if progress.cycles else ""
            display.start_task(tasks[index])
            display.update(
                tasks[index],
                completed=progress.step,
                total=progress.steps,
                figures=f"loss {progress.loss:7.4f}  batch accuracy {progress.accuracy:6.1%}"
                f"{cycles}",
            )

        # The golden model keeps the cores busy by itself; the gateware's simulation uses one.
        if settings.card.startswith("verilated") and (os.cpu_count() or 1) > 1:
            outcomes = _in_processes(settings, jobs, show)
        else:
            outcomes = [
                job.carry_out(settings, functools.partial(show, index))
                for index, job in enumerate(jobs)
            ]
    dense, sparse, *references = outcomes
    for outcome, reference in zip((dense, sparse), references):
        compare(outcome, reference)
    return dense, sparse


def _in_processes(
    settings: Settings, jobs: Sequence[_Job], show: Callable[[int, TrainingProgress], None]
) -> list[Outcome]:
    """Carry out the jobs in two processes, which take one after the other."""
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    stop: Any = context.Event()
    with ProcessPoolExecutor(
        2, mp_context=context, initializer=_start_worker, initargs=(messages, stop)
    ) as pool:
        futures: list[Future[Outcome]] = [
            pool.submit(_work, index, settings, job) for index, job in enumerate(jobs)
        ]
        while not all(future.done() for future in futures):
            if any(future.done() and future.exception() for future in futures):
                # The other runs' results are of no use any more.
                stop.set()
            try:
                show(*messages.get(timeout=_LONGEST_WAIT))
            except queue.Empty:
                continue
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Stopped):
                raise error
        return [future.result() for future in futures]


class _Stopped(Exception):
    """A run was ended because another one failed."""


def _start_worker(messages: Any, stop: Any) -> None:
    global _messages, _stop
    _messages, _stop = messages, stop


def _work(index: int, settings: Settings, job: _Job) -> Outcome:
    """Carry out a job in a process of its own."""

    def tell(progress: TrainingProgress) -> None:
        if _stop.is_set():
            raise _Stopped
        _messages.put((index, progress))

    return job.carry_out(settings, tell)


def _conclude(figures: dict[str, Any], paths: Sequence[Path]) -> int:
    """Print the result; return the exit status."""
    console = Console()
    settings = figures["settings"]
    table = Table(title=f"dense against {figures['pattern']}", title_justify="left")
    table.add_column("")
    for heading in ("dense", figures["pattern"], ""):
        table.add_column(heading, justify="right")
    for row in report.rows(figures):
        table.add_row(*row)
    console.print()
    console.print(table)
    console.print(
        f"{figures['steps']} steps of {settings['batch']} images, seed {figures['seed']}, method "
        f"{figures['method']}; the first and the last layer are dense in both runs",
        highlight=False,
    )
    if figures["slots_add_up"] is False:
        console.print("[red]the card's counters don't account for every MAC of every cycle[/]")
    console.print("written: " + ", ".join(map(str, paths)), highlight=False, soft_wrap=True)
    if figures["bit_exact"] is None:
        console.print("not compared with the golden model", highlight=False, soft_wrap=True)
        return 0
    if figures["bit_exact"]:
        console.print(
            f"[green]bit for bit equal to the golden model[/] ({figures['compared_bytes']:,} bytes "
            "of weights, momentum and compressed copies)",
            highlight=False,
            soft_wrap=True,
        )
        return 0
    console.print("[red]differs from the golden model[/]", highlight=False, soft_wrap=True)
    for run, names in figures["mismatches"].items():
        for name in names or ():
            console.print(f"  {run}: {name}", highlight=False, soft_wrap=True)
    return 1


def _pattern(text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except PatternError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} isn't positive")
    return value


def _natural(text: str) -> int:
    value = _integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no integer") from None


def _widths(text: str) -> tuple[int, ...]:
    return tuple(_positive(width) for width in text.split(","))


def _loss_scale(text: str) -> int:
    """Return the binary logarithm of a power of two."""
    value = _positive(text)
    exponent = value.bit_length() - 1
    if value != 1 << exponent or exponent > LossScale.LIMITS[1]:
        raise argparse.ArgumentTypeError(
            f"{value} is no power of two from 1 to {1 << LossScale.LIMITS[1]}"
        )
    return exponent


if __name__ == "__main__":
    sys.exit(main())
