"""The accelerator as boards and simulators see it: flat port names, one clock, one reset."""

from collections.abc import Sequence

from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from .accelerator import Accelerator
from .config import Config
from .interface.flatten import Flattened

__all__ = ["Top"]


class Top(wiring.Component):
    """Top level, with the port names that Vivado and Vitis recognise.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    memory_bases
        Where the channels' memory begins on the bus; see `Accelerator`.

    Attributes
    ----------
    ap_clk, ap_rst_n : In
        Clock, and synchronous reset (active low).
    m_axi_* : AXI4 master
        With several channels one for each: m_axi_0_*, m_axi_1_* and so on.
    s_axi_control_* : AXI4-Lite slave
    interrupt : Out
        Level, active high.
    """

    def __init__(self, config: Config, memory_bases: Sequence[int] | None = None) -> None:
        self._accelerator = Flattened(
            Accelerator(config, memory_bases), read="m_axi", write="m_axi", control="s_axi_control"
        )
        super().__init__(
            {"ap_clk": In(1), "ap_rst_n": In(1)} | dict(self._accelerator.signature.members.items())
        )

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = sync = ClockDomain()
        m.d.comb += [sync.clk.eq(self.ap_clk), sync.rst.eq(~self.ap_rst_n)]
        m.submodules.accelerator = accelerator = self._accelerator
        for name, member in accelerator.signature.members.items():
            outside, inside = getattr(self, name), getattr(accelerator, name)
            if member.flow is In:
                m.d.comb += inside.eq(outside)
            else:
                m.d.comb += outside.eq(inside)
        return m
