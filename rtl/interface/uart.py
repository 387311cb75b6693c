"""Receiver and transmitter of an asynchronous serial line: 8 data bits, no parity, one stop bit."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["LEAST_CYCLES_PER_BIT", "Character", "UARTReceiver", "UARTTransmitter"]

LEAST_CYCLES_PER_BIT = 4
"""Clock cycles in a bit, at least, so that the receiver samples near the middle of each."""

_PHASE_BITS = 16
"""The rate is exact to half of this part of the clock: at 40 MHz to 305 bits a second."""

_FRAME_BITS = 10
"""Start bit, data, stop bit."""


def _phase_step(clock_hertz: int, baud: int) -> int:
    """Return by how much the phase of a bit, of ``1 << _PHASE_BITS``, grows in a cycle.

    Raises
    ------
    ValueError
        The clock is too slow for that rate, or so fast that the rate can't be told from zero.
    """
    most = clock_hertz // LEAST_CYCLES_PER_BIT
    if not clock_hertz >> _PHASE_BITS < baud <= most:
        raise ValueError(
            f"baud is {baud}, must be {(clock_hertz >> _PHASE_BITS) + 1} to {most} at a clock of "
            f"{clock_hertz} Hz"
        )
    return round((baud << _PHASE_BITS) / clock_hertz)


class Character(data.Struct):
    """What was received in the time of one character."""

    data: unsigned(8)
    broken: unsigned(1)
    """There was no stop bit."""


class UARTReceiver(wiring.Component):
    """Receives characters.

    A numerically controlled oscillator counts the time, so that the rate needn't divide the clock:
    a bit is sampled in its middle or less than two cycles later.

    Parameters
    ----------
    clock_hertz, baud
        Clock of the domain ``sync``, and bits a second.

    Attributes
    ----------
    rx : In(1)
        The line; high when idle. It may change at any time.
    o : Out(stream of Character)
        What was received; goes on whether or not it is taken.
    quiet : Out(1)
        The line is high, and no character is under way.
    """

    def __init__(self, clock_hertz: int, baud: int) -> None:
        self._step = _phase_step(clock_hertz, baud)
        super().__init__(
            {
                "rx": In(1, init=1),
                "o": Out(stream.Signature(Character, always_ready=True)),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules += FFSynchronizer(self.rx, line, init=1)

        # Half a bit after the start bit's edge its middle is sampled, then that of each other bit.
        # It's a cycle until the first step.
        phase = Signal(_PHASE_BITS)
        tick = Signal()
        left = Signal(range(_FRAME_BITS + 1))
        bits = Signal(_FRAME_BITS)
        m.d.comb += self.quiet.eq(line & (left == 0))
        m.d.sync += self.o.valid.eq(0)
        with m.If(left == 0):
            m.d.sync += Cat(phase, tick).eq((1 << _PHASE_BITS - 1) + self._step)
            with m.If(~line):
                m.d.sync += left.eq(_FRAME_BITS)
        with m.Else():
            m.d.sync += Cat(phase, tick).eq(phase + self._step)
        with m.If(tick & (left != 0)):
            m.d.sync += [bits.eq(Cat(bits[1:], line)), left.eq(left - 1)]
            with m.If((left == _FRAME_BITS) & line):
                # A disturbance, not a start bit.
                m.d.sync += left.eq(0)
            with m.If(left == 1):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(bits[2:]),
                    self.o.payload.broken.eq(~line),
                ]
        return m


class UARTTransmitter(wiring.Component):
    """Sends characters, one right after the other if they are there.

    Parameters
    ----------
    clock_hertz, baud
        As of `UARTReceiver`.

    Attributes
    ----------
    i : In(stream of 8 bits)
        What to send.
    tx : Out(1)
        The line; high when idle.
    idle : Out(1)
        Nothing is under way.
    """

    def __init__(self, clock_hertz: int, baud: int) -> None:
        self._step = _phase_step(clock_hertz, baud)
        super().__init__(
            {"i": In(stream.Signature(unsigned(8))), "tx": Out(1, init=1), "idle": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        phase = Signal(_PHASE_BITS)
        tick = Signal()
        left = Signal(range(_FRAME_BITS + 1))
        bits = Signal(_FRAME_BITS, init=-1)
        m.d.comb += [
            self.idle.eq(left == 0),
            self.i.ready.eq(self.idle | (tick & (left == 1))),
        ]
        m.d.sync += self.tx.eq(bits[0])
        with m.If(self.i.ready):
            m.d.sync += [left.eq(0), bits.eq(-1)]
            with m.If(self.i.valid):
                m.d.sync += [
                    bits.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                    left.eq(_FRAME_BITS),
                ]
        with m.Elif(tick):
            m.d.sync += [bits.eq(Cat(bits[1:], Const(1, 1))), left.eq(left - 1)]
        # The cycle in which a character is taken is the first step of its start bit.
        with m.If(self.idle):
            m.d.sync += Cat(phase, tick).eq(self._step)
        with m.Else():
            m.d.sync += Cat(phase, tick).eq(phase + self._step)
        return m
