"""What is told of a card, before and after an error."""

import json

import pytest

from firmware.cards.golden import GoldenCard
from firmware.driver import Driver
from firmware.errors import CardFault
from firmware.info import gather, main
from firmware.program import Program, descriptor
from rtl.config import PRESETS
from rtl.control.commands import LoadTarget, Stage

TINY = PRESETS["tiny"]


def stopped():
    """A card that stopped at a fault."""
    card = GoldenCard(TINY)
    program = Program(TINY)
    for address in (0, TINY.memory_bytes - TINY.beat_bytes):
        program.load(
            LoadTarget.AUX, Stage.FF, rows=2, d_words=1,
            descriptor=descriptor(TINY, address, 2),
        )  # fmt: skip
    with pytest.raises(CardFault):
        Driver(card).run(program)
    return card


def test_a_card_at_rest():
    facts = gather("golden:tiny", GoldenCard(TINY))
    assert facts["state"] == ["IDLE"] and facts["fault"] is None
    assert facts["version"] == facts["software_version"] == "0.3.0"
    assert facts["config_hash"] == TINY.hash and facts["macs"] == TINY.macs
    assert facts["patterns"] == ["dense", "1:4", "2:4", "1:8", "2:8", "4:8"]
    assert facts["interrupts"] == {"enabled": [], "line": False, "met": []}
    assert not any(facts["counters"].values())


def test_a_card_after_a_fault():
    facts = gather("golden:tiny", stopped())
    assert facts["state"] == ["FAULT"]
    assert facts["fault"] == {"code": "ADDRESS_RANGE", "command": 1, "address": TINY.memory_bytes}
    assert facts["interrupts"] == {"enabled": ["DONE", "FAULT"], "line": True, "met": ["FAULT"]}
    assert facts["program"]["commands"] == 3
    assert facts["counters"]["COMMANDS"] == 1


def test_the_report_is_readable(capsys, monkeypatch):
    monkeypatch.setattr("firmware.info.open_card", lambda *_, **__: stopped())
    assert main(["golden:tiny"]) == 0
    output = capsys.readouterr().out
    for text in (
        "4 x 2 PEs of 4 lanes, 32 MACs",
        "ADDRESS_RANGE at command 1, address 0x100000",
        "gateware       0.3.0, this software 0.3.0",
        "commands carried out",
    ):
        assert text in output


def test_the_report_as_json(capsys, monkeypatch):
    monkeypatch.setattr("firmware.info.open_card", lambda *_, **__: stopped())
    assert main(["golden:tiny", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(json.dumps(gather("golden:tiny", stopped())))


def test_nothing_is_changed():
    card = stopped()
    before = gather("golden:tiny", card)
    card.write_register = card.write_memory = None
    assert gather("golden:tiny", card) == before


def test_cards_that_cannot_be_opened(capsys):
    assert main(["xdma:97"]) == 2
    assert "No such file or directory" in " ".join(capsys.readouterr().err.split())
