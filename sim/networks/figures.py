"""The figures of a sweep: ``networks.json``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .causes import GAP, cycles_by_cause, gap, shortfall
from .evaluate import Job
from .points import BANDWIDTH, CLOCK_HZ, Point
from .sweep import Result

__all__ = [
    "DENSE",
    "PUBLISHED",
    "Record",
    "failures",
    "job_for",
    "jobs",
    "networks_of",
    "records_of",
    "summary",
]

Record = tuple[str, str, Mapping[str, Any]]
"""Network, method, and their figures at a point."""

DENSE = "dense"

PUBLISHED = 1.75
"""Speedup of 2:8 over dense training that the published system reports. (C. Fang et al.,
"Efficient N:M sparse DNN training using algorithm, architecture, and dataflow co-design", 2023.)"""


def jobs(points: Iterable[Point], networks: Mapping[str, int], methods: Sequence[str]) -> list[Job]:
    """Return what has to be evaluated: each method, and dense training beside it.

    Parameters
    ----------
    points
        Design points.
    networks
        Batches by the names of networks.
    methods
        Names of training methods.
    """
    found: dict[Job, None] = {}
    for point in points:
        for network, batch in networks.items():
            for method in (DENSE, *methods):
                found[job_for(point, network, method, batch)] = None
    return list(found)


def job_for(point: Point, network: str, method: str, batch: int) -> Job:
    """Return the job of a network and a method at a design point."""
    return Job(network, method, point.preset, batch)


def failures(results: Mapping[Job, Result]) -> list[tuple[Job, str]]:
    """Return the jobs that couldn't be done, with the reasons."""
    return [(job, result["error"]) for job, result in results.items() if "error" in result]


def summary(
    points: Sequence[Point],
    networks: Mapping[str, int],
    methods: Sequence[str],
    results: Mapping[Job, Result],
) -> dict[str, Any]:
    """Return the figures of all points: ``points`` and ``failed`` of ``networks.json``."""
    figures: list[dict[str, Any]] = []
    for point in points:
        table: dict[str, dict[str, Any]] = {}
        for network, batch in networks.items():
            dense = results[job_for(point, network, DENSE, batch)]
            for method in methods:
                result = results[job_for(point, network, method, batch)]
                if "error" not in result and "error" not in dense:
                    table.setdefault(network, {})[method] = _record(result, dense)
        figures.append(
            {
                "name": point.name,
                "macs": point.macs,
                "bandwidth_bytes_per_s": BANDWIDTH,
                "clock_hz": CLOCK_HZ,
                "networks": table,
                "geomean": _geomeans(table, methods, "speedup"),
                "geomean_ceiling": _geomeans(table, methods, "ceiling"),
            }
        )
    _add_scaling(figures, methods)
    failed = [{"job": str(job), "reason": reason} for job, reason in failures(results)]
    return {"points": figures, "failed": failed}


def records_of(point: Mapping[str, Any]) -> list[Record]:
    """Return the figures of a point, with the names of network and method."""
    return [
        (network, method, record)
        for network, methods in point["networks"].items()
        for method, record in methods.items()
    ]


def networks_of(table: Mapping[str, Mapping[str, Any]], method: str) -> list[str]:
    """Return the networks of a point that have figures for a method."""
    return [network for network, methods in table.items() if method in methods]


def _record(result: Result, dense: Result) -> dict[str, Any]:
    total = result["cycles"]["total"]
    short = shortfall(result, dense)
    record = {
        "preset": result["preset"],
        "batch": result["batch"],
        "cycles": result["cycles"],
        "cycles_dense": dense["cycles"]["total"],
        "utilisation": result["utilisation"],
        "bytes": result["read_bytes"] + result["written_bytes"],
        "read_bytes": result["read_bytes"],
        "written_bytes": result["written_bytes"],
        "images_per_s": _rate(result, total),
        "speedup": dense["cycles"]["total"] / total,
        "ceiling": result["ceiling"],
        "shortfall": short,
        "lost": result["lost"],
        "held": result["held"],
        "causes": {cause: cycles / total for cause, cycles in cycles_by_cause(result).items()},
        "images_per_s_allowed": _allowed(result),
    }
    if short > GAP:
        record["gap"] = gap(result, dense)
    return record


def _rate(result: Result, cycles: float) -> float:
    return float(result["batch"] * CLOCK_HZ / cycles)


def _allowed(result: Result) -> dict[str, float]:
    """Return the images a second if nothing else took time than what is moved, or multiplied."""
    moved = result["read_bytes"] + result["written_bytes"]
    return {
        "memory": _rate(result, moved / (BANDWIDTH / CLOCK_HZ)),
        "port": _rate(result, result["port_bytes"] / result["beat_bytes"]),
        "multipliers": _rate(result, result["kept_macs"] / result["macs"]),
    }


def _geomeans(
    table: Mapping[str, Mapping[str, Any]], methods: Sequence[str], key: str
) -> dict[str, float]:
    """Return the geometric mean of a figure over all networks, for methods that all have."""
    means = {}
    for method in methods:
        values = [table[network][method][key] for network in networks_of(table, method)]
        if values:
            means[method] = math.exp(sum(map(math.log, values)) / len(values))
    return means


def _add_scaling(figures: Sequence[dict[str, Any]], methods: Sequence[str]) -> None:
    """Add by how much each point is faster than the first, and than it could be at most."""
    first = figures[0]["networks"]
    for point in figures[1:]:
        for network, records in point["networks"].items():
            for method, record in records.items():
                if method in first.get(network, {}):
                    before = first[network][method]["images_per_s"]
                    record["over_first"] = record["images_per_s"] / before
                    record["over_first_allowed"] = {
                        limit: rate / before
                        for limit, rate in record["images_per_s_allowed"].items()
                    }
        done = {
            network: {name: record for name, record in records.items() if "over_first" in record}
            for network, records in point["networks"].items()
        }
        point["geomean_over_first"] = _geomeans(done, methods, "over_first")
