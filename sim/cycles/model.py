"""The cycle model as a Python function."""

from __future__ import annotations

import ctypes
import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtl.config import COMMAND_BYTES, Config
from rtl.control.commands import Stage
from rtl.interface.register_map import COUNTERS

from ..verilated.model import MemoryTiming
from .build import build_library
from .gateware import Parameters, Timing, parameters, timing_of

__all__ = ["Measurement", "Outcome", "measure"]

_UNLIMITED = 1 << 62


class Outcome(enum.IntEnum):
    """How a program ended."""

    FINISHED = 0
    HANGS = 1
    """Nothing will ever happen again: queues wait for tokens or beats that nobody gives."""
    TIMED_OUT = 2


@dataclass(frozen=True)
class Measurement:
    """What a program does on a card.

    Parameters
    ----------
    outcome
        How it ended.
    counters
        By how much it raises each of the card's counters. ``NONFINITE``, which alone depends on
        values, is 0.
    issued, ended
        For each command but FINISH the cycle of the program in which its unit took it, and that in
        which it ended; -1 if it never did.
    stage
        Stage to which cycles are attributed from here on until a command is under way.
    """

    outcome: Outcome
    counters: Mapping[str, int]
    issued: NDArray[np.int64]
    ended: NDArray[np.int64]
    stage: Stage

    @property
    def cycles(self) -> int:
        """Cycles that it takes."""
        return self.counters["CYCLES"]


def measure(
    config: Config,
    timing: MemoryTiming,
    program: bytes,
    *,
    address: int = 0,
    stage: Stage = Stage.FF,
    limit: int | None = None,
) -> Measurement:
    """Return how long a program takes, and where the time goes.

    Each program begins on an idle card, whose memory has all the credit that its harness grants.
    No time depends on values, of which there are none here. Nor are there scratchpads: a command
    that reaches beyond one, at which a card would stop, takes its time.

    Parameters
    ----------
    config, timing
        The card, and the memory that each of its channels has; without random pauses.
    program
        Its commands as they lie in memory, with the FINISH that ends them.
    address
        Where it lies there, which decides from which channel it is read.
    stage
        To which cycles are attributed before the first command is under way.
    limit
        Cycles after which to give up.

    Raises
    ------
    ValueError
        `timing` asks for what isn't modelled, or a command of `program` is malformed.
    BuildError
        The model couldn't be compiled.
    """
    memory, made = timing_of(timing), parameters(config)
    count, rest = divmod(len(program), COMMAND_BYTES)
    if rest or not count:
        raise ValueError(
            f"a program is whole commands of {COMMAND_BYTES} bytes, got {len(program)}"
        )
    library = _library()
    index = library.sat_cycles_check(made, program, count)
    if index < count:
        raise ValueError(
            f"command {index} of {count} has no meaning on configuration '{config.name}', or isn't "
            "the FINISH that ends a program; the golden card names the fault"
        )
    counters = np.zeros(len(COUNTERS), np.int64)
    issued, ended = (np.full(count - 1, -1, np.int64) for _ in range(2))
    last_stage = ctypes.c_int64(stage.value)
    outcome = library.sat_cycles_run(
        made,
        memory,
        program,
        address,
        count,
        _UNLIMITED if limit is None else limit,
        counters.ctypes.data,
        issued.ctypes.data,
        ended.ctypes.data,
        last_stage,
    )
    values = {counter.name: int(value) for counter, value in zip(COUNTERS, counters, strict=True)}
    return Measurement(Outcome(outcome), values, issued, ended, Stage(last_stage.value))


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build_library().resolve()))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.sat_cycles_check.restype = number
    library.sat_cycles_check.argtypes = [ctypes.POINTER(Parameters), ctypes.c_char_p, number]
    library.sat_cycles_run.restype = ctypes.c_int
    library.sat_cycles_run.argtypes = [
        ctypes.POINTER(Parameters), ctypes.POINTER(Timing), ctypes.c_char_p,
        number, number, number, pointer, pointer, pointer, ctypes.POINTER(number),
    ]  # fmt: skip
    return library
