"""A training step written down directly, on whole matrices, with the golden arithmetic."""

from collections.abc import Sequence

import numpy as np

from firmware.layers import Linear
from firmware.schedule import Step
from rtl.config import Config
from rtl.sparsity.pattern import Pattern
from sim.golden.arithmetic import dot, to_half
from sim.golden.engine import epilogue
from sim.golden.sparsity import pack_state_tile, pack_tiles, prune
from sim.golden.update import sgd

__all__ = ["Reference"]


class Reference:
    """The padded tensors of a network, as bits.

    Parameters
    ----------
    config
        Gives the padding.
    layers
        The network.
    weights
        Binary32 ``[inputs, outputs]`` of each layer.
    batch
        Largest batch.
    """

    def __init__(self, config: Config, layers: Sequence[Linear], weights, batch: int) -> None:
        self.config = config
        self.layers = layers
        self.batch = self._padded(batch)
        self.w = [self._pad(w.astype(np.float32), w.shape).view(np.uint32) for w in weights]
        self.v = [np.zeros_like(w) for w in self.w]
        self.b = [np.zeros(w.shape[1], np.uint32) for w in self.w]
        self.bv = [np.zeros_like(b) for b in self.b]

    def forward(self, x):
        """Return the outputs, binary16 without padding."""
        self.x = [self._pad(np.asarray(x, np.float16), (self.batch, x.shape[1])).view(np.uint16)]
        for layer, w, b in zip(self.layers, self.w, self.b):
            copy = self._copy(to_half(w).T, layer)
            y = dot(copy, self.x[-1])
            self.x.append(epilogue(y, bias=to_half(b), relu=layer.relu))
        return self.x[-1].view(np.float16)[: len(x), : self.layers[-1].outputs]

    def backward(self, gradient):
        """Carry a gradient of the outputs back."""
        gradient = np.asarray(gradient, np.float16)
        dy = self._pad(gradient, (self.batch, gradient.shape[1])).view(np.uint16)
        self.dy = [dy]
        for index in range(len(self.layers) - 1, 0, -1):
            copy = self._copy(to_half(self.w[index]), self.layers[index])
            mask = self.x[index] if self.layers[index - 1].relu else None
            self.dy.insert(0, epilogue(dot(copy, self.dy[0]), mask=mask))

    def update(self, step: Step):
        """Update weights and biases."""
        fields = step.fields()
        one = np.full((1, self.batch), 0x3C00, np.uint16)
        for index, dy in enumerate(self.dy):
            dy = np.ascontiguousarray(dy.T)
            dw = dot(dy, np.ascontiguousarray(self.x[index].T))
            self.w[index], self.v[index] = sgd(self.w[index], self.v[index], dw, **fields)
            self.b[index], self.bv[index] = sgd(
                self.b[index], self.bv[index], dot(dy, one)[0], **fields
            )

    def snapshot(self):
        """Return what `Network.snapshot` should."""
        blocks = {}
        for index, layer in enumerate(self.layers):
            w, v, b, bv = self.w[index], self.v[index], self.b[index], self.bv[index]
            blocks[f"{layer.name} weights and momentum"] = self._state(w, v)
            blocks[f"{layer.name} forward copy"] = self._tiles(w.T, layer)
            if index:
                blocks[f"{layer.name} backward copy"] = self._tiles(w, layer)
            g = self.config.elements
            blocks[f"{layer.name} bias and momentum"] = np.concatenate(
                [pack_state_tile(b[None, i : i + g], bv[None, i : i + g]).ravel()
                 for i in range(0, len(b), g)]
            )  # fmt: skip
            blocks[f"{layer.name} bias copy"] = to_half(b).view(np.uint8)
        return blocks

    def _padded(self, count: int) -> int:
        return -(-count // self.config.elements) * self.config.elements

    def _pad(self, values, shape):
        whole = np.zeros([self._padded(size) for size in shape], values.dtype)
        whole[: values.shape[0], : values.shape[1]] = values
        return whole

    def _copy(self, matrix, layer):
        halves = np.ascontiguousarray(matrix)
        return halves if layer.pattern is Pattern.DENSE else prune(halves, layer.pattern)

    def _tiles(self, matrix, layer):
        halves = np.ascontiguousarray(to_half(np.ascontiguousarray(matrix)))
        return pack_tiles(halves, layer.pattern, self.config)

    def _state(self, w, v):
        g = self.config.elements
        return np.concatenate(
            [
                pack_state_tile(w[i : i + g, o : o + g], v[i : i + g, o : o + g]).ravel()
                for o in range(0, w.shape[1], g)
                for i in range(0, w.shape[0], g)
            ]
        )
