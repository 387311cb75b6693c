"""Where the cycles of a training step go, and what keeps a method from its ceiling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["GAP", "cycles_by_cause", "gap", "shortfall"]

GAP = 0.03
"""Distance from the ceiling, of it, from which on its causes are told."""

_OPERAND = "no product ready"

_KINDS = {
    "BatchNorm": "batch normalisation",
    "LayerNorm": "layer normalisation",
    "MaxPool": "max pooling",
    "GlobalAveragePool": "average pooling",
    "Addition": "additions",
    "Convolution": "statistics and gradients of convolutions",
    "Attention": "attention",
    "GELU": "GELU",
    "PositionEmbedding": "positions",
    "Loss": "loss",
}
"""What the vector unit is busy for, by kind of layer."""

_WAITS = {
    "store": "results on their way to memory",
    "update": "weight updates",
    "load": "operands on their way from memory",
    "idle": "latency",
}
"""What else the array waits for."""


def cycles_by_cause(result: Mapping[str, Any]) -> dict[str, float]:
    """Divide the cycles of a step by what the multipliers did, or why they did nothing.

    ``useful`` are the cycles that the multiply-adds of the network would take if all multipliers
    worked on them; all causes together are the step's cycles.
    """
    counters, macs = result["counters"], result["macs"]
    useful = result["kept_macs"]
    causes: dict[str, float] = {
        "useful": useful / macs,
        "padding": (counters["EDGE_MACS"] + counters["USEFUL_MACS"] - useful) / macs,
        "sparser than the ratio": counters["FILLER_MACS"] / macs,
        "filling": counters["LOST_FILL"],
        "draining": counters["LOST_DRAIN"],
    }
    waits: Counter[str] = Counter()
    for layer in result["layers"]:
        for holder, cycles in layer["held"].items():
            if holder == "vector":
                waits[f"vector unit: {_KINDS.get(layer['kind'], layer['kind'])}"] += cycles
            elif holder != "array":
                waits[_WAITS[holder]] += cycles
    # The array waits for its operands for a few cycles of a product under way as well.
    waits[_OPERAND] = counters["LOST_OPERAND"] - sum(waits.values())
    return causes | {name: float(cycles) for name, cycles in waits.items() if cycles}


def shortfall(result: Mapping[str, Any], dense: Mapping[str, Any]) -> float:
    """Return by how much of the ceiling a method falls short of it; below zero if it's above."""
    speedup = dense["cycles"]["total"] / result["cycles"]["total"]
    return float(1 - speedup / result["ceiling"])


def gap(result: Mapping[str, Any], dense: Mapping[str, Any]) -> dict[str, float]:
    """Return what each cause adds to a method's distance from its ceiling.

    At the ceiling everything would take a ceiling-th of what it takes in dense training. What a
    cause takes beyond that, of the method's cycles, is its part; all together are `shortfall`.
    """
    total, ceiling = result["cycles"]["total"], result["ceiling"]
    own, other = cycles_by_cause(result), cycles_by_cause(dense)
    parts = {
        cause: (own.get(cause, 0.0) - other.get(cause, 0.0) / ceiling) / total
        for cause in dict.fromkeys([*own, *other])
        if cause != "useful"
    }
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
