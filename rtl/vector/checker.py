"""Checks a VECTOR before it is carried out."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import VECTOR_REGISTERS, Config
from ..control.commands import (
    CoefficientKind,
    Fault,
    Fold,
    Mask,
    VectorBody,
    VectorOperand,
    VectorTarget,
)
from ..control.fault import FaultReport
from ..memory.products import PRODUCT_BITS, Products

__all__ = ["VectorChecker"]


class VectorChecker(wiring.Component):
    """Says what is wrong with a command, in 9 cycles if it writes to memory, else at once.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    body : In(VectorBody)
        The command, constant from `start` on.
    start : In(1)
        Begins; not before `done`.
    done : Out(1)
        `verdict` and `beats` are valid.
    verdict : Out(FaultReport)
        ``MALFORMED`` (a count of zero, more rows than a tile has, an operand or mask that isn't
        there, a combination that has no meaning, a descriptor of another number of beats than the
        result has; address 0) or ``SCRATCHPAD_RANGE`` with the first register.
    beats : Out
        Beats that go to memory.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(VectorBody),
                "start": In(1),
                "done": Out(1),
                "verdict": Out(FaultReport),
                "beats": Out(PRODUCT_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body = self._config, self.body

        folds = body.fold != Fold.NONE
        narrow, wide = (
            body.target == target for target in (VectorTarget.NARROW, VectorTarget.WIDE)
        )
        to_registers = body.target == VectorTarget.REGISTERS

        # Beats that the descriptor names, beats of the result.
        m.submodules.products = products = Products([4, 3])
        factors = [
            *body.descriptor.counts,
            body.groups,
            Mux(folds, 1, body.window),
            Mux(wide, body.rows << 1, config.elements),
        ]
        m.d.comb += [products.factors[i].eq(factor) for i, factor in enumerate(factors)]
        named_beats, beats = products.products
        m.d.comb += [
            products.start.eq(self.start),
            self.beats.eq(beats),
            self.done.eq(products.done | ~(narrow | wide)),
        ]

        y_held = Cat(body.y == VectorOperand.HELD_0, body.y == VectorOperand.HELD_1)
        y_register = body.y == VectorOperand.REGISTER
        first_equal = body.mask == Mask.FIRST_EQUAL
        needs_second = y_held[1] | (body.mask == Mask.HELD_1_POSITIVE)
        needs_first = y_held[0] | first_equal | (body.mask == Mask.HELD_0_POSITIVE)
        uses_y = body.reduce_product | body.times_y | (body.b.kind != CoefficientKind.ABSENT)
        single = (body.groups == 1) & (folds | (body.window == 1))
        malformed = Signal()
        m.d.comb += malformed.eq(
            (body.groups == 0)
            | (body.window == 0)
            | (body.rows == 0)
            | (body.rows > config.elements)
            | (body.held > 2)
            | (needs_first & (body.held == 0))
            | (needs_second & ~body.held[1])
            | (y_register & ~body.from_registers)
            | (body.from_registers & (~single | (body.window != 1) | (body.held != 0)))
            | (first_equal & (body.wide | folds))
            | (uses_y & (body.y == VectorOperand.NONE))
            | (to_registers & ~single)
            | (body.times_y & (folds | ~(narrow | wide)))
            | _unknown(body.y, VectorOperand)
            | _unknown(body.mask, Mask)
            | _unknown(body.fold, Fold)
            | _unknown(body.reduce, Fold)
            | Cat(_unknown(body[term].kind, CoefficientKind) for term in "abc").any()
        )

        with m.If(malformed | ((narrow | wide) & (named_beats != beats))):
            m.d.comb += self.verdict.code.eq(Fault.MALFORMED)
        with m.Else():
            ranges = [
                *(
                    (body[term].kind == CoefficientKind.REGISTER, body[term].value, 1)
                    for term in "abc"
                ),
                (body.from_registers, body.x_register, body.rows),
                (y_register, body.y_register, body.rows),
                (to_registers, body.target_register, body.rows),
            ]
            for used, first, count in reversed(ranges):
                with m.If(used & (first + count > VECTOR_REGISTERS)):
                    m.d.comb += [
                        self.verdict.code.eq(Fault.SCRATCHPAD_RANGE),
                        self.verdict.address.eq(first),
                    ]

        return m


def _unknown(value: Any, kind: Any) -> Any:
    """Return whether `value` is none of `kind`, whose members count from 0."""
    return value.as_value() >= len(kind)
