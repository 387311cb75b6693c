"""Xilinx VCU1525: PCIe Gen3 x16 by XDMA, four DDR4 DIMMs of 16 GiB, a Vivado project."""

import os
from pathlib import Path

from rtl.config import Config
from rtl.interface.axi import LITE_ADDRESS_BITS
from rtl.interface.register_map import memory_base_registers

from .board import Board, Command, write_gateware
from .floorplan import Dies, floorplan
from .tcl import copy_scripts, settings
from .xdma_top import XdmaTop, masters

__all__ = ["VCU1525"]

PART = "xcvu9p-fsgd2104-2L-e"
TOP = "sat_xdma"

DIMM_BYTES = 16 << 30
"""Each of the board's DIMMs (MTA18ASF2G72PZ-2G3B1); also the distance of their windows."""

DIES = Dies(luts=(374_000, 274_000, 374_000), home=1)
"""A die of the VU9P has 394,000 LUTs. The DMA engine, which the board has on the middle die, the
memory controllers and interconnects take their share by estimate: nothing of it was placed here."""

CONSTRAINTS = r"""# Configuration memory: quad SPI.
set_property CFGBVS GND [current_design]
set_property CONFIG_VOLTAGE 1.8 [current_design]
set_property BITSTREAM.GENERAL.COMPRESS true [current_design]
set_property BITSTREAM.CONFIG.EXTMASTERCCLK_EN DIV-1 [current_design]
set_property BITSTREAM.CONFIG.SPI_32BIT_ADDR YES [current_design]
set_property BITSTREAM.CONFIG.SPI_BUSWIDTH 4 [current_design]
set_property BITSTREAM.CONFIG.SPI_FALL_EDGE YES [current_design]

# The interrupt passes a synchroniser, whatever the phase of its clocks.
set_false_path -to [get_cells -hierarchical -filter {NAME =~ */interrupt_sync_reg\[0\]}]
"""


class VCU1525(Board):
    """The board; memory beyond what the configuration uses is left alone."""

    name = "vcu1525"
    preset = "vcu1525"
    image = "sat.bit"

    def write(self, config: Config, output: Path, clock_mhz: float) -> list[Path]:
        if config.device not in ("generic", "xcvu9p"):
            self._refuse(config, "device", "generic or xcvu9p")
        if config.memory_bytes > config.channels * DIMM_BYTES:
            self._refuse(config, "memory_bytes", f"at most {DIMM_BYTES} for each channel")
        top = XdmaTop(config, DIMM_BYTES)
        bases = memory_base_registers(config.channels, top.windows)
        sources = write_gateware(top, TOP, config, output, top.marks, bases.values())
        texts = {
            "settings.tcl": settings(
                {
                    "sat_part": PART,
                    "sat_top": TOP,
                    "sat_sources": [str(source.relative_to(output)) for source in sources],
                    "sat_channels": config.channels,
                    "sat_masters": masters(config),
                    "sat_window_bytes": DIMM_BYTES,
                    "sat_register_bytes": 1 << LITE_ADDRESS_BITS,
                    "sat_clock_mhz": clock_mhz,
                    "sat_jobs": os.cpu_count() or 1,
                }
            ),
            "constraints.xdc": CONSTRAINTS,
            "floorplan.xdc": floorplan(config, DIES),
        }
        for name, text in texts.items():
            (output / name).write_text(text)
        scripts = ("vcu1525_project.tcl", "vcu1525_block_design.tcl", "vcu1525_program.tcl")
        return [*sources, *(output / name for name in texts), *copy_scripts(scripts, output)]

    def build_commands(self) -> list[Command]:
        return [_vivado("vcu1525_project.tcl")]

    def flash_command(self, image: Path, device: str | None) -> Command:
        arguments = [str(image.resolve()), *([] if device is None else [device])]
        script = image.resolve().parent / "vcu1525_program.tcl"
        return _vivado(str(script), "-tclargs", *arguments)


def _vivado(script: str, *arguments: str) -> Command:
    return Command(
        ("vivado",), ("-mode", "batch", "-nojournal", "-source", script, *arguments), "Vivado"
    )
