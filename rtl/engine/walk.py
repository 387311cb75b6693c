"""Walks: nests of loops over the words of a scratchpad."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..control.commands import WALK_DIMENSIONS

__all__ = ["Loops", "WordWalk"]


class Loops(data.Struct):
    """The loops of a `rtl.control.commands.Walk`."""

    lasts: data.ArrayLayout(unsigned(16), WALK_DIMENSIONS)
    """Last round of each, from zero: their counts, less one."""
    steps: data.ArrayLayout(signed(16), WALK_DIMENSIONS)


class WordWalk(wiring.Component):
    """Goes from round to round of a walk, one in a cycle at most.

    Addresses are modulo ``2**address_bits``, as those of a scratchpad with so many words.

    Parameters
    ----------
    address_bits
        Width of an address.

    Attributes
    ----------
    loops : In(Loops)
        What is walked, from the cycle after `restart` on.
    base : In
        Address of the first round.
    restart : In(1)
        Go to the first round; goes before `advance`.
    advance : In(1)
        Go to the next round, or from the last to the first.
    address : Out
        Address of this round.
    next : Out
        Address in the next cycle, if it's another round's.
    """

    def __init__(self, address_bits: int) -> None:
        super().__init__(
            {
                "loops": In(Loops),
                "base": In(address_bits),
                "restart": In(1),
                "advance": In(1),
                "address": Out(address_bits),
                "next": Out(address_bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        indices = [Signal(16, name=f"index_{i}") for i in range(WALK_DIMENSIONS)]
        # For each dimension, where its current round began; for the innermost, where it is.
        starts = [Signal.like(self.address, name=f"start_{i}") for i in range(WALK_DIMENSIONS)]
        m.d.comb += self.address.eq(starts[0])

        # The innermost dimension that isn't at its end says where the next round begins.
        ends = Signal(WALK_DIMENSIONS)
        m.d.comb += self.next.eq(self.base)
        for i in reversed(range(WALK_DIMENSIONS)):
            m.d.comb += ends[i].eq(indices[i] == self.loops.lasts[i])
            with m.If(~self.restart & ~ends[i]):
                m.d.comb += self.next.eq(starts[i] + self.loops.steps[i])

        with m.If(self.restart | self.advance):
            carry = 1
            for i, (index, start) in enumerate(zip(indices, starts, strict=True)):
                with m.If(self.restart | carry):
                    restarts = self.restart | ends[i]
                    m.d.sync += [index.eq(Mux(restarts, 0, index + 1)), start.eq(self.next)]
                carry = carry & ends[i]
        return m
