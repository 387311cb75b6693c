"""Reports of a benchmark: JSON, tables as text, and one page of HTML with pictures."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .gemm import LOST, PADDING

__all__ = ["accept", "tables", "text", "write"]

Figures = Mapping[str, Any]

_RESOURCES = ("lut", "lutram", "ff", "dsp", "bram", "uram")

_HEADS = {
    "lut": "LUT", "lutram": "of it RAM", "ff": "FF", "dsp": "DSP", "bram": "BRAM", "uram": "URAM",
}  # fmt: skip

_PUBLISHED = {
    "cvfpu multi-format FMA": {"lut_per_mac": 1258, "dsp_per_mac": 2},
    "key2/amaranth-fp FP16 FMA": {"lut_per_mac": 655, "dsp_per_mac": 1},
}
"""Public FPUs by Yosys for the same FPGA; neither selects N:M operands."""

_TARGET, _LIMIT = 160, 200
"""LUT per MAC aimed at, and at most."""

_SHOWN_MODULES, _SHOWN_STAGES = 12, 10

_CAUSES = (*LOST, *PADDING)

_CAUSE_TITLES = {
    "fill": "fill",
    "drain": "drain",
    "operand": "operands not ready",
    "edge": "edges of tiles",
    "filler": "sparser than the ratio",
}

_COLOURS = {
    "useful": "#2a6f97", "fill": "#e09f3e", "drain": "#9e2a2b", "operand": "#6c757d",
    "edge": "#61a5c2", "filler": "#ced4da",
}  # fmt: skip


@dataclass(frozen=True)
class _Table:
    """A table: the first column is text, the others are figures."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def _figure(new: float | None, old: float | None, form: str = ",.0f") -> str:
    """Return a figure, with the change against the accepted one where there is one."""
    if new is None:
        return ""
    shown = format(new, form)
    if old is None or shown == format(old, form):
        return shown
    change = f"{new / old - 1:+.1%}" if old else "new"
    return f"{shown} ({change})"


def _get(figures: Figures, *path: str) -> Any:
    """Return what stands at a path in the figures, None if nothing does."""
    place: Any = figures
    for key in path:
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return place


def _elements(figures: Figures, before: Figures) -> _Table:
    kinds = ("lut_per_mac", "lutram_per_mac", "ff_per_mac", "dsp_per_mac")
    rows = []

    def add(title: str, *path: str) -> None:
        new, old = _get(figures, *path), _get(before, *path)
        form = (",.1f", ",.1f", ",.1f", ".2f")
        cells = (_figure(new[kind], _get(old, kind), form) for kind, form in zip(kinds, form))
        rows.append((title, *cells))

    for name, element in figures["pe"]["presets"].items():
        add(f"{name}, for {element['device']}", "pe", "presets", name)
        add(f"{name}, board-neutral on xcup", "pe", "presets", name, "board_neutral")
    add("baseline: multiplier and FP32 adder", "baseline")
    for title, published in _PUBLISHED.items():
        rows.append((title, f"{published['lut_per_mac']:,}", "", "", f"{published['dsp_per_mac']}"))
    return _Table(
        "Processing element, per MAC",
        ("", "LUT", "of it RAM", "FF", "DSP"),
        rows,
        f"LUTs with those that are memory; aimed at {_TARGET}, at most {_LIMIT}.",
    )


def _presets(figures: Figures, before: Figures) -> list[_Table]:
    count, share, build = [], [], []
    for name, card in figures["presets"].items():
        old = _get(before, "presets", name) or {}
        cells = (_figure(card[key], old.get(key), ",.10g") for key in _RESOURCES)
        count.append((name, card["device"], f"{card['macs']:,}", *cells))
        shares = (
            _figure(card["share"].get(key), _get(old, "share", key), ".1%") for key in _RESOURCES
        )
        share.append((name, card["device_title"], *shares))
        if "elaborate_seconds" in card:
            peak, former = (
                each.get("elaborate_peak_bytes", 0) / 1e6 or None for each in (card, old)
            )
            build.append(
                (
                    name,
                    _figure(card["elaborate_seconds"], old.get("elaborate_seconds"), ".1f"),
                    _figure(card["elaborate_cpu_seconds"], old.get("elaborate_cpu_seconds"), ".1f"),
                    _figure(peak, former),
                )
            )
    heads = tuple(_HEADS[key] for key in _RESOURCES)
    found = [
        _Table(
            "Cards",
            ("", "device", "MACs", *heads),
            count,
            "By Yosys, each part synthesised once and summed over its instances. BRAM: blocks of "
            "36 Kb; for ulx3s blocks of 18 Kb (DP16KD), LUTs of four inputs, and 18 x 18 "
            "multipliers as DSP.",
        ),
        _Table("Share of the device", ("", "", *heads), share),
    ]
    if build:
        found.append(
            _Table("python -m rtl.build", ("", "seconds", "of a processor", "peak MB"), build)
        )
    return found


def _modules(figures: Figures, before: Figures) -> list[_Table]:
    found = []
    for name, card in figures["presets"].items():
        rows = []
        former = {row["module"]: row for row in _get(before, "presets", name, "modules") or ()}
        for row in card["modules"][:_SHOWN_MODULES]:
            times, old = row["instances"], former.get(row["module"], {})
            totals = (
                _figure(row[key] * times, old[key] * old["instances"] if old else None, ",.10g")
                for key in _RESOURCES
            )
            each = _figure(row["lut"], old.get("lut"))
            rows.append((row["module"], f"{times:,}", each, *totals))
        rest = card["modules"][_SHOWN_MODULES:]
        if rest:
            totals = (
                f"{sum(row[key] * row['instances'] for row in rest):,.10g}" for key in _RESOURCES
            )
            rows.append((f"{len(rest)} others", "", "", *totals))
        heads = tuple(_HEADS[key] for key in _RESOURCES)
        found.append(_Table(f"{name} by module", ("", "times", "LUT each", *heads), rows))
    return found


def _depth(figures: Figures, before: Figures) -> _Table:
    depth = figures["depth"]
    former = {stage["end"]: stage["ns"] for stage in _get(before, "depth", "stages") or ()}
    rows = [
        (
            f"{stage['start']} to {stage['end']}",
            str(stage["levels"]),
            _figure(stage["ns"], former.get(stage["end"]), ".2f"),
            _cells(stage["path"]),
        )
        for stage in depth["stages"][:_SHOWN_STAGES]
    ]
    return _Table(
        f"Longest stages of the processing element of {depth['preset']}",
        ("", "cells", "ns", "by way of"),
        rows,
        f"{depth['longer_than_dsp']} of {len(depth['stages'])} are longer than the DSP48E2 with "
        f"all its registers, {depth['dsp_ns']:.2f} ns (DS923, -2); the longest path that Yosys's "
        f"ltp finds has {depth['longest_path_cells']} cells. Delays by the model of "
        "sim/bench/depth.py, without placement.",
    )


def _cells(path: Sequence[str]) -> str:
    """Return a path's cells in short, runs of one type counted."""
    runs: list[tuple[str, int]] = []
    for cell in path:
        if runs and runs[-1][0] == cell:
            runs[-1] = (cell, runs[-1][1] + 1)
        else:
            runs.append((cell, 1))
    return " ".join(cell if times == 1 else f"{times}x{cell}" for cell, times in runs)


def _key(result: Figures) -> tuple[Any, ...]:
    return tuple(result[key] for key in ("preset", "m", "n", "k", "pattern", "a_contexts"))


def _shape(result: Figures, interleave: bool = True) -> str:
    size = f"{result['m']} x {result['n']} x {result['k']}, {result['pattern']}"
    return f"{size}, {1 << result['a_contexts']} along n" if interleave else size


def _gemm(figures: Figures, before: Figures) -> _Table:
    former = {_key(result): result for result in before.get("gemm", ())}
    rows = []
    for result in figures["gemm"]:
        old = former.get(_key(result), {})
        rows.append(
            (
                f"{result['preset']}: {_shape(result)}",
                f"{result['macs']:,}",
                _figure(result["cycles"], old.get("cycles")),
                _figure(result["utilisation"], old.get("utilisation"), ".1%"),
                f"{result['allowed']:.1%}",
                f"{result['stationary']:.1%}",
                *(f"{result['lost'][cause]:.1%}" for cause in _CAUSES),
            )
        )
    return _Table(
        "Products, operands in the scratchpads",
        (
            "m x n x k, pattern, contexts",
            "MACs",
            "cycles",
            "used",
            "allowed",
            "stationary",
            *_CAUSE_TITLES.values(),
        ),
        rows,
        "Every result is that of the golden model, bit for bit. Used and lost MAC slots together "
        "are all of them. Allowed is what would be used if multiplying, or draining where that "
        "takes longer, went on without a pause; stationary what weights that stay in their "
        "processing elements would use at best, with sums passed down the rows of each way out.",
    )


def _speed(figures: Figures, before: Figures) -> _Table:
    rows = [
        (
            name,
            f"{speed['macs']:,}",
            _figure(
                speed["cycles_per_second"],
                _get(before, "simulation", "presets", name, "cycles_per_second"),
            ),
        )
        for name, speed in figures["simulation"]["presets"].items()
    ]
    return _Table("Verilated card, multiplying", ("", "MACs", "cycles/s"), rows)


def tables(figures: Figures, before: Figures) -> list[_Table]:
    """Return the tables of what was measured, with the changes against `before`."""
    found = []
    if "pe" in figures:
        found.append(_elements(figures, before))
        found += _presets(figures, before)
        found += _modules(figures, before)
    if "depth" in figures:
        found.append(_depth(figures, before))
    if "gemm" in figures:
        found.append(_gemm(figures, before))
    if "simulation" in figures:
        found.append(_speed(figures, before))
    return found


def text(figures: Figures, before: Figures) -> str:
    """Return all tables as text."""
    return "\n\n".join(_text(table) for table in tables(figures, before))


def _text(table: _Table) -> str:
    lines = [table.heads, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heads))]

    def join(line: Sequence[str]) -> str:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        return "  ".join([line[0].ljust(widths[0]), *cells]).rstrip()

    parts = [table.title, join(table.heads), *(join(row) for row in table.rows), table.note]
    return "\n".join(part for part in parts if part)


def write(figures: Figures, before: Figures, directory: Path) -> list[Path]:
    """Write ``engine.json``, ``engine.txt`` and ``engine.html``; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "engine.json": json.dumps(figures, indent=2) + "\n",
        "engine.txt": text(figures, before) + "\n",
        "engine.html": _page(figures, before),
    }
    for name, content in contents.items():
        (directory / name).write_text(content)
    return [directory / name for name in contents]


def accept(figures: Figures, directory: Path) -> list[Path]:
    """Keep figures and tables as those that later runs are compared with; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / "engine.json", directory / "engine.txt"]
    paths[0].write_text(json.dumps(figures, indent=1) + "\n")
    paths[1].write_text(text(figures, {}) + "\n")
    return paths


# Pictures


def _plot(height: float, draw: Any) -> str:
    """Return a picture as SVG, `draw` given its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {
        "font.size": 10,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#495057",
        "text.color": "#212529",
        "axes.labelcolor": "#343a40",
        "xtick.color": "#495057",
        "ytick.color": "#495057",
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(9, height))
        draw(axes)
        figure.set_layout_engine("constrained")
        file = io.StringIO()
        figure.savefig(file, format="svg")
        plt.close(figure)
    return file.getvalue()[file.getvalue().index("<svg") :]


def _draw_elements(figures: Figures, axes: Any) -> None:
    element = figures["pe"]
    bars = {
        f"SAT, {element['preset']}": (element["lut_per_mac"], "#2a6f97"),
        "SAT, board-neutral": (element["board_neutral"]["lut_per_mac"], "#61a5c2"),
        "baseline: multiplier, FP32 adder": (figures["baseline"]["lut_per_mac"], "#6c757d"),
        **{name: (area["lut_per_mac"], "#adb5bd") for name, area in _PUBLISHED.items()},
    }
    names = list(bars)[::-1]
    drawn = axes.barh(names, [bars[name][0] for name in names], color=[bars[n][1] for n in names])
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    for value, label in ((_TARGET, "target"), (_LIMIT, "limit")):
        axes.axvline(value, color="#9e2a2b", linewidth=1, linestyle=":")
        side = "right" if value == _TARGET else "left"
        axes.annotate(f" {label} {value} ", (value, len(names) - 0.45), ha=side, fontsize=9)
    axes.set_ylim(-0.5, len(names) - 0.2)
    axes.set_xlabel("LUT per MAC")


def _draw_shares(figures: Figures, axes: Any) -> None:
    cards = figures["presets"]
    colours = ("#2a6f97", "#61a5c2", "#adb5bd", "#9e2a2b", "#e09f3e", "#6c757d")
    width = 0.8 / len(_RESOURCES)
    for index, (key, colour) in enumerate(zip(_RESOURCES, colours)):
        places = [
            place + (index - len(_RESOURCES) / 2 + 0.5) * width for place in range(len(cards))
        ]
        shares = [100 * card["share"].get(key, 0) for card in cards.values()]
        axes.bar(places, shares, width, color=colour, label=_HEADS[key])
    axes.set_xticks(range(len(cards)), [f"{n}\n{card['device']}" for n, card in cards.items()])
    axes.axhline(80, color="#9e2a2b", linewidth=1, linestyle=":")
    axes.annotate("80 %", (len(cards) - 0.5, 81), ha="right", fontsize=9)
    axes.set_ylabel("% of the device")
    axes.legend(frameon=False, ncols=len(_RESOURCES), loc="upper left", fontsize=9)


def _draw_slots(figures: Figures, axes: Any) -> None:
    results = figures["gemm"][::-1]
    names = [f"{result['preset']}: {_shape(result)}" for result in results]
    left = [0.0] * len(results)
    for cause in ("useful", *_CAUSES):
        widths = [
            100 * (result["utilisation"] if cause == "useful" else result["lost"][cause])
            for result in results
        ]
        label = "used" if cause == "useful" else _CAUSE_TITLES[cause]
        places = range(len(results))
        axes.barh(places, widths, left=left, color=_COLOURS[cause], label=label, height=0.75)
        left = [start + width for start, width in zip(left, widths)]
    for place, result in enumerate(results):
        axes.annotate(
            f"{result['utilisation']:.1%}", (1, place), color="white", va="center", fontsize=9
        )
    axes.set_yticks(range(len(results)), names)
    axes.set_ylim(-0.5, len(results) - 0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of MAC slots")
    axes.legend(frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(-0.4, 1), fontsize=9)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SAT: tensor engine benchmark</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #212529; max-width: 72rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2.25rem; }}
p.note {{ color: #495057; font-size: 0.875rem; }}
svg {{ width: 100%; height: auto; }}
div.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 0.875rem; }}
th, td {{ text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid #dee2e6;
  white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
thead th {{ border-bottom: 2px solid #495057; }}
</style>
</head>
<body>
<h1>Tensor engine: area, products, speed</h1>
{content}
</body>
</html>
"""


def _page(figures: Figures, before: Figures) -> str:
    """Return one self-contained page: the pictures, then all tables."""
    pictures = []
    if "pe" in figures:
        pictures += [
            ("LUT per MAC", _plot(2.8, lambda axes: _draw_elements(figures, axes))),
            ("Share of the device", _plot(3.6, lambda axes: _draw_shares(figures, axes))),
        ]
    if figures.get("gemm"):
        height = 1.2 + 0.27 * len(figures["gemm"])
        pictures.append(
            ("Where the MAC slots go", _plot(height, lambda axes: _draw_slots(figures, axes)))
        )
    content = [f"<h2>{html.escape(title)}</h2>\n{picture}" for title, picture in pictures]
    content += [_html(table) for table in tables(figures, before)]
    return _PAGE.format(content="\n".join(content))


def _html(table: _Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{html.escape(table.title)}</h2>\n<div class="wide"><table><thead>'
        f"{row(table.heads, 'th')}</thead><tbody>{body}</tbody></table></div>\n{note}"
    )
