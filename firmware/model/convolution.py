"""Convolutions, and fully connected layers, which are convolutions of one tap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtl.control.commands import Stage
from rtl.sparsity.pattern import Pattern

from ..errors import ModelError
from .layer import PRODUCT_STAGES, Input, Layer, Shape
from .method import DENSE, Method

__all__ = ["Convolution", "linear"]


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(Layer):
    """Convolution with square kernels, and what follows it on the drain.

    ``y = relu(x * w + bias + add)``, each of the latter three only if asked for. With a kernel of 1
    it is a fully connected layer on each token.

    Parameters
    ----------
    source
        Its input.
    outputs
        Output channels.
    kernel, stride, padding
        Side of the kernel, distance between its places, zeros around the image.
    bias
        Add a learned value to each channel.
    rectified
        Apply ReLU.
    add
        Layer whose output is added, of the same shape.
    method
        How the weights are pruned.
    """

    source: Layer
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    bias: bool = False
    rectified: bool = False
    add: Layer | None = None
    method: Method = DENSE

    def __post_init__(self) -> None:
        self._need_at_least(1, outputs=self.outputs, kernel=self.kernel, stride=self.stride)
        self._need_at_least(0, padding=self.padding)
        if self.padding >= self.kernel:
            self._refuse(f"padding is {self.padding}, must be less than the kernel, {self.kernel}")
        source = self.source.shape
        sides = []
        for name, size in (("high", source.height), ("wide", source.width)):
            if size + 2 * self.padding < self.kernel:
                self._refuse(f"a kernel of {self.kernel} doesn't fit an image {size} {name}")
            sides.append((size + 2 * self.padding - self.kernel) // self.stride + 1)
        self._set_shape(sides[0], sides[1], self.outputs)
        if self.add is not None:
            self._need_same_shape(self.add)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,) if self.add is None else (self.source, self.add)

    @property
    def relu(self) -> bool:
        return self.rectified

    @property
    def parameters(self) -> int:
        return self.taps * self.inputs * self.outputs + self.bias * self.outputs

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.source.shape.channels

    @property
    def taps(self) -> int:
        """Places in the kernel."""
        return self.kernel**2

    @property
    def step(self) -> int:
        """Distance between neighbouring pixels of the input that are taken: a single tap with a
        stride leaves out all others."""
        return self.stride if self.kernel == 1 else 1

    def macs(self, stage: Stage) -> int:
        """Return the multiply-adds for one image, nothing pruned: the same in FF, BP and WU."""
        if stage not in PRODUCT_STAGES:
            return 0
        return self.shape.positions * self.taps * self.inputs * self.outputs

    def kept_macs(self, stage: Stage) -> int:
        """Return the multiply-adds for one image, of weights that pruning leaves in FF and BP."""
        macs = self.macs(stage)
        if stage is Stage.FF:
            return macs // self.inputs * _kept(self.inputs, self.method.forward)
        if stage is Stage.BP:
            return macs // self.outputs * _kept(self.outputs, self.method.backward)
        return macs

    def unfolded(self) -> Convolution:
        """Return the same as a convolution of one tap, over what is under the kernel."""
        shape = Shape(self.shape.height, self.shape.width, self.taps * self.inputs)
        return self.pointwise(shape)

    def pointwise(self, shape: Shape) -> Convolution:
        """Return a convolution of one tap with its outputs, over images of another shape.

        What it adds is left out.
        """
        source = Input(f"{self.source.name}, rearranged", shape.height, shape.width, shape.channels)
        return replace(self, source=source, kernel=1, stride=1, padding=0, add=None)

    def initial_weights(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return weights ``[kernel, kernel, inputs, outputs]``, as He et al. start them."""
        shape = (self.kernel, self.kernel, self.inputs, self.outputs)
        scale = np.sqrt(2 / (self.taps * self.inputs))
        return (rng.standard_normal(shape) * scale).astype(np.float32)


def linear(
    name: str,
    source: Layer,
    outputs: int,
    *,
    bias: bool = True,
    rectified: bool = False,
    add: Layer | None = None,
    method: Method = DENSE,
) -> Convolution:
    """Return a fully connected layer: a convolution of images of one pixel."""
    if source.shape.positions != 1:
        raise ModelError(
            f"layer '{name}': a fully connected layer takes images of one pixel, "
            f"'{source.name}' gives {source.shape}"
        )
    return Convolution(
        name, source, outputs, bias=bias, rectified=rectified, add=add, method=method
    )


def _kept(channels: int, pattern: Pattern) -> int:
    """Return how many of a row of weights stay; the last group may have fewer than M."""
    groups, rest = divmod(channels, pattern.m)
    return groups * pattern.n + min(rest, pattern.n)
