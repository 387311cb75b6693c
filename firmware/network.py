"""A network on a card: its tensors and the programs of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl.control.commands import Stage

from .backward_flow import BackwardFlow
from .driver import Driver, RunResult
from .forward_flow import ForwardFlow
from .gradient_flow import GradientFlow
from .layers import (
    AttentionBuffers,
    BatchNormTensors,
    ConvolutionTensors,
    LayerNormBuffers,
    LayerNormTensors,
    PositionTensors,
)
from .model import (
    GELU,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool,
    Model,
    PositionEmbedding,
    Shape,
)
from .program import Program
from .schedule import (
    AdditionSchedule,
    Assembly,
    AttentionSchedule,
    Backlog,
    ConvolutionSchedule,
    GELUSchedule,
    LayerNormSchedule,
    LossSchedule,
    LossTensors,
    NormalisationSchedule,
    PartialSums,
    PoolingSchedule,
    PositionSchedule,
    RelayoutSchedule,
    Statistics,
    Step,
    WeightGradientSchedule,
    clear_phase,
    require_support,
)
from .tensor import Activations, UnfoldedImages
from .tokens import TokenActivations, on_tokens, token_layers

__all__ = ["Loss", "Network"]

_Learned = ConvolutionTensors | BatchNormTensors | LayerNormTensors | PositionTensors
"""What training changes of a layer."""


_BACKWARD_PASSES: dict[type[Layer], int] = {
    BatchNorm: 4,
    LayerNorm: 11,
    GELU: 2,
    Attention: 2,
    MaxPool: 5,
    GlobalAveragePool: 1,
}
"""How often the backward pass of a layer of the vector unit takes as many beats as its input has,
about."""


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


class _Side:
    """What training changes, and the programs that work on it.

    There are two, in turns the one that a step reads and the one that it writes: a step whose
    gradients overflow then leaves what is learned as it was, though its updates go on beside the
    rest of the backward pass, before all gradients are known.

    Attributes
    ----------
    tensors
        Of each layer that has any.
    programs
        By name.
    adjustable
        The assembly of the program that depends on the step.
    """

    def __init__(self, tensors: dict[Layer, _Learned]) -> None:
        self.tensors = tensors
        self.programs: dict[str, Program] = {}
        self.adjustable: Assembly | None = None


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
    step_only
        Make the programs of a training step only, which is enough to time one.

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
    """

    def __init__(
        self, driver: Driver, model: Model, batch: int, *, step_only: bool = False
    ) -> None:
        self.driver = driver
        self.model = model
        self.batch = batch
        self._step_only = step_only
        self._config, self._memory = driver.config, driver.memory
        for layer in model.layers:
            require_support(layer, self._config)
        self._on_tokens = token_layers(model)
        # Inputs of few channels are unfolded for the layer that takes them.
        self._unfolded: dict[Layer, UnfoldedImages] = {}
        for layer in model.layers:
            if (
                isinstance(layer, Convolution)
                and isinstance(layer.source, Input)
                and UnfoldedImages.suits(self._config, layer)
            ):
                self._unfolded[layer] = UnfoldedImages(self._config, self._memory, batch, layer)
        self._side, self._other = (_Side(self._learned_tensors()) for _ in range(2))
        self._activations = {layer: self._output(layer) for layer in model.layers}
        # Of those that are also taken by layers on tokens, or by others though they are on tokens.
        self._copies = {
            source: self._output(source, on_tokens=layer in self._on_tokens)
            for layer in model.layers
            for source in layer.sources
            if layer not in self._unfolded and self._rearranged(source, layer)
        }
        self._gradients = {
            layer: self._output(layer, transposed=layer is model.logits)
            for layer in model.layers
            if model.passes_gradient(layer)
        }
        self._attention = {
            layer: AttentionBuffers(
                layer, self._tokens(layer.source, layer), self._config, self._memory
            )
            for layer in model.layers
            if isinstance(layer, Attention)
        }
        self._layer_norm = {
            layer: LayerNormBuffers(self._operand(layer.source, layer), self._config, self._memory)
            for layer in model.layers
            if isinstance(layer, LayerNorm)
        }
        classes = model.logits.shape.channels
        self._loss = LossTensors(self._config, self._memory, batch, classes)
        # As many zeros as a tile of G rows by one D word has.
        self._zeros = Activations(self._config, self._memory, self._config.elements, Shape(1, 1, 1))
        self._temporaries: list[Activations] = []
        self._overlaps: dict[Layer, Activations] = {}
        # Where the backward pass leaves the gradient of each layer's output.
        self._collected: dict[Layer, Activations] = {}
        # Of the inputs of batch normalisations.
        normalised = (
            self._operand(layer.source, layer)
            for layer in model.layers
            if isinstance(layer, BatchNorm)
        )
        self._sums = {x: PartialSums(self._config, self._memory, x) for x in normalised}
        self._schedule()

    @property
    def tensors(self) -> dict[Layer, _Learned]:
        """What training changes of each layer, as it is now."""
        return self._side.tensors

    @property
    def programs(self) -> dict[str, Program]:
        """Programs that work on `tensors`.

        By name: ``initialise``; ``forward`` with the loss and ``backward`` with the update, which
        make a training step; and ``infer``, with the running averages of batch normalisation.
        """
        return self._side.programs

    @property
    def step_programs(self) -> tuple[Program, ...]:
        """The programs of a training step, in their order."""
        return self.programs["forward"], self.programs["backward"]

    # What a host does with it

    def initialise(
        self,
        weights: Mapping[str, ArrayLike],
        *,
        biases: Mapping[str, ArrayLike] | None = None,
        norms: Mapping[str, Mapping[str, ArrayLike]] | None = None,
        positions: Mapping[str, ArrayLike] | None = None,
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
            ``gain``, ``shift``, ``average`` and ``variance`` of each batch normalisation, ``gain``
            and ``shift`` of each layer normalisation, ``[channels]``; if not given, the channels
            stay as they are, or normalised.
        positions
            ``[height, width, channels]`` of position embeddings; zero if not given.
        """
        card = self.driver.card
        for layer, tensors in self.tensors.items():
            if isinstance(tensors, ConvolutionTensors):
                kernel = np.asarray(weights[layer.name], np.float32)
                tensors.state.write(card, kernel.reshape(tensors.state.shape))
                if tensors.bias_state is not None:
                    bias = (biases or {}).get(layer.name, np.zeros(layer.shape.channels))
                    tensors.bias_state.write(card, bias)
            elif isinstance(tensors, PositionTensors):
                shape = layer.shape
                zeros = np.zeros((shape.height, shape.width, shape.channels))
                tensors.values.write(card, (positions or {}).get(layer.name, zeros))
                tensors.momentum.clear(card)
            else:
                unchanged = {"gain": 1.0}
                if isinstance(tensors, BatchNormTensors):
                    unchanged["variance"] = 1.0
                tensors.records.write(card, **(norms or {}).get(layer.name, unchanged))
        blocks = [*self._activations.values(), *self._gradients.values(), *self._temporaries]
        blocks += self._copies.values()
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

    def backward(self, step: Step) -> RunResult:
        """Carry the gradient of the last batch's loss back, and learn from it.

        What is learned stays apart until `apply` is called.
        """
        assert self._side.adjustable is not None
        self._side.adjustable.set_step(step)
        return self.driver.run(self.programs["backward"])

    def apply(self) -> None:
        """Go on with what the last `backward` has learned."""
        self._side, self._other = self._other, self._side
        if not self._side.programs:
            self._schedule()

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

    def _learned_tensors(self) -> dict[Layer, _Learned]:
        """Make tensors for all that training changes."""
        tensors: dict[Layer, _Learned] = {}
        for layer in self.model.layers:
            if isinstance(layer, Convolution):
                tensors[layer] = ConvolutionTensors(
                    self._scheduled(layer),
                    self._config,
                    self._memory,
                    has_backward=self.model.passes_gradient(layer.source),
                )
            elif isinstance(layer, BatchNorm):
                tensors[layer] = BatchNormTensors(layer, self._config, self._memory)
            elif isinstance(layer, LayerNorm):
                tensors[layer] = LayerNormTensors(layer, self._config, self._memory)
            elif isinstance(layer, PositionEmbedding):
                tensors[layer] = PositionTensors(layer, self._config, self._memory)
        return tensors

    def _schedule(self) -> None:
        """Make the programs that read one side and write the other."""
        self._side.programs = {
            "forward": self._forward_program("forward pass", training=True),
            "backward": self._backward_program(),
        }
        if not self._step_only:
            self._side.programs |= {
                "initialise": self._initialise_program(),
                "infer": self._forward_program("inference", training=False),
            }

    def _scheduled(self, layer: Convolution) -> Convolution:
        """Return a convolution as the array computes it."""
        if layer in self._unfolded:
            return layer.unfolded()
        if layer in self._on_tokens:
            return on_tokens(layer, self._config, self.batch)
        return layer

    def _output(
        self, layer: Layer, *, on_tokens: bool | None = None, transposed: bool = False
    ) -> Activations:
        """Make a tensor for the output of a layer, or its gradient; as the layer has it."""
        if on_tokens is None:
            on_tokens = layer in self._on_tokens
        if on_tokens:
            return TokenActivations(self._config, self._memory, self.batch, layer.shape)
        return Activations(
            self._config, self._memory, self.batch, layer.shape, transposed=transposed
        )

    def _rearranged(self, source: Layer, layer: Layer) -> bool:
        """Return whether a layer takes tiles of tokens and its source gives tiles of images."""
        return (source in self._on_tokens) != (layer in self._on_tokens)

    def _operand(self, source: Layer, layer: Layer) -> Activations:
        """Return the output of a source as a layer takes it."""
        if layer not in self._unfolded and self._rearranged(source, layer):
            return self._copies[source]
        return self._activations[source]

    def _tokens(self, source: Layer, layer: Layer) -> TokenActivations:
        """Return the same of a layer on tokens."""
        x = self._operand(source, layer)
        assert isinstance(x, TokenActivations)
        return x

    def _overlap(self, layer: Layer, shape: Shape | None) -> Activations | None:
        """Return what the windows of a pooling layer need if they overlap: a block of images."""
        if shape is not None and layer not in self._overlaps:
            self._overlaps[layer] = Activations(
                self._config, self._memory, self._config.elements, shape
            )
        return self._overlaps.get(layer)

    def _assembly(self, name: str) -> Assembly:
        return Assembly(Program(self._config, name))

    def _initialise_program(self) -> Program:
        assembly = self._assembly("initialisation")
        for layer, tensors in self.tensors.items():
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                schedule = WeightGradientSchedule(assembly, self._scheduled(layer), tensors)
                schedule.initialise(self._zeros)
            elif isinstance(tensors, PositionTensors):
                PositionSchedule(assembly, tensors).initialise()
        return assembly.program

    def _forward_program(self, name: str, *, training: bool) -> Program:
        assembly = self._assembly(name)
        flow = ForwardFlow(assembly.program)
        self._put_copy(assembly, flow, self.model.input)
        for layer in self.model.layers[1:]:
            part = assembly.part(layer.name)
            y = self._activations[layer]
            sources = [self._operand(source, layer) for source in layer.sources]
            x, add = sources[0], sources[1] if len(sources) > 1 else None
            tensors = self._side.tensors.get(layer)
            if isinstance(layer, Convolution) and isinstance(tensors, ConvolutionTensors):
                convolution = ConvolutionSchedule(part, self._scheduled(layer), tensors)
                images = self._unfolded.get(layer, x)
                flow.add_products(y, convolution.forward(images, y, add=add))
            elif isinstance(layer, BatchNorm) and isinstance(tensors, BatchNormTensors):
                norm = NormalisationSchedule(part, layer, tensors)
                statistics = None
                if training:
                    statistics = flow.sums(x, Statistics(part, x, self._sums[x]))
                flow.add_vectors(y, norm.forward(x, y, add=add, statistics=statistics))
            elif isinstance(layer, (MaxPool, GlobalAveragePool)):
                flow.add_vectors(y, PoolingSchedule(part, layer).forward(x, y))
            elif isinstance(layer, Addition):
                assert add is not None
                flow.add_vectors(y, AdditionSchedule(part, layer).forward(x, y, add=add))
            elif isinstance(layer, GELU):
                flow.add_vectors(y, GELUSchedule(part).forward(x, y))
            elif isinstance(layer, LayerNorm):
                flow.add_vectors(y, self._layer_norm_schedule(part, layer).forward(x, y))
            else:
                assert isinstance(x, TokenActivations) and isinstance(y, TokenActivations)
                if isinstance(layer, Attention):
                    buffers = self._attention[layer]
                    attention = AttentionSchedule(part, layer, buffers)
                    flow.add_products(buffers.scores, attention.scores(x), early=True)
                    flow.add_vectors(buffers.probabilities, attention.softmax())
                    flow.add_products(y, attention.outputs(x, y))
                else:
                    assert isinstance(tensors, PositionTensors)
                    flow.add_vectors(y, PositionSchedule(part, tensors).forward(x, y))
            self._put_copy(part, flow, layer)
        flow.run()
        if training:
            logits = self.model.logits
            loss = LossSchedule(assembly.part("loss"), self._loss)
            loss.add(self._activations[logits], self._gradients[logits])
        return assembly.program

    def _put_copy(self, assembly: Assembly, flow: ForwardFlow, layer: Layer) -> None:
        """Add the copy of a layer's output for those that take it otherwise, if there are any."""
        if layer in self._copies:
            y, copy = self._activations[layer], self._copies[layer]
            relayout = RelayoutSchedule(assembly, Stage.FF)
            flow.add_vectors(copy, relayout.copy(y, copy))

    def _layer_norm_schedule(self, assembly: Assembly, layer: LayerNorm) -> LayerNormSchedule:
        tensors = self._side.tensors[layer]
        assert isinstance(tensors, LayerNormTensors)
        return LayerNormSchedule(assembly, layer, tensors, self._layer_norm[layer])

    def _backward_program(self) -> Program:
        self._side.adjustable = assembly = self._assembly("backward pass")
        existing = iter(list(self._temporaries))

        def temporary(layer: Layer, *, on_tokens: bool | None = None) -> Activations:
            """Return a tensor for the output of a layer; both sides share them."""
            tensor = next(existing, None)
            if tensor is None:
                tensor = self._output(layer, on_tokens=on_tokens)
                self._temporaries.append(tensor)
            return tensor

        backlog = Backlog(self._gradient_cycles(), self._vector_cycles())
        flow = BackwardFlow(assembly.program, backlog)
        gradients = GradientFlow(
            assembly, self._activations, self._gradients, temporary, flow.add_vectors
        )

        def give(source: Layer, layer: Layer, gradient: Activations) -> None:
            """Add a contribution to the gradient of a source, as the layer that takes it has it."""
            if self.model.passes_gradient(source) and self._rearranged(source, layer):
                copy = temporary(source)
                flow.add_lines(copy, RelayoutSchedule(assembly, Stage.BP).copy(gradient, copy))
                gradient = copy
            gradients.add(source, gradient)

        @contextmanager
        def contribution(source: Layer, layer: Layer) -> Iterator[Activations]:
            """Give a place for what a layer gives to its source, not masked by a ReLU there."""
            part = temporary(source, on_tokens=layer in self._on_tokens)
            yield part
            give(source, layer, part)

        logits = self.model.logits
        gradients.add(logits, self._gradients[logits])
        for layer in reversed(self.model.layers[1:]):
            if not self.model.passes_gradient(layer):
                continue
            part = assembly.part(layer.name)
            dy = self._collected[layer] = gradients.collect(layer)
            source = layer.sources[0]
            # What is added has the gradient of the sum.
            for added in layer.sources[1:]:
                give(added, layer, dy)
            if isinstance(layer, (Addition, PositionEmbedding)):
                give(source, layer, dy)
            x, y = self._operand(source, layer), self._activations[layer]
            tensors, updated = self._side.tensors.get(layer), self._other.tensors.get(layer)
            if isinstance(tensors, ConvolutionTensors) and isinstance(updated, ConvolutionTensors):
                assert isinstance(layer, Convolution)
                if self.model.passes_gradient(source):
                    if self._rearranged(source, layer):
                        with contribution(source, layer) as dx:
                            self._add_backward(part, flow, layer, tensors, dy, (dx, None, None))
                    else:
                        target = gradients.target(source)
                        self._add_backward(part, flow, layer, tensors, dy, target)
                schedule = WeightGradientSchedule(part, self._scheduled(layer), tensors, updated)
                flow.put_off(schedule.update(self._unfolded.get(layer, x), dy))
                continue
            alone = gradients.alone
            if self._rearranged(source, layer):
                alone = partial(contribution, layer=layer)
            if isinstance(tensors, BatchNormTensors) and isinstance(updated, BatchNormTensors):
                assert isinstance(layer, BatchNorm)
                with alone(source) as dx:
                    norm = NormalisationSchedule(part, layer, tensors)
                    flow.add_vectors(norm.backward(x, dy, dx, masked=source.relu, updated=updated))
            elif isinstance(layer, LayerNorm):
                assert isinstance(updated, LayerNormTensors)
                with contribution(source, layer) as dx:
                    layer_norm = self._layer_norm_schedule(part, layer)
                    flow.add_lines(dx, layer_norm.backward(x, dy, dx, updated=updated))
            elif isinstance(tensors, PositionTensors):
                assert isinstance(updated, PositionTensors) and isinstance(dy, TokenActivations)
                flow.add_vectors(PositionSchedule(part, tensors).learn(dy, updated))
            elif not self.model.passes_gradient(source):
                continue
            elif isinstance(layer, (MaxPool, GlobalAveragePool)):
                mask = x if source.relu else None
                pooling = PoolingSchedule(part, layer)
                with alone(source) as dx:
                    parts = self._overlap(layer, pooling.overlap)
                    flow.add_vectors(pooling.backward(x, y, dy, dx, mask=mask, parts=parts))
            elif isinstance(layer, GELU):
                with contribution(source, layer) as dx:
                    flow.add_vectors(GELUSchedule(part).backward(x, dy, dx))
            elif isinstance(layer, Attention):
                with contribution(source, layer) as dx:
                    attention = AttentionSchedule(part, layer, self._attention[layer])
                    assert isinstance(dx, TokenActivations) and isinstance(dy, TokenActivations)
                    queries = self._tokens(source, layer)
                    flow.add_products(attention.value_gradients(queries, dy, dx))
                    flow.add_vectors(attention.score_gradients())
                    flow.add_products(attention.input_gradients(queries, dx))
        flow.finish()
        return assembly.program

    def _gradient_cycles(self) -> float:
        """Return about how many cycles the array works on weight gradients beside the vector unit.

        Those of the first layers come when it has ended.
        """
        macs = sum(
            layer.macs(Stage.WU)
            for layer in self.model.layers[1:]
            if self.model.passes_gradient(layer.sources[0])
        )
        return macs * self.batch / self._config.macs

    def _vector_cycles(self) -> float:
        """Return about how many cycles the vector unit works in a backward pass."""
        total = sum(
            _BACKWARD_PASSES.get(type(layer), 0) * self._activations[layer.sources[0]].nbytes
            for layer in self.model.layers[1:]
        )
        return total / self._config.beat_bytes

    def _add_backward(
        self,
        assembly: Assembly,
        flow: BackwardFlow,
        layer: Convolution,
        tensors: ConvolutionTensors,
        dy: Activations,
        target: tuple[Activations, Activations | None, Activations | None],
    ) -> None:
        """Add BP of a convolution; `target` is as `GradientFlow.target` has it."""
        dx, add, mask = target
        schedule = ConvolutionSchedule(assembly, self._scheduled(layer), tensors)
        phases = flow.add_convolution(dx, schedule.backward(dy, dx, add=add, mask=mask))
        # What is there already needs nothing.
        for phase in phases if add is not dx else ():
            flow.add_vectors(clear_phase(assembly, dx, phase, layer.stride, add=add, mask=mask))


def _trained(tensors: _Learned) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that training changes, with their names."""
    if isinstance(tensors, (BatchNormTensors, LayerNormTensors)):
        yield "statistics and parameters", tensors.records
        return
    if isinstance(tensors, PositionTensors):
        yield "positions", tensors.values
        yield "momentum of the positions", tensors.momentum
        yield "copy of the positions", tensors.copy
        return
    yield "weights and momentum", tensors.state
    yield "forward copy", tensors.forward
    if tensors.backward is not None:
        yield "backward copy", tensors.backward
    if tensors.bias_state is not None:
        yield "bias and momentum", tensors.bias_state
        yield "bias copy", tensors.bias
