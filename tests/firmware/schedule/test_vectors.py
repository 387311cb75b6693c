"""What runs in the vector unit: which commands a layer takes, and what is refused."""

import re

import pytest

from firmware.allocator import Allocator
from firmware.errors import ScheduleError
from firmware.layers import BatchNormTensors
from firmware.model import BatchNorm, Input, MaxPool, Shape
from firmware.program import Program
from firmware.schedule import (
    Assembly,
    LossSchedule,
    LossTensors,
    NormalisationSchedule,
    PartialSums,
    PoolingSchedule,
    Statistics,
    emit,
)
from firmware.schedule.vectors import Register, Vectors
from firmware.tensor import Activations
from rtl.config import PRESETS
from rtl.control.commands import Opcode, Stage

TINY = PRESETS["tiny"]
G = TINY.elements


@pytest.fixture
def memory():
    return Allocator(TINY.memory_bytes, TINY.beat_bytes)


@pytest.fixture
def assembly():
    return Assembly(Program(TINY))


def test_coefficients_are_numbers_registers_or_absent(assembly):
    vectors = Vectors(assembly, Stage.FF)
    vectors.compute(Register(3), Register(1), a=-0.5, b=-Register(2), y=Register(4), c=None)
    text = assembly.program.describe(0)
    assert "a=-0.5 b=-r2" in text and " c=" not in text
    assert "x_register=1" in text and "y_register=4" in text and "target_register=3" in text
    opposite = -Register(2)
    assert -opposite == Register(2)


@pytest.mark.parametrize(("images", "rows"), [(5, 5), (G, G), (2 * G, G)])
def test_normalisation_takes_the_images_that_there_are(memory, assembly, images, rows):
    layer = BatchNorm("norm", Input("x", 2, 2, 3))
    x, y = (Activations(TINY, memory, images, layer.shape) for _ in range(2))
    schedule = NormalisationSchedule(assembly, layer, BatchNormTensors(layer, TINY, memory))
    statistics = Statistics(assembly, x, PartialSums(TINY, memory, x))
    statistics.add(x.all_tiles())
    emit(schedule.forward(x, y, add=None, statistics=statistics))
    lines = assembly.program.listing().splitlines()
    [sums] = [line for line in lines if "reduce=SUM" in line]
    assert f"groups={4 * x.batch_blocks} " in sums and f" rows={rows} " in sums
    written = [line for line in lines if "target=NARROW" in line]
    assert len(written) == x.batch_blocks and all(f" rows={rows} " in line for line in written)


def test_normalisation_of_a_last_block_in_part_is_refused(memory, assembly):
    layer = BatchNorm("norm", Input("x", 1, 1, 3))
    x = Activations(TINY, memory, G + 1, layer.shape)
    schedule = NormalisationSchedule(assembly, layer, BatchNormTensors(layer, TINY, memory))
    with pytest.raises(ScheduleError, match="norm: a batch of 17 images fills blocks of 16 only"):
        emit(schedule.forward(x, x, add=None, statistics=None))


def test_too_many_classes_are_refused(memory, assembly):
    most = G * G
    for classes in (most, most + 1):
        shape = Shape(1, 1, classes)
        logits, gradient = (Activations(TINY, memory, 1, shape) for _ in range(2))
        schedule = LossSchedule(assembly, LossTensors(TINY, memory, 1, classes))
        if classes == most:
            schedule.add(logits, gradient)
            assembly.program.encode()
        else:
            with pytest.raises(ScheduleError, match=r"loss: there are 257 classes, .* takes 256"):
                schedule.add(logits, gradient)


@pytest.mark.parametrize(("side", "left_out"), [((4, 4), 0), ((5, 4), 4), ((5, 7), 11)])
def test_a_maximum_writes_every_pixel_of_its_gradient(memory, assembly, side, left_out):
    """A command for each line of windows, and zeros where there are none."""
    layer = MaxPool("pool", Input("x", *side, G))
    x, dx = (Activations(TINY, memory, 1, layer.source.shape) for _ in range(2))
    y, dy = (Activations(TINY, memory, 1, layer.shape) for _ in range(2))
    emit(PoolingSchedule(assembly, layer).backward(x, y, dy, dx, mask=None))
    program = assembly.program
    lines = [
        program.describe(index)
        for index, opcode in enumerate(program.opcodes)
        if opcode is Opcode.VECTOR
    ]
    windows = [line for line in lines if "FIRST_EQUAL" in line]
    assert len(windows) == layer.shape.height
    assert (
        sum(int(re.search(r"groups=(\d+)", line)[1]) for line in windows) == layer.shape.positions
    )
    groups = [int(line.split("groups=")[1].split()[0]) for line in lines if line not in windows]
    assert sum(groups) == left_out
