"""A block design, put together from the calls that made it, with what is known of its parts."""

import itertools
import re
from dataclasses import dataclass, field

from tests.boards.tcl import Call, Run
from tests.boards.verilog import Design

__all__ = ["BlockDesign"]


@dataclass
class Cell:
    """A cell: its pins and buses, and the board's interfaces that it is made for.

    Product guides: PG195 (xdma), PG150 (ddr4), PG247 (smartconnect), PG065 (clk_wiz), PG164
    (proc_sys_reset).
    """

    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    masters: set[str] = field(default_factory=set)
    slaves: set[str] = field(default_factory=set)
    board: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    """Inputs that may be left open."""
    parameters: set[str] = field(default_factory=set)
    clocks: dict[str, str] = field(default_factory=dict)
    """Clock pin of each bus; a bus of an interconnect has any of its clocks."""


def _ip(name: str, parameters: dict[str, str]) -> Cell:
    match name:
        case "util_ds_buf":
            return Cell(outputs={"IBUF_OUT", "IBUF_DS_ODIV2"}, board={"CLK_IN_D"})
        case "xdma":
            return Cell(
                inputs={"sys_clk", "sys_clk_gt", "usr_irq_req"},
                outputs={"axi_aclk", "axi_aresetn", "usr_irq_ack", "user_lnk_up"},
                masters={"M_AXI", "M_AXI_LITE"},
                board={"pcie_mgt", "RST.sys_rst_n"},
                parameters={
                    "pl_link_cap_max_link_width", "pl_link_cap_max_link_speed",
                    "xdma_axi_intf_mm", "axi_data_width", "axisten_freq", "xdma_rnum_chnl",
                    "xdma_wnum_chnl", "xdma_num_usr_irq", "axilite_master_en",
                    "axilite_master_size", "axilite_master_scale",
                },
                clocks={"M_AXI": "axi_aclk", "M_AXI_LITE": "axi_aclk"},
            )  # fmt: skip
        case "clk_wiz":
            return Cell(
                inputs={"clk_in1", "resetn"},
                outputs={"clk_out1", "locked"},
                parameters={
                    "PRIM_SOURCE", "PRIM_IN_FREQ", "CLKOUT1_REQUESTED_OUT_FREQ", "RESET_TYPE",
                },
            )  # fmt: skip
        case "proc_sys_reset":
            return Cell(
                inputs={"slowest_sync_clk", "ext_reset_in", "dcm_locked"},
                outputs={"peripheral_aresetn", "interconnect_aresetn", "peripheral_reset"},
                optional={"dcm_locked"},
            )
        case "xlconstant":
            return Cell(outputs={"dout"}, parameters={"CONST_WIDTH", "CONST_VAL"})
        case "ddr4":
            return Cell(
                inputs={"sys_rst", "c0_ddr4_aresetn"},
                outputs={"c0_ddr4_ui_clk", "c0_ddr4_ui_clk_sync_rst", "c0_init_calib_complete"},
                slaves={"C0_DDR4_S_AXI", "C0_DDR4_S_AXI_CTRL"},
                board={"C0_DDR4", "C0_SYS_CLK"},
                clocks=dict.fromkeys(("C0_DDR4_S_AXI", "C0_DDR4_S_AXI_CTRL"), "c0_ddr4_ui_clk"),
            )
        case "smartconnect":
            clocks = int(parameters["NUM_CLKS"])
            return Cell(
                inputs={"aresetn", "aclk", *(f"aclk{n}" for n in range(1, clocks))},
                masters={f"M{n:02}_AXI" for n in range(int(parameters["NUM_MI"]))},
                slaves={f"S{n:02}_AXI" for n in range(int(parameters["NUM_SI"]))},
                parameters={"NUM_CLKS", "NUM_MI", "NUM_SI"},
            )
    raise AssertionError(f"no IP {name}")


BOARD = {
    "pcie_refclk", "pci_express_x16", "pcie_perstn",
    *(f"ddr4_sdram_c{n}" for n in range(4)), *(f"default_300mhz_clk{n}" for n in range(4)),
}  # fmt: skip
"""Interfaces of the VCU1525's board files that are of use here."""

SEGMENTS = {
    "C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK": "C0_DDR4_S_AXI",
    "C0_DDR4_MEMORY_MAP_CTRL/C0_REG": "C0_DDR4_S_AXI_CTRL",
}
"""Slave interface of each address segment of a memory controller."""


class BlockDesign:
    """A design; every call is checked as it's taken.

    Attributes
    ----------
    cells
        By name.
    drivers
        Output pin that drives each input pin that is connected.
    buses
        Slave of each master, as ``cell/bus``.
    addresses
        By master's address space: first address, size and slave of each segment.
    """

    def __init__(self, run: Run, module: str, verilog: Design) -> None:
        self.cells: dict[str, Cell] = {}
        self.drivers: dict[str, str] = {}
        self.buses: dict[str, str] = {}
        self.addresses: dict[str, list[tuple[int, int, str]]] = {}
        self._board: set[str] = set()
        self._placed: set[str] = set()
        configured: dict[str, dict[str, str]] = {}
        for call in run.of("set_property"):
            if call.words[0] == "-dict":
                words = call.words[1].split()
                pairs = dict(zip(words[::2], words[1::2], strict=True))
                assert all(key.startswith("CONFIG.") for key in pairs), call
                names = {key.removeprefix("CONFIG."): value for key, value in pairs.items()}
                configured.setdefault(call.words[2], {}).update(names)
        for call in run.calls:
            self._take(call, configured, module, verilog)
        for cell, parameters in configured.items():
            assert set(parameters) <= self.cells[cell].parameters, (cell, parameters)

    def _take(
        self, call: Call, configured: dict[str, dict[str, str]], module: str, verilog: Design
    ) -> None:
        words = call.words
        match call.command:
            case "create_bd_cell":
                name = words[-1]
                assert name not in self.cells, call
                if call.option("-type") == "module":
                    assert call.option("-reference") == module
                    self.cells[name] = _module(verilog)
                else:
                    kind = re.fullmatch(r"xilinx\.com:ip:(\w+)", call.option("-vlnv"))
                    assert kind, call
                    self.cells[name] = _ip(kind[1], configured.get(name, {}))
            case "apply_board_connection":
                interface, place = call.option("-board_interface"), call.option("-ip_intf")
                assert interface in BOARD and interface not in self._board, call
                cell, pin = place.split("/", 1)
                assert pin in self.cells[cell].board, call
                self._board.add(interface)
                self._placed.add(place)
            case "connect_bd_net":
                source, sink = words
                assert self._has(source, "outputs") and self._has(sink, "inputs"), call
                assert sink not in self.drivers, call
                self.drivers[sink] = source
            case "connect_bd_intf_net":
                master, slave = words
                assert self._has(master, "masters") and self._has(slave, "slaves"), call
                assert master not in self.buses and slave not in self.buses.values(), call
                self.buses[master] = slave
            case "assign_bd_address":
                space = call.option("-target_address_space")
                segment = words[-1]
                cell, _, place = segment.partition("/")
                bus = SEGMENTS.get(place, place.removesuffix("/reg0"))
                assert self._has(space, "masters") and bus in self.cells[cell].slaves, call
                first, size = int(call.option("-offset"), 0), int(call.option("-range"), 0)
                self.addresses.setdefault(space, []).append((first, size, f"{cell}/{bus}"))

    def _has(self, path: str, kind: str) -> bool:
        cell, _, pin = path.partition("/")
        return cell in self.cells and pin in getattr(self.cells[cell], kind)

    def check_complete(self) -> None:
        """Nothing that must be connected is open."""
        slaves = set(self.buses.values())
        for name, cell in self.cells.items():
            for pin in cell.inputs - cell.optional:
                assert f"{name}/{pin}" in self.drivers, f"{name}/{pin} is open"
            for bus in cell.board:
                assert f"{name}/{bus}" in self._placed, f"{name}/{bus} is open"
            for bus in cell.masters:
                assert f"{name}/{bus}" in self.buses, f"{name}/{bus} is open"
            for bus in cell.slaves:
                assert f"{name}/{bus}" in slaves, f"{name}/{bus} is open"

    def check_clocks(self) -> None:
        """Each bus has one clock, or ends at an interconnect that has the other's."""
        for master, slave in self.buses.items():
            sides = [self._clocks(master), self._clocks(slave)]
            assert set.intersection(*sides), (
                f"{master} and {slave} have no clock in common: {sides}"
            )

    def _clocks(self, bus: str) -> set[str]:
        name, port = bus.split("/")
        cell = self.cells[name]
        pins = [cell.clocks[port]] if cell.clocks else [p for p in cell.inputs if "aclk" in p]
        return {
            f"{name}/{pin}" if pin in cell.outputs else self.drivers[f"{name}/{pin}"]
            for pin in pins
        }

    def reach(self, master: str) -> set[str]:
        """Return the slaves that a master gets to, through any interconnects."""
        slave = self.buses[master]
        cell = slave.split("/")[0]
        if "NUM_MI" not in self.cells[cell].parameters:
            return {slave}
        return set().union(*(self.reach(f"{cell}/{bus}") for bus in self.cells[cell].masters))

    def check_addresses(self) -> None:
        """Every slave that a master gets to has addresses for it, which don't overlap."""
        for name, cell in self.cells.items():
            if "NUM_MI" in cell.parameters:
                continue
            for bus in cell.masters:
                segments = sorted(self.addresses[f"{name}/{bus}"])
                assert {slave for _, _, slave in segments} == self.reach(f"{name}/{bus}")
                for (first, size, _), (following, *_) in itertools.pairwise(segments):
                    assert first + size <= following, (name, bus, segments)
                for first, size, _ in segments:
                    assert size & (size - 1) == 0 and first % size == 0, (name, bus, segments)


def _module(verilog: Design) -> Cell:
    """A module reference: its interfaces are those that the attributes tell of."""
    interfaces = verilog.interfaces()
    cell = Cell(clocks=verilog.clocks())
    for name, signals in interfaces.items():
        (cell.masters if signals["ARADDR"].output else cell.slaves).add(name)
    for name, port in verilog.ports.items():
        if port.attributes["X_INTERFACE_INFO"].startswith("xilinx.com:signal:"):
            (cell.outputs if port.output else cell.inputs).add(name)
    return cell
