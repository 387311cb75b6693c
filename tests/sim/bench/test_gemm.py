"""Products on the card: that every MAC slot is accounted for, and what scratchpads they need."""

import dataclasses

import pytest

from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver
from rtl.config import preset
from sim.bench.gemm import (
    QUICK_SHAPES,
    SHAPES,
    Shape,
    config_for,
    run,
    stationary_cycles,
)
from sim.bench.slots import LOST
from tests.harness import default_seed


@pytest.fixture(scope="module")
def driver():
    with VerilatedCard(preset("tiny")) as card:
        yield Driver(card)


@pytest.mark.parametrize(
    "shape",
    [
        *QUICK_SHAPES,
        Shape("tiny", 7, 9, 33, "4:8"),
        Shape("tiny", 3, 20, 16, "1:8", a_contexts=1),
        Shape("tiny", 8, 5, 5, "2:4", a_contexts=2),
    ],
    ids=str,
)
def test_slots_add_up_and_results_are_golden(driver, shape):
    result = run(driver, shape, default_seed())
    assert result["utilisation"] + sum(result["lost"].values()) == pytest.approx(1, abs=1e-4)
    assert result["utilisation"] <= result["allowed"] <= 1
    products = shape.m * shape.n * shape.k
    entries = {"dense": 1, "4:8": 0.5, "2:4": 0.5, "1:4": 0.25, "2:8": 0.25, "1:8": 0.125}
    # Tails of a reduction keep more of their elements than a whole group does.
    assert products * entries[shape.pattern] <= result["useful"] <= products
    assert result["utilisation"] == pytest.approx(
        result["useful"] / (result["cycles"] * result["macs"]), abs=1e-5
    )


def test_wrong_results_are_noticed(driver, monkeypatch):
    monkeypatch.setattr("sim.bench.gemm.dot", lambda s, d: (s[:1, :1] + d[:, :1]) * 0)
    with pytest.raises(AssertionError, match="differ from the golden model"):
        run(driver, QUICK_SHAPES[0])


def test_a_lost_slot_is_noticed(driver, monkeypatch):
    monkeypatch.delitem(LOST, "fill")
    with pytest.raises(AssertionError, match=r"aren't \d+ in all"):
        run(driver, QUICK_SHAPES[0])


def test_quick_shapes_fit_the_preset():
    assert config_for("tiny", QUICK_SHAPES) == preset("tiny")


def test_scratchpads_are_as_deep_as_operands_need():
    config = config_for("sim", [Shape("sim", 1024, 1024, 1024, "dense")])
    g, sim = config.elements, preset("sim")
    assert config.s_depth * config.rows * config.lanes * config.ratio >= 1024 * 1024
    assert config.d_depth * config.cols * g == 1024 * 1024
    assert config.o_depth * config.cols * config.floats == 1024 * 1024
    same = dataclasses.replace(
        config, name=sim.name, s_depth=sim.s_depth, d_depth=sim.d_depth, o_depth=sim.o_depth,
        memory_bytes=sim.memory_bytes,
    )  # fmt: skip
    assert same == sim


def test_every_shape_has_a_configuration():
    for name in {shape.preset for shape in SHAPES}:
        config = config_for(name, [shape for shape in SHAPES if shape.preset == name])
        assert config.macs == preset(name).macs


@pytest.mark.parametrize(
    "shape, cycles",
    [
        # Two ways out of each of 32 columns, 8 rows each: 1,024 rows of S make 16 rounds. Two words
        # of a chain, 1,024 rows of D.
        (Shape("vcu1525", 1024, 1024, 64, "2:8"), 16 * 1024),
        # 32 words, so four passes, of 64 rows.
        (Shape("vcu1525", 64, 1024, 1024, "2:8"), 4 * 16 * 64),
        # Loading eight words takes longer than four rows of D.
        (Shape("vcu1525", 4, 64, 256, "2:8"), 8),
    ],
    ids=str,
)
def test_cycles_of_stationary_weights(shape, cycles):
    assert stationary_cycles(preset(shape.preset), shape) == cycles
