"""Cards: what carries out the programs, from a software model to a board."""

from __future__ import annotations

from pathlib import Path

from rtl.config import PRESETS

from ..errors import CardError
from .base import Card

__all__ = ["BOARDS", "KINDS", "MODELS", "Card", "open_card"]

MODELS = {
    "golden": "software model, bit for bit, without a clock",
    "verilated": "the gateware itself, simulated by Verilator",
    "bridged": "the same with its serial bridge and a line, simulated bit by bit",
    "cycles": "model of the gateware's time, to the cycle, which computes nothing",
    "c": "the simulated gateware, through the C driver",
}
"""Kinds of card in software, each with a line about it. Named ``KIND:PRESET``."""

BOARDS = {
    "xdma": ("xdma:NUMBER", "board behind PCIe with AMD's XDMA driver, /dev/xdmaNUMBER_*"),
    "xrt": ("xrt:NUMBER:FILE.xclbin", "board behind PCIe with AMD's XRT"),
    "serial": ("serial:PORT[@RATE]", "board behind a serial port, such as /dev/ttyUSB0"),
}
"""Kinds of board: how they are named, and a line about each."""

KINDS = MODELS | {kind: about for kind, (_, about) in BOARDS.items()}
"""Kinds of card, each with a line about it."""


def open_card(name: str, *, trace: Path | None = None, description: Path | None = None) -> Card:
    """Open the card called `name`.

    Parameters
    ----------
    name
        Model and preset, such as ``verilated:sim``, or a board: ``xdma:0``,
        ``xrt:0:build/sat.xclbin``, ``serial:/dev/ttyUSB0`` or ``serial:/dev/ttyUSB0@1000000``.
    trace
        File for a waveform (FST), recorded until `Card.stop_trace`; only simulated gateware can.
    description
        The JSON file that ``rtl.build`` wrote with a board's gateware, if its configuration is no
        preset.

    Raises
    ------
    CardError
        There is no such card, or it can't be opened; the message lists those that exist.
    """
    kind, _, place = name.partition(":")
    if kind in BOARDS and place:
        if trace is not None:
            raise CardError(f"card '{name}' has no signals to trace; choose a verilated card")
        return _open_board(name, kind, place, description)
    if kind not in MODELS or place not in PRESETS:
        raise CardError(
            f"no card '{name}'; a name is KIND:PRESET with KIND one of {', '.join(MODELS)} "
            f"and PRESET one of {', '.join(PRESETS)}, or a board: "
            f"{', '.join(form for form, _ in BOARDS.values())}"
        )
    if description is not None:
        raise CardError(f"card '{name}' has its configuration by its name, not by a file")
    config = PRESETS[place]
    # Each kind is imported only when asked for: one may need tools that another does not.
    if trace is not None and kind != "verilated":
        raise CardError(f"card '{name}' has no signals to trace; choose a verilated card")
    if kind == "golden":
        from .golden import GoldenCard

        return GoldenCard(config)
    if kind == "cycles":
        from .cycles import CycleCard

        return CycleCard(config)
    from sim.verilated.build import BuildError

    try:
        if kind == "bridged":
            from sim.verilated.serial_line import BAUD, SimulatedLine

            from .serial import SerialCard

            return SerialCard(SimulatedLine(config), name, baud=BAUD)
        if kind == "c":
            from .compiled import CompiledVerilatedCard

            return CompiledVerilatedCard(config)
        from .verilated import VerilatedCard

        return VerilatedCard(config, trace=trace)
    except (BuildError, ValueError) as error:
        raise CardError(str(error)) from None


def _open_board(name: str, kind: str, place: str, description: Path | None) -> Card:
    """Open the board at `place`, whose configuration its registers tell."""
    if kind == "serial":
        from rtl.interface.serial_protocol import BAUD

        from .serial import SerialCard, SerialPort

        port, _, rate = place.partition("@")
        if not port or (rate and not (rate.isdecimal() and int(rate) > 0)):
            raise CardError(f"card '{name}': the rate must be a number of bits a second")
        baud = int(rate) if rate else BAUD
        return SerialCard(SerialPort(port, baud), name, baud=baud, description=description)
    number, _, file = place.partition(":")
    if not number.isdecimal() or bool(file) != (kind == "xrt"):
        raise CardError(f"no card '{name}'; such a name is {BOARDS[kind][0]}")
    if kind == "xdma":
        from .xdma import XdmaCard

        return XdmaCard(int(number), description=description)
    from .xrt import XrtCard

    return XrtCard(int(number), Path(file), description=description)
