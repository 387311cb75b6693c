"""The self-test passes on whole cards of every kind, and finds what is wrong with others."""

import dataclasses
import json
import random

import numpy as np
import pytest

from firmware.cards.golden import GoldenCard
from firmware.cards.serial import SerialCard
from firmware.driver import Driver
from firmware.errors import CardError
from firmware.selftest import SelfTest, main
from rtl.config import PAGE_BYTES, PRESETS
from rtl.control.commands import Fault
from rtl.interface.register_map import REGISTERS, Control
from rtl.sparsity.pattern import supported_patterns
from tests.harness import default_seed

from .cards.serial_bridge import Bridge, TimedLine

TINY = PRESETS["tiny"]


def failures(card):
    """Run the self-test; return the checks that failed, by name."""
    checks = list(SelfTest(Driver(card)).run())
    return {check.name: check.detail for check in checks if not check.passed}


def test_whole_cards_pass(driver):
    """The golden model and the gateware; each pattern is multiplied and updated."""
    checks = list(SelfTest(driver).run())
    assert all(check.passed for check in checks), checks
    patterns = [str(pattern) for pattern in supported_patterns(driver.config)]
    assert [check.name for check in checks] == [
        "registers", "memory", *(f"product {pattern}" for pattern in patterns),
        *(f"update {pattern}" for pattern in patterns), "error and recovery",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", ["sim", "sim-wide"])
def test_other_shapes_pass(preset):
    assert failures(GoldenCard(PRESETS[preset])) == {}


def test_large_and_striped_memories_pass():
    config = dataclasses.replace(TINY, name="large", channels=4, memory_bytes=1 << 34)
    assert failures(GoldenCard(config)) == {}


def test_a_card_behind_a_bad_line_passes():
    """One byte in 10,000 is lost or changed."""
    chance = random.Random(default_seed())

    def damage(direction, index, byte):
        if chance.random() >= 1 / 10_000:
            return [byte]
        return [] if chance.random() < 0.5 else [byte ^ 0x20]

    card = SerialCard(TimedLine(Bridge(GoldenCard(TINY)), damage))
    assert failures(card) == {}
    [remark] = card.remarks()
    assert remark == f"{card.repeated} requests were sent again, as the line lost or changed bytes"


class Broken(GoldenCard):
    """A golden card with one thing wrong."""

    def __init__(self, **changes):
        super().__init__(TINY)
        for name, change in changes.items():
            setattr(self, name, change(getattr(self, name)))


def stuck_bit(read):
    """A data line is always high."""
    return lambda address, size: (
        read(address, size)
        | np.where((np.arange(size) + address) % 32 == 5, 0x10, 0).astype(np.uint8)
    )


def tied_address(access):
    """An address line is always low."""
    return lambda address, *rest: access(address & ~0x20000, *rest)


def lost_byte(write):
    """The last byte of an access is lost where it crosses a page."""

    def change(address, data):
        crosses = address // PAGE_BYTES != (address + data.size - 1) // PAGE_BYTES
        write(address, data[:-1] if crosses else data)

    return change


def tied_registers(write):
    """Two registers are one."""
    pair = REGISTERS["PROGRAM_LOW"].offset, REGISTERS["PROGRAM_HIGH"].offset

    def change(offset, value):
        for place in pair if offset in pair else (offset,):
            write(place, value)

    return change


@pytest.mark.parametrize(
    ("changes", "failed", "message"),
    [
        ({"read_memory": stuck_bit}, "memory", "zeros: 128 of 4096 bytes are wrong, the first at"),
        (
            {"read_memory": tied_address, "write_memory": tied_address},
            "memory",
            "address lines: 64 of 64 bytes are wrong",
        ),
        ({"write_memory": lost_byte}, "memory", "page border"),
        ({"write_register": tied_registers}, "registers", "register PROGRAM_LOW is"),
    ],
)
def test_broken_memory_and_registers_are_found(changes, failed, message):
    found = failures(Broken(**changes))
    assert failed in found and message in found[failed]


class Miscalculating(GoldenCard):
    """Changes a byte of what the last command of a program wrote."""

    def __init__(self, opcode_name):
        super().__init__(TINY)
        self._wrong = opcode_name

    def _execute(self, address, commands):
        before = self._machine.memory.copy()
        outcome = super()._execute(address, commands)
        written = np.flatnonzero(before != self._machine.memory)
        if written.size:
            self._machine.memory[written[-1 if self._wrong == "last" else 0]] ^= 1
        return outcome


@pytest.mark.parametrize("which", ["first", "last"])
def test_wrong_results_are_found(which):
    """A single bit of any product or update."""
    found = failures(Miscalculating(which))
    patterns = [str(pattern) for pattern in supported_patterns(TINY)]
    assert set(found) == {
        *(f"product {pattern}" for pattern in patterns),
        *(f"update {pattern}" for pattern in patterns),
        "error and recovery",
    }
    assert "1 of 1024 bytes are wrong, the first at" in found["product 2:8"]


class Lenient(GoldenCard):
    """Doesn't stop at a fault, or says something else of it."""

    def __init__(self, **changes):
        super().__init__(TINY)
        self._changes = changes

    def _execute(self, address, commands):
        outcome = super()._execute(address, commands)
        return dataclasses.replace(outcome, **self._changes) if outcome.fault.value else outcome


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fault": Fault.NONE, "finished": True}, "the end of memory was carried out"),
        ({"fault": Fault.MALFORMED}, "code of the fault is MALFORMED, expected ADDRESS_RANGE"),
        ({"fault_command": 0}, "command of the fault is 0x0, expected 0x1"),
        ({"fault_address": 64}, "address of the fault is 0x40, expected 0x100000"),
    ],
)
def test_wrong_faults_are_found(changes, message):
    found = failures(Lenient(**changes))
    assert list(found) == ["error and recovery"] and message in found["error and recovery"]


def test_an_interrupt_that_does_not_come_is_found():
    card = GoldenCard(TINY)
    card.wait_interrupt = lambda timeout: False
    assert failures(card) == {"error and recovery": "the interrupt is low after a fault"}


def test_a_card_that_stays_in_reset_is_given_up():
    card = GoldenCard(TINY)
    driver = Driver(card)
    read = card.read_register
    card.read_register = lambda offset: (
        int(Control.SOFT_RESET) if offset == REGISTERS["CONTROL"].offset else read(offset)
    )
    checks = list(SelfTest(driver).run())
    assert [check.name for check in checks] == ["registers", "reset"]
    assert all("didn't come out of reset" in check.detail for check in checks)


def test_the_report_is_readable(capsys):
    assert main(["golden:tiny"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("golden:tiny: configuration tiny, hash 0x")
    assert "product 2:8" in output and output.rstrip().endswith("all 15 passed")


def test_the_report_as_json(capsys):
    assert main(["golden:sim-8x", "--json", "--seed", "7"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True and report["seed"] == 7
    assert report["config_hash"] == PRESETS["sim-8x"].hash
    assert {check["name"] for check in report["checks"]} >= {"product 2:16", "update 2:16"}


def test_a_failure_is_the_exit_status(capsys, monkeypatch):
    monkeypatch.setattr("firmware.selftest.open_card", lambda *_, **__: Miscalculating("first"))
    assert main(["golden:tiny"]) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output and "13 of 15 failed" in output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cycles:tiny", "card 'cycles:tiny' computes no values"),
        ("nothing", "no card 'nothing'"),
        ("xdma:97", "No such file or directory"),
    ],
)
def test_cards_that_cannot_be_tested(name, message, capsys):
    assert main([name]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_card_that_is_lost_on_the_way(capsys, monkeypatch):
    """Every check fails with the card's words, and the test ends."""
    card = GoldenCard(TINY)

    def lost(offset):
        raise CardError("gone")

    def opened(*_, **__):
        return card

    monkeypatch.setattr("firmware.selftest.open_card", opened)
    driver_init = Driver.__init__

    def then_lost(self, *arguments):
        driver_init(self, *arguments)
        card.read_register = lost

    monkeypatch.setattr(Driver, "__init__", then_lost)
    assert main(["golden:tiny"]) == 1
    assert "gone" in capsys.readouterr().out
