"""The report of a sweep: figures (JSON), tables (text), and a page of HTML with pictures."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firmware import page

from .charts import COLOURS, STYLE, Bar, Dot, Roof, Span, roofline, stacked_bars, timeline
from .evaluate import Job
from .figures import DENSE, Record, records_of
from .sweep import Result
from .tables import tables

__all__ = ["text", "write"]

Figures = Mapping[str, Any]

_STAGES = {"ff": "FF", "bp": "BP", "wu": "WU", "update": "update"}

_SHOWN = (DENSE, "bdwp-2:8")
"""Methods whose timelines are drawn."""


def text(figures: Figures) -> str:
    """Return all tables as text."""
    return "\n\n".join(table.text() for table in tables(figures))


def write(figures: Figures, results: Mapping[Job, Result], directory: Path) -> list[Path]:
    """Write ``networks.json``, ``networks.txt`` and ``networks.html``; return their paths.

    Parameters
    ----------
    figures
        What `summary` made of the results, with ``scalesim`` and ``model`` if there are any.
    results
        Of each job, for the pictures of layers.
    directory
        Where to; it is made if it isn't there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "json": json.dumps(figures, indent=2) + "\n",
        "txt": text(figures) + "\n",
        "html": _page(figures, results),
    }
    paths = {directory / f"networks.{kind}": content for kind, content in contents.items()}
    for path, content in paths.items():
        path.write_text(content)
    return list(paths)


def _page(figures: Figures, results: Mapping[Job, Result]) -> str:
    """Return one self-contained page: tables and pictures of each point, then timelines."""
    content = [
        '<p class="lead">Training steps of whole networks, scheduled and run through the cycle '
        "model: every figure is counted by the card's own counters.</p>"
    ]
    content += [table.html() for table in tables(figures)]
    causes = _largest_causes(figures["points"])
    for point in figures["points"]:
        records = records_of(point)
        if not records:
            continue
        name = f"{point['macs']:,} multipliers"
        content.append(_headed(f"Where the cycles go: {name}", _causes(records, causes)))
        content.append(_headed(f"Roofline: {name}", _roofline(point, records, results)))
        content += [
            _folded(f"{network}, {method}: {name}, layer by layer", _timeline(result))
            for network, method, record in records
            if method in _SHOWN
            and (result := _result(results, network, method, record)) is not None
        ]
    return page.page("networks", "Whole networks", "\n".join(content), style=STYLE)


def _headed(title: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{content}"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n{content}</details>"


def _result(
    results: Mapping[Job, Result], network: str, method: str, record: Mapping[str, Any]
) -> Result | None:
    return results.get(Job(network, method, record["preset"], record["batch"]))


def _largest_causes(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what has a colour of its own in the pictures of all points; the largest first."""
    total: Counter[str] = Counter()
    for point in points:
        for _, _, record in records_of(point):
            total.update(record["causes"])
    others = (cause for cause, _ in total.most_common() if cause != "useful")
    return ["useful", *others][: COLOURS - 1]


def _causes(records: Sequence[Record], kinds: Sequence[str]) -> str:
    """Return a picture of all cycles by what the multipliers did or waited for."""
    bars = []
    for network, method, record in records:
        # The array may be said to wait for a cycle or two more than its queue does.
        shares = {cause: max(share, 0.0) for cause, share in record["causes"].items()}
        shares["other"] = sum(shares.pop(cause) for cause in shares.keys() - set(kinds))
        bars.append(Bar(f"{network}, {method}", shares))
    words = "Shares of the cycles by cause, for each network and method"
    return stacked_bars(bars, [*kinds, "other"], words)


def _roofline(
    point: Mapping[str, Any],
    records: Sequence[Record],
    results: Mapping[Job, Result],
) -> str:
    """Return a picture of multiply-adds a cycle over multiply-adds a byte, below their bounds."""
    dots: list[Dot] = []
    beats = set()
    for network, method, record in records:
        result = _result(results, network, method, record)
        assert result is not None
        beats.add(result["beat_bytes"])
        if method == _SHOWN[-1]:
            dots += _layer_dots(network, result)
    for network, method, record in records:
        macs = record["utilisation"] * point["macs"] * record["cycles"]["total"]
        dots.append(
            Dot(
                macs / record["bytes"],
                macs / record["cycles"]["total"],
                network,
                f"{network}, {method}: {record['utilisation']:.1%}",
            )
        )
    bandwidth = point["bandwidth_bytes_per_s"] / point["clock_hz"]
    beat = min(beats)
    roofs = [
        Roof(f"{point['macs']:,} multipliers", constant=float(point["macs"])),
        Roof(f"memory, {bandwidth:.0f} bytes a cycle", slope=bandwidth),
        Roof(f"ports, {beat} bytes a cycle each", slope=3.0 * beat),
    ]
    chart = roofline(
        dots,
        roofs,
        list(point["networks"]),
        ("multiply-adds a byte", "multiply-adds a cycle"),
        "Multiply-adds a cycle over multiply-adds a byte, with their bounds",
    )
    return (
        f'{chart}\n<p class="note">Large: whole steps of each method; small: the layers of '
        f"{_SHOWN[-1]} by stage. After pruning; layers without products aren't shown.</p>"
    )


def _layer_dots(network: str, result: Result) -> list[Dot]:
    dots = []
    for layer in result["layers"]:
        moved = layer["read_bytes"] + layer["written_bytes"]
        if layer["macs"] and layer["cycles"] and moved:
            rate = layer["macs"] / layer["cycles"]
            words = f"{network}, {layer['layer']}, {_STAGES[layer['stage']]}: {rate:,.0f} a cycle"
            dots.append(Dot(layer["macs"] / moved, rate, network, words, radius=2.5))
    return dots


def _timeline(result: Result) -> str:
    """Return a picture of when each layer's commands are under way."""
    spans = []
    for layer in result["layers"]:
        share = layer["cycles"] / result["cycles"]["total"]
        words = f"{_STAGES[layer['stage']]}, {layer['cycles']:,} cycles ({share:.1%})"
        if layer["macs"]:
            used = layer["macs"] / max(layer["cycles"], 1) / result["macs"]
            words += f", {used:.0%} of the multipliers"
        spans.append(
            Span(
                layer["layer"],
                _STAGES[layer["stage"]],
                layer["start"] / 1e6,
                layer["end"] / 1e6,
                words,
            )
        )
    chart = timeline(
        spans, list(_STAGES.values()), "million cycles", "When each layer's commands are under way"
    )
    return (
        f'{chart}\n<p class="note">From the first command of a layer to the end of its last one; '
        "layers overlap. The cycles in the tips divide the time: each goes to the layer whose "
        "product is under way, else to that of the vector unit or of a store.</p>"
    )
