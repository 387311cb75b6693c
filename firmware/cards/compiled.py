"""Cards behind the C driver of firmware/c, for which its transports stand."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from rtl.headers import c_header
from rtl.systemrdl import register_header
from sim.cache import digest, locked
from sim.verilated.build import build_library as build_verilated

from ..errors import CardError
from .base import Card

__all__ = ["CompiledCard", "CompiledVerilatedCard", "Transport", "build_driver"]

SOURCES = Path(__file__).parents[1] / "c"
"""Where the C driver is."""

DRIVER = ("sat.c", "sat_verilated.c", "sat_xdma.c")
"""What it's made of."""

C_OPTIONS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2")

_CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "c"

_Context, _Pointer = ctypes.c_void_p, ctypes.c_void_p
_U32, _U64, _Size = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t


class Transport(ctypes.Structure):
    """``struct sat_transport``."""

    ReadRegister = ctypes.CFUNCTYPE(ctypes.c_int, _Context, _U32, ctypes.POINTER(_U32))
    WriteRegister = ctypes.CFUNCTYPE(ctypes.c_int, _Context, _U32, _U32)
    MoveMemory = ctypes.CFUNCTYPE(ctypes.c_int, _Context, _U64, _Pointer, _Size)
    WaitInterrupt = ctypes.CFUNCTYPE(ctypes.c_int, _Context, _U64, ctypes.POINTER(ctypes.c_int))

    _fields_: ClassVar = [
        ("context", _Context),
        ("read_register", ReadRegister),
        ("write_register", WriteRegister),
        ("read_memory", MoveMemory),
        ("write_memory", MoveMemory),
        ("wait_interrupt", WaitInterrupt),
    ]


class _CCard(ctypes.Structure):
    """``struct sat_card``."""

    _fields_: ClassVar = [("transport", Transport), ("memory_bytes", _U64)]


def build_driver(config: Config, options: tuple[str, ...] = ()) -> Path:
    """Return the C driver as a shared library, building it if it isn't cached.

    Parameters
    ----------
    config
        Configuration whose headers it is built with; they are beside the library.
    options
        Further options of the compiler.

    Raises
    ------
    CardError
        There is no C compiler, or it fails.
    """
    headers = {
        f"sat_{config.name}.h": c_header(config),
        "sat_registers.h": register_header(config),
    }
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CardError("a C compiler (cc or gcc) isn't installed, which builds the C driver")
    texts = [source.read_text() for source in sorted(SOURCES.iterdir())]
    folder = _CACHE / digest([texts, headers, C_OPTIONS, options])
    library = folder / "libsat_c.so"
    with locked(folder):
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in headers.items():
                (folder / name).write_text(text)
            command = [
                compiler, *C_OPTIONS, *options, "-fPIC", "-shared", f"-I{folder}",
                *(str(SOURCES / name) for name in DRIVER), "-o", str(folder / "partial.so"), "-ldl",
            ]  # fmt: skip
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise CardError(f"building the C driver failed:\n{run.stderr[-2000:]}")
            (folder / "partial.so").rename(library)
    return library


class CompiledCard(Card):
    """A card that the C driver reaches through a transport.

    Parameters
    ----------
    config
        Its configuration.
    library
        The C driver, from `build_driver`.
    transport
        How it is reached; in the unit of time of which the card's time-outs are.

    Attributes
    ----------
    library, handle
        The C driver and its ``struct sat_card``, for what isn't a card's business.

    Raises
    ------
    CardError
        The driver refuses the card; the message has its words.
    """

    def __init__(self, config: Config, library: ctypes.CDLL, transport: Transport) -> None:
        self.config = config
        self.library = library
        self.handle = ctypes.pointer(_CCard())
        # Its functions may be Python's, which the driver's copy doesn't keep alive.
        self._transport = transport
        library.sat_status_text.restype = ctypes.c_char_p
        handle = ctypes.POINTER(_CCard)
        for name, arguments in (
            ("open", [handle, ctypes.POINTER(Transport), _U32, _U64]),
            ("read_register", [handle, _U32, ctypes.POINTER(_U32)]),
            ("write_register", [handle, _U32, _U32]),
            ("read_memory", [handle, _U64, _Pointer, _Size]),
            ("write_memory", [handle, _U64, _Pointer, _Size]),
        ):
            getattr(library, f"sat_card_{name}").argtypes = arguments
        self._call("open", ctypes.byref(transport), config.hash, config.memory_bytes)

    def read_register(self, offset: int) -> int:
        value = _U32()
        self._call("read_register", offset, ctypes.byref(value))
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        self._call("write_register", offset, value)

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        content = np.empty(size, np.uint8)
        self._call("read_memory", address, content.ctypes.data, size)
        return content

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        content = np.ascontiguousarray(data)
        self._call("write_memory", address, content.ctypes.data, content.size)

    def wait_interrupt(self, timeout: float) -> bool:
        transport, high = self.handle.contents.transport, ctypes.c_int()
        if transport.wait_interrupt(transport.context, int(timeout), ctypes.byref(high)):
            raise CardError("C driver: waiting for the interrupt failed")
        return bool(high.value)

    def close(self) -> None:
        """The transport belongs to who made it."""

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self.library, f"sat_card_{name}")(self.handle, *arguments)
        if status:
            words = self.library.sat_status_text(status).decode()
            raise CardError(f"C driver, {name.replace('_', ' ')}: {words}")


class CompiledVerilatedCard(CompiledCard):
    """The simulated card behind the C driver and its transport.

    Parameters
    ----------
    config
        Configuration that is elaborated.

    Raises
    ------
    CardError
        Something can't be built or loaded.
    """

    timeout_unit = "cycles"
    default_timeout = 20_000_000.0

    def __init__(self, config: Config) -> None:
        library = ctypes.CDLL(str(build_driver(config).resolve()))
        transport = Transport()
        reason = ctypes.c_char_p()
        place = os.fsencode(build_verilated(config).resolve())
        if library.sat_verilated_open(
            ctypes.byref(transport), place, _U64(config.memory_bytes), ctypes.byref(reason)
        ):
            raise CardError(f"C driver: {(reason.value or b'').decode()}")
        try:
            super().__init__(config, library, transport)
        except BaseException:
            library.sat_verilated_close(ctypes.byref(transport))
            raise

    def close(self) -> None:
        if self._transport.context:
            self.library.sat_verilated_close(ctypes.byref(self._transport))
