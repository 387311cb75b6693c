"""The register map: one table for gateware, Python driver, C header and documentation.

Offsets 0x000 to 0x00C follow the control protocol of Vitis RTL kernels.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from ..control.commands import Fault, Stage

__all__ = [
    "COUNTERS",
    "IDENTITY",
    "REGISTERS",
    "VERSION",
    "Access",
    "Control",
    "GlobalInterrupt",
    "Interrupt",
    "Register",
    "memory_base_registers",
]

IDENTITY = 0x5341_5431
"""ASCII "SAT1"."""

VERSION = 0x0000_0300
"""0.3.0: major, minor, patch in a byte each."""


class Access(enum.Enum):
    """Who may change a register."""

    READ_ONLY = "ro"
    READ_WRITE = "rw"
    WRITE_ONE_TO_CLEAR = "w1c"
    CONTROL = "control"
    """Some bits start an action when written 1, others are status."""


class Control(enum.IntFlag):
    """Bits of ``CONTROL``."""

    START = 1 << 0
    """Written 1: run the program. Reads 1 until it has ended."""
    DONE = 1 << 1
    """The last program reached its FINISH; cleared by START."""
    IDLE = 1 << 2
    """No program runs."""
    FAULT = 1 << 3
    """The last program stopped at a fault; only a soft reset leaves this state."""
    SOFT_RESET = 1 << 8
    """Written 1: abandon the program, let memory transfers end, reset. Reads 1 until it's done."""


class GlobalInterrupt(enum.IntFlag):
    """Bits of ``GLOBAL_INTERRUPT_ENABLE``."""

    ENABLE = 1 << 0
    """The interrupt line is high while an enabled cause is met."""


class Interrupt(enum.IntFlag):
    """Bits of ``INTERRUPT_ENABLE`` and ``INTERRUPT_STATUS``."""

    DONE = 1 << 0
    """A program reached its FINISH."""
    FAULT = 1 << 1
    """A program stopped at a fault."""


@dataclass(frozen=True)
class Register:
    """One 32-bit register.

    Attributes
    ----------
    name, offset, access, doc
        What it is.
    content
        Its bits, each a member, or the codes of its lowest bits; None if it is one number.
    reset
        What it reads after a reset; ``CONFIG_HASH`` is the configuration's.
    """

    name: str
    offset: int
    access: Access
    doc: str
    content: type[enum.IntFlag] | type[Fault] | None = None
    reset: int = 0


@dataclass(frozen=True)
class Counter:
    """One 64-bit counter; takes two registers, low word first. Cleared by a soft reset only."""

    name: str
    doc: str


STAGE_NAMES = tuple(stage.name for stage in Stage)

COUNTERS = (
    Counter("CYCLES", "cycles in which a program ran"),
    *(
        Counter(f"CYCLES_{stage}", f"of these, cycles attributed to {stage}")
        for stage in STAGE_NAMES
    ),
    *(
        Counter(f"MAC_SLOTS_{stage}", f"cycles in which the array took operands for {stage}")
        for stage in STAGE_NAMES
    ),
    Counter("LOST_FILL", "cycles without operands between products, or before results are there"),
    Counter("LOST_DRAIN", "cycles without operands until sums have left the accumulators"),
    Counter("LOST_OPERAND", "cycles without operands as no product was ready to be computed"),
    Counter("USEFUL_MACS", "products added that belong to a result"),
    Counter("EDGE_MACS", "products added that pad a tile or a reduction"),
    Counter("FILLER_MACS", "products left out as a pattern is sparser than the array's ratio"),
    Counter("LOAD_BUSY", "cycles in which the load queue carried out a command"),
    Counter("COMPUTE_BUSY", "cycles in which the compute queue carried out a command"),
    Counter("STORE_BUSY", "cycles in which the store queue carried out a command"),
    Counter("VECTOR_BUSY", "cycles in which the vector queue carried out a command"),
    Counter("STREAM_BUSY", "cycles in which the stream queue carried out a command"),
    Counter("LOAD_WAIT", "cycles in which the load queue's next command waited for a token"),
    Counter("COMPUTE_WAIT", "cycles in which the compute queue's next command waited for a token"),
    Counter("STORE_WAIT", "cycles in which the store queue's next command waited for a token"),
    Counter("VECTOR_WAIT", "cycles in which the vector queue's next command waited for a token"),
    Counter("STREAM_WAIT", "cycles in which the stream queue's next command waited for a token"),
    Counter("READ_BEATS", "AXI read data beats"),
    Counter("WRITE_BEATS", "AXI write data beats"),
    Counter("COMMANDS", "commands carried out"),
    Counter("NONFINITE", "infinities and NaNs among what STORE (before pruning) and VECTOR wrote"),
)

_CONTROL_REGISTERS = (
    Register(
        "CONTROL", 0x000, Access.CONTROL, "start, status and soft reset",
        Control, Control.IDLE,
    ),
    Register(
        "GLOBAL_INTERRUPT_ENABLE", 0x004, Access.READ_WRITE, "enables the interrupt line",
        GlobalInterrupt,
    ),
    Register(
        "INTERRUPT_ENABLE", 0x008, Access.READ_WRITE, "causes that raise it",
        Interrupt,
    ),
    Register(
        "INTERRUPT_STATUS", 0x00C, Access.WRITE_ONE_TO_CLEAR, "causes met",
        Interrupt,
    ),
    Register("PROGRAM_LOW", 0x010, Access.READ_WRITE, "memory address of the program, low word"),
    Register("PROGRAM_HIGH", 0x014, Access.READ_WRITE, "memory address of the program, high word"),
    Register("PROGRAM_COMMANDS", 0x018, Access.READ_WRITE, "commands in the program"),
    Register("IDENTITY", 0x020, Access.READ_ONLY, "0x53415431, 'SAT1'", reset=IDENTITY),
    Register("VERSION", 0x024, Access.READ_ONLY, "version of the gateware", reset=VERSION),
    Register("CONFIG_HASH", 0x028, Access.READ_ONLY, "hash of the configuration"),
    Register("FAULT_CODE", 0x040, Access.READ_ONLY, "why the program stopped", Fault),
    Register("FAULT_COMMAND", 0x044, Access.READ_ONLY, "index of the command at fault"),
    Register("FAULT_ADDRESS_LOW", 0x048, Access.READ_ONLY, "address at fault, low word"),
    Register("FAULT_ADDRESS_HIGH", 0x04C, Access.READ_ONLY, "address at fault, high word"),
)  # fmt: skip

_COUNTER_BASE = 0x080

REGISTERS: dict[str, Register] = {
    register.name: register
    for register in (
        *_CONTROL_REGISTERS,
        *(
            Register(
                f"{counter.name}_{half}",
                _COUNTER_BASE + 8 * index + 4 * high,
                Access.READ_ONLY,
                f"{counter.doc} ({half.lower()} word)",
            )
            for index, counter in enumerate(COUNTERS)
            for high, half in enumerate(("LOW", "HIGH"))
        ),
    )
}
"""Every register by name."""

_MEMORY_BASE = 0x050


def memory_base_registers(channels: int, bases: Sequence[int] | None = None) -> dict[str, Register]:
    """Return the registers that only an accelerator with `memory_bases` has, by name.

    Two for each channel, low word first, which a runtime takes for one pointer of 64 bits: where
    the channel's memory begins on the bus.

    Parameters
    ----------
    channels
        How many there are.
    bases
        What they hold at power-on, zeros if not given.
    """
    return {
        register.name: register
        for register in (
            Register(
                f"MEMORY_BASE_{channel}_{half}",
                _MEMORY_BASE + 8 * channel + 4 * high,
                Access.READ_WRITE,
                f"bus address of the memory of channel {channel}, {half.lower()} word",
                reset=base >> 32 * high & 0xFFFFFFFF,
            )
            for channel, base in enumerate(bases or [0] * channels)
            for high, half in enumerate(("LOW", "HIGH"))
        )
    }
