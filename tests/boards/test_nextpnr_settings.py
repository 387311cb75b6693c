"""Settings get into the top module, as strings, and what isn't a netlist is refused."""

import json

import pytest

from boards.nextpnr_settings import main


@pytest.fixture
def netlist(tmp_path):
    path = tmp_path / "sat.json"
    modules = {"LUT4": {"attributes": {}}, "sat": {"attributes": {"top": "1"}, "cells": {}}}
    path.write_text(json.dumps({"creator": "Yosys", "modules": modules}))
    return path


def test_settings_join_those_that_are_there(netlist):
    assert main([str(netlist), "router2/bbMargin/x=16", "a=b"]) == 0
    assert main([str(netlist), "router2/bbMargin/y=10", "a=c=d"]) == 0
    design = json.loads(netlist.read_text())
    assert design["creator"] == "Yosys" and "settings" not in design["modules"]["LUT4"]
    assert design["modules"]["sat"]["settings"] == {
        "router2/bbMargin/x": "16", "router2/bbMargin/y": "10 ", "a": "c=d",
    }  # fmt: skip


@pytest.mark.parametrize("setting", ["a", "=1", "a="])
def test_refuses_what_is_no_setting(netlist, setting, capsys):
    before = netlist.read_text()
    with pytest.raises(SystemExit, match="2"):
        main([str(netlist), setting])
    assert f"'{setting}' must be NAME=VALUE" in capsys.readouterr().err
    assert netlist.read_text() == before


@pytest.mark.parametrize(
    "text, message",
    [
        ("no JSON", "isn't a netlist"),
        ("[]", "isn't a netlist"),
        ('{"modules": {"sat": {"attributes": {}}}}', "has 0 top modules, must have 1"),
    ],
)
def test_refuses_what_is_no_netlist(tmp_path, text, message, capsys):
    path = tmp_path / "sat.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "a=b"])
    assert message in capsys.readouterr().err and path.read_text() == text


def test_refuses_a_file_that_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.json"), "a=b"])
    assert "none.json" in capsys.readouterr().err
