"""A board behind PCIe, through AMD's runtime XRT.

The accelerator is a user-managed kernel: XRT gives access to its registers and to buffers in the
board's memory, nothing else is asked of it, and programs are in that memory. Registers are reached
through ``xrt::ip``, which XRT's Python module doesn't have: a small library in C++ (xrt.cpp) is
built the first time, with the headers that XRT brings.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtl.config import PAGE_BYTES
from rtl.interface.register_map import REGISTERS, memory_base_registers
from sim.cache import digest, locked

from ..errors import CardError
from .base import Card
from .identify import identify

__all__ = ["XrtCard", "build_library"]

KERNEL = "sat"
"""Name of the kernel in the xclbin."""

_SOURCE = Path(__file__).with_name("xrt.cpp")
_CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "xrt"

_PLACES = (Path("/opt/xilinx/xrt"), Path("/usr"))
"""Where XRT is if the environment, set up by its setup.sh, doesn't say so."""

_SMALLEST_SHARE = 64
"""Part of the configured memory that a board must have free at least."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 50e-6, 5e-3
"""Seconds between two looks at the registers."""

_Pointer = ctypes.c_void_p
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
_FUNCTIONS = {
    "open": [ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Pointer)],
    "channels": [_Pointer, ctypes.POINTER(_U32)],
    "allocate": [_Pointer, _U64, ctypes.POINTER(_U64)],
    "read_register": [_Pointer, _U32, ctypes.POINTER(_U32)],
    "write_register": [_Pointer, _U32, _U32],
    "read_memory": [_Pointer, _U32, _U64, _Pointer, _U64],
    "write_memory": [_Pointer, _U32, _U64, _Pointer, _U64],
}
"""Arguments of the library's functions."""


def build_library() -> Path:
    """Return the library that speaks to XRT, building it if it isn't cached.

    Raises
    ------
    CardError
        XRT or g++ isn't installed, or the compiler fails.
    """
    named = os.environ.get("XILINX_XRT")
    places = (Path(named),) if named else _PLACES
    for place in places:
        if (place / "include" / "xrt" / "xrt_device.h").exists():
            break
    else:
        raise CardError(
            f"XRT isn't in {' or '.join(map(str, places))}, or its headers aren't: install XRT "
            "with its development files, and source its setup.sh"
        )
    compiler = shutil.which("g++")
    if compiler is None:
        raise CardError("g++ isn't installed, which builds the library that speaks to XRT")
    libraries = next((place / name for name in ("lib", "lib64") if (place / name).is_dir()), place)
    options = [
        "-std=c++17", "-O2", "-fPIC", "-shared", f"-I{place / 'include'}", f"-L{libraries}",
        f"-Wl,-rpath,{libraries}", "-lxrt_coreutil", "-pthread",
    ]  # fmt: skip
    header = (place / "include" / "xrt" / "xrt_device.h").read_text()
    folder = _CACHE / digest([_SOURCE.read_text(), header, options])
    library = folder / "libsat_xrt.so"
    with locked(folder):
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = [compiler, str(_SOURCE), "-o", str(folder / "partial.so"), *options]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise CardError(f"building with XRT in {place} failed:\n{run.stderr[-2000:]}")
            (folder / "partial.so").rename(library)
    return library


class XrtCard(Card):
    """A board with an XRT platform.

    Memory is striped over the channels as the accelerator does it; every access is of whole pages.

    Parameters
    ----------
    number
        Of the board, as ``xbutil examine`` lists them.
    image
        The xclbin, which is loaded if it isn't yet.
    description
        JSON file by ``rtl.build`` if the configuration is no preset.

    Raises
    ------
    CardError
        XRT isn't there, has no such board, can't load the image, or the card isn't known.
    """

    timeout_unit = "seconds"
    default_timeout = 30.0

    def __init__(self, number: int, image: Path, *, description: Path | None = None) -> None:
        self._place = f"xrt:{number}"
        self._board = _Pointer()
        self._channel_bytes = 0
        if not image.is_file():
            raise CardError(f"{self._place}: there is no file '{image}'")
        path = build_library()
        try:
            self._library = ctypes.CDLL(str(path.resolve()))
        except OSError as error:
            raise CardError(f"{self._place}: cannot load the library for XRT: {error}") from None
        self._library.sat_xrt_error.restype = ctypes.c_char_p
        for name, arguments in _FUNCTIONS.items():
            getattr(self._library, f"sat_xrt_{name}").argtypes = arguments
        self._library.sat_xrt_close.argtypes = [_Pointer]
        self._library.sat_xrt_close.restype = None
        self._call("open", number, os.fsencode(image), KERNEL.encode(), ctypes.byref(self._board))
        try:
            self.config = identify(self._place, self.read_register, description)
            self._allocate()
        except BaseException:
            self.close()
            raise

    @property
    def memory_bytes(self) -> int:
        return self._channel_bytes * self.config.channels

    def read_register(self, offset: int) -> int:
        value = _U32()
        self._call("read_register", self._board, offset, ctypes.byref(value))
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        self._call("write_register", self._board, offset, value)

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        start = address % PAGE_BYTES
        return self._read_pages(address // PAGE_BYTES, _pages(start + size))[start : start + size]

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        first, start = divmod(address, PAGE_BYTES)
        count = _pages(start + data.size)
        content = np.empty(count * PAGE_BYTES, np.uint8)
        # What is around the data in its first and last page stays as it is.
        if count and start:
            content[:PAGE_BYTES] = self._read_pages(first, 1)
        if (start + data.size) % PAGE_BYTES:
            content[-PAGE_BYTES:] = self._read_pages(first + count - 1, 1)
        content[start : start + data.size] = data.reshape(-1)
        self._move("write_memory", first, content)

    def wait_interrupt(self, timeout: float) -> bool:
        # XRT gives no interrupts of user-managed kernels to the host (UG1700, Interrupt).
        end, pause = time.monotonic() + timeout, _SHORTEST_PAUSE
        while True:
            enabled, mask, met = (
                self.read_register(REGISTERS[name].offset)
                for name in ("GLOBAL_INTERRUPT_ENABLE", "INTERRUPT_ENABLE", "INTERRUPT_STATUS")
            )
            if enabled & 1 and mask & met:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def remarks(self) -> list[str]:
        if self.memory_bytes == self.config.memory_bytes:
            return []
        return [
            f"{self.memory_bytes:,} bytes of memory were free, of {self.config.memory_bytes:,} "
            "that the accelerator could use"
        ]

    def close(self) -> None:
        if self._board:
            self._library.sat_xrt_close(self._board)
            self._board = _Pointer()

    def _allocate(self) -> None:
        """Take as much of each channel's memory as there is, and say where it is."""
        channels = _U32()
        self._call("channels", self._board, ctypes.byref(channels))
        if channels.value != self.config.channels:
            raise CardError(
                f"{self._place}: the xclbin connects {channels.value} channels to memory, "
                f"configuration '{self.config.name}' has {self.config.channels}"
            )
        addresses = (_U64 * channels.value)()
        size = self.config.memory_bytes // channels.value
        smallest = size // _SMALLEST_SHARE
        while True:
            try:
                self._call("allocate", self._board, size, addresses)
                break
            except CardError:
                size //= 2
                if size < smallest:
                    raise
        self._channel_bytes = size
        registers = memory_base_registers(channels.value)
        for channel, address in enumerate(addresses):
            for half, value in (("LOW", address & 0xFFFFFFFF), ("HIGH", address >> 32)):
                register = registers[f"MEMORY_BASE_{channel}_{half}"]
                self.write_register(register.offset, value)

    def _read_pages(self, first: int, count: int) -> NDArray[np.uint8]:
        content = np.empty(count * PAGE_BYTES, np.uint8)
        self._move("read_memory", first, content)
        return content

    def _move(self, function: str, first: int, content: NDArray[np.uint8]) -> None:
        """Read or write whole pages of the card: one range of each channel."""
        channels = self.config.channels
        pages = content.reshape(-1, PAGE_BYTES)
        for index in range(min(channels, len(pages))):
            number, channel = divmod(first + index, channels)
            stripe = np.ascontiguousarray(pages[index::channels])
            self._call(
                function, self._board, channel, number * PAGE_BYTES, stripe.ctypes.data,
                stripe.nbytes,
            )  # fmt: skip
            if function == "read_memory":
                pages[index::channels] = stripe

    def _call(self, name: str, *arguments: object) -> None:
        if name != "open" and not self._board:
            raise CardError(f"{self._place}: the card is closed")
        if getattr(self._library, f"sat_xrt_{name}")(*arguments):
            reason = self._library.sat_xrt_error().decode(errors="replace")
            raise CardError(f"{self._place}: XRT, {name.replace('_', ' ')}: {reason}")


def _pages(size: int) -> int:
    """Return the pages that hold `size` bytes."""
    return -(-size // PAGE_BYTES)
