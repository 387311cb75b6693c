"""Where the parts of a large accelerator go on an FPGA of several dies (SLRs).

Operands pass through the array's columns in a chain, register to register, which is what crosses
from one SLR to the next well. So the columns follow each other through the SLRs, the S banks stand
with the first of them, and all else stays where the board's interfaces are, next to both ends.
The assignments are hints to the placer, ``USER_SLR_ASSIGNMENT`` (UG912), not bounds.
"""

from dataclasses import dataclass

from rtl.block import block_name
from rtl.config import Config

__all__ = ["Dies", "column_slrs", "floorplan"]

MAC_LUTS = {8: 165, 16: 200}
"""LUTs of a processing element for each of its multipliers, by M (docs/bench/engine.txt)."""

CORE_LUTS_PER_ELEMENT = 4000
"""LUTs of everything but the array, for each element of a D word (docs/bench/engine.txt)."""

WHOLE = 0.6
"""Share of an SLR that an accelerator may take to be left whole."""

CORE = "accelerator/inner/core"
"""Where the units are in the hierarchy, whatever is around the accelerator's top level."""

HOME_UNITS = (
    "processor", "load", "stream", "store", "update", "vector", "store_dma", "vector_dma",
    "write_arbiter",
)  # fmt: skip
"""Units of the core that stay in the SLR of the board's interfaces, as far as they are placed."""


@dataclass(frozen=True)
class Dies:
    """The dies of an FPGA, for a floorplan.

    Parameters
    ----------
    luts
        LUTs that each SLR offers to the accelerator.
    home
        SLR of all of the accelerator that isn't its array.
    """

    luts: tuple[int, ...]
    home: int


def column_slrs(config: Config, dies: Dies) -> list[int]:
    """Return the SLR of each column of the array.

    An accelerator that takes no more than `WHOLE` of one SLR stays in it. Otherwise columns fill
    neighbouring SLRs in the order of the chain, at or beside that of the other units, all of them
    to the same share: the lowest, from a half on, at which every column has a place.
    """
    column = config.rows * config.lanes * MAC_LUTS[config.group]
    core = config.elements * CORE_LUTS_PER_ELEMENT
    if config.cols * column + core <= WHOLE * dies.luts[dies.home]:
        return [dies.home] * config.cols
    count = len(dies.luts)
    ranges = [
        range(first, first + length)
        for length in range(1, count + 1)
        for first in range(count - length + 1)
        if first - 1 <= dies.home <= first + length
    ]
    for percent in range(50, 101):
        rooms = [
            (luts * percent // 100 - core * (slr == dies.home)) // column
            for slr, luts in enumerate(dies.luts)
        ]
        for slrs in ranges:
            room = [rooms[slr] for slr in slrs]
            if min(room) > 0 and sum(room) >= config.cols:
                chain = [slr for slr in slrs for _ in range(rooms[slr])]
                return chain[: config.cols]
    # It fits nowhere by these estimates: equal shares, and the placer decides.
    return [number * count // config.cols for number in range(config.cols)]


def floorplan(config: Config, dies: Dies) -> str:
    """Return the constraints, as XDC files and Tcl scripts that the placer runs take them."""
    slrs = column_slrs(config, dies)
    column, s_bank = block_name(config, "column"), block_name(config, "s_bank")
    units = [unit for unit in HOME_UNITS if unit != "stream" or config.stream_queue]
    assignments = [
        *((f"{CORE}/{unit}", dies.home) for unit in units),
        *((f"{CORE}/engine/array/{s_bank}_{row}", slrs[0]) for row in range(config.rows)),
        *((f"{CORE}/engine/array/{column}_{number}", slr) for number, slr in enumerate(slrs)),
    ]
    return "\n".join(
        [
            "# Hints to the placer: the columns of the array follow each other through the SLRs.",
            *(
                f"set_property USER_SLR_ASSIGNMENT SLR{slr} "
                f"[get_cells -hierarchical -filter {{NAME =~ */{cell}}}]"
                for cell, slr in assignments
            ),
            "",
        ]
    )
