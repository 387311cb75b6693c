"""The figures of one network on one card."""

import dataclasses

import pytest

from firmware.errors import ScheduleError
from firmware.model import PRODUCT_STAGES, Method
from firmware.models import NETWORKS
from rtl.config import PRESETS
from sim.networks.causes import cycles_by_cause, gap, shortfall
from sim.networks.evaluate import BATCHES, Job, evaluate, evaluate_model
from sim.networks.points import BANDWIDTH, CLOCK_HZ, POINTS, timing_for

from .small import small

SIM = PRESETS["sim"]


@pytest.fixture(scope="module")
def results():
    methods = ("dense", "bdwp-2:8")
    return {name: evaluate_model(small(Method.parse(name)), SIM, 32) for name in methods}


def test_all_cycles_and_slots_are_accounted_for(results):
    for name, result in results.items():
        total = result["cycles"]["total"]
        assert sum(result["cycles"].values()) == 2 * total
        assert sum(layer["cycles"] for layer in result["layers"]) == total
        assert sum(result["held"].values()) == total
        assert result["utilisation"] + sum(result["lost"].values()) == pytest.approx(1, abs=1e-4)
        model = small(Method.parse(name))
        assert result["kept_macs"] == 32 * sum(map(model.kept_macs, PRODUCT_STAGES))
        assert sum(layer["macs"] for layer in result["layers"]) == result["kept_macs"]
        assert sum(cycles_by_cause(result).values()) == pytest.approx(total)


def test_every_command_belongs_to_a_layer(results):
    model = small(Method.parse("dense"))
    names = {layer.name for layer in model.layers} | {"loss"}
    for result in results.values():
        found = {layer["layer"] for layer in result["layers"]}
        assert found <= names
        # All but the images have some.
        assert found >= names - {model.input.name}
        assert sum(layer["commands"] for layer in result["layers"]) == result["commands"]


def test_pruning_pays_and_its_gap_is_explained(results):
    dense, sparse = results["dense"], results["bdwp-2:8"]
    assert dense["cycles"]["wu"] == pytest.approx(sparse["cycles"]["wu"], rel=0.2)
    assert sparse["cycles"]["total"] < dense["cycles"]["total"]
    short = shortfall(sparse, dense)
    assert 0 < short < 1
    assert sum(gap(sparse, dense).values()) == pytest.approx(short)
    assert shortfall(dense, dense) == 0 and set(gap(dense, dense).values()) == {0.0}


def test_a_network_that_does_not_run_is_refused_by_name():
    with pytest.raises(ScheduleError, match=r"block 1 first.*'sim' doesn't support 2:16"):
        evaluate_model(small(Method.parse("bdwp-2:16")), SIM, 32)


def test_points_have_the_memory_and_the_multipliers_that_they_name():
    assert {point.macs for point in POINTS.values()} == {1024, 4096}
    for point in POINTS.values():
        config = PRESETS[point.preset]
        assert config.macs == point.macs and config.ratio == 8
        given = timing_for(config).bandwidth * config.channels * config.beat_bytes
        assert given * CLOCK_HZ == pytest.approx(BANDWIDTH)
    assert set(BATCHES) == set(NETWORKS)


def test_jobs_are_known_by_what_their_results_depend_on(monkeypatch):
    monkeypatch.setitem(NETWORKS, "small", small)
    job = Job("small", "bdwp-2:8", "sim", 32)
    keys = {
        job.key("a"),
        job.key("b"),
        dataclasses.replace(job, batch=31).key("a"),
        dataclasses.replace(job, method="bdwp-2:4").key("a"),
        dataclasses.replace(job, preset="sim-wide").key("a"),
        dataclasses.replace(job, network="resnet9").key("a"),
    }
    assert len(keys) == 6 and job.key("a") in keys
    monkeypatch.setattr("sim.networks.points.LATENCY", 65)
    assert job.key("a") not in keys


def test_evaluation_says_what_it_was_of(monkeypatch, results):
    monkeypatch.setitem(NETWORKS, "small", small)
    job = Job("small", "dense", "sim", 32)
    result = evaluate(job)
    assert {name: result[name] for name in dataclasses.asdict(job)} == dataclasses.asdict(job)
    assert result["counters"] == results["dense"]["counters"]
