"""Blocks: elaborated once, placed many times, refused where they would clash."""

import pytest
from amaranth.hdl import DomainRenamer, Module, Signal, unsigned
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


def test_unclocked_block_has_no_clock():
    files = elaborate(Row(Block("adder", Adder(clocked=False)), 1), "row")
    assert "clk" not in files["adder.v"] + files["row.v"]
