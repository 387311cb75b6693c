"""The tables of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..bench.report import Table
from .figures import PUBLISHED, records_of

__all__ = ["tables"]

_SMALLEST = 0.005
"""Part of the cycles from which on a cause has a column of its own."""

_STAGES = ("ff", "bp", "wu", "update")


def tables(figures: Mapping[str, Any]) -> list[Table]:
    """Return the tables of ``networks.json``."""
    made = []
    for point in figures["points"]:
        made += [_speedups(point), _networks(point)]
        if "geomean_over_first" in point:
            made.append(_scaling(point, figures["points"][0]["macs"]))
        if any("gap" in record for _, _, record in records_of(point)):
            made.append(_gaps(point))
    if figures.get("scalesim"):
        made.append(_scalesim(figures["scalesim"]))
    if figures["failed"]:
        made.append(_failed(figures["failed"]))
    return made


def _title(point: Mapping[str, Any]) -> str:
    return (
        f"{point['macs']:,} multipliers, {point['clock_hz'] / 1e6:.0f} MHz, "
        f"{point['bandwidth_bytes_per_s'] / 1e9:.0f} GB/s"
    )


def _speedups(point: Mapping[str, Any]) -> Table:
    """Return speedups beside their ceilings: networks by methods."""
    methods = list(dict.fromkeys(method for _, method, _ in records_of(point)))
    rows = []
    for network, records in point["networks"].items():
        cells = [_beside_ceiling(records.get(method)) for method in methods]
        rows.append((network, *cells))
    means, ceilings = point["geomean"], point["geomean_ceiling"]
    rows.append(
        (
            "geometric mean",
            *(
                f"{means[method]:.3f} of {ceilings[method]:.3f}" if method in means else ""
                for method in methods
            ),
        )
    )
    return Table(
        f"Speedup over dense training: {_title(point)}",
        ("", *methods),
        rows,
        "A whole training step against a dense one on the same card, of what the multiply-adds "
        f"would allow. The published system reports {PUBLISHED}x for 2:8 in both directions.",
    )


def _beside_ceiling(record: Mapping[str, Any] | None) -> str:
    return f"{record['speedup']:.3f} of {record['ceiling']:.3f}" if record else ""


def _networks(point: Mapping[str, Any]) -> Table:
    """Return what a step takes: a row for each network and method."""
    rows = []
    for network, method, record in records_of(point):
        cycles = record["cycles"]
        allowed = record["images_per_s_allowed"]
        rows.append(
            (
                f"{network}, {method}",
                str(record["batch"]),
                *(f"{cycles[stage] / 1e6:,.2f}" for stage in (*_STAGES, "total")),
                f"{record['utilisation']:.1%}",
                f"{record['bytes'] / 1e9:,.2f}",
                f"{record['images_per_s']:,.0f}",
                f"{allowed['memory']:,.0f}",
                f"{allowed['port']:,.0f}",
                f"{record['speedup']:.3f}",
                f"{record['ceiling']:.3f}",
                f"{PUBLISHED:.2f}" if method == "bdwp-2:8" else "",
            )
        )
    return Table(
        f"A training step: {_title(point)}",
        (
            "",
            "batch",
            "FF",
            "BP",
            "WU",
            "update",
            "cycles, M",
            "utilisation",
            "GB",
            "images/s",
            "memory allows",
            "port allows",
            "speedup",
            "ceiling",
            "published",
        ),
        rows,
        "Millions of cycles by stage, normalisation and all other layers included; update is what "
        "WU doesn't hide. Utilisation: multiply-adds of the network after pruning, of all slots. "
        "Memory and port allow: images a second if nothing but these bytes took time, through all "
        "memory channels or through the core's port, a beat a cycle each way.",
    )


def _scaling(point: Mapping[str, Any], macs: int) -> Table:
    """Return how much faster the larger card is."""
    rows = []
    for network, method, record in records_of(point):
        if "over_first" not in record:
            continue
        allowed = record["over_first_allowed"]
        rows.append(
            (
                f"{network}, {method}",
                f"{record['over_first']:.2f}",
                *(f"{allowed[limit]:.2f}" for limit in ("multipliers", "memory", "port")),
            )
        )
    rows += [
        (f"geometric mean, {method}", f"{mean:.2f}", "", "", "")
        for method, mean in point["geomean_over_first"].items()
    ]
    return Table(
        f"Images a second over {macs:,} multipliers: {_title(point)}",
        ("", "measured", "multipliers allow", "memory allows", "port allows"),
        rows,
    )


def _gaps(point: Mapping[str, Any]) -> Table:
    """Return the causes of gaps between speedup and ceiling."""
    gaps = {
        (network, method): record
        for network, method, record in records_of(point)
        if "gap" in record
    }
    sizes: Counter[str] = Counter()
    for record in gaps.values():
        for cause, part in record["gap"].items():
            sizes[cause] = max(sizes[cause], abs(part))
    causes = [cause for cause, size in sizes.most_common() if size >= _SMALLEST]
    rows = []
    for (network, method), record in gaps.items():
        parts = [record["gap"].get(cause, 0.0) for cause in causes]
        shares = [record["shortfall"], *parts, record["shortfall"] - sum(parts)]
        rows.append((f"{network}, {method}", *(f"{100 * share:.1f}" for share in shares)))
    return Table(
        f"What is missing to the ceiling, in percent: {_title(point)}",
        ("", "in all", *causes, "other"),
        rows,
        "Of methods that are more than 3 % below it. At the ceiling everything would take a "
        "ceiling-th of what it takes in dense training; a cause's part, of the method's cycles, is "
        "what it takes beyond that.",
    )


def _scalesim(layers: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            layer["layer"],
            layer["pattern"],
            *(f"{layer[size]:,}" for size in ("m", "n", "k")),
            f"{layer['macs']:,}",
            f"{layer['cycles_scalesim']:,}",
            f"{layer['cycles_model']:,}",
            f"{layer['cycles_scalesim'] / layer['cycles_model']:.2f}",
        )
        for layer in layers
    ]
    return Table(
        "SCALE-Sim 3, weight stationary, against the cycle model",
        ("", "pattern", "M", "N", "K", "multipliers", "SCALE-Sim", "cycle model", "ratio"),
        rows,
        "Cycles of the same products on as many multipliers. M is cut to what SCALE-Sim can "
        "finish.",
    )


def _failed(failed: Sequence[Mapping[str, str]]) -> Table:
    rows = [(each["job"], each["reason"]) for each in failed]
    return Table("What couldn't be done", ("", "reason"), rows)
