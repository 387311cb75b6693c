"""Models of primitives refuse what they don't model."""

from typing import ClassVar

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
        Slice(), name="slice", testbench=__name__, technology=Technology.ULTRASCALE_PLUS,
        parameters={name: value for name, (_, value) in MODELLED.items()} | changes,
    )  # fmt: skip


@cocotb.test()
async def runs(dut):
    for name, value in parameters().items():
        getattr(dut, name).value = value
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


DSP48E2 = (Technology.ULTRASCALE_PLUS, MultiplyAdd(), "DSP48E2")
RAM32M16 = (Technology.ULTRASCALE_PLUS, BinMemory(14, 32), "RAM32M16")
MULT18X18D = (Technology.ECP5, MultiplyAdd(), "MULT18X18D")


@pytest.mark.parametrize(
    "placed, attribute, value",
    [
        (DSP48E2, "AMULTSEL", '"\\"A\\""'),
        (DSP48E2, "AREG", "1"),
        (DSP48E2, "BREG", "1"),
        (DSP48E2, "PREG", "0"),
        (DSP48E2, "USE_SIMD", '"\\"TWO24\\""'),
        (RAM32M16, "INIT_C", "64'd1"),
        (RAM32M16, "IS_WCLK_INVERTED", "1'b1"),
        (MULT18X18D, "REG_INPUTA_CLK", '"\\"CLK1\\""'),
        (MULT18X18D, "REG_PIPELINE_CLK", '"\\"CLK0\\""'),
        (MULT18X18D, "REG_OUTPUT_CLK", '"\\"NONE\\""'),
        (MULT18X18D, "SOURCEB_MODE", '"\\"C_SHIFT\\""'),
    ],
)
def test_refuses_an_attribute(placed, attribute, value, tmp_path):
    technology, component, kind = placed
    files = elaborate(component, "placed", technology)
    primitives = models(technology)
    for file, text in (files | primitives).items():
        (tmp_path / file).write_text(text)
    read = [f"read_verilog {file}" for file in files]
    read += [f"read_verilog -defer {file}" for file in primitives]
    run(tmp_path, *read, "hierarchy -check -top placed")
    change = f"setparam -set {attribute} {value} t:{kind}"
    with pytest.raises(ProofError, match="FATAL"):
        run(tmp_path, *read, change, "hierarchy -check -top placed")


class Multiplier(wiring.Component):
    """A multiplier of an ECP5 whose controls are ports."""

    controls: ClassVar = {"CE0": 1, "RST0": 0, "SIGNEDA": 0, "SOURCEB": 0}

    def __init__(self):
        super().__init__({name: In(1) for name in self.controls})

    def elaborate(self, platform):
        m = Module()
        zeros = ["SIGNEDB", "SOURCEA", *(f"{factor}{bit}" for factor in "AB" for bit in range(18))]
        m.submodules.multiplier = Instance(
            "MULT18X18D",
            p_REG_INPUTA_CLK="CLK0", p_REG_INPUTB_CLK="CLK0", p_REG_OUTPUT_CLK="CLK0",
            i_CLK0=ClockSignal(),
            **{f"i_{name}": Const(0) for name in zeros},
            **{f"i_{name}": getattr(self, name) for name in self.controls},
        )  # fmt: skip
        return m


def run_multiplier(**changes):
    simulate(
        Multiplier(), name="multiplier", testbench=__name__, technology=Technology.ECP5,
        parameters=Multiplier.controls | changes,
    )  # fmt: skip


def test_takes_a_multiplier_that_it_models():
    run_multiplier()


@pytest.mark.parametrize(
    "port, refusal",
    [
        ("CE0", "held or cleared"),
        ("RST0", "held or cleared"),
        ("SIGNEDA", "signs or of a cascade"),
        ("SOURCEB", "signs or of a cascade"),
    ],
)
def test_refuses_controls_of_a_multiplier(port, refusal):
    with pytest.raises(AssertionError, match=refusal):
        run_multiplier(**{port: 1 - Multiplier.controls[port]})
