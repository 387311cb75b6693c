"""How well the cycle model does beside the gateware: what the benchmark has measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..bench import cycle_model

__all__ = ["model_figures"]

_PRESET = "tiny"
"""What is measured if the benchmark wasn't run: its card is compiled in no time."""

_KEYS = ("max_relative_error", "speed_ratio", "preset")


def model_figures(directory: Path) -> dict[str, Any]:
    """Return ``max_relative_error`` and ``speed_ratio`` of the cycle model, and on which preset.

    Parameters
    ----------
    directory
        Where the benchmark has left its ``engine.json``, if it was run; else both are measured, on
        the smallest preset.

    Raises
    ------
    BuildError
        The Verilated card can't be compiled.
    """
    path = directory / "engine.json"
    kept = json.loads(path.read_text()).get("model") if path.exists() else None
    figures = kept or cycle_model.measure(_PRESET, lambda text: None)
    return {key: figures[key] for key in _KEYS}
