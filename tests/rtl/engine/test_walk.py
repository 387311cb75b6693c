"""Walks over words, against the golden model's."""

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from firmware.program import walk
from rtl.control.commands import WALK_DIMENSIONS
from rtl.engine.walk import Loops, WordWalk
from sim.golden.program import DecodedWalk
from tests.harness import default_seed, pack, rng, simulate, start

ADDRESS_BITS = 6


async def follow(dut, loops, base, rounds, random):
    """Restart, then advance now and then; check each address, and each that is announced."""
    fields = walk(*loops)
    offsets = DecodedWalk(tuple(fields["counts"]), tuple(fields["steps"])).offsets(rounds)
    expected = (base + offsets) % (1 << ADDRESS_BITS)
    dut.base.value = base
    dut.restart.value = 1
    # The loops come with the restart, which goes before the end of a round.
    dut.advance.value = int(random.integers(2))
    await FallingEdge(dut.clk)
    assert int(dut.next.value) == base
    await RisingEdge(dut.clk)
    dut.loops.value = pack(
        Loops, {"lasts": [count - 1 for count in fields["counts"]], "steps": fields["steps"]}
    )
    dut.restart.value = 0
    number = 0
    while number < rounds - 1:
        advance = int(random.integers(4) > 0)
        dut.advance.value = advance
        await FallingEdge(dut.clk)
        message = f"round {number} of {fields} from {base}, SAT_SEED={default_seed()}"
        assert int(dut.address.value) == expected[number], message
        if advance:
            assert int(dut.next.value) == expected[number + 1], message
        await RisingEdge(dut.clk)
        number += advance


@cocotb.test()
async def every_round_is_found(dut):
    random = rng()
    await start(dut)
    await follow(dut, [(1, 5)], 7, 4, random)
    await follow(dut, [(3, -1), (2, -9), (2, 31)], 40, 40, random)
    await follow(dut, [(300, 1), (2, 0)], 0, 700, random)
    await follow(dut, [(1, 3), (0xFFFF, -0x8000), (1, 1)], 9, 20, random)
    for _ in range(60):
        loops = [
            (int(random.integers(1, 6)), int(random.integers(-0x8000, 0x8000)))
            for _ in range(WALK_DIMENSIONS)
        ]
        base, rounds = int(random.integers(1 << ADDRESS_BITS)), int(random.integers(2, 150))
        await follow(dut, loops, base, rounds, random)


def test_word_walk():
    simulate(WordWalk(ADDRESS_BITS), name="word_walk", testbench=__name__)
