"""Puts settings for nextpnr into the netlist that it reads: it has more of them than options.

``python -m boards.nextpnr_settings sat.json router2/bbMargin/x=16`` changes the file.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"'{text}' must be NAME=VALUE")
    # Zeros and ones alone would be bits; Yosys' way to write a string of them is a space behind.
    return name, f"{value} " if set(value) <= set("01xz") else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m boards.nextpnr_settings", description=__doc__)
    parser.add_argument("netlist", type=Path, help="JSON that Yosys wrote")
    parser.add_argument("settings", nargs="+", type=_setting, metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    try:
        design = json.loads(options.netlist.read_text())
        tops = [module for module in design["modules"].values() if "top" in module["attributes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"'{options.netlist}' isn't a netlist of Yosys: {error!r}")
    if len(tops) != 1:
        parser.error(f"'{options.netlist}' has {len(tops)} top modules, must have 1")
    tops[0].setdefault("settings", {}).update(options.settings)
    options.netlist.write_text(json.dumps(design))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
