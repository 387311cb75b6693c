"""From a serial line to registers and card memory; the protocol is that of `serial_protocol`."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..memory.ports import ByteAccessSignature
from .axi import AXI4LiteSignature, Response
from .serial_protocol import (
    ANSWER_BYTES,
    ANSWER_START,
    CHECKSUM,
    CHECKSUM_BYTES,
    MAX_COUNT,
    PROTOCOL,
    REQUEST_BYTES,
    REQUEST_START,
    SILENCE_MICROSECONDS,
    WRITES,
    AnswerHeader,
    Command,
    RequestHeader,
    Status,
)
from .uart import UARTReceiver, UARTTransmitter

__all__ = ["SerialBridge"]

_REGISTER_BYTES = 4


class SerialBridge(wiring.Component):
    """Carries out one request of the host after the other.

    The data of a request wait in a buffer until its checksum has been found right, those of an
    answer until it's known how it ended.

    Parameters
    ----------
    clock_hertz
        Frequency of the domain ``sync``.
    baud
        Bits a second on the line.
    silence_microseconds
        How long the line is silent before a receiver that lost the thread listens again.

    Attributes
    ----------
    rx : In(1)
        The line from the host; may change at any time.
    tx : Out(1)
        The line to the host.
    interrupt : In(1)
        Of the accelerator.
    control : Out
        AXI4-Lite master, to the accelerator's registers.
    memory : Out
        To card memory.
    """

    def __init__(
        self, clock_hertz: int, baud: int, silence_microseconds: int = SILENCE_MICROSECONDS
    ) -> None:
        self._clock_hertz = clock_hertz
        self._baud = baud
        self._silence_cycles = -(-clock_hertz * silence_microseconds // 1_000_000)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "interrupt": In(1),
                "control": Out(AXI4LiteSignature()),
                "memory": Out(ByteAccessSignature()),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UARTReceiver(self._clock_hertz, self._baud)
        m.submodules.transmitter = transmitter = UARTTransmitter(self._clock_hertz, self._baud)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        received = receiver.o.valid
        byte, broken = receiver.o.payload.data, receiver.o.payload.broken

        silence = Signal(range(self._silence_cycles + 1))
        silent = silence == self._silence_cycles
        with m.If(~receiver.quiet):
            m.d.sync += silence.eq(0)
        with m.Elif(~silent):
            m.d.sync += silence.eq(silence + 1)

        # One checksum for both directions, and one buffer.
        m.submodules.checksum = checksum = CHECKSUM(8).create()
        m.submodules.buffer = buffer = Memory(shape=unsigned(8), depth=MAX_COUNT, init=[])
        fill, drain = buffer.write_port(), buffer.read_port()
        m.d.comb += checksum.data.eq(byte)

        # `place` counts the bytes of each part of a frame.
        place = Signal(range(MAX_COUNT + 1))
        header = Signal(RequestHeader)
        writes = (header.command.as_value() & WRITES).any()
        m.d.comb += [
            fill.addr.eq(place),
            fill.data.eq(byte),
            drain.addr.eq(place),
        ]

        # What has been carried out last, and how this request ends.
        sequence, is_known = Signal(8), Signal()
        status, disturbed = Signal(Status), Signal()
        repeated = is_known & (header.sequence == sequence) & writes
        allowed = self._allowed(m, header)
        with m.If(received):
            m.d.sync += disturbed.eq(1)

        # What an answer has to say.
        answer = Signal(AnswerHeader)
        answer_count = Mux((status == Status.OK) & ~writes, header.count, 0)
        m.d.comb += [
            answer.start.eq(ANSWER_START),
            answer.sequence.eq(header.sequence),
            answer.status.eq(status),
            answer.count.eq(answer_count),
        ]
        sending = transmitter.i
        sent = sending.valid & sending.ready
        word = Signal(32)
        control = self.control
        m.d.comb += [
            control.ar.payload.eq(header.address),
            control.aw.payload.eq(header.address),
            control.w.payload.data.eq(word),
            control.w.payload.strb.eq(~0),
            self.memory.request.payload.address.eq(header.address + place),
            self.memory.request.payload.write.eq(writes),
            self.memory.request.payload.data.eq(drain.data),
        ]

        with m.FSM():
            with m.State("Listen"):
                m.d.comb += checksum.start.eq(1)
                m.d.sync += place.eq(1)
                with m.If(received):
                    m.next = "Ignore"
                    with m.If(~broken & (byte == REQUEST_START)):
                        m.next = "Receive-Header"

            with m.State("Ignore"), m.If(silent):
                m.next = "Listen"

            with m.State("Receive-Header"):
                m.d.comb += checksum.valid.eq(received)
                with m.If(received):
                    m.d.sync += [
                        header.eq(Cat(header.as_value()[8:], byte)),
                        place.eq(place + 1),
                    ]
                    with m.If(place == REQUEST_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "Judge-Count"
                    with m.If(broken):
                        m.next = "Ignore"
                with m.Elif(silent):
                    m.next = "Listen"

            with m.State("Judge-Count"):
                m.next = "Receive-Checksum"
                with m.If(writes & (header.count != 0)):
                    m.next = "Receive-Data"
                with m.If(header.count > MAX_COUNT):
                    m.next = "Ignore"

            with m.State("Receive-Data"):
                m.d.comb += [checksum.valid.eq(received), fill.en.eq(received)]
                with m.If(received):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place + 1 == header.count):
                        m.d.sync += place.eq(0)
                        m.next = "Receive-Checksum"
                    with m.If(broken):
                        m.next = "Ignore"
                with m.Elif(silent):
                    m.next = "Listen"

            with m.State("Receive-Checksum"):
                m.d.comb += checksum.valid.eq(received)
                with m.If(received):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == CHECKSUM_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "Judge-Request"
                    with m.If(broken):
                        m.next = "Ignore"
                with m.Elif(silent):
                    m.next = "Listen"

            # The checksum of a frame with its own is a constant.
            with m.State("Judge-Request"):
                m.d.sync += disturbed.eq(received)
                with m.If(~checksum.match_detected):
                    m.next = "Ignore"
                with m.Elif(repeated):
                    m.next = "Answer-Header"
                with m.Else():
                    m.d.sync += [
                        sequence.eq(header.sequence),
                        is_known.eq(1),
                        status.eq(Mux(allowed, Status.OK, Status.BAD_REQUEST)),
                    ]
                    m.next = "Answer-Header"
                    with m.If(allowed):
                        with m.Switch(header.command):
                            with m.Case(Command.READ_REGISTER):
                                m.next = "Read-Register"
                            with m.Case(Command.WRITE_REGISTER):
                                m.next = "Gather-Word"
                            with m.Case(Command.READ_MEMORY, Command.WRITE_MEMORY):
                                m.next = "Fetch-Byte"
                            with m.Default():
                                m.next = "Give-Byte"

            # PING and INTERRUPT.
            with m.State("Give-Byte"):
                m.d.comb += [
                    fill.en.eq(1),
                    fill.data.eq(Mux(header.command == Command.PING, PROTOCOL, self.interrupt)),
                ]
                m.next = "Answer-Header"

            # Registers; their bytes go through the buffer.
            with m.State("Read-Register"):
                m.d.comb += control.ar.valid.eq(1)
                with m.If(control.ar.ready):
                    m.next = "Take-Register"
            with m.State("Take-Register"):
                m.d.comb += control.r.ready.eq(1)
                with m.If(control.r.valid):
                    m.d.sync += word.eq(control.r.payload.data)
                    with m.If(control.r.payload.resp != Response.OKAY):
                        m.d.sync += status.eq(Status.BUS_ERROR)
                    m.next = "Spread-Word"
            with m.State("Spread-Word"):
                m.d.comb += [fill.en.eq(1), fill.data.eq(word[:8])]
                m.d.sync += [word.eq(word >> 8), place.eq(place + 1)]
                with m.If(place == _REGISTER_BYTES - 1):
                    m.d.sync += place.eq(0)
                    m.next = "Answer-Header"
            with m.State("Gather-Word"):
                m.d.sync += [word.eq(Cat(word[8:], drain.data)), place.eq(place + 1)]
                # The buffer's output is a cycle late.
                with m.If(place == _REGISTER_BYTES):
                    m.d.sync += place.eq(0)
                    m.next = "Write-Register"
            with m.State("Write-Register"):
                m.d.comb += [control.aw.valid.eq(1), control.w.valid.eq(1)]
                with m.If(control.aw.ready & control.w.ready):
                    m.next = "End-Register-Write"
            with m.State("End-Register-Write"):
                m.d.comb += control.b.ready.eq(1)
                with m.If(control.b.valid):
                    with m.If(control.b.payload.resp != Response.OKAY):
                        m.d.sync += status.eq(Status.BUS_ERROR)
                    m.next = "Answer-Header"

            # Memory, byte by byte.
            with m.State("Fetch-Byte"):
                m.next = "Access-Byte"
            with m.State("Access-Byte"):
                m.d.comb += self.memory.request.valid.eq(1)
                with m.If(self.memory.request.ready):
                    m.next = "End-Access"
            with m.State("End-Access"):
                m.d.comb += fill.data.eq(self.memory.answer.data)
                with m.If(self.memory.answer.valid):
                    m.d.comb += fill.en.eq(~writes)
                    m.d.sync += place.eq(place + 1)
                    m.next = "Fetch-Byte"
                    with m.If(place + 1 == header.count):
                        m.d.sync += place.eq(0)
                        m.next = "Answer-Header"
                    with m.If(self.memory.answer.error):
                        m.d.sync += [status.eq(Status.BUS_ERROR), place.eq(0)]
                        m.next = "Answer-Header"

            # The answer. The start byte is not in the checksum.
            with m.State("Answer-Header"):
                m.d.comb += [
                    sending.valid.eq(1),
                    sending.payload.eq(answer.as_value().word_select(place, 8)),
                    checksum.start.eq(place == 0),
                    checksum.valid.eq(sent & (place != 0)),
                    checksum.data.eq(sending.payload),
                ]
                with m.If(sent):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == ANSWER_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "Answer-Checksum"
                        with m.If(answer_count != 0):
                            m.next = "Fetch-Data"
            with m.State("Fetch-Data"):
                m.next = "Answer-Data"
            with m.State("Answer-Data"):
                m.d.comb += [
                    sending.valid.eq(1),
                    sending.payload.eq(drain.data),
                    checksum.valid.eq(sent),
                    checksum.data.eq(drain.data),
                ]
                with m.If(sent):
                    m.d.sync += place.eq(place + 1)
                    m.next = "Fetch-Data"
                    with m.If(place + 1 == answer_count):
                        m.d.sync += place.eq(0)
                        m.next = "Answer-Checksum"
            with m.State("Answer-Checksum"):
                m.d.comb += [
                    sending.valid.eq(1),
                    sending.payload.eq(checksum.crc.word_select(place[:2], 8)),
                ]
                with m.If(sent):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == CHECKSUM_BYTES - 1):
                        m.next = "End-Answer"
            # Whoever sends before the answer has lost the thread.
            with m.State("End-Answer"), m.If(transmitter.idle):
                m.next = "Listen"
                with m.If(disturbed | received):
                    m.next = "Ignore"
        return m

    def _allowed(self, m: Module, header: data.View) -> Signal:
        """Return whether command, count and address fit each other."""
        allowed = Signal()
        with m.Switch(header.command):
            with m.Case(Command.PING, Command.INTERRUPT):
                m.d.comb += allowed.eq(header.count == 1)
            with m.Case(Command.READ_REGISTER, Command.WRITE_REGISTER):
                m.d.comb += allowed.eq(
                    (header.count == _REGISTER_BYTES)
                    & ~header.address[:2].any()
                    & ~header.address[len(self.control.aw.payload) :].any()
                )
            with m.Case(Command.READ_MEMORY, Command.WRITE_MEMORY):
                m.d.comb += allowed.eq((header.count != 0) & (header.count <= MAX_COUNT))
        return allowed
