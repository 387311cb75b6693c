"""Decoding of operands, for every binary16 value."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.config import preset
from rtl.engine.decoder import OperandDecoder
from rtl.memory.ports import SWord
from rtl.memory.scratchpad import SOperand
from tests.harness import config, rng, simulate, start
from tests.operands import d_bits, s_bits


@cocotb.test()
async def every_value_is_decoded(dut):
    configuration = config()
    await start(dut)
    values = rng().permutation(1 << 16).astype(np.uint16).reshape(-1, configuration.elements)
    # A word that goes in at one edge is there before the next.
    expected = [None]
    for row in (*values, *values[:2]):
        dut.d_write__enable.value = 1
        dut.d_write__address.value = int(row[0])
        dut.d_write__data.value = int.from_bytes(row.astype("<u2").tobytes(), "little")
        await RisingEdge(dut.clk)
        address, word = int(dut.d__address.value), int(dut.d__data.value)
        expected.append(row)
        due = expected.pop(0)
        if due is not None:
            assert (address, word) == (due[0], d_bits(due)), [hex(value) for value in due]


@cocotb.test()
async def s_words_know_what_is_special(dut):
    configuration, random = config(), rng()
    await start(dut)
    layout, word_layout = SOperand(configuration), SWord(configuration)
    entry_bits = word_layout.size // configuration.lanes
    words, expected = configuration.ratio**2, [None]
    for _ in range(1 << 10):
        values = random.integers(0, 1 << 16, (words, configuration.lanes)).astype(np.uint16)
        # Zeros, infinities and NaNs are rare otherwise.
        rare = random.choice([0x0000, 0x8000, 0x7C00, 0xFC00, 0x7C01, 0xFE00], values.shape)
        values = np.where(random.random(values.shape) < 0.3, rare, values).astype(np.uint16)
        indices = random.integers(0, configuration.group, values.shape)
        entries = zip(values.ravel().tolist(), indices.ravel().tolist(), strict=True)
        written = sum(
            (value | index << 16) << entry_bits * place
            for place, (value, index) in enumerate(entries)
        )
        dut.s_write__enable.value = 1
        dut.s_write__words.value = written
        await RisingEdge(dut.clk)
        decoded = int(dut.s__words.value)
        expected.append(
            sum(
                s_bits(layout, values[word], indices[word]) << layout.size * len(values[0]) * word
                for word in range(words)
            )
        )
        due = expected.pop(0)
        assert due is None or decoded == due


def test_decoder():
    configuration = preset("tiny")
    simulate(
        OperandDecoder(configuration), name="decoder", testbench=__name__, config=configuration
    )
