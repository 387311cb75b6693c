"""What a block costs on an UltraScale+ FPGA, as Yosys counts it.

``python -m sim.area`` synthesises the processing element and prints LUT, flip-flops and DSP, in all
and for each MAC. Yosys doesn't combine two small functions in one LUT6, as Vivado does, so that its
counts are an upper bound.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtl.block import find_yosys
from rtl.build import elaborate
from rtl.config import Config, ConfigError, preset

__all__ = ["Area", "count", "main", "synthesise"]

PROCESSING_ELEMENT = "rtl.engine.pe:ProcessingElement"

LUTS = {"INV": 1, **{f"LUT{inputs}": 1 for inputs in range(1, 7)}}
"""LUTs that a logic cell takes. Vivado absorbs most inverters."""

LUTRAMS = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8,
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8,
    "SRL16": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
}  # fmt: skip
"""LUTs that a memory or a shift register in LUTs takes (UG574, distributed RAM configurations)."""

FLIP_FLOPS = ("FDCE", "FDPE", "FDRE", "FDSE")
CARRIES = ("CARRY4", "CARRY8")
BLOCK_RAMS = {"RAMB18E2": 0.5, "RAMB36E2": 1.0}
FREE = ("$scopeinfo", "BUFG", "GND", "MUXF7", "MUXF8", "MUXF9", "VCC")
"""Cells that take nothing, or nothing beside the LUTs they belong to."""


@dataclass(frozen=True)
class Area:
    """Resources of one block."""

    block: str
    preset: str
    config_hash: str
    macs: int
    lut: int
    """LUTs in all, `lutram` among them."""
    lutram: int
    flip_flops: int
    dsp: int
    carry: int
    bram: float
    uram: int
    seconds: float
    cells: dict[str, int]


def count(cells: dict[str, int]) -> dict[str, Any]:
    """Sum up the cells of a netlist by resource.

    Raises
    ------
    ValueError
        A cell isn't in the tables.
    """
    unknown = set(cells).difference(
        LUTS, LUTRAMS, FLIP_FLOPS, CARRIES, BLOCK_RAMS, FREE, ("DSP48E2", "URAM288")
    )
    if unknown:
        raise ValueError(f"don't know what these cells cost: {', '.join(sorted(unknown))}")
    lutram = sum(cells.get(cell, 0) * luts for cell, luts in LUTRAMS.items())
    return {
        "lut": lutram + sum(cells.get(cell, 0) * luts for cell, luts in LUTS.items()),
        "lutram": lutram,
        "flip_flops": sum(cells.get(cell, 0) for cell in FLIP_FLOPS),
        "dsp": cells.get("DSP48E2", 0),
        "carry": sum(cells.get(cell, 0) for cell in CARRIES),
        "bram": sum(cells.get(cell, 0) * blocks for cell, blocks in BLOCK_RAMS.items()),
        "uram": cells.get("URAM288", 0),
    }


def synthesise(component: Any, name: str, directory: Path) -> dict[str, int]:
    """Synthesise `component` for UltraScale+ in `directory`; return its number of each cell."""
    directory.mkdir(parents=True, exist_ok=True)
    files = elaborate(component, name)
    for file, text in files.items():
        (directory / file).write_text(text)
    script = [
        *(f"read_verilog {file}" for file in files),
        # As part of a larger design: hierarchy dissolved, no pads or clock buffers.
        f"synth_xilinx -family xcup -top {name} -flatten -noiopad -noclkbuf",
        "tee -q -o stat.json stat -json",
    ]
    log = directory / "yosys.log"
    result = subprocess.run(
        [find_yosys(), "-q", "-l", log.name, "-p", "; ".join(script)],
        cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"synthesis of '{name}' failed, log {log}:\n{result.stdout[-2000:]}")
    stat = json.loads((directory / "stat.json").read_text())
    return dict(sorted(stat["design"]["num_cells_by_type"].items()))


def measure(block: str, config: Config, macs: int | None, directory: Path) -> Area:
    """Synthesise the component class `block` (``module:Class``) made for `config`."""
    module, _, name = block.partition(":")
    component = getattr(importlib.import_module(module), name)(config)
    started = time.monotonic()
    cells = synthesise(component, name.lower(), directory / f"{name.lower()}-{config.name}")
    if macs is None:
        macs = config.lanes if block == PROCESSING_ELEMENT else 0
    return Area(
        block=block, preset=config.name, config_hash=f"{config.hash:08x}", macs=macs,
        seconds=round(time.monotonic() - started, 1), cells=cells, **count(cells),
    )  # fmt: skip


def table(areas: Sequence[Area]) -> str:
    """Return `areas` as text: a line for each block and, where it has MACs, one for each MAC."""
    columns = ("lut", "lutram", "flip_flops", "dsp", "carry", "bram", "uram")
    heads = ("LUT", "of it RAM", "FF", "DSP", "carry", "BRAM36", "URAM")
    lines = ["".join([f"{'block':<34}", *(f"{head:>11}" for head in heads)])]
    for area in areas:
        numbers = [getattr(area, column) for column in columns]
        name = area.block.partition(":")[2]
        lines.append("".join([f"{f'{name}, {area.preset}':<34}", *(f"{n:>11g}" for n in numbers)]))
        if area.macs:
            label = f"  per MAC (of {area.macs})"
            lines.append("".join([f"{label:<34}", *(f"{n / area.macs:>11.1f}" for n in numbers)]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sim.area", description=__doc__)
    parser.add_argument("--preset", nargs="+", default=["sim"], help="configurations (%(default)s)")
    parser.add_argument(
        "--block", nargs="+", default=[PROCESSING_ELEMENT], metavar="MODULE:CLASS",
        help="component classes, made with the configuration alone (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--macs", type=int, help="MACs in a block (the lanes of a PE)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    try:
        configs = [preset(name) for name in options.preset]
    except ConfigError as error:
        parser.error(str(error))
    areas = [
        measure(block, config, options.macs, options.out)
        for config in configs
        for block in options.block
    ]
    print(table(areas))
    result = options.out / "area.json"
    result.write_text(json.dumps([asdict(area) for area in areas], indent=2) + "\n")
    print(f"written to {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
