"""The scripts for the vendors' tools, run with stand-ins, name only what the gateware has."""

import functools
import re
from pathlib import Path

import pytest

from boards.build import BOARDS
from boards.vcu1525 import DIMM_BYTES
from boards.xdma_top import masters
from rtl.build import configure
from rtl.interface.register_map import REGISTERS, Access, memory_base_registers
from tests.boards.block_design import BlockDesign
from tests.boards.tcl import run_tcl
from tests.boards.verilog import Design


def case(board, preset, *settings, marks=()):
    return pytest.param((board, preset, settings), marks=marks, id=f"{board}-{preset}")


LONG = pytest.mark.long
VIVADO = (case("vcu1525", "vcu1525"), case("vcu1525", "tiny", marks=LONG))
VITIS = (
    case("u200", "tiny", "channels=4"),
    case("u200", "vcu1525-1k", marks=LONG),
    case("u250", "u250", marks=LONG),
)


class Written:
    """What a board wrote, the configuration it was for, and the gateware in it."""

    def __init__(self, board, preset, settings, directory):
        self.board, self.directory = board, directory
        self.config = configure(preset, settings)
        self.files = BOARDS[board].write(self.config, directory, 225.5)
        self.top = "sat_xdma" if board == "vcu1525" else "sat"
        sources = [file for file in self.files if file.suffix == ".v"]
        self.verilog = Design(sources, self.top)

    def run(self, name, record, answers=None, arguments=()):
        return run_tcl(self.directory / name, record, answers, arguments)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """What is written for a case, once."""
    return functools.cache(lambda case: Written(*case, tmp_path_factory.mktemp("board")))


@pytest.fixture(params=VIVADO)
def vcu1525(request, write):
    return write(request.param)


@pytest.fixture(params=VITIS)
def alveo(request, write):
    return write(request.param)


@pytest.fixture(params=VIVADO + VITIS)
def written(request, write):
    return write(request.param)


def found(call, cells):
    """The cells that a call of get_cells finds by a pattern, as Vivado's =~ understands it."""
    assert "-hierarchical" in call.words
    left, operator, pattern = call.option("-filter").split()
    assert (left, operator) == ("NAME", "=~")
    parts = re.split(r"(\*|\\.)", pattern)
    glob = [".*" if part == "*" else re.escape(part.removeprefix("\\")) for part in parts]
    expression = re.compile("".join(glob))
    return [cell for cell in cells if expression.fullmatch(cell)]


def answers(directory, **changed):
    """What Vivado answers when all goes well; `changed` are properties of runs."""
    values = {"PROGRESS": "100%", "STATS.WNS": "0.012", "DIRECTORY": str(directory)} | changed
    board = ("get_board_parts", "-quiet", "*:vcu1525:part0:*")
    (directory / "card_wrapper.bit").touch()
    return {
        board: "xilinx.com:vcu1525:part0:1.3 xilinx.com:vcu1525:part0:1.10",
        **{
            ("get_property", name, run): value
            for name, value in values.items()
            for run in ("synth_1", "impl_1")
        },
    }


def test_vcu1525_project(vcu1525, tmp_path):
    run = vcu1525.run("vcu1525_project.tcl", tmp_path / "record", answers(tmp_path))
    assert run.status == 0, run.output
    assert "timing is met at 225.5 MHz" in run.output
    added = {Path(call.words[-1]) for call in run.of("add_files")} - {Path("make_wrapper")}
    assert added == {file for file in vcu1525.files if file.suffix in (".v", ".xdc")}
    assert all(file.exists() for file in added)
    properties = {call.words[:1] + call.words[2:]: call.words[1] for call in run.of("set_property")}
    assert properties["board_part", "current_project"] == "xilinx.com:vcu1525:part0:1.10"
    assert properties["top", "current_fileset"] == "card_wrapper"
    assert (vcu1525.directory / "sat.bit").exists()

    design = BlockDesign(run, vcu1525.top, vcu1525.verilog)
    design.check_complete()
    design.check_clocks()
    design.check_addresses()
    config = vcu1525.config
    memories = {f"ddr4_{channel}/C0_DDR4_S_AXI" for channel in range(config.channels)}
    windows = [(channel * DIMM_BYTES, DIMM_BYTES) for channel in range(config.channels)]
    assert design.reach("xdma/M_AXI") == {"sat/s_axi_host"}
    assert design.reach("sat/m_axi_host") == memories
    reached = [(first, size) for first, size, _ in design.addresses["sat/m_axi_host"]]
    assert reached == windows
    for channel, (name, window) in enumerate(zip(masters(config), windows, strict=True)):
        memory = f"ddr4_{channel}/C0_DDR4_S_AXI"
        assert design.addresses[f"sat/{name}"] == [(*window, memory)]
    ((start, size, _),) = design.addresses["xdma/M_AXI"]
    assert (start, size) == (0, config.channels * DIMM_BYTES) and size >= config.memory_bytes
    registers = design.addresses["xdma/M_AXI_LITE"][0]
    assert registers == (0, 0x1000, "sat/s_axi_control")
    assert max(register.offset for register in REGISTERS.values()) < 0x1000
    assert design.drivers["xdma/usr_irq_req"] == "sat/interrupt"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"PROGRESS": "40%", "STATUS": "synth_design ERROR"},
            "ERROR: synth_1 failed: synth_design",
        ),
        ({"STATS.WNS": "-0.310"}, "ERROR: timing isn't met at 225.5 MHz, worst slack -0.310 ns"),
    ],
)
def test_vcu1525_project_that_fails_says_why(vcu1525, tmp_path, changed, message):
    run = vcu1525.run("vcu1525_project.tcl", tmp_path / "record", answers(tmp_path, **changed))
    assert run.status == 1 and message in run.output


def test_vcu1525_project_without_board_files(vcu1525, tmp_path):
    run = vcu1525.run("vcu1525_project.tcl", tmp_path / "record")
    assert run.status == 1
    assert "ERROR: no board files of the VCU1525; install them with 'xhub::install" in run.output


def test_constraints_name_cells(written, tmp_path):
    files = [file for file in written.files if file.stem in ("constraints", "floorplan")]
    assert files
    cells = [f"card_i/sat/inst/{cell}" for cell in written.verilog.cells()]
    for file in files:
        run = written.run(file.name, tmp_path / "record")
        assert run.status == 0, run.output
        assert run.of("set_property")
        for call in run.of("get_cells"):
            assert len(found(call, cells)) == 1, call


def test_every_port_belongs_to_its_interface(written):
    for name, port in written.verilog.ports.items():
        kind, interface, signal = port.attributes["X_INTERFACE_INFO"].split()
        if kind == "xilinx.com:interface:aximm:1.0":
            assert name == f"{interface}_{signal.lower()}"
        else:
            assert kind.startswith("xilinx.com:signal:") and name == interface


def test_floorplan_places_every_column(written, tmp_path):
    name = "floorplan.xdc" if written.board == "vcu1525" else "floorplan.tcl"
    run = written.run(name, tmp_path / "record")
    assert {call.words[0] for call in run.of("set_property")} == {"USER_SLR_ASSIGNMENT"}
    slrs = {call.words[2].rstrip("}"): call.words[1] for call in run.of("set_property")}
    assert set(slrs.values()) <= {f"SLR{n}" for n in range(4 if written.board == "u250" else 3)}
    prefix = written.config.name.replace("-", "_")
    columns = [cell for cell in slrs if f"/{prefix}_column_" in cell]
    assert len(columns) == written.config.cols


def test_kernel_package(alveo, tmp_path):
    run = alveo.run("vitis_kernel.tcl", tmp_path / "record")
    assert run.status == 0, run.output
    config, interfaces = alveo.config, alveo.verilog.interfaces()
    added = {Path(call.words[-1]) for call in run.of("add_files")}
    assert added == {file for file in alveo.files if file.suffix == ".v"}
    associated = {
        call.option("-busif"): call.option("-clock")
        for call in run.of("ipx::associate_bus_interfaces")
        if call.option("-busif")
    }
    assert associated == alveo.verilog.clocks() == dict.fromkeys(interfaces, "ap_clk")
    (resets,) = (call for call in run.of("ipx::associate_bus_interfaces") if call.option("-reset"))
    assert {"ap_clk", resets.option("-reset")} <= set(alveo.verilog.ports)

    properties = {}
    for call in run.of("set_property"):
        properties.setdefault(call.words[2], {})[call.words[0]] = call.words[1]
    packaged = {call.words[0]: properties[call.words[0]] for call in run.of("ipx::add_register")}
    bases = memory_base_registers(config.channels)
    expected = {
        register.name: (register.offset, 32, register.access is Access.READ_ONLY)
        for register in REGISTERS.values()
    } | {
        name.removesuffix("_LOW"): (register.offset, 64, False)
        for name, register in bases.items()
        if name.endswith("_LOW")
    }
    assert expected == {
        name: (
            int(values["address_offset"], 16),
            int(values["size"]),
            {"read-only": True, "read-write": False}[values["access"]],
        )
        for name, values in packaged.items()
    }
    pointers = {
        path.split("/")[0]: values["value"]
        for path, values in properties.items()
        if path.endswith("/ASSOCIATED_BUSIF")
    }
    assert list(pointers.values()) == list(masters(config))
    assert set(pointers.values()) <= set(interfaces)
    assert all(packaged[name]["size"] == "64" for name in pointers)

    (package,) = run.of("package_xo")
    assert package.option("-kernel_name") == alveo.top
    assert package.option("-ctrl_protocol") == "user_managed"
    assert Path(package.option("-ip_directory")) != Path(package.option("-xo_path")).parent


def test_link_configuration(alveo):
    lines = (alveo.directory / "link.cfg").read_text().splitlines()
    options = [line.partition("=")[::2] for line in lines if "=" in line]
    assert ("nk", f"{alveo.top}:1:sat_1") in options
    places = [value for key, value in options if key == "sp"]
    assert places == [f"sat_1.{name}:DDR[{n}]" for n, name in enumerate(masters(alveo.config))]
    assert set(masters(alveo.config)) <= set(alveo.verilog.interfaces())
    assert ("freqHz", "225500000:sat_1.ap_clk") in options
    assert "ap_clk" in alveo.verilog.ports
    # Either all of it in one SLR, or a floorplan.
    keys = [key for key, _ in options]
    assert ("slr" in keys) != ("prop" in keys)
    if "slr" in keys:
        assert alveo.config.macs < 1024 and ("slr", "sat_1:SLR1") in options
    else:
        hook = dict(options)["prop"]
        assert hook == f"run.impl_1.STEPS.PLACE_DESIGN.TCL.PRE={alveo.directory / 'floorplan.tcl'}"


def test_top_level_has_what_vitis_asks_for(alveo):
    """UG1393, requirements of kernels: names, 64-bit addresses, every port in an interface."""
    ports = alveo.verilog.ports
    assert {"ap_clk", "ap_rst_n", "interrupt"} <= set(ports)
    for name, signals in alveo.verilog.interfaces().items():
        if name == "s_axi_control":
            assert not signals["ARADDR"].output and signals["WDATA"].width == 32
        else:
            assert signals["ARADDR"].output and signals["ARADDR"].width == 64
            assert signals["WDATA"].width == 8 * alveo.config.beat_bytes
            assert (
                f"XIL_INTERFACENAME {name},"
                in signals["ARADDR"].attributes["X_INTERFACE_PARAMETER"]
            )
    assert all("X_INTERFACE_INFO" in port.attributes for port in ports.values())


@pytest.mark.parametrize(
    ("arguments", "targets", "devices", "status", "message"),
    [
        ([], "one", "xcvu9p_0", 0, "loaded"),
        (["*/two"], "two", "xcvu9p_0", 0, "loaded"),
        ([], "", "", 1, "ERROR: 0 JTAG cables match '*', must be one"),
        ([], "one two", "", 1, "ERROR: 2 JTAG cables match '*', must be one; there are: one two"),
        ([], "one", "", 1, "ERROR: no VU9P on 'one', but: "),
    ],
)
def test_programming(tmp_path, arguments, targets, devices, status, message):
    script = Path(__file__).parents[2] / "boards" / "tcl" / "vcu1525_program.tcl"
    known = {
        ("get_hw_targets", "-quiet", arguments[0] if arguments else "*"): targets,
        ("get_hw_targets", "-quiet", "*"): targets,
        ("get_hw_devices", "-quiet", "xcvu9p_*"): devices,
    }
    run = run_tcl(script, tmp_path / "record", known, ["/x/sat.bit", *arguments])
    assert run.status == status, run.output
    assert message in run.output
    loaded = [call.words for call in run.of("program_hw_devices")]
    assert loaded == ([("xcvu9p_0",)] if status == 0 else [])
    if loaded:
        assert ("PROGRAM.FILE", "/x/sat.bit", "xcvu9p_0") in [
            c.words for c in run.of("set_property")
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("create_bd_cell -kind ip x", "create_bd_cell: no option -kind"),
        ("create_bd_cel -type ip x", 'invalid command name "create_bd_cel"'),
        ("set_property {", "missing close-brace"),
        ("puts $no_such_setting", "can't read"),
    ],
)
def test_mistakes_in_a_script_are_found(tmp_path, text, message):
    (tmp_path / "wrong.tcl").write_text(text)
    run = run_tcl(tmp_path / "wrong.tcl", tmp_path / "record")
    assert run.status != 0 and message in run.output
