"""Shows what the cycle model predicts beside what the Verilated card measures.

``python -m sim.cycles --layer 8,32,32,1`` runs a convolution's forward pass, backward pass and
weight update, ``--network cnn`` a network's training step, on both; each program's counters are
printed side by side. ``--help`` lists the options. Ends with status 0 only if all cycles agree to
within 1 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from firmware.cards import Card
from firmware.cards.cycles import CycleCard
from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver
from firmware.errors import AllocationError, ModelError, ScheduleError
from firmware.model import Method, Model, Shape
from firmware.models import NETWORKS, perceptron, residual_cnn
from firmware.network import Network
from rtl.config import PRESETS, preset
from rtl.sparsity.pattern import Pattern, PatternError

from ..bench.memory import Layer, Workload, timing_for
from .report import side_by_side

__all__ = ["main"]

_TOLERANCE = 0.01

_LONGEST = 1e9
"""Cycles that a program may take."""

_DIGITS = Shape(8, 8, 1)

_MODELS: dict[str, Callable[[Method], Model]] = {
    "mlp": lambda method: perceptron(_DIGITS, 10, (128, 128, 128), method),
    "cnn": lambda method: residual_cnn(_DIGITS, 10, (16, 32), method),
    **NETWORKS,
}
"""Those for the digits, which small cards have room for, and the ready-made ones."""

_Counters = Mapping[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: all cycles agree. 1: some don't. 2: it couldn't be done.
    """
    options = _parse(arguments)
    config = preset(options.preset)
    timing = timing_for(config)

    def run(card: Card) -> Iterator[tuple[str, _Counters]]:
        driver = Driver(card)
        if options.layer is None:
            yield from _run_network(driver, _MODELS[options.network], options.method, options.batch)
        else:
            yield from _run_layer(driver, options.layer, options.method, options.batch)

    agree = True
    try:
        # The model first: what it can't schedule needs no card to be built.
        predicted = dict(run(CycleCard(config, timing=timing)))
        with VerilatedCard(config, timing=timing) as card:
            for name, measured in run(card):
                print(f"{name}\n{side_by_side(measured, predicted[name])}\n", flush=True)
                error = abs(predicted[name]["CYCLES"] / measured["CYCLES"] - 1)
                agree = agree and error <= _TOLERANCE
    except (ModelError, ScheduleError, AllocationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if agree else 1


def _run_layer(
    driver: Driver, sizes: tuple[int, ...], method: Method, batch: int
) -> Iterator[tuple[str, _Counters]]:
    side, inputs, outputs, stride = sizes
    layer = Layer("convolution of 3 x 3", side, inputs, outputs, stride, batch)
    workload = Workload(driver, layer, method.forward)
    for stage in layer.stages:
        yield f"{layer.name}, {stage}", workload.run(stage)


def _run_network(
    driver: Driver, make: Callable[[Method], Model], method: Method, batch: int
) -> Iterator[tuple[str, _Counters]]:
    """Run a training step on a memory full of zeros: no time depends on values."""
    network = Network(driver, make(method), batch, step_only=True)
    for program in network.step_programs:
        yield f"{network.model.name}, {program.name}", driver.run(program, _LONGEST).counters


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim.cycles",
        description="Predict the counters of programs by the cycle model, measure them on the "
        "Verilated card, and show both side by side.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--preset", choices=PRESETS, default="sim", help="configuration")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--layer",
        type=_layer,
        metavar="SIDE,INPUTS,OUTPUTS,STRIDE",
        help="a convolution of 3 x 3 with padding, all of whose stages run",
    )
    what.add_argument("--network", choices=_MODELS, help="a network, whose training step runs")
    parser.add_argument("--pattern", type=_pattern, default=Pattern.N2M8, help="N:M of the weights")
    parser.add_argument("--batch", type=int, default=32, help="images")
    options = parser.parse_args(arguments)
    options.method = Method.bdwp(options.pattern)
    return options


def _layer(text: str) -> tuple[int, ...]:
    sizes = tuple(map(int, text.split(",")))
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"four numbers from 1 on, such as 8,32,32,1, not '{text}'")
    return sizes


def _pattern(text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except PatternError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
