"""Networks and their schedules, against the same computation on whole matrices."""

import itertools

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.driver import Driver
from firmware.errors import ScheduleError
from firmware.layers import Linear
from firmware.network import Network
from firmware.schedule import Step
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern, supported_patterns
from tests.firmware.reference import Reference

STEP = Step(rate=0.05, momentum=0.9, decay=5e-4, scale=6)


def _assert_equal(network, reference):
    expected = reference.snapshot()
    for name, block in network.snapshot().items():
        np.testing.assert_array_equal(block, expected.pop(name), err_msg=name)
    assert not expected


def _check_steps(driver, layers, batch, rng, steps=1):
    """Carry out training steps on a card and in the reference, and compare all bits."""
    network = Network(driver, layers, batch)
    weights = [layer.initial_weights(rng) for layer in layers]
    reference = Reference(driver.config, layers, weights, batch)
    network.initialise(weights)
    _assert_equal(network, reference)
    for _ in range(steps):
        images = rng.random((rng.integers(1, batch + 1), layers[0].inputs))
        outputs, _ = network.forward(images)
        np.testing.assert_array_equal(
            outputs.view(np.uint16), reference.forward(images).view(np.uint16)
        )
        gradient = rng.standard_normal((len(images), layers[-1].outputs)) * 2**STEP.scale
        network.backward(gradient)
        reference.backward(gradient)
        network.update(STEP)
        reference.update(STEP)
        _assert_equal(network, reference)
    return network


def test_training_steps_on_every_card(driver):
    layers = [
        Linear("first", 20, 32),
        Linear("second", 32, 48, pattern=Pattern.N2M8),
        Linear("third", 48, 10, relu=False),
    ]
    network = _check_steps(driver, layers, 16, np.random.default_rng(0), steps=2)
    # A batch of another size than before leaves nothing of the old one behind.
    outputs, result = network.forward(np.zeros((3, 20)))
    assert outputs.shape == (3, 10)
    assert result.counters["NONFINITE"] == 0
    assert result.counters["COMMANDS"] == len(network.programs["forward"]) - 1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seed", range(6))
def test_random_networks(preset, seed):
    """Shapes of all kinds, whole and cut into blocks, in every pattern."""
    rng = np.random.default_rng(seed)
    with open_card(f"golden:{preset}") as card:
        patterns = supported_patterns(card.config)
        widths = rng.integers(1, 130, rng.integers(2, 4) + 1)
        layers = [
            Linear(
                f"layer {index}", int(inputs), int(outputs),
                relu=bool(rng.random() < 0.7), pattern=patterns[rng.integers(len(patterns))],
            )
            for index, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        ]  # fmt: skip
        _check_steps(Driver(card), layers, int(rng.integers(1, 100)), rng)


def test_large_layers_are_cut_into_blocks():
    """More pixels and channels than the scratchpads hold at once: operands are loaded anew."""
    with open_card("golden:sim") as card:
        layers = [Linear("first", 256, 192), Linear("second", 192, 256, pattern=Pattern.N2M8)]
        network = _check_steps(Driver(card), layers, 300, np.random.default_rng(0))
    forward = network.programs["forward"].listing()
    assert forward.count("S pattern=dense") > 192 // 32
    update = network.programs["update"].listing()
    assert update.count("D order=TILES") > len(layers)


def test_every_product_is_told_its_real_size(driver):
    """Sizes that fill no tile or leave whole ones empty: useful is all that isn't padding."""
    layers = [
        Linear("first", 13, 29),
        Linear("second", 29, 35, pattern=Pattern.N2M8),
        Linear("third", 35, 15, relu=False),
    ]
    network = Network(driver, layers, 21)
    random = np.random.default_rng(0)
    network.initialise([layer.initial_weights(random) for layer in layers])
    _, forward = network.forward(random.random((21, 13)))
    backward = network.backward(random.standard_normal((21, 15)))
    update = network.update(STEP)
    macs = driver.config.macs
    # A group of eight has two entries, and so has the group at the end.
    for result, useful in (
        (forward, 21 * (13 * 29 + 2 * 4 * 35 + 35 * 15)),
        (backward, 21 * (2 * 5 * 29 + 15 * 35)),
        (update, 21 * (14 * 29 + 30 * 35 + 36 * 15)),
    ):
        counters = result.counters
        assert counters["USEFUL_MACS"] == useful
        slots = sum(counters[f"MAC_SLOTS_{stage}"] for stage in ("FF", "BP", "WU"))
        assert useful + counters["EDGE_MACS"] + counters["FILLER_MACS"] == slots * macs
        lost = sum(counters[f"LOST_{cause}"] for cause in ("FILL", "DRAIN", "OPERAND"))
        if result.cycles:
            assert slots + lost == result.cycles


@pytest.mark.parametrize("batch", [1, 3, 5, 9, 16])
def test_few_images_take_few_tiles(batch):
    """Contexts lie along the channels where there are too few images to fill them."""
    with open_card("golden:sim") as card:
        layers = [Linear("first", 64, 64), Linear("second", 64, 64, pattern=Pattern.N2M8)]
        network = _check_steps(Driver(card), layers, batch, np.random.default_rng(0))
        _, result = network.forward(np.zeros((batch, 64)))
        columns = -(-batch // card.config.cols)
        # For each G channels: rows of four, and two D words of four steps, or of one in 2:8.
        assert result.counters["MAC_SLOTS_FF"] == columns * 2 * 8 * 2 * (4 + 1)


def test_operands_alternate_between_the_halves():
    """The next operands never wait for the array to let go of the last ones."""
    with open_card("golden:sim") as card:
        config = card.config
        layers = [Linear("first", 64, 128), Linear("second", 128, 128)]
        programs = Network(Driver(card), layers, 32).programs
    for name, program in programs.items():
        lines = [line.split() for line in program.listing().splitlines()]
        for opcode, base, depth in (
            ("COMPUTE", "s_base", config.s_depth),
            ("COMPUTE", "o_base", config.o_depth),
        ):
            halves = [
                int(dict(field.split("=") for field in line if "=" in field).get(base, 0))
                // (depth // 2)
                for line in lines
                if line[1] == opcode and "ones=1" not in line
            ]
            assert all(a != b for a, b in itertools.pairwise(halves)), (name, base)


@pytest.mark.parametrize(
    ("inputs", "batch", "message"),
    [
        (1000, 16, "wide, FF: needs 252 words of the S scratchpad, configuration 'tiny' has 64"),
        (16, 300, "wide, WU: needs 76 words of the S scratchpad, configuration 'tiny' has 64"),
    ],
)
def test_what_cannot_fit_is_refused(inputs, batch, message):
    with open_card("golden:tiny") as card, pytest.raises(ScheduleError, match=message):
        Network(Driver(card), [Linear("wide", inputs, 16)], batch)


def test_layers_must_match():
    with open_card("golden:tiny") as card, pytest.raises(ValueError, match=r"a has 8 .* b 9"):
        Network(Driver(card), [Linear("a", 4, 8), Linear("b", 9, 4)], 16)


def test_overflow_is_counted():
    """An infinity that a STORE writes shows in the counter that loss scaling looks at."""
    with open_card("golden:tiny") as card:
        layers = [Linear("first", 16, 16), Linear("second", 16, 16, relu=False)]
        network = Network(Driver(card), layers, 16)
        network.initialise([np.full((16, 16), 100.0), np.eye(16)])
        _, result = network.forward(np.full((1, 16), 1000.0))
        # The first layer's outputs overflow; the second meets infinity times zero.
        assert result.counters["NONFINITE"] == 32
