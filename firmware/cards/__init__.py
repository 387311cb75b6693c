"""Cards: what carries out the programs, from a software model to a board."""

from __future__ import annotations

from pathlib import Path

from rtl.config import PRESETS

from ..errors import CardError
from .base import Card

__all__ = ["KINDS", "Card", "open_card"]

KINDS = {
    "golden": "software model, bit for bit, without a clock",
    "verilated": "the gateware itself, simulated by Verilator",
    "cycles": "model of the gateware's time, to the cycle, which computes nothing",
}
"""Kinds of card, each with a line about it."""


def open_card(name: str, *, trace: Path | None = None) -> Card:
    """Open the card called `name`.

    Parameters
    ----------
    name
        ``kind:preset``, such as ``verilated:sim``.
    trace
        File for a waveform (FST), recorded until `Card.stop_trace`; only simulated gateware can.

    Raises
    ------
    CardError
        There is no such card, or it can't be opened; the message lists those that exist.
    """
    kind, _, preset = name.partition(":")
    if kind not in KINDS or preset not in PRESETS:
        raise CardError(
            f"no card '{name}'; a name is KIND:PRESET with KIND one of {', '.join(KINDS)} "
            f"and PRESET one of {', '.join(PRESETS)}"
        )
    config = PRESETS[preset]
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

    from .verilated import VerilatedCard

    try:
        return VerilatedCard(config, trace=trace)
    except BuildError as error:
        raise CardError(str(error)) from None
