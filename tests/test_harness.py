"""The harness: passes what is right, fails what is wrong, builds a model once."""

import cocotb
import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import preset
from tests import harness
from tests.harness import config, pack, parameters, receive, rng, send, simulate, start, unpack


class Pair(data.Struct):
    low: unsigned(8)
    high: unsigned(8)


class Adder(wiring.Component):
    """Sum of the halves in one register stage; `fickle` breaks the rules of streams."""

    operands: In(stream.Signature(Pair))
    sums: Out(stream.Signature(unsigned(9)))

    def __init__(self, *, fickle: bool = False) -> None:
        super().__init__()
        self._fickle = fickle

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.operands.ready.eq(~self.sums.valid | self.sums.ready)
        with m.If(self.operands.ready):
            m.d.sync += self.sums.valid.eq(self.operands.valid)
            m.d.sync += self.sums.payload.eq(self.operands.payload.low + self.operands.payload.high)
        if self._fickle:
            toggle = Signal()
            m.d.sync += toggle.eq(~toggle)
            with m.If(self.sums.valid & ~self.sums.ready & toggle):
                m.d.sync += self.sums.payload.eq(self.sums.payload + 1)
        return m


@cocotb.test()
async def adds(dut):
    await start(dut)
    random = rng()
    pairs = [{"low": int(a), "high": int(b)} for a, b in random.integers(0, 256, (200, 2))]
    cocotb.start_soon(send(dut, "operands", [pack(Pair, pair) for pair in pairs], random))
    sums = await receive(dut, "sums", len(pairs), random)
    assert sums == [pair["low"] + pair["high"] for pair in pairs]


@cocotb.test()
async def streams_without_pauses(dut):
    await start(dut)
    cocotb.start_soon(send(dut, "operands", [pack(Pair, {"low": 1, "high": 1})] * 100))
    assert await receive(dut, "sums", 100, timeout=2) == [2] * 100


@cocotb.test()
async def adds_wrongly(dut):
    await start(dut)
    cocotb.start_soon(send(dut, "operands", [pack(Pair, {"low": 1, "high": 2})]))
    assert await receive(dut, "sums", 1) == [4]


@cocotb.test()
async def waits_too_long(dut):
    await start(dut)
    await receive(dut, "sums", 1, timeout=50)


@cocotb.test()
async def runs_too_long(dut):
    await start(dut, limit=50)
    await receive(dut, "sums", 1)


@cocotb.test()
async def has_setup(dut):
    assert config() == preset("tiny")
    assert parameters() == {"answer": 42}
    await start(dut)


def run(testcase, **options):
    component = options.pop("component", None) or Adder()
    simulate(component, name="adder", testbench=__name__, testcase=testcase, **options)


def test_right_component_passes():
    run(["adds", "streams_without_pauses"])


@pytest.mark.parametrize(
    ("testcase", "message"),
    [
        ("adds_wrongly", "assert "),
        ("waits_too_long", "got 0 of 1 items in 50 cycles"),
        ("runs_too_long", "didn't end within 50 cycles"),
        ("no_such_test", "no test ran"),
    ],
)
def test_failure_is_reported(testcase, message):
    with pytest.raises(AssertionError, match=message) as caught:
        run(testcase, seed=7)
    assert "seed 7" in str(caught.value)


def test_broken_stream_is_reported():
    with pytest.raises(AssertionError, match="changed before it was taken"):
        run("adds", component=Adder(fickle=True))


def test_testbench_sees_config_and_parameters():
    run("has_setup", config=preset("tiny"), parameters={"answer": 42})


def test_model_is_built_once(monkeypatch):
    run("adds")
    monkeypatch.setattr(harness, "_verilate", None)
    run("adds", seed=1)


def test_pack_and_unpack_are_inverse():
    bits = pack(Pair, {"low": 3, "high": 5})
    assert bits == 0x0503
    assert unpack(Pair, bits).high == 5
