"""Memory of a lane's bins."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..technology import Technology, technology_of

__all__ = ["BinMemory"]

_RAM_ADDRESS_BITS = 5
_RAM_READ_PORTS = "ABCDEFG"


class BinMemory(wiring.Component):
    """Memory in LUTs that is read twice a cycle: bins are drained while others accumulate.

    With a single read port for each half of the bins it takes half as many LUTs where what they
    are made of has one, as in ECP5. The two reads must be of different halves then.

    Parameters
    ----------
    bits
        Width of a bin.
    depth
        Number of bins; a power of two.
    ports
        Read ports of each half, 1 or 2.

    Attributes
    ----------
    write_address, write_data, write_enable : In
        Writes a bin; it can be read from the next cycle on.
    read_a_address, read_b_address : In
        Bins to read.
    read_b_enable : In
        The second one is read; without that, and with single ports, it may be anything.
    read_a_data, read_b_data : Out(bits)
        What they hold, in the same cycle. Where both are of one half and that has a single port,
        the first means nothing.
    """

    def __init__(self, bits: int, depth: int, ports: int = 2) -> None:
        if ports not in (1, 2):
            raise ValueError(f"ports is {ports}, must be 1 or 2")
        self._bits = bits
        self._depth = depth
        self._ports = ports
        super().__init__(
            {
                "write_address": In(range(depth)),
                "write_data": In(bits),
                "write_enable": In(1),
                "read_a_address": In(range(depth)),
                "read_a_data": Out(bits),
                "read_b_address": In(range(depth)),
                "read_b_enable": In(1),
                "read_b_data": Out(bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        if self._ports == 1:
            return self._halves()
        # Deeper ones fill their primitives as they are inferred.
        if (
            technology_of(platform) is Technology.ULTRASCALE_PLUS
            and self._depth <= 1 << _RAM_ADDRESS_BITS
        ):
            return self._ultrascale_plus()
        return self._generic()

    def _halves(self) -> Module:
        """A memory for each half."""
        m = Module()
        halves = []
        for half in range(2):
            m.submodules[f"half_{half}"] = memory = self._memory(self._depth // 2)
            write, read = memory.write_port(), memory.read_port(domain="comb")
            of_b = self.read_b_enable & (self.read_b_address[-1] == half)
            m.d.comb += [
                write.addr.eq(self.write_address[:-1]),
                write.data.eq(self.write_data),
                write.en.eq(self.write_enable & (self.write_address[-1] == half)),
                read.addr.eq(Mux(of_b, self.read_b_address[:-1], self.read_a_address[:-1])),
            ]
            halves.append(read.data)
        m.d.comb += [
            self.read_a_data.eq(Mux(self.read_a_address[-1], halves[1], halves[0])),
            self.read_b_data.eq(Mux(self.read_b_address[-1], halves[1], halves[0])),
        ]
        return m

    def _memory(self, depth: int) -> Memory:
        return Memory(
            shape=unsigned(self._bits), depth=depth, init=[], attrs={"ram_style": "distributed"}
        )

    def _generic(self) -> Module:
        m = Module()
        m.submodules.memory = memory = self._memory(self._depth)
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
