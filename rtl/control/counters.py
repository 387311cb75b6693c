"""Event counters."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["COUNTER_BITS", "CounterValue", "Counters"]

COUNTER_BITS = 64


class CounterValue(data.StructLayout):
    """The value of one of `number` counters."""

    def __init__(self, number: int) -> None:
        super().__init__({"index": range(number), "value": unsigned(COUNTER_BITS)})


class Counters(wiring.Component):
    """Counters of `COUNTER_BITS` each, of which one a cycle is brought up to date, in turn.

    Each collects in a few bits what happens until its turn, in which that's added to the value in a
    memory: one wide adder serves all. Nothing is lost; a value is as of the cycle before the one in
    which it's shown.

    Parameters
    ----------
    widths
        For each counter its name and the bits of its step.

    Attributes
    ----------
    steps : In
        By how much each counts in this cycle.
    value : Out(CounterValue)
        The next one, in the order of `widths`; all come within as many cycles as there are.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        if len(widths) < 2:
            raise ValueError(f"{len(widths)} counters, must be 2 or more")
        super().__init__(
            {
                "steps": In(data.StructLayout({name: unsigned(w) for name, w in widths.items()})),
                "value": Out(CounterValue(len(widths))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        names = list(self.steps.shape().members)
        number = len(names)
        m.submodules.memory = memory = Memory(shape=unsigned(COUNTER_BITS), depth=number, init=[])
        write, read = memory.write_port(), memory.read_port()

        turn = Signal(range(number))
        is_first_round = Signal(init=1)
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == number - 1):
            m.d.sync += [turn.eq(0), is_first_round.eq(0)]

        # Collect, until it's the counter's turn.
        sums = [
            Signal(range(number * (2 ** len(self.steps[name]) - 1) + 1), name=f"{name}_collected")
            for name in names
        ]
        for index, (name, total) in enumerate(zip(names, sums, strict=True)):
            m.d.sync += total.eq(Mux(turn == index, 0, total) + self.steps[name])
        collected = Signal(max(len(total) for total in sums))
        with m.Switch(turn):
            for index, total in enumerate(sums):
                with m.Case(index):
                    m.d.sync += collected.eq(total)
        m.d.comb += read.addr.eq(turn)

        # Add. What the memory holds before the first round means nothing.
        is_first_value = Signal(init=1)
        m.d.sync += [is_first_value.eq(is_first_round), self.value.index.eq(turn)]
        m.d.comb += [
            self.value.value.eq(Mux(is_first_value, 0, read.data) + collected),
            write.addr.eq(self.value.index),
            write.data.eq(self.value.value),
            write.en.eq(1),
        ]
        return m
