"""The command: what it writes, what it compares, and what it refuses."""

import copy
import json

import pytest

from sim.bench import hardware
from sim.bench.__main__ import main
from sim.bench.engine_report import REPORT as ENGINE
from sim.bench.memory_report import REPORT as MEMORY
from sim.synthesis import Synthesised

RESOURCES = {"lut": 100, "lutram": 20, "ff": 300, "dsp": 4, "bram": 1.5, "uram": 0, "carry": 9}
ELEMENT = {"lut_per_mac": 150.25, "lutram_per_mac": 60.0, "ff_per_mac": 400.0, "dsp_per_mac": 1.0}


def figures():
    """What a run of all parts would give, in small."""
    element = ELEMENT | {"device": "xcvu9p", "board_neutral": ELEMENT | {"lut_per_mac": 201.0}}
    return {
        "pe": {"preset": "tiny", **element, "presets": {"tiny": element}},
        "baseline": dict.fromkeys(ELEMENT, 475.0),
        "presets": {
            "tiny": {
                "macs": 32, "device": "xcvu9p", "device_title": "A & B", **RESOURCES,
                "share": {"lut": 0.25, "uram": 0.0}, "elaborate_seconds": 5.0,
                "elaborate_cpu_seconds": 6.0,
                "elaborate_peak_bytes": 300_000_000,
                "modules": [
                    {"module": f"part_{index}", "instances": 2, **RESOURCES} for index in range(14)
                ],
            }
        },
        "depth": {
            "preset": "tiny", "dsp_ns": 1.29, "longest_path_cells": 3, "longer_than_dsp": 1,
            "stages": [{"start": "a", "end": "b", "levels": 3, "ns": 1.5,
                        "path": ["LUT6", "CARRY4", "CARRY4"]}],
        },
        "gemm": [
            {"preset": "tiny", "m": 8, "n": 9, "k": 10, "pattern": "2:8", "a_contexts": 1,
             "macs": 32, "cycles": 1000, "utilisation": 0.9, "allowed": 0.95, "stationary": 0.5,
             "lost": {"fill": 0.1, "drain": 0.0, "operand": 0.0, "edge": 0.0, "filler": 0.0}}
        ],
        "simulation": {
            "cycles_per_second": 40_000.0, "macs": 32,
            "presets": {"tiny": {"macs": 32, "cycles_per_second": 40_000.0}},
        },
        "model": {
            "preset": "tiny", "macs": 32, "cycles": 5000, "max_relative_error": 0.001,
            "card_cycles_per_second": 30_000, "model_cycles_per_second": 3_000_000,
            "speed_ratio": 100.0,
        },
    }  # fmt: skip


def memory_figures():
    """What a run of the part `memory` would give, in small."""
    row = {
        "card": "small", "name": "conv", "side": 8, "inputs": 64, "outputs": 128, "stride": 1,
        "batch": 32, "stage": "FF", "pattern": "dense", "cycles": 1000, "utilisation": 0.95,
        "lost": {"fill": 0.0, "drain": 0.01, "operand": 0.04, "edge": 0.0, "filler": 0.0},
        "bytes_read": 2_000_000, "bytes_written": 1_000_000, "bandwidth": 0.25,
    }  # fmt: skip
    stream = {"read": 0.99, "write": 0.98}
    return {
        "cards": {"small": {"macs": 256, "beat_bytes": 64, "bytes_per_cycle": 19.25, "latency": 64,
                            "stream": stream}},
        "layers": [row, row | {"stage": "BP"}, row | {"pattern": "2:8", "utilisation": 0.9}],
        "stream": stream,
    }  # fmt: skip


def test_figures_stand_with_their_change():
    before = figures()
    after = copy.deepcopy(before)
    after["pe"]["presets"]["tiny"]["lut_per_mac"] = 165.0
    after["gemm"][0]["cycles"] = 990
    after["presets"]["tiny"]["share"]["lut"] = 0.26
    text = ENGINE.text(after, before)
    assert "165.0 (+9.8%)" in text
    assert "990 (-1.0%)" in text
    assert "26.0% (+4.0%)" in text
    assert text.count("(+") + text.count("(-") == 3
    assert "(+" not in ENGINE.text(after, {})
    # Parts beyond the first are told of together.
    assert "2 others" in text and "part_11" in text and "part_12" not in text
    assert "LUT6 2xCARRY4" in text


def test_only_what_was_measured_is_shown():
    whole = figures()
    assert "Cards" not in ENGINE.text({"gemm": whole["gemm"]}, whole)
    assert "Products" not in ENGINE.text({key: whole[key] for key in ("simulation",)}, whole)


def test_the_page_is_self_contained(tmp_path):
    paths = ENGINE.write(figures(), {}, tmp_path)
    assert [path.name for path in paths] == ["engine.json", "engine.txt", "engine.html"]
    assert json.loads(paths[0].read_text()) == figures()
    page = paths[2].read_text()
    assert page.count("<svg") == 3 and "A &amp; B" in page
    assert "src=" not in page and "<script" not in page


def test_accepted_tables_have_no_changes(tmp_path):
    paths = ENGINE.accept(figures(), tmp_path)
    assert json.loads(paths[0].read_text()) == figures()
    assert paths[1].read_text() == ENGINE.text(figures(), {}) + "\n"


def test_memory_figures_stand_with_their_change():
    before = memory_figures()
    after = copy.deepcopy(before)
    after["layers"][1]["cycles"] = 900
    after["layers"][2]["bytes_read"] = 3_000_000
    after["cards"]["small"]["stream"]["write"] = 0.49
    text = MEMORY.text(after, before)
    assert "900 (-10.0%)" in text and "3.00 (+50.0%)" in text and "49.0% (-50.0%)" in text
    assert text.count("(+") + text.count("(-") == 3
    # Another batch is another program.
    after["layers"][1]["batch"] = 64
    assert "900 (" not in MEMORY.text(after, before)


def test_memory_page_has_a_picture_for_each_pattern(tmp_path):
    paths = MEMORY.write(memory_figures(), {}, tmp_path)
    assert [path.name for path in paths] == ["memory.json", "memory.txt", "memory.html"]
    assert json.loads(paths[0].read_text()) == memory_figures()
    page = paths[2].read_text()
    assert page.count("<svg") == 2 and "src=" not in page and "<script" not in page


def test_accepted_figures_are_found_again(tmp_path):
    report = MEMORY
    assert report.accepted(tmp_path) == {}
    report.accept(memory_figures(), tmp_path)
    assert report.accepted(tmp_path) == memory_figures()


def test_a_card_is_the_sum_of_its_parts():
    from rtl.config import preset

    modules = {
        "sat": Synthesised("sat", {"LUT6": 3}, {"bank": 2, "sat.a.b.c.unit$12": 1}),
        "bank": Synthesised("bank", {"URAM288": 1, "RAM32M16": 1}, {"pe": 4}),
        "pe": Synthesised("pe", {"DSP48E2": 8, "LUT2": 5}),
        "sat.a.b.c.unit$12": Synthesised("sat.a.b.c.unit$12", {"FDRE": 7, "RAMB18E2": 1}),
    }
    card = hardware.card_figures(preset("vcu1525"), modules)
    assert {key: card[key] for key in ("lut", "lutram", "ff", "dsp", "bram", "uram")} == {
        "lut": 3 + 2 * 8 + 8 * 5, "lutram": 16, "ff": 7, "dsp": 64, "bram": 0.5, "uram": 2,
    }  # fmt: skip
    assert card["share"]["dsp"] == round(64 / 6840, 5)
    assert [(row["module"], row["instances"]) for row in card["modules"]] == [
        ("pe", 8), ("bank", 2), ("sat", 1), ("unit", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "choose from: tiny"),
        (["--quick", "--accept"], "--accept takes a whole run"),
        (["--only", "gemm", "--accept"], "--accept takes a whole run"),
        (["--only", "memory", "speed", "--accept"], "--accept takes a whole run"),
        (["--only", "memory", "--preset", "tiny", "--accept"], "--accept takes a whole run"),
        (["--only", "nothing"], "invalid choice"),
    ],
)
def test_refuses(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_quick_run(tmp_path, capsys):
    """The part for CI: area of the smallest preset, its elaboration, and some products."""
    assert main(["--quick", "--only", "area", "gemm", "speed", "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("memory.*"))
    result = json.loads((tmp_path / "engine.json").read_text())
    assert result["quick"]
    assert result["baseline"]["dsp_per_mac"] == result["pe"]["dsp_per_mac"] == 1
    assert 0 < result["pe"]["lutram_per_mac"] < result["pe"]["lut_per_mac"]
    card = result["presets"]["tiny"]
    assert card["lut"] == sum(row["lut"] * row["instances"] for row in card["modules"])
    assert card["macs"] == 32 and card["dsp"] >= 32
    assert sum(row["instances"] for row in card["modules"] if row["module"] == "tiny_pe") == 8
    assert 0 < card["share"]["lut"] < 1
    assert card["elaborate_seconds"] > 0 and card["elaborate_cpu_seconds"] > 0
    assert card["elaborate_peak_bytes"] > 50e6
    assert result["depth"]["stages"][0]["ns"] == result["depth"]["worst_ns"] > 0
    assert {entry["pattern"] for entry in result["gemm"]} >= {"dense", "2:8"}
    assert result["simulation"]["cycles_per_second"] > 0
    assert result["model"]["max_relative_error"] == 0 and result["model"]["speed_ratio"] > 10
    shown = capsys.readouterr()
    assert "Where" not in shown.out and "Products" in shown.out
    assert "synthesis" in shown.err


def test_quick_run_of_memory(tmp_path, capsys):
    assert main(["--quick", "--only", "memory", "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("engine.*"))
    result = json.loads((tmp_path / "memory.json").read_text())
    assert result["quick"] and list(result["cards"]) == ["tiny"]
    assert [(row["pattern"], row["stage"]) for row in result["layers"]] == [
        (pattern, stage) for pattern in ("dense", "2:8") for stage in ("FF", "BP", "WU")
    ]
    for row in result["layers"]:
        assert row["utilisation"] + sum(row["lost"].values()) == pytest.approx(1, abs=1e-4)
        assert row["bytes_read"] > 0 and row["bytes_written"] > 0
    assert 0 < result["stream"]["write"] <= 1 and 0 < result["stream"]["read"] <= 1
    shown = capsys.readouterr()
    assert "long STOREs" in shown.out and "small, 2:8: FF" in shown.err
