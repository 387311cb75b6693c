"""Convolutions with their operands in card memory: cycles, and where the MAC slots go.

The layers of 3 x 3 of ResNet-18 with 128 channels and more, for images of 64 x 64, on the Verilated
card whose memory gives a MAC as many bytes a cycle as that of a card with 4,096 MACs at 250 MHz has
at 77 GB/s. Forward, backward, and weight gradients with their update, each a program of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.layers import ConvolutionTensors
from firmware.model import Convolution, Input
from firmware.program import Program
from firmware.schedule import Assembly, ConvolutionSchedule, Step
from firmware.tensor import Activations
from rtl.config import Config, preset
from rtl.sparsity.pattern import Pattern

from .gemm import LOST, PADDING

__all__ = ["BYTES_PER_CYCLE", "LAYERS", "card_config", "measure"]

BYTES_PER_CYCLE = 77e9 / 250e6 / 4096
"""Of memory, for each MAC."""

_LATENCY = 64
"""Cycles from an address to its first beat."""

_LONGEST = 100_000_000


@dataclass(frozen=True)
class Layer:
    """A convolution of 3 x 3: side of its input, channels, and stride."""

    name: str
    side: int
    inputs: int
    outputs: int
    stride: int
    batch: int

    def convolution(self, pattern: Pattern) -> Convolution:
        image = Input("image", self.side, self.side, self.inputs)
        return Convolution(
            self.name, image, self.outputs, kernel=3, stride=self.stride, padding=1,
            pattern=pattern,
        )  # fmt: skip


LAYERS = (
    Layer("conv3, first", 16, 64, 128, 2, 128),
    Layer("conv3", 8, 128, 128, 1, 128),
    Layer("conv4, first", 8, 128, 256, 2, 128),
    Layer("conv4", 4, 256, 256, 1, 128),
    Layer("conv5, first", 4, 256, 512, 2, 128),
    Layer("conv5", 2, 512, 512, 1, 128),
)
"""Of ResNet-18 for images of 64 x 64, whose first layers leave 16 x 16 pixels."""


def card_config(name: str) -> Config:
    """Return the preset `name` with as many words of scratchpad in all as ``vcu1525``."""
    config, board = preset(name), preset("vcu1525")
    banks = {"s_depth": board.rows // config.rows, "d_depth": board.cols // config.cols}
    depths = {depth: getattr(board, depth) * factor for depth, factor in banks.items()}
    depths["o_depth"] = board.o_depth * board.cols // config.cols
    depths["aux_depth"] = board.aux_depth
    return dataclasses.replace(
        config, name=f"{name}-memory", memory_bytes=1 << 29, **depths, queue_depth=board.queue_depth
    )


def measure(
    layers: Sequence[Layer], patterns: Sequence[str], progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run the three products of each layer; return their figures."""
    config = card_config("sim")
    timing = MemoryTiming(
        latency=_LATENCY, bandwidth=BYTES_PER_CYCLE * config.macs / config.beat_bytes
    )
    results = []
    with VerilatedCard(config, timing=timing) as card:
        for layer in layers:
            for pattern in patterns:
                progress(f"{layer.name}, {pattern}")
                driver = Driver(card)
                results += _run(driver, layer, Pattern.parse(pattern))
    return results


def _run(driver: Driver, layer: Layer, pattern: Pattern) -> list[dict[str, Any]]:
    config, card = driver.config, driver.card
    convolution = layer.convolution(pattern)
    shape = convolution.shape
    tensors = ConvolutionTensors(convolution, config, driver.memory, has_backward=True)
    random = np.random.default_rng(0)
    tensors.state.write(card, convolution.initial_weights(random).reshape(tensors.state.shape))
    x = Activations(config, driver.memory, layer.batch, convolution.source.shape)
    dx = Activations(config, driver.memory, layer.batch, convolution.source.shape)
    y = Activations(config, driver.memory, layer.batch, shape)
    zeros = Activations(config, driver.memory, 1, dataclasses.replace(shape, height=1, width=1))
    for tensor in (x, y):
        values = random.standard_normal((layer.batch, *dataclasses.astuple(tensor.shape)))
        tensor.write(card, values)
    zeros.clear(card)

    def program(name: str) -> tuple[Assembly, ConvolutionSchedule]:
        assembly = Assembly(Program(config, f"{layer.name}, {name}"))
        return assembly, ConvolutionSchedule(assembly, convolution, tensors)

    start, schedule = program("initialisation")
    schedule.initialise(zeros)
    driver.run(start.program, _LONGEST)
    driver.unload(start.program)
    figures = []
    for stage, kept in (("FF", True), ("BP", True), ("WU", False)):
        assembly, schedule = program(stage)
        if stage == "FF":
            schedule.forward(x, y)
        elif stage == "BP":
            schedule.backward(y, dx, add=None, mask=x)
        else:
            schedule.update(x, y)
            assembly.set_step(Step(rate=0.01, momentum=0.9))
        counters = driver.run(assembly.program, _LONGEST).counters
        driver.unload(assembly.program)
        products = layer.batch * (convolution.kept_products if kept else convolution.products)
        total = counters["CYCLES"] * config.macs
        lost = {cause: counters[name] * config.macs for cause, name in LOST.items()}
        lost |= {cause: counters[name] for cause, name in PADDING.items()}
        figures.append(
            {
                "name": layer.name,
                "stage": stage,
                "pattern": str(pattern),
                "cycles": counters["CYCLES"],
                "utilisation": round(products / total, 5),
                "lost": {cause: round(macs / total, 5) for cause, macs in lost.items()},
                "bytes_read": counters["READ_BEATS"] * config.beat_bytes,
                "bytes_written": counters["WRITE_BEATS"] * config.beat_bytes,
                "bandwidth": round(
                    (counters["READ_BEATS"] + counters["WRITE_BEATS"]) * config.beat_bytes
                    / (counters["CYCLES"] * BYTES_PER_CYCLE * config.macs), 4,
                ),
            }
        )  # fmt: skip
    return figures
