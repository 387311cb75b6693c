"""What a network computes: its layers with their shapes, before any card is involved.

Layers name the layers whose outputs they take, so that a network is a graph; the layers of a
network stand in an order in which they can be computed. Two layers are the same only if they are
one object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rtl.sparsity.pattern import Pattern

from .errors import ModelError

__all__ = [
    "BatchNorm",
    "Convolution",
    "GlobalAveragePool",
    "Input",
    "Layer",
    "MaxPool",
    "Model",
    "Shape",
    "linear",
]


@dataclass(frozen=True)
class Shape:
    """Size of one image's activations."""

    height: int
    width: int
    channels: int

    @property
    def positions(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height} x {self.width} x {self.channels}"


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    Parameters
    ----------
    name
        For messages and reports; unique in its network.

    Attributes
    ----------
    sources
        Layers whose outputs it takes.
    shape
        Of its output.
    relu
        Whether its output has gone through a ReLU.
    """

    name: str
    shape: Shape = field(init=False)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return ()

    @property
    def relu(self) -> bool:
        return False

    def _refuse(self, reason: str) -> None:
        raise ModelError(f"layer '{self.name}': {reason}")

    def _set_shape(self, height: int, width: int, channels: int) -> None:
        for name, value in (("height", height), ("width", width), ("depth", channels)):
            if value < 1:
                self._refuse(f"its output has a {name} of {value}, must be at least 1")
        object.__setattr__(self, "shape", Shape(height, width, channels))


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """The images."""

    height: int = 1
    width: int = 1
    channels: int = 1

    def __post_init__(self) -> None:
        self._set_shape(self.height, self.width, self.channels)


@dataclass(frozen=True, eq=False)
class Convolution(Layer):
    """Convolution with square kernels, and what follows it on the drain.

    ``y = relu(x * w + bias + add)``, each of the latter three only if asked for.

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
    pattern
        N:M pattern of the weights: groups along the inputs forward, along the outputs backward.
    """

    source: Layer
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    bias: bool = False
    rectified: bool = False
    add: Layer | None = None
    pattern: Pattern = Pattern.DENSE

    def __post_init__(self) -> None:
        for name, least in (("outputs", 1), ("kernel", 1), ("stride", 1), ("padding", 0)):
            if getattr(self, name) < least:
                self._refuse(f"{name} is {getattr(self, name)}, must be at least {least}")
        if self.padding >= self.kernel:
            self._refuse(f"padding is {self.padding}, must be less than the kernel, {self.kernel}")
        source = self.source.shape
        sides = []
        for name, size in (("high", source.height), ("wide", source.width)):
            if size + 2 * self.padding < self.kernel:
                self._refuse(f"a kernel of {self.kernel} doesn't fit an image {size} {name}")
            sides.append((size + 2 * self.padding - self.kernel) // self.stride + 1)
        self._set_shape(sides[0], sides[1], self.outputs)
        if self.add is not None and self.add.shape != self.shape:
            self._refuse(f"its output is {self.shape}, what is added is {self.add.shape}")

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,) if self.add is None else (self.source, self.add)

    @property
    def relu(self) -> bool:
        return self.rectified

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.source.shape.channels

    @property
    def taps(self) -> int:
        """Places in the kernel."""
        return self.kernel**2

    @property
    def products(self) -> int:
        """Multiply-adds for one image in a dense product."""
        return self.shape.positions * self.taps * self.inputs * self.outputs

    @property
    def kept_products(self) -> int:
        """Multiply-adds for one image after pruning."""
        return self.products * self.pattern.n // self.pattern.m

    def unfolded(self) -> Convolution:
        """Return the same as a convolution of one tap, over what is under the kernel."""
        height, width = self.shape.height, self.shape.width
        source = Input(f"{self.source.name}, unfolded", height, width, self.taps * self.inputs)
        return Convolution(
            self.name,
            source,
            self.outputs,
            bias=self.bias,
            rectified=self.rectified,
            add=self.add,
            pattern=self.pattern,
        )

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
    pattern: Pattern = Pattern.DENSE,
) -> Convolution:
    """Return a fully connected layer: a convolution of images of one pixel."""
    if source.shape.positions != 1:
        raise ModelError(
            f"layer '{name}': a fully connected layer takes images of one pixel, "
            f"'{source.name}' gives {source.shape}"
        )
    return Convolution(
        name, source, outputs, bias=bias, rectified=rectified, add=add, pattern=pattern
    )


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """Batch normalisation, and what is done on the way: ``y = relu(norm(x) + add)``.

    Normalises every channel by mean and variance of the batch, in the test by their running
    averages, then scales and shifts it by learned values.

    Parameters
    ----------
    source
        Its input.
    rectified, add
        As in `Convolution`.
    momentum
        Share of a new batch in the running averages.
    epsilon
        Added to the variance.
    """

    source: Layer
    rectified: bool = False
    add: Layer | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        shape = self.source.shape
        self._set_shape(shape.height, shape.width, shape.channels)
        if self.add is not None and self.add.shape != self.shape:
            self._refuse(f"its output is {self.shape}, what is added is {self.add.shape}")

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,) if self.add is None else (self.source, self.add)

    @property
    def relu(self) -> bool:
        return self.rectified


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """Maximum of square windows that don't overlap, and ReLU if asked for.

    Parameters
    ----------
    source
        Its input.
    window
        Side of a window; rows and columns that don't fill one are left out.
    rectified
        Apply ReLU.
    """

    source: Layer
    window: int = 2
    rectified: bool = False

    def __post_init__(self) -> None:
        if self.window < 2:
            self._refuse(f"window is {self.window}, must be at least 2")
        shape = self.source.shape
        self._set_shape(shape.height // self.window, shape.width // self.window, shape.channels)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)

    @property
    def relu(self) -> bool:
        # What comes from a ReLU isn't negative, and a maximum of zero passes no gradient on.
        return self.rectified or self.source.relu


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Layer):
    """Mean over all pixels of an image."""

    source: Layer

    def __post_init__(self) -> None:
        self._set_shape(1, 1, self.source.shape.channels)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Model:
    """A classifier: layers from the images to the logits.

    Parameters
    ----------
    name
        For reports.
    layers
        In an order in which they can be computed, beginning with the only `Input`; the last one,
        a convolution, gives the logits: an image of one pixel and a channel for each class.
    """

    name: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        if not self.layers or not isinstance(self.layers[0], Input):
            raise ModelError(f"network '{self.name}': the first layer must be the input")
        for index, layer in enumerate(self.layers):
            if layer.name in seen:
                raise ModelError(f"network '{self.name}': there are two layers '{layer.name}'")
            if isinstance(layer, Input) and layer is not self.layers[0]:
                raise ModelError(f"network '{self.name}': layer '{layer.name}' is a second input")
            for source in layer.sources:
                if source not in self.layers[:index]:
                    raise ModelError(
                        f"layer '{layer.name}': '{source.name}' isn't a layer before it"
                    )
            seen.add(layer.name)
        for layer in self.layers[:-1]:
            if not any(layer in other.sources for other in self.layers):
                raise ModelError(f"layer '{layer.name}': nothing takes its output")
        last = self.logits
        plain = isinstance(last, Convolution) and last.add is None and not last.relu
        if not plain or last.shape.positions != 1:
            raise ModelError(
                f"layer '{last.name}': the last layer gives logits, a convolution to images of one "
                f"pixel to which nothing is added, without ReLU; its output is {last.shape}"
            )

    @property
    def input(self) -> Layer:
        return self.layers[0]

    @property
    def logits(self) -> Layer:
        return self.layers[-1]

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Layers that the array computes."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    def passes_gradient(self, layer: Layer) -> bool:
        """Return whether the gradient of a layer's output is needed: anything below it learns."""
        if isinstance(layer, (Convolution, BatchNorm)):
            return True
        return any(self.passes_gradient(source) for source in layer.sources)
