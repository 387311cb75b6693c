"""Which technology a platform has, and selection in each."""

from types import SimpleNamespace

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from rtl.config import DEVICES
from rtl.technology import DEVICE_TECHNOLOGY, Technology, technology_of, wide_select
from tests.harness import parameters, rng, simulate
from tests.proof import ProofError, Versions

WIDTH = 18


class Select(wiring.Component):
    """An element, and optionally one bit of it wrong in one case."""

    def __init__(self, count, *, wrong=False):
        self._wrong = wrong
        index_bits = (count - 1).bit_length()
        super().__init__(
            {
                "elements": In(data.ArrayLayout(WIDTH, count)),
                "index": In(index_bits),
                "selected": Out(WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.selected.eq(wide_select(m, platform, list(self.elements), self.index))
        if self._wrong and technology_of(platform) is not Technology.GENERIC:
            with m.If(self.index.all()):
                m.d.comb += self.selected[-1].eq(self.elements[-2][-1])
        return m


CHECK = f"""
module check(input [COUNT*{WIDTH}-1:0] elements, input [INDEX_BITS-1:0] index);
    parameter COUNT = 8;
    localparam INDEX_BITS = $clog2(COUNT);
    wire [{WIDTH - 1}:0] expected, selected;
    gold gold(.elements(elements), .index(index), .selected(expected));
    gate gate(.elements(elements), .index(index), .selected(selected));
    always @* assert (selected == expected);
endmodule
"""


def check(count):
    return CHECK.replace("COUNT = 8", f"COUNT = {count}")


def test_every_device_has_a_technology():
    assert set(DEVICE_TECHNOLOGY) == set(DEVICES)


@pytest.mark.parametrize(
    "platform, technology",
    [
        (None, Technology.GENERIC),
        (SimpleNamespace(technology=Technology.ULTRASCALE_PLUS), Technology.ULTRASCALE_PLUS),
        (SimpleNamespace(technology=Technology.GENERIC), Technology.GENERIC),
        (SimpleNamespace(family="ultrascaleplus"), Technology.ULTRASCALE_PLUS),
        (SimpleNamespace(family="series7"), Technology.GENERIC),
        (SimpleNamespace(family="ecp5"), Technology.ECP5),
    ],
)
def test_technology_of(platform, technology):
    assert technology_of(platform) is technology


def test_technology_of_a_vendor_platform():
    from amaranth.vendor import XilinxPlatform

    class Card(XilinxPlatform):
        device, package, speed = "xcvu9p", "fsgd2104", "2L-e"
        resources, connectors = [], []

    assert technology_of(Card()) is Technology.ULTRASCALE_PLUS


@pytest.mark.parametrize("technology", [Technology.ULTRASCALE_PLUS, Technology.ECP5])
@pytest.mark.parametrize("count", [8, 16])
@pytest.mark.parametrize("vendor_models", [False, True])
def test_select_is_the_same_in(technology, count, vendor_models, tmp_path):
    versions = Versions(lambda: Select(count), technology, tmp_path, vendor_models=vendor_models)
    versions.prove(check(count))


@pytest.mark.parametrize("technology", [Technology.ULTRASCALE_PLUS, Technology.ECP5])
def test_a_wrong_select_has_no_proof(technology, tmp_path):
    versions = Versions(lambda: Select(8, wrong=True), technology, tmp_path)
    with pytest.raises(ProofError, match="proof did fail"):
        versions.prove(check(8))


@pytest.mark.parametrize("technology", list(Technology))
@pytest.mark.parametrize("count", [8, 16])
def test_select(count, technology):
    simulate(
        Select(count), name="select", testbench=__name__, parameters={"count": count},
        technology=technology,
    )  # fmt: skip


@cocotb.test()
async def selects(dut):
    random, count = rng(), parameters()["count"]
    for _ in range(200):
        values = [int(value) for value in random.integers(0, 1 << WIDTH, count)]
        dut.elements.value = sum(value << WIDTH * i for i, value in enumerate(values))
        for index in random.permutation(count):
            dut.index.value = int(index)
            await Timer(1, "ns")
            assert int(dut.selected.value) == values[index]


@pytest.mark.parametrize("count, widths, index_bits", [(4, {3}, 2), (8, {3, 4}, 3), (8, {3}, 4)])
def test_refuses_what_does_not_fit(count, widths, index_bits):
    from amaranth.hdl import Signal

    elements = [Signal(max(widths) if i else min(widths)) for i in range(count)]
    with pytest.raises(ValueError):
        wide_select(Module(), None, elements, Signal(index_bits))
