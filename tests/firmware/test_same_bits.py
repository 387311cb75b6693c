"""Training gives the same bits on every configuration, card and memory."""

import dataclasses
import functools
import operator

import numpy as np
import pytest

from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import MemoryTiming, VerilatedCard
from firmware.driver import Driver
from firmware.layers import Linear
from firmware.network import Network
from firmware.schedule import Step
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern
from tests.harness import default_seed

TINY = PRESETS["tiny"]
TALL = dataclasses.replace(
    TINY, name="tall", rows=8, cols=1, interleave=8, lanes=8, group=16, ratio=8, drain_rows=8,
    o_depth=256, d_depth=256, s_depth=256,
)  # fmt: skip
"""One column, eight contexts, and beats of 128 bytes, the widest there are."""
STEPS = 4


def trained(card):
    """Train a small network on `card`.

    Returns its weights, momenta and biases, unpacked, as the tensors' layout in memory differs with
    the width of a beat but their values must not; all bytes; and the counters.
    """
    random = np.random.default_rng(default_seed())
    layers = [
        Linear("first", 20, 32),
        Linear("second", 32, 32, pattern=Pattern.N2M8),
        Linear("third", 32, 10, relu=False),
    ]
    network = Network(Driver(card), layers, 16)
    network.initialise([layer.initial_weights(random) for layer in layers])
    results = []
    for _ in range(STEPS):
        results += [
            network.forward(random.random((16, 20)))[1],
            network.backward(random.standard_normal((16, 10)) * 64),
            network.update(Step(rate=0.05, momentum=0.9, decay=5e-4, scale=6)),
        ]
    counters = functools.reduce(operator.add, results).counters
    state = {
        f"{layer.name} {block} {name}": values.view(np.uint32)
        for layer, tensors in zip(layers, network.tensors, strict=True)
        for block in ("state", "bias_state")
        for name, values in getattr(tensors, block).read(card).items()
    }
    return state, network.snapshot(), counters


@pytest.fixture(scope="module")
def expected():
    with GoldenCard(TINY) as card:
        return trained(card)[0]


@pytest.mark.parametrize(
    "config", [PRESETS["sim"], PRESETS["sim-wide"], TALL], ids=lambda c: c.name
)
def test_configurations_agree(expected, config):
    """Array shape, lanes and interleave change no weight, momentum or bias."""
    with GoldenCard(config) as card:
        state, _, _ = trained(card)
    assert state.keys() == expected.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("config", [TINY, TALL], ids=lambda config: config.name)
def test_gateware_agrees_under_stalls(expected, config):
    """Gateware of two shapes, with random AXI stalls, leaves the golden card's very bytes."""
    timing = MemoryTiming(latency=17, bandwidth=0.7, stall=0.3, seed=default_seed())
    with VerilatedCard(config, timing=timing) as card:
        state, snapshot, counters = trained(card)
    for name, values in state.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    # Where what lies in memory depends on the width of a beat.
    with GoldenCard(config) as card:
        _, golden, golden_counters = trained(card)
    for name, block in snapshot.items():
        np.testing.assert_array_equal(block, golden[name], err_msg=name)
    for name, count in golden_counters.items():
        if name.startswith("MAC_SLOTS") or name.endswith("_MACS"):
            assert counters[name] == count, name
    macs = sum(counters[f"{kind}_MACS"] for kind in ("USEFUL", "EDGE", "FILLER"))
    lost = sum(counters[f"LOST_{cause}"] for cause in ("FILL", "DRAIN", "OPERAND"))
    assert macs + config.macs * lost == config.macs * counters["CYCLES"]
