"""The Verilated card as a Python object."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config

from .build import build_library

__all__ = ["Direction", "MemoryTiming", "RegisterTimeout", "VerilatedModel"]


class RegisterTimeout(RuntimeError):
    """The register port didn't answer."""


class Direction(enum.IntEnum):
    """Kind of memory access that an injected error answers."""

    READ = 0
    WRITE = 1


@dataclass(frozen=True)
class MemoryTiming:
    """How the modelled memory behaves, or one channel of it.

    Memory striped over several channels has this timing in each of them: its bandwidth is
    ``bandwidth`` times the channels, of which the core takes one beat a cycle each way at most.

    Parameters
    ----------
    latency
        Cycles from an address to its first beat, and from a burst's last beat to its response.
    bandwidth
        Beats in a cycle from and to one channel, reads and writes together; 0 to 2, in steps of
        1/1024.
    stall
        Probability that AR, R, AW, W or B of a channel pauses in a cycle.
    silent
        No answer ever.
    seed
        Of the random pauses.
    """

    latency: int = 32
    bandwidth: float = 1.0
    stall: float = 0.0
    silent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("latency", self.latency, 0, 1 << 31),
            ("bandwidth", self.bandwidth, 1 / 1024, 2),
            ("stall", self.stall, 0, 0.99),
        ):
            if not low <= value <= high:
                raise ValueError(f"memory timing: {name} is {value}, must be {low} to {high}")


class _Timing(ctypes.Structure):
    """``sat_timing`` of the harness."""

    _fields_ = (
        ("latency", ctypes.c_uint32),
        ("bandwidth", ctypes.c_uint32),
        ("stall", ctypes.c_uint32),
        ("silent", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
    )


class VerilatedModel:
    """The gateware, Verilated, with its memory.

    Parameters
    ----------
    config
        Configuration to elaborate.
    timing
        The memory's behaviour.
    trace
        File to record a waveform in (FST).

    Attributes
    ----------
    config
        The configuration.
    memory
        The card's memory, shared with the simulation.
    """

    def __init__(
        self,
        config: Config,
        *,
        timing: MemoryTiming | None = None,
        trace: Path | None = None,
    ) -> None:
        self.config = config
        self._library = ctypes.CDLL(str(build_library(config, trace=trace is not None).resolve()))
        self._declare()
        if trace is not None:
            trace.parent.mkdir(parents=True, exist_ok=True)
        self._card: int | None = self._library.sat_create(
            config.memory_bytes, str(trace).encode() if trace else None
        )
        if not self._card:
            raise MemoryError(f"no room for a card memory of {config.memory_bytes} bytes")
        self.memory: NDArray[np.uint8] = np.ctypeslib.as_array(
            self._library.sat_memory(self._card), (config.memory_bytes,)
        )
        self.set_timing(timing or MemoryTiming())

    def _declare(self) -> None:
        """Tell ctypes the harness's functions."""
        card = ctypes.c_void_p
        u32, u64 = ctypes.c_uint32, ctypes.c_uint64
        for name, result, arguments in (
            ("create", card, [u64, ctypes.c_char_p]),
            ("destroy", None, [card]),
            ("stop_trace", None, [card]),
            ("memory", ctypes.POINTER(ctypes.c_uint8), [card]),
            ("cycles", u64, [card]),
            ("set_timing", None, [card, u32, ctypes.POINTER(_Timing)]),
            ("inject", None, [card, u64, u64, u32, ctypes.c_uint8]),
            ("clear_injections", None, [card]),
            ("read_register", ctypes.c_int, [card, u32, ctypes.POINTER(u32)]),
            ("write_register", ctypes.c_int, [card, u32, u32]),
            ("wait_interrupt", ctypes.c_int, [card, u64]),
        ):
            function = getattr(self._library, f"sat_{name}")
            function.restype, function.argtypes = result, arguments

    @property
    def cycles(self) -> int:
        """Clock cycles since the card was made."""
        return int(self._library.sat_cycles(self._card))

    def set_timing(self, timing: MemoryTiming, channel: int | None = None) -> None:
        """Change how the memory behaves from now on, in all channels or in one of them."""
        values = dataclasses.asdict(timing) | {
            "bandwidth": round(timing.bandwidth * 1024),
            "stall": round(timing.stall * 65536),
        }
        channels = range(self.config.channels)
        for number in channels if channel is None else (channels[channel],):
            self._library.sat_set_timing(self._card, number, _Timing(**values))

    def inject_error(
        self, address: int, size: int, direction: Direction, response: int = 2
    ) -> None:
        """Answer accesses to these bytes with `response` (SLVERR) until `clear_errors`."""
        self._library.sat_inject(self._card, address, address + size - 1, direction, response)

    def clear_errors(self) -> None:
        """Answer all accesses properly again."""
        self._library.sat_clear_injections(self._card)

    def read_register(self, offset: int) -> int:
        """Return the register at `offset`."""
        value = ctypes.c_uint32()
        if not self._library.sat_read_register(self._card, offset, value):
            raise RegisterTimeout(f"reading register {offset:#05x} got no answer")
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        """Write the register at `offset`."""
        if not self._library.sat_write_register(self._card, offset, value):
            raise RegisterTimeout(f"writing register {offset:#05x} got no answer")

    def wait_interrupt(self, cycles: int) -> bool:
        """Run until the interrupt is high, `cycles` at most; return whether it is."""
        return bool(self._library.sat_wait_interrupt(self._card, cycles))

    def stop_trace(self) -> None:
        """End the waveform, if one is recorded."""
        self._library.sat_stop_trace(self._card)

    def close(self) -> None:
        """End the simulation (and its waveform); `memory` must not be used any more."""
        if self._card:
            self.memory = np.empty(0, np.uint8)
            self._library.sat_destroy(self._card)
            self._card = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
