"""Attributes by which Vivado's IP integrator knows the ports of a module (UG994).

They make the interfaces explicit that Vivado would have to infer from names, say which clock each
belongs to, and what the masters do, after which interconnects are dimensioned.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Clock", "Marks", "interface_marks", "mark_ports"]

Marks = Mapping[str, Mapping[str, str]]
"""Attributes of ports, by the name of the port."""

OUTSTANDING = 32
"""Bursts each way that an interconnect should keep under way for a master of the accelerator: as
many as the write striper does, and twice the full read bursts of the largest configurations."""


@dataclass(frozen=True)
class Clock:
    """A clock port.

    Parameters
    ----------
    port
        Its name.
    interfaces
        AXI interfaces whose ports belong to it.
    reset
        Port of its reset, active low, if it has one.
    """

    port: str
    interfaces: tuple[str, ...]
    reset: str | None = None


def interface_marks(
    ports: Iterable[str], clocks: Sequence[Clock], interrupt: str, bursts: Mapping[str, int]
) -> Marks:
    """Return the attributes of the ports of a module.

    Parameters
    ----------
    ports
        Names of its ports.
    clocks
        Its clocks; together they name every AXI interface.
    interrupt
        Port of the interrupt, a level, active high.
    bursts
        AXI4 masters of the accelerator, and their longest bursts in beats.

    Raises
    ------
    ValueError
        A port belongs to no interface.
    """
    marks: dict[str, dict[str, str]] = {}
    for clock in clocks:
        parameters = [f"ASSOCIATED_BUSIF {':'.join(clock.interfaces)}"]
        if clock.reset is not None:
            parameters.append(f"ASSOCIATED_RESET {clock.reset}")
            marks[clock.reset] = _signal("reset", clock.reset, "RST", "POLARITY ACTIVE_LOW")
        marks[clock.port] = _signal("clock", clock.port, "CLK", ", ".join(parameters))
    marks[interrupt] = _signal("interrupt", interrupt, "INTERRUPT", "SENSITIVITY LEVEL_HIGH")

    interfaces = [name for clock in clocks for name in clock.interfaces]
    for port in ports:
        owner = max(
            (name for name in interfaces if port.startswith(f"{name}_")), key=len, default=None
        )
        if owner is not None:
            signal = port.removeprefix(f"{owner}_").upper()
            marks[port] = {"X_INTERFACE_INFO": f"xilinx.com:interface:aximm:1.0 {owner} {signal}"}
        elif port not in marks:
            raise ValueError(f"port '{port}' belongs to none of: {', '.join(interfaces)}")
    for name, beats in bursts.items():
        marks[f"{name}_araddr"]["X_INTERFACE_PARAMETER"] = (
            f"XIL_INTERFACENAME {name}, MAX_BURST_LENGTH {beats}, SUPPORTS_NARROW_BURST 0, "
            f"NUM_READ_OUTSTANDING {OUTSTANDING}, NUM_WRITE_OUTSTANDING {OUTSTANDING}"
        )
    return marks


def mark_ports(verilog: str, marks: Marks) -> str:
    """Return the text of a module with attributes in front of the declarations of its ports.

    They aren't attributes of the component's signals, as a signal that is only passed on from
    another shares its wire, and its attributes.

    Raises
    ------
    ValueError
        A port isn't declared.
    """
    declared = set()

    def mark(match: re.Match[str]) -> str:
        declared.add(match["port"])
        attributes = marks.get(match["port"], {})
        lines = [f'  (* {name} = "{value}" *)\n' for name, value in attributes.items()]
        return "".join([*lines, match[0]])

    marked = re.sub(
        r"^  (?:input|output) (?:\[\d+:0\] )?(?P<port>\w+);$", mark, verilog, flags=re.M
    )
    missing = set(marks) - declared
    if missing:
        raise ValueError(f"no such ports: {', '.join(sorted(missing))}")
    return marked


def _signal(kind: str, port: str, role: str, parameters: str) -> dict[str, str]:
    return {
        "X_INTERFACE_INFO": f"xilinx.com:signal:{kind}:1.0 {port} {role}",
        "X_INTERFACE_PARAMETER": f"XIL_INTERFACENAME {port}, {parameters}",
    }
