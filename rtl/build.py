"""From a configuration to Verilog, register map and C headers.

``python -m rtl.build --preset sim --out build/rtl/sim`` writes ``sat.v`` with the top level, a file
for each repeated block, and for software ``sat_sim.json``, ``sat_sim.h``, the register map in
SystemRDL, ``sat.rdl``, and its header ``sat_registers.h``.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .block import to_rtlil, to_verilog
from .config import PRESETS, Config, ConfigError, preset
from .headers import c_header, describe
from .systemrdl import register_header, systemrdl, write_register_pages
from .technology import DEVICE_TECHNOLOGY, Technology

__all__ = ["elaborate", "main"]

TOP = "sat"
"""Name of the top-level module."""


class _Modules:
    """Collects the blocks that a design places."""

    def __init__(self, technology: Technology) -> None:
        self.technology = technology
        self.texts: dict[str, str] = {}

    def add_module(self, name: str, rtlil_text: str) -> None:
        if self.texts.setdefault(name, rtlil_text) != rtlil_text:
            raise ValueError(f"two different modules are called '{name}'")


def elaborate(
    component: Any, name: str, technology: Technology = Technology.GENERIC
) -> dict[str, str]:
    """Return the Verilog of `component` by file name, its top module `name` first.

    Every `Block` that the component places is a file of its own. Ports are called as their path in
    the signature, joined by two underscores (``command__payload``); a port with a layout is one
    packed vector. ``clk`` and ``rst`` belong to the domain ``sync``.

    Parameters
    ----------
    component
        The design.
    name
        Name of its top module.
    technology
        Family of FPGAs whose primitives the design may use.

    Raises
    ------
    ValueError
        Two different blocks have one name, or another clock domain than ``sync`` is used.
    RuntimeError
        Yosys, which writes the Verilog, can't be started or fails.
    """
    platform = _Modules(technology)
    with _collector_paused():
        text, _ = to_rtlil(component, name, platform)
        platform.add_module(name, text)
    return {
        f"{module}.v": verilog
        for module, verilog in to_verilog({name: text} | platform.texts).items()
    }


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's search for unused cycles, which takes half the time of a large netlist."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def write(config: Config, directory: Path, technology: Technology) -> list[Path]:
    """Write the card's Verilog, register map and C headers to `directory`; returns the files."""
    from .top import Top  # here, as the gateware is needed for nothing else in this file

    card = describe(config) | {"technology": technology.value}
    texts = elaborate(Top(config), TOP, technology) | {
        f"{TOP}_{config.name}.json": json.dumps(card, indent=2) + "\n",
        f"{TOP}_{config.name}.h": c_header(config),
        f"{TOP}.rdl": systemrdl(config),
        f"{TOP}_registers.h": register_header(config),
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
        if field == "device":
            values[field] = value
        elif field == "name":
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
    parser.add_argument(
        "--technology", choices=[technology.value for technology in Technology],
        help="FPGA family whose primitives are used (that of the configuration's device)",
    )  # fmt: skip
    parser.add_argument(
        "--pages", action="store_true", help="also document the registers: registers/index.html"
    )
    parser.add_argument("--list", action="store_true", help="list the presets and exit")
    options = parser.parse_args(arguments)
    if options.list:
        for config in PRESETS.values():
            print(
                f"{config.name:<12}{config.rows} x {config.cols} PEs of {config.lanes} lanes, "
                f"{config.macs} MACs, {config.channels} x {config.beat_bits}-bit AXI, "
                f"{config.device}, hash {config.hash:08x}"
            )
        return 0
    try:
        config = configure(options.preset, options.settings)
    except ConfigError as error:
        parser.error(str(error))
    technology = Technology(options.technology or DEVICE_TECHNOLOGY[config.device])
    directory = options.out or Path("build") / "rtl" / config.name
    try:
        files = write(config, directory, technology)
        if options.pages:
            write_register_pages(config, directory / "registers")
            files.append(directory / "registers" / "index.html")
    except OSError as error:
        parser.error(f"cannot write to '{directory}': {error.strerror}")
    print(f"{config.name} for {config.device}, {technology.value} technology")
    for file in files:
        print(f"{file.stat().st_size:>12,} bytes  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
