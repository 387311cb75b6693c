"""What every board offers to ``boards.build`` and ``boards.flash``."""

import dataclasses
import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl.build import elaborate
from rtl.config import Config, ConfigError
from rtl.headers import c_header, describe
from rtl.interface.register_map import Register
from rtl.systemrdl import register_header, systemrdl
from rtl.technology import DEVICE_TECHNOLOGY

from .interfaces import Marks, mark_ports

__all__ = ["Board", "Command", "MissingTool", "find_tool", "run", "write_gateware"]


class MissingTool(Exception):
    """A program that the next step needs isn't installed."""


@dataclass(frozen=True)
class Command:
    """A program to run.

    Parameters
    ----------
    tools
        Names of the program; the first that is installed is taken.
    arguments
        Its arguments.
    package
        What to install where the program is missing.
    """

    tools: tuple[str, ...]
    arguments: tuple[str, ...]
    package: str

    def __str__(self) -> str:
        return " ".join([self.tools[0], *self.arguments])


class Board(ABC):
    """A board.

    Attributes
    ----------
    name
        What ``boards.build`` and ``boards.flash`` know it by.
    preset
        Configuration that it's built with unless another is asked for.
    clock_mhz
        Clock of the accelerator, likewise.
    """

    name: str
    preset: str
    clock_mhz: float = 250.0

    @abstractmethod
    def write(self, config: Config, output: Path, clock_mhz: float) -> list[Path]:
        """Write all that the vendor's tools start from to `output`; return the files.

        Raises
        ------
        ConfigError
            The configuration doesn't fit the board.
        """

    @abstractmethod
    def build_commands(self) -> list[Command]:
        """Return what makes the image from the files of `write`, to be run where they are."""

    @abstractmethod
    def flash_command(self, image: Path, device: str | None) -> Command:
        """Return what loads `image` onto the card that `device` names, or the only one."""

    def report(self, output: Path) -> str | None:
        """Return what the tools found out about the image in `output`, if they say."""
        return None

    @property
    @abstractmethod
    def image(self) -> str:
        """Name of the file that a card is loaded with."""

    def _refuse(self, config: Config, field: str, valid: str) -> None:
        raise ConfigError(
            f"board {self.name}: {field} of configuration '{config.name}' is "
            f"{getattr(config, field)!r}, must be {valid}"
        )


def find_tool(command: Command) -> str:
    """Return the path of the program that `command` runs.

    Raises
    ------
    MissingTool
        It isn't installed; the message says what to install.
    """
    for tool in command.tools:
        # Tools that are Python packages are beside this Python.
        path = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
        if path:
            return path
    raise MissingTool(f"'{command.tools[0]}' not found; it comes with {command.package}")


def run(command: Command, directory: Path) -> int:
    """Run `command` in `directory` and return its exit status; `MissingTool` as `find_tool`."""
    path = find_tool(command)
    return subprocess.run([path, *command.arguments], cwd=directory, check=False).returncode


def write_gateware(
    component: Any,
    name: str,
    config: Config,
    output: Path,
    marks: Marks,
    registers: Collection[Register] = (),
) -> list[Path]:
    """Write a board's Verilog to ``rtl`` in `output`, register map and C headers beside it.

    Returns the Verilog files, that of the top level first.

    Parameters
    ----------
    component, name
        The top level, and the name of its module.
    config
        Configuration of the accelerator.
    output
        Directory, made if it isn't there.
    marks
        Attributes of the top level's ports.
    registers
        Registers that the board has besides those of every accelerator.
    """
    technology = DEVICE_TECHNOLOGY[config.device]
    card = describe(config) | {"technology": technology.value}
    card["registers"] += [
        dataclasses.asdict(register) | {"access": register.access.value} for register in registers
    ]
    rtl = output / "rtl"
    shutil.rmtree(rtl, ignore_errors=True)
    rtl.mkdir(parents=True)
    (output / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    (output / f"{name}.h").write_text(c_header(config))
    (output / f"{name}.rdl").write_text(systemrdl(config, registers))
    (output / "sat_registers.h").write_text(register_header(config, registers))
    texts = elaborate(component, name, technology)
    texts[f"{name}.v"] = mark_ports(texts[f"{name}.v"], marks)
    for file, text in texts.items():
        (rtl / file).write_text(text)
    return [rtl / file for file in texts]
