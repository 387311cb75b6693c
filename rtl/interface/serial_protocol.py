"""The serial bridge's protocol: one set of constants for its gateware and for the host.

What the frames mean, and why nothing is lost or done twice, is in docs/serial.md.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC

__all__ = [
    "ANSWER_BYTES",
    "ANSWER_START",
    "BAUD",
    "CHECKSUM",
    "CHECKSUM_BYTES",
    "MAX_COUNT",
    "PROTOCOL",
    "REQUEST_BYTES",
    "REQUEST_START",
    "SILENCE_MICROSECONDS",
    "WRITES",
    "AnswerHeader",
    "Command",
    "RequestHeader",
    "Status",
]

PROTOCOL = 1
"""Version of the protocol, the answer to `Command.PING`."""

BAUD = 3_000_000
"""Bits a second where nothing else is agreed; 8 data bits, no parity, one stop bit."""

MAX_COUNT = 1024
"""Most data bytes in a frame."""

SILENCE_MICROSECONDS = 10_000
"""How long the line is silent before a receiver that lost the thread listens for a frame again."""

REQUEST_START = 0xA5
"""First byte of a frame to the card."""

ANSWER_START = 0x5A
"""First byte of a frame to the host."""

CHECKSUM = CRC32_ISO_HDLC
"""CRC-32 of Ethernet and zlib, over header and data without the start byte."""

CHECKSUM_BYTES = 4

WRITES = 1 << 0
"""Bit of a command that tells that its request carries the data; the answer does otherwise."""


class Command(enum.Enum, shape=8):
    """What a request asks for. ``count`` is 1 where nothing else is said."""

    PING = 0x10
    """Read `PROTOCOL`. Always carried out, so that its sequence number starts a conversation."""
    INTERRUPT = 0x20
    """Read the level of the accelerator's interrupt, 0 or 1."""
    READ_REGISTER = 0x30
    """Read the 32-bit register at ``address``, a multiple of 4; ``count`` is 4."""
    WRITE_REGISTER = 0x30 | WRITES
    """Write it."""
    READ_MEMORY = 0x40
    """Read ``count`` bytes of card memory, 1 to `MAX_COUNT`, from byte ``address``."""
    WRITE_MEMORY = 0x40 | WRITES
    """Write them, and no byte beside them."""


class Status(enum.Enum, shape=8):
    """How a request ended."""

    OK = 0
    BAD_REQUEST = 1
    """Command, count or register address isn't one of those above; nothing was done."""
    BUS_ERROR = 2
    """Registers or memory answered SLVERR or DECERR; of a write, a part may have been done."""


class RequestHeader(data.Struct):
    """First bytes of a frame to the card, little-endian."""

    start: unsigned(8)
    """`REQUEST_START`."""
    sequence: unsigned(8)
    """That of the request before plus 1; the same one says that this is a repetition."""
    command: Command
    count: unsigned(16)
    """Bytes of data: in this frame if the command has the bit `WRITES`, else in the answer."""
    address: unsigned(40)


class AnswerHeader(data.Struct):
    """First bytes of a frame to the host, little-endian."""

    start: unsigned(8)
    """`ANSWER_START`."""
    sequence: unsigned(8)
    """That of the request."""
    status: Status
    count: unsigned(16)
    """Bytes of data in this frame: those asked for, or 0 behind a write or with an error."""


REQUEST_BYTES = data.Layout.cast(RequestHeader).size // 8
ANSWER_BYTES = data.Layout.cast(AnswerHeader).size // 8
