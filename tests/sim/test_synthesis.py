"""Synthesis in parts: how a design is cut, and that the sum is what the whole takes."""

from pathlib import Path

import pytest
from amaranth.hdl import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.block import Block
from rtl.build import elaborate
from sim.area import ULTRASCALE_PLUS, count
from sim.synthesis import Part, instances, parts, synthesise, synthesise_all

PLACED = 3


class Counter(wiring.Component):
    """A register that counts."""

    step: In(unsigned(16))
    count: Out(unsigned(16))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + self.step)
        return m


class Pair(wiring.Component):
    """Two blocks, one inside another."""

    step: In(unsigned(16))
    count: Out(unsigned(16))

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Block("inner", Counter()).place(platform)
        total = Counter()
        m.submodules.total = total
        m.d.comb += [inner.step.eq(self.step), total.step.eq(inner.count)]
        m.d.comb += self.count.eq(total.count)
        return m


class Top(wiring.Component):
    """Blocks placed several times, and logic between them."""

    step: In(unsigned(16))
    count: Out(unsigned(16))

    def elaborate(self, platform):
        m = Module()
        block = Block("pair", Pair())
        step = self.step
        for index in range(PLACED):
            m.submodules[f"pair_{index}"] = pair = block.place(platform)
            m.d.comb += pair.step.eq(step)
            step = pair.count
        m.d.sync += self.count.eq(step)
        return m


def test_every_block_is_a_part():
    found = parts(elaborate(Top(), "top"), "top")
    assert [(part.name, part.below) for part in found] == [
        ("top", ("pair",)), ("pair", ("inner",)), ("inner", ()),
    ]  # fmt: skip
    top, pair, inner = found
    assert top.text.count("endmodule") == 2 and "blackbox" in top.text
    # The block, the component inside it, and the ports of the block inside it.
    assert pair.text.count("endmodule") == 3 and "blackbox" in pair.text
    assert inner.text.count("endmodule") == 1 and "blackbox" not in inner.text


def test_flat_is_one_part():
    (part,) = parts(elaborate(Top(), "top"), "top", flat=True)
    assert part.below == () and part.text.count("endmodule") == 4


def test_units_of_the_top_file_are_parts():
    module = "module {0}(i, o);\n  input i;\n  output o;\n{1}endmodule\n"
    texts = [
        module.format("a", "  \\a.b  b (.i(i), .o(o));\n"),
        module.format("\\a.b ", "  \\a.b.c  c (.i(i), .o(o));\n"),
        module.format("\\a.b.c ", "  \\a.b.c.d  d (.i(i), .o(o));\n"),
        module.format("\\a.b.c.d ", "  \\a.b.c.d.unit$7  u (.i(i), .o(o));\n"),
        module.format("\\a.b.c.d.unit$7 ", "  \\a.b.c.d.unit$7.part  p (.i(i), .o(o));\n"),
        module.format("\\a.b.c.d.unit$7.part ", "  assign o = i;\n"),
    ]
    found = parts({"a.v": "\n".join(texts)}, "a")
    assert [(part.name, part.below) for part in found] == [
        ("a", ("a.b.c.d.unit$7",)),
        ("a.b.c.d.unit$7", ()),
    ]


def test_the_sum_over_all_instances_is_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.synthesis.CACHE", tmp_path)
    files = elaborate(Top(), "top")
    reported = []
    jobs = [(part, ULTRASCALE_PLUS.command, False) for part in parts(files, "top")]
    modules = {module.name: module for module in synthesise_all(jobs, reported.append)}
    assert sorted(reported) == sorted(modules)
    number = instances(modules, "top")
    assert number == {"top": 1, "pair": PLACED, "inner": PLACED}

    (part,) = parts(files, "top", flat=True)
    whole = synthesise(part, ULTRASCALE_PLUS.command)
    total = sum(count(modules[name].cells)["ff"] * times for name, times in number.items())
    # 16 bits for each counter, and for the register of the top.
    assert count(whole.cells)["ff"] == total == 16 * (2 * PLACED + 1)


def test_results_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.synthesis.CACHE", tmp_path)
    (part,) = parts(elaborate(Counter(), "counter"), "counter")
    first = synthesise(part, ULTRASCALE_PLUS.command, netlist=True)
    assert first.cells["FDRE"] == 16
    assert first.depth() > 0
    assert set(first.netlist()["ports"]) == {"clk", "rst", "step", "count"}

    def fail(folder: Path, script: list[str]) -> None:
        raise AssertionError("ran again")

    monkeypatch.setattr("sim.synthesis._run", fail)
    assert synthesise(part, ULTRASCALE_PLUS.command, netlist=True).cells == first.cells
    other = Part(part.name, part.text.replace("16", "15"))
    with pytest.raises(AssertionError, match="ran again"):
        synthesise(other, ULTRASCALE_PLUS.command, netlist=True)
