"""Logic depth: the longest path into each register of a synthesised block.

Yosys has no timing for UltraScale+, and no placement is known. So delays are a simple model of
speed grade -2 at 0.85 V, in picoseconds, from the cell delays that RapidWright publishes for that
family (``timing/ultrascaleplus/intrasite_delay_terms.txt``, and its dumps of DSP timing; method: P.
Maidee et al., "An open-source lightweight timing model for RapidWright", FPT 2019), with the same
delay for every net. It tells stages apart and compares them with the DSP slice; it doesn't replace
timing after routing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DSP_MEGAHERTZ", "DSP_PICOSECONDS", "Stage", "stages"]

DSP_MEGAHERTZ = 775
"""DSP48E2 with all its registers, speed grade -2 at 0.85 V (DS923, DSP48 slice switching
characteristics, FMAX)."""

DSP_PICOSECONDS = 1e6 / DSP_MEGAHERTZ

NET = 200
"""A net between slices: 43 to leave one, some 110 for two doubles or a quad, 48 to enter one."""

LUT = 100
"""Inputs take 35 to 150 ps, the critical ones mostly the quicker pins."""

_CLOCK_TO_OUTPUT = {"FD": 77, "RAM": 312, "SRL": 312, "DSP": 280, "BRAM": 220}

_SETUP = {"FD": 25, "RAM": 117, "SRL": 69, "DSP": 300, "BRAM": 300}

# Into the ALU of a DSP slice without an input register, and into the multiplier without any.
_TO_ALU, _TO_MULTIPLIER = 550, 1450

_TO_FLIP_FLOP = {"LUT": 50, "MUXF": 32, "CARRY": 25}
"""From a cell to the flip-flop behind it in the same slice."""

_AROUND_THE_LUT = 100
"""From a pin of the slice to a flip-flop, past its LUT."""

_DSP_REGISTERS = {
    "A": "AREG", "B": "BREG", "C": "CREG", "OPMODE": "OPMODEREG", "ALUMODE": "ALUMODEREG",
    "INMODE": "INMODEREG", "CARRYIN": "CARRYINREG", "CARRYINSEL": "CARRYINSELREG", "D": "DREG",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """The longest path into the registers of one name.

    Parameters
    ----------
    start, end
        Names of the registers it runs between; numbered ones are one.
    levels
        Cells between them.
    path
        Their types, from the first to the last.
    picoseconds
        From clock to clock.
    """

    start: str
    end: str
    levels: int
    path: tuple[str, ...]
    picoseconds: float


def _kind(cell: str) -> str:
    """Return the class of a cell type."""
    if cell == "INV":
        return "LUT"
    for kind in ("LUT", "MUXF", "CARRY", "FD", "RAMB", "RAM", "SRL", "DSP", "URAM"):
        if cell.startswith(kind):
            return {"RAMB": "BRAM", "URAM": "BRAM"}.get(kind, kind)
    return ""


def _is_clock(kind: str, port: str) -> bool:
    return port == "C" if kind == "FD" else port in ("CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK")


class _Timing:
    """Arrival times in a netlist."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.cells = {name: cell for name, cell in module["cells"].items() if _kind(cell["type"])}
        self.names = _bit_names(module)
        self.driver: dict[int, tuple[str, str, int]] = {}
        for name, cell in self.cells.items():
            for port, index, bit in _bits(cell, "output"):
                self.driver[bit] = (name, port, index)
        # When a bit is stable, the bit that it waits for, and where that path started.
        self._arrival: dict[int, tuple[float, int | None]] = {}

    def arrival(self, bit: int) -> float:
        """Return how long after the clock `bit` is stable, at the output of its driver."""
        todo = [bit]
        while todo:
            current = todo[-1]
            if current in self._arrival:
                todo.pop()
                continue
            source = self.driver.get(current)
            if source is None:
                # An input of the block, which comes from a register.
                self._arrival[current] = (_CLOCK_TO_OUTPUT["FD"], None)
                continue
            arcs = list(self._arcs(*source))
            waiting = [before for before, _ in arcs if before not in self._arrival]
            if waiting:
                todo.extend(waiting)
                continue
            kind = _kind(self.cells[source[0]]["type"])
            best: tuple[float, int | None] = (_CLOCK_TO_OUTPUT.get(kind, 0), None)
            for before, delay in arcs:
                best = max(best, (self._arrival[before][0] + delay, before), key=lambda x: x[0])
            self._arrival[current] = best
        return self._arrival[bit][0]

    def path(self, bit: int) -> tuple[int, list[str]]:
        """Return the bit that the longest path to `bit` starts from, and the cells it goes by."""
        cells: list[str] = []
        self.arrival(bit)
        while (before := self._arrival[bit][1]) is not None:
            cells.append(self.cells[self.driver[bit][0]]["type"])
            bit = before
        return bit, cells[::-1]

    def endpoints(self) -> Iterator[tuple[str, int, float]]:
        """Yield each registered input: the register's name, the bit, and what is added to its
        arrival."""
        for name, cell in self.cells.items():
            kind = _kind(cell["type"])
            if kind not in _SETUP:
                continue
            for port, _, bit in _bits(cell, "input"):
                if _is_clock(kind, port) or (kind in ("RAM", "SRL") and self._reads(cell, port)):
                    continue
                yield self._register(name, cell, port), bit, self._entry(cell, kind, port, bit)

    def _entry(self, cell: Mapping[str, Any], kind: str, port: str, bit: int) -> float:
        """Return net and setup of an endpoint."""
        before = self._kind_of_driver(bit)
        if kind == "FD" and port == "D":
            if before in _TO_FLIP_FLOP:
                return _TO_FLIP_FLOP[before] + _SETUP["FD"]
            return NET + _AROUND_THE_LUT + _SETUP["FD"]
        if kind == "DSP":
            return _dsp_entry(cell, port)
        return NET + _SETUP[kind]

    def _kind_of_driver(self, bit: int) -> str:
        source = self.driver.get(bit)
        return _kind(self.cells[source[0]]["type"]) if source else ""

    @staticmethod
    def _reads(cell: Mapping[str, Any], port: str) -> bool:
        """Whether a port of a memory in LUTs is only for reading, without a clock."""
        if cell["type"].startswith("SRL"):
            return port.startswith("A")
        if cell["type"] in ("RAM32M", "RAM64M"):
            return port in ("ADDRA", "ADDRB", "ADDRC")
        if cell["type"] in ("RAM32M16", "RAM64M8"):
            return port in tuple(f"ADDR{letter}" for letter in "ABCDEFG")
        return port.startswith("DPRA")

    def _arcs(self, name: str, port: str, index: int) -> Iterator[tuple[int, float]]:
        """Yield the inputs that an output of a cell follows without a clock, each with its net."""
        cell = self.cells[name]
        kind = _kind(cell["type"])
        for source, place, bit in _bits(cell, "input"):
            if kind == "LUT":
                yield bit, NET + LUT
            elif kind == "MUXF":
                yield bit, NET + 77 if source == "S" else 25 + 70
            elif kind == "CARRY":
                delay = _carry(source, place, port, index, len(cell["connections"]["S"]))
                if delay is not None:
                    before = self._kind_of_driver(bit)
                    chained = source == "CI" and before == "CARRY"
                    yield bit, delay + (0 if chained else 15 if before == "LUT" else NET)
            elif kind in ("RAM", "SRL") and self._reads(cell, source):
                letter = port[-1]
                if len(source) != 5 or not source.startswith("ADDR") or source[-1] == letter:
                    yield bit, NET + LUT

    def _register(self, name: str, cell: Mapping[str, Any], port: str) -> str:
        outputs = [bit for _, _, bit in _bits(cell, "output") if bit in self.names]
        if cell["type"].startswith("FD") and outputs:
            return self.names[outputs[0]]
        return f"{cell['type']}.{port}"

    def start_name(self, bit: int) -> str:
        """Return what to call the register that drives `bit`."""
        if bit in self.names:
            return self.names[bit]
        source = self.driver.get(bit)
        return f"{self.cells[source[0]]['type']}.{source[1]}" if source else "input"


def _carry(source: str, place: int, port: str, index: int, bits: int) -> float | None:
    """Return the delay in a carry chain of `bits` from an input to an output, None if there is
    none."""
    if source in ("CI", "CI_TOP", "CYINIT"):
        # Through a whole CARRY8, with the way to the next one: 23 + 26 + 20.
        return 8.6 * bits if port == "CO" and index == bits - 1 else 116
    if index < place or (source == "DI" and port == "O" and index == place):
        return None
    if index == place:
        return 65
    return 139 if index - place < 4 else 241


def _dsp_entry(cell: Mapping[str, Any], port: str) -> float:
    """Return net and setup of an input of a DSP slice, as its registers are."""
    if port == "PCIN":
        return _TO_ALU
    parameters = cell.get("parameters", {})
    register = _DSP_REGISTERS.get(port)
    if register is None or _number(parameters.get(register, "1")):
        return NET + _SETUP["DSP"]
    if port in ("A", "B", "D") and not _number(parameters.get("MREG", "1")):
        return NET + _TO_MULTIPLIER
    return NET + _TO_ALU


def _number(parameter: str | int) -> int:
    return parameter if isinstance(parameter, int) else int(parameter, 2)


def _bits(cell: Mapping[str, Any], direction: str) -> Iterator[tuple[str, int, int]]:
    """Yield port, place and number of each bit in one direction; constants have no number."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"].get(port) == direction:
            for index, bit in enumerate(bits):
                if isinstance(bit, int):
                    yield port, index, bit


def _bit_names(module: Mapping[str, Any]) -> dict[int, str]:
    """Return what each bit is called, numbers in the name left out."""
    names: dict[int, str] = {}
    for name, net in module["netnames"].items():
        if net.get("hide_name"):
            continue
        scope, dot, last = name.replace("\\", "").rpartition(".")
        scope = re.sub(r"(?<=_)\d+(?=\.|$)", "*", scope)
        last = re.sub(r"\$\d+", "", last)
        unnamed = not last or last.startswith("$") or re.fullmatch(r"_\d+_", last)
        plain = scope + dot + ("(unnamed)" if unnamed else re.sub(r"(?<=_)\d+$", "*", last))
        for bit in net["bits"]:
            # The shortest name, as the one nearest to the top.
            if isinstance(bit, int) and _rank(plain) < _rank(names.get(bit)):
                names[bit] = plain
    return names


def _rank(name: str | None) -> tuple[bool, float]:
    return (name is None or "(" in name, len(name) if name else float("inf"))


def stages(module: Mapping[str, Any]) -> list[Stage]:
    """Return the longest path into the registers of each name, the longest first.

    Parameters
    ----------
    module
        A synthesised module, as Yosys writes it to JSON.
    """
    timing = _Timing(module)
    worst: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for end, bit, entry in timing.endpoints():
        worst[end] = max(worst[end], (timing.arrival(bit) + entry, bit))
    found = []
    for end, (picoseconds, bit) in worst.items():
        start, path = timing.path(bit)
        name = timing.start_name(start)
        found.append(Stage(name, end, len(path), tuple(path), round(picoseconds)))
    return sorted(found, key=lambda stage: (-stage.picoseconds, stage.end))
