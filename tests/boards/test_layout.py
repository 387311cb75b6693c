"""Each cell of a placed design counts for its unit and its tiles, and bad files are refused."""

import json

import pytest

from boards.layout import main, read_layout

CELLS = {
    "system.accelerator.core.engine.array.ulx3s_column_1.pe.lut": ("TRELLIS_COMB", "X3/Y4/A"),
    "system.accelerator.core.engine.array.decoder.lut": ("TRELLIS_COMB", "X3/Y4/B"),
    "system.accelerator.core.engine.array.decoder.register": ("TRELLIS_FF", "X3/Y4/C"),
    "system.memory.memory.0.1": ("DP16KD", "X13/Y22/EBR0"),
    "pin_led_0": ("TRELLIS_IO", "X0/Y1/PIOA"),
    "system.accelerator.core.vector.nowhere": ("TRELLIS_FF", None),
}


@pytest.fixture
def netlist(tmp_path):
    cells = {
        name: {"type": kind, "attributes": {"NEXTPNR_BEL": place} if place else {}}
        for name, (kind, place) in CELLS.items()
    }
    path = tmp_path / "placed.json"
    path.write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    return path


def test_counts_cells_by_tile_and_unit(netlist):
    assert read_layout(netlist) == {
        (3, 4): {"column 1 of the array": 1, "S banks and decoder": 2},
        (13, 22): {"card memory": 16},
        (14, 22): {"card memory": 16},
    }


@pytest.mark.parametrize("name", ["layout.png", "layout.svg"])
def test_draws(netlist, tmp_path, name, capsys):
    picture = tmp_path / name
    assert main([str(netlist), "--out", str(picture), "--title", "a title"]) == 0
    assert picture.stat().st_size > 1000 and str(picture) in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, message",
    [
        ("no JSON", "isn't a netlist"),
        ('{"modules": {"top": 1}}', "isn't a netlist"),
        ('{"modules": {"top": {"cells": {}}}}', "no cell of"),
    ],
)
def test_refuses_what_has_no_places(tmp_path, text, message, capsys):
    path = tmp_path / "placed.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--out", str(tmp_path / "layout.png")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "layout.png").exists()
