"""Counters against sums: of every value that's shown, also with steps in that very cycle."""

import cocotb
import pytest
from cocotb.triggers import RisingEdge, Timer

from rtl.control.counters import COUNTER_BITS, Counters, CounterValue
from tests.harness import pack, parameters, rng, simulate, start, unpack

WIDTHS = {"events": 1, "beats": 2, "macs": 11, "cycles": 1, "errors": 3}


@pytest.mark.parametrize("number", [2, 4, 5])
def test_counters(number):
    widths = dict(list(WIDTHS.items())[-number:])
    simulate(
        Counters(widths),
        name=f"counters_{number}",
        testbench=__name__,
        parameters={"widths": widths},
    )


def test_one_counter_takes_no_turns():
    with pytest.raises(ValueError, match="1 counters, must be 2 or more"):
        Counters({"events": 1})


@cocotb.test()
async def values_are_sums_of_all_steps(dut):
    widths, random = parameters()["widths"], rng()
    number = len(widths)
    layouts = Counters(widths).steps.shape(), CounterValue(number)
    await start(dut)
    for activity in (1.0, 0.3, 0.0):
        dut.rst.value = 1
        dut.steps.value = 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        sums, before = [0] * number, [0] * number
        shown = []
        for _ in range(40 * number):
            # The largest step in every cycle fills what collects them.
            steps = {
                name: (1 << bits) - 1 if activity == 1 else int(random.integers(1 << bits))
                for name, bits in widths.items()
            }
            if random.random() >= activity:
                steps = dict.fromkeys(widths, 0)
            dut.steps.value = pack(layouts[0], steps)
            await Timer(1, "ns")
            value = unpack(layouts[1], int(dut.value.value))
            if len(shown) >= 1:
                assert value.value == before[value.index] % (1 << COUNTER_BITS), value
            shown.append(value.index)
            await RisingEdge(dut.clk)
            before = list(sums)
            sums = [total + step for total, step in zip(sums, steps.values(), strict=True)]
        # In turn, all of them.
        assert shown[1:] == [(i + shown[1]) % number for i in range(len(shown) - 1)]
