"""What happens to a product between the O scratchpad and memory: sums, ReLU, conversion, mask."""

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.float32 import FloatAdder, FloatToHalf, HalfToFloat
from ..arithmetic.formats import FLOAT, HALF, is_positive
from ..block import Block
from ..config import Config

__all__ = ["Epilogue"]

_MINUS_ZERO = 1 << 31
"""Added where nothing is to be added: leaves every sum as it is."""


class EpilogueLane(wiring.Component):
    """One element: bias, another tensor, ReLU and conversion.

    Attributes
    ----------
    i : In(FLOAT)
        A sum from the O scratchpad: normal, zero, infinite or the canonical NaN.
    bias : In(HALF)
        What to add to it if `add_bias`.
    addend : In(HALF)
        What to add then if `add`; `ADDEND_LATENCY` enabled cycles after `i`.
    add_bias, add, relu : In(1)
        Steps to do; must not change with elements under way.
    enable : In(1)
        Advance the pipeline; 1 unless connected.
    o : Out(FLOAT)
        Result, `LATENCY` enabled cycles later.
    half : Out(HALF)
        The same in binary16.
    """

    i: In(FLOAT)
    bias: In(HALF)
    addend: In(HALF)
    add_bias: In(1)
    add: In(1)
    relu: In(1)
    enable: In(1, init=1)
    o: Out(FLOAT)
    half: Out(HALF)

    ADDEND_LATENCY = FloatAdder.LATENCY
    LATENCY = 1 + FloatAdder.LATENCY + FloatAdder.LATENCY + 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        m.submodules.widen_bias = widen_bias = HalfToFloat()
        m.submodules.bias_adder = bias_adder = FloatAdder()
        m.d.comb += widen_bias.i.eq(self.bias)
        m.d.sync += [
            bias_adder.a.eq(self.i),
            bias_adder.b.eq(Mux(self.add_bias, widen_bias.o.as_value(), _MINUS_ZERO)),
        ]

        m.submodules.widen_addend = widen_addend = HalfToFloat()
        m.submodules.adder = adder = FloatAdder()
        m.d.comb += [widen_addend.i.eq(self.addend), adder.a.eq(bias_adder.o)]
        m.d.sync += adder.b.eq(Mux(self.add, widen_addend.o.as_value(), _MINUS_ZERO))

        # The adder's only NaN is positive, so the sign alone decides.
        m.submodules.narrow = narrow = FloatToHalf()
        m.d.comb += narrow.i.eq(adder.o)
        m.d.sync += [self.o.eq(adder.o), self.half.eq(narrow.o)]
        with m.If(self.relu & adder.o.sign):
            m.d.sync += [self.o.eq(0), self.half.eq(0)]

        return EnableInserter(self.enable)(m)


class Epilogue(wiring.Component):
    """Turns O words into beats for memory, a slice of a word a cycle; never stalls.

    A slice is the whole word or a part of it (`Config.epilogue_slices`). Without conversion a word
    becomes a beat `LATENCY` cycles after its last slice; with it two successive words become one,
    `LATENCY` cycles after the second. Converted words are there singly as well.

    Parameters
    ----------
    config
        Sets the number of lanes.

    Attributes
    ----------
    valid : In(1)
        There is a slice; those of a word come in order.
    word : In(array of FLOAT)
        Its sums.
    bias : In(array of HALF)
        What to add to them.
    addend : In(array of HALF)
        What to add then, `ADDEND_LATENCY` cycles after the slice.
    mask : In(array of HALF)
        For the beat that a slice belongs to, `MASK_LATENCY` cycles after the slice: zero where this
        isn't greater than zero.
    add_bias, add, relu, convert, apply_mask : In(1)
        Steps to do; `apply_mask` needs `convert`. Must not change with words under way.
    halves_valid : Out(1)
        There is a converted word.
    halves : Out(array of HALF)
        G/2 binary16 values, `LATENCY` cycles after their last slice.
    beat_valid : Out(1)
        There is a beat.
    beat : Out(beat)
        G/2 binary32 or G binary16 values.
    nonfinite : Out(range)
        Infinities and NaNs in the slice whose results were due in the cycle before; else 0.
    """

    LATENCY = EpilogueLane.LATENCY + 1
    ADDEND_LATENCY = EpilogueLane.ADDEND_LATENCY
    MASK_LATENCY = EpilogueLane.LATENCY - 1

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "valid": In(1),
                "word": In(data.ArrayLayout(FLOAT, config.epilogue_lanes)),
                "bias": In(data.ArrayLayout(HALF, config.epilogue_lanes)),
                "addend": In(data.ArrayLayout(HALF, config.epilogue_lanes)),
                "mask": In(data.ArrayLayout(HALF, config.elements)),
                "add_bias": In(1),
                "add": In(1),
                "relu": In(1),
                "convert": In(1),
                "apply_mask": In(1),
                "halves_valid": Out(1),
                "halves": Out(data.ArrayLayout(HALF, config.floats)),
                "beat_valid": Out(1),
                "beat": Out(unsigned(config.beat_bits)),
                "nonfinite": Out(range(config.epilogue_lanes + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        lanes_count, slices = config.epilogue_lanes, config.epilogue_slices
        lane_block = Block("epilogue_lane", EpilogueLane())
        lanes = []
        travelling = Signal(EpilogueLane.LATENCY)
        for i in range(lanes_count):
            m.submodules[f"lane_{i}"] = lane = lane_block.place(platform)
            m.d.comb += [
                lane.i.eq(self.word[i]),
                lane.bias.eq(self.bias[i]),
                lane.addend.eq(self.addend[i]),
                lane.add_bias.eq(self.add_bias),
                lane.add.eq(self.add),
                lane.relu.eq(self.relu),
                lane.enable.eq(self.valid | travelling.any()),
            ]
            lanes.append(lane)
        m.d.sync += travelling.eq(Cat(self.valid, travelling))
        arrived = travelling[-1]

        # Converted, the first word of a beat waits for the second; each slice has its part of the
        # mask.
        place = Signal(range(2 * slices))
        second = place[-1]
        ends_word = place[:-1] == slices - 1
        with m.If(arrived):
            m.d.sync += place.eq(place + 1)
            with m.If(~self.convert):
                m.d.sync += second.eq(0)
        positive = Signal(config.elements)
        m.d.sync += positive.eq(Cat(is_positive(half) for half in self.mask))
        keep = Signal(lanes_count)
        m.d.comb += keep.eq(Mux(self.apply_mask, positive.word_select(place, lanes_count), ~0))
        masked = Signal(data.ArrayLayout(HALF, lanes_count))
        for i, lane in enumerate(lanes):
            m.d.comb += masked[i].eq(Mux(keep[i], lane.half.as_value(), 0))

        # Slices join to a beat from its upper end.
        infinite_or_nan = Signal(lanes_count)
        with m.If(self.convert):
            m.d.sync += infinite_or_nan.eq(Cat(half.exponent.all() for half in masked))
        with m.Else():
            m.d.sync += infinite_or_nan.eq(Cat(lane.o.exponent.all() for lane in lanes))
        with m.If(arrived):
            m.d.sync += self.beat.eq(
                Mux(
                    self.convert,
                    Cat(self.beat, masked)[-config.beat_bits :],
                    Cat(self.beat, *(lane.o for lane in lanes))[-config.beat_bits :],
                )
            )
        m.d.comb += self.halves.eq(self.beat[config.beat_bits // 2 :])
        counted = Signal()
        m.d.sync += [
            self.halves_valid.eq(arrived & ends_word & self.convert),
            self.beat_valid.eq(arrived & ends_word & (second | ~self.convert)),
            counted.eq(arrived),
            self.nonfinite.eq(Mux(counted, sum(infinite_or_nan, Const(0, 1)), 0)),
        ]

        return m
