"""Charts as inline SVG, whose colours follow the page's."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["COLOURS", "STYLE", "Bar", "Dot", "Roof", "Span", "roofline", "stacked_bars", "timeline"]

_COLOURS = (
    ("#2a6f97", "#4fa3d1"),
    ("#e09f3e", "#f0b95e"),
    ("#9e2a2b", "#e06666"),
    ("#5c8d4e", "#86c270"),
    ("#7b5ea7", "#a98fd6"),
    ("#c06c84", "#e493aa"),
    ("#3d9a9a", "#63cfcf"),
    ("#8d6e63", "#bf9c90"),
    ("#b5446e", "#e0709a"),
    ("#7a9e1f", "#b3d94c"),
    ("#6c757d", "#9aa4ad"),
    ("#ced4da", "#495057"),
)
"""In light and in dark."""

COLOURS = len(_COLOURS)
"""Kinds that can be told from each other."""

STYLE = (
    ".chart { width: 100%; height: auto; font: 11px system-ui, sans-serif; }\n"
    ".chart text { fill: var(--ink); } .chart text.in { fill: var(--paper); }\n"
    ".chart text.muted { fill: var(--muted); }\n"
    ".chart .rule { stroke: var(--rule); } .chart .roof { stroke: var(--muted); fill: none; }\n"
    ".chart rect.ground { fill: var(--rule); opacity: 0.35; }\n"
    + "".join(f".c{i} {{ fill: {light}; }}\n" for i, (light, _) in enumerate(_COLOURS))
    + "@media (prefers-color-scheme: dark) {\n"
    + "".join(f".c{i} {{ fill: {dark}; }}\n" for i, (_, dark) in enumerate(_COLOURS))
    + "}\n"
)
"""Rules (CSS) that the charts need."""

_WIDTH = 1100

_LABEL = 230
"""Room for the names of rows."""


@dataclass(frozen=True)
class Bar:
    """A row of a stacked bar chart: the length of each of its parts, by name."""

    name: str
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Span:
    """Part of a row of a timeline: its kind, from when to when, and words about it."""

    row: str
    kind: str
    start: float
    end: float
    words: str


@dataclass(frozen=True)
class Dot:
    """A point of a roofline: where it lies, its kind, words about it, and its size."""

    x: float
    y: float
    kind: str
    words: str
    radius: float = 5


@dataclass(frozen=True)
class Roof:
    """A bound of a roofline: ``y = slope * x``, or a constant if there's no slope."""

    name: str
    slope: float | None = None
    constant: float = 0.0


def _tag(name: str, content: str = "", **attributes: object) -> str:
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{content}</{name}>"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _title(words: str) -> str:
    return _tag("title", html.escape(words))


def _chart(height: float, content: Sequence[str], words: str) -> str:
    return _tag(
        "svg", "".join(content), class_="chart", viewBox=f"0 0 {_WIDTH} {math.ceil(height)}",
        role="img", aria_label=words,
    )  # fmt: skip


def _legend(kinds: Sequence[str]) -> tuple[list[str], float]:
    """Return a legend of colours, and its height."""
    content, x, y = [], 0.0, 0.0
    for index, kind in enumerate(kinds):
        width = 24 + 6.2 * len(kind)
        if x and x + width > _WIDTH:
            x, y = 0.0, y + 18
        content.append(_tag("rect", x=x, y=y, width=11, height=11, class_=_colour(index)))
        content.append(_tag("text", html.escape(kind), x=x + 16, y=y + 10))
        x += width
    return content, y + 26


def _colour(index: int) -> str:
    return f"c{index % len(_COLOURS)}"


def stacked_bars(bars: Sequence[Bar], kinds: Sequence[str], words: str) -> str:
    """Return horizontal bars of stacked parts, all of one scale from zero.

    Parameters
    ----------
    bars
        From top to bottom.
    kinds
        Names of the parts, in their order.
    words
        What the chart shows, for readers that can't see it.
    """
    content, top = _legend(kinds)
    scale = (_WIDTH - _LABEL) / max(sum(bar.parts.values()) for bar in bars)
    for index, bar in enumerate(bars):
        y, x = top + 22 * index, float(_LABEL)
        content.append(_tag("text", html.escape(bar.name), x=0, y=y + 13))
        for number, kind in enumerate(kinds):
            width = bar.parts.get(kind, 0.0) * scale
            if width <= 0:
                continue
            content.append(
                _tag(
                    "rect", _title(f"{bar.name}: {kind} {bar.parts[kind]:.1%}"),
                    x=x, y=y, width=width, height=17, class_=_colour(number),
                )
            )  # fmt: skip
            if width > 36:
                content.append(
                    _tag("text", f"{bar.parts[kind]:.1%}", x=x + 4, y=y + 12.5, class_="in")
                )
            x += width
    return _chart(top + 22 * len(bars), content, words)


def timeline(spans: Sequence[Span], kinds: Sequence[str], unit: str, words: str) -> str:
    """Return what goes on when, a row for each name in the order of the first appearances.

    Parameters
    ----------
    spans
        What is shown.
    kinds
        Of the spans, in the order of the legend.
    unit
        Of the time.
    words
        What the chart shows, for readers that can't see it.
    """
    rows = {name: index for index, name in enumerate(dict.fromkeys(span.row for span in spans))}
    content, top = _legend(kinds)
    end = max(span.end for span in spans)
    scale = (_WIDTH - _LABEL - 20) / end
    height = 12 * len(rows)
    step = _round_step(end)
    for number in range(int(end / step) + 1):
        x = _LABEL + number * step * scale
        content.append(_tag("line", x1=x, x2=x, y1=top, y2=top + height, class_="rule"))
        text = f"{number * step:g}" + (f" {unit}" if number * step + step > end else "")
        content.append(_tag("text", text, x=x, y=top + height + 13, class_="muted"))
    for name, index in rows.items():
        content.append(
            _tag("text", html.escape(name[:42]), x=0, y=top + 12 * index + 9.5, class_="muted")
        )
    for span in spans:
        content.append(
            _tag(
                "rect", _title(f"{span.row}: {span.words}"),
                x=_LABEL + span.start * scale, y=top + 12 * rows[span.row] + 1.5,
                width=max((span.end - span.start) * scale, 0.6), height=9,
                class_=_colour(kinds.index(span.kind)),
            )
        )  # fmt: skip
    return _chart(top + height + 20, content, words)


def roofline(
    dots: Sequence[Dot], roofs: Sequence[Roof], kinds: Sequence[str], axes: tuple[str, str],
    words: str,
) -> str:  # fmt: skip
    """Return points below bounds, both axes logarithmic.

    Parameters
    ----------
    dots
        Points, drawn in their order.
    roofs
        Bounds of y.
    kinds
        Of the points, in the order of the legend.
    axes
        What x and y are.
    words
        What the chart shows, for readers that can't see it.
    """
    content, top = _legend(kinds)
    left, width, height = 60.0, _WIDTH - 80.0, 420.0
    x_range = _decades([dot.x for dot in dots])
    y_range = _decades([*(dot.y for dot in dots), *(roof.constant for roof in roofs)])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
        up = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        return left + width * across, top + height * (1 - up)

    content.append(_tag("rect", x=left, y=top, width=width, height=height, class_="ground", rx=3))
    for power in range(x_range[0], x_range[1] + 1):
        x, y = place(10.0**power, 10.0 ** y_range[0])
        content.append(_tag("line", x1=x, x2=x, y1=top, y2=y, class_="rule"))
        content.append(
            _tag("text", f"{10.0**power:g}", x=x, y=y + 14, text_anchor="middle", class_="muted")
        )
    for power in range(y_range[0], y_range[1] + 1):
        x, y = place(10.0 ** x_range[0], 10.0**power)
        content.append(_tag("line", x1=x, x2=x + width, y1=y, y2=y, class_="rule"))
        content.append(
            _tag("text", f"{10.0**power:g}", x=x - 6, y=y + 4, text_anchor="end", class_="muted")
        )
    for index, roof in enumerate(roofs):
        content += _drawn_roof(roof, x_range, y_range, place, 12 + 14 * index)
    for dot in dots:
        x, y = place(dot.x, dot.y)
        content.append(
            _tag(
                "circle", _title(dot.words), cx=x, cy=y, r=dot.radius,
                class_=_colour(kinds.index(dot.kind)),
                opacity=0.9 if dot.radius >= 4 else 0.45,
            )
        )  # fmt: skip
    content.append(
        _tag("text", html.escape(axes[0]), x=left + width, y=top + height + 30, text_anchor="end")
    )
    content.append(_tag("text", html.escape(axes[1]), x=left + 8, y=top + 14))
    return _chart(top + height + 36, content, words)


def _drawn_roof(
    roof: Roof,
    x_range: tuple[int, int],
    y_range: tuple[int, int],
    place: Callable[[float, float], tuple[float, float]],
    below: float,
) -> list[str]:
    """Return the line of a bound within the chart, and its name near the line's upper end."""
    low, high = 10.0 ** x_range[0], 10.0 ** x_range[1]
    bottom, limit = 10.0 ** y_range[0], 10.0 ** y_range[1]
    if roof.slope is None:
        ends = (low, roof.constant), (high, roof.constant)
    else:
        first, last = max(low, bottom / roof.slope), min(high, limit / roof.slope)
        ends = (first, first * roof.slope), (last, last * roof.slope)
    (x1, y1), (x2, y2) = (place(*end) for end in ends)
    flat = roof.slope is None
    return [
        _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="roof", stroke_dasharray="6 3"),
        _tag(
            "text", html.escape(roof.name), x=x2 - 6 if flat else x2 + 6,
            y=y2 - 5 if flat else y2 + below, text_anchor="end" if flat else "start",
        ),
    ]  # fmt: skip


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which positive values lie."""
    positive = [value for value in values if value > 0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return low, max(high, low + 1)


def _round_step(end: float) -> float:
    """Return a round distance of which 4 to 10 make up `end`."""
    power = 10.0 ** math.floor(math.log10(end))
    return next(power * part for part in (0.1, 0.2, 0.5, 1.0) if end / (power * part) <= 10)
