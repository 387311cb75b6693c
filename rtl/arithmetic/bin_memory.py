"""Memory of a lane's bins."""

from typing import Any

from amaranth.hdl import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["BinMemory"]


class BinMemory(wiring.Component):
    """Memory in LUTs with two read ports, so that bins can be drained while others accumulate.

    Parameters
    ----------
    bits
        Width of a bin.
    depth
        Number of bins; a power of two.

    Attributes
    ----------
    write_address, write_data, write_enable : In
        Writes a bin; it can be read from the next cycle on.
    read_a_address, read_b_address : In
        Bins to read.
    read_a_data, read_b_data : Out(bits)
        What they hold, in the same cycle.
    """

    def __init__(self, bits: int, depth: int) -> None:
        self._bits = bits
        self._depth = depth
        super().__init__(
            {
                "write_address": In(range(depth)),
                "write_data": In(bits),
                "write_enable": In(1),
                "read_a_address": In(range(depth)),
                "read_a_data": Out(bits),
                "read_b_address": In(range(depth)),
                "read_b_data": Out(bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(self._bits),
            depth=self._depth,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        write = memory.write_port()
        read_a, read_b = memory.read_port(domain="comb"), memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_enable),
            read_a.addr.eq(self.read_a_address),
            self.read_a_data.eq(read_a.data),
            read_b.addr.eq(self.read_b_address),
            self.read_b_data.eq(read_b.data),
        ]
        return m
