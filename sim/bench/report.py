"""What the reports of a benchmark share: JSON, tables as text, and a page of HTML with pictures."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware import page

from .slots import CAUSES

__all__ = [
    "CAUSE_TITLES",
    "Figures",
    "Report",
    "Table",
    "draw_slots",
    "figure",
    "get",
    "picture",
]

Figures = Mapping[str, Any]

CAUSE_TITLES = {
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
class Table:
    """A table: the first column is text, the others are figures."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def text(self) -> str:
        """Return the table in columns."""
        lines = [self.heads, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.heads))]

        def join(line: Sequence[str]) -> str:
            cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
            return "  ".join([line[0].ljust(widths[0]), *cells]).rstrip()

        parts = [self.title, join(self.heads), *(join(row) for row in self.rows), self.note]
        return "\n".join(part for part in parts if part)

    def html(self) -> str:
        """Return the table under its title."""

        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return f"<h2>{html.escape(self.title)}</h2>\n{page.table(self.heads, self.rows)}\n{note}"


@dataclass(frozen=True)
class Report:
    """A report, and the files that it is written to.

    Parameters
    ----------
    name
        Of its files.
    title
        Of its page.
    tables
        Gives the tables of what was measured, with the changes against accepted figures.
    pictures
        Gives titles and pictures, as SVG, of what was measured.
    """

    name: str
    title: str
    tables: Callable[[Figures, Figures], list[Table]]
    pictures: Callable[[Figures], list[tuple[str, str]]]

    def text(self, figures: Figures, before: Figures) -> str:
        """Return all tables as text."""
        return "\n\n".join(table.text() for table in self.tables(figures, before))

    def write(self, figures: Figures, before: Figures, directory: Path) -> list[Path]:
        """Write figures (JSON), tables (text) and the page (HTML); return their paths."""
        contents = {
            "json": json.dumps(figures, indent=2) + "\n",
            "txt": self.text(figures, before) + "\n",
            "html": self._page(figures, before),
        }
        return self._write(directory, contents)

    def accept(self, figures: Figures, directory: Path) -> list[Path]:
        """Keep figures and tables for later runs to be compared with; return their paths."""
        contents = {
            "json": json.dumps(figures, indent=1) + "\n",
            "txt": self.text(figures, {}) + "\n",
        }
        return self._write(directory, contents)

    def accepted(self, directory: Path) -> Figures:
        """Return the figures that were accepted last, none if there are none."""
        path = directory / f"{self.name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _write(self, directory: Path, contents: Mapping[str, str]) -> list[Path]:
        directory.mkdir(parents=True, exist_ok=True)
        paths = {directory / f"{self.name}.{kind}": content for kind, content in contents.items()}
        for path, content in paths.items():
            path.write_text(content)
        return list(paths)

    def _page(self, figures: Figures, before: Figures) -> str:
        """Return one self-contained page: the pictures, then all tables."""
        drawn = self.pictures(figures)
        content = [
            f'<h2>{html.escape(title)}</h2>\n<div class="picture">{picture}</div>'
            for title, picture in drawn
        ]
        content += [table.html() for table in self.tables(figures, before)]
        return page.page(self.title, self.title, "\n".join(content))


def figure(new: float | None, old: float | None, form: str = ",.0f") -> str:
    """Return a figure, with the change against the accepted one where there is one."""
    if new is None:
        return ""
    shown = format(new, form)
    if old is None or shown == format(old, form):
        return shown
    change = f"{new / old - 1:+.1%}" if old else "new"
    return f"{shown} ({change})"


def get(figures: Figures, *path: str) -> Any:
    """Return what stands at a path in the figures, None if nothing does."""
    place: Any = figures
    for key in path:
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return place


def picture(height: float, draw: Callable[[Any], None]) -> str:
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
        canvas, axes = plt.subplots(figsize=(9, height))
        draw(axes)
        canvas.set_layout_engine("constrained")
        file = io.StringIO()
        canvas.savefig(file, format="svg")
        plt.close(canvas)
    return file.getvalue()[file.getvalue().index("<svg") :]


def draw_slots(bars: Sequence[tuple[str, Figures]]) -> str:
    """Return a picture of the MAC slots used and lost, a bar each.

    Parameters
    ----------
    bars
        Name and figures of each: ``utilisation``, and ``lost`` by cause.
    """

    def draw(axes: Any) -> None:
        names, results = zip(*bars[::-1])
        places = range(len(results))
        left = [0.0] * len(results)
        for cause in ("useful", *CAUSES):
            widths = [
                100 * (result["utilisation"] if cause == "useful" else result["lost"][cause])
                for result in results
            ]
            label = "used" if cause == "useful" else CAUSE_TITLES[cause]
            axes.barh(places, widths, left=left, color=_COLOURS[cause], label=label, height=0.75)
            left = [start + width for start, width in zip(left, widths)]
        for place, result in enumerate(results):
            axes.annotate(
                f"{result['utilisation']:.1%}", (1, place), color="white", va="center", fontsize=9
            )
        axes.set_yticks(places, names)
        axes.set_ylim(-0.5, len(results) - 0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of MAC slots")
        axes.figure.legend(frameon=False, ncols=6, loc="outside upper center", fontsize=9)

    return picture(1.2 + 0.27 * len(bars), draw)
