"""How weight gradients are cut: everything once, in order, and nothing too large."""

import dataclasses
import itertools

import numpy as np
import pytest

from firmware.model import Shape
from firmware.schedule.gradient_plan import (
    GradientProblem,
    Part,
    Taps,
    d_words,
    group_words,
    plan_gradients,
)
from firmware.schedule.patch import needed_span
from firmware.schedule.words import s_words
from rtl.config import PRESETS
from rtl.control.commands import WALK_DIMENSIONS
from rtl.sparsity.pattern import Pattern
from tests.harness import default_seed


def _problem(config, side=(8, 8), kernel=3, stride=1, padding=1, blocks=(1, 1, 1), bias=True):
    output = [(size + 2 * padding - kernel) // stride + 1 for size in side]
    batch, inputs, outputs = blocks
    channels = config.elements
    return GradientProblem(
        config, kernel, stride, padding, Shape(*side, inputs * channels),
        Shape(*output, outputs * channels), batch, inputs, outputs, bias,
    )  # fmt: skip


def _random_problem(random):
    config = PRESETS[random.choice(["tiny", "sim", "sim-wide", "sim-8x", "vcu1525", "u250"])]
    kernel = int(random.integers(1, 5))
    padding = int(random.integers(kernel))
    side = [int(size) for size in random.integers(kernel, 40, 2)]
    blocks = [int(random.choice([1, 2, 3, 5, 8])) for _ in range(3)]
    stride = int(random.integers(1, 4))
    return _problem(config, side, kernel, stride, padding, blocks, bool(random.integers(2)))


def _largest(problem, plan):
    """Return the words that the largest operands and results take in a bank."""
    y, x = problem.axes
    places = max(
        len(part.blocks)
        * needed_span([(y, part.lines)]).size
        * needed_span([(x, part.columns)]).size
        for part in plan.parts
    )
    config = problem.config
    counts = plan.inputs, plan.outputs, plan.at_once, plan.taps[0].count
    return (
        max(s_words(config, Pattern.DENSE, part.pixels) for part in plan.parts),
        plan.inputs * d_words(config, places),
        group_words(config, problem.bias, *counts),
    )


def test_everything_is_computed_once_and_fits():
    random = np.random.default_rng(default_seed())
    for _ in range(40):
        problem = _random_problem(random)
        config, plan = problem.config, plan_gradients(problem)
        pixels = [
            place
            for part in plan.parts
            for place in itertools.product(part.blocks, part.lines, part.columns)
        ]
        output = problem.output
        everything = itertools.product(
            range(problem.batch_blocks), range(output.height), range(output.width)
        )
        assert sorted(pixels) == list(everything), problem
        starts = [(part.blocks[0], part.lines[0], part.columns[0]) for part in plan.parts]
        assert starts == sorted(starts), problem
        for part in plan.parts:
            assert len(part.blocks) == 1 or (
                (len(part.lines), len(part.columns)) == (output.height, output.width)
            ), "walks have no further loop"
            assert part.pixels * config.ratio <= config.max_additions
        weights = [
            (input_block, output_block, group.taps.y + y, group.taps.x + x)
            for group in plan.groups(problem)
            for inputs in group.inputs
            for input_block in inputs
            for output_block in group.outputs
            for y in range(group.taps.height)
            for x in range(group.taps.width)
        ]
        counts = problem.input_blocks, problem.output_blocks, problem.kernel, problem.kernel
        assert sorted(weights) == list(np.ndindex(*counts)), problem
        depths = config.s_depth, config.d_depth, config.o_depth
        assert all(n <= depth for n, depth in zip(_largest(problem, plan), depths)), problem
        taps = plan.taps[0]
        loops = taps.height, taps.width, config.elements // config.cols, plan.at_once
        assert sum(count > 1 for count in loops) <= WALK_DIMENSIONS


@pytest.mark.parametrize(
    ("config", "side"), [("sim", (16, 8)), ("vcu1525", (22, 23)), ("tiny", (4, 4))]
)
def test_what_fits_is_one_part(config, side):
    """Whatever else is chosen, a single sum has a single rounding."""
    config = PRESETS[config]
    for kernel, blocks in ((1, (1, 1, 1)), (1, (1, 64, 64)), (3, (1, 8, 2))):
        places = (side[0] + kernel - 1) * (side[1] + kernel - 1)
        if d_words(config, places) <= config.d_depth:
            problem = _problem(config, side, kernel, 1, kernel // 2, blocks)
            plan = plan_gradients(problem)
            assert plan.parts == (Part(range(1), range(side[0]), range(side[1])),)


def test_tiles_are_filled_with_several_blocks_of_inputs():
    """A tile of vcu1525 has outputs for two blocks of weights."""
    for kernel in (1, 3):
        problem = _problem(
            PRESETS["vcu1525"], (28, 28), kernel, 1, kernel // 2, (1, 8, 8), bias=False
        )
        assert plan_gradients(problem).at_once == 2
    problem = _problem(PRESETS["sim"], (28, 28), 3, 1, 1, (1, 8, 8))
    assert plan_gradients(problem).at_once == 1


def test_what_is_loaded_serves_several_products():
    """Loads of a 1 x 1 layer of ResNet-50 take little more time than its products."""
    config = PRESETS["vcu1525"]
    problem = _problem(config, (28, 28), 1, 1, 0, (1, 16, 8), bias=False)
    plan = plan_gradients(problem)
    beats = config.elements * problem.output.positions
    read = 16 * beats * 8 // plan.outputs + 8 * beats * 16 // plan.inputs
    slots = 16 * 8 * config.elements**3 // config.macs * problem.output.positions
    assert read <= slots
    assert 2 * max(_largest(problem, plan)[:2]) <= config.d_depth, "room for the next part"


def test_plans_depend_on_nothing_else():
    problem = _problem(PRESETS["sim"], (40, 40), blocks=(2, 4, 4))
    first = plan_gradients(problem)
    plan_gradients.cache_clear()
    assert plan_gradients(dataclasses.replace(problem)) == first
    assert isinstance(first.taps[0], Taps)
