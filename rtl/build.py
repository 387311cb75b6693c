"""From a configuration to Verilog, register map and C header.

``python -m rtl.build --preset sim --out build/rtl/sim`` writes ``sat.v`` with the top level, a file
for each repeated block, and ``sat_sim.json`` and ``sat_sim.h`` for software.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .block import to_verilog
from .config import PRESETS, Config, ConfigError, preset
from .headers import c_header, describe

__all__ = ["elaborate", "main"]

TOP = "sat"
"""Name of the top-level module."""


class _Files:
    """Collects the Verilog of the blocks that a design places."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def add_file(self, filename: str, content: str) -> None:
        if self.files.setdefault(filename, content) != content:
            raise ValueError(f"two different modules are called '{filename}'")


def elaborate(component: Any, name: str) -> dict[str, str]:
    """Return the Verilog of `component` by file name, its top module `name` first.

    Every `Block` that the component places is a file of its own. Ports are called as their path in
    the signature, joined by two underscores (``command__payload``); a port with a layout is one
    packed vector. ``clk`` and ``rst`` belong to the domain ``sync``.

    Raises
    ------
    ValueError
        Two different blocks have one name, or another clock domain than ``sync`` is used.
    """
    platform = _Files()
    text, _ = to_verilog(component, name, platform)
    platform.add_file(f"{name}.v", text)
    return {f"{name}.v": text} | platform.files


def write(config: Config, directory: Path) -> list[Path]:
    """Write the card's Verilog, register map and C header to `directory`; returns the files."""
    from .top import Top  # here, as the gateware is needed for nothing else in this file

    texts = elaborate(Top(config), TOP) | {
        f"{TOP}_{config.name}.json": json.dumps(describe(config), indent=2) + "\n",
        f"{TOP}_{config.name}.h": c_header(config),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text)
    return [directory / name for name in texts]


def configure(name: str, settings: Sequence[str]) -> Config:
    """Return the preset `name`, changed by `settings` (``field=value`` each).

    Raises
    ------
    ConfigError
        Something doesn't exist or is impossible; the message says what would be valid.
    """
    config = preset(name)
    fields = [field.name for field in dataclasses.fields(Config)]
    values: dict[str, Any] = {}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in fields:
            raise ConfigError(
                f"--set takes field=value, got '{setting}'; fields are: {', '.join(fields)}"
            )
        if field == "name":
            if not re.fullmatch(r"[a-z][a-z0-9-]*", value):
                raise ConfigError(f"name is '{value}', must be lower-case letters, digits and '-'")
            values[field] = value
        else:
            try:
                values[field] = int(value, 0)
            except ValueError:
                raise ConfigError(f"{field} is '{value}', must be an integer") from None
    return dataclasses.replace(config, **values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m rtl.build", description=__doc__)
    parser.add_argument("--preset", default="sim", help="configuration (%(default)s)")
    parser.add_argument("--out", type=Path, help="directory (build/rtl/<preset>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings",
        help="change a parameter of the preset; may be given several times",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the presets and exit")
    options = parser.parse_args(arguments)
    if options.list:
        for config in PRESETS.values():
            print(
                f"{config.name:<12}{config.rows} x {config.cols} PEs of {config.lanes} lanes, "
                f"{config.macs} MACs, {config.beat_bits}-bit AXI, hash {config.hash:08x}"
            )
        return 0
    try:
        config = configure(options.preset, options.settings)
    except ConfigError as error:
        parser.error(str(error))
    directory = options.out or Path("build") / "rtl" / config.name
    try:
        files = write(config, directory)
    except OSError as error:
        parser.error(f"cannot write to '{directory}': {error.strerror}")
    for file in files:
        print(f"{file.stat().st_size:>12,} bytes  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
