"""What the gateware takes of an FPGA, and what it takes to elaborate it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rtl
from rtl.build import elaborate
from rtl.config import Config, preset
from rtl.engine.pe import ProcessingElement
from rtl.technology import DEVICE_TECHNOLOGY, Technology
from rtl.top import Top

from ..area import DEVICES, RESOURCES, count, device_of
from ..cache import digest, locked
from ..synthesis import CACHE, Part, Synthesised, instances, parts, synthesise_all
from .baseline import FloatMac
from .depth import DSP_MEGAHERTZ, DSP_PICOSECONDS, stages

__all__ = ["card_figures", "elaboration", "measure"]

Progress = Callable[[str], None]

TOP = "sat"

_BASELINE = "baseline"

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class _Design:
    """A design to synthesise: what it is for, its Verilog in parts, and the Yosys command."""

    name: str
    parts: list[Part]
    command: str

    def jobs(self) -> list[tuple[Part, str, bool]]:
        """Return what to synthesise; the netlist of what multiplies is kept."""
        return [(part, self.command, part.name.endswith(("_pe", _BASELINE))) for part in self.parts]


def _verilog(
    make: Callable[[], Any], name: str, recipe: Sequence[Any], technology: Technology
) -> dict[str, str]:
    """Return the Verilog of a component, elaborated only if its sources have changed."""
    sources = [
        path.read_text()
        for folder in (Path(rtl.__path__[0]), Path(__file__).parent)
        for path in sorted(folder.rglob("*.py"))
    ]
    folder = CACHE / f"{name}-{digest([*recipe, technology.value, sources])}"
    index = folder / "files.txt"
    with locked(folder):
        if not index.exists():
            folder.mkdir(parents=True, exist_ok=True)
            files = elaborate(make(), name, technology)
            for file, text in files.items():
                (folder / file).write_text(text)
            index.write_text("\n".join(files))
        return {file: (folder / file).read_text() for file in index.read_text().split("\n")}


def _card(config: Config) -> _Design:
    """Return a preset's card, for the device that it's made for."""
    technology = DEVICE_TECHNOLOGY[config.device]
    files = _verilog(partial(Top, config), TOP, [repr(config)], technology)
    return _Design(config.name, parts(files, TOP), device_of(config).family.command)


def _alone(make: Callable[[], Any], name: str, recipe: Sequence[Any] = ()) -> _Design:
    """Return a component by itself, board-neutral, on UltraScale+."""
    files = _verilog(make, name, recipe, Technology.GENERIC)
    return _Design(name, parts(files, name, flat=True), DEVICES["xcvu9p"].family.command)


def measure(presets: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Return area and logic depth.

    Parameters
    ----------
    presets
        Names of configurations; the last one's processing element stands for all.
    progress
        Is told what is under way.

    Returns
    -------
    ``presets`` by name, ``pe``, ``baseline`` and ``depth``, as `sim.bench` describes them.
    """
    configs = [preset(name) for name in presets]
    designs = []
    for config in configs:
        progress(f"elaborate {config.name}")
        designs.append(_card(config))
        name = f"{config.name.replace('-', '_')}_neutral_pe"
        designs.append(_alone(partial(ProcessingElement, config), name, [repr(config)]))
    designs.append(_alone(FloatMac, _BASELINE))

    jobs = list(dict.fromkeys(job for design in designs for job in design.jobs()))
    ready = iter(range(1, len(jobs) + 1))

    def report(name: str) -> None:
        progress(f"synthesis {next(ready)} of {len(jobs)}: {name}")

    results = dict(zip(jobs, synthesise_all(jobs, report), strict=True))

    def modules(design: _Design) -> dict[str, Synthesised]:
        return {job[0].name: results[job] for job in design.jobs()}

    elements: dict[str, Any] = {}
    cards: dict[str, Any] = {}
    for index, config in enumerate(configs):
        card, neutral = modules(designs[2 * index]), modules(designs[2 * index + 1])
        cards[config.name] = card_figures(config, card)
        element = next(module for name, module in card.items() if name.endswith("_pe"))
        elements[config.name] = {
            "device": device_of(config).name,
            **_per_mac(count(element.cells, device_of(config).family), config.lanes),
            "board_neutral": _per_mac(
                count(next(iter(neutral.values())).cells, DEVICES["xcvu9p"].family), config.lanes
            ),
        }
    baseline = next(iter(modules(designs[-1]).values()))
    chosen = configs[-1]
    main = {"preset": chosen.name} | elements[chosen.name]
    figures = {
        "pe": main | {"presets": elements},
        "baseline": _per_mac(count(baseline.cells), 1),
        "presets": cards,
    }
    if device_of(chosen).family.name == "xcup":
        card = modules(designs[2 * (len(configs) - 1)])
        element = next(module for name, module in card.items() if name.endswith("_pe"))
        figures["depth"] = _depth(chosen, element)
    return figures


def _per_mac(resources: Mapping[str, float], macs: int) -> dict[str, float]:
    return {
        f"{name}_per_mac": round(resources[name] / macs, 2)
        for name in ("lut", "lutram", "ff", "dsp")
    }


def card_figures(config: Config, modules: Mapping[str, Synthesised]) -> dict[str, Any]:
    """Return the resources of a card, in all and for each part."""
    device = device_of(config)
    number = instances(modules, TOP)
    table: list[dict[str, Any]] = []
    for name, module in modules.items():
        resources = count(module.cells, device.family)
        table.append({"module": _title(name), "instances": number[name], **resources})
    table.sort(key=lambda row: -row["lut"] * row["instances"])
    totals = {
        resource: sum(row[resource] * row["instances"] for row in table) for resource in RESOURCES
    }
    return {
        "macs": config.macs,
        "device": device.name,
        "device_title": device.title,
        "technology": DEVICE_TECHNOLOGY[config.device].value,
        **totals,
        "share": {
            resource: round(totals[resource] / total, 5)
            for resource, total in device.totals.items()
        },
        "modules": table,
    }


def _title(module: str) -> str:
    """Return what a table calls a part: the last name of its path."""
    return module.rpartition(".")[2].partition("$")[0]


def _depth(config: Config, element: Synthesised) -> dict[str, Any]:
    """Return the logic depth of a processing element, stage by stage."""
    found = stages(element.netlist())
    return {
        "preset": config.name,
        "dsp_megahertz": DSP_MEGAHERTZ,
        "dsp_ns": round(DSP_PICOSECONDS / 1000, 3),
        "worst_ns": found[0].picoseconds / 1000,
        "longest_path_cells": element.depth(),
        "longer_than_dsp": sum(stage.picoseconds > DSP_PICOSECONDS for stage in found),
        "stages": [
            {
                "start": stage.start, "end": stage.end, "levels": stage.levels,
                "path": list(stage.path), "ns": stage.picoseconds / 1000,
            }
            for stage in found
        ],
    }  # fmt: skip


def elaboration(name: str) -> dict[str, float]:
    """Return what ``python -m rtl.build`` takes for a preset, its children included.

    That is the time it takes, the processor time in it, and the most memory at one moment.

    Raises
    ------
    RuntimeError
        It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rtl.build", "--preset", name, "--out", folder]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, _resident_bytes(process.pid))
                time.sleep(_POLL_SECONDS)
            seconds = time.monotonic() - started
            if process.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{process.stderr.read()}")  # type: ignore[union-attr]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "elaborate_seconds": round(seconds, 2),
        "elaborate_cpu_seconds": round(processor, 2),
        "elaborate_peak_bytes": peak,
    }


def _resident_bytes(process: int) -> int:
    """Return the memory that a process and its descendants hold at this moment."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(
        _resident_bytes(int(child)) for child in children
    )
