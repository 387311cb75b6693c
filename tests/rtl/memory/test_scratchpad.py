"""An S bank between random writes and reads, with each technology's registers."""

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import PRESETS
from rtl.memory.scratchpad import READ_LATENCY, SBank, SOperands, SRead
from rtl.technology import Technology
from tests.harness import config, pack, rng, simulate, start

CYCLES = 2000
ADDRESSES = 8
"""Few, so that many are read that were written."""


@pytest.mark.parametrize("technology", [Technology.GENERIC, Technology.ECP5])
@pytest.mark.parametrize("preset", ["tiny", "ulx3s"])
def test_s_bank(preset, technology):
    chosen = PRESETS[preset]
    simulate(
        SBank(chosen), name=f"s_bank_{preset}_{technology.value}", testbench=__name__,
        config=chosen, technology=technology,
    )  # fmt: skip


@cocotb.test()
async def gives_what_was_written_and_keeps_it(dut):
    random, ratio = rng(), config().ratio
    bits = SOperands(config()).size
    stored = {}
    for address in range(ADDRESSES):
        for quarter in range(ratio):
            stored[address, quarter] = 0
    # What each cycle reads, by the cycle; None where nothing is.
    reads, expected = [], 0
    await start(dut)
    for cycle in range(CYCLES):
        address, quarter = int(random.integers(ADDRESSES)), int(random.integers(ratio))
        enable = random.random() < 0.6
        dut.read.value = pack(
            SRead(config()), {"enable": enable, "address": address, "quarter": quarter}
        )
        reads.append(stored[address, quarter] if enable else None)
        # Never what is being read: memories differ in what they give then.
        target = int(random.integers(ADDRESSES))
        enables = int(random.integers(1 << ratio)) if target != address else 0
        words = [int.from_bytes(random.bytes(bits // 8 + 1), "little") % (1 << bits)] * ratio
        words = [word ^ number for number, word in enumerate(words)]
        dut.write_enable.value = enables
        dut.write_address.value = target
        dut.write_words.value = sum(word << bits * i for i, word in enumerate(words))
        for number in range(ratio):
            if enables >> number & 1:
                stored[target, number] = words[number]
        await RisingEdge(dut.clk)
        if cycle >= READ_LATENCY:
            read = reads[cycle - READ_LATENCY]
            expected = expected if read is None else read
            assert int(dut.s.value) == expected, f"cycle {cycle}"
