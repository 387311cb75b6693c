"""Tells what a card is and how it fares: configuration, state, fault, counters.

``python -m firmware.info CARD``. Nothing on the card is changed. Status: 0, or 2 if the card can't
be opened or read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtl.control.commands import Fault
from rtl.interface.register_map import COUNTERS, REGISTERS, VERSION, Control, Interrupt
from rtl.sparsity.pattern import supported_patterns

from .cards import BOARDS, MODELS, Card, open_card
from .errors import CardError

__all__ = ["gather", "main"]


def gather(name: str, card: Card) -> dict[str, Any]:
    """Return everything there is to tell of a card, as JSON has it.

    Raises
    ------
    CardError
        The card can't be read.
    """

    def read(register: str) -> int:
        return card.read_register(REGISTERS[register].offset)

    def read_wide(register: str) -> int:
        return read(f"{register}_LOW") | read(f"{register}_HIGH") << 32

    config = card.config
    control = Control(read("CONTROL"))
    code = read("FAULT_CODE")
    known = code in {fault.value for fault in Fault}
    return {
        "card": name,
        "version": _version(read("VERSION")),
        "software_version": _version(VERSION),
        "config_hash": read("CONFIG_HASH"),
        "configuration": dataclasses.asdict(config),
        "macs": config.macs,
        "patterns": [str(pattern) for pattern in supported_patterns(config)],
        "state": _members(control),
        "interrupts": {
            "enabled": _members(Interrupt(read("INTERRUPT_ENABLE"))),
            "line": bool(read("GLOBAL_INTERRUPT_ENABLE") & 1),
            "met": _members(Interrupt(read("INTERRUPT_STATUS"))),
        },
        "program": {
            "address": read_wide("PROGRAM"),
            "commands": read("PROGRAM_COMMANDS"),
        },
        "fault": {
            "code": Fault(code).name if known else f"fault {code}",
            "command": read("FAULT_COMMAND"),
            "address": read_wide("FAULT_ADDRESS"),
        }
        if control & Control.FAULT
        else None,
        "counters": {counter.name: read_wide(counter.name) for counter in COUNTERS},
        "remarks": card.remarks(),
    }


def _version(value: int) -> str:
    return f"{value >> 16 & 0xFF}.{value >> 8 & 0xFF}.{value & 0xFF}"


def _members(value: Control | Interrupt) -> list[str]:
    return [str(member.name) for member in type(value) if member in value]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m firmware.info", description=__doc__)
    forms = [f"{kind}:PRESET" for kind in MODELS] + [form for form, _ in BOARDS.values()]
    parser.add_argument("card", metavar="CARD", help=", ".join(forms))
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument(
        "--description", type=Path, metavar="FILE",
        help="JSON file by rtl.build of a board whose configuration is no preset",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        with open_card(options.card, description=options.description) as card:
            facts = gather(options.card, card)
    except CardError as error:
        console = Console(stderr=True)
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def _print(facts: dict[str, Any]) -> None:
    """Print the facts for people."""
    console = Console(soft_wrap=True, highlight=False)
    config = facts["configuration"]
    fault, met = facts["fault"], facts["interrupts"]["met"]
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("card", facts["card"]),
        ("gateware", f"{facts['version']}, this software {facts['software_version']}"),
        ("configuration", f"{config['name']} for {config['device']}, {facts['config_hash']:#010x}"),
        (
            "array",
            f"{config['rows']} x {config['cols']} PEs of {config['lanes']} lanes, "
            f"{facts['macs']:,} MACs",
        ),
        ("patterns", ", ".join(facts["patterns"])),
        ("memory", f"{config['memory_bytes']:,} bytes, channels: {config['channels']}"),
        ("state", ", ".join(facts["state"]) or "none"),
        ("interrupts", f"met: {', '.join(met) or 'none'}"),
        (
            "program",
            f"{facts['program']['commands']:,} commands at {facts['program']['address']:#x}",
        ),
        (
            "fault",
            f"{fault['code']} at command {fault['command']}, address {fault['address']:#x}"
            if fault
            else "none",
        ),
    ):
        table.add_row(name, escape(value))
    console.print(table)
    docs = {counter.name: counter.doc for counter in COUNTERS}
    moved = {name: value for name, value in facts["counters"].items() if value}
    console.print("\ncounters since the last reset" + ("" if moved else ": all zero"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in moved.items():
        table.add_row(name, f"{value:>16,}", docs[name])
    console.print(table)
    for remark in facts["remarks"]:
        console.print(f"note: {escape(remark)}")


if __name__ == "__main__":
    sys.exit(main())
