"""Draws where the units of a placed design lie on the FPGA.

``python -m boards.layout placed.json --out layout.png`` reads what nextpnr writes (``--write``).
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Layout", "draw", "main", "read_layout"]

_CORE = r"system\.accelerator\.core\."
_UNITS = (
    ("column 0 of the array", rf"{_CORE}engine\.array\.\w+_column_0\.", "#1d3f72"),
    ("column 1 of the array", rf"{_CORE}engine\.array\.\w+_column_1\.", "#3a86c8"),
    ("S banks and decoder", rf"{_CORE}engine\.array\.", "#7cc6d6"),
    ("other parts of the engine", rf"{_CORE}engine\.", "#4f6d7a"),
    ("load unit", rf"{_CORE}load", "#2b7a3d"),
    ("store unit", rf"{_CORE}(store|write_arbiter)", "#9bc53d"),
    ("vector unit", rf"{_CORE}vector", "#e09f3e"),
    ("update unit", rf"{_CORE}update", "#c8553d"),
    ("command processor", rf"{_CORE}processor", "#8e5ea2"),
    ("card memory", r"system\.memory", "#c9c9c9"),
    ("registers, line, clocks", "", "#6b6b6b"),
)
"""Name, what the names of its cells begin with, and colour; the first that fits is a cell's own."""

_CELLS_PER_TILE = 16
"""LUTs and flip-flops."""

_EXTENTS = {
    "DP16KD": (2, _CELLS_PER_TILE),
    "MULT18X18D": (1, _CELLS_PER_TILE),
    "TRELLIS_COMB": (1, 1),
    "TRELLIS_FF": (1, 1),
    "TRELLIS_RAMW": (1, 1),
}
"""Tiles beside each other that a cell of this kind takes, of those drawn, and how much of each."""

_ROWS = {10: "DSP", 34: "DSP", 58: "DSP", 22: "RAM", 46: "RAM", 70: "RAM", 82: "RAM"}
"""Of multipliers and block RAM, on an LFE5U-85F."""

Layout = dict[tuple[int, int], Counter[str]]
"""For each tile how much of it each unit has, in cells."""


def read_layout(netlist: Path) -> Layout:
    """Return which unit has how much of each tile.

    Parameters
    ----------
    netlist
        JSON of a placed design, whose cells have an attribute ``NEXTPNR_BEL``.

    Raises
    ------
    ValueError
        The file is no netlist, or nothing in it has a place.
    """
    try:
        modules = json.loads(netlist.read_text())["modules"].values()
        cells = [item for module in modules for item in module["cells"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{netlist}' isn't a netlist: {error!r}") from None
    layout: Layout = defaultdict(Counter)
    for name, cell in cells:
        place = re.match(r"X(\d+)/Y(\d+)/", cell["attributes"].get("NEXTPNR_BEL", ""))
        extent = _EXTENTS.get(cell["type"])
        if place and extent:
            unit = next(unit for unit, start, _ in _UNITS if re.match(start, name))
            (x, y), (width, share) = map(int, place.groups()), extent
            for column in range(x, x + width):
                layout[column, y][unit] += share
    if not layout:
        raise ValueError(f"no cell of '{netlist}' has a place: was it written behind placement?")
    return layout


def draw(layout: Layout, picture: Path, title: str) -> None:
    """Draw each tile in the colour of the unit that has most of it, the paler the emptier it is.

    Parameters
    ----------
    layout
        Of `read_layout`.
    picture
        File to write, PNG or SVG by its name.
    title
        What stands above.
    """
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = {unit: np.array(to_rgb(colour)) for unit, _, colour in _UNITS}
    shape = (max(y for _, y in layout) + 2, max(x for x, _ in layout) + 2)
    image = np.ones((*shape, 3))
    for (x, y), units in layout.items():
        unit, _ = units.most_common(1)[0]
        fill = 0.3 + 0.7 * min(1, units.total() / _CELLS_PER_TILE)
        image[y, x] = 1 - fill * (1 - colours[unit])
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image, interpolation="nearest")
    rows = [(y, kind) for y, kind in sorted(_ROWS.items()) if y < shape[0]]
    axes.set_yticks([y for y, _ in rows], [f"{kind}  {y}" for y, kind in rows])
    axes.set_xlabel("column of tiles")
    axes.set_title(title)
    present = {unit for units in layout.values() for unit in units}
    axes.legend(
        handles=[Patch(color=colour, label=unit) for unit, _, colour in _UNITS if unit in present],
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
    )  # fmt: skip
    figure.savefig(picture, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m boards.layout", description=__doc__)
    parser.add_argument("netlist", type=Path, help="JSON that nextpnr wrote")
    parser.add_argument("--out", type=Path, default=Path("layout.png"), help="picture (layout.png)")
    parser.add_argument("--title", default="Units of the accelerator", help="what stands above it")
    options = parser.parse_args(arguments)
    try:
        draw(read_layout(options.netlist), options.out, options.title)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
