"""A network on a card: its tensors and the programs of a training step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .driver import Driver, RunResult
from .layers import Linear, LinearTensors
from .program import Program
from .schedule import Scheduler, Step
from .tensor import Activations

__all__ = ["Network"]


class Network:
    """Layers one after the other, for batches of a fixed size.

    Parameters
    ----------
    driver
        Runs the programs and owns the card's memory.
    layers
        The layers; the outputs of each are the inputs of the next.
    batch
        Largest batch.

    Attributes
    ----------
    layers, tensors
        The layers and, in the same order, their tensors.
    programs
        By name: ``initialise``, ``forward``, ``backward`` and ``update``.
    """

    def __init__(self, driver: Driver, layers: Sequence[Linear], batch: int) -> None:
        for below, above in itertools.pairwise(layers):
            if below.outputs != above.inputs:
                raise ValueError(
                    f"{below.name} has {below.outputs} outputs, {above.name} {above.inputs} inputs"
                )
        self.driver = driver
        self.layers = tuple(layers)
        config, memory = driver.config, driver.memory
        self.tensors = tuple(
            LinearTensors(layer, config, memory, has_backward=index > 0)
            for index, layer in enumerate(layers)
        )
        widths = [layers[0].inputs, *(layer.outputs for layer in layers)]
        self._activations = [Activations(config, memory, batch, width) for width in widths]
        self._gradients = [Activations(config, memory, batch, width) for width in widths[1:]]
        # As many zeros as a tile of G rows by one D word has.
        self._zeros = Activations(config, memory, config.elements, config.elements)
        self.programs = {
            "initialise": self._initialise_program(),
            "forward": self._forward_program(),
            "backward": self._backward_program(),
            "update": self._update_program(),
        }

    def initialise(self, weights: Sequence[ArrayLike]) -> RunResult:
        """Start from the given weights ``[inputs, outputs]`` and zero biases.

        The card derives the compressed copies itself, as it does in training.
        """
        card = self.driver.card
        for tensors, values in zip(self.tensors, weights, strict=True):
            tensors.state.write(card, values)
            tensors.bias_state.clear(card)
        for block in (*self._activations, *self._gradients, self._zeros):
            block.clear(card)
        return self.driver.run(self.programs["initialise"])

    def forward(self, inputs: ArrayLike) -> tuple[NDArray[np.float16], RunResult]:
        """Return the outputs for a batch ``[images, channels]``."""
        card = self.driver.card
        values = np.asarray(inputs)
        self._activations[0].write(card, values)
        result = self.driver.run(self.programs["forward"])
        return self._activations[-1].read(card)[: len(values)], result

    def backward(self, gradient: ArrayLike) -> RunResult:
        """Carry the gradient of the last batch's outputs back to every layer."""
        self._gradients[-1].write(self.driver.card, gradient)
        return self.driver.run(self.programs["backward"])

    def update(self, step: Step) -> RunResult:
        """Update every weight and bias by the gradients of the last `backward`."""
        program = self.programs["update"]
        program.set_updates(**step.fields())
        return self.driver.run(program)

    def snapshot(self) -> dict[str, NDArray[np.uint8]]:
        """Return the raw bytes of all that training changes, by name."""
        return {
            f"{layer.name} {name}": block.read_bytes(self.driver.card)
            for layer, tensors in zip(self.layers, self.tensors, strict=True)
            for name, block in _trained(tensors)
        }

    def _initialise_program(self) -> Program:
        scheduler = self._scheduler("initialisation")
        for layer, tensors in zip(self.layers, self.tensors, strict=True):
            scheduler.initialise(layer, tensors, self._zeros)
        return scheduler.program

    def _forward_program(self) -> Program:
        scheduler = self._scheduler("forward pass")
        operands = itertools.pairwise(self._activations)
        for layer, tensors, (x, y) in zip(self.layers, self.tensors, operands, strict=True):
            scheduler.forward(layer, tensors, x, y)
        return scheduler.program

    def _backward_program(self) -> Program:
        scheduler = self._scheduler("backward pass")
        for index in range(len(self.layers) - 1, 0, -1):
            scheduler.backward(
                self.layers[index],
                self.tensors[index],
                self._gradients[index],
                self._gradients[index - 1],
                mask=self._activations[index] if self.layers[index - 1].relu else None,
            )
        return scheduler.program

    def _update_program(self) -> Program:
        scheduler = self._scheduler("weight update")
        operands = zip(self._activations[:-1], self._gradients, strict=True)
        for layer, tensors, (x, dy) in zip(self.layers, self.tensors, operands, strict=True):
            scheduler.update(layer, tensors, x, dy, Step())
        return scheduler.program

    def _scheduler(self, name: str) -> Scheduler:
        return Scheduler(Program(self.driver.config, name))


def _trained(tensors: LinearTensors) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that an update writes, with their names."""
    yield "weights and momentum", tensors.state
    yield "forward copy", tensors.forward
    if tensors.backward is not None:
        yield "backward copy", tensors.backward
    yield "bias and momentum", tensors.bias_state
    yield "bias copy", tensors.bias
