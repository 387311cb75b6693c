"""That every MAC slot of a program is accounted for, once."""

import pytest

from sim.bench.slots import account

COUNTERS = {
    "CYCLES": 1000, "LOST_FILL": 20, "LOST_DRAIN": 30, "LOST_OPERAND": 50,
    "USEFUL_MACS": 6500, "EDGE_MACS": 400, "FILLER_MACS": 300,
}  # fmt: skip
MACS = 8


def test_shares_of_all_slots():
    assert account("a program", COUNTERS, MACS) == {
        "utilisation": 0.8125,
        "lost": {"fill": 0.02, "drain": 0.03, "operand": 0.05, "edge": 0.05, "filler": 0.0375},
    }


def test_what_does_not_count_as_a_product_is_an_edge():
    shares = account("a program", COUNTERS, MACS, 6000)
    assert shares["utilisation"] == 0.75
    assert shares["lost"] == account("a program", COUNTERS, MACS)["lost"] | {"edge": 0.1125}
    assert shares["utilisation"] + sum(shares["lost"].values()) == 1


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("by", [-1, 1])
def test_slots_that_do_not_add_up(name, by):
    with pytest.raises(AssertionError, match=r"a program: .* aren't \d+ in all"):
        account("a program", COUNTERS | {name: COUNTERS[name] + by}, MACS)


def test_fewer_useful_products_than_there_are():
    with pytest.raises(AssertionError, match="6500 useful MACs, expected at least 6501"):
        account("a program", COUNTERS, MACS, 6501)
