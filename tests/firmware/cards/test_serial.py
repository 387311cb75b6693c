"""The serial card: whatever happens to bytes on the line, everything is done once or refused."""

import random

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.golden import GoldenCard
from firmware.cards.serial import SerialCard
from firmware.driver import Driver
from firmware.errors import CardError
from rtl.config import PRESETS
from rtl.interface.register_map import REGISTERS
from rtl.interface.serial_protocol import MAX_COUNT, Command, Status
from tests.harness import default_seed

from .serial_bridge import Bridge, Terminal, TimedLine

TINY = PRESETS["tiny"]
PROGRAM_LOW = REGISTERS["PROGRAM_LOW"].offset


class Recorder(GoldenCard):
    """Notes what is written."""

    def __init__(self):
        super().__init__(TINY)
        self.writes = []

    def write_register(self, offset, value):
        self.writes.append((offset, value))
        super().write_register(offset, value)

    def write_memory(self, address, data):
        self.writes.append((address, data.tobytes()))
        super().write_memory(address, data)


def connect(damage=None, card=None, **options):
    """Return a serial card whose line is undamaged until it's there, and the card behind it."""
    behind = card or Recorder()
    line = TimedLine(Bridge(behind))
    card = SerialCard(line, **options)
    line.counts = {"request": 0, "answer": 0}
    if damage:
        line.damage = damage
    return card, behind


def test_accesses_reach_the_card():
    card, behind = connect()
    assert card.config is TINY and card.repeated == 0
    card.write_register(PROGRAM_LOW, 0xDEADBEEF)
    assert card.read_register(PROGRAM_LOW) == 0xDEADBEEF
    content = np.random.default_rng(default_seed()).integers(0, 256, 3000, np.uint8)
    card.write_memory(MAX_COUNT - 5, content)
    np.testing.assert_array_equal(card.read_memory(MAX_COUNT - 5, 3000), content)
    np.testing.assert_array_equal(behind.read_memory(MAX_COUNT - 5, 3000), content)
    # Pieces end where frames do, so that they're whole beats.
    assert [address for address, _ in behind.writes[1:]] == [1019, 1024, 2048, 3072]
    assert card.read_memory(7, 0).size == 0 and card.repeated == 0


DAMAGES = {
    "lost": lambda byte: [],
    "changed": lambda byte: [byte ^ 0x10],
    "doubled": lambda byte: [byte, byte],
    "inserted": lambda byte: [0xA5, byte],
    "inserted noise": lambda byte: [0x00, byte],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("direction", ["request", "answer"])
def test_any_one_damaged_byte_is_survived(damage, direction):
    """Each byte of each frame of a few accesses, which are carried out once and in order."""
    content = np.arange(20, dtype=np.uint8)
    position, total = 0, 1
    while position < total:
        card, behind = connect(
            lambda where, index, byte, position=position: (
                DAMAGES[damage](byte) if (where, index) == (direction, position) else [byte]
            )
        )
        card.write_register(PROGRAM_LOW, position)
        card.write_memory(0x100, content)
        assert card.read_register(PROGRAM_LOW) == position
        assert card.read_memory(0x100, 20).tobytes() == content.tobytes()
        assert behind.writes == [(PROGRAM_LOW, position), (0x100, content.tobytes())]
        assert card.repeated <= 2
        total = total if position else card._line.counts[direction]
        position += 1
    assert total > 60


def test_a_bad_line_only_takes_longer():
    """One byte in 5,000 is lost, changed, doubled or preceded by another, in either direction."""
    chance = random.Random(default_seed())

    def damage(direction, index, byte):
        if chance.random() >= 1 / 5000:
            return [byte]
        kind = chance.choice(["lost", "changed", "doubled", "inserted"])
        return [byte ^ 1 << chance.randrange(8)] if kind == "changed" else DAMAGES[kind](byte)

    card, behind = connect(damage)
    content = np.random.default_rng(default_seed()).integers(0, 256, 1 << 16, np.uint8)
    card.write_memory(0, content)
    for value in range(200):
        card.write_register(PROGRAM_LOW, value)
    np.testing.assert_array_equal(card.read_memory(0, content.size), content)
    assert card.repeated > 5
    pieces = [(start, content[start:][:MAX_COUNT].tobytes()) for start in range(0, 1 << 16, 1024)]
    assert behind.writes == pieces + [(PROGRAM_LOW, value) for value in range(200)]


def test_a_new_conversation_is_no_repetition():
    """The last host's sequence number, whatever it was, isn't taken for that of this one."""
    behind = Recorder()
    line = TimedLine(Bridge(behind))
    for count in range(260):
        card = SerialCard(line)
        for value in range(count % 3):
            card.write_register(PROGRAM_LOW, value)
    assert [value for _, value in behind.writes] == [0, 0, 1] * 86 + [0]


def test_late_answers_are_skipped():
    """Each answer comes when the request was already sent again, so every one comes twice."""
    card, behind = connect()
    line, take = card._line, card._line.bridge.take

    def late(byte, time):
        answer = take(byte, time)
        if answer:
            line.arriving += [(time + 0.3 + i * line.byte_time, b) for i, b in enumerate(answer)]
        return b""

    line.bridge.take = late
    for value in range(5):
        card.write_register(PROGRAM_LOW, value)
        assert card.read_register(PROGRAM_LOW) == value
    assert [value for _, value in behind.writes] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("silent", ["request", "answer"])
def test_a_dead_line_is_given_up(silent):
    card, _ = connect()
    card._line.damage = lambda direction, index, byte: [] if direction == silent else [byte]
    start = card._line.now()
    with pytest.raises(CardError, match="READ_REGISTER of 4 bytes at 0x10 got no proper answer in"):
        card.read_register(PROGRAM_LOW)
    assert card._line.now() - start < 5


def test_a_line_that_is_never_silent_is_given_up():
    line = TimedLine(Bridge(Recorder()))
    line.read = lambda limit, timeout: setattr(line, "time", line.time + 0.001) or b"U"
    with pytest.raises(CardError, match=r"serial: the line is never silent; is the rate right\?"):
        SerialCard(line)
    assert line.closed


def test_refusals_name_the_request():
    card, _ = connect()
    with pytest.raises(CardError, match="READ_REGISTER of 4 bytes at 0xffc ended with BUS_ERROR"):
        card.read_register(0xFFC)
    with pytest.raises(CardError, match="WRITE_REGISTER of 4 bytes at 0x2 ended with BAD_REQUEST"):
        card.write_register(2, 0)
    with pytest.raises(CardError, match="outside the card's memory"):
        card.read_memory(TINY.memory_bytes - 2, 4)
    # The number of a refused request isn't used again.
    card.write_register(PROGRAM_LOW, 5)
    assert card.read_register(PROGRAM_LOW) == 5


def test_another_protocol_is_refused(monkeypatch):
    monkeypatch.setattr("tests.firmware.cards.serial_bridge.protocol.PROTOCOL", 2)
    with pytest.raises(CardError, match="speaks version 2 of the protocol, this software version"):
        SerialCard(TimedLine(Bridge(Recorder())))


def test_every_command_and_status_is_known():
    bridge = Bridge(Recorder())
    card = SerialCard(TimedLine(bridge))
    header = {"sequence": 9, "address": 0, "count": 1}
    seen = {
        bridge.carry_out(type("Header", (), header), command.value, b"\0")[0] for command in Command
    }
    assert seen == {Status.OK, Status.BAD_REQUEST}
    assert not card.wait_interrupt(0)


def test_interrupts_are_asked_for():
    """The wait ends with the interrupt, or after its time."""
    card, behind = connect()
    driver = Driver(card)
    start = card._line.now()
    assert not card.wait_interrupt(0.5)
    assert 0.5 <= card._line.now() - start < 0.6
    behind.wait_interrupt = lambda timeout: card._line.now() > start + 2
    assert card.wait_interrupt(10)
    assert 2 < card._line.now() - start < 2.1
    assert driver.config is TINY


def test_a_terminal():
    """The same through a device of the operating system, to the end of it."""
    terminal = Terminal(Recorder())
    with open_card(f"serial:{terminal.name}@1000000") as card:
        content = np.random.default_rng(default_seed()).integers(0, 256, 5000, np.uint8)
        card.write_memory(100, content)
        np.testing.assert_array_equal(card.read_memory(100, 5000), content)
        with pytest.raises(CardError, match=f"cannot open serial port '{terminal.name}'"):
            open_card(f"serial:{terminal.name}")
        terminal.unplug()
        with pytest.raises(CardError, match=f"serial port '{terminal.name}'"):
            card.read_register(0)


def test_ports_that_cannot_be_opened(tmp_path):
    with pytest.raises(CardError, match=r"cannot open serial port '/dev/nothing': .*No such file"):
        open_card("serial:/dev/nothing")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CardError, match="cannot open serial port"):
        open_card(f"serial:{file}")
    with pytest.raises(CardError, match="'serial:/dev/ttyUSB0@fast': the rate must be"):
        open_card("serial:/dev/ttyUSB0@fast")
