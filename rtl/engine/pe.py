"""The sparse processing element."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.accumulator import BIN_SHIFT, UNIT_EXPONENT, ExactAccumulator, Operation
from ..arithmetic.formats import HALF, Special
from ..arithmetic.rounding import FixedPoint
from ..config import ACCUMULATOR_BINS, HALF_BITS, Config
from ..delay import delayed
from ..memory.ports import SWord
from ..memory.scratchpad import DWord

__all__ = ["ProcessingElement", "Result", "Slot", "latency", "sum_bits"]


class Slot(data.StructLayout):
    """What a processing element does in one cycle."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "operation": Operation,
                "context": unsigned((config.interleave - 1).bit_length()),
                "bin": unsigned((ACCUMULATOR_BINS - 1).bit_length()),
            }
        )


def latency(config: Config) -> int:
    """Cycles from the slot that drains a context's last bin until its sum can be taken."""
    return 9 + (config.lanes - 1).bit_length()


def sum_bits(config: Config) -> int:
    """Width of an exact dot product, as `FixedPoint` holds it."""
    bins = config.accumulator_bits + (config.lanes - 1).bit_length()
    return bins + 1 + BIN_SHIFT * (ACCUMULATOR_BINS - 1) + UNIT_EXPONENT - FixedPoint.UNIT_EXPONENT


class Result(data.StructLayout):
    """One place in the chain of results that a column passes down."""

    def __init__(self, config: Config) -> None:
        super().__init__({"valid": unsigned(1), "value": FixedPoint(sum_bits(config))})


class ProcessingElement(wiring.Component):
    """Exact dot products of S and D words, `config.interleave` of them at once.

    Operands and slots leave a cycle after they arrived. In a MULTIPLY slot every lane multiplies
    its entry of the S word by the element of its chunk of the D word that the entry's index names,
    and adds to the slot's context. Draining the bins of a context in ascending order and
    consecutive slots ends its sum, which is held until `take`, and then goes down the chain of
    results.

    A context may come back 4 cycles after its last MULTIPLY slot at the earliest.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    s, d, slot : In
        Operands and what to do with them, all of one cycle.
    s_next, d_next, slot_next : Out
        The same a cycle later, for the PE to the right (S) and the one below (D and slot).
    take : In(1)
        The held sum enters the chain. Valid from `latency(config)` cycles after the slot of the
        last bin on, until as many cycles after that of the next context.
    take_next : Out(1)
        The same two cycles later, for the PE below.
    above, below : In, Out(Result)
        The chain of results; `below` follows `above`, or shows the taken sum, a cycle later.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "s": In(SWord(config)),
                "s_next": Out(SWord(config)),
                "d": In(DWord(config)),
                "d_next": Out(DWord(config)),
                "slot": In(Slot(config)),
                "slot_next": Out(Slot(config)),
                "take": In(1),
                "take_next": Out(1),
                "above": In(Result(config)),
                "below": Out(Result(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        # Entry registers, also the way on to the neighbours. Only `take` and what it makes valid
        # need a reset: slots that are under way make no result, and what they leave is drained
        # later.
        s = Signal(SWord(config), reset_less=True)
        d = Signal(DWord(config), reset_less=True)
        slot = Signal(Slot(config), reset_less=True)
        m.d.sync += [s.eq(self.s), d.eq(self.d), slot.eq(self.slot)]
        m.d.comb += [self.s_next.eq(s), self.d_next.eq(d), self.slot_next.eq(slot)]

        # Select the activations.
        selected = delayed(m, slot)
        lanes = []
        for index in range(config.lanes):
            lane = ExactAccumulator(config.accumulator_bits, config.interleave)
            m.submodules[f"lane_{index}"] = lane
            lanes.append(lane)
            chunk = index // config.lanes_per_chunk * config.group
            elements = Cat(d[chunk + element] for element in range(config.group))
            value, activation = Signal(HALF, reset_less=True), Signal(HALF, reset_less=True)
            # In two steps, for simulators: a shift of 64 bits is much quicker than one of 128.
            half = config.group // 2 * HALF_BITS
            nearest = Mux(s[index].index[-1], elements[half:], elements[:half])
            m.d.sync += [
                value.eq(s[index].value),
                activation.eq(nearest.word_select(s[index].index[:-1], HALF_BITS)),
            ]
            m.d.comb += [
                lane.a.eq(value),
                lane.b.eq(activation),
                lane.operation.eq(selected.operation),
                lane.context.eq(selected.context),
                lane.bin.eq(selected.bin),
            ]

        # Infinities of each context, kept until its last bin is drained.
        checked = delayed(m, selected, ExactAccumulator.SPECIAL_LATENCY)
        met = Signal(Special)
        m.d.comb += [
            met.positive.eq(Cat(lane.special.positive for lane in lanes).any()),
            met.negative.eq(Cat(lane.special.negative for lane in lanes).any()),
        ]
        kept = Signal(data.ArrayLayout(Special, config.interleave), reset_less=True)
        for context in range(config.interleave):
            with m.If(checked.context == context):
                with m.If(checked.operation == Operation.MULTIPLY):
                    m.d.sync += kept[context].eq(kept[context].as_value() | met.as_value())
                with m.If(_is_last(checked)):
                    m.d.sync += kept[context].eq(0)
        special = delayed(m, kept[checked.context])

        # Sum each bin over the lanes.
        depth = (config.lanes - 1).bit_length()
        sums = [lane.sum for lane in lanes]
        while len(sums) > 1:
            pairs = [
                Signal(signed(len(sums[0]) + 1), reset_less=True) for _ in range(len(sums) // 2)
            ]
            m.d.sync += [
                pair.eq(left + right)
                for pair, left, right in zip(pairs, sums[0::2], sums[1::2], strict=True)
            ]
            sums = pairs

        # Combine the bins, lowest first: what is lower than the next bin reaches is final.
        in_step = ExactAccumulator.LATENCY - ExactAccumulator.SPECIAL_LATENCY + depth
        summed = delayed(m, checked, in_step)
        special = delayed(m, special, in_step)
        high = Signal(signed(len(sums[0]) + 1), reset_less=True)
        low = Signal(BIN_SHIFT * (ACCUMULATOR_BINS - 1), reset_less=True)
        carried = Mux(summed.bin == 0, 0, high >> BIN_SHIFT)
        with m.If(summed.operation == Operation.DRAIN):
            m.d.sync += [high.eq(sums[0] + carried), low.eq(Cat(low, high)[BIN_SHIFT:])]
        combined = delayed(m, summed)

        # Hold the sum, and pass it down when its turn comes.
        result = Signal(FixedPoint(sum_bits(config)), reset_less=True)
        with m.If(_is_last(combined)):
            m.d.sync += [
                result.units.eq(Cat(low, high)[FixedPoint.UNIT_EXPONENT - UNIT_EXPONENT :]),
                result.special.eq(special),
            ]
        valid, taken, take_next = Signal(), Signal(), Signal()
        value = Signal(FixedPoint(sum_bits(config)), reset_less=True)
        m.d.sync += [
            valid.eq(self.take | self.above.valid),
            value.eq(Mux(self.take, result, self.above.value)),
            taken.eq(self.take),
            take_next.eq(taken),
        ]
        m.d.comb += [
            self.below.valid.eq(valid),
            self.below.value.eq(value),
            self.take_next.eq(take_next),
        ]
        return m


def _is_last(slot: Any) -> Value:
    """Whether `slot` drains the last bin of its context."""
    return (slot.operation == Operation.DRAIN) & (slot.bin == ACCUMULATOR_BINS - 1)
