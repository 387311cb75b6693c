"""Tensors of a network's layers in card memory: what each layer learns and keeps."""

from __future__ import annotations

from rtl.config import Config

from .allocator import Allocator
from .model import BatchNorm, Convolution
from .tensor import Compressed, KernelState, Records, Vector, VectorState

__all__ = ["BatchNormTensors", "ConvolutionTensors"]


class ConvolutionTensors:
    """Tensors of a `Convolution`.

    Attributes
    ----------
    state, bias_state
        Master values and momentum; `bias_state` and `bias` are None if it has no bias.
    forward, backward
        Compressed copies that FF and BP read; `backward` is None where no gradient goes further.
    bias
        Binary16 copy of the bias.
    """

    def __init__(
        self, layer: Convolution, config: Config, memory: Allocator, *, has_backward: bool
    ) -> None:
        inputs, outputs, taps = layer.inputs, layer.outputs, layer.taps
        self.state = KernelState(config, memory, taps, inputs, outputs)
        self.forward = Compressed(config, memory, layer.method.forward, outputs, taps, inputs)
        self.backward = (
            Compressed(config, memory, layer.method.backward, inputs, taps, outputs)
            if has_backward
            else None
        )
        self.bias_state = VectorState(config, memory, outputs) if layer.bias else None
        self.bias = Vector(config, memory, outputs) if layer.bias else None


class BatchNormTensors:
    """Tensors of a `BatchNorm`.

    Attributes
    ----------
    records
        Of each channel what it learns, ``gain`` and ``shift``, the running ``average`` and
        ``variance``, the momentum of what it learns; of the last batch ``mean`` and ``inverse`` (of
        the standard deviation), the factor and summand that follow from them, and the gradients;
        factor and summand that follow from the running values.
    """

    NAMES = (
        "gain",
        "shift",
        "average",
        "variance",
        "gain_momentum",
        "shift_momentum",
        "mean",
        "inverse",
        "factor",
        "summand",
        "gain_gradient",
        "shift_gradient",
        "running_factor",
        "running_summand",
    )

    def __init__(self, layer: BatchNorm, config: Config, memory: Allocator) -> None:
        self.records = Records(config, memory, layer.shape.channels, self.NAMES)
