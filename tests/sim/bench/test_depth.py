"""The delay model: paths of a netlist put together by hand."""

import pytest

from sim.bench.depth import DSP_PICOSECONDS, NET, Stage, stages


class Netlist:
    """A module as Yosys writes it to JSON."""

    def __init__(self):
        self.module = {"cells": {}, "netnames": {}}
        self._next = 2

    def bits(self, name, count=1):
        """New wires of a name."""
        found = list(range(self._next, self._next + count))
        self._next += count
        self.module["netnames"][name] = {"bits": found, "hide_name": 0}
        return found

    def cell(self, kind, inputs, outputs, **parameters):
        directions = dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output")
        self.module["cells"][f"cell_{len(self.module['cells'])}"] = {
            "type": kind, "port_directions": directions, "connections": {**inputs, **outputs},
            "parameters": parameters,
        }  # fmt: skip

    def register(self, name, data):
        output = self.bits(name)
        self.cell("FDRE", {"C": ["0"], "CE": ["1"], "D": data}, {"Q": output})
        return output


def test_two_luts_between_registers():
    net = Netlist()
    first = net.register("first", ["0"])
    middle, last = net.bits("middle"), net.bits("last_in")
    net.cell("LUT2", {"I0": first, "I1": ["1"]}, {"O": middle})
    net.cell("LUT6", {"I0": middle, "I1": first}, {"O": last})
    net.register("last", last)
    # Clock to output, twice net and LUT, to the flip-flop of the slice, set-up.
    expected = Stage("first", "last", 2, ("LUT2", "LUT6"), 77 + 2 * (NET + 100) + 50 + 25)
    assert stages(net.module)[0] == expected


def test_a_chain_of_carries_is_quick():
    net = Netlist()
    start = net.register("start", ["0"])
    select = net.bits("select")
    net.cell("LUT2", {"I0": start}, {"O": select})
    carry = ["0"]
    for index in range(3):
        outputs, carries = net.bits(f"sum_{index}", 4), net.bits(f"carry_{index}", 4)
        first = [*select, "0", "0", "0"] if index == 0 else ["0"] * 4
        net.cell(
            "CARRY4", {"CI": carry, "DI": ["0"] * 4, "S": first}, {"O": outputs, "CO": carries}
        )
        carry = [carries[3]]
    net.register("total", [outputs[3]])
    (stage,) = [stage for stage in stages(net.module) if stage.end == "total"]
    assert stage.path == ("LUT2", "CARRY4", "CARRY4", "CARRY4")
    # LUT, up to the fourth carry, through one CARRY4, to the last sum.
    expected = 77 + NET + 100 + 15 + 139 + 8.6 * 4 + 116 + 25 + 25
    assert stage.picoseconds == pytest.approx(expected, abs=1)


def test_a_dsp_slice_ends_a_path_by_its_registers():
    def arrival(**registers):
        net = Netlist()
        data = net.register("data", ["0"])
        product = net.bits("product")
        net.cell("DSP48E2", {"CLK": ["0"], "C": data}, {"P": product}, **registers)
        net.register("result", product)
        found = {stage.end: stage for stage in stages(net.module)}
        assert found["result"].start == "product"
        return found["DSP48E2.C"].picoseconds

    assert arrival(CREG="1") == 77 + NET + 300
    assert arrival(CREG="0") == 77 + NET + 550


def test_memory_in_luts_is_read_without_a_clock_and_written_with_one():
    net = Netlist()
    address, data = net.register("address", ["0"]), net.register("data", ["0"])
    output = net.bits("output", 2)
    ports = {"WCLK": ["0"], "ADDRA": address, "ADDRB": ["0"], "ADDRH": address, "DIA": data}
    net.cell("RAM32M16", ports, {"DOA": output[:1], "DOB": output[1:]})
    net.register("read", output[:1])
    net.register("other", output[1:])
    found = {stage.end: stage for stage in stages(net.module)}
    # What was written is there as late as 312 ps after the clock; an address takes longer.
    assert found["read"].path == ("RAM32M16",)
    assert found["read"].picoseconds == 77 + NET + 100 + NET + 100 + 25
    assert found["other"].path == ()
    assert {"RAM32M16.DIA", "RAM32M16.ADDRH"} <= found.keys()
    assert "RAM32M16.ADDRA" not in found


def test_numbered_registers_are_one_and_names_beat_none():
    net = Netlist()
    first = net.register("lane_3.value", ["0"])
    net.module["netnames"]["lane_3.$5"] = {"bits": first, "hide_name": 0}
    net.register("lane_0.sum_12", first)
    net.register("lane_1.sum_9", first)
    found = [(stage.start, stage.end) for stage in stages(net.module) if stage.start != "input"]
    assert ("lane_*.value", "lane_*.sum_*") in found
    assert len([end for _, end in found if end == "lane_*.sum_*"]) == 1


def test_the_slice_sets_the_pace():
    assert pytest.approx(1290, abs=1) == DSP_PICOSECONDS
