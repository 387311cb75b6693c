"""Attributes of ports, in the Verilog as Yosys writes it."""

import pytest

from boards.interfaces import Clock, interface_marks, mark_ports
from boards.tcl import settings, word

PORTS = ["clk", "rst_n", "irq", "m_axi_araddr", "m_axi_host_araddr", "s_axi_awvalid"]
CLOCKS = [Clock("clk", ("m_axi", "m_axi_host", "s_axi"), "rst_n")]
VERILOG = """module top(clk, rst_n, irq, m_axi_araddr, m_axi_host_araddr, s_axi_awvalid);
  input clk;
  wire clk;
  input rst_n;
  output irq;
  output [63:0] m_axi_araddr;
  output [63:0] m_axi_host_araddr;
  input s_axi_awvalid;
endmodule
"""


def test_ports_get_attributes():
    marks = interface_marks(PORTS, CLOCKS, "irq", {"m_axi": 16})
    lines = mark_ports(VERILOG, marks).splitlines()
    assert [line for line in lines if "(*" not in line] == VERILOG.splitlines()
    before = {line: lines[index - 1] for index, line in enumerate(lines)}
    host = before["  output [63:0] m_axi_host_araddr;"]
    assert host == '  (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi_host ARADDR" *)'
    assert (
        "XIL_INTERFACENAME m_axi, MAX_BURST_LENGTH 16," in before["  output [63:0] m_axi_araddr;"]
    )
    assert (
        "ASSOCIATED_BUSIF m_axi:m_axi_host:s_axi, ASSOCIATED_RESET rst_n" in before["  input clk;"]
    )
    assert "POLARITY ACTIVE_LOW" in before["  input rst_n;"]
    assert "SENSITIVITY LEVEL_HIGH" in before["  output irq;"]
    assert "*)" not in before["  wire clk;"]


def test_port_of_no_interface_is_refused():
    with pytest.raises(ValueError, match="port 'led' belongs to none of: m_axi, m_axi_host"):
        interface_marks([*PORTS, "led"], CLOCKS, "irq", {})


def test_port_that_is_not_declared_is_refused():
    with pytest.raises(ValueError, match="no such ports: led"):
        mark_ports(VERILOG, {"led": {"X_INTERFACE_INFO": "none"}})


def test_settings_are_words_of_tcl():
    values = {"empty": "", "plain": "a/b-1", "spaces": "a b", "code": "[exit] $x; y", "number": 2.5}
    values["list"] = ["a b", ("c", ["d", ""])]
    assert settings(values).splitlines()[1:] == [
        "set empty {}",
        "set plain a/b-1",
        "set spaces {a b}",
        "set code {[exit] $x; y}",
        "set number 2.5",
        "set list {{a b} {c {d {}}}}",
    ]
    with pytest.raises(ValueError, match="braces or backslashes"):
        word("a}b")
