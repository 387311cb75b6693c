"""Memory of a lane's bins."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..technology import Technology, technology_of

__all__ = ["BinMemory"]

_RAM_ADDRESS_BITS = 5
_RAM_READ_PORTS = "ABCDEFG"


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
        # Deeper ones fill their primitives as they are inferred.
        if (
            technology_of(platform) is Technology.ULTRASCALE_PLUS
            and self._depth <= 1 << _RAM_ADDRESS_BITS
        ):
            return self._ultrascale_plus()
        return self._generic()

    def _generic(self) -> Module:
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

    def _ultrascale_plus(self) -> Module:
        """RAM32M16 primitives, of which read ports share one: tools that infer them take one more.

        Each is eight LUTs of two bits that are written together, seven of them read at addresses of
        their own (UG574).
        """
        m = Module()
        width = self._bits + self._bits % 2
        data, read_a_data, read_b_data = Signal(width), Signal(width), Signal(width)
        write_address, read_a_address, read_b_address = (
            Cat(address, Const(0, _RAM_ADDRESS_BITS - len(address)))
            for address in (self.write_address, self.read_a_address, self.read_b_address)
        )
        m.d.comb += [
            data.eq(self.write_data),
            self.read_a_data.eq(read_a_data),
            self.read_b_data.eq(read_b_data),
        ]
        luts = [
            (data[low : low + 2], address, read_data[low : low + 2])
            for address, read_data in ((read_a_address, read_a_data), (read_b_address, read_b_data))
            for low in range(0, width, 2)
        ]
        for first in range(0, len(luts), len(_RAM_READ_PORTS)):
            ports = {
                name: value
                for port, (bits, address, read_data) in zip(_RAM_READ_PORTS, luts[first:])
                for name, value in (
                    (f"i_DI{port}", bits),
                    (f"i_ADDR{port}", address),
                    (f"o_DO{port}", read_data),
                )
            }
            unused = _RAM_READ_PORTS[len(luts) - first :]
            ports |= {f"i_DI{port}": Const(0, 2) for port in unused}
            ports |= {f"i_ADDR{port}": Const(0, _RAM_ADDRESS_BITS) for port in unused}
            m.submodules[f"ram_{first // len(_RAM_READ_PORTS)}"] = Instance(
                "RAM32M16",
                i_WCLK=ClockSignal(),
                i_WE=self.write_enable,
                i_ADDRH=write_address,
                i_DIH=Const(0, 2),
                **ports,
            )
        return m
