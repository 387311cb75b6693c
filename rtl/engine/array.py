"""The array of processing elements between its scratchpads."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..block import Block, block_name
from ..config import Config
from ..delay import delayed
from ..memory.ports import DWriteSignature, OReadSignature, SWriteSignature
from ..memory.scratchpad import READ_LATENCY, DRead, OBank, OPlace, SBank, SRead
from . import pe
from .collector import ResultCollector
from .column import ArrayColumn
from .decoder import OperandDecoder
from .pe import DrainSlot, Slot

__all__ = ["UPDATE_LATENCY", "Issue", "ProcessingArray", "result_latency"]

_ADDEND_READ = ResultCollector.ADDEND_LATENCY - OBank.ADDEND_LATENCY
"""Cycles from `ProcessingArray.valid` to the read of what the result is added to."""

UPDATE_LATENCY = ResultCollector.VALUE_LATENCY + 1 - _ADDEND_READ
"""Cycles from a read of an element that a result is added to until the sum can be read."""


class Issue(wiring.Signature):
    """What the whole array does in one cycle, with the reads of its operands."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "slot": Out(Slot(config)),
                "drain": Out(DrainSlot(config)),
                "s_read": Out(SRead(config)),
                "d_read": Out(DRead),
            }
        )


def result_latency(config: Config) -> int:
    """Cycles from the issue of an output's last draining slot until it can be read everywhere."""
    first = READ_LATENCY + pe.latency(config) + ResultCollector.latency(config)
    return first + (config.rows - 1) + (config.cols - 1) + 1


class ProcessingArray(wiring.Component):
    """Rows by columns of processing elements, S banks to the left, D banks above, O banks below.

    Slots and operands spread by one row and one column a cycle. Sums leave each `config.drain_rows`
    rows of a column one a cycle, the uppermost first. What they are added to is read from the O
    banks meanwhile, which then aren't ready for other reads.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    issue : In(Issue)
        The slots of this cycle, for row 0 and column 0.
    valid : Out(1)
        A result of the first rows of column 0 will be written.
    place : In(OPlace)
        Where, in the same cycle; those of the other rows and columns follow at their distance in
        rows and columns, to the places beside it.
    accumulate : In(1)
        It's added to what stands there.
    s_write, d_write, o_read : In
        Ports of the scratchpads for the load and store units.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "issue": In(Issue(config)),
                "valid": Out(1),
                "place": In(OPlace(config)),
                "accumulate": In(1),
                "s_write": In(SWriteSignature(config)),
                "d_write": In(DWriteSignature(config)),
                "o_read": In(OReadSignature(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        m.submodules.decoder = decoder = OperandDecoder(config)
        wiring.connect(m, wiring.flipped(self.s_write), decoder.s_write)
        wiring.connect(m, wiring.flipped(self.d_write), decoder.d_write)

        s_banks = Block(block_name(config, "s_bank"), SBank(config)).place_all(
            m, platform, config.rows
        )
        s_read: Any = self.issue.s_read
        for row, bank in enumerate(s_banks):
            m.d.comb += [
                bank.write_enable.eq(
                    decoder.s.quarters & decoder.s.enable[row].replicate(config.ratio)
                ),
                bank.write_address.eq(decoder.s.address),
                bank.write_words.eq(decoder.s.words[row % config.ratio]),
                bank.read.eq(s_read),
            ]
            s_read = bank.read_next

        columns = Block(block_name(config, "column"), ArrayColumn(config)).place_all(
            m, platform, config.cols
        )
        s = [bank.s for bank in s_banks]
        d_read: Any = self.issue.d_read
        slot = delayed(m, self.issue.slot, READ_LATENCY)
        drain = delayed(m, self.issue.drain, READ_LATENCY, reset=True)
        addend_place = Signal(OPlace(config))
        m.d.comb += [
            addend_place.eq(self.place),
            addend_place.enable.eq(self.place.enable & self.accumulate),
        ]
        places = self._of_exits(m, self.place, ResultCollector.VALUE_LATENCY)
        addend_places = self._of_exits(m, addend_place, _ADDEND_READ)

        # From the first way out of the first column to the last of the last one.
        spread = (config.exits - 1) * config.drain_rows + config.cols
        reading = Signal(range(spread + 1))
        with m.If(delayed(m, addend_place.enable, _ADDEND_READ - 1, reset=True)):
            m.d.sync += reading.eq(spread)
        with m.Elif(reading != 0):
            m.d.sync += reading.eq(reading - 1)

        bank_number = delayed(m, self.o_read.bank)
        read_data = Signal.like(self.o_read.data, reset_less=True)
        m.d.comb += [
            self.valid.eq(columns[0].valid),
            self.o_read.ready.eq(reading == 0),
            self.o_read.data.eq(read_data),
        ]
        for number, column in enumerate(columns):
            m.d.comb += [
                column.write_enable.eq(decoder.d.enable[number]),
                column.write_address.eq(decoder.d.address),
                column.write_data.eq(decoder.d.data),
                column.d_read.eq(d_read),
                column.slot.eq(slot),
                column.drain.eq(drain),
                *(port.eq(word) for port, word in zip(column.s, s, strict=True)),
                column.places.eq(places),
                column.addend_places.eq(addend_places),
                column.read_enable.eq(self.o_read.bank == number),
                column.read_address.eq(self.o_read.address),
            ]
            d_read, s = column.d_read_next, column.s_next
            slot, drain = delayed(m, slot), delayed(m, drain, reset=True)
            places, addend_places = column.places_next, column.addend_places_next
            with m.If(bank_number == number):
                m.d.sync += read_data.eq(column.read_data)
        return m

    def _of_exits(self, m: Module, place: Any, cycles: int) -> Any:
        """Return the places of all ways out, the first `cycles` after `place`."""
        config = self._config
        places = Signal(data.ArrayLayout(OPlace(config), config.exits))
        place = delayed(m, place, cycles, reset=True)
        for number in range(config.exits):
            m.d.comb += [
                places[number].eq(place),
                places[number].position.eq(place.position | number * config.drain_rows),
            ]
            place = delayed(m, place, config.drain_rows, reset=True)
        return places
