"""Networks on cards, against the same computation on whole images in binary64.

Every layer is compared on its own: it goes on with what the card made of the layers before it, so
that nothing but the rounding of one layer has to be allowed for.
"""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.errors import ScheduleError
from firmware.model import (
    DENSE,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    LayerNorm,
    MaxPool,
    Method,
    Model,
    PositionEmbedding,
    linear,
)
from firmware.network import Network
from firmware.schedule import Step
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.sparsity import pack_tiles
from tests.firmware.reference import Reference
from tests.harness import default_seed

BDWP = Method.bdwp(Pattern.N2M8)

STEP = Step(rate=0.05, momentum=0.9, decay=5e-4, scale=8)


def _rms(values):
    return np.sqrt(np.mean(np.square(values)))


def _assert_close(actual, expected, what, *, ulps=1.0, share=1e-4, floor=2.0**-24):
    """Compare what was rounded to binary16, relative to each number and to all of them."""
    np.testing.assert_allclose(
        np.asarray(actual, np.float64),
        expected,
        rtol=ulps * 2.0**-10,
        atol=share * _rms(expected) + floor,
        err_msg=f"{what}, SAT_SEED={default_seed()}",
    )


class _Pair:
    """A network on a card and in the reference, in training together."""

    def __init__(self, card, model, batch, rng):
        self.card, self.model, self.batch, self.rng = card, model, batch, rng
        self.network = Network(Driver(card), model, batch)
        weights = {layer.name: layer.initial_weights(rng) for layer in model.convolutions}
        self.reference = Reference(model, weights)
        norms, positions = {}, {}
        for layer in model.layers:
            shape = layer.shape
            if isinstance(layer, LayerNorm):
                # Of either sign.
                norms[layer.name] = {
                    "gain": rng.uniform(-0.5, 1.5, shape.channels),
                    "shift": rng.standard_normal(shape.channels),
                }
            elif isinstance(layer, PositionEmbedding):
                size = shape.height, shape.width, shape.channels
                positions[layer.name] = rng.standard_normal(size)
        self.network.initialise(weights, norms=norms, positions=positions)
        self._load_parameters()

    def step(self, count=None):
        """Carry out a training step with `count` images on both, and compare all of it."""
        network, reference, rng = self.network, self.reference, self.rng
        count = count or self.batch
        images, labels = self._images(count), rng.integers(0, self._classes, count)
        loss, forward = network.forward(images, labels, 2.0**STEP.scale)
        reference.forward(images, labels, 2.0**STEP.scale, check=self._check_outputs)
        assert loss.mean == pytest.approx(reference.loss, rel=1e-4, abs=1e-6)
        logits = reference.outputs[self.model.logits][:, 0, 0]
        right = logits[np.arange(count), labels] == logits.max(axis=1)
        assert loss.right == right.sum()
        backward = network.backward(STEP)
        reference.backward(check=self._check_gradients)
        reference.update(STEP)
        for result in (forward, backward):
            assert result.counters["NONFINITE"] == 0
        network.apply()
        self._check_parameters()

    def infer(self, count=None):
        """Classify images on both, and compare."""
        images = self._images(count or self.batch)
        logits, _ = self.network.infer(images)
        expected = self.reference.forward(images, training=False, check=self._check_outputs)
        np.testing.assert_array_equal(logits, expected)

    @property
    def _classes(self):
        return self.model.logits.shape.channels

    def _images(self, count):
        shape = self.model.input.shape
        values = self.rng.standard_normal((count, shape.height, shape.width, shape.channels))
        return values.astype(np.float16)

    def _check_outputs(self, layer, expected):
        actual = self.network.activations(layer)[: len(expected)]
        # What they round on the way may go the other way.
        share = 2e-3 if isinstance(layer, (Attention, LayerNorm)) else 1e-4
        _assert_close(actual, expected, f"output of {layer.name}", share=share)
        return actual.astype(np.float64)

    def _check_gradients(self, layer, expected):
        if not self.model.passes_gradient(layer):
            return expected
        actual = self.network.gradient(layer)
        assert not actual[len(expected) :].any(), f"gradient of no image in {layer.name}"
        # Contributions of several layers are rounded one after the other, and those of a batch
        # normalisation may cancel.
        _assert_close(
            actual[: len(expected)],
            expected,
            f"gradient of {layer.name}",
            ulps=3,
            share=2e-3,
            floor=1e-5 * _rms(self.reference.loss_gradient),
        )
        return actual[: len(expected)].astype(np.float64)

    def _check_parameters(self):
        """Compare all that is learned; go on with the card's, whose pruning may hang on a bit."""
        expected = dict(self.reference.parameters), dict(self.reference.velocities)
        averages = dict(self.reference.averages)
        self._load_parameters()
        actual = self.reference.parameters, self.reference.velocities
        for before, after in zip(expected, actual):
            for (layer, name), values in before.items():
                _assert_close(
                    after[layer, name], values, f"{name} of {layer.name}", ulps=0.02, share=1e-4
                )
        for layer, values in averages.items():
            for index, name in enumerate(("mean", "variance")):
                _assert_close(
                    self.reference.averages[layer][index],
                    values[index],
                    f"running {name} of {layer.name}",
                    ulps=0.02,
                )

    def _load_parameters(self):
        """Give the reference what the card has learned."""
        for layer, tensors in self.network.tensors.items():
            if isinstance(layer, Convolution):
                shape = (layer.kernel, layer.kernel, layer.inputs, layer.outputs)
                state = tensors.state.read(self.card)
                self._load(layer, "weights", *(part.reshape(shape) for part in state.values()))
                if layer.bias:
                    self._load(layer, "bias", *tensors.bias_state.read(self.card).values())
            elif isinstance(layer, PositionEmbedding):
                values = (part.read(self.card) for part in (tensors.values, tensors.momentum))
                self._load(layer, "positions", *values)
            else:
                records = tensors.records.read(self.card)
                for name in ("gain", "shift"):
                    self._load(layer, name, records[name], records[f"{name}_momentum"])
                if isinstance(layer, LayerNorm):
                    continue
                self.reference.averages[layer] = tuple(
                    records[name].astype(np.float64) for name in ("average", "variance")
                )

    def _load(self, layer, name, value, velocity):
        self.reference.parameters[layer, name] = value.astype(np.float64)
        self.reference.velocities[layer, name] = velocity.astype(np.float64)


def _check(card, model, batch, rng, counts=(None, None)):
    """Train for a step with each of `counts` images and classify some, on both."""
    pair = _Pair(card, model, batch, rng)
    for count in counts:
        pair.step(count)
    pair.infer()
    return pair.network


def _random_model(rng, config):
    """Return a network of all kinds of layers in a random order."""
    patterns = supported_patterns(config)
    side, widest = 8, 2 * config.elements
    layers = [
        Input("image", *(int(n) for n in rng.integers(1, side, 2)), int(rng.integers(1, widest)))
    ]

    def name(kind):
        return f"{len(layers)} {kind}"

    def addend(shape):
        same = [layer for layer in layers if layer.shape == shape]
        return same[rng.integers(len(same))] if same and rng.random() < 0.5 else None

    for _ in range(rng.integers(2, 6)):
        x = layers[-1]
        smallest = min(x.shape.height, x.shape.width)
        kind = rng.choice(["convolution", "convolution", "norm", "pool", "addition"])
        if kind == "convolution":
            kernel = int(rng.integers(1, 4))
            padding = int(rng.integers(max(0, (kernel - smallest + 1) // 2), kernel))
            shape = {"kernel": kernel, "padding": padding, "stride": int(rng.integers(1, 4))}
            outputs = int(rng.integers(1, widest))
            if rng.random() < 0.5:
                shape = {"kernel": 3, "padding": 1}
                outputs = x.shape.channels
            options = {
                "bias": rng.random() < 0.5,
                "rectified": rng.random() < 0.5,
                "method": Method(
                    *(patterns[index] for index in rng.integers(len(patterns), size=2))
                ),
            }
            try:
                size = Convolution("size", x, outputs, **shape).shape
            except ValueError:
                continue
            layers.append(Convolution(name(kind), x, outputs, **shape, **options, add=addend(size)))
        elif kind == "norm":
            layers.append(
                BatchNorm(name(kind), x, rectified=rng.random() < 0.5, add=addend(x.shape))
            )
        elif kind == "addition":
            added = addend(x.shape) or x
            layers.append(Addition(name(kind), x, added, rectified=rng.random() < 0.5))
        elif smallest >= 2:
            window = int(rng.integers(2, min(smallest, 3) + 1))
            places = {
                "stride": int(rng.integers(1, window + 2)),
                "padding": int(rng.integers(window // 2 + 1)),
            }
            layers.append(
                MaxPool(name(kind), x, window=window, rectified=rng.random() < 0.5, **places)
            )
    if layers[-1].shape.positions > 1:
        layers.append(GlobalAveragePool(name("mean"), layers[-1]))
    layers.append(linear("classes", layers[-1], int(rng.integers(2, widest))))
    return Model("random", tuple(layers))


def _perceptron(*widths, method=DENSE):
    """Return fully connected layers of these widths, with ReLU between them."""
    layers = [Input("image", 1, 1, widths[0])]
    for index, width in enumerate(widths[1:]):
        last = index == len(widths) - 2
        layers.append(
            linear(
                f"layer {index + 1}",
                layers[-1],
                width,
                rectified=not last,
                method=DENSE if last or not index else method,
            )
        )
    return Model("perceptron", tuple(layers))


def _residual():
    """A residual block of every kind of layer, small enough for the smallest configuration."""
    image = Input("image", 6, 6, 1)
    stem = Convolution("stem", image, 16, kernel=3, stride=2, padding=1)
    norm = BatchNorm("norm", stem, rectified=True)
    first = Convolution("first", norm, 16, kernel=3, padding=1, bias=True, method=BDWP)
    second = BatchNorm("second", first, rectified=True, add=norm)
    half = Convolution("half", second, 20, kernel=1, stride=2, method=BDWP)
    third = Convolution("third", half, 20, bias=True, rectified=True, add=half)
    pool = MaxPool("pool", third)
    return Model(
        "residual",
        (*(image, stem, norm, first, second, half, third, pool), linear("classes", pool, 10)),
    )


def test_training_steps_on_every_card(card):
    rng = np.random.default_rng(default_seed())
    Driver(card).reset()
    model = _perceptron(20, 32, 48, 10, method=BDWP)
    # A batch of another size than before leaves nothing of the old one behind.
    pair = _check(card, model, 16, rng, (16, 3))
    _, result = pair.infer(np.zeros((3, 1, 1, 20)))
    assert result.counters["COMMANDS"] == len(pair.programs["infer"]) - 1
    _check(card, _residual(), 16, rng)


def test_training_goes_on_from_given_values():
    """Weights, biases, and all that normalisation has learned, its running averages too."""
    rng = np.random.default_rng(default_seed())
    with open_card("golden:tiny") as card:
        pair = _Pair(card, _residual(), 16, rng)
        weights = {layer.name: layer.initial_weights(rng) for layer in pair.model.convolutions}
        biases = {"first": rng.standard_normal(16), "third": rng.standard_normal(20)}
        norms = {
            name: {
                "gain": rng.uniform(0.5, 1.5, 16),
                "shift": rng.standard_normal(16),
                "average": rng.standard_normal(16),
                "variance": rng.uniform(0.5, 1.5, 16),
            }
            for name in ("norm", "second")
        }
        pair.network.initialise(weights, biases=biases, norms=norms)
        pair._load_parameters()
        parameters = {
            (layer.name, kind): values
            for (layer, kind), values in pair.reference.parameters.items()
        }
        for name, values in biases.items():
            np.testing.assert_array_equal(parameters[name, "bias"], values.astype(np.float32))
        # The last layer's isn't given.
        assert not parameters["classes", "bias"].any()
        for name, norm in norms.items():
            for kind in ("gain", "shift"):
                np.testing.assert_array_equal(parameters[name, kind], norm[kind].astype(np.float32))
        pair.infer()
        pair.step()


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("tiny", 12),
        ("sim", 6),
        ("sim-wide", 6),
        ("sim-8x", 2),
        ("ulx3s", 6),
        ("vcu1525", 2),
        ("u250", 1),
    ],
)
def test_random_networks(preset, count):
    """All kinds of layers in shapes of all kinds, whole and cut into blocks, in every pattern."""
    rng = np.random.default_rng(default_seed())
    # Block RAM, which is all the memory that the smallest board has, is too small for some of them.
    roomy = max(PRESETS[preset].memory_bytes, 1 << 20)
    config = dataclasses.replace(PRESETS[preset], memory_bytes=roomy)
    refused = 0
    while count:
        with GoldenCard(config) as card:
            model = _random_model(rng, card.config)
            batch = int(rng.integers(1, card.config.elements + 1))
            normalised = any(isinstance(layer, BatchNorm) for layer in model.layers)
            part = batch if normalised else int(rng.integers(1, batch + 1))
            try:
                _check(card, model, batch, rng, (part, batch))
            except ScheduleError as error:
                refused += 1
                assert refused < 100, f"{error}, SAT_SEED={default_seed()}"
                continue
            count -= 1


def test_random_networks_on_gateware():
    """The same networks leave the golden card's very memory, whenever memory stalls."""
    rng = np.random.default_rng(default_seed())
    config = PRESETS["tiny"]
    kinds, programs = set(), 0
    # All kinds of layers, and weight gradients that are added up from parts.
    while len(kinds) < 6 or programs < 12:
        assert programs < 60, f"only {kinds} in {programs} networks, SAT_SEED={default_seed()}"
        model, batch = _random_model(rng, config), int(rng.integers(1, config.elements + 1))
        timing = MemoryTiming(
            latency=int(rng.integers(1, 40)),
            bandwidth=float(rng.uniform(0.3, 1)),
            stall=float(rng.choice([0, 0.3])),
            seed=int(rng.integers(1 << 16)),
        )
        seed = int(rng.integers(1 << 32))
        try:
            with GoldenCard(config) as card:
                expected = _train_blindly(card, model, batch, seed)
        except ScheduleError:
            continue
        with VerilatedCard(config, timing=timing) as card:
            memory = _train_blindly(card, model, batch, seed)
        different = np.flatnonzero(memory != expected)
        assert not len(different), (
            f"{len(different)} bytes from {different[0]:#x} on, {timing}, {model}, "
            f"SAT_SEED={default_seed()}"
        )
        kinds |= {type(layer) for layer in model.layers}
        kinds |= {"parts" for layer in model.convolutions if _has_parts(layer, config)}
        programs += 1


def _has_parts(layer, config):
    """Whether the weight gradients of one block of images take more than one product."""
    return layer.shape.positions * config.ratio > config.max_additions


def _train_blindly(card, model, batch, seed):
    """Train for two steps and classify; return all of the card's memory."""
    rng = np.random.default_rng(seed)
    shape = model.input.shape
    network = Network(Driver(card), model, batch)
    network.initialise({layer.name: layer.initial_weights(rng) for layer in model.convolutions})
    for _ in range(2):
        images = rng.standard_normal((batch, shape.height, shape.width, shape.channels))
        network.forward(
            images, rng.integers(0, model.logits.shape.channels, batch), 2.0**STEP.scale
        )
        network.backward(STEP)
        network.apply()
    network.infer(images)
    return card.read_memory(0, card.config.memory_bytes)


def _with_head(name, layers):
    """Return a network of `layers` and, behind them, those that make logits."""
    layers = list(layers)
    if layers[-1].shape.positions > 1:
        layers.append(GlobalAveragePool("mean", layers[-1]))
    return Model(name, (*layers, linear("classes", layers[-1], 5)))


def _skip_first():
    """The skip's layer is the last to take the output, and so the first to give a gradient."""
    image = Input("image", 4, 4, 3)
    stem = Convolution("stem", image, 18, kernel=2, rectified=True)
    first = Convolution("first", stem, 18, kernel=1, bias=True, rectified=True)
    second = Convolution("second", first, 18, add=stem, bias=True, rectified=True)
    return [image, stem, first, second]


def _skip_last():
    """The skip's layer gives its gradient after the one that also convolves."""
    image = Input("image", 3, 3, 3)
    stem = Convolution("stem", image, 18, kernel=1, bias=True, rectified=True)
    skip = BatchNorm("skip", stem, rectified=True)
    first = Convolution("first", stem, 18, kernel=2, padding=1, stride=2)
    second = Convolution("second", stem, 18, add=skip)
    third = Convolution("third", second, 18, kernel=2, padding=1, stride=2, add=first)
    return [image, stem, skip, first, second, third]


def _taken_three_times():
    image = Input("image", 3, 3, 4)
    stem = Convolution("stem", image, 20, bias=True, rectified=True)
    first = Convolution("first", stem, 20, rectified=True)
    second = Convolution("second", stem, 20, add=first, bias=True)
    third = BatchNorm("third", stem, add=second, rectified=True)
    fourth = BatchNorm("fourth", third, add=stem, rectified=True)
    return [image, stem, first, second, third, fourth]


def _pool_first():
    """A pool that leaves pixels out is the first to give a gradient to an output."""
    image = Input("image", 3, 3, 4)
    stem = Convolution("stem", image, 12, bias=True)
    other = Convolution("other", stem, 12, kernel=3)
    pool = MaxPool("pool", stem)
    join = Convolution("join", pool, 12, add=other)
    return [image, stem, other, pool, join]


def _pool_last():
    image = Input("image", 3, 3, 4)
    stem = Convolution("stem", image, 12, bias=True, rectified=True)
    pool = MaxPool("pool", stem)
    other = Convolution("other", stem, 12, kernel=3, add=pool)
    return [image, stem, pool, other]


def _twice_the_same():
    """A layer adds its own input, and one adds the images."""
    image = Input("image", 3, 3, 4)
    stem = Convolution("stem", image, 4, add=image, rectified=True)
    double = Convolution("double", stem, 4, bias=True, add=stem)
    norm = BatchNorm("norm", double, add=double)
    return [image, stem, double, norm]


def _sums():
    """Sums of outputs that have gone through a ReLU, of the images, and of one with itself."""
    image = Input("image", 3, 3, 4)
    stem = Convolution("stem", image, 4, bias=True, rectified=True)
    first = BatchNorm("first", stem, rectified=True)
    both = Addition("both", stem, first)
    twice = Addition("twice", both, both, rectified=True)
    all_ = Addition("all", image, twice)
    return [image, stem, first, both, twice, all_]


def _norm_of_images():
    """Batch normalisation, pools and a mean that no convolution goes before."""
    image = Input("image", 4, 4, 5)
    pool = MaxPool("pool", image)
    norm = BatchNorm("norm", pool, rectified=True)
    return [image, pool, norm]


def _behind_pools():
    image = Input("image", 4, 4, 3)
    first = Convolution("first", image, 18, kernel=1)
    pool = MaxPool("pool", first, rectified=True)
    second = Convolution("second", pool, 33, kernel=2, padding=1, bias=True)
    norm = BatchNorm("norm", second)
    last = MaxPool("last", norm, window=3, stride=3)
    return [image, first, pool, second, norm, last]


@pytest.mark.parametrize(
    "make",
    [
        _skip_first,
        _skip_last,
        _taken_three_times,
        _pool_first,
        _pool_last,
        _twice_the_same,
        _sums,
        _norm_of_images,
        _behind_pools,
    ],
)
def test_gradients_come_together(make):
    """Outputs that several layers take, in all orders in which these give their gradients."""
    with open_card("golden:tiny") as card:
        _check(card, _with_head("branched", make()), 16, np.random.default_rng(default_seed()))


@pytest.mark.parametrize("preset", ["tiny", "sim-8x"])
@pytest.mark.parametrize(
    "method",
    [
        DENSE,
        Method.ff(Pattern.N2M8),
        Method.bp(Pattern.N2M8),
        Method.bdwp(Pattern.N1M8),
        Method(Pattern.N2M4, Pattern.N1M8),
    ],
    ids=str,
)
def test_each_direction_has_its_own_pattern(preset, method):
    """It trains with copies of the master weights that are pruned for one direction or both."""
    rng = np.random.default_rng(default_seed())
    with open_card(f"golden:{preset}") as card:
        g = card.config.elements
        # The channels fill a D word and a part of the next.
        image = Input("image", 3, 3, g)
        first = Convolution("first", image, g + 8, bias=True, rectified=True)
        pruned = Convolution("pruned", first, g + 16, kernel=2, padding=1, method=method)
        model = _with_head("directions", [image, first, pruned])
        network = _check(card, model, 8, rng, (8,))
        tensors = network.tensors[pruned]
        weights = tensors.state.read(card)["weights"].astype(np.float16)
        for copy, pattern, matrix in (
            (tensors.forward, method.forward, weights.transpose(2, 0, 1)),
            (tensors.backward, method.backward, weights.transpose(1, 0, 2)),
        ):
            rows, taps, length = matrix.shape
            whole = np.zeros((-(-rows // g) * g, taps, copy.words * g), np.float16)
            whole[:rows, :, :length] = matrix
            expected = pack_tiles(
                whole.reshape(len(whole), -1).view(np.uint16), pattern, card.config
            )
            assert copy.pattern is pattern
            np.testing.assert_array_equal(copy.read_bytes(card), expected.ravel())


def test_large_layers_are_cut_into_blocks():
    """More pixels and channels than the scratchpads hold at once: operands are loaded anew."""
    with open_card("golden:sim") as card:
        model = _perceptron(256, 192, 256, 10, method=BDWP)
        rng = np.random.default_rng(default_seed())
        network = _check(card, model, 100, rng, (100,))
        forward = network.programs["forward"].listing()
        # All the weights of 192 channels and of the classes, which stay for all blocks of images.
        assert forward.count("S pattern=dense") == 192 // 32 + 1
        loads = [
            line for line in network.programs["backward"].listing().splitlines() if "WU" in line
        ]
        assert sum("D order=TILES" in line for line in loads) == 256 // 32 + 192 // 32 + 256 // 32


def test_large_images_are_cut_into_bands():
    """Lines of an image in several products, each with those around them."""
    with open_card("golden:sim-wide") as card:
        image = Input("image", 12, 7, 40)
        first = Convolution("first", image, 40, kernel=3, padding=1, bias=True, rectified=True)
        pool = MaxPool("pool", first)
        second = Convolution("second", pool, 40, kernel=3, padding=1, add=pool, rectified=True)
        model = _with_head("bands", [image, first, pool, second])
        network = _check(card, model, 32, np.random.default_rng(default_seed()), (32,))
        forward = network.programs["forward"].listing()
        assert forward.count("D order=TILES") > len(model.convolutions)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(7, 2, (9, 8)), (4, 4, (8, 8))])
def test_images_of_few_channels_are_unfolded(kernel, stride, side):
    """A kernel's taps share D words, of several of which a pixel consists then."""
    with open_card("golden:tiny") as card:
        image = Input("image", *side, 3)
        first = Convolution("first", image, 20, kernel, stride, kernel // 2 - 1, bias=True)
        network = _check(
            card, _with_head("unfolded", [image, first]), 20, np.random.default_rng(0), (20,)
        )
        words = -(-3 * kernel**2 // card.config.elements)
        assert network.tensors[first].forward.d_words == words > 1


@pytest.mark.parametrize(("stride", "batch"), [(1, 16), (2, 35)])
def test_weight_gradients_are_added_up(stride, batch):
    """Layers with more pixels than one product takes, of one and of several blocks of images."""
    with open_card("golden:tiny") as card:
        image = Input("image", 9, 7, 10)
        first = Convolution("first", image, 16, 3, stride, 1, bias=True, rectified=True)
        second = Convolution("second", first, 16, kernel=3, padding=1, rectified=True)
        assert _has_parts(second, card.config)
        model = _with_head("parts", [image, first, second])
        network = _check(card, model, batch, np.random.default_rng(default_seed()), (batch,))
        update = network.programs["backward"].listing()
        assert 0 < update.count("accumulate=1") < update.count("COMPUTE")


def test_every_product_is_told_its_real_size(driver):
    """Sizes that fill no tile or leave whole ones empty: useful is all that isn't padding."""
    model = _perceptron(13, 29, 35, 15, method=BDWP)
    network = Network(driver, model, 21)
    random = np.random.default_rng(0)
    network.initialise({layer.name: layer.initial_weights(random) for layer in model.convolutions})
    _, forward = network.forward(random.random((21, 1, 1, 13)), random.integers(0, 15, 21))
    backward = network.backward(STEP)
    macs = driver.config.macs
    # A group of eight has two entries, and so has the group at the end.
    for result, useful in (
        (forward, 21 * (13 * 29 + 2 * 4 * 35 + 35 * 15)),
        (backward, 21 * (2 * 5 * 29 + 15 * 35 + 14 * 29 + 30 * 35 + 36 * 15)),
    ):
        counters = result.counters
        assert counters["USEFUL_MACS"] == useful
        slots = sum(counters[f"MAC_SLOTS_{stage}"] for stage in ("FF", "BP", "WU"))
        assert useful + counters["EDGE_MACS"] + counters["FILLER_MACS"] == slots * macs
        lost = sum(counters[f"LOST_{cause}"] for cause in ("FILL", "DRAIN", "OPERAND"))
        if result.cycles:
            assert slots + lost == result.cycles


def test_operands_alternate_between_the_halves():
    """The next operands never wait for the array to let go of the last ones."""
    with open_card("golden:sim") as card:
        programs = Network(Driver(card), _perceptron(64, 128, 128), 32).programs
    for name, program in programs.items():
        lines = [line.split() for line in program.listing().splitlines()]
        for opcode, kind, base in (("LOAD", "S", "base"), ("COMPUTE", "COMPUTE", "o_base")):
            places = [
                int(dict(field.split("=") for field in line if "=" in field).get(base, 0))
                for line in lines
                if line[1] == opcode and kind in line and "ones=1" not in line
            ]
            assert all(a != b for a, b in itertools.pairwise(places)), (name, base)


def test_what_a_batch_must_be():
    """As many labels as images, no more than there is room for, and all that a norm expects."""
    with open_card("golden:tiny") as card:
        network = Network(Driver(card), _residual(), 16)
        images = np.zeros((20, 6, 6, 1))
        for count, labels, message in (
            (8, 8, "made for 16 images in training, got 8"),
            (16, 15, "15 labels are for as many images, got (16, 6, 6, 1)"),
            (20, 20, "room for 16 images 1 x 1 x 10, got (20, 1, 1, 10)"),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                network.forward(images[:count], np.zeros(labels, int))


PIXELS = Input("image", 6, 6, 12)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            Attention("x", PIXELS, heads=2),
            "x: a head has 2 channels, configuration 'tiny' takes multiples of 16",
        ),
        (
            Convolution("x", PIXELS, 16, method=Method.bp(Pattern.N2M16)),
            "x: configuration 'tiny' doesn't support 2:16 for backward weights; it supports dense",
        ),
        (
            Convolution("x", PIXELS, 16, method=Method.ff(Pattern.N2M16)),
            "x: configuration 'tiny' doesn't support 2:16 for forward weights",
        ),
    ],
)
def test_layers_without_a_schedule_are_refused(layer, message):
    """Before anything is allocated."""
    with open_card("golden:tiny") as card:
        driver = Driver(card)
        with pytest.raises(ScheduleError, match=re.escape(message)):
            Network(driver, _with_head("refused", [PIXELS, layer]), 16)
        assert driver.memory.free_bytes == card.config.memory_bytes


def test_overflow_is_counted():
    """An infinity that a STORE writes shows in the counter that loss scaling looks at."""
    with open_card("golden:tiny") as card:
        network = Network(Driver(card), _perceptron(16, 16, 16), 16)
        network.initialise({"layer 1": np.full((16, 16), 100.0), "layer 2": np.eye(16)})
        _, result = network.infer(np.full((1, 1, 1, 16), 1000.0))
        # The first layer's outputs overflow; the second meets infinity times zero.
        assert result.counters["NONFINITE"] == 32
