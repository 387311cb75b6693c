"""AXI ports under the flat names that vendor tools and testbenches recognise.

`Flattened` wraps a component and renames its AXI ports; all its other ports keep name and meaning::

    top = Flattened(core, axi_read="m_axi", axi_write="m_axi", control="s_axi_control")

turns the ports ``axi_read`` (`AXI4ReadSignature`, out) and ``axi_write`` (`AXI4WriteSignature`,
out) into one AXI4 master ``m_axi_araddr``, ..., ``m_axi_bready`` and ``control``
(`AXI4LiteSignature`, in) into the AXI4-Lite slave ``s_axi_control_awaddr`` and so on. In an array
of AXI ports the number of each follows the prefix: ``m_axi_0_araddr``, ``m_axi_1_araddr``. What the
gateware doesn't vary is constant: ID 0, INCR bursts of full-width beats, no lock, normal
non-cacheable bufferable memory, unprivileged secure data access. Several ports may share a prefix
as long as no name occurs twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Flow, In, Out

from .axi import AXI4LiteSignature, AXI4ReadSignature, AXI4WriteSignature, Burst

__all__ = ["Flattened"]


@dataclass(frozen=True)
class _Wire:
    """One flat port: its name, its direction and the signal or constant behind it."""

    name: str
    flow: Flow
    """`Out` if this side drives it."""
    width: int
    value: Value | None
    """`None` for an input that is ignored."""


class Flattened(wiring.Component):
    """`component` with its AXI ports under flat names.

    Parameters
    ----------
    component
        What to wrap; becomes the submodule ``inner``.
    **prefixes
        For each AXI port of `component` that is to be renamed, what its flat names begin with.

    Raises
    ------
    ValueError
        A port named in `prefixes` doesn't exist, or two ports would get the same flat name.
    TypeError
        A port named in `prefixes` isn't an AXI port.
    """

    def __init__(self, component: wiring.Component, **prefixes: str) -> None:
        self._component = component
        self._wires: list[_Wire] = []
        self._plain: list[str] = []
        members = dict(component.signature.members.items())
        for name in prefixes:
            if name not in members:
                raise ValueError(f"no port '{name}' to flatten; there are: {', '.join(members)}")
        flat: dict[str, Any] = {}
        for name, member in members.items():
            if name not in prefixes:
                self._plain.append(name)
                flat[name] = member
                continue
            for prefix, port in _numbered(prefixes[name], getattr(component, name)):
                for wire in _wires(prefix, member, port):
                    if wire.name in flat:
                        raise ValueError(f"two ports would be called '{wire.name}'")
                    self._wires.append(wire)
                    flat[wire.name] = wire.flow(wire.width)
        super().__init__(flat)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = self._component
        for wire in self._wires:
            port = getattr(self, wire.name)
            if wire.flow is Out:
                m.d.comb += port.eq(wire.value)
            elif wire.value is not None:
                m.d.comb += wire.value.eq(port)
        for name in self._plain:
            member = self.signature.members[name]
            outside, inside = getattr(self, name), getattr(inner, name)
            if member.is_port and member.flow is Out:
                m.d.comb += Value.cast(outside).eq(Value.cast(inside))
            elif member.is_port:
                m.d.comb += Value.cast(inside).eq(Value.cast(outside))
            else:
                wiring.connect(m, wiring.flipped(outside), inside)
        return m


def _numbered(prefix: str, port: Any) -> Iterator[tuple[str, Any]]:
    """Yield the port and its prefix, of an array each port and a prefix with its number."""
    if isinstance(port, list | tuple):
        for number, element in enumerate(port):
            yield from _numbered(f"{prefix}_{number}", element)
    else:
        yield prefix, port


def _wires(prefix: str, member: wiring.Member, port: Any) -> list[_Wire]:
    """List the flat ports of the AXI port `port`, which is `member` or an element of it."""
    kind = type(member.signature) if member.is_signature else None
    if kind is wiring.FlippedSignature:
        kind = type(member.signature.flip())
    if kind is AXI4ReadSignature:
        return [
            *_address(f"{prefix}_ar", port.ar, len(port.r.payload.data)),
            *_handshake(f"{prefix}_r", port.r, In),
            _Wire(f"{prefix}_rid", In, 1, None),
            *_fields(f"{prefix}_r", port.r, In),
        ]
    if kind is AXI4WriteSignature:
        w = port.w.payload
        return [
            *_address(f"{prefix}_aw", port.aw, len(w.data)),
            *_handshake(f"{prefix}_w", port.w, Out),
            _Wire(f"{prefix}_wdata", Out, len(w.data), w.data),
            _Wire(f"{prefix}_wstrb", Out, len(w.data) // 8, w.strb.replicate(len(w.data) // 8)),
            _Wire(f"{prefix}_wlast", Out, 1, w.last),
            *_handshake(f"{prefix}_b", port.b, In),
            _Wire(f"{prefix}_bid", In, 1, None),
            *_fields(f"{prefix}_b", port.b, In),
        ]
    if kind is AXI4LiteSignature:
        to_slave, to_master = (Out, In) if member.flow is Out else (In, Out)
        return [
            *_lite_address(f"{prefix}_aw", port.aw, to_slave),
            *_handshake(f"{prefix}_w", port.w, to_slave),
            *_fields(f"{prefix}_w", port.w, to_slave),
            *_handshake(f"{prefix}_b", port.b, to_master),
            *_fields(f"{prefix}_b", port.b, to_master),
            *_lite_address(f"{prefix}_ar", port.ar, to_slave),
            *_handshake(f"{prefix}_r", port.r, to_master),
            *_fields(f"{prefix}_r", port.r, to_master),
        ]
    raise TypeError(f"port for prefix '{prefix}' is {member!r}, not an AXI port")


def _handshake(prefix: str, channel: Any, flow: Flow) -> list[_Wire]:
    """Ports valid and ready of a channel whose payload has direction `flow`."""
    back = In if flow is Out else Out
    return [
        _Wire(f"{prefix}valid", flow, 1, channel.valid),
        _Wire(f"{prefix}ready", back, 1, channel.ready),
    ]


def _fields(prefix: str, channel: Any, flow: Flow) -> list[_Wire]:
    """Ports of the fields of a channel whose payload is a struct."""
    layout = data.Layout.cast(channel.payload.shape())
    values = {name: Value.cast(channel.payload[name]) for name, _ in layout}
    return [_Wire(f"{prefix}{name}", flow, len(value), value) for name, value in values.items()]


def _address(prefix: str, channel: Any, data_bits: int) -> list[_Wire]:
    """Ports of an AXI4 master's AR or AW channel."""
    size = (data_bits // 8).bit_length() - 1
    constants = {
        "id": Const(0, 1),
        "size": Const(size, 3),
        "burst": Const(Burst.INCR.value, 2),
        "lock": Const(0, 1),
        "cache": Const(0b0011, 4),
        "prot": Const(0b000, 3),
        "qos": Const(0, 4),
    }
    return [
        *_handshake(prefix, channel, Out),
        *_fields(prefix, channel, Out),
        *(_Wire(f"{prefix}{name}", Out, len(value), value) for name, value in constants.items()),
    ]


def _lite_address(prefix: str, channel: Any, flow: Flow) -> list[_Wire]:
    """Ports of an AXI4-Lite AR or AW channel; the slave ignores the protection bits."""
    address = Value.cast(channel.payload)
    return [
        *_handshake(prefix, channel, flow),
        _Wire(f"{prefix}addr", flow, len(address), address),
        _Wire(f"{prefix}prot", flow, 3, Const(0, 3) if flow is Out else None),
    ]
