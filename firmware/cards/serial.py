"""A card behind the serial bridge; docs/serial.md defines the protocol."""

from __future__ import annotations

import contextlib
import time
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import serial
from amaranth.lib.data import Const, Layout
from numpy.typing import NDArray

from rtl.interface.serial_protocol import (
    ANSWER_BYTES,
    ANSWER_START,
    BAUD,
    CHECKSUM_BYTES,
    MAX_COUNT,
    PROTOCOL,
    REQUEST_START,
    SILENCE_MICROSECONDS,
    WRITES,
    AnswerHeader,
    Command,
    RequestHeader,
    Status,
)

from ..errors import CardError
from .base import Card
from .identify import identify

__all__ = ["Line", "SerialCard", "SerialPort"]

_ATTEMPTS = 10
"""Times that a request is sent before the bridge counts as gone."""

_SILENCE = 2 * SILENCE_MICROSECONDS * 1e-6
"""Seconds without a byte after which the bridge surely listens again."""

_LONGEST_NOISE = 2.0
"""Seconds of noise after which it isn't waited for silence any more."""

_LONGEST_PAUSE = 0.02
"""Seconds between two looks at the interrupt, at most."""


class Line(Protocol):
    """A serial line with its own notion of time, which may be a simulated one."""

    def write(self, content: bytes) -> None:
        """Send bytes."""

    def read(self, limit: int, timeout: float) -> bytes:
        """Return the bytes received, `limit` at most; waits `timeout` seconds for the first."""

    def now(self) -> float:
        """Return a time in seconds; only differences matter."""

    def close(self) -> None:
        """Let the line go; calling it twice is harmless."""


class SerialPort:
    """A serial port of this machine, or what pyserial has an URL for (``socket://host:port``).

    Parameters
    ----------
    name
        Device, such as ``/dev/ttyUSB0``, or URL.
    baud
        Bits a second.

    Raises
    ------
    CardError
        It can't be opened, or, later on, has vanished.
    """

    _SLICE = 0.05
    """Seconds that a read blocks at most, as changing it costs a call of the operating system."""

    def __init__(self, name: str, baud: int = BAUD) -> None:
        self._name = name
        try:
            if "://" in name:
                self._port = serial.serial_for_url(name, baud, timeout=self._SLICE)
            else:
                self._port = serial.Serial(
                    name, baud, timeout=self._SLICE, write_timeout=_LONGEST_NOISE, exclusive=True
                )
        except (serial.SerialException, ValueError) as error:
            raise CardError(f"cannot open serial port '{name}': {error}") from None
        # USB bridges gather what they receive for 16 ms unless told otherwise.
        low_latency = getattr(self._port, "set_low_latency_mode", None)
        if low_latency is not None:
            # Without it the card is slower, but not wrong.
            with contextlib.suppress(ValueError, NotImplementedError):
                low_latency(True)

    def write(self, content: bytes) -> None:
        try:
            self._port.write(content)
        except (serial.SerialException, OSError) as error:
            raise CardError(f"serial port '{self._name}': {error}") from None

    def read(self, limit: int, timeout: float) -> bytes:
        end = time.monotonic() + timeout
        try:
            while True:
                content = self._port.read(max(1, min(limit, self._port.in_waiting)))
                if content or time.monotonic() >= end:
                    return bytes(content)
        except (serial.SerialException, OSError) as error:
            raise CardError(f"serial port '{self._name}': {error}") from None

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        self._port.close()


class SerialCard(Card):
    """A card behind a serial bridge.

    Parameters
    ----------
    line
        Line to the bridge; closed with the card.
    place
        The card's name, for messages.
    baud
        Bits a second, from which follows how long a frame takes.
    answer_timeout
        Seconds from the end of a request to the end of its answer, beside the time on the line.
    description
        JSON file by ``rtl.build`` if the configuration is no preset.

    Attributes
    ----------
    repeated
        Requests sent again so far, as the answer was missing or damaged.

    Raises
    ------
    CardError
        No bridge answers, it speaks another version of the protocol, or the card isn't known.
    """

    timeout_unit = "seconds"
    default_timeout = 60.0

    def __init__(
        self,
        line: Line,
        place: str = "serial",
        *,
        baud: int = BAUD,
        answer_timeout: float = 0.25,
        description: Path | None = None,
    ) -> None:
        self.repeated = 0
        self._line = line
        self._place = place
        self._byte_time = 10 / baud
        self._answer_timeout = answer_timeout
        self._sequence = 0
        self._received = bytearray()
        try:
            self._wait_for_silence()
            [version] = self._exchange(Command.PING, 0, 1)
            if version != PROTOCOL:
                raise CardError(
                    f"{place}: the bridge speaks version {version} of the protocol, this software "
                    f"version {PROTOCOL}"
                )
            self.config = identify(place, self.read_register, description)
        except BaseException:
            line.close()
            raise

    def read_register(self, offset: int) -> int:
        return int.from_bytes(self._exchange(Command.READ_REGISTER, offset, 4), "little")

    def write_register(self, offset: int, value: int) -> None:
        self._exchange(Command.WRITE_REGISTER, offset, 4, value.to_bytes(4, "little"))

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        content = b"".join(
            self._exchange(Command.READ_MEMORY, start, count)
            for start, count in _pieces(address, size)
        )
        return np.frombuffer(content, np.uint8).copy()

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        content = data.tobytes()
        for start, count in _pieces(address, data.size):
            piece = content[start - address :][:count]
            self._exchange(Command.WRITE_MEMORY, start, count, piece)

    def wait_interrupt(self, timeout: float) -> bool:
        end, pause = self._line.now() + timeout, _LONGEST_PAUSE / 16
        while True:
            [level] = self._exchange(Command.INTERRUPT, 0, 1)
            left = end - self._line.now()
            if level or left <= 0:
                return bool(level)
            # Nothing is expected now: this only lets the line's time pass.
            self._line.read(1, min(left, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def remarks(self) -> list[str]:
        if not self.repeated:
            return []
        return [f"{self.repeated} requests were sent again, as the line lost or changed bytes"]

    def close(self) -> None:
        self._line.close()

    def _exchange(self, command: Command, address: int, count: int, content: bytes = b"") -> bytes:
        """Have a request carried out once and return the data of its answer."""
        request = f"{command.name} of {count} bytes at {address:#x}"
        self._sequence = (self._sequence + 1) % 256
        header = RequestHeader.const(
            {
                "start": REQUEST_START,
                "sequence": self._sequence,
                "command": command,
                "count": count,
                "address": address,
            }
        )
        frame = _sealed(_to_bytes(header) + content)
        on_the_line = (len(frame) + ANSWER_BYTES + count + CHECKSUM_BYTES) * self._byte_time
        self._received.clear()
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.repeated += 1
                self._wait_for_silence()
            self._line.write(frame)
            answer = self._receive(self._line.now() + on_the_line + self._answer_timeout)
            if answer is not None:
                status, result = answer
                break
        else:
            raise CardError(
                f"{self._place}: {request} got no proper answer in {_ATTEMPTS} attempts; is the "
                "board on, and its bridge at the same rate?"
            )
        if status is not Status.OK:
            raise CardError(f"{self._place}: {request} ended with {status.name}")
        if len(result) != (0 if command.value & WRITES else count):
            raise CardError(f"{self._place}: {request} was answered with {len(result)} bytes")
        return result

    def _receive(self, deadline: float) -> tuple[Status, bytes] | None:
        """Return the answer to the last request, or nothing if it is damaged or late."""
        while True:
            header = self._take(ANSWER_BYTES, deadline)
            if header is None or header[0] != ANSWER_START:
                return None
            fields = Const(Layout.cast(AnswerHeader), int.from_bytes(header, "little"))
            if fields.count > MAX_COUNT:
                return None
            frame = self._take(ANSWER_BYTES + fields.count + CHECKSUM_BYTES, deadline)
            if frame is None or frame != _sealed(frame[:-CHECKSUM_BYTES]):
                return None
            del self._received[: len(frame)]
            if fields.sequence == self._sequence:
                return fields.status, frame[ANSWER_BYTES:-CHECKSUM_BYTES]

    def _take(self, count: int, deadline: float) -> bytes | None:
        """Return bytes received, which stay there, or nothing if they don't come in time."""
        while len(self._received) < count:
            left = deadline - self._line.now()
            if left <= 0:
                return None
            self._received += self._line.read(2 * MAX_COUNT, left)
        return bytes(self._received[:count])

    def _wait_for_silence(self) -> None:
        """Drop what comes in until the line has been silent so long that the bridge listens."""
        self._received.clear()
        end = self._line.now() + _LONGEST_NOISE
        quiet_since = self._line.now()
        while (now := self._line.now()) < quiet_since + _SILENCE:
            if now > end:
                raise CardError(f"{self._place}: the line is never silent; is the rate right?")
            if self._line.read(2 * MAX_COUNT, quiet_since + _SILENCE - now):
                quiet_since = self._line.now()


def _pieces(address: int, size: int) -> list[tuple[int, int]]:
    """Cut a range where frames end: at multiples of the largest."""
    cuts = [address, *range((address // MAX_COUNT + 1) * MAX_COUNT, address + size, MAX_COUNT)]
    ends = [*cuts[1:], address + size]
    return [(start, end - start) for start, end in zip(cuts, ends, strict=True) if end > start]


def _to_bytes(header: Const) -> bytes:
    return header.as_value().value.to_bytes(header.shape().size // 8, "little")


def _sealed(frame: bytes) -> bytes:
    """Return a frame with its CRC."""
    return frame + zlib.crc32(frame[1:]).to_bytes(CHECKSUM_BYTES, "little")
