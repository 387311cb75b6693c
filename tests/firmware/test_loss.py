"""Loss scale and learning rate."""

import pytest

from firmware.loss import LossScale, one_cycle


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
