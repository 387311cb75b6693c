"""Which columns of the array go to which die."""

import dataclasses
import itertools
from collections import Counter

import pytest

from boards.alveo import U200, U250
from boards.floorplan import CORE_LUTS_PER_ELEMENT, MAC_LUTS, Dies, column_slrs
from boards.vcu1525 import DIES
from rtl.config import preset

CARDS = (
    ("vcu1525", DIES, {0: 14, 1: 4, 2: 14}),
    ("vcu1525-1k", DIES, {0: 16}),
    ("vcu1525", U200.dies, {0: 16, 1: 1, 2: 15}),
    ("vcu1525-1k", U200.dies, {0: 16}),
    ("u250", U250.dies, {0: 11, 1: 1, 2: 12, 3: 8}),
    ("u250-1k", U250.dies, {2: 16}),
)
"""Presets on their cards, with the columns of each die as docs/boards.md has them."""


@pytest.mark.parametrize(("name", "dies", "columns"), CARDS)
def test_columns_are_a_chain_through_the_dies(name, dies, columns):
    config = preset(name)
    slrs = column_slrs(config, dies)
    assert Counter(slrs) == columns and len(slrs) == config.cols
    assert all(following - slr in (0, 1) for slr, following in itertools.pairwise(slrs))
    # Operands and results have no way further than to the next die.
    assert min(abs(slr - dies.home) for slr in slrs) <= 1
    for slr, luts in enumerate(dies.luts):
        core = config.elements * CORE_LUTS_PER_ELEMENT if slr == dies.home else 0
        column = config.rows * config.lanes * MAC_LUTS[config.group]
        assert core + column * slrs.count(slr) <= luts


def test_small_accelerator_stays_whole():
    tiny = preset("tiny")
    assert column_slrs(tiny, DIES) == [DIES.home] * tiny.cols


def test_accelerator_that_fits_nowhere_is_spread_evenly():
    small = Dies(luts=(1000, 1000, 1000, 1000), home=2)
    config = dataclasses.replace(preset("vcu1525"), cols=8)
    assert column_slrs(config, small) == [0, 0, 1, 1, 2, 2, 3, 3]
