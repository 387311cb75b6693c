"""The area count: what each cell costs, and that a small block's cells are as expected."""

import json

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.config import PRESETS, Config
from sim.area import DEVICES, RESOURCES, count, device_of, main, table


class MultiplyAdd(wiring.Component):
    """A multiply-add that fits one DSP48E2, and a flip-flop chain beside it."""

    a: In(signed(18))
    b: In(signed(12))
    sum: Out(signed(40))

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.sum.eq(self.sum + self.a * self.b)
        return m


def test_count_sums_up_by_resource():
    cells = {
        "LUT6": 3, "LUT2": 2, "INV": 1, "RAM32M16": 2, "RAM32X1D": 1, "SRLC32E": 3, "MUXF7": 9,
        "FDRE": 10, "FDSE": 1, "CARRY4": 4, "DSP48E2": 5, "RAMB18E2": 3, "RAMB36E2": 1,
        "URAM288": 6,
    }  # fmt: skip
    assert count(cells) == {
        "lut": 6 + 2 * 8 + 2 + 3, "lutram": 2 * 8 + 2 + 3, "ff": 11, "dsp": 5, "carry": 4,
        "bram": 2.5, "uram": 6,
    }  # fmt: skip


def test_ecp5_has_prices_of_its_own():
    cells = {"LUT4": 5, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "MULT18X18D": 1}
    assert count(cells | {"DP16KD": 4, "PFUMX": 9}, DEVICES["lfe5u-85f"].family) == {
        "lut": 5 + 6 + 12, "lutram": 12, "ff": 7, "dsp": 1, "carry": 3, "bram": 4, "uram": 0,
    }  # fmt: skip


def test_every_preset_has_a_device():
    for config in PRESETS.values():
        device = device_of(config)
        assert config.device in ("generic", device.name)
        assert device.totals.keys() <= set(RESOURCES)


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match=r"don't know what these cells cost: \$_NAND_, LUT7"):
        count({"LUT7": 1, "LUT6": 1, "$_NAND_": 2})


def test_synthesises_a_block(tmp_path, capsys):
    block = f"{__name__}:MultiplyAdd"
    arguments = ["--block", block, "--macs", "1", "--preset", "tiny", "--out", str(tmp_path)]
    assert main(arguments) == 0
    (area,) = json.loads((tmp_path / "area.json").read_text())
    assert (area["block"], area["preset"], area["macs"]) == (block, "tiny", 1)
    assert area["dsp"] == area["cells"]["DSP48E2"] == 1
    assert area["lutram"] == area["bram"] == area["uram"] == 0
    assert "per MAC (of 1)" in capsys.readouterr().out


def test_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--preset", "huge"])
    assert exit_.value.code == 2
    assert "choose from: tiny" in capsys.readouterr().err


def test_table_of_nothing_has_a_head():
    assert "LUT" in table([])
