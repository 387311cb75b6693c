"""A column of the array. As a block of its own it makes large arrays quick to elaborate."""

from typing import Any

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..block import Block, block_name
from ..config import FLOAT_BITS, Config
from ..memory.scratchpad import DBank, DOperands, DRead, OBank, OPlace, SOperands
from .collector import ResultCollector
from .pe import DrainSlot, ProcessingElement, Slot

__all__ = ["ArrayColumn"]


class ArrayColumn(wiring.Component):
    """A column of the array: its D bank, processing elements, ways out and O bank.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    write_enable, write_address, write_data, d_read, d_read_next
        Those of `DBank`.
    slot, drain : In
        The slots for row 0.
    s, s_next
        S words of each row, and a cycle later those for the next column.
    valid : Out(1)
        A sum of the first rows is about to be rounded.
    places, places_next, addend_places, addend_places_next, read_enable, read_address, read_data
        Those of `OBank`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        places = data.ArrayLayout(OPlace(config), config.exits)
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(16),
                "write_data": In(DOperands(config)),
                "d_read": In(DRead),
                "d_read_next": Out(DRead),
                "slot": In(Slot(config)),
                "drain": In(DrainSlot(config)),
                "s": In(SOperands(config)).array(config.rows),
                "s_next": Out(SOperands(config)).array(config.rows),
                "valid": Out(1),
                "places": In(places),
                "places_next": Out(places),
                "addend_places": In(places),
                "addend_places_next": Out(places),
                "read_enable": In(1),
                "read_address": In(16),
                "read_data": Out(data.ArrayLayout(unsigned(FLOAT_BITS), config.floats)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        m.submodules.d_bank = d_bank = DBank(config)
        m.d.comb += [
            d_bank.write_enable.eq(self.write_enable),
            d_bank.write_address.eq(self.write_address),
            d_bank.write_data.eq(self.write_data),
            d_bank.read.eq(self.d_read),
            self.d_read_next.eq(d_bank.read_next),
        ]

        # Slots go down the column with the D words.
        block = Block(block_name(config, "pe"), ProcessingElement(config))
        elements: list[Any] = block.place_all(m, platform, config.rows)
        d, slot, drain = d_bank.d, self.slot, self.drain
        for row, element in enumerate(elements):
            m.d.comb += [
                element.s.eq(self.s[row]),
                self.s_next[row].eq(element.s_next),
                element.d.eq(d),
                element.slot.eq(slot),
                element.drain.eq(drain),
            ]
            d, slot, drain = element.d_next, element.slot_next, element.drain_next

        # Each way out writes its own positions of the O words.
        block = Block(block_name(config, "collector"), ResultCollector(config))
        collectors: list[Any] = block.place_all(m, platform, config.exits)
        m.submodules.o_bank = o_bank = OBank(config)
        for number, collector in enumerate(collectors):
            for row in range(config.drain_rows):
                result = elements[number * config.drain_rows + row].result
                m.d.comb += collector.results[row].eq(result)
            m.d.comb += [
                collector.addend.eq(o_bank.addends[number]),
                o_bank.values[number].eq(collector.value),
            ]
        m.d.comb += [
            self.valid.eq(collectors[0].valid),
            o_bank.places.eq(self.places),
            self.places_next.eq(o_bank.places_next),
            o_bank.addend_places.eq(self.addend_places),
            self.addend_places_next.eq(o_bank.addend_places_next),
            o_bank.read_enable.eq(self.read_enable),
            o_bank.read_address.eq(self.read_address),
            self.read_data.eq(o_bank.read_data),
        ]
        return m
