"""One lane of the weight-update vector engine."""

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.float32 import FloatAdder, FloatMultiplier, FloatToHalf
from ..arithmetic.formats import CANONICAL_NAN, FLOAT, HALF
from ..delay import delayed

__all__ = ["SGDLane"]


class SGDLane(wiring.Component):
    """Stochastic gradient descent with momentum and weight decay: one weight a cycle.

    Every operation is rounded to binary32 as `FloatAdder` and `FloatMultiplier` do::

        d = gradient * 2**-scale + decay * weight
        new_velocity = momentum * velocity + d
        new_weight = weight - rate * new_velocity

    Attributes
    ----------
    weight, velocity, gradient : In(FLOAT)
        What changes every cycle.
    rate, momentum, decay : In(FLOAT)
        Hyperparameters; like `scale` constant while weights are under way.
    scale : In(signed(8))
        Exponent of the loss scale that is undone.
    enable : In(1)
        Advance the pipeline; 1 unless connected.
    new_weight, new_velocity : Out(FLOAT)
        Results, `LATENCY` enabled cycles later.
    copy : Out(HALF)
        `new_weight` as binary16, in the same cycle.
    """

    weight: In(FLOAT)
    velocity: In(FLOAT)
    gradient: In(FLOAT)
    rate: In(FLOAT)
    momentum: In(FLOAT)
    decay: In(FLOAT)
    scale: In(signed(8))
    enable: In(1, init=1)
    new_weight: Out(FLOAT)
    new_velocity: Out(FLOAT)
    copy: Out(HALF)

    LATENCY = 2 * FloatMultiplier.LATENCY + 3 * FloatAdder.LATENCY + 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        # d, beside momentum * velocity
        m.submodules.decayed = decayed = FloatMultiplier()
        m.submodules.step = step = FloatAdder()
        m.submodules.kept = kept = FloatMultiplier()
        scaled = Signal(FLOAT, reset_less=True)
        m.d.sync += scaled.eq(_scale_down(m, self.gradient, self.scale))
        m.d.comb += [
            decayed.a.eq(self.decay),
            decayed.b.eq(self.weight),
            step.a.eq(delayed(m, scaled, FloatMultiplier.LATENCY - 1)),
            step.b.eq(decayed.o),
            kept.a.eq(self.momentum),
            kept.b.eq(self.velocity),
        ]

        # new_velocity
        m.submodules.velocity_sum = velocity_sum = FloatAdder()
        m.d.comb += [
            velocity_sum.a.eq(delayed(m, kept.o, FloatAdder.LATENCY)),
            velocity_sum.b.eq(step.o),
        ]

        # new_weight
        m.submodules.descent = descent = FloatMultiplier()
        m.submodules.weight_sum = weight_sum = FloatAdder()
        to_descent = 2 * FloatAdder.LATENCY + FloatMultiplier.LATENCY
        m.d.comb += [
            descent.a.eq(self.rate),
            descent.b.eq(velocity_sum.o),
            weight_sum.a.eq(delayed(m, self.weight, to_descent + FloatMultiplier.LATENCY)),
            weight_sum.b.eq(descent.o),
            weight_sum.b.sign.eq(~descent.o.sign),
        ]

        # binary16 copy
        m.submodules.to_half = to_half = FloatToHalf()
        m.d.comb += to_half.i.eq(weight_sum.o)
        new_weight = Signal(FLOAT, reset_less=True)
        copy = Signal(HALF, reset_less=True)
        m.d.sync += [new_weight.eq(weight_sum.o), copy.eq(to_half.o)]
        remaining = FloatMultiplier.LATENCY + FloatAdder.LATENCY + 1
        m.d.comb += [
            self.new_weight.eq(new_weight),
            self.new_velocity.eq(delayed(m, velocity_sum.o, remaining)),
            self.copy.eq(copy),
        ]

        return EnableInserter(self.enable)(m)


def _scale_down(m: Module, value: Any, scale: Value) -> Value:
    """Return ``value * 2**-scale``, flushed below the normal range and infinite above it."""
    special = (1 << FLOAT.exponent_bits) - 1
    exponent = Signal(signed(FLOAT.exponent_bits + 2))
    m.d.comb += exponent.eq(value.exponent - scale)
    result = Signal(FLOAT)
    m.d.comb += result.sign.eq(value.sign)
    with m.If((value.exponent == special) & value.fraction.any()):
        m.d.comb += result.eq(Const(CANONICAL_NAN, FLOAT.size))
    with m.Elif((value.exponent != 0) & ((value.exponent == special) | (exponent >= special))):
        m.d.comb += result.exponent.eq(special)
    with m.Elif((value.exponent != 0) & (exponent > 0)):
        m.d.comb += Cat(result.fraction, result.exponent).eq(
            Cat(value.fraction, exponent[: FLOAT.exponent_bits])
        )
    return result
