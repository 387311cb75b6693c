"""Networks: graphs of layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rtl.control.commands import Stage

from ..errors import ModelError
from .convolution import Convolution
from .layer import PRODUCT_STAGES, Input, Layer

__all__ = ["Model"]


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
        """The convolutions among its layers."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    @cached_property
    def parameters(self) -> int:
        """How many values the layers learn."""
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def ceiling(self) -> float:
        """Speedup over dense training that the multiply-adds of a step would allow."""
        dense, kept = (sum(map(count, PRODUCT_STAGES)) for count in (self.macs, self.kept_macs))
        return dense / kept

    def macs(self, stage: Stage) -> int:
        """Return the multiply-adds of all layers for one image, nothing pruned."""
        return sum(layer.macs(stage) for layer in self.layers if self.has_stage(layer, stage))

    def kept_macs(self, stage: Stage) -> int:
        """Return the multiply-adds of all layers for one image after pruning."""
        return sum(layer.kept_macs(stage) for layer in self.layers if self.has_stage(layer, stage))

    def has_stage(self, layer: Layer, stage: Stage) -> bool:
        """Return whether a layer is part of a stage: of BP only if anything below it learns."""
        return stage is not Stage.BP or any(map(self.passes_gradient, layer.sources))

    def passes_gradient(self, layer: Layer) -> bool:
        """Return whether the gradient of a layer's output is needed: it, or one below, learns."""
        return layer.parameters > 0 or any(map(self.passes_gradient, layer.sources))
