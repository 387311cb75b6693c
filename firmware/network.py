"""A network on a card: its tensors and the programs of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .driver import Driver, RunResult
from .gradient_flow import GradientFlow
from .layers import BatchNormTensors, ConvolutionTensors
from .model import (
    Addition,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    MaxPool,
    Model,
    Shape,
)
from .program import Program
from .schedule import (
    AdditionSchedule,
    Assembly,
    ConvolutionSchedule,
    LossSchedule,
    LossTensors,
    NormalisationSchedule,
    PoolingSchedule,
    Step,
    WeightGradientSchedule,
    clear_phase,
    require_support,
)
from .tensor import Activations, UnfoldedImages

__all__ = ["Loss", "Network"]


@dataclass(frozen=True)
class Loss:
    """What the card says of a batch.

    Parameters
    ----------
    mean
        Mean cross-entropy of the images.
    right
        Images whose right class has the largest logit.
    """

    mean: float
    right: int


class Network:
    """A network for batches of a fixed size.

    Parameters
    ----------
    driver
        Runs the programs and owns the card's memory.
    model
        The network.
    batch
        Largest batch.

    Raises
    ------
    ScheduleError
        There is no schedule for a layer, or it doesn't fit the card's scratchpads.
    AllocationError
        The tensors don't fit the card's memory.

    Attributes
    ----------
    model, batch
        As given.
    tensors
        Of each layer that has any.
    programs
        By name: ``initialise``; ``forward`` with the loss, ``backward`` and ``update``, which make
        a training step; and ``infer``, with the running averages of batch normalisation.
    """

    def __init__(self, driver: Driver, model: Model, batch: int) -> None:
        self.driver = driver
        self.model = model
        self.batch = batch
        self._config, self._memory = driver.config, driver.memory
        for layer in model.layers:
            require_support(layer, self._config)
        self.tensors: dict[Layer, ConvolutionTensors | BatchNormTensors] = {}
        # Inputs of few channels are unfolded for the layer that takes them.
        self._unfolded: dict[Layer, UnfoldedImages] = {}
        for layer in model.layers:
            if isinstance(layer, Convolution):
                if isinstance(layer.source, Input) and UnfoldedImages.suits(self._config, layer):
                    self._unfolded[layer] = UnfoldedImages(self._config, self._memory, batch, layer)
                self.tensors[layer] = ConvolutionTensors(
                    self._scheduled(layer),
                    self._config,
                    self._memory,
                    has_backward=model.passes_gradient(layer.source),
                )
            elif isinstance(layer, BatchNorm):
                self.tensors[layer] = BatchNormTensors(layer, self._config, self._memory)
        self._activations = {layer: self._images(layer.shape) for layer in model.layers}
        self._gradients = {
            layer: self._images(layer.shape, transposed=layer is model.logits)
            for layer in model.layers
            if model.passes_gradient(layer)
        }
        classes = model.logits.shape.channels
        self._loss = LossTensors(self._config, self._memory, batch, classes)
        # As many zeros as a tile of G rows by one D word has.
        self._zeros = Activations(self._config, self._memory, self._config.elements, Shape(1, 1, 1))
        self._temporaries: list[Activations] = []
        # Where the backward pass leaves the gradient of each layer's output.
        self._collected: dict[Layer, Activations] = {}
        self._update: Assembly | None = None
        self.programs = {
            "initialise": self._initialise_program(),
            "forward": self._forward_program("forward pass", training=True),
            "backward": self._backward_program(),
            "update": self._update_program(),
            "infer": self._forward_program("inference", training=False),
        }

    # What a host does with it

    def initialise(
        self,
        weights: Mapping[str, ArrayLike],
        *,
        biases: Mapping[str, ArrayLike] | None = None,
        norms: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    ) -> RunResult:
        """Start from the given values; the momentum of all is zero.

        The card derives the compressed copies itself, as it does in training.

        Parameters
        ----------
        weights
            ``[kernel, kernel, inputs, outputs]`` of each convolution, by its name.
        biases
            ``[outputs]`` of convolutions; zero if not given.
        norms
            ``gain``, ``shift``, ``average`` and ``variance`` of each batch normalisation,
            ``[channels]``; if not given, it changes nothing.
        """
        card = self.driver.card
        for layer, tensors in self.tensors.items():
            if isinstance(tensors, ConvolutionTensors):
                kernel = np.asarray(weights[layer.name], np.float32)
                tensors.state.write(card, kernel.reshape(tensors.state.shape))
                if tensors.bias_state is not None:
                    bias = (biases or {}).get(layer.name, np.zeros(layer.shape.channels))
                    tensors.bias_state.write(card, bias)
            else:
                values = (norms or {}).get(layer.name, {"gain": 1, "variance": 1})
                tensors.records.write(card, **values)
        blocks = [*self._activations.values(), *self._gradients.values(), *self._temporaries]
        for block in (*blocks, *self._unfolded.values(), self._zeros):
            block.clear(card)
        return self.driver.run(self.programs["initialise"])

    def forward(
        self, images: ArrayLike, labels: NDArray[np.integer], scale: float = 1.0
    ) -> tuple[Loss, RunResult]:
        """Carry a batch forward and compute its loss, whose gradient is multiplied by `scale`.

        Parameters
        ----------
        images
            ``[images, height, width, channels]``.
        labels
            Their classes.
        scale
            Loss scale.

        Raises
        ------
        ValueError
            There aren't as many labels as images, or too few images for a batch normalisation.
        """
        card, tensors = self.driver.card, self._loss
        count = len(labels)
        if len(np.asarray(images)) != count:
            raise ValueError(f"{count} labels are for as many images, got {np.shape(images)}")
        if count < self.batch and any(isinstance(layer, BatchNorm) for layer in self.tensors):
            raise ValueError(
                f"batch normalisation is made for {self.batch} images in training, got {count}"
            )
        right = np.eye(self.model.logits.shape.channels)[labels]
        weights = np.zeros(self.batch)
        weights[:count] = scale / count
        tensors.labels.write(card, right[:, None, None])
        tensors.weights.write(card, weight=weights)
        self._write_images(images)
        result = self.driver.run(self.programs["forward"])
        values = tensors.results.read(card)
        mean = -np.log(2) * values["log_probability"][:count].astype(np.float64).mean()
        return Loss(float(mean), int((values["margin"][:count] == 0).sum())), result

    def backward(self) -> RunResult:
        """Carry the gradient of the last batch's loss back to every layer."""
        return self.driver.run(self.programs["backward"])

    def update(self, step: Step) -> RunResult:
        """Update all that is learned by the gradients of the last `backward`."""
        assert self._update is not None
        self._update.set_step(step)
        return self.driver.run(self.programs["update"])

    def infer(self, images: ArrayLike) -> tuple[NDArray[np.float16], RunResult]:
        """Return the logits ``[images, classes]`` of a batch."""
        card = self.driver.card
        values = np.asarray(images)
        self._write_images(values)
        result = self.driver.run(self.programs["infer"])
        return self._activations[self.model.logits].read(card)[: len(values), 0, 0], result

    def snapshot(self) -> dict[str, NDArray[np.uint8]]:
        """Return the raw bytes of all that training changes, by name."""
        return {
            f"{layer.name} {name}": block.read_bytes(self.driver.card)
            for layer, tensors in self.tensors.items()
            for name, block in _trained(tensors)
        }

    def activations(self, layer: Layer) -> NDArray[np.float16]:
        """Return the outputs of a layer for the last batch."""
        return self._activations[layer].read(self.driver.card)

    def gradient(self, layer: Layer) -> NDArray[np.float16]:
        """Return the gradient of the last batch's loss by a layer's outputs, with the loss scale.

        Before a ReLU of its own, that is.
        """
        return self._collected[layer].read(self.driver.card)

    def _write_images(self, images: ArrayLike) -> None:
        card = self.driver.card
        for unfolded in self._unfolded.values():
            unfolded.write(card, images)
        self._activations[self.model.input].write(card, images)

    # Programs

    def _scheduled(self, layer: Convolution) -> Convolution:
        """Return a convolution as the array computes it."""
        return layer.unfolded() if layer in self._unfolded else layer

    def _convolution(
        self, assembly: Assembly, layer: Convolution, tensors: ConvolutionTensors
    ) -> ConvolutionSchedule:
        return ConvolutionSchedule(assembly, self._scheduled(layer), tensors)

    def _weight_gradients(
        self, assembly: Assembly, layer: Convolution, tensors: ConvolutionTensors
    ) -> WeightGradientSchedule:
        return WeightGradientSchedule(assembly, self._scheduled(layer), tensors)

    def _images(self, shape: Shape, *, transposed: bool = False) -> Activations:
        return Activations(self._config, self._memory, self.batch, shape, transposed=transposed)

    def _temporary(self, layer: Layer) -> Activations:
        self._temporaries.append(self._images(layer.shape))
        return self._temporaries[-1]

    def _assembly(self, name: str) -> Assembly:
        return Assembly(Program(self._config, name))

    def _initialise_program(self) -> Program:
        assembly = self._assembly("initialisation")
        for layer, tensors in self.tensors.items():
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                self._weight_gradients(assembly, layer, tensors).initialise(self._zeros)
        return assembly.program

    def _forward_program(self, name: str, *, training: bool) -> Program:
        assembly = self._assembly(name)
        for layer in self.model.layers[1:]:
            y = self._activations[layer]
            x = self._activations[layer.sources[0]]
            others = [self._activations[source] for source in layer.sources[1:]]
            add = others[0] if others else None
            tensors = self.tensors.get(layer)
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                schedule = self._convolution(assembly, layer, tensors)
                schedule.forward(self._unfolded.get(layer, x), y, add=add)
            elif isinstance(layer, BatchNorm) and isinstance(tensors, BatchNormTensors):
                norm = NormalisationSchedule(assembly, layer, tensors)
                norm.forward(x, y, add=add, training=training)
            elif isinstance(layer, (MaxPool, GlobalAveragePool)):
                PoolingSchedule(assembly, layer).forward(x, y)
            elif isinstance(layer, Addition):
                AdditionSchedule(assembly, layer).forward(x, y, add=others[0])
        if training:
            logits = self.model.logits
            loss = LossSchedule(assembly, self._loss)
            loss.add(self._activations[logits], self._gradients[logits])
        return assembly.program

    def _backward_program(self) -> Program:
        assembly = self._assembly("backward pass")
        flow = GradientFlow(assembly, self._activations, self._gradients, self._temporary)
        logits = self.model.logits
        flow.add(logits, self._gradients[logits])
        for layer in reversed(self.model.layers[1:]):
            if not self.model.passes_gradient(layer):
                continue
            dy = self._collected[layer] = flow.collect(layer)
            source = layer.sources[0]
            # What is added has the gradient of the sum.
            for added in layer.sources[1:]:
                flow.add(added, dy)
            if isinstance(layer, Addition):
                flow.add(source, dy)
                continue
            if not self.model.passes_gradient(source) and not isinstance(layer, BatchNorm):
                continue
            x, y = self._activations[source], self._activations[layer]
            tensors = self.tensors.get(layer)
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                dx, add, mask = flow.target(source)
                schedule = ConvolutionSchedule(assembly, layer, tensors)
                for phase in schedule.backward(dy, dx, add=add, mask=mask):
                    # What is there already needs nothing.
                    if add is not dx:
                        clear_phase(assembly, dx, phase, layer.stride, add=add, mask=mask)
            elif isinstance(layer, BatchNorm) and isinstance(tensors, BatchNormTensors):
                with flow.alone(source) as dx:
                    norm = NormalisationSchedule(assembly, layer, tensors)
                    norm.backward(x, dy, dx, masked=source.relu)
            elif isinstance(layer, (MaxPool, GlobalAveragePool)):
                mask = x if source.relu else None
                with flow.alone(source) as dx:
                    PoolingSchedule(assembly, layer).backward(x, y, dy, dx, mask=mask)
        return assembly.program

    def _update_program(self) -> Program:
        self._update = assembly = self._assembly("weight update")
        for layer, tensors in self.tensors.items():
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                x = self._unfolded.get(layer, self._activations[layer.source])
                schedule = self._weight_gradients(assembly, layer, tensors)
                schedule.update(x, self._collected[layer])
            elif isinstance(layer, BatchNorm) and isinstance(tensors, BatchNormTensors):
                NormalisationSchedule(assembly, layer, tensors).update()
        return assembly.program


def _trained(tensors: ConvolutionTensors | BatchNormTensors) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that training changes, with their names."""
    if isinstance(tensors, BatchNormTensors):
        yield "statistics and parameters", tensors.records
        return
    yield "weights and momentum", tensors.state
    yield "forward copy", tensors.forward
    if tensors.backward is not None:
        yield "backward copy", tensors.backward
    if tensors.bias_state is not None:
        yield "bias and momentum", tensors.bias_state
        yield "bias copy", tensors.bias
