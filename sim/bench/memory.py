"""Convolutions with their operands in card memory: cycles, and where the MAC slots go.

Each layer's forward product (FF, with ReLU; as in ResNet-18 there is no bias), backward product
(BP, masked by the ReLU below) and weight gradients with their update (WU) are a program each on the
Verilated card, which begins with empty scratchpads and ends when memory has acknowledged the last
write. Whatever FF, BP and WU leave in memory must be that of the golden model bit for bit: outputs,
gradients, master weights, momentum and compressed copies, of every layer and pattern that is
measured.

The card is a small one in place of `REFERENCE`, a card with 4,096 MACs at 250 MHz and memory of
77 GB/s. What is scaled to its size, and what isn't:

- Memory gives each MAC as many bytes a cycle, `BYTES_PER_CYCLE`; reads and writes share them.
- Scratchpads hold as many words in all, so that a layer is cut into the same blocks and each byte
  that is loaded serves as many products. A word, G values, is the same anyway.
- The latency of memory isn't scaled: `LATENCY` cycles, as they are for the large card. A block
  keeps fewer MACs busy for so many more cycles, so that latencies and the filling and draining of
  the array weigh less here than there, by the ratio of the MACs. Waiting for bandwidth weighs the
  same.
- The AXI port isn't scaled: a beat of G values a cycle each way. Here that is more than memory
  gives; on the large card it is 128 of the 308 bytes a cycle of its memory.

``--preset vcu1525`` measures the large card itself, latencies and port as they are.

Utilisation counts the products of weights that are there: forward and backward those that pruning
leaves, for weight gradients all of them; at the frame of an image those with its zeros as well.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from firmware.cards import Card
from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.layers import ConvolutionTensors
from firmware.model import Convolution, Input, Method
from firmware.program import Program, descriptor, product
from firmware.schedule import Assembly, ConvolutionSchedule, Step, WeightGradientSchedule, emit
from firmware.tensor import Activations, Tensor
from rtl.config import Config, preset
from rtl.control.commands import LoadTarget, Stage
from rtl.sparsity.pattern import Pattern
from sim.golden.sparsity import pack_tiles
from sim.verilated.build import build_library

from .slots import account

__all__ = [
    "BYTES_PER_CYCLE",
    "LATENCY",
    "LAYERS",
    "PATTERNS",
    "PRESET",
    "QUICK_LAYERS",
    "REFERENCE",
    "Layer",
    "Workload",
    "card_config",
    "measure",
    "run",
    "stream",
    "timing_for",
]

REFERENCE = "vcu1525"
"""The card whose memory and scratchpads a simulated one has, in proportion."""

PRESET = "sim"
"""The array that is simulated in its place."""

BYTES_PER_CYCLE = 77e9 / 250e6 / 4096
"""Of memory, for each MAC."""

LATENCY = 64
"""Cycles from an address to its first beat, and from the last beat written to the response."""

PATTERNS = ("dense", "2:8")

_STAGES = ("FF", "BP", "WU")

_SIZES = ("name", "side", "inputs", "outputs", "stride", "batch")

_STEP = Step(rate=0.01, momentum=0.9, decay=5e-4)

_GRADIENT = 1 / 64
"""Size of output gradients, so that those of weights stay small."""

_PORT_BEATS = 2.0
"""Beats that the AXI port moves in a cycle: one read, one written."""

_LONGEST = 100_000_000
"""Cycles that a program may take."""

_STREAM_COMMANDS = 4
"""LOADs or STOREs of which a program that measures a stream consists."""


@dataclass(frozen=True)
class Layer:
    """A convolution of 3 x 3 with padding.

    Parameters
    ----------
    name
        For reports.
    side
        Height and width of its input.
    inputs, outputs, stride
        Its channels, and the distance between its places.
    batch
        Images.
    stages
        What is measured of it.
    """

    name: str
    side: int
    inputs: int
    outputs: int
    stride: int
    batch: int
    stages: tuple[str, ...] = _STAGES

    def convolution(self, pattern: Pattern) -> Convolution:
        """Return the layer, its weights pruned to `pattern`."""
        return Convolution(
            self.name,
            Input("image", self.side, self.side, self.inputs),
            self.outputs,
            kernel=3,
            stride=self.stride,
            padding=1,
            rectified=True,
            method=Method.bdwp(pattern),
        )


LAYERS = (
    Layer("conv3, first", 16, 64, 128, 2, 128, ("FF", "BP")),
    Layer("conv3, first", 16, 64, 128, 2, 32, ("WU",)),
    Layer("conv3", 8, 128, 128, 1, 128),
    Layer("conv4, first", 8, 128, 256, 2, 128),
    Layer("conv4", 4, 256, 256, 1, 128),
    Layer("conv5, first", 4, 256, 512, 2, 128),
    Layer("conv5", 2, 512, 512, 1, 128),
)
"""Of ResNet-18 for images of 64 x 64, whose first layers leave 16 x 16 pixels.

The pixels of 128 images of 16 x 16 don't fit the D scratchpad, as weight gradients need them; those
of 32 fit twice, so that the next are loaded meanwhile.
"""

QUICK_LAYERS = (Layer("small", 3, 16, 16, 1, 16),)
"""One that takes seconds, and fits `tiny` as it is."""


def card_config(name: str) -> Config:
    """Return the preset `name` with as many words of scratchpad in all as `REFERENCE`."""
    config, board = preset(name), preset(REFERENCE)
    return dataclasses.replace(
        config,
        name=f"{name}-memory",
        s_depth=board.s_depth * board.rows // config.rows,
        d_depth=board.d_depth * board.cols // config.cols,
        o_depth=board.o_depth * board.cols // config.cols,
        aux_depth=board.aux_depth,
        queue_depth=board.queue_depth,
        memory_bytes=1 << 29,
    )


def timing_for(config: Config) -> MemoryTiming:
    """Return the memory that a card has in proportion to its MACs, as far as its port takes it."""
    beats = BYTES_PER_CYCLE * config.macs / config.beat_bytes
    return MemoryTiming(latency=LATENCY, bandwidth=min(beats, _PORT_BEATS))


class Workload:
    """A layer on one card: its tensors, and a program for each stage.

    Parameters
    ----------
    driver
        Of the card, whose memory holds nothing else.
    layer, pattern
        What it computes. Two cards of one configuration are given the same values.
    """

    def __init__(self, driver: Driver, layer: Layer, pattern: Pattern) -> None:
        self._layer = layer.convolution(pattern)
        self._driver = driver
        config, memory = driver.config, driver.memory
        source, shape = self._layer.source.shape, self._layer.shape
        self._tensors = ConvolutionTensors(self._layer, config, memory, has_backward=True)
        self._x, self._dx = (Activations(config, memory, layer.batch, source) for _ in range(2))
        self._y, self._dy = (Activations(config, memory, layer.batch, shape) for _ in range(2))
        self._write(layer.batch)
        for tensor in (self._y, self._dx):
            tensor.clear(driver.card)

    def _write(self, images: int) -> None:
        """Write the operands, and derive the copies of the weights."""
        card, layer, tensors = self._driver.card, self._layer, self._tensors
        random = np.random.default_rng([images, layer.inputs, layer.outputs])
        for tensor, scale in ((self._x, 1.0), (self._dy, _GRADIENT)):
            shape = (images, *dataclasses.astuple(tensor.shape))
            tensor.write(card, random.standard_normal(shape, np.float32) * np.float32(scale))
        tensors.state.write(card, layer.initial_weights(random).reshape(tensors.state.shape))
        one_pixel = dataclasses.replace(layer.shape, height=1, width=1)
        zeros = Activations(self._driver.config, self._driver.memory, 1, one_pixel)
        zeros.clear(card)
        self._run(
            "initialisation", lambda assembly: self._weight_gradients(assembly).initialise(zeros)
        )

    def run(self, stage: str) -> Mapping[str, int]:
        """Run a stage; return by how much it raised each counter."""
        x, y, dx, dy = self._x, self._y, self._dx, self._dy
        pieces: dict[str, Callable[[Assembly], Generator[Any, Any, Any]]] = {
            "FF": lambda assembly: self._convolution(assembly).forward(x, y),
            "BP": lambda assembly: self._convolution(assembly).backward(dy, dx, add=None, mask=x),
            "WU": lambda assembly: self._weight_gradients(assembly).update(x, dy),
        }
        return self._run(stage, lambda assembly: emit(pieces[stage](assembly)))

    def _run(self, name: str, add: Callable[[Assembly], Any]) -> Mapping[str, int]:
        assembly = Assembly(Program(self._driver.config, f"{self._layer.name}, {name}"))
        add(assembly)
        assembly.set_step(_STEP)
        counters = self._driver.run(assembly.program, _LONGEST).counters
        self._driver.unload(assembly.program)
        return counters

    def _convolution(self, assembly: Assembly) -> ConvolutionSchedule:
        return ConvolutionSchedule(assembly, self._layer, self._tensors)

    def _weight_gradients(self, assembly: Assembly) -> WeightGradientSchedule:
        return WeightGradientSchedule(assembly, self._layer, self._tensors)

    def results(self, stage: str) -> Mapping[str, bytes]:
        """Return what a stage has written, by name."""
        tensors = self._tensors
        written: dict[str, dict[str, Tensor | None]] = {
            "FF": {"output": self._y},
            "BP": {"input gradient": self._dx},
            "WU": {
                "weights and momentum": tensors.state,
                "forward copy": tensors.forward,
                "backward copy": tensors.backward,
            },
        }
        card = self._driver.card
        return {
            name: card.read_memory(tensor.address, tensor.nbytes).tobytes()
            for name, tensor in written[stage].items()
            if tensor is not None
        }


def run(driver: Driver, golden: Card, layer: Layer, pattern: Pattern) -> list[dict[str, Any]]:
    """Run the stages of a layer; return the figures of each.

    Parameters
    ----------
    driver, golden
        Of the card that is measured, and a golden model of the same configuration.
    layer, pattern
        What they compute.

    Raises
    ------
    AssertionError
        A result isn't that of the golden model, or slots don't add up.
    """
    config = driver.config
    measured, expected = (Workload(each, layer, pattern) for each in (driver, Driver(golden)))
    convolution = layer.convolution(pattern)
    figures = []
    for stage in layer.stages:
        what = f"{layer.name}, {pattern}, {stage}"
        counters = measured.run(stage)
        expected.run(stage)
        right = expected.results(stage)
        for name, content in measured.results(stage).items():
            assert content == right[name], f"{what}: {name} differs from the golden model"
        products = layer.batch * convolution.kept_macs(Stage[stage])
        moved = {way: counters[f"{way}_BEATS"] * config.beat_bytes for way in ("READ", "WRITE")}
        given = counters["CYCLES"] * timing_for(config).bandwidth * config.beat_bytes
        figures.append(
            {
                "card": config.name,
                **{field: getattr(layer, field) for field in _SIZES},
                "stage": stage,
                "pattern": str(pattern),
                "cycles": counters["CYCLES"],
                **account(what, counters, config.macs, products),
                "bytes_read": moved["READ"],
                "bytes_written": moved["WRITE"],
                "bandwidth": round(sum(moved.values()) / given, 5),
            }
        )
    return figures


def stream(card: VerilatedCard, golden: Card) -> dict[str, float]:
    """Measure long LOADs and long STOREs, memory as fast as the AXI port.

    LOADs fill the D scratchpad, a product fills the O scratchpad, and STOREs write it.

    Returns
    -------
    ``read`` and ``write``: beats in a cycle of a program, its start and its last response included.

    Raises
    ------
    AssertionError
        What was written isn't that of the golden model.
    """
    card.model.set_timing(MemoryTiming(latency=LATENCY, bandwidth=_PORT_BEATS))
    counters, written = _stream(card)
    _, expected = _stream(golden)
    assert written == expected, "what the STOREs wrote differs from the golden model"
    return {
        way.lower(): round(counters[way][f"{way}_BEATS"] / counters[way]["CYCLES"], 5)
        for way in ("READ", "WRITE")
    }


def _stream(card: Card) -> tuple[dict[str, Mapping[str, int]], bytes]:
    """Return the counters of reading and of writing, and what was written."""
    driver, config = Driver(card), card.config
    g, beat = config.elements, config.beat_bytes
    reads, writes = config.d_depth * config.cols, config.o_depth * config.cols
    random = np.random.default_rng(0)
    values = random.standard_normal((reads + g, g)).astype(np.float16).view(np.uint16)
    tile = pack_tiles(values[:g], Pattern.DENSE, config)
    s_address, d_address, o_address = (
        driver.memory.allocate(size) for size in (tile.size, reads * beat, writes * beat)
    )
    card.write_memory(s_address, tile)
    card.write_memory(d_address, values[g:].reshape(-1).view(np.uint8))

    read, fill, write = (Program(config, name) for name in ("reads", "products", "writes"))
    for _ in range(_STREAM_COMMANDS):
        read.load(
            LoadTarget.D, Stage.FF, rows=reads, d_words=1,
            descriptor=descriptor(config, d_address, reads),
        )  # fmt: skip
    rows = writes // 2
    fill.load(
        LoadTarget.S, Stage.FF, pattern=Pattern.DENSE, rows=g, d_words=1,
        descriptor=descriptor(config, s_address, tile.size // beat),
    )  # fmt: skip
    fill.compute(Stage.FF, o_stride=2, **product(config, Pattern.DENSE, a=g, b=rows, k=g))
    for _ in range(_STREAM_COMMANDS):
        write.store(
            Stage.FF, o_stride=2, rows=rows, words=2,
            descriptor=descriptor(config, o_address, writes),
        )  # fmt: skip
    counters = {
        name: driver.run(program, _LONGEST).counters
        for name, program in (("READ", read), ("FILL", fill), ("WRITE", write))
    }
    return counters, card.read_memory(o_address, writes * beat).tobytes()


def _run_alone(config: Config, layer: Layer, pattern: str) -> list[dict[str, Any]]:
    """Run a layer on cards of its own."""
    with (
        VerilatedCard(config, timing=timing_for(config)) as card,
        GoldenCard(config) as golden,
    ):
        return run(Driver(card), golden, layer, Pattern.parse(pattern))


def _stream_alone(config: Config) -> dict[str, float]:
    """Measure streams on cards of their own."""
    with VerilatedCard(config) as card, GoldenCard(config) as golden:
        return stream(card, golden)


def measure(
    configs: Sequence[Config], layers: Sequence[Layer], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run all stages of `layers` in each of `PATTERNS`, and both streams, on each card.

    Several run at once. Each has cards of its own, a simulated and a golden one.

    Returns
    -------
    ``cards``, by name; ``layers``, a list in the order of the arguments; ``stream`` of the first
    card.
    """
    cards: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    jobs = [(layer, pattern) for layer in layers for pattern in PATTERNS]
    workers = min(os.cpu_count() or 1, len(jobs))
    for config in configs:
        progress(f"build {config.name}, {config.macs} MACs")
        build_library(config)
        progress(f"{config.name}: {len(jobs)} runs, {workers} at once")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            streams = pool.submit(_stream_alone, config)
            runs = {pool.submit(_run_alone, config, *job): job for job in jobs}
            try:
                for future in as_completed(runs):
                    progress(_said(config, *runs[future], future))
                cards[config.name] = _describe(config) | {"stream": streams.result()}
            finally:
                pool.shutdown(cancel_futures=True)
        results += [row for future in runs for row in future.result()]
    return {"cards": cards, "layers": results, "stream": next(iter(cards.values()))["stream"]}


def _describe(config: Config) -> dict[str, Any]:
    """Return what matters of a card and its memory."""
    timing = timing_for(config)
    return {
        "macs": config.macs,
        "beat_bytes": config.beat_bytes,
        "bytes_per_cycle": round(timing.bandwidth * config.beat_bytes, 5),
        "latency": timing.latency,
    }


def _said(config: Config, layer: Layer, pattern: str, future: Future[list[dict[str, Any]]]) -> str:
    """Say what a run has found."""
    shares = ", ".join(f"{row['stage']} {row['utilisation']:.1%}" for row in future.result())
    return f"{config.name}: {layer.name}, {pattern}: {shares}"
