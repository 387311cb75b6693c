"""The report of a sweep: figures (JSON), tables (text), and a page of HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .evaluate import Job
from .sweep import Result
from .tables import tables

__all__ = ["text", "write"]

Figures = Mapping[str, Any]


def text(figures: Figures) -> str:
    """Return all tables as text."""
    return "\n\n".join(table.text() for table in tables(figures))


def write(figures: Figures, results: Mapping[Job, Result], directory: Path) -> list[Path]:
    """Write ``networks.json``, ``networks.txt`` and ``networks.html``; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {"json": json.dumps(figures, indent=2) + "\n", "txt": text(figures) + "\n"}
    paths = {directory / f"networks.{kind}": content for kind, content in contents.items()}
    for path, content in paths.items():
        path.write_text(content)
    return list(paths)
