"""Models of primitives refuse what they don't model."""

import cocotb
import pytest
from amaranth.hdl import ClockSignal, Const, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from cocotb.clock import Clock

from rtl.arithmetic.bin_memory import BinMemory
from rtl.arithmetic.multiply_add import MultiplyAdd
from rtl.build import elaborate
from rtl.technology import Technology
from sim.primitives import models
from tests.harness import clocks, parameters, simulate
from tests.proof import ProofError, run

MODELLED = {"OPMODE": (9, 0b101), "ALUMODE": (4, 0), "INMODE": (5, 0), "CARRYINSEL": (3, 0)}
MODELLED |= {"CEB1": (1, 1), "CEP": (1, 1), "RSTM": (1, 0), "CARRYIN": (1, 0)}
"""Width of some controls of the slice, and a value that its model takes."""


class Slice(wiring.Component):
    """A slice whose controls are ports."""

    def __init__(self):
        super().__init__({name: In(width) for name, (width, _) in MODELLED.items()})

    def elaborate(self, platform):
        m = Module()
        enables = ("CEA2", "CEAD", "CEALUMODE", "CEB2", "CEC", "CECTRL", "CED", "CEINMODE", "CEM")
        m.submodules.slice = Instance(
            "DSP48E2",
            p_AREG=0, p_ACASCREG=0, p_DREG=0, p_INMODEREG=0, p_BREG=2, p_BCASCREG=2,
            p_AMULTSEL="AD", p_CARRYINREG=0, p_CARRYINSELREG=0,
            i_CLK=ClockSignal(), i_A=Const(3, 30), i_B=Const(5, 18), i_C=Const(0, 48),
            i_D=Const(0, 27),
            **{f"i_{name}": Const(1, 1) for name in enables},
            **{f"i_{name}": getattr(self, name) for name in MODELLED},
        )  # fmt: skip
        return m


def run_slice(**changes):
    simulate(
        Slice(), name="slice", testbench=__name__, parameters=changes,
        technology=Technology.ULTRASCALE_PLUS,
    )  # fmt: skip


@cocotb.test()
async def runs(dut):
    for name, (_, value) in MODELLED.items():
        getattr(dut, name).value = parameters().get(name, value)
    Clock(dut.clk, 10, "ns").start()
    await clocks(dut, 8)


def test_takes_what_it_models():
    run_slice()
    run_slice(OPMODE=0b000110101, ALUMODE=0b0011, INMODE=0b00110)


@pytest.mark.parametrize(
    "port, value",
    [("OPMODE", 0b000100101), ("ALUMODE", 0b0001), ("INMODE", 0b01000)],
)
def test_refuses_a_mode(port, value):
    with pytest.raises(AssertionError, match=f"{port} {value:0{MODELLED[port][0]}b} isn't"):
        run_slice(**{port: value})


@pytest.mark.parametrize("port", ["CEB1", "CEP", "RSTM", "CARRYIN"])
def test_refuses_to_hold_clear_or_carry(port):
    with pytest.raises(AssertionError, match="held or cleared, and carries"):
        run_slice(**{port: 1 - MODELLED[port][1]})


@pytest.mark.parametrize(
    "component, attribute, value",
    [
        (MultiplyAdd(), "AMULTSEL", '"\\"A\\""'),
        (MultiplyAdd(), "AREG", "1"),
        (MultiplyAdd(), "BREG", "1"),
        (MultiplyAdd(), "PREG", "0"),
        (MultiplyAdd(), "USE_SIMD", '"\\"TWO24\\""'),
        (BinMemory(14, 32), "INIT_C", "64'd1"),
        (BinMemory(14, 32), "IS_WCLK_INVERTED", "1'b1"),
    ],
)
def test_refuses_an_attribute(component, attribute, value, tmp_path):
    files = elaborate(component, "placed", Technology.ULTRASCALE_PLUS)
    primitives = models(Technology.ULTRASCALE_PLUS)
    for file, text in (files | primitives).items():
        (tmp_path / file).write_text(text)
    read = [f"read_verilog {file}" for file in files]
    read += [f"read_verilog -defer {file}" for file in primitives]
    run(tmp_path, *read, "hierarchy -check -top placed")
    kind = "DSP48E2" if isinstance(component, MultiplyAdd) else "RAM32M16"
    change = f"setparam -set {attribute} {value} t:{kind}"
    with pytest.raises(ProofError, match="FATAL"):
        run(tmp_path, *read, change, "hierarchy -check -top placed")
