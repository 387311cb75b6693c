"""From a component to Verilog files."""

from typing import Any

from .block import to_verilog

__all__ = ["elaborate"]


class _Files:
    """Collects the Verilog of the blocks that a design places."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def add_file(self, filename: str, content: str) -> None:
        if self.files.setdefault(filename, content) != content:
            raise ValueError(f"two different modules are called '{filename}'")


def elaborate(component: Any, name: str) -> dict[str, str]:
    """Return the Verilog of `component` by file name, its top module `name` first.

    Every `Block` that the component places is a file of its own. Ports are called as their path in
    the signature, joined by two underscores (``command__payload``); a port with a layout is one
    packed vector. ``clk`` and ``rst`` belong to the domain ``sync``.

    Raises
    ------
    ValueError
        Two different blocks have one name, or another clock domain than ``sync`` is used.
    """
    platform = _Files()
    text, _ = to_verilog(component, name, platform)
    platform.add_file(f"{name}.v", text)
    return {f"{name}.v": text} | platform.files
