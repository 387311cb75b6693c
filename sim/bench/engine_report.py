"""What is reported of the tensor engine: area, products, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .report import CAUSE_TITLES, Figures, Report, Table, draw_slots, figure, get, picture
from .slots import CAUSES

__all__ = ["REPORT"]

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


def _elements(figures: Figures, before: Figures) -> Table:
    kinds = ("lut_per_mac", "lutram_per_mac", "ff_per_mac", "dsp_per_mac")
    rows = []

    def add(title: str, *path: str) -> None:
        new, old = get(figures, *path), get(before, *path)
        form = (",.1f", ",.1f", ",.1f", ".2f")
        cells = (figure(new[kind], get(old, kind), form) for kind, form in zip(kinds, form))
        rows.append((title, *cells))

    for name, element in figures["pe"]["presets"].items():
        add(f"{name}, for {element['device']}", "pe", "presets", name)
        add(f"{name}, board-neutral on xcup", "pe", "presets", name, "board_neutral")
    add("baseline: multiplier and FP32 adder", "baseline")
    for title, published in _PUBLISHED.items():
        rows.append((title, f"{published['lut_per_mac']:,}", "", "", f"{published['dsp_per_mac']}"))
    return Table(
        "Processing element, per MAC",
        ("", "LUT", "of it RAM", "FF", "DSP"),
        rows,
        f"LUTs with those that are memory; aimed at {_TARGET}, at most {_LIMIT}.",
    )


def _presets(figures: Figures, before: Figures) -> list[Table]:
    count, share, build = [], [], []
    for name, card in figures["presets"].items():
        old = get(before, "presets", name) or {}
        cells = (figure(card[key], old.get(key), ",.10g") for key in _RESOURCES)
        count.append((name, card["device"], f"{card['macs']:,}", *cells))
        shares = (
            figure(card["share"].get(key), get(old, "share", key), ".1%") for key in _RESOURCES
        )
        share.append((name, card["device_title"], *shares))
        if "elaborate_seconds" in card:
            peak, former = (
                each.get("elaborate_peak_bytes", 0) / 1e6 or None for each in (card, old)
            )
            build.append(
                (
                    name,
                    figure(card["elaborate_seconds"], old.get("elaborate_seconds"), ".1f"),
                    figure(card["elaborate_cpu_seconds"], old.get("elaborate_cpu_seconds"), ".1f"),
                    figure(peak, former),
                )
            )
    heads = tuple(_HEADS[key] for key in _RESOURCES)
    found = [
        Table(
            "Cards",
            ("", "device", "MACs", *heads),
            count,
            "By Yosys, each part synthesised once and summed over its instances. BRAM: blocks of "
            "36 Kb; for ulx3s blocks of 18 Kb (DP16KD), LUTs of four inputs, and 18 x 18 "
            "multipliers as DSP.",
        ),
        Table("Share of the device", ("", "", *heads), share),
    ]
    if build:
        found.append(
            Table("python -m rtl.build", ("", "seconds", "of a processor", "peak MB"), build)
        )
    return found


def _modules(figures: Figures, before: Figures) -> list[Table]:
    found = []
    for name, card in figures["presets"].items():
        rows = []
        former = {row["module"]: row for row in get(before, "presets", name, "modules") or ()}
        for row in card["modules"][:_SHOWN_MODULES]:
            times, old = row["instances"], former.get(row["module"], {})
            totals = (
                figure(row[key] * times, old[key] * old["instances"] if old else None, ",.10g")
                for key in _RESOURCES
            )
            each = figure(row["lut"], old.get("lut"))
            rows.append((row["module"], f"{times:,}", each, *totals))
        rest = card["modules"][_SHOWN_MODULES:]
        if rest:
            totals = (
                f"{sum(row[key] * row['instances'] for row in rest):,.10g}" for key in _RESOURCES
            )
            rows.append((f"{len(rest)} others", "", "", *totals))
        heads = tuple(_HEADS[key] for key in _RESOURCES)
        found.append(Table(f"{name} by module", ("", "times", "LUT each", *heads), rows))
    return found


def _depth(figures: Figures, before: Figures) -> Table:
    depth = figures["depth"]
    former = {stage["end"]: stage["ns"] for stage in get(before, "depth", "stages") or ()}
    rows = [
        (
            f"{stage['start']} to {stage['end']}",
            str(stage["levels"]),
            figure(stage["ns"], former.get(stage["end"]), ".2f"),
            _cells(stage["path"]),
        )
        for stage in depth["stages"][:_SHOWN_STAGES]
    ]
    return Table(
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


def _gemm(figures: Figures, before: Figures) -> Table:
    former = {_key(result): result for result in before.get("gemm", ())}
    rows = []
    for result in figures["gemm"]:
        old = former.get(_key(result), {})
        rows.append(
            (
                f"{result['preset']}: {_shape(result)}",
                f"{result['macs']:,}",
                figure(result["cycles"], old.get("cycles")),
                figure(result["utilisation"], old.get("utilisation"), ".1%"),
                f"{result['allowed']:.1%}",
                f"{result['stationary']:.1%}",
                *(f"{result['lost'][cause]:.1%}" for cause in CAUSES),
            )
        )
    return Table(
        "Products, operands in the scratchpads",
        (
            "m x n x k, pattern, contexts",
            "MACs",
            "cycles",
            "used",
            "allowed",
            "stationary",
            *CAUSE_TITLES.values(),
        ),
        rows,
        "Every result is that of the golden model, bit for bit. Used and lost MAC slots together "
        "are all of them. Allowed is what would be used if multiplying, or draining where that "
        "takes longer, went on without a pause; stationary what weights that stay in their "
        "processing elements would use at best, with sums passed down the rows of each way out.",
    )


def _speed(figures: Figures, before: Figures) -> Table:
    rows = [
        (
            name,
            f"{speed['macs']:,}",
            figure(
                speed["cycles_per_second"],
                get(before, "simulation", "presets", name, "cycles_per_second"),
            ),
        )
        for name, speed in figures["simulation"]["presets"].items()
    ]
    return Table("Verilated card, multiplying", ("", "MACs", "cycles/s"), rows)


def _model(figures: Figures, before: Figures) -> Table:
    model = figures["model"]
    accepted = before if get(before, "model", "preset") == model["preset"] else {}

    def cell(key: str) -> str:
        return figure(model[key], get(accepted, "model", key))

    row = (
        model["preset"],
        f"{model['macs']:,}",
        f"{model['cycles']:,}",
        f"{model['max_relative_error']:.2%}",
        cell("card_cycles_per_second"),
        cell("model_cycles_per_second"),
        cell("speed_ratio"),
    )
    heads = ("", "MACs", "cycles", "largest error", "card, cycles/s", "model, cycles/s", "ratio")
    return Table("Cycle model beside the Verilated card", heads, [row])


def _tables(figures: Figures, before: Figures) -> list[Table]:
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
    if "model" in figures:
        found.append(_model(figures, before))
    return found


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


def _pictures(figures: Figures) -> list[tuple[str, str]]:
    """Return title and picture of what was measured."""
    pictures = []
    if "pe" in figures:
        pictures += [
            ("LUT per MAC", picture(2.8, lambda axes: _draw_elements(figures, axes))),
            ("Share of the device", picture(3.6, lambda axes: _draw_shares(figures, axes))),
        ]
    if figures.get("gemm"):
        bars = [(f"{each['preset']}: {_shape(each)}", each) for each in figures["gemm"]]
        pictures.append(("Where the MAC slots go", draw_slots(bars)))
    return pictures


REPORT = Report("engine", "Tensor engine: area, products, speed", _tables, _pictures)
