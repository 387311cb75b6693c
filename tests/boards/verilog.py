"""What the boards' scripts may name, read from the Verilog that they were made with."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Design", "Port"]


@dataclass(frozen=True)
class Port:
    """A port of the top level, with its attributes."""

    output: bool
    width: int
    attributes: dict[str, str]


@dataclass
class _Module:
    ports: dict[str, Port] = field(default_factory=dict)
    registers: dict[str, int] = field(default_factory=dict)
    """Widths by name."""
    instances: dict[str, str] = field(default_factory=dict)
    """Modules by name."""


class Design:
    """The hierarchy below the module `top` in files that Yosys wrote."""

    def __init__(self, files: list[Path], top: str) -> None:
        text = "\n".join(file.read_text() for file in files)
        self._modules = {
            _plain(name): _read(body)
            for name, body in re.findall(r"^module (\S+) ?\((.*?)^endmodule", text, re.M | re.S)
        }
        self._top = top
        self.ports = self._modules[top].ports

    def interfaces(self) -> dict[str, dict[str, Port]]:
        """Return the AXI interfaces that the ports' attributes tell of, by signal."""
        interfaces: dict[str, dict[str, Port]] = {}
        for port in self.ports.values():
            kind, name, signal = port.attributes["X_INTERFACE_INFO"].split()
            if kind == "xilinx.com:interface:aximm:1.0":
                interfaces.setdefault(name, {})[signal] = port
        return interfaces

    def clocks(self) -> dict[str, str]:
        """Return the clock port of each AXI interface, as the attributes say."""
        clocks: dict[str, str] = {}
        for name, port in self.ports.items():
            parameters = port.attributes.get("X_INTERFACE_PARAMETER", "").split(", ")
            for parameter in parameters:
                key, _, value = parameter.partition(" ")
                if key == "ASSOCIATED_BUSIF":
                    clocks |= dict.fromkeys(value.split(":"), name)
        return clocks

    def cells(self) -> Iterator[str]:
        """Yield the path of every instance, and the flip-flops of the top level, as Vivado does."""
        for register, width in self._modules[self._top].registers.items():
            yield from (f"{register}_reg[{bit}]" for bit in range(width))
        yield from self._instances(self._top, "")

    def _instances(self, module: str, path: str) -> Iterator[str]:
        # Primitives of the FPGA are no modules here.
        if module in self._modules:
            for name, part in self._modules[module].instances.items():
                yield f"{path}{name}"
                yield from self._instances(part, f"{path}{name}/")


def _plain(name: str) -> str:
    return name.removeprefix("\\")


def _read(body: str) -> _Module:
    module = _Module()
    attributes: dict[str, str] = {}
    for line in body.splitlines():
        if match := re.fullmatch(r'  \(\* (\w+) = "?(.*?)"? \*\)', line):
            attributes[match[1]] = match[2]
            continue
        if match := re.fullmatch(r"  (input|output) (?:\[(\d+):0\] )?(\S+) ?;", line):
            width = int(match[2] or 0) + 1
            module.ports[_plain(match[3])] = Port(match[1] == "output", width, attributes)
        elif match := re.fullmatch(
            r"  reg (?:\[(\d+):0\] )?(\S+) ( = .*)?;", line.replace(" =", "  =")
        ):
            module.registers[_plain(match[2])] = int(match[1] or 0) + 1
        elif match := re.fullmatch(r"  (\S+)  ?(\S+)  ?\(", line):
            module.instances[_plain(match[2])] = _plain(match[1])
        attributes = {}
    return module
