"""Commands go in by parts and come out whole, in order, whoever waits."""

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.command_fifo import INDEX_BITS, CommandFIFO, CommandPart
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start

COMMANDS = 60


@pytest.mark.parametrize("preset, parts", [("tiny", 1), ("ulx3s", 4)])
def test_command_fifo(preset, parts):
    chosen = PRESETS[preset]
    assert chosen.command_parts == parts
    simulate(CommandFIFO(chosen), name=f"command_fifo_{preset}", testbench=__name__, config=chosen)


def draw(random):
    """Random commands with their indices, and what they are in parts."""
    layout, count = CommandPart(config()), config().command_parts
    index_bits, command_bits = layout["index"].width, layout["command"].width
    whole, parts = [], []
    for _ in range(COMMANDS):
        index = int.from_bytes(random.bytes(INDEX_BITS // 8), "little")
        command = int.from_bytes(random.bytes(COMMAND_BYTES), "little")
        whole.append(index | command << INDEX_BITS)
        for part in range(count):
            parts.append(
                pack(
                    layout,
                    {
                        "index": index >> part * index_bits & (1 << index_bits) - 1,
                        "command": command >> part * command_bits & (1 << command_bits) - 1,
                    },
                )
            )
    return whole, parts


@cocotb.test()
async def keeps_commands_and_their_order(dut):
    random = rng()
    whole, parts = draw(random)
    await start(dut)
    assert dut.empty.value == 1
    sending = cocotb.start_soon(send(dut, "parts", parts, random))
    assert await receive(dut, "commands", COMMANDS, random) == whole
    await sending
    await clocks(dut, 2)
    assert dut.empty.value == 1


@cocotb.test()
async def has_room_for_as_many_as_the_queue_is_deep(dut):
    whole, parts = draw(rng())
    depth = config().queue_depth
    await start(dut)
    await send(dut, "parts", parts[: depth * config().command_parts], timeout=1)
    assert dut.empty.value == 0
    await clocks(dut, 20)
    assert await receive(dut, "commands", depth) == whole[:depth]


@cocotb.test()
async def is_as_fast_as_documented(dut):
    _, parts = draw(rng())
    count = config().command_parts
    await start(dut)
    cocotb.start_soon(send(dut, "parts", parts))
    dut.commands__ready.value = 1
    times = []
    for cycle in range(COMMANDS * (count + 1)):
        await RisingEdge(dut.clk)
        if dut.commands__valid.value:
            times.append(cycle)
    period = 1 if count == 1 else count + 1
    # The last part of the first command comes in cycle `count` - 1.
    assert times[0] == count + 1
    assert times[1:4] == [times[0] + turn * period for turn in (1, 2, 3)]


@cocotb.test()
async def a_part_of_a_command_is_not_empty(dut):
    _, parts = draw(rng())
    await start(dut)
    await send(dut, "parts", parts[:1])
    await clocks(dut, 10)
    assert dut.empty.value == 0
    assert dut.commands__valid.value == int(config().command_parts == 1)
