"""The C driver: its statuses, both transports, the example, and the same self-test as elsewhere."""

import ctypes
import errno
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.compiled import C_OPTIONS, SOURCES, CompiledCard, Transport, build_driver
from firmware.cards.golden import GoldenCard
from firmware.driver import Driver, RunResult
from firmware.errors import CardError, CardFault, CardTimeout
from firmware.program import Program, descriptor
from firmware.selftest import SelfTest
from rtl.config import PRESETS
from rtl.control.commands import Fault, LoadTarget, Stage
from rtl.interface.register_map import COUNTERS, REGISTERS, Control
from sim.verilated.build import build_library
from tests.harness import default_seed

TINY = PRESETS["tiny"]
WRAPPED = ("open", "pread", "pwrite", "read", "poll", "close")


class CFault(ctypes.Structure):
    """``struct sat_fault``."""

    _fields_ = (
        ("code", ctypes.c_uint32), ("command", ctypes.c_uint32), ("address", ctypes.c_uint64)
    )  # fmt: skip


class CDriver(Driver):
    """A driver whose submitting, waiting and resetting is the C driver's."""

    def run(self, program, timeout=None):
        address, before = self._place(program), self.counters()
        status = self.card.library.sat_card_submit(
            self.card.handle, ctypes.c_uint64(address), len(program)
        )
        limit = ctypes.c_uint64(int(self.card.default_timeout if timeout is None else timeout))
        fault = CFault()
        status = status or self.card.library.sat_card_wait(
            self.card.handle, limit, ctypes.byref(fault)
        )
        text = self.card.library.sat_status_text(status).decode()
        counters = {name: value - before[name] for name, value in self.counters().items()}
        if text == "the program stopped at a fault":
            raise CardFault(
                code=Fault(fault.code).name, index=fault.command, command="",
                address=fault.address, counters=counters,
            )  # fmt: skip
        if text == "it took too long":
            raise CardTimeout(text, status=status, counters=counters)
        if status:
            raise CardError(text)
        return RunResult(counters)

    def counters(self):
        value, read = ctypes.c_uint64(), self.card.library.sat_card_read_counter
        values = {}
        for counter in COUNTERS:
            offset = REGISTERS[f"{counter.name}_LOW"].offset
            assert read(self.card.handle, offset, ctypes.byref(value)) == 0
            values[counter.name] = value.value
        return values

    def reset(self):
        limit = ctypes.c_uint64(int(self.card.default_timeout))
        status = self.card.library.sat_card_reset(self.card.handle, limit)
        if status:
            raise CardError(self.card.library.sat_status_text(status).decode())


def transport_to(card):
    """Return a transport to any card."""

    def guarded(function):
        def call(*arguments):
            try:
                function(*arguments)
            except CardError:
                return -1
            return 0

        return call

    def read_register(context, offset, value):
        value[0] = card.read_register(offset)

    def write_register(context, offset, value):
        card.write_register(offset, value)

    def read_memory(context, address, data, size):
        ctypes.memmove(data, card.read_memory(address, size).tobytes(), size)

    def write_memory(context, address, data, size):
        card.write_memory(address, np.frombuffer(ctypes.string_at(data, size), np.uint8))

    def wait_interrupt(context, timeout, high):
        high[0] = card.wait_interrupt(timeout)

    return Transport(
        None,
        Transport.ReadRegister(guarded(read_register)),
        Transport.WriteRegister(guarded(write_register)),
        Transport.MoveMemory(guarded(read_memory)),
        Transport.MoveMemory(guarded(write_memory)),
        Transport.WaitInterrupt(guarded(wait_interrupt)),
    )


@pytest.fixture(scope="module")
def library():
    return ctypes.CDLL(str(build_driver(TINY).resolve()))


@pytest.fixture
def behind():
    return GoldenCard(TINY)


@pytest.fixture
def card(library, behind):
    card = CompiledCard(TINY, library, transport_to(behind))
    card.default_timeout = 1000.0
    return card


def passes(driver):
    checks = list(SelfTest(driver).run())
    assert len(checks) == 15 and all(check.passed for check in checks), checks


def test_the_selftest_passes(card):
    """By Python's driver on the C card, and with submit, wait and reset in C as well."""
    passes(Driver(card))
    passes(CDriver(card))


def test_the_selftest_passes_on_the_gateware():
    with open_card("c:tiny") as card:
        passes(Driver(card))
        passes(CDriver(card))


def test_the_example_multiplies_on_the_gateware(tmp_path):
    gateware = build_library(TINY)
    headers = build_driver(TINY).parent
    command = [
        "gcc", *C_OPTIONS, f"-I{headers}", '-DSAT_CONFIGURATION="sat_tiny.h"', "gemm.c", "sat.c",
        "sat_verilated.c", "-ldl", "-o", str(tmp_path / "gemm"),
    ]  # fmt: skip
    command[command.index(f"-I{headers}")] = f"-I{headers.resolve()}"
    subprocess.run(command, cwd=SOURCES, check=True)
    gemm = [str(tmp_path / "gemm")]
    run = subprocess.run([*gemm, str(gateware)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("16 x 32 by 32 x 16 on 'tiny': 0 of 256 results wrong, ")
    run = subprocess.run([*gemm, "/nothing.so"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "/nothing.so" in run.stderr
    run = subprocess.run([*gemm, "libc.so.6"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "holds no simulated card" in run.stderr
    assert subprocess.run(gemm, capture_output=True, timeout=60).returncode == 2


@pytest.mark.parametrize(
    ("register", "message"),
    [
        ("IDENTITY", "this is no SAT card"),
        ("VERSION", "gateware and software are of different versions"),
        ("CONFIG_HASH", "the gateware has another configuration"),
    ],
)
def test_wrong_cards_are_refused(library, behind, register, message):
    read, offset = behind.read_register, REGISTERS[register].offset
    behind.read_register = lambda place: 0x1234 if place == offset else read(place)
    with pytest.raises(CardError, match=f"C driver, open: {message}"):
        CompiledCard(TINY, library, transport_to(behind))


def test_a_transport_that_fails_is_told(card, behind):
    def fail(*arguments):
        raise CardError("broken")

    driver = CDriver(card)
    for name in ("read_register", "write_register", "read_memory", "write_memory"):
        original = getattr(behind, name)
        setattr(behind, name, fail)
        with pytest.raises(CardError, match=f"C driver, {name.replace('_', ' ')}: the card can't"):
            if name.startswith("write"):
                argument = 0 if "register" in name else np.zeros(4, np.uint8)
                getattr(card, name)(0, argument)
            elif name == "read_memory":
                card.read_memory(0, 4)
            else:
                card.read_register(0)
        setattr(behind, name, original)
    program = Program(TINY)
    driver.run(program)
    behind.wait_interrupt = fail
    with pytest.raises(CardError, match="the card can't be reached"):
        driver.run(program)


def test_ranges_are_checked(card):
    read = card.library.sat_card_read_memory
    room = np.empty(64, np.uint8)
    size, end = 64, TINY.memory_bytes
    for address in (end - 63, end, (1 << 64) - 32):
        assert read(card.handle, ctypes.c_uint64(address), room.ctypes.data, size) == -5
    assert read(card.handle, ctypes.c_uint64(end - 64), room.ctypes.data, size) == 0
    submit = card.library.sat_card_submit
    for address, commands in ((32, 1), (end - 64, 2), (0, (1 << 32) - 1)):
        assert submit(card.handle, ctypes.c_uint64(address), ctypes.c_uint32(commands)) == -5
    with pytest.raises(CardError, match="or misaligned"):
        card.read_register(2)


def test_faults_busy_cards_and_time_outs(card, behind):
    driver = CDriver(card)
    bad = Program(TINY, "bad")
    bad.load(
        LoadTarget.AUX, Stage.FF, rows=2, d_words=1,
        descriptor=descriptor(TINY, TINY.memory_bytes - TINY.beat_bytes, 2),
    )  # fmt: skip
    with pytest.raises(CardFault) as caught:
        driver.run(bad)
    assert (caught.value.code, caught.value.index) == ("ADDRESS_RANGE", 0)
    assert caught.value.address == TINY.memory_bytes
    with pytest.raises(CardError, match="the card isn't ready: reset it"):
        driver.run(Program(TINY))
    driver.reset()
    assert driver.run(Program(TINY)).counters["COMMANDS"] == 0
    control, read = REGISTERS["CONTROL"].offset, behind.read_register
    driver.reset()
    # Started, and never done; then in a reset for ever.
    write = behind.write_register
    behind.write_register = lambda offset, value: offset != control and write(offset, value)
    with pytest.raises(CardTimeout):
        driver.run(Program(TINY))
    behind.read_register = lambda offset: Control.SOFT_RESET if offset == control else read(offset)
    with pytest.raises(CardError, match="it took too long"):
        driver.reset()


def test_every_status_has_words(library, card):
    texts = {library.sat_status_text(status) for status in range(-8, 1)}
    assert len(texts) == 9 and b"unknown status" not in texts
    assert library.sat_status_text(5) == b"unknown status"


# ---- The transport to XDMA ----

Answer = ctypes.CFUNCTYPE(
    ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_uint64,
    ctypes.c_uint64,
)  # fmt: skip


class Xdma(ctypes.Structure):
    """``struct sat_xdma``."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("user", "h2c", "c2h", "events"))


class System:
    """The operating system with one XDMA card, as its driver's source has it."""

    def __init__(self, library, card):
        self.card = card
        self.files = {}
        self.largest = 1 << 30
        self.errors = {}
        self.event = 0
        self.lose_events = False
        self.callback = Answer(self.answer)
        library.system_calls_attach(self.callback)

    def answer(self, call, file, data, size, offset):
        call = call.decode()
        device = self.files.get(file)
        if call == "open":
            device = ctypes.string_at(data).decode().removeprefix("/dev/xdma0_")
        numbers = self.errors.get(f"{call} {device}")
        if numbers and (number := numbers.pop(0)):
            return -number
        return getattr(self, f"call_{call}")(file, device, data, size, offset)

    def call_open(self, flags, device, *rest):
        modes = {"user": os.O_RDWR, "h2c_0": os.O_WRONLY, "c2h_0": os.O_RDONLY}
        assert flags == modes.get(device, os.O_RDONLY)
        file = 100 + len(self.files)
        self.files[file] = device
        return file

    def call_close(self, file, device, *rest):
        del self.files[file]
        return 0

    def call_pread(self, file, device, data, size, offset):
        if device == "user":
            assert size == 4 and offset % 4 == 0
            ctypes.c_uint32.from_address(data).value = self.card.read_register(offset)
            return 4
        assert device == "c2h_0" and (data - offset) % 64 == 0
        size = min(size, self.largest)
        ctypes.memmove(data, self.card.read_memory(offset, size).tobytes(), size)
        return size

    def call_pwrite(self, file, device, data, size, offset):
        if device == "user":
            assert size == 4 and offset % 4 == 0
            before = self.card.wait_interrupt(0)
            self.card.write_register(offset, ctypes.c_uint32.from_address(data).value)
            if self.card.wait_interrupt(0) and not before and not self.lose_events:
                self.event = 1
            return 4
        assert device == "h2c_0" and (data - offset) % 64 == 0
        size = min(size, self.largest)
        self.card.write_memory(offset, np.frombuffer(ctypes.string_at(data, size), np.uint8))
        return size

    def call_poll(self, file, device, data, count, timeout):
        assert device == "events_0" and count == 1
        time.sleep(0 if self.event else timeout / 1000)
        return self.event

    def call_read(self, file, device, data, size, offset):
        assert (device, size, self.event) == ("events_0", 4, 1)
        self.event = 0
        return 4


@pytest.fixture(scope="module")
def wrapped():
    """The C driver, whose system calls go to the test."""
    source = Path(__file__).with_name("system_calls.c")
    options = (str(source), "-U_FORTIFY_SOURCE", *(f"-Wl,--wrap={name}" for name in WRAPPED))
    return ctypes.CDLL(str(build_driver(TINY, options).resolve()))


@pytest.fixture
def system(wrapped, behind):
    return System(wrapped, behind)


@pytest.fixture
def xdma(wrapped, system):
    transport, state = Transport(), Xdma()
    assert wrapped.sat_xdma_open(ctypes.byref(transport), ctypes.byref(state), 0) == 0
    card = CompiledCard(TINY, wrapped, transport)
    card.default_timeout = 2000.0
    card.state = state
    yield card
    wrapped.sat_xdma_close(ctypes.byref(state))
    assert not system.files
    wrapped.sat_xdma_close(ctypes.byref(state))


def test_the_selftest_passes_through_xdma(xdma, system):
    passes(CDriver(xdma))
    assert xdma.state.events >= 0
    system.largest = 1000
    passes(Driver(xdma))


def test_signals_and_short_transfers(xdma, system):
    system.largest = 77
    content = np.random.default_rng(default_seed()).integers(0, 256, 1000, np.uint8)
    interrupted = [errno.EINTR, 0, 0, errno.EINTR, errno.EINTR, 0]
    system.errors = {
        name: list(interrupted)
        for name in ("pwrite h2c_0", "pread c2h_0", "pread user", "pwrite user")
    }
    xdma.write_memory(123, content)
    np.testing.assert_array_equal(xdma.read_memory(123, 1000), content)
    for value in range(4):
        xdma.write_register(REGISTERS["PROGRAM_LOW"].offset, value)
        assert xdma.read_register(REGISTERS["PROGRAM_LOW"].offset) == value
    # A signal that ends the wait for an event, or the reading of one, is none.
    system.errors = {"poll events_0": [errno.EINTR] * 3, "read events_0": [errno.EINTR]}
    start = time.monotonic()
    assert not xdma.wait_interrupt(50)
    system.event = 1
    assert not xdma.wait_interrupt(50)
    # The driver counts whole milliseconds, so that a wait may end by up to one too early.
    assert 0.098 <= time.monotonic() - start < 2 and xdma.state.events >= 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ENODEV])
def test_errors_of_the_system_are_told(xdma, system, number):
    for name, access in (
        ("pread user", lambda: xdma.read_register(0)),
        ("pwrite user", lambda: xdma.write_register(0, 0)),
        ("pread c2h_0", lambda: xdma.read_memory(0, 64)),
        ("pwrite h2c_0", lambda: xdma.write_memory(0, np.zeros(64, np.uint8))),
    ):
        system.errors = {name: [number]}
        with pytest.raises(CardError, match="the card can't be reached"):
            access()
        access()
    system.errors = {"poll events_0": [number]}
    with pytest.raises(CardError, match="waiting for the interrupt failed"):
        xdma.wait_interrupt(10)
    system.largest = 0
    with pytest.raises(CardError, match="the card can't be reached"):
        xdma.read_memory(0, 64)


def test_a_lost_interrupt_is_noticed(xdma, system, behind):
    """The wait ends all the same, and from then on registers are polled."""
    driver = CDriver(xdma)
    system.lose_events = True
    levels = iter([False])
    read, status = behind.read_register, REGISTERS["INTERRUPT_STATUS"].offset
    behind.read_register = lambda offset: (
        0 if offset == status and next(levels, None) is not None else read(offset)
    )
    start = time.monotonic()
    driver.run(Program(TINY))
    assert time.monotonic() - start < 2 and xdma.state.events == -1
    start = time.monotonic()
    driver.run(Program(TINY))
    assert time.monotonic() - start < 0.3
    xdma.write_register(status, 3)
    assert not xdma.wait_interrupt(20)


@pytest.mark.parametrize("device", ["user", "h2c_0", "c2h_0"])
def test_devices_that_cannot_be_opened(wrapped, system, device):
    system.errors = {f"open {device}": [errno.EACCES]}
    transport, state = Transport(), Xdma()
    ctypes.set_errno(0)
    assert wrapped.sat_xdma_open(ctypes.byref(transport), ctypes.byref(state), 0) == -1
    assert not system.files


def test_a_board_without_events_is_polled(wrapped, system):
    system.errors = {"open events_0": [errno.ENOENT]}
    transport, state = Transport(), Xdma()
    assert wrapped.sat_xdma_open(ctypes.byref(transport), ctypes.byref(state), 0) == 0
    assert state.events == -1
    card = CompiledCard(TINY, wrapped, transport)
    CDriver(card).run(Program(TINY))
    wrapped.sat_xdma_close(ctypes.byref(state))
