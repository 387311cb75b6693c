"""Layers of a network: their shapes on the host and their tensors on the card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from rtl.sparsity.pattern import Pattern

from .allocator import Allocator
from .tensor import Compressed, MatrixState, Vector, VectorState

__all__ = ["Linear", "LinearTensors"]


@dataclass(frozen=True)
class Linear:
    """Fully connected layer with bias, and ReLU if wanted.

    Parameters
    ----------
    name
        For messages.
    inputs, outputs
        Channels.
    relu
        Apply ReLU to the output.
    pattern
        N:M pattern of the weights: groups along the inputs forward, along the outputs backward.
    """

    name: str
    inputs: int
    outputs: int
    relu: bool = True
    pattern: Pattern = Pattern.DENSE

    def initial_weights(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return weights ``[inputs, outputs]`` as He et al. initialise them before a ReLU."""
        scale = np.sqrt(2 / self.inputs)
        return (rng.standard_normal((self.inputs, self.outputs)) * scale).astype(np.float32)

    @property
    def products(self) -> int:
        """Multiply-adds for one pixel in a dense product."""
        return self.inputs * self.outputs

    @property
    def kept_products(self) -> int:
        """Multiply-adds for one pixel after pruning."""
        return self.products * self.pattern.n // self.pattern.m


class LinearTensors:
    """Tensors of a `Linear` layer in card memory.

    Attributes
    ----------
    state, bias_state
        Master values and momentum.
    forward, backward
        Compressed copies that FF and BP read; `backward` is None where no gradient goes further.
    bias
        Binary16 copy of the bias.
    """

    def __init__(
        self, layer: Linear, config: Config, memory: Allocator, *, has_backward: bool
    ) -> None:
        inputs, outputs, pattern = layer.inputs, layer.outputs, layer.pattern
        self.state = MatrixState(config, memory, inputs, outputs)
        self.bias_state = VectorState(config, memory, outputs)
        self.forward = Compressed(config, memory, pattern, outputs, inputs)
        self.backward = (
            Compressed(config, memory, pattern, inputs, outputs) if has_backward else None
        )
        self.bias = Vector(config, memory, outputs)
