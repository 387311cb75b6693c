"""The sparse processing element."""

import functools
import operator
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import Special
from ..arithmetic.operand import BIN_SHIFT, UNIT_EXPONENT
from ..arithmetic.rounding import FixedPoint
from ..config import ACCUMULATOR_BINS, Config
from ..delay import delayed
from ..memory.scratchpad import DOperands, SOperands
from ..technology import wide_select
from .lane import BIN, Lane, Place

__all__ = [
    "DrainSlot",
    "ProcessingElement",
    "Result",
    "Slot",
    "drain_distance",
    "drain_turns",
    "latency",
    "sum_bits",
]

_SELECT = 1
"""Cycles from the entry registers to cycle 0 of the lanes."""


class Slot(data.StructLayout):
    """What the multipliers do in one cycle.

    ``first`` says that the output begins in the lanes' bins, ``fresh`` that it begins altogether,
    ``last`` that the lanes' bins are drained next.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "multiply": unsigned(1),
                "place": Place(config),
                "first": unsigned(1),
                "fresh": unsigned(1),
                "last": unsigned(1),
            }
        )


class DrainSlot(data.StructLayout):
    """What the drain does in one cycle: one turn of a bin.

    In turn t the lanes t (mod `drain_turns`) are added, in turn `drain_turns` what the processing
    element kept of this output before; without that, the turn is left out. ``ends`` marks the last
    turn of a bin. If the slot is ``final`` the sum leaves, otherwise it's kept.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "enable": unsigned(1),
                "place": Place(config),
                "bin": BIN,
                "turn": range(drain_turns(config) + 1),
                "ends": unsigned(1),
                "final": unsigned(1),
            }
        )


def drain_distance(config: Config) -> int:
    """Cycles from the last multiplying slot of an output to the first that drains it, at least.

    Bins are read a cycle after the draining slot has come. The last products must have been added
    by then, and with one port nothing may be read any more that they're added to, not even for the
    last of the contexts.
    """
    distance = _SELECT + Lane.WRITE_STAGE
    if config.bin_ports == 1:
        distance = max(distance, config.interleave - 1 + _SELECT + Lane.READ_STAGE)
    return distance


def drain_turns(config: Config) -> int:
    """Turns in which the lanes of a processing element are added to one bin.

    As many as hide behind the other processing elements on the same way out.
    """
    return max(1, config.drain_rows // ACCUMULATOR_BINS)


def _groups(config: Config) -> int:
    """Groups of lanes, of which one has its turn; each is added in a stage of its own."""
    return -(-config.lanes // drain_turns(config))


def latency(config: Config) -> int:
    """Cycles from the entry of the last draining slot of an output until its sum has left."""
    return 6 + _groups(config)


def sum_bits(config: Config) -> int:
    """Width of an exact dot product, as `FixedPoint` holds it."""
    low = BIN_SHIFT * (ACCUMULATOR_BINS - 1)
    return config.accumulator_bits + low + UNIT_EXPONENT - FixedPoint.UNIT_EXPONENT


class Result(data.StructLayout):
    """A sum that leaves a processing element, or else all zeros."""

    def __init__(self, config: Config) -> None:
        super().__init__({"valid": unsigned(1), "value": FixedPoint(sum_bits(config))})


class ProcessingElement(wiring.Component):
    """Exact dot products of S and D words, `config.interleave` of them at once.

    Operands and slots leave a cycle after they arrived. In a multiplying slot every lane multiplies
    its entry of the S word by the element of its chunk of the D word that the entry's index names,
    and adds to the slot's output. Outputs come in turn: contexts 0, 1, ... of a half.

    Draining takes an output's bins in ascending order and consecutive slots, `drain_turns` or one
    more for each, while the other half of the bins accumulates. From the cycle after the last of
    them on, slots may multiply for the next output in the same place.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    s, d, slot, drain : In
        Operands and what to do with them, and what to drain, all of one cycle.
    s_next, d_next, slot_next, drain_next : Out
        The same a cycle later, for the PE to the right (S) and the one below.
    result : Out(Result)
        A sum, `latency(config)` cycles after the last slot that drains it.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "s": In(SOperands(config)),
                "s_next": Out(SOperands(config)),
                "d": In(DOperands(config)),
                "d_next": Out(DOperands(config)),
                "slot": In(Slot(config)),
                "slot_next": Out(Slot(config)),
                "drain": In(DrainSlot(config)),
                "drain_next": Out(DrainSlot(config)),
                "result": Out(Result(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        # Entry registers, also the way on to the neighbours. Only what lets a sum leave needs a
        # reset.
        s, d = delayed(m, self.s), delayed(m, self.d)
        slot, drain = delayed(m, self.slot), delayed(m, self.drain)
        enable = delayed(m, self.drain.enable, reset=True)
        m.d.comb += [
            self.s_next.eq(s),
            self.d_next.eq(d),
            self.slot_next.eq(slot),
            self.drain_next.eq(drain),
            self.drain_next.enable.eq(enable),
        ]

        # Select the activations, multiply, accumulate.
        touch = delayed(m, slot, _SELECT + Lane.TOUCH_STAGE)
        read = delayed(m, touch, Lane.READ_STAGE - Lane.TOUCH_STAGE)
        write = delayed(m, read, Lane.WRITE_STAGE - Lane.READ_STAGE)
        lanes = []
        for index in range(config.lanes):
            lane = Lane(config)
            m.submodules[f"lane_{index}"] = lane
            lanes.append(lane)
            chunk = index // config.lanes_per_chunk * config.group
            elements = [d[chunk + element] for element in range(config.group)]
            selected = delayed(m, wide_select(m, platform, elements, s[index].index))
            m.d.comb += [
                lane.a.eq(delayed(m, s[index].operand)),
                lane.kind.eq(delayed(m, s[index].kind)),
                lane.b.eq(selected),
                lane.touch.eq(touch.multiply),
                lane.first.eq(touch.first),
                lane.read.eq(read.place),
                lane.write.eq(write.place),
                lane.write_enable.eq(write.multiply),
            ]

        # Infinities of the outputs, which come in turn.
        met = Signal(Special)
        m.d.comb += [
            met.positive.eq(Cat(lane.special.positive for lane in lanes).any()),
            met.negative.eq(Cat(lane.special.negative for lane in lanes).any()),
        ]
        specials = Signal(data.ArrayLayout(Special, config.interleave), reset_less=True)
        with m.If(touch.multiply):
            m.d.sync += [
                specials[-1].eq(Mux(touch.fresh, 0, specials[0].as_value()) | met.as_value()),
                *(specials[i].eq(specials[i + 1]) for i in range(config.interleave - 1)),
            ]

        # What is known of an output when its bins are to be drained.
        touched_layout = data.ArrayLayout(ACCUMULATOR_BINS, config.lanes)
        notes_layout = data.StructLayout({"touched": touched_layout, "special": Special})
        m.submodules.notes = notes = Memory(
            shape=notes_layout,
            depth=2 * config.interleave,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        note, noted = notes.write_port(), notes.read_port(domain="comb")
        noting = delayed(m, touch)
        m.d.comb += [
            note.addr.eq(noting.place),
            note.data.special.eq(specials[-1]),
            note.en.eq(noting.multiply & noting.last),
            noted.addr.eq(drain.place),
        ]

        # Drain, a bin at a time: read it in the lanes whose turn it is.
        turns = drain_turns(config)
        reading = delayed(m, drain)
        drained = []
        for index, lane in enumerate(lanes):
            skip = Signal(reset_less=True)
            m.d.sync += skip.eq(~noted.data.touched[index].bit_select(drain.bin, 1))
            with m.If(drain.turn != index % turns):
                m.d.sync += skip.eq(1)
            # Each group is added a stage after the one before; read it's no later than in the cycle
            # in which the next products in its place are written.
            group = index // turns
            later = min(group, _SELECT + Lane.WRITE_STAGE)
            turn = delayed(m, reading, later)
            m.d.comb += [
                note.data.touched[index].eq(lane.touched),
                lane.drain.eq(turn.place),
                lane.drain_bin.eq(turn.bin),
                lane.drain_enable.eq(turn.enable),
                lane.drain_skip.eq(delayed(m, skip, later)),
            ]
            drained.append(delayed(m, lane.drained, group - later))
        special = delayed(m, noted.data.special)

        # The sums that were kept, and which of them has its turn.
        m.submodules.kept = kept = Memory(
            shape=signed(config.accumulator_bits),
            depth=config.interleave * ACCUMULATOR_BINS,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        keep, keeping = kept.write_port(), kept.read_port(domain="comb")
        earlier = Signal(config.accumulator_bits, reset_less=True)
        m.d.comb += keeping.addr.eq(Cat(reading.bin, reading.place.context))
        m.d.sync += earlier.eq(keeping.data)
        with m.If(reading.turn != turns):
            m.d.sync += earlier.eq(0)

        # Add the lanes, group by group: those of a group take turns and are zero otherwise. The
        # lower bits of the kept sum come in with the first, the upper ones behind the adders. An
        # adder has a register on one side, so that it's one LUT and its carry chain.
        groups = [
            functools.reduce(operator.or_, drained[first : first + turns])
            for first in range(0, config.lanes, turns)
        ]
        lower = config.bin_bits - 1
        total = delayed(m, (groups[0] | earlier[:lower]).as_signed())
        for group in groups[1:]:
            total = delayed(m, _add(total, group))
        stages = len(groups)
        upper = delayed(m, earlier[lower:], stages).as_signed() << lower
        addend = delayed(m, (total | upper)[: config.accumulator_bits].as_signed())

        # Combine the turns of a bin, and the bins: what is lower than the next bin reaches is
        # final.
        ahead = delayed(m, reading, 1 + stages)
        adding = delayed(m, ahead)
        goes_on = ahead.final & (ahead.bin != 0)
        clears = delayed(m, (ahead.turn == 0) & ~goes_on)
        shifts = delayed(m, (ahead.turn == 0) & goes_on)
        high = Signal(signed(config.accumulator_bits), reset_less=True)
        low = Signal(BIN_SHIFT * (ACCUMULATOR_BINS - 1), reset_less=True)
        carried = Mux(clears, 0, Mux(shifts, high >> BIN_SHIFT, high)).as_signed()
        with m.If(adding.enable):
            m.d.sync += high.eq(_add(addend, carried))
            with m.If(shifts):
                m.d.sync += low.eq(Cat(low, high)[BIN_SHIFT:])

        # Keep the sum of a bin, or let all of them leave.
        added = delayed(m, adding)
        special = delayed(m, special, stages + 3)
        m.d.comb += [
            keep.addr.eq(Cat(added.bin, added.place.context)),
            keep.data.eq(high),
            keep.en.eq(added.enable & added.ends & ~added.final),
        ]
        leaves, valid = Signal(), Signal()
        value = Signal(FixedPoint(sum_bits(config)), reset_less=True)
        m.d.comb += [
            leaves.eq(
                delayed(m, enable, stages + 4, reset=True)
                & added.ends
                & added.final
                & (added.bin == ACCUMULATOR_BINS - 1)
            ),
            self.result.valid.eq(valid),
            self.result.value.eq(value),
        ]
        m.d.sync += [valid.eq(leaves), value.eq(0)]
        with m.If(leaves):
            m.d.sync += [
                value.units.eq(Cat(low, high)[FixedPoint.UNIT_EXPONENT - UNIT_EXPONENT :]),
                value.special.eq(special),
            ]
        return m


def _add(register: Value, selected: Value) -> Value:
    """Return the sum of two signed values, so that one LUT a bit does it.

    It's written as the subtraction of the complement, less the borrow of a bit below: unlike those
    of an addition, synthesis can't swap the operands, and the logic of `selected` shares the
    adder's LUTs.
    """
    return (Cat(0, register).as_signed() - Cat(1, ~selected).as_signed())[1:].as_signed()
