"""What is reported of convolutions with their operands in card memory."""

from __future__ import annotations

from typing import Any

from .report import CAUSE_TITLES, Figures, Report, Table, draw_slots, figure, get
from .slots import CAUSES

__all__ = ["REPORT"]

_TARGETS = {"dense": 0.92, "2:8": 0.88}
"""Least utilisation of the layers of 3 x 3, by pattern."""

_STREAM_TARGET = 0.95


def _key(row: Figures) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("card", "name", "side", "batch", "stage", "pattern"))


def _title(row: Figures) -> str:
    return f"{row['card']}: {row['name']}, {row['pattern']}, {row['stage']}"


def _layers(figures: Figures, before: Figures) -> Table:
    former = {_key(row): row for row in before.get("layers", ())}
    rows = []
    for row in figures["layers"]:
        old = former.get(_key(row), {})
        rows.append(
            (
                _title(row),
                f"{row['inputs']} to {row['outputs']}",
                f"{row['batch']} of {row['side']} x {row['side']}",
                figure(row["cycles"], old.get("cycles")),
                figure(row["utilisation"], old.get("utilisation"), ".1%"),
                *(f"{row['lost'][cause]:.1%}" for cause in CAUSES),
                _megabytes(row, old, "bytes_read"),
                _megabytes(row, old, "bytes_written"),
                f"{row['bandwidth']:.1%}",
            )
        )
    targets = " and ".join(f"{share:.0%} {pattern}" for pattern, share in _TARGETS.items())
    return Table(
        "Convolutions of 3 x 3, operands in card memory",
        (
            "layer, pattern, stage",
            "channels",
            "images",
            "cycles",
            "used",
            *CAUSE_TITLES.values(),
            "MB read",
            "MB written",
            "of the bandwidth",
        ),
        rows,
        "Every result is that of the golden model, bit for bit. "
        "Each line is a program of its own, from empty scratchpads to the last write acknowledged; "
        f"used and lost MAC slots together are all of them. Aimed at: {targets}.",
    )


def _megabytes(row: Figures, old: Figures, key: str) -> str:
    former = old[key] / 1e6 if key in old else None
    return figure(row[key] / 1e6, former, ",.2f")


def _cards(figures: Figures, before: Figures) -> Table:
    rows = []
    for name, card in figures["cards"].items():
        shares = (
            figure(card["stream"][way], get(before, "cards", name, "stream", way), ".1%")
            for way in ("read", "write")
        )
        bytes_per_cycle = f"{card['bytes_per_cycle']:.4g} of {card['beat_bytes']}"
        rows.append((name, f"{card['macs']:,}", bytes_per_cycle, str(card["latency"]), *shares))
    return Table(
        "Cards",
        ("", "MACs", "bytes of memory a cycle", "cycles away", "long LOADs", "long STOREs"),
        rows,
        "The bytes are those that the AXI port could move one way. Long LOADs and STOREs, with "
        "memory as fast as the port: beats in a cycle of a program, its start and its last "
        f"response included; aimed at {_STREAM_TARGET:.0%}.",
    )


def _tables(figures: Figures, before: Figures) -> list[Table]:
    """Return the tables of what was measured, with the changes against `before`."""
    return [_layers(figures, before), _cards(figures, before)]


def _pictures(figures: Figures) -> list[tuple[str, str]]:
    """Return title and picture of what was measured, a picture for each card and pattern."""
    bars: dict[tuple[str, str], list[tuple[str, Figures]]] = {}
    for row in figures["layers"]:
        own = bars.setdefault((row["card"], row["pattern"]), [])
        own.append((f"{row['name']}, {row['stage']}", row))
    return [
        (f"Where the MAC slots go: {card}, {pattern}", draw_slots(own))
        for (card, pattern), own in bars.items()
    ]


REPORT = Report(
    "memory", "Memory: convolutions with their operands in card memory", _tables, _pictures
)
