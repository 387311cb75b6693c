"""Blocks: elaborated once, placed many times, refused where they would clash."""

import re

import pytest
from amaranth.hdl import DomainRenamer, Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.block import Block
from rtl.build import elaborate


class Pair(data.Struct):
    low: unsigned(8)
    high: unsigned(8)


class Adder(wiring.Component):
    """Sum of the halves, a cycle later (`clocked`) or at once."""

    command: In(stream.Signature(Pair))
    total: Out(9)

    def __init__(self, *, clocked: bool = True) -> None:
        super().__init__()
        self._clocked = clocked
        self.elaborations = 0

    def elaborate(self, platform):
        self.elaborations += 1
        m = Module()
        m.d.comb += self.command.ready.eq(1)
        domain = m.d.sync if self._clocked else m.d.comb
        domain += self.total.eq(self.command.payload.low + self.command.payload.high)
        return m


class Row(wiring.Component):
    """`count` placements of `block` side by side."""

    def __init__(self, block: Block, count: int) -> None:
        super().__init__(
            {
                "commands": In(stream.Signature(Pair)).array(count),
                "totals": Out(9).array(count),
            }
        )
        self._block = block

    def elaborate(self, platform):
        m = Module()
        for index, command in enumerate(self.commands):
            placed = self._block.place(platform)
            m.submodules[f"adder_{index}"] = placed
            wiring.connect(m, wiring.flipped(command), placed.command)
            m.d.comb += self.totals[index].eq(placed.total)
        return m


def test_block_is_elaborated_once_and_placed_often():
    adder = Adder()
    files = elaborate(Row(Block("adder", adder), 3), "row")
    assert adder.elaborations == 1
    assert list(files) == ["row.v", "adder.v"]
    assert files["row.v"].count("  adder adder_") == 3
    assert "module adder(" in files["adder.v"]
    assert "input clk" in files["adder.v"]


def test_ports_of_placements_have_no_wire_for_each_field():
    text = elaborate(Row(Block("adder", Adder()), 2), "row")["row.v"]
    # The row's own ports have them, for waveforms.
    assert re.findall(r"wire \[7:0\] \\(\S*\.low) ;", text) == [
        "commands__0__payload.low",
        "commands__1__payload.low",
    ]


def test_ports_of_a_placement_have_fields_directions_and_initial_values():
    block = Block("ports", Ports())
    files = elaborate(Dangling(block), "top")
    assert ".pair(16'h1102)" in re.sub(r"\s", "", files["top.v"])
    assert ".vectors__1__pair(16'h0300)" in re.sub(r"\s", "", files["top.v"])


class Ports(wiring.Component):
    """Ports with initial values, in an array and a nested signature of either direction."""

    pair: In(Pair, init={"low": 2, "high": 0x11})
    vectors: In(wiring.Signature({"pair": Out(Pair), "back": In(3)})).array(2)
    out: Out(Pair)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.out.eq(self.pair),
            self.vectors[0].back.eq(self.vectors[1].pair.low),
        ]
        return m


class Dangling(wiring.Component):
    """One placement, of which one field of one port is driven."""

    probe: Out(3)

    def __init__(self, block: Block) -> None:
        super().__init__()
        self._block = block

    def elaborate(self, platform):
        m = Module()
        m.submodules.placed = placed = self._block.place(platform)
        m.d.comb += [
            placed.vectors[1].pair.high.eq(3),
            self.probe.eq(placed.vectors[0].back ^ placed.out.low),
        ]
        return m


def test_unclocked_block_has_no_clock():
    files = elaborate(Row(Block("adder", Adder(clocked=False)), 1), "row")
    assert "clk" not in files["adder.v"] + files["row.v"]


class Nest(wiring.Component):
    """One placement of `block`, with its ports."""

    def __init__(self, block: Block) -> None:
        super().__init__(block.component.signature)
        self._block = block

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self._block.place(platform)
        wiring.connect(m, wiring.flipped(self), inner)
        return m


def test_block_may_place_blocks():
    nest = Block("nest", Nest(Block("adder", Adder())))
    files = elaborate(Row(nest, 2), "row")
    assert list(files) == ["row.v", "adder.v", "nest.v"]
    assert files["nest.v"].count("  adder inner") == 1


def test_same_block_twice_is_fine_but_another_of_its_name_is_refused():
    same = Pairing(Block("adder", Adder()), Block("adder", Adder()))
    assert list(elaborate(same, "top")) == ["top.v", "adder.v"]
    different = Pairing(Block("adder", Adder()), Block("adder", Adder(clocked=False)))
    with pytest.raises(ValueError, match="two different modules are called 'adder'"):
        elaborate(different, "top")


class Pairing(wiring.Component):
    """Placements of two blocks, unconnected."""

    probe: In(1)

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self._blocks = blocks

    def elaborate(self, platform):
        m = Module()
        for block in self._blocks:
            m.submodules += block.place(platform)
        return m


def test_top_of_a_blocks_name_is_refused():
    with pytest.raises(ValueError, match="two different modules"):
        elaborate(Row(Block("row", Adder()), 1), "row")


def test_platform_without_files_is_refused():
    with pytest.raises(TypeError, match="block 'adder' needs a platform"):
        Block("adder", Adder()).place(None)


def test_other_clock_domain_is_refused():
    fast = DomainRenamer("fast")(Adder())
    with pytest.raises(ValueError, match="'top' has clock domains fast"):
        elaborate(fast, "top")
