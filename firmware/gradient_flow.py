"""How the gradients of a layer's output come together from all layers that take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from .model import Layer
from .schedule import Assembly, Pieces, accumulate
from .tensor import Activations

__all__ = ["GradientFlow"]


class GradientFlow:
    """Keeps, while a backward pass is scheduled, what each layer's gradient is made of so far.

    Each contribution is added to the one before, by the unit that computes it if it can; a layer
    whose output is added to another's passes that one's gradient on as it is. Where the output has
    gone through a ReLU, every sum is masked by it.

    Parameters
    ----------
    assembly
        The program.
    activations, gradients
        Tensors of the layers; `gradients` of those whose gradient is needed.
    temporary
        Makes a tensor for the output of a layer.
    add_pieces
        Adds pieces of the vector unit to the program.
    """

    def __init__(
        self,
        assembly: Assembly,
        activations: Mapping[Layer, Activations],
        gradients: Mapping[Layer, Activations],
        temporary: Callable[[Layer], Activations],
        add_pieces: Callable[[Pieces], None],
    ) -> None:
        self._assembly = assembly
        self._activations = activations
        self._gradients = gradients
        self._temporary = temporary
        self._add_pieces = add_pieces
        self._parts: dict[Layer, list[Activations]] = {}

    def add(self, layer: Layer, gradient: Activations) -> None:
        """Take note of a contribution that is in memory already."""
        if layer in self._gradients:
            self._parts.setdefault(layer, []).append(gradient)

    def target(self, layer: Layer) -> tuple[Activations, Activations | None, Activations | None]:
        """Return where a contribution goes, what has to be added to it, and the mask of the sum."""
        own = self._gradients[layer]
        earlier = self._join(layer)
        self._parts[layer] = [own]
        return own, earlier, self._mask(layer)

    @contextmanager
    def alone(self, layer: Layer) -> Iterator[Activations]:
        """Give a place for a contribution of a unit that adds nothing, which masks it itself."""
        if layer not in self._gradients:
            yield self._temporary(layer)
            return
        own, earlier = self._gradients[layer], self._join(layer)
        if earlier is None:
            yield own
        else:
            part = self._temporary(layer)
            yield part
            self._accumulate([earlier, part], own, layer)
        self._parts[layer] = [own]

    def collect(self, layer: Layer) -> Activations:
        """Return the whole gradient of a layer's output, before its ReLU."""
        own, gradient = self._gradients[layer], self._join(layer)
        assert gradient is not None
        mask = self._mask(layer)
        if gradient is not own and mask is not None:
            self._accumulate([gradient], own, layer)
            gradient = own
        return gradient

    def _join(self, layer: Layer) -> Activations | None:
        """Return the sum of the contributions so far, if there are any."""
        parts = self._parts.get(layer, [])
        while len(parts) > 1:
            own = self._gradients[layer]
            self._accumulate(parts[:2], own, layer)
            parts = [own, *parts[2:]]
        return parts[0] if parts else None

    def _mask(self, layer: Layer) -> Activations | None:
        return self._activations[layer] if layer.relu else None

    def _accumulate(
        self, gradients: Sequence[Activations], total: Activations, layer: Layer
    ) -> None:
        part = self._assembly.part(layer.name)
        self._add_pieces(accumulate(part, gradients, total, mask=self._mask(layer)))
