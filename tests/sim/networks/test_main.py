"""The command line."""

import json

import pytest

from firmware.errors import ScheduleError
from firmware.models import NETWORKS
from sim.networks import __main__ as command
from sim.networks import fidelity, sweep

from .small import small

FIGURES = {"max_relative_error": 0.0, "speed_ratio": 2000.0, "preset": "vcu1525"}


@pytest.fixture
def inline(monkeypatch, tmp_path):
    """A small network in place of a large one, and no processes."""
    monkeypatch.setitem(NETWORKS, "resnet9", small)
    monkeypatch.setattr(sweep, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(
        command,
        "in_processes",
        lambda jobs, processes: ((job, sweep._carry_out(job)) for job in jobs),
    )
    (tmp_path / "engine.json").write_text(json.dumps({"model": FIGURES | {"macs": 4096}}))
    return tmp_path


def _run(folder, *arguments):
    options = ("--network", "resnet9", "--point", "1k", "--batch", "32", "--no-scalesim")
    return command.main([*options, "--output", str(folder), *arguments])


def test_a_sweep(inline, capsys):
    assert _run(inline, "--method", "bdwp-2:8") == 0
    figures = json.loads((inline / "networks.json").read_text())
    [point] = figures["points"]
    assert set(point["networks"]["resnet9"]) == {"dense", "bdwp-2:8"}
    assert {"macs", "bandwidth_bytes_per_s", "clock_hz", "networks", "geomean"} <= set(point)
    record = point["networks"]["resnet9"]["bdwp-2:8"]
    assert {"cycles", "utilisation", "bytes", "images_per_s", "speedup", "ceiling"} <= set(record)
    assert set(record["cycles"]) == {"ff", "bp", "wu", "update", "total"}
    assert figures["model"] == FIGURES
    assert "Speedup over dense training: 1,024 multipliers" in capsys.readouterr().out


def test_what_cannot_be_scheduled_is_told_and_all_else_done(inline, monkeypatch, capsys):
    def evaluate(job):
        if job.method == "ff-2:8":
            raise ScheduleError("block 1 first: needs 9 words of the S scratchpad")
        return own(job)

    own = sweep.evaluate
    monkeypatch.setattr(sweep, "evaluate", evaluate)
    assert _run(inline, "--method", "bdwp-2:8", "ff-2:8") == 1
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "block 1 first: needs 9 words" in text
    figures = json.loads((inline / "networks.json").read_text())
    assert set(figures["points"][0]["networks"]["resnet9"]) == {"dense", "bdwp-2:8"}
    [failed] = figures["failed"]
    assert failed["job"] == "resnet9, ff-2:8, u250-1k, batch 32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "bdwp"], "no N:M pattern"),
        (["--network", "alexnet"], "invalid choice: 'alexnet'"),
        (["--batch", "0"], "at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_fidelity_is_measured_if_nobody_has(monkeypatch, tmp_path):
    asked = []

    def measure(preset, progress):
        asked.append(preset)
        return FIGURES | {"cycles": 7}

    monkeypatch.setattr(fidelity.cycle_model, "measure", measure)
    assert fidelity.model_figures(tmp_path) == FIGURES and asked == ["tiny"]
    (tmp_path / "engine.json").write_text("{}")
    assert fidelity.model_figures(tmp_path) == FIGURES and asked == ["tiny", "tiny"]
    (tmp_path / "engine.json").write_text(json.dumps({"model": FIGURES}))
    assert fidelity.model_figures(tmp_path) == FIGURES and len(asked) == 2
