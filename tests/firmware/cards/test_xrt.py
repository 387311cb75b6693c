"""The XRT card on a stand-in for XRT's C++ interface, against which its library is built."""

import ctypes
import dataclasses
import errno
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.cards.golden import GoldenCard
from firmware.cards.xrt import XrtCard
from firmware.driver import Driver
from firmware.errors import CardError
from firmware.selftest import SelfTest
from rtl.config import PAGE_BYTES, PRESETS
from rtl.headers import describe
from rtl.interface.register_map import memory_base_registers
from tests.harness import default_seed

STANDIN = Path(__file__).with_name("xrt_standin")
STRIPED = dataclasses.replace(PRESETS["tiny"], name="striped", channels=2)
BASES = memory_base_registers(STRIPED.channels)
CHANNEL_BYTES = STRIPED.memory_bytes // 2

Read = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
Write = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)
Move = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64
)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """XRT's directory, as its setup.sh names it."""
    root = tmp_path_factory.mktemp("xrt")
    (root / "include").symlink_to(STANDIN / "include")
    (root / "lib").mkdir()
    library = root / "lib" / "libxrt_coreutil.so"
    subprocess.run(
        [
            "g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
            f"-I{STANDIN / 'include'}", str(STANDIN / "standin.cpp"), "-o", str(library),
        ],
        check=True,
    )  # fmt: skip
    return root, ctypes.CDLL(str(library))


class Board:
    """A relocatable accelerator and its memory banks, which the golden model stands for."""

    def __init__(self, library, config=STRIPED):
        self.card = GoldenCard(config)
        self.bases = dict.fromkeys((register.offset for register in BASES.values()), 0)
        self.library = library
        self.callbacks = (Read(self.read), Write(self.write), Move(self.move))
        self.transfers = []
        self.attach()

    def attach(self, channels=2, bank_bytes=CHANNEL_BYTES, error=0):
        self.library.standin_attach(
            *self.callbacks, channels, ctypes.c_uint64(bank_bytes), ctypes.c_int(error)
        )

    def read(self, offset):
        return self.bases[offset] if offset in self.bases else self.card.read_register(offset)

    def write(self, offset, value):
        if offset in self.bases:
            self.bases[offset] = value
        else:
            self.card.write_register(offset, value)

    def move(self, write, bank, address, data, size):
        """Move memory of a bank, which is the card's every second page."""
        self.transfers.append((bank, size))
        low, high = (
            self.bases[BASES[f"MEMORY_BASE_{bank}_{half}"].offset] for half in ("LOW", "HIGH")
        )
        local = address - (low | high << 32)
        assert local % PAGE_BYTES == 0 and size % PAGE_BYTES == 0
        for start in range(0, size, PAGE_BYTES):
            place = ((local + start) // PAGE_BYTES * 2 + bank) * PAGE_BYTES
            page = (ctypes.c_uint8 * PAGE_BYTES).from_address(data + start)
            if write:
                self.card.write_memory(place, np.frombuffer(page, np.uint8))
            else:
                page[:] = self.card.read_memory(place, PAGE_BYTES).tobytes()


@pytest.fixture
def board(runtime, monkeypatch):
    root, library = runtime
    monkeypatch.setenv("XILINX_XRT", str(root))
    yield Board(library)
    # Whatever happened, the kernel and all buffers were given back.
    assert library.standin_used() == 0


@pytest.fixture
def files(tmp_path):
    """An xclbin and the description of its configuration."""
    image, description = tmp_path / "sat.xclbin", tmp_path / "sat.json"
    image.write_text("xclbin2 and more")
    description.write_text(json.dumps(describe(STRIPED)))
    return image, description


def test_the_selftest_passes(board, files):
    image, description = files
    with open_card(f"xrt:0:{image}", description=description) as card:
        assert card.config == STRIPED and card.memory_bytes == STRIPED.memory_bytes
        checks = list(SelfTest(Driver(card)).run())
        assert len(checks) == 15 and all(check.passed for check in checks), checks
        assert card.remarks() == []


def test_memory_is_striped_like_the_accelerators(board, files):
    """Any range arrives where programs find it, with one transfer for each channel."""
    image, description = files
    random = np.random.default_rng(default_seed())
    with XrtCard(0, image, description=description) as card:
        whole = random.integers(0, 256, 10 * PAGE_BYTES, np.uint8)
        board.transfers.clear()
        card.write_memory(3 * PAGE_BYTES, whole)
        assert sorted(board.transfers) == [(0, 5 * PAGE_BYTES), (1, 5 * PAGE_BYTES)]
        expected = board.card.read_memory(0, 16 * PAGE_BYTES)
        np.testing.assert_array_equal(expected[3 * PAGE_BYTES :][: whole.size], whole)
        for _ in range(50):
            start, size = (int(x) for x in random.integers(0, 8 * PAGE_BYTES, 2))
            content = random.integers(0, 256, size, np.uint8)
            card.write_memory(start, content)
            expected[start : start + size] = content
            np.testing.assert_array_equal(board.card.read_memory(0, expected.size), expected)
            start, size = (int(x) for x in random.integers(0, 8 * PAGE_BYTES, 2))
            found = card.read_memory(start, size)
            np.testing.assert_array_equal(found, expected[start : start + size])


def test_as_much_memory_as_is_free(board, files):
    """Half of the banks is taken by others: the card is half as large, and says so."""
    image, description = files
    board.attach(bank_bytes=CHANNEL_BYTES * 3 // 4)
    with XrtCard(0, image, description=description) as card:
        assert card.memory_bytes == STRIPED.memory_bytes // 2
        [remark] = card.remarks()
        assert remark.startswith("524,288 bytes of memory were free, of 1,048,576")
        driver = Driver(card)
        assert driver.memory.free_bytes == card.memory_bytes
        with pytest.raises(CardError, match="outside the card's memory of 524288 bytes"):
            card.read_memory(card.memory_bytes, 1)
        assert all(check.passed for check in SelfTest(driver).run())
    board.attach(bank_bytes=1024)
    with pytest.raises(CardError, match="xrt:0: XRT, allocate: std::bad_alloc"):
        XrtCard(0, image, description=description)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "XRT, open: failed to open device: Permission denied"),
        (errno.ENODEV, "XRT, open: failed to open device: No such device"),
    ],
)
def test_devices_that_cannot_be_opened(board, files, number, message):
    board.attach(error=number)
    with pytest.raises(CardError, match=message):
        XrtCard(0, files[0])


def test_what_else_can_be_wrong(board, files, tmp_path, monkeypatch):
    image, description = files
    with pytest.raises(CardError, match="Could not open device with index '3'"):
        XrtCard(3, image)
    with pytest.raises(CardError, match=r"there is no file '.*other\.xclbin'"):
        XrtCard(0, tmp_path / "other.xclbin")
    (tmp_path / "text.xclbin").write_text("no xclbin")
    with pytest.raises(CardError, match="Invalid xclbin file"):
        XrtCard(0, tmp_path / "text.xclbin")
    with pytest.raises(CardError, match=r"CONFIG_HASH is .*, known are tiny .*needs the JSON file"):
        XrtCard(0, image)
    board.attach(channels=1)
    with pytest.raises(CardError, match="connects 1 channels to memory, configuration 'striped'"):
        XrtCard(0, image, description=description)
    board.attach()
    with XrtCard(0, image, description=description) as card:
        with pytest.raises(CardError, match="failed to open cu context: Device or resource busy"):
            XrtCard(0, image, description=description)
        with pytest.raises(CardError, match="read register: Cannot read or write outside ip"):
            card.read_register(0x1000)
    with pytest.raises(CardError, match="the card is closed"):
        card.read_register(0)
    for name in ("xrt:0", "xrt:0:", "xrt:first:file"):
        with pytest.raises(CardError, match=rf"no card '{name}'; such a name is xrt:NUMBER:FILE"):
            open_card(name)
    monkeypatch.setenv("XILINX_XRT", str(tmp_path))
    with pytest.raises(CardError, match="install XRT with its development files"):
        XrtCard(0, image)


def test_a_library_that_does_not_build_says_why(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XILINX_XRT", str(tmp_path))
    (tmp_path / "include" / "xrt").mkdir(parents=True)
    (tmp_path / "include" / "xrt" / "xrt_device.h").write_text("#error too old\n")
    with pytest.raises(CardError, match=r"building with XRT in .* failed:\n.*xrt_bo\.h"):
        XrtCard(0, files[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["config"].pop("rows"), "KeyError: 'rows'"),
        (lambda card: card["config"].update(rows=3), "rows is 3, must be a power of two"),
        (lambda card: card["config"].update(s_depth=512), "says hash .*, its configuration has"),
    ],
)
def test_descriptions_that_are_none(files, board, change, message):
    image, description = files
    card = describe(STRIPED)
    change(card)
    description.write_text(json.dumps(card))
    with pytest.raises(CardError, match=message):
        XrtCard(0, image, description=description)
    description.unlink()
    with pytest.raises(CardError, match=r"cannot read .*No such file"):
        XrtCard(0, image, description=description)
