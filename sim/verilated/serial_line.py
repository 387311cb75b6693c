"""The gateware of a board with a serial bridge, simulated with its line bit by bit."""

from __future__ import annotations

import ctypes

from rtl.config import Config

from .build import build_serial_library

__all__ = ["BAUD", "CLOCK_HERTZ", "CYCLES_PER_BIT", "SimulatedLine"]

CLOCK_HERTZ = 40_000_000
"""As on the ULX3S."""

CYCLES_PER_BIT = 4
"""The quickest that the bridge can; on the board a bit takes 13 1/3 cycles."""

BAUD = CLOCK_HERTZ // CYCLES_PER_BIT

_SLICE = 1 << 17
"""Cycles between two chances for an interrupt from the keyboard."""


class SimulatedLine:
    """The host's end of a simulated line, with a time of its own; a `firmware.cards.serial.Line`.

    The gateware is that of the board, but for the rate of the line. Its clock runs while the line
    is read.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Raises
    ------
    sim.verilated.build.BuildError
        The simulation can't be built.
    """

    def __init__(self, config: Config) -> None:
        self._library = library = ctypes.CDLL(str(build_serial_library(config, CLOCK_HERTZ, BAUD)))
        library.line_create.restype = ctypes.c_void_p
        library.line_create.argtypes = [ctypes.c_uint32]
        library.line_destroy.argtypes = [ctypes.c_void_p]
        library.line_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.line_read.restype = ctypes.c_size_t
        library.line_read.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64,
        ]  # fmt: skip
        for name in ("line_cycles", "line_broken"):
            getattr(library, name).restype = ctypes.c_uint64
            getattr(library, name).argtypes = [ctypes.c_void_p]
        self._line: int | None = library.line_create(CYCLES_PER_BIT)

    def write(self, content: bytes) -> None:
        """Send bytes; they travel while the line is read."""
        self._library.line_write(self._line, content, len(content))

    def read(self, limit: int, timeout: float) -> bytes:
        """Return the bytes received, `limit` at most; waits `timeout` seconds for the first."""
        received = ctypes.create_string_buffer(limit)
        left = max(1, round(timeout * CLOCK_HERTZ))
        while left > 0:
            cycles = min(left, _SLICE)
            count = self._library.line_read(self._line, received, limit, cycles)
            if count:
                return received.raw[:count]
            left -= cycles
        return b""

    def now(self) -> float:
        """Return the simulated time in seconds."""
        return self.cycles / CLOCK_HERTZ

    def close(self) -> None:
        """End the simulation; calling it twice is harmless."""
        if self._line is not None:
            self._library.line_destroy(self._line)
            self._line = None

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return int(self._library.line_cycles(self._line))

    @property
    def broken(self) -> int:
        """Characters without start or stop bit that came from the gateware."""
        return int(self._library.line_broken(self._line))
