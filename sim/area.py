"""What gateware costs on an FPGA, as Yosys counts it.

``python -m sim.area`` synthesises the processing element, or any component that is made from a
configuration alone, and prints what it takes, in all and for each MAC. Yosys doesn't combine two
small functions in one LUT6, as Vivado does, so that its counts are an upper bound.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtl.build import elaborate
from rtl.config import Config, ConfigError, preset
from rtl.technology import DEVICE_TECHNOLOGY

from .synthesis import parts, synthesise

__all__ = ["DEVICES", "RESOURCES", "Area", "Device", "Family", "count", "device_of", "main"]

PROCESSING_ELEMENT = "rtl.engine.pe:ProcessingElement"

RESOURCES = ("lut", "lutram", "ff", "dsp", "bram", "uram", "carry")
"""What is counted. ``lut`` is all LUTs, ``lutram`` those of them that are memory or shift register.
The unit of ``bram`` is a 36 Kb block on UltraScale+, an 18 Kb block on ECP5."""


@dataclass(frozen=True)
class Family:
    """An FPGA family.

    Parameters
    ----------
    name
        What Yosys calls it.
    command
        Synthesis as part of a larger design: hierarchy dissolved, no pads or clock buffers.
    costs
        For each cell, what it takes.
    """

    name: str
    command: str
    costs: Mapping[str, Mapping[str, float]]


def _memory(luts: int) -> dict[str, float]:
    return {"lut": luts, "lutram": luts}


def _each(cells: Iterable[str], **resources: float) -> dict[str, Mapping[str, float]]:
    return dict.fromkeys(cells, resources)


ULTRASCALE_PLUS = Family(
    "xcup",
    "synth_xilinx -family xcup -top {top} -flatten -noiopad -noclkbuf -nosrl",
    {
        # Vivado absorbs most inverters.
        **_each(("INV", *(f"LUT{inputs}" for inputs in range(1, 7))), lut=1),
        # LUTs that a memory takes: UG574, distributed RAM configurations.
        **{
            cell: _memory(luts)
            for cell, luts in {
                "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8,
                "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
                "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8,
                "RAM64X8SW": 8, "SRL16": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
            }.items()
        },
        **_each(("FDCE", "FDPE", "FDRE", "FDSE"), ff=1),
        **_each(("CARRY4", "CARRY8"), carry=1),
        "DSP48E2": {"dsp": 1}, "RAMB18E2": {"bram": 0.5}, "RAMB36E2": {"bram": 1},
        "URAM288": {"uram": 1},
        **_each(("$scopeinfo", "BUFG", "GND", "VCC", "MUXF7", "MUXF8", "MUXF9")),
    },
)  # fmt: skip

ECP5 = Family(
    "ecp5",
    "synth_ecp5 -top {top}",
    {
        "LUT4": {"lut": 1},
        "TRELLIS_FF": {"ff": 1},
        # Two LUT4s with the carry chain between them.
        "CCU2C": {"lut": 2, "carry": 1},
        # Three slices of two LUT4s: FPGA-DS-02012, distributed RAM.
        "TRELLIS_DPR16X4": _memory(6),
        "MULT18X18D": {"dsp": 1}, "DP16KD": {"bram": 1}, "PDPW16KD": {"bram": 1},
        **_each(("$scopeinfo", "PFUMX", "L6MUX21", "GND", "VCC", "GSR")),
    },
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """An FPGA.

    Parameters
    ----------
    name
        Short name, which `rtl.config.Config.device` uses.
    title
        For tables.
    family
        How it's synthesised.
    totals
        What it has of each resource.
    """

    name: str
    title: str
    family: Family
    totals: Mapping[str, int]


DEVICES = {
    device.name: device
    for device in (
        # UltraScale+ product selection guide (XMP103): CLB LUTs, distributed RAM (36.1 and
        # 48.3 Mb, 64 bits a LUT), flip-flops, DSP slices, block RAM of 36 Kb, UltraRAM.
        Device(
            "xcvu9p", "Virtex UltraScale+ VU9P", ULTRASCALE_PLUS,
            {"lut": 1_182_240, "lutram": 591_840, "ff": 2_364_480, "dsp": 6_840, "bram": 2_160,
             "uram": 960},
        ),
        Device(
            "xcu250", "Alveo U250 (VU13P)", ULTRASCALE_PLUS,
            {"lut": 1_728_000, "lutram": 791_040, "ff": 3_456_000, "dsp": 12_288, "bram": 2_688,
             "uram": 1_280},
        ),
        # ECP5 family data sheet (FPGA-DS-02012): LUT4s, 669 Kb of distributed RAM, 18 x 18
        # multipliers, blocks of 18 Kb; a flip-flop to each LUT4.
        Device(
            "lfe5u-85f", "ECP5 LFE5U-85F", ECP5,
            {"lut": 83_640, "lutram": 62_730, "ff": 83_640, "dsp": 156, "bram": 208},
        ),
    )
}  # fmt: skip
"""Those that presets are made for; `device_of` tells which of them a configuration is for."""


def device_of(config: Config) -> Device:
    """Return the device that `config` is for; a VU9P if it's for none in particular."""
    return DEVICES["xcvu9p" if config.device == "generic" else config.device]


def count(cells: Mapping[str, float], family: Family = ULTRASCALE_PLUS) -> dict[str, Any]:
    """Sum up the cells of a netlist by resource.

    Raises
    ------
    ValueError
        A cell isn't in the family's table.
    """
    unknown = sorted(cells.keys() - family.costs.keys())
    if unknown:
        raise ValueError(f"don't know what these cells cost: {', '.join(unknown)}")
    return {
        resource: sum(
            number * family.costs[cell].get(resource, 0) for cell, number in cells.items()
        )
        for resource in RESOURCES
    }


@dataclass(frozen=True)
class Area:
    """Resources of one component."""

    block: str
    preset: str
    config_hash: str
    macs: int
    lut: int
    """LUTs in all, `lutram` among them."""
    lutram: int
    ff: int
    dsp: int
    bram: float
    uram: int
    carry: int
    seconds: float
    cells: dict[str, int]


def measure(block: str, config: Config, macs: int | None, family: Family) -> Area:
    """Synthesise the component class `block` (``module:Class``) made for `config`, flat."""
    module, _, name = block.partition(":")
    component = getattr(importlib.import_module(module), name)(config)
    started = time.monotonic()
    files = elaborate(component, name.lower(), DEVICE_TECHNOLOGY[config.device])
    (part,) = parts(files, name.lower(), flat=True)
    cells = synthesise(part, family.command).cells
    if macs is None:
        macs = config.lanes if block == PROCESSING_ELEMENT else 0
    return Area(
        block=block, preset=config.name, config_hash=f"{config.hash:08x}", macs=macs,
        seconds=round(time.monotonic() - started, 1), cells=cells, **count(cells, family),
    )  # fmt: skip


def table(areas: Sequence[Area]) -> str:
    """Return `areas` as text: a line for each block and, where it has MACs, one for each MAC."""
    columns = ("lut", "lutram", "ff", "dsp", "carry", "bram", "uram")
    heads = ("LUT", "of it RAM", "FF", "DSP", "carry", "BRAM", "URAM")
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
        measure(block, config, options.macs, device_of(config).family)
        for config in configs
        for block in options.block
    ]
    print(table(areas))
    result = options.out / "area.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps([asdict(area) for area in areas], indent=2) + "\n")
    print(f"written to {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
