"""Multiplication and exact addition, as one DSP block does them."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import MULTIPLIER_BITS, PRODUCT_BITS
from ..delay import delayed
from ..technology import Technology, technology_of

__all__ = ["MultiplyAdd"]

_A_BITS = 18
_B_BITS = 14
_HIGH_SHIFT = 8


class MultiplyAdd(wiring.Component):
    """``p = (c if accumulate else 0) + product``, or ``-`` if negative.

    The product is ``(a << (8 if high else 0)) * b``. Sums wrap around.

    Parameters
    ----------
    bits
        Width of the sum, 42 to 48.

    Attributes
    ----------
    b : In
        One factor, in cycle 0.
    a, high : In
        The other, in cycle 1.
    c, accumulate, negative : In
        What the product is added to, in cycle 2.
    p : Out(signed(bits))
        The sum, in cycle `LATENCY`.
    """

    LATENCY = 4

    def __init__(self, bits: int = MULTIPLIER_BITS) -> None:
        if not PRODUCT_BITS + 2 <= bits <= MULTIPLIER_BITS:
            raise ValueError(f"bits is {bits}, must be {PRODUCT_BITS + 2} to {MULTIPLIER_BITS}")
        self._bits = bits
        super().__init__(
            {
                "a": In(_A_BITS),
                "high": In(1),
                "b": In(_B_BITS),
                "c": In(signed(bits)),
                "accumulate": In(1),
                "negative": In(1),
                "p": Out(signed(bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        technology = technology_of(platform)
        if technology is Technology.ULTRASCALE_PLUS:
            return self._ultrascale_plus()
        return self._generic(by_18_bits=technology is Technology.ECP5)

    def _generic(self, *, by_18_bits: bool) -> Module:
        m = Module()

        # Cycles 0 to 2: shift, then multiply; or the other way round, as the shift of a product
        # shares its LUTs with the complement.
        b = delayed(m, self.b)
        if by_18_bits:
            product = _multiply_ecp5(m, self.a, b)
            product = Mux(delayed(m, self.high, 2), product.shift_left(_HIGH_SHIFT), product)
        else:
            shifted = delayed(m, Mux(self.high, self.a.shift_left(_HIGH_SHIFT), self.a))
            product = delayed(m, shifted * delayed(m, b))
        negative = delayed(m, self.negative)
        c = Signal(self._bits, reset_less=True)
        m.d.sync += c.eq(self.c)
        with m.If(~self.accumulate):
            m.d.sync += c.eq(0)

        # Cycle 3: add or subtract. Addition is the subtraction of the complement, less the borrow
        # that it takes from a bit below: so one LUT does each bit of either.
        subtrahend = Cat(product, Const(0, self._bits - PRODUCT_BITS))
        difference = Cat(negative, c) - Cat(1, Mux(negative, subtrahend, ~subtrahend))
        m.d.comb += self.p.eq(delayed(m, difference[1 : 1 + self._bits]))
        return m

    def _ultrascale_plus(self) -> Module:
        """One DSP48E2 (UG579), whose attributes and ports are in the order of its stages."""
        m = Module()
        c, p = Signal(signed(MULTIPLIER_BITS)), Signal(signed(MULTIPLIER_BITS))
        m.d.comb += [c.eq(self.c), self.p.eq(p)]
        m.submodules.slice = Instance(
            "DSP48E2",
            i_CLK=ClockSignal(),
            # Cycle 0.
            p_BREG=2, p_BCASCREG=2, i_CEB1=1, i_CEB2=1, i_RSTB=0,
            i_B=Cat(self.b, Const(0, 18 - _B_BITS)),
            # Cycle 1. The pre-adder gets `a` in both places, and lets one through.
            p_AREG=0, p_ACASCREG=0, i_CEA1=0, i_CEA2=0, i_RSTA=0,
            i_A=Cat(self.a, Const(0, 30 - _A_BITS)),
            p_DREG=0, i_CED=0,
            i_D=Cat(Const(0, _HIGH_SHIFT), self.a, Const(0, 27 - _HIGH_SHIFT - _A_BITS)),
            p_INMODEREG=0, i_CEINMODE=0, i_RSTINMODE=0,
            i_INMODE=Cat(Const(0, 1), self.high, self.high, Const(0, 2)),
            p_PREADDINSEL="A", p_ADREG=1, i_CEAD=1, i_RSTD=0,
            # Cycle 2.
            p_AMULTSEL="AD", p_BMULTSEL="B", p_USE_MULT="MULTIPLY", p_MREG=1, i_CEM=1, i_RSTM=0,
            # X and Y make the product, Z is C or zero; Z + (X + Y) or Z - (X + Y).
            p_CREG=1, i_CEC=1, i_RSTC=0, i_C=c,
            p_OPMODEREG=1, i_CECTRL=1, i_RSTCTRL=0,
            i_OPMODE=Cat(Const(0b0101, 4), self.accumulate, self.accumulate, Const(0, 3)),
            p_ALUMODEREG=1, i_CEALUMODE=1, i_RSTALUMODE=0,
            i_ALUMODE=Cat(self.negative, self.negative, Const(0, 2)),
            # Cycle 3.
            p_USE_SIMD="ONE48", p_PREG=1, i_CEP=1, i_RSTP=0,
            o_P=p,
            # Not used: carry in, and the cascades from the slice below.
            p_CARRYINREG=0, i_CARRYIN=0, i_CECARRYIN=0, i_RSTALLCARRYIN=0,
            p_CARRYINSELREG=0, i_CARRYINSEL=Const(0, 3),
            p_A_INPUT="DIRECT", i_ACIN=Const(0, 30), p_B_INPUT="DIRECT", i_BCIN=Const(0, 18),
            i_PCIN=Const(0, 48), i_CARRYCASCIN=0, i_MULTSIGNIN=0,
        )  # fmt: skip
        return m


def _multiply_ecp5(m: Module, a: Value, b: Value) -> Value:
    """Return the product two cycles later: a MULT18X18D (FPGA-TN-02205) with its own registers.

    Those of its factors and that of its product take neither sites nor wires of the fabric.
    """
    product = Signal(_A_BITS + _B_BITS)
    a_pins, b_pins, p_pins = a, Cat(b, Const(0, 18 - _B_BITS)), Cat(product, Signal(4))
    m.submodules.multiplier = Instance(
        "MULT18X18D",
        p_REG_INPUTA_CLK="CLK0", p_REG_INPUTB_CLK="CLK0", p_REG_OUTPUT_CLK="CLK0",
        i_CLK0=ClockSignal(), i_CE0=Const(1), i_RST0=Const(0),
        i_SIGNEDA=Const(0), i_SIGNEDB=Const(0), i_SOURCEA=Const(0), i_SOURCEB=Const(0),
        **{f"i_A{bit}": a_pins[bit] for bit in range(18)},
        **{f"i_B{bit}": b_pins[bit] for bit in range(18)},
        **{f"o_P{bit}": p_pins[bit] for bit in range(36)},
    )  # fmt: skip
    return product
