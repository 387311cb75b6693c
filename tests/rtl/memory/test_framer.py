"""Framer: images in frames of all shapes, beats that go straight through, and no pause."""

from types import SimpleNamespace

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.config import preset
from rtl.memory.framer import Framer, Framing
from sim.golden.frame import Frame
from tests.harness import clocks, config, pack, receive, rng, send, simulate, start


def test_framer():
    tiny = preset("tiny")
    simulate(Framer(tiny), name="framer", testbench=__name__, config=tiny)


def frame(images, above, lines, below, before, beats, after):
    """Return the fields of a frame."""
    names = ("images", "above", "lines", "below", "before", "beats", "after")
    values = (images, above, lines, below, before, beats, after)
    return dict(zip(names, values, strict=True))


CORNERS = [
    frame(1, 0, 1, 0, 0, 1, 0),
    frame(3, 1, 1, 1, 1, 1, 1),
    frame(2, 2, 3, 0, 0, 4, 0),
    frame(2, 0, 3, 2, 0, 4, 0),
    frame(2, 0, 3, 0, 2, 4, 0),
    frame(2, 0, 3, 0, 0, 4, 2),
    frame(1, 255, 1, 0, 0, 1, 0),
    frame(1, 0, 1, 255, 0, 1, 0),
    frame(1, 1, 1, 0, 300, 1, 0),
    frame(1, 0, 1, 1, 0, 1, 300),
    frame(1, 0, 300, 0, 0, 1, 1),
    frame(1, 0, 1, 0, 1, 300, 0),
]


def framing(random, fields):
    """Return a framing, its beats from memory and the beats that it makes of them.

    Without `fields` the beats go through.
    """
    golden = Frame.of(SimpleNamespace(**fields)) if fields else None
    count = int(np.prod(golden.inside)) if golden else int(random.integers(1, 30))
    # No beat of zeros comes from memory.
    values = random.integers(1, 1 << 16, (count, config().elements), np.uint16)
    framed = golden.put_around(values) if golden else values
    job = {"framed": bool(golden), "frame": fields or frame(*[0] * 7), "beats": len(framed)}
    return pack(Framing, job), beats(values), beats(framed)


def beats(values):
    return [int.from_bytes(row.astype("<u2").tobytes(), "little") for row in values]


def sequence(random, frames):
    """Return framings of these fields, and all their beats, before and after."""
    jobs, before, after = [], [], []
    for fields in frames:
        job, given, framed = framing(random, fields)
        jobs.append(job)
        before += given
        after += framed
    return jobs, before, after


def random_frames(random, count):
    """Return frames with few zeros and many, and some that are none."""
    frames = []
    for _ in range(count):
        above, below, left, right = random.integers(0, 4, 4) * random.integers(0, 2, 4)
        images, lines, inside = random.integers(1, 5, 3)
        sizes = (images, above, lines, below, left, inside, right)
        frames.append(frame(*map(int, sizes)) if random.random() < 0.7 else None)
    return frames


@cocotb.test()
async def frames_corners(dut):
    random = rng()
    await start(dut)
    for fields in CORNERS:
        for after in (None, CORNERS[1]):
            jobs, given, framed = sequence(random, [fields, after])
            cocotb.start_soon(send(dut, "framing", jobs, random))
            cocotb.start_soon(send(dut, "i", given, random))
            assert await receive(dut, "o", len(framed), random) == framed, fields
            await clocks(dut, 1)
            assert not dut.zero.value


@cocotb.test()
async def frames_the_longest_line(dut):
    """A line of 2**16 - 1 beats, one of them from memory; an image of as many lines."""
    random = rng()
    await start(dut)
    dut.o__ready.value = 1
    most = (1 << 16) - 1
    for fields, place in (
        (frame(1, 0, 1, 0, most - 3, 1, 2), most - 3),
        (frame(1, 0, 1, 0, 2, 1, most - 3), 2),
        (frame(1, 1, most - 1, 0, 0, 1, 0), None),
    ):
        job, given, _ = framing(random, fields)
        cocotb.start_soon(send(dut, "framing", [job]))
        feed = cocotb.start_soon(send(dut, "i", given, timeout=most + 10))
        got = 0
        while got < most:
            await RisingEdge(dut.clk)
            if not dut.o__valid.value:
                continue
            index = got - 1 if place is None else got - place
            expected = given[index] if 0 <= index < len(given) else 0
            assert int(dut.o__payload.value) == expected, (fields, got)
            got += 1
        await feed
        await clocks(dut, 3)
        assert not dut.o__valid.value


@cocotb.test()
async def frames_random_images(dut):
    random = rng()
    await start(dut)
    jobs, given, framed = sequence(random, random_frames(random, 60))
    cocotb.start_soon(send(dut, "framing", jobs, random))
    cocotb.start_soon(send(dut, "i", given, random))
    assert await receive(dut, "o", len(framed), random) == framed


@cocotb.test()
async def never_pauses(dut):
    """A beat leaves in every cycle, within a framing and from one to the next."""
    random = rng()
    await start(dut)
    jobs, given, framed = sequence(random, random_frames(random, 40))
    cocotb.start_soon(send(dut, "framing", jobs))
    cocotb.start_soon(send(dut, "i", given))
    dut.o__ready.value = 1
    while not dut.o__valid.value:
        await RisingEdge(dut.clk)
    got = []
    while len(got) < len(framed):
        assert dut.o__valid.value, len(got)
        got.append(int(dut.o__payload.value))
        await RisingEdge(dut.clk)
    assert got == framed
    assert not dut.o__valid.value


@cocotb.test()
async def zeros_wait_for_no_memory(dut):
    """Zeros leave while memory gives nothing, and `zero` tells whether that is what comes next."""
    random = rng()
    await start(dut)
    job, given, framed = framing(random, frame(1, 1, 1, 1, 1, 1, 1))
    await send(dut, "framing", [job])
    assert await receive(dut, "o", 4) == framed[:4]
    await clocks(dut, 5)
    assert not dut.zero.value
    assert not dut.o__valid.value
    await clocks(dut, 1)
    cocotb.start_soon(send(dut, "i", given))
    assert await receive(dut, "o", 2) == framed[4:6]
    await clocks(dut, 2)
    assert dut.zero.value
    assert await receive(dut, "o", 3) == framed[6:]
    await clocks(dut, 2)
    assert not dut.zero.value
