"""What the FPGA offers beyond what synthesis makes of plain logic.

Gateware is the same for every FPGA, except for a few small parts that are made of an FPGA's
primitives where that saves much. Each has a generic version, which defines what it does.
"""

import enum
from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Const, Instance, Module, Mux, Signal, Value

__all__ = ["DEVICE_TECHNOLOGY", "Technology", "technology_of", "wide_select"]


class Technology(enum.Enum):
    """Family of FPGAs whose primitives may be used."""

    GENERIC = "generic"
    """None: plain logic that every tool takes, and that simulators run quickly."""
    ULTRASCALE_PLUS = "ultrascale_plus"
    ECP5 = "ecp5"
    """Multipliers of 18 by 18 bits, LUTs of four inputs, and the multiplexers behind these."""


DEVICE_TECHNOLOGY = {
    "generic": Technology.GENERIC,
    "xcvu9p": Technology.ULTRASCALE_PLUS,
    "xcu250": Technology.ULTRASCALE_PLUS,
    "lfe5u-85f": Technology.ECP5,
}
"""Technology of each device that a configuration may name."""


def technology_of(platform: Any) -> Technology:
    """Return the technology of what `elaborate` was given as `platform`.

    That is its attribute ``technology`` where it has one, and else what the ``family`` of
    Amaranth's platforms tells.
    """
    technology = getattr(platform, "technology", None)
    if isinstance(technology, Technology):
        return technology
    family = getattr(platform, "family", None)
    if family == "ultrascaleplus":
        return Technology.ULTRASCALE_PLUS
    return Technology.ECP5 if family == "ecp5" else Technology.GENERIC


def wide_select(m: Module, platform: Any, elements: Sequence[Any], index: Value) -> Value:
    """Return the one of 8 or 16 `elements` that `index` names.

    Parameters
    ----------
    m
        Module that takes the primitives.
    platform
        What `elaborate` was given.
    elements
        Values or views of equal width.
    index
        As wide as the number of elements needs.

    Raises
    ------
    ValueError
        There aren't 8 or 16 elements, their widths differ, or that of the index doesn't fit.
    """
    values = [Value.cast(element) for element in elements]
    widths = {len(value) for value in values}
    if len(values) not in (8, 16) or len(widths) != 1:
        raise ValueError(f"needs 8 or 16 elements of one width, got {len(values)} of {widths}")
    if 1 << len(index) != len(values):
        raise ValueError(f"an index of {len(index)} bits doesn't fit {len(values)} elements")
    technology = technology_of(platform)
    if technology is Technology.ULTRASCALE_PLUS:
        return _select_by_muxf(m, values, index)
    if technology is Technology.ECP5:
        return _select_by_pfumx(m, values, index)
    return _select(values, index)


def _select(values: Sequence[Value], index: Value) -> Value:
    """Select by a tree of plain choices, in simulators as quick as shifts of packed elements."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return Mux(index[-1], _select(values[half:], index[:-1]), _select(values[:half], index[:-1]))


def _select_by_muxf(m: Module, values: Sequence[Value], index: Value) -> Value:
    """Select by the multiplexers behind the LUTs of a slice (UG574).

    Four bits fill a LUT6; tools that don't use these multiplexers take half as many LUTs again.
    """
    if len(values) == 4:
        return _select(values, index)
    half = len(values) // 2
    low, high = (_select_by_muxf(m, part, index[:-1]) for part in (values[:half], values[half:]))
    selected = Signal(len(low))
    m.submodules += [
        Instance(
            {8: "MUXF7", 16: "MUXF8"}[len(values)],
            i_I0=low[bit],
            i_I1=high[bit],
            i_S=index[-1],
            o_O=selected[bit],
        )
        for bit in range(len(low))
    ]
    return selected


_SELECT_B = 0xCACA
"""What a LUT4 holds that gives B where C is set, else A."""


def _select_by_pfumx(m: Module, values: Sequence[Value], index: Value) -> Value:
    """Select by the multiplexers behind the LUTs of a slice (FPGA-DS-02012).

    Each LUT selects one of two bits, and no wire of the fabric leads from there to the selected
    one. Tools make it of LUTs alone, half as many again.
    """
    selected = Signal(len(values[0]))
    if len(values) == 2:
        low, high = values
    else:
        half = len(values) // 2
        low, high = (
            _select_by_pfumx(m, part, index[:-1]) for part in (values[:half], values[half:])
        )
    for bit in range(len(selected)):
        if len(values) == 2:
            ports = {"i_A": low[bit], "i_B": high[bit], "i_C": index, "i_D": Const(0)}
            multiplexer = Instance("LUT4", p_INIT=Const(_SELECT_B, 16), **ports, o_Z=selected[bit])
        elif len(values) == 4:
            ports = {"i_BLUT": low[bit], "i_ALUT": high[bit], "i_C0": index[-1]}
            multiplexer = Instance("PFUMX", **ports, o_Z=selected[bit])
        else:
            ports = {"i_D0": low[bit], "i_D1": high[bit], "i_SD": index[-1]}
            multiplexer = Instance("L6MUX21", **ports, o_Z=selected[bit])
        m.submodules += multiplexer
    return selected
