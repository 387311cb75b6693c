"""What pages of reports share: one self-contained file, readable in light and in dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["page", "table"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SAT: {title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #212529; --muted: #495057; --rule: #dee2e6;
  --paper: #ffffff; --good: #2b7a3d; --bad: #9e2a2b; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e9ecef; --muted: #adb5bd; --rule: #3a4047; --paper: #16191c; --good: #6fcf85;
    --bad: #ff8787; }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: 0.25rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2.25rem; }}
p.lead {{ color: var(--muted); margin-top: 0; }}
p.note {{ color: var(--muted); font-size: 0.875rem; }}
img, .picture svg {{ width: 100%; height: auto; }}
img, .picture {{ background: #ffffff; border-radius: 4px; }}
div.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 0.875rem; }}
th, td {{ text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
thead th {{ border-bottom: 2px solid var(--muted); white-space: normal; vertical-align: bottom; }}
summary {{ cursor: pointer; color: var(--muted); }}
.exact {{ color: var(--good); font-weight: 600; }}
.wrong {{ color: var(--bad); font-weight: 600; }}
{style}</style>
</head>
<body>
<h1>{heading}</h1>
{content}
</body>
</html>
"""


def page(title: str, heading: str, content: str, *, style: str = "") -> str:
    """Return a page.

    Parameters
    ----------
    title, heading
        Of the page, as text.
    content
        What stands below the heading, as HTML.
    style
        Rules (CSS) beside those that all pages have.
    """
    return _PAGE.format(
        title=html.escape(title), heading=html.escape(heading), content=content, style=style
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML: the first column is text, the others are figures.

    It scrolls by itself if it's wider than the page.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return (
        f'<div class="wide"><table><thead>{row(heads, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
