"""Scratchpad banks at the edges of the array.

Operand banks hand every read on to their neighbour a cycle later, as the processing elements hand
on what is read: the operands meet without a wire that is longer than from one bank to the next.
"""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import FLOAT
from ..arithmetic.operand import Kind, Operand
from ..config import FLOAT_BITS, Config
from ..delay import delayed
from ..technology import Technology, technology_of

__all__ = [
    "READ_LATENCY",
    "DBank",
    "DOperands",
    "DRead",
    "OBank",
    "OPlace",
    "SBank",
    "SOperands",
    "SRead",
]

READ_LATENCY = 3
"""Cycles from the read of an operand bank to its word."""

_ONE = Operand.const({"significand": 1 << 13, "exponent": 3, "sign": 0})

_MINUS_ZERO = 1 << FLOAT_BITS - 1


class SOperand(data.StructLayout):
    """What one lane multiplies, and the element of the chunk it belongs to."""

    def __init__(self, config: Config) -> None:
        super().__init__({"operand": Operand, "kind": Kind, "index": unsigned(config.index_bits)})


class SOperands(data.ArrayLayout):
    """One S word, decoded: an entry for each lane."""

    def __init__(self, config: Config) -> None:
        super().__init__(SOperand(config), config.lanes)


class DOperands(data.ArrayLayout):
    """One D word, decoded: G values."""

    def __init__(self, config: Config) -> None:
        super().__init__(Operand, config.elements)


class SRead(data.StructLayout):
    """A read of S word `quarter` of the bank's word at `address`."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "enable": unsigned(1),
                "address": unsigned(16),
                "quarter": unsigned((config.ratio - 1).bit_length()),
            }
        )


class DRead(data.Struct):
    """A read of the D word at `address`."""

    enable: unsigned(1)
    address: unsigned(16)
    ones: unsigned(1)
    """Every element is 1.0, whatever the bank holds."""


class OPlace(data.StructLayout):
    """Where in an O bank an element goes."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "enable": unsigned(1),
                "address": unsigned(16),
                "position": unsigned((config.floats - 1).bit_length()),
            }
        )


class SBank(wiring.Component):
    """The S words of one PE row.

    Attributes
    ----------
    write_enable, write_address, write_words : In
        Bit y of the enable writes ``write_words[y]`` as S word y of the word at the address.
    read : In(SRead)
        A read. Words that are read stay on `s` until the next one.
    read_next : Out(SRead)
        The same a cycle later, for the next row.
    s : Out(SOperands)
        The S word, `READ_LATENCY` cycles after its read.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "write_enable": In(config.ratio),
                "write_address": In(16),
                "write_words": In(data.ArrayLayout(SOperands(config), config.ratio)),
                "read": In(SRead(config)),
                "read_next": Out(SRead(config)),
                "s": Out(SOperands(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        m.d.comb += self.read_next.eq(delayed(m, self.read))

        # One memory for each S word: memories with wide write enables don't map well.
        ports = []
        for quarter in range(config.ratio):
            memory = Memory(shape=unsigned(SOperands(config).size), depth=config.s_depth, init=[])
            m.submodules[f"words_{quarter}"] = memory
            write, port = memory.write_port(), memory.read_port()
            ports.append(port)
            m.d.comb += [
                write.en.eq(self.write_enable[quarter]),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_words[quarter]),
                port.en.eq(self.read.enable & (self.read.quarter == quarter)),
                port.addr.eq(self.read.address),
            ]

        read = delayed(m, self.read)
        word = Signal(SOperands(config), reset_less=True)
        m.d.comb += self.s.eq(word)
        if technology_of(platform) is Technology.ECP5:
            # Block RAM has no registers at its outputs that tools make use of: one for all.
            output = Signal.like(word, reset_less=True)
            for quarter, port in enumerate(ports):
                with m.If(read.enable & (read.quarter == quarter)):
                    m.d.sync += output.eq(port.data)
            m.d.sync += word.eq(output)
            return m

        selected = delayed(m, read)
        for quarter, port in enumerate(ports):
            output = Signal.like(port.data, reset_less=True)
            with m.If(read.enable):
                m.d.sync += output.eq(port.data)
            with m.If(selected.enable & (selected.quarter == quarter)):
                m.d.sync += word.eq(output)
        return m


class DBank(wiring.Component):
    """The D words of one PE column.

    Attributes
    ----------
    write_enable, write_address, write_data : In
        Writes a D word.
    read : In(DRead)
        A read.
    read_next : Out(DRead)
        The same a cycle later, for the next column.
    d : Out(DOperands)
        The D word, `READ_LATENCY` cycles after its read.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(16),
                "write_data": In(DOperands(config)),
                "read": In(DRead),
                "read_next": Out(DRead),
                "d": Out(DOperands(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        m.d.comb += self.read_next.eq(delayed(m, self.read))

        m.submodules.words = memory = Memory(
            shape=unsigned(DOperands(config).size), depth=config.d_depth, init=[]
        )
        write, port = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            port.en.eq(self.read.enable),
            port.addr.eq(self.read.address),
        ]
        ones = delayed(m, self.read.ones, 2)
        word = Signal(DOperands(config), reset_less=True)
        m.d.sync += word.eq(delayed(m, port.data))
        with m.If(ones):
            m.d.sync += word.eq(DOperands(config).const([_ONE] * config.elements))
        m.d.comb += self.d.eq(word)
        return m


class OBank(wiring.Component):
    """The results of one PE column.

    Each way out of the column writes the positions of its rows, and may read what stands there
    first. Both reads share the only read port: there must be no other one in such a cycle.

    Attributes
    ----------
    places, values : In
        For each way out an element to write; it can be read from the next cycle on.
    addend_places : In
        For each way out an element to read.
    addends : Out
        These elements, `ADDEND_LATENCY` cycles later; -0 where none was read.
    places_next, addend_places_next : Out
        `places` and `addend_places` a cycle later, for the next column, whose results are a cycle
        behind.
    read_enable, read_address : In
        A read.
    read_data : Out
        A cycle later, G/2 binary32 values.
    """

    ADDEND_LATENCY = 2

    def __init__(self, config: Config) -> None:
        self._config = config
        places = data.ArrayLayout(OPlace(config), config.exits)
        values = data.ArrayLayout(FLOAT, config.exits)
        super().__init__(
            {
                "places": In(places),
                "places_next": Out(places),
                "values": In(values),
                "addend_places": In(places),
                "addend_places_next": Out(places),
                "addends": Out(values),
                "read_enable": In(1),
                "read_address": In(16),
                "read_data": Out(data.ArrayLayout(unsigned(FLOAT_BITS), config.floats)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        m.d.comb += [
            self.places_next.eq(delayed(m, self.places, reset=True)),
            self.addend_places_next.eq(delayed(m, self.addend_places, reset=True)),
        ]

        for number in range(config.exits):
            place, addend_place = self.places[number], self.addend_places[number]
            positions = [
                position
                for position in range(config.floats)
                if position // config.drain_rows % config.exits == number
            ]
            addend = Signal(FLOAT, reset_less=True)
            addend_position = delayed(m, addend_place.position)
            m.d.sync += addend.eq(_MINUS_ZERO)
            m.d.comb += self.addends[number].eq(addend)
            with m.If(delayed(m, addend_place.enable)), m.Switch(addend_position):
                for position in positions:
                    with m.Case(position):
                        m.d.sync += addend.eq(self.read_data[position])
            for position in positions:
                memory = Memory(shape=unsigned(FLOAT_BITS), depth=config.o_depth, init=[])
                m.submodules[f"elements_{position}"] = memory
                write, port = memory.write_port(), memory.read_port()
                m.d.comb += [
                    write.en.eq(place.enable & (place.position == position)),
                    write.addr.eq(place.address),
                    write.data.eq(self.values[number]),
                    port.en.eq(self.read_enable | addend_place.enable),
                    port.addr.eq(Mux(addend_place.enable, addend_place.address, self.read_address)),
                    self.read_data[position].eq(port.data),
                ]
        return m
