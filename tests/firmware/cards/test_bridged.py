"""The gateware of the ULX3S behind its serial line, simulated bit by bit."""

import pytest

from firmware import selftest, train
from firmware.cards import open_card
from firmware.errors import CardError
from rtl.config import preset
from rtl.serial_top import SerialTop


def test_needs_one_memory_channel():
    with pytest.raises(ValueError, match="configuration 'u250': channels is 4, must be 1"):
        SerialTop(preset("u250"), 40_000_000, 3_000_000)
    with pytest.raises(CardError, match="channels is 4, must be 1 behind a serial line"):
        open_card("bridged:u250")


@pytest.mark.long
def test_selftest():
    assert selftest.main(["bridged:ulx3s"]) == 0


@pytest.mark.long
def test_trains_digits(tmp_path):
    """Every bit of the trained state equals the golden model's, which `train` compares itself."""
    arguments = ["--card", "bridged:ulx3s", "--layers", "32,32", "--epochs", "1", "--steps", "10"]
    assert train.main([*arguments, "--out", str(tmp_path)]) == 0
