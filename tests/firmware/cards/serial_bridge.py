"""The serial bridge as docs/serial.md describes it, in front of any card, and lines to it."""

import os
import pty
import select
import threading
import time
import tty
import zlib
from collections import deque

import numpy as np
from amaranth.lib.data import Const, Layout

from firmware.errors import CardError
from rtl.interface import serial_protocol as protocol
from rtl.interface.serial_protocol import Command, Status

SILENCE = protocol.SILENCE_MICROSECONDS * 1e-6


class Bridge:
    """Takes bytes with their times and gives the bytes of answers."""

    def __init__(self, card):
        self.card = card
        self.last = None
        self.status = Status.OK
        self.received = bytearray()
        self.deaf = False
        self.heard = 0.0
        self.busy_until = 0.0

    def take(self, byte, time):
        """Return the answer if this byte is the last of a request."""
        if time - self.heard >= SILENCE:
            self.received.clear()
            self.deaf = False
        self.heard = time
        if time < self.busy_until:
            self.deaf = True
        if self.deaf:
            return b""
        self.received.append(byte)
        if self.received[0] != protocol.REQUEST_START:
            self.deaf = True
            return b""
        if len(self.received) < protocol.REQUEST_BYTES:
            return b""
        header = Const(
            Layout.cast(protocol.RequestHeader),
            int.from_bytes(self.received[: protocol.REQUEST_BYTES], "little"),
        )
        code, count = self.received[2], header.count
        if count > protocol.MAX_COUNT:
            self.deaf = True
            return b""
        end = protocol.REQUEST_BYTES + (count if code & protocol.WRITES else 0)
        if len(self.received) < end + protocol.CHECKSUM_BYTES:
            return b""
        frame = bytes(self.received)
        self.received.clear()
        if zlib.crc32(frame[1:end]).to_bytes(4, "little") != frame[end:]:
            self.deaf = True
            return b""
        status, data = self.answer(header, code, frame[protocol.REQUEST_BYTES : end])
        answer = protocol.AnswerHeader.const(
            {
                "start": protocol.ANSWER_START,
                "sequence": header.sequence,
                "status": status,
                "count": len(data),
            }
        )
        frame = answer.as_value().value.to_bytes(protocol.ANSWER_BYTES, "little") + data
        return frame + zlib.crc32(frame[1:]).to_bytes(4, "little")

    def answer(self, header, code, data):
        """Carry a request out, unless it's a repeated write."""
        if header.sequence == self.last and code & protocol.WRITES:
            return self.status, b""
        self.last = header.sequence
        self.status, result = self.carry_out(header, code, data)
        return self.status, result

    def carry_out(self, header, code, data):
        try:
            command = Command(code)
        except ValueError:
            return Status.BAD_REQUEST, b""
        address, count = header.address, header.count
        register = command in (Command.READ_REGISTER, Command.WRITE_REGISTER)
        memory = command in (Command.READ_MEMORY, Command.WRITE_MEMORY)
        if (count != 4 or address % 4) if register else count == 0 if memory else count != 1:
            return Status.BAD_REQUEST, b""
        try:
            match command:
                case Command.PING:
                    return Status.OK, bytes([protocol.PROTOCOL])
                case Command.INTERRUPT:
                    return Status.OK, bytes([self.card.wait_interrupt(self.cycles)])
                case Command.READ_REGISTER:
                    return Status.OK, self.card.read_register(address).to_bytes(4, "little")
                case Command.WRITE_REGISTER:
                    self.card.write_register(address, int.from_bytes(data, "little"))
                case Command.READ_MEMORY:
                    return Status.OK, self.card.read_memory(address, count).tobytes()
                case Command.WRITE_MEMORY:
                    self.card.write_memory(address, np.frombuffer(data, np.uint8))
        except CardError:
            return Status.BUS_ERROR, b""
        return Status.OK, b""

    cycles = 2000
    """Cycles that a simulated card runs while the host asks for the interrupt."""


class TimedLine:
    """A line in simulated time, which damages bytes.

    `damage(direction, index, byte)` returns the bytes that arrive instead of byte number `index`;
    the direction is "request" or "answer".
    """

    byte_time = 10 / protocol.BAUD

    def __init__(self, bridge, damage=None):
        self.bridge = bridge
        self.damage = damage or (lambda direction, index, byte: [byte])
        self.time = 1.0
        self.counts = {"request": 0, "answer": 0}
        self.arriving = deque()
        self.closed = False

    def _pass(self, direction, byte):
        index = self.counts[direction]
        self.counts[direction] += 1
        return self.damage(direction, index, byte)

    def write(self, content):
        assert not self.closed
        for byte in content:
            self.time += self.byte_time
            for arrived in self._pass("request", byte):
                answer = self.bridge.take(arrived, self.time)
                time = self.time
                for sent in answer:
                    time += self.byte_time
                    self.arriving += [(time, back) for back in self._pass("answer", sent)]
                if answer:
                    self.bridge.busy_until = time

    def read(self, limit, timeout):
        if not self.arriving or self.arriving[0][0] > self.time + timeout:
            self.time += timeout
            return b""
        self.time = max(self.time, self.arriving[0][0])
        content = bytearray()
        while self.arriving and self.arriving[0][0] <= self.time and len(content) < limit:
            content.append(self.arriving.popleft()[1])
        return bytes(content)

    def now(self):
        return self.time

    def close(self):
        self.closed = True


class Terminal:
    """A bridge behind a pseudo-terminal, in a thread."""

    def __init__(self, card):
        self.host, device = pty.openpty()
        tty.setraw(device)
        self.name = os.ttyname(device)
        self._device = device
        self._bridge = Bridge(card)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        # Only the time in which nothing was there counts as silence, however busy the machine is.
        clock = 0.0
        while not self._stop:
            start = time.monotonic()
            if not select.select([self.host], [], [], SILENCE / 4)[0]:
                clock += time.monotonic() - start
                continue
            for byte in os.read(self.host, 4096):
                answer = self._bridge.take(byte, clock)
                for part in range(0, len(answer), 300):
                    os.write(self.host, answer[part : part + 300])

    def unplug(self):
        self._stop = True
        self._thread.join()
        os.close(self.host)
        os.close(self._device)
