"""How convolutions are cut: all outputs and products once, nothing too large, all in order."""

import dataclasses
import itertools

import numpy as np
import pytest

from firmware.program import product
from firmware.schedule.convolution_plan import (
    ConvolutionProblem,
    clipped,
    needed,
    part_slots,
    plan_convolution,
)
from firmware.schedule.patch import Axis
from firmware.schedule.words import o_words, s_words
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern, supported_patterns
from tests.harness import default_seed


def _forward(side, kernel, stride, padding):
    return tuple(
        Axis(-padding, stride, 1, kernel, (size + 2 * padding - kernel) // stride + 1, size)
        for size in side
    )


def _problem(config, pattern, side, kernel=3, stride=1, blocks=(1, 1, 1), operands=0):
    """A forward product of a layer that keeps the size of images but for its stride."""
    words, outputs, batch = blocks
    axes = _forward(side, kernel, stride, kernel // 2)
    return ConvolutionProblem(config, pattern, (axes,), words, outputs, batch, operands)


def _random_problem(random):
    config = PRESETS[random.choice(["tiny", "sim", "sim-8x", "vcu1525", "vcu1525-1k", "u250"])]
    pattern = random.choice([str(pattern) for pattern in supported_patterns(config)])
    kernel = int(random.integers(1, 5))
    side = [int(size) for size in random.integers(kernel, 40, 2)]
    blocks = [int(random.choice([1, 2, 3, 7, 16])) for _ in range(3)]
    problem = _problem(
        config, Pattern.parse(pattern), side, kernel, int(random.integers(1, 4)), blocks,
        operands=int(random.integers(3)),
    )  # fmt: skip
    if random.random() < 0.3:
        # Phases of a stride of two, one output more or less.
        (y, x), smaller = problem.products[0], dataclasses.replace
        products = ((y, x), (smaller(y, taps=1, outputs=max(y.outputs - 1, 1)), x))
        problem = dataclasses.replace(problem, products=products)
    return problem


def _largest(problem, plan):
    """Return the words of each scratchpad that the largest operands and results take."""
    config = problem.config
    places = max(
        len(patch.blocks)
        * needed(problem.y, patch.lines).size
        * needed(problem.x, patch.columns).size
        for patch in plan.patches(problem)
    )
    parts = [part for axes in problem.products for part in plan.parts(problem, *axes)]
    weights = max(s_words(config, problem.pattern, part.d_words) for part in parts)
    if plan.resident:
        weights = plan.group * sum(s_words(config, problem.pattern, part.d_words) for part in parts)
    results = o_words(config, plan.area * plan.columns * config.elements)
    if plan.words < problem.words:
        results *= plan.held * len(problem.products)
    return weights, places * plan.words * problem.place_words, results


def test_everything_is_computed_once_and_fits():
    random = np.random.default_rng(default_seed())
    cuts = 0
    for _ in range(40):
        problem = _random_problem(random)
        config, plan = problem.config, plan_convolution(problem)
        if plan is None:
            continue
        for y, x in problem.products:
            patches = list(plan.patches(problem))
            outputs = [
                place
                for patch in patches
                for place in itertools.product(
                    patch.blocks, clipped(patch.lines, y.outputs), clipped(patch.columns, x.outputs)
                )
            ]
            counts = range(problem.batch_blocks), range(y.outputs), range(x.outputs)
            assert sorted(outputs) == list(itertools.product(*counts)), problem
            starts = [(patch.blocks[0], patch.lines[0], patch.columns[0]) for patch in patches]
            assert starts == sorted(starts), problem

            parts = plan.parts(problem, y, x)
            reduction = [
                step
                for part in parts
                for step in itertools.product(part.words, part.rows, part.columns)
            ]
            counts = range(problem.words), range(y.taps), range(x.taps)
            assert sorted(reduction) == list(itertools.product(*counts)), problem
            starts = [(part.words[0], part.rows[0], part.columns[0]) for part in parts]
            assert starts == sorted(starts), problem
            for part in parts:
                assert part.d_words * problem.pattern.steps(config) <= config.max_additions
            cuts += len(parts) > 1
        words = _largest(problem, plan)
        depths = config.s_depth, config.d_depth // (2 if plan.ahead else 1), config.o_depth
        assert all(most <= depth for most, depth in zip(words, depths)), (problem, plan)
    assert cuts, "no reduction was cut"


def test_a_reduction_that_fits_is_one_part():
    """Whatever is gained by cutting it: a single sum has a single rounding."""
    for preset, words, side in (
        ("vcu1525", 64, (7, 7)), ("vcu1525-1k", 16, (56, 56)), ("u250", 8, (14, 14)),
        ("tiny", 1, (20, 20)),
    ):  # fmt: skip
        kernel = 1 if words == 64 else 3
        problem = _problem(PRESETS[preset], Pattern.DENSE, side, kernel, blocks=(words, 16, 2))
        plan = plan_convolution(problem)
        assert (plan.words, plan.taps) == (words, (kernel, kernel))


@pytest.mark.parametrize(
    ("words", "kernel", "changes"),
    [(20, 1, {}), (2, 3, {}), (5, 3, {"accumulator_bits": 53}), (1, 4, {"accumulator_bits": 46})],
)
def test_other_reductions_are_cut(words, kernel, changes):
    """By the accumulators, the S scratchpad, or the pixels under a kernel."""
    config = dataclasses.replace(PRESETS["tiny"], **changes)
    problem = _problem(config, Pattern.DENSE, (8, 8), kernel, blocks=(words, 3, 2))
    plan = plan_convolution(problem)
    assert len(plan.parts(problem, *problem.products[0])) > 1


def test_what_is_too_large_has_no_plan():
    """The pixels under a kernel, of a D word of channels, have to fit."""
    config = PRESETS["tiny"]
    assert plan_convolution(_problem(config, Pattern.DENSE, (9, 9), 5)) is not None
    assert plan_convolution(_problem(config, Pattern.DENSE, (9, 9), 7)) is None


def test_weights_that_fit_are_loaded_once():
    """Pruned, those of nearly all layers of ResNet-50 stay in the S scratchpad of a large card."""
    for side, kernel, blocks in (
        ((56, 56), 3, (2, 2, 1)), ((14, 14), 3, (8, 8, 1)), ((7, 7), 1, (64, 16, 1)),
        ((14, 14), 1, (8, 32, 1)),
    ):  # fmt: skip
        problem = _problem(PRESETS["vcu1525"], Pattern.N2M8, side, kernel, blocks=blocks)
        plan = plan_convolution(problem)
        assert plan.resident and plan.group == problem.output_blocks


def test_a_kernel_loads_few_pixels_twice():
    """Patches are nearly square where lines are long: their neighbours' pixels are loaded again."""
    problem = _problem(PRESETS["vcu1525"], Pattern.N2M8, (56, 56), blocks=(2, 2, 1))
    plan = plan_convolution(problem)
    loaded = sum(
        needed(problem.y, patch.lines).size * needed(problem.x, patch.columns).size
        for patch in plan.patches(problem)
    )
    assert loaded <= 1.5 * 56 * 56 and plan.ahead


def test_slots_are_those_of_the_array_or_of_its_drain():
    config = PRESETS["vcu1525-1k"]
    assert part_slots(config, Pattern.DENSE, 8) == 32
    assert part_slots(config, Pattern.N2M8, 2) == config.drain_rows
    long = 1 + config.bin_additions
    assert part_slots(config, Pattern.N2M8, long) == long
    fields = product(config, Pattern.DENSE, a=32, b=320, k=320)
    tiles = fields["a_tiles"] * fields["b_tiles"]
    macs = tiles * config.interleave * part_slots(config, Pattern.DENSE, 10) * config.macs
    assert macs == 32 * 320 * 320


def test_plans_depend_on_nothing_else():
    problem = _problem(PRESETS["sim"], Pattern.N2M8, (40, 40), blocks=(4, 4, 2))
    first = plan_convolution(problem)
    plan_convolution.cache_clear()
    assert plan_convolution(dataclasses.replace(problem)) == first
