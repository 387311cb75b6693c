"""What all layers have in common, and the images that go into the first one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from rtl.control.commands import Stage

from ..errors import ModelError

__all__ = ["PRODUCT_STAGES", "Input", "Layer", "Shape"]

PRODUCT_STAGES = (Stage.FF, Stage.BP, Stage.WU)
"""Parts of a training step in which the array multiplies, in their order."""


@dataclass(frozen=True)
class Shape:
    """Size of one image's activations; the tokens of a transformer are its positions."""

    height: int
    width: int
    channels: int

    @property
    def positions(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height} x {self.width} x {self.channels}"


@dataclass(frozen=True, eq=False, repr=False)
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
    parameters
        How many values it learns.
    """

    name: str
    shape: Shape = field(init=False)

    def __repr__(self) -> str:
        # Other layers by their names: each would name its own, and a graph has very many paths.
        values = [(each.name, getattr(self, each.name)) for each in fields(self) if each.init]
        words = (
            f"{name}={(value.name if isinstance(value, Layer) else value)!r}"
            for name, value in values
        )
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def sources(self) -> tuple[Layer, ...]:
        return ()

    @property
    def relu(self) -> bool:
        return False

    @property
    def parameters(self) -> int:
        return 0

    def macs(self, stage: Stage) -> int:
        """Return the multiply-adds of its matrix products for one image, nothing pruned.

        Those of BP are needed only if something below the layer learns, which is for `Model` to
        know.
        """
        return 0

    def kept_macs(self, stage: Stage) -> int:
        """Return the same after pruning."""
        return self.macs(stage)

    def _refuse(self, reason: str) -> None:
        raise ModelError(f"layer '{self.name}': {reason}")

    def _need_at_least(self, least: int, **values: int) -> None:
        """Refuse parameters that are too small."""
        for name, value in values.items():
            if value < least:
                self._refuse(f"{name} is {value}, must be at least {least}")

    def _need_same_shape(self, added: Layer) -> None:
        """Refuse to add the output of a layer to this one's unless it has the same shape."""
        if added.shape != self.shape:
            self._refuse(f"its output is {self.shape}, what is added is {added.shape}")

    def _set_shape(self, height: int, width: int, channels: int) -> None:
        for name, value in (("height", height), ("width", width), ("depth", channels)):
            if value < 1:
                self._refuse(f"its output has a {name} of {value}, must be at least 1")
        object.__setattr__(self, "shape", Shape(height, width, channels))

    def _keep_shape(self, source: Layer) -> None:
        """Let the output have the shape of a source."""
        object.__setattr__(self, "shape", source.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Input(Layer):
    """The images."""

    height: int = 1
    width: int = 1
    channels: int = 1

    def __post_init__(self) -> None:
        self._set_shape(self.height, self.width, self.channels)
