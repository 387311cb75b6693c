"""Attributes by which Vivado's IP integrator knows the ports of a module (UG994).

They make the interfaces explicit that Vivado would have to infer from names, say which clock each
belongs to, and what the masters do, after which interconnects are dimensioned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Clock", "mark_interfaces"]

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


def mark_interfaces(
    component: Any, clocks: Sequence[Clock], interrupt: str, bursts: Mapping[str, int]
) -> None:
    """Give the ports of `component` their attributes.

    Parameters
    ----------
    component
        A component whose ports have flat names, before it's elaborated.
    clocks
        Its clocks; together they name every AXI interface.
    interrupt
        Port of the interrupt, a level, active high.
    bursts
        AXI4 masters of the accelerator, and their longest bursts in beats.

    Raises
    ------
    ValueError
        A port belongs to no interface, or an interface has no port.
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
    for port in component.signature.members:
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
    for port, attributes in marks.items():
        if port not in component.signature.members:
            raise ValueError(f"there is no port '{port}'")
        getattr(component, port).attrs.update(attributes)


def _signal(kind: str, port: str, role: str, parameters: str) -> dict[str, str]:
    return {
        "X_INTERFACE_INFO": f"xilinx.com:signal:{kind}:1.0 {port} {role}",
        "X_INTERFACE_PARAMETER": f"XIL_INTERFACENAME {port}, {parameters}",
    }
