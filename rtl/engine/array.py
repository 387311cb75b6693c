"""The array of processing elements between its scratchpads."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.rounding import Rounder
from ..block import Block
from ..config import Config
from ..delay import delayed
from ..memory.ports import DWriteSignature, OReadSignature, SWriteSignature
from ..memory.scratchpad import READ_LATENCY, DBank, DRead, OBank, OPlace, SBank, SRead
from . import pe
from .pe import ProcessingElement, Slot

__all__ = ["Issue", "ProcessingArray", "result_latency"]


class Issue(wiring.Signature):
    """One slot for the whole array, with the reads of its operands.

    `take` goes with the slot that drains the last bin of a context whose sum is wanted.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "slot": Out(Slot(config)),
                "s_read": Out(SRead(config)),
                "d_read": Out(DRead),
                "take": Out(1),
            }
        )


def result_latency(config: Config) -> int:
    """Cycles from the issue of a slot with `take` until all its results can be read."""
    first = READ_LATENCY + pe.latency(config) + config.rows + Rounder.LATENCY
    return first + (config.rows - 1) + (config.cols - 1) + 1


class ProcessingArray(wiring.Component):
    """Rows by columns of processing elements, S banks to the left, D banks above, O banks below.

    Slots and operands spread by one row and one column a cycle. The results of a slot with `take`
    leave a column one a cycle, row 0 first, so two such slots are at least `config.rows` cycles
    apart.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    issue : In(Issue)
        The slot of this cycle, for row 0 and column 0.
    valid : Out(1)
        A result of column 0 is to be written.
    place : In(OPlace)
        Where, in the same cycle; the results of the other columns follow one by one to the same
        places of their banks.
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
                "s_write": In(SWriteSignature(config)),
                "d_write": In(DWriteSignature(config)),
                "o_read": In(OReadSignature(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        def place_all(part: str, component: wiring.Component, count: int) -> list[Any]:
            block = Block(f"{config.name.replace('-', '_')}_{part}", component)
            placed = [block.place(platform) for _ in range(count)]
            for index, placement in enumerate(placed):
                m.submodules[f"{part}_{index}"] = placement
            return placed

        s_banks = place_all("s_bank", SBank(config), config.rows)
        s_read: Any = self.issue.s_read
        for row, bank in enumerate(s_banks):
            m.d.comb += [
                bank.write_enable.eq(
                    self.s_write.quarters & self.s_write.enable[row].replicate(config.ratio)
                ),
                bank.write_address.eq(self.s_write.address),
                bank.write_words.eq(self.s_write.words[row % config.ratio]),
                bank.read.eq(s_read),
            ]
            s_read = bank.read_next

        d_banks = place_all("d_bank", DBank(config), config.cols)
        d_read: Any = self.issue.d_read
        for column, bank in enumerate(d_banks):
            m.d.comb += [
                bank.write_enable.eq(self.d_write.enable[column]),
                bank.write_address.eq(self.d_write.address),
                bank.write_data.eq(self.d_write.data),
                bank.read.eq(d_read),
            ]
            d_read = bank.read_next

        # Slots go down the columns with the D words, sums with the tokens that take them.
        elements = place_all("pe", ProcessingElement(config), config.rows * config.cols)
        slot = delayed(m, self.issue.slot, READ_LATENCY)
        take = delayed(m, self.issue.take, READ_LATENCY + pe.latency(config), reset=True)
        left: list[Any] = [bank.s for bank in s_banks]
        bottom = []
        for column, bank in enumerate(d_banks):
            upper: tuple[Any, ...] = (bank.d, slot, take)
            result: Any = None
            for row in range(config.rows):
                element = elements[row * config.cols + column]
                d, upper_slot, upper_take = upper
                m.d.comb += [
                    element.s.eq(left[row]),
                    element.d.eq(d),
                    element.slot.eq(upper_slot),
                    element.take.eq(upper_take),
                ]
                if row:
                    m.d.comb += element.above.eq(result)
                left[row] = element.s_next
                upper = (element.d_next, element.slot_next, element.take_next)
                result = element.below
            bottom.append(result)
            slot, take = delayed(m, slot), delayed(m, take, reset=True)

        rounders = place_all("rounder", Rounder(pe.sum_bits(config)), config.cols)
        o_banks = place_all("o_bank", OBank(config), config.cols)
        place: Any = self.place
        bank_number = delayed(m, self.o_read.bank)
        read_data = Signal.like(self.o_read.data, reset_less=True)
        m.d.comb += self.o_read.data.eq(read_data)
        for column, (rounder, bank) in enumerate(zip(rounders, o_banks, strict=True)):
            m.d.comb += [
                rounder.valid.eq(bottom[column].valid),
                rounder.sum.eq(bottom[column].value),
                bank.place.eq(place),
                bank.value.eq(rounder.result),
                bank.read_enable.eq(self.o_read.bank == column),
                bank.read_address.eq(self.o_read.address),
            ]
            place = bank.place_next
            if column == 0:
                m.d.comb += self.valid.eq(rounder.valid_next)
            with m.If(bank_number == column):
                m.d.sync += read_data.eq(bank.read_data)
        return m
