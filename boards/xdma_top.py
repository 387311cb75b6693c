"""The accelerator as a card with a PCIe DMA engine (XDMA, PG195) places it."""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.config import PAGE_BYTES, Config
from rtl.interface.axi import ADDRESS_BITS
from rtl.top import Top

from .interfaces import Clock, Marks, interface_marks

__all__ = ["XdmaTop", "masters"]

HOST_BITS = 512
"""Data width of the DMA engine with 16 lanes of PCIe Gen3."""

HOST_ID_BITS = 4
"""Width of the DMA engine's AXI IDs."""

PAGE_BITS = PAGE_BYTES.bit_length() - 1


def masters(config: Config) -> tuple[str, ...]:
    """Return the names of the accelerator's AXI4 masters, one for each channel."""
    if config.channels == 1:
        return ("m_axi",)
    return tuple(f"m_axi_{channel}" for channel in range(config.channels))


class XdmaTop(wiring.Component):
    """Accelerator and host in one address space: channel after channel, each as large as a window.

    Memory is striped over its channels in pages of 4 KiB. For the host this is undone on its way to
    memory: it sees the card's addresses as the accelerator's programs do. No AXI burst crosses a
    page, so that only the bits of the address change places.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    window_bytes
        Distance from one channel's memory to the next, a power of two.

    Attributes
    ----------
    ap_clk, ap_rst_n, m_axi_*, s_axi_control_*
        Those of `rtl.top.Top`; each master addresses the window of its channel, unless registers
        say otherwise.
    host_clk : In
        Clock of the DMA engine, to which these ports belong:
    s_axi_host_* : AXI4 slave
        For the DMA engine; addresses are those of the card.
    m_axi_host_* : AXI4 master
        To the memory of all channels.
    interrupt : Out
        Level, active high.
    windows
        Where the memory of each channel begins.

    Raises
    ------
    ValueError
        A channel's memory is larger than a window.
    """

    def __init__(self, config: Config, window_bytes: int) -> None:
        if config.memory_bytes > config.channels * window_bytes:
            raise ValueError(
                f"memory_bytes is {config.memory_bytes}, must be at most "
                f"{config.channels} x {window_bytes}"
            )
        self._config = config
        self._window_bits = window_bytes.bit_length() - 1
        self.windows = [channel * window_bytes for channel in range(config.channels)]
        self._top = Top(config, memory_bases=self.windows)
        self._core_ports = dict(self._top.signature.members.items())
        self._host_ports = _host_ports()
        ports: dict[str, Any] = self._core_ports | {"host_clk": In(1)}
        for name, width, from_host in self._host_ports:
            ports[f"s_axi_host_{name}"] = (In if from_host else Out)(width)
            ports[f"m_axi_host_{name}"] = (Out if from_host else In)(width)
        super().__init__(ports)

    @property
    def marks(self) -> Marks:
        """Attributes of the ports."""
        clocks = (
            Clock("ap_clk", (*masters(self._config), "s_axi_control"), "ap_rst_n"),
            Clock("host_clk", ("s_axi_host", "m_axi_host")),
        )
        bursts = dict.fromkeys(masters(self._config), self._config.burst_beats)
        return interface_marks(self.signature.members, clocks, "interrupt", bursts)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.sat = top = self._top
        m.domains.host = host = ClockDomain(reset_less=True)
        m.d.comb += host.clk.eq(self.host_clk)

        for name, member in self._core_ports.items():
            outside, inside = getattr(self, name), getattr(top, name)
            if member.flow is In:
                m.d.comb += inside.eq(outside)
            elif name != "interrupt":
                m.d.comb += outside.eq(inside)
        interrupt_sync = Signal(2, attrs={"ASYNC_REG": "TRUE"})
        m.d.host += interrupt_sync.eq(Cat(top.interrupt, interrupt_sync[0]))
        m.d.comb += self.interrupt.eq(interrupt_sync[1])

        for name, _, from_host in self._host_ports:
            slave, master = getattr(self, f"s_axi_host_{name}"), getattr(self, f"m_axi_host_{name}")
            if name in ("araddr", "awaddr"):
                m.d.comb += master.eq(self._bus_address(slave))
            elif from_host:
                m.d.comb += master.eq(slave)
            else:
                m.d.comb += slave.eq(master)
        return m

    def _bus_address(self, address: Value) -> Value:
        """Return where a byte of the card's memory is on the bus.

        The page's channel moves up to the number of the window. Addresses beyond the card's memory
        stay beyond it, so that the bus answers with an error.
        """
        bits = (self._config.channels - 1).bit_length()
        page, top = PAGE_BITS + bits, self._window_bits + bits
        return Cat(address[:PAGE_BITS], address[page:top], address[PAGE_BITS:page], address[top:])


def _host_ports() -> list[tuple[str, int, bool]]:
    """List the signals of the host's AXI4 port: name, width, and whether the host drives it."""
    address = [
        ("id", HOST_ID_BITS), ("addr", ADDRESS_BITS), ("len", 8), ("size", 3), ("burst", 2),
        ("lock", 1), ("cache", 4), ("prot", 3), ("valid", 1),
    ]  # fmt: skip
    return [
        *((f"aw{name}", width, True) for name, width in address),
        ("awready", 1, False),
        ("wdata", HOST_BITS, True),
        ("wstrb", HOST_BITS // 8, True),
        ("wlast", 1, True),
        ("wvalid", 1, True),
        ("wready", 1, False),
        ("bid", HOST_ID_BITS, False),
        ("bresp", 2, False),
        ("bvalid", 1, False),
        ("bready", 1, True),
        *((f"ar{name}", width, True) for name, width in address),
        ("arready", 1, False),
        ("rid", HOST_ID_BITS, False),
        ("rdata", HOST_BITS, False),
        ("rresp", 2, False),
        ("rlast", 1, False),
        ("rvalid", 1, False),
        ("rready", 1, True),
    ]
