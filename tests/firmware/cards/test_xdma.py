"""The XDMA card on stand-ins for its driver's devices, which do what the driver's source says."""

import errno
import logging
import os
import signal
import threading
import time

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.golden import GoldenCard
from firmware.cards.xdma import XdmaCard
from firmware.driver import Driver
from firmware.errors import CardError
from firmware.program import Program
from firmware.selftest import SelfTest
from rtl.config import PRESETS
from rtl.interface.register_map import REGISTERS
from tests.harness import default_seed

TINY = PRESETS["tiny"]
STATUS = REGISTERS["INTERRUPT_STATUS"].offset


class Devices:
    """Files in a directory, behind whose descriptors is a card.

    Registers: one of 32 bits a call, at offsets that are multiples of 4, else EPROTO. Memory: as
    much as the driver could move, of what it was given, from buffers whose address is that of the
    card modulo 64, else EINVAL. Events: a named pipe that gets four bytes when the line rises.
    """

    def __init__(self, directory, monkeypatch, card):
        self.card = card
        self.names = {}
        self.largest = 1 << 20
        self.errors = {}
        self.calls = []
        self.lose_events = False
        self.silent = False
        for device in ("user", "h2c_0", "c2h_0"):
            (directory / f"xdma0_{device}").touch()
        self.fifo = directory / "xdma0_events_0"
        os.mkfifo(self.fifo)
        # Somebody has to write to a pipe before it can be opened for reading.
        self.events = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self.real = {name: getattr(os, name) for name in ("open", "pread", "pwrite", "preadv")}
        for name in self.real:
            monkeypatch.setattr(os, name, getattr(self, name))

    def open(self, path, flags, *rest, **options):
        device = str(path).rpartition("xdma0_")[2]
        self._fail(f"open {device}")
        file = self.real["open"](path, flags, *rest, **options)
        self.names[file] = device
        return file

    def _fail(self, what):
        if self.errors.get(what):
            number = self.errors[what].pop(0)
            if number:
                raise OSError(number, os.strerror(number))

    def pread(self, file, count, offset):
        assert (self.names[file], count) == ("user", 4)
        self._fail("user")
        if offset % 4:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        return (0xFFFFFFFF if self.silent else self.card.read_register(offset)).to_bytes(
            4, "little"
        )

    def pwrite(self, file, content, offset):
        if self.names[file] == "h2c_0":
            data = np.frombuffer(content, np.uint8)
            count = self._dma("h2c_0", data.ctypes.data, len(data), offset)
            assert isinstance(content, memoryview) and not content.readonly
            self.card.write_memory(offset, data[:count])
            return count
        assert (self.names[file], len(content)) == ("user", 4)
        self._fail("user")
        before = self.card.wait_interrupt(0)
        self.card.write_register(offset, int.from_bytes(content, "little"))
        if self.card.wait_interrupt(0) and not before and not self.lose_events:
            os.write(self.events, bytes([1, 0, 0, 0]))
        return 4

    def preadv(self, file, buffers, offset):
        [buffer] = buffers
        data = np.frombuffer(buffer, np.uint8)
        count = self._dma(self.names[file], data.ctypes.data, len(data), offset)
        data[:count] = self.card.read_memory(offset, count)
        return count

    def _dma(self, device, pointer, size, offset):
        self._fail(device)
        if (pointer - offset) % 64:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.calls.append((device, offset, size))
        return min(size, self.largest)

    def close(self):
        os.close(self.events)


@pytest.fixture
def devices(tmp_path, monkeypatch):
    devices = Devices(tmp_path, monkeypatch, GoldenCard(TINY))
    yield devices
    devices.close()


@pytest.fixture
def card(devices, tmp_path):
    with XdmaCard(0, directory=tmp_path) as card:
        yield card


def test_the_selftest_passes(card):
    checks = list(SelfTest(Driver(card)).run())
    assert len(checks) == 15 and all(check.passed for check in checks), checks
    assert card.config is TINY and card.remarks() == []


@pytest.mark.parametrize("largest", [1, 7, 64, 1000])
def test_short_transfers_go_on_where_they_ended(card, devices, largest):
    devices.largest = largest
    content = np.random.default_rng(default_seed()).integers(0, 256, 2500, np.uint8)
    card.write_memory(4091, content)
    np.testing.assert_array_equal(card.read_memory(4091, 2500), content)
    assert len(devices.calls) == 2 * -(-2500 // largest)


def test_buffers_that_the_engine_cannot_take_are_copied(card):
    """Any alignment, slices with a stride, memory that may not be written, nothing at all."""
    content = np.random.default_rng(default_seed()).integers(0, 256, 4096, np.uint8)
    for start, address in ((0, 0), (1, 0), (0, 1), (13, 5)):
        card.write_memory(address, content[start : start + 500])
        np.testing.assert_array_equal(card.read_memory(address, 500), content[start : start + 500])
    card.write_memory(3, content[::7])
    np.testing.assert_array_equal(card.read_memory(3, content[::7].size), content[::7])
    content.flags.writeable = False
    card.write_memory(64, content)
    np.testing.assert_array_equal(card.read_memory(64, 4096), content)
    card.write_memory(0, content[:0])
    assert card.read_memory(0, 0).size == 0


def test_large_transfers_are_cut(card, devices, monkeypatch):
    monkeypatch.setattr("firmware.cards.xdma._LARGEST_TRANSFER", 4096)
    card.read_memory(100, 10_000)
    assert [(place, size) for _, place, size in devices.calls] == [
        (100, 4096), (4196, 4096), (8292, 1808),
    ]  # fmt: skip


@pytest.mark.parametrize("device", ["user", "h2c_0", "c2h_0"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOENT, "No such file or directory; is the board in the machine"),
        (errno.ENODEV, "No such device; is the board in the machine"),
        (errno.EACCES, "Permission denied; root or a udev rule can give access"),
        (errno.EBUSY, "Device or resource busy; another program uses it"),
    ],
)
def test_devices_that_cannot_be_opened(devices, tmp_path, device, number, message):
    devices.errors[f"open {device}"] = [number]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CardError, match=f"xdma0_{device}: opening: {message}"):
        XdmaCard(0, directory=tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_board_at_all():
    with pytest.raises(CardError, match="/dev/xdma97_user: opening: No such file"):
        open_card("xdma:97")
    with pytest.raises(CardError, match="no card 'xdma:first'; such a name is xdma:NUMBER"):
        open_card("xdma:first")


def test_a_board_that_fell_off_the_bus(devices, tmp_path):
    devices.silent = True
    with pytest.raises(CardError, match="xdma:0: nothing answers on the bus, registers read 0xfff"):
        XdmaCard(0, directory=tmp_path)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ETIMEDOUT, "timed out; the board's memory doesn't answer"),
        (errno.EIO, "error; the DMA engine met an error on the board's bus; see dmesg"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_transfers_that_fail(card, devices, number, message):
    """At once, or after a part was moved; the next one works again."""
    data = np.arange(256, dtype=np.uint8)
    for errors in ([number], [0, number]):
        devices.largest = 100
        devices.errors = {"h2c_0": list(errors), "c2h_0": list(errors)}
        done = 100 * (len(errors) - 1)
        what = rf"{256 - done} bytes at {0x200 + done:#x}: .*{message}"
        with pytest.raises(CardError, match=f"h2c_0: writing {what}"):
            card.write_memory(0x200, data)
        with pytest.raises(CardError, match=f"c2h_0: reading {what}"):
            card.read_memory(0x200, 256)
        card.write_memory(0x200, data)
        np.testing.assert_array_equal(card.read_memory(0x200, 256), data)


def test_a_transfer_without_progress_ends(card, devices):
    devices.largest = 0
    with pytest.raises(CardError, match="c2h_0: reading 16 bytes at 0x0 moved nothing"):
        card.read_memory(0, 16)


def test_registers_that_cannot_be_reached(card, devices):
    for offset in (2, -4, 0x1000):
        with pytest.raises(CardError, match="must be a multiple of 4 below 0x1000"):
            card.read_register(offset)
        with pytest.raises(CardError, match="must be a multiple of 4 below 0x1000"):
            card.write_register(offset, 0)
    devices.errors["user"] = [errno.ENODEV]
    with pytest.raises(CardError, match="user: reading register 0x00c: No such device"):
        card.read_register(STATUS)
    card.close()
    with pytest.raises(CardError, match="the card is closed"):
        card.read_register(STATUS)


def test_events_end_the_wait(card, devices):
    """An event that comes later ends a wait; one of an interrupt served already doesn't."""
    driver = Driver(card)
    os.write(devices.events, bytes(4))
    start = time.monotonic()
    assert not card.wait_interrupt(0.1)
    assert 0.1 <= time.monotonic() - start < 1
    timer = threading.Timer(0.1, lambda: driver.run(Program(TINY)))
    timer.start()
    assert card.wait_interrupt(10)
    timer.join()
    assert time.monotonic() - start < 2 and card.remarks() == []


def test_signals_do_not_end_the_wait(card):
    """A signal each few milliseconds interrupts the call that waits, which goes on."""
    Driver(card)
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        start = time.monotonic()
        assert not card.wait_interrupt(0.2)
        assert 0.2 <= time.monotonic() - start < 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_lost_interrupt_is_noticed_and_said(card, devices, caplog, monkeypatch):
    monkeypatch.setattr("firmware.cards.xdma._EVENT_SLICE", 0.05)
    driver = Driver(card)
    devices.lose_events = True
    interrupt = card._interrupt
    # The line rises while the card waits for an event.
    looks = iter([False])
    monkeypatch.setattr(card, "_interrupt", lambda: next(looks, True) and interrupt())
    with caplog.at_level(logging.WARNING):
        driver.run(Program(TINY))
    monkeypatch.setattr(card, "_interrupt", interrupt)
    [remark] = card.remarks()
    assert "polled instead: an interrupt came without an event" in remark
    assert remark in caplog.text
    # From now on nothing waits for events, and all works as before.
    start = time.monotonic()
    for _ in range(20):
        driver.run(Program(TINY))
    assert time.monotonic() - start < 1
    card.write_register(STATUS, 3)
    assert not card.wait_interrupt(0.05)
    assert len(card.remarks()) == 1


def test_a_late_event_is_not_a_lost_one(card, devices, monkeypatch):
    monkeypatch.setattr("firmware.cards.xdma._EVENT_SLICE", 0.05)
    monkeypatch.setattr("firmware.cards.xdma._EVENT_DELAY", 5)
    levels = iter([False, True])
    monkeypatch.setattr(card, "_interrupt", lambda: next(levels))
    timer = threading.Timer(0.2, lambda: os.write(devices.events, bytes(4)))
    timer.start()
    assert card.wait_interrupt(10)
    timer.join()
    assert card.remarks() == []


def test_a_board_without_events_is_polled(devices, tmp_path):
    devices.errors["open events_0"] = [errno.EACCES]
    with XdmaCard(0, directory=tmp_path) as card:
        [remark] = card.remarks()
        assert "registers are polled instead" in remark and "events_0: opening: Permiss" in remark
        assert Driver(card).run(Program(TINY)).counters["COMMANDS"] == 0
        assert card.wait_interrupt(0)
        card.write_register(STATUS, 3)
        assert not card.wait_interrupt(0.05)
