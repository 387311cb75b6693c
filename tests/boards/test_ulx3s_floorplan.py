"""Places of the ULX3S' array: there are such, none is taken twice, and what is next stays next."""

import dataclasses
import re

import pytest

from boards.ulx3s_floorplan import BLOCKS, floorplan
from rtl.config import PRESETS

ULX3S = PRESETS["ulx3s"]
OFFSETS = {
    "MULT18_0": 0, "MULT18_1": 1, "MULT18_4": 4, "MULT18_5": 5,
    "EBR0": 0, "EBR1": 2, "EBR2": 4, "EBR3": 6,
}  # fmt: skip
ROWS = {"MULT18": {10, 34, 58}, "EBR": {22, 46, 70, 82}}
"""Of an LFE5U-85F (Project Trellis)."""


def positions():
    """Where each cell is, by its name below the array."""
    found = {}
    for cell, place in floorplan(ULX3S, "array").items():
        x, y, bel = re.fullmatch(r"X(\d+)/Y(\d+)/(\w+)", place).groups()
        found[cell.removeprefix("array.")] = (int(x), int(y), bel)
    return found


def test_every_place_is_there_and_taken_once():
    places = positions()
    assert len(set(places.values())) == len(places) == 32 + 24 + 8 + 8
    for cell, (x, y, bel) in places.items():
        kind = "MULT18" if "multiplier" in cell else "EBR"
        assert bel.startswith(kind) and y in ROWS[kind] and x - OFFSETS[bel] in BLOCKS, cell


def test_multipliers_of_a_pe_share_a_block_and_operands_come_straight():
    places = positions()
    for row in range(ULX3S.rows):
        blocks = [
            {
                places[f"ulx3s_column_{column}.ulx3s_pe_{row}.lane_{lane}.multiply_add.multiplier"]
                for lane in range(ULX3S.lanes)
            }
            for column in range(ULX3S.cols)
        ]
        for block in blocks:
            xs = [x for x, _, _ in block]
            assert max(xs) - min(xs) == 5 and len({y for _, y, _ in block}) == 1
        # The S bank lies between the two PEs that it feeds.
        first, second = ({(x, bel) for x, _, bel in block} for block in blocks)
        assert first == second
        bank = [place for cell, place in places.items() if f"s_bank_{row}." in cell]
        assert len(bank) == 6
        centre = sum(x for x, _ in first) / len(first)
        assert all(abs(x - centre) < 16 for x, _, _ in bank)


@pytest.mark.parametrize(
    "changes",
    [{"rows": 8, "drain_rows": 8}, {"cols": 4}, {"cols": 1}, {"s_depth": 1024}, {"o_depth": 256}],
)
def test_other_arrays_are_left_to_the_placer(changes):
    assert floorplan(dataclasses.replace(ULX3S, **changes), "array") == {}
