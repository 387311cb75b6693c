"""Loss, loss scale and learning rate."""

import numpy as np
import pytest

from firmware.loss import LossScale, one_cycle, softmax_loss


def test_gradient_is_the_derivative():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 10)).astype(np.float16)
    labels = rng.integers(0, 10, 4)
    loss, gradient = softmax_loss(logits, labels)
    assert loss > 0
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-12)
    for row, column in ((0, 0), (2, labels[2])):
        moved = logits.astype(np.float64)
        moved[row, column] += 1e-6
        rise, _ = softmax_loss(moved, labels)
        assert (rise - loss) / 1e-6 == pytest.approx(gradient[row, column], abs=1e-5)


def test_infinite_logits_give_a_nan_gradient():
    logits = np.zeros((2, 3), np.float16)
    logits[0, 1] = np.inf
    _, gradient = softmax_loss(logits, np.array([0, 1]))
    assert not np.isfinite(gradient).all()


def test_scale_halves_at_once_and_doubles_after_a_clean_run():
    scale = LossScale(10, growth_interval=3)
    for clean in (True, True, False, True, True, True, True, True, True, False):
        scale.observe(clean=clean)
    assert scale.log == [(0, 10), (3, 9), (6, 10), (9, 11), (10, 10)]
    assert scale.skipped == 2
    assert scale.factor == 1024


def test_scale_keeps_within_its_limits():
    low, high = LossScale.LIMITS
    scale = LossScale(low, growth_interval=1)
    scale.observe(clean=False)
    assert scale.exponent == low
    scale = LossScale(high, growth_interval=1)
    scale.observe(clean=True)
    assert scale.exponent == high
    with pytest.raises(ValueError, match="99"):
        LossScale(99, growth_interval=1)
    with pytest.raises(ValueError, match="0"):
        LossScale(0, growth_interval=0)


def test_one_cycle_rises_and_falls():
    rates = [one_cycle(step, 1000, 0.2) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(0.2)
    assert rates.index(max(rates)) == 300
    assert rates[-1] == pytest.approx(0.002, rel=0.01)
