"""The zeros around images: beats from memory in, those of the framed images out."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..control.commands import Frame
from .products import PRODUCT_BITS

__all__ = ["Framer", "Framing"]


class Framing(data.Struct):
    """What is to become of the beats of one LOAD."""

    framed: unsigned(1)
    """There is a frame; otherwise they go through."""
    frame: Frame
    beats: unsigned(PRODUCT_BITS)
    """Beats that leave, zeros among them; not zero."""


class Framer(wiring.Component):
    """Puts beats into frames of zeros, one framing after the other.

    A beat goes straight through; while it isn't its turn, beats of zeros leave. One beat a cycle
    leaves, whatever kind it is: there is no pause between lines, images or framings. Framings are
    trusted: a frame's counts aren't zero, its sides fit 16 bits, and it makes so many beats.

    Parameters
    ----------
    config
        Sets the size of a beat.

    Attributes
    ----------
    framing : In(stream of Framing)
        What the next beats belong to; taken as the last beat of the one before leaves.
    i : In(stream of beats)
        Beats from memory.
    o : Out(stream of beats)
        These, framed.
    zero : Out(1)
        The next beat to leave is one of zeros: it waits for none from memory.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "framing": In(stream.Signature(Framing)),
                "i": In(stream.Signature(unsigned(config.beat_bits))),
                "o": Out(stream.Signature(unsigned(config.beat_bits))),
                "zero": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        left = Signal(PRODUCT_BITS)
        """Beats that have yet to leave."""
        active = Signal()
        take, last = Signal(), Signal()
        m.d.comb += [
            self.o.payload.eq(Mux(self.zero, 0, self.i.payload)),
            self.o.valid.eq(active & (self.zero | self.i.valid)),
            self.i.ready.eq(active & ~self.zero & self.o.ready),
            take.eq(self.o.valid & self.o.ready),
            last.eq(left == 1),
            self.framing.ready.eq(~active | (take & last)),
        ]

        # Places are counted from the first line, or beat, that comes from memory: those before it
        # are far above all counts.
        framed = Signal()
        sides = [_Side(name) for name in ("beat", "line")]
        carry = framed
        for side in sides:
            m.d.comb += side.next.eq(side.place)
            with m.If(carry):
                m.d.comb += side.next.eq(Mux(side.ends, side.first, side.place + 1))
            carry = carry & side.ends
        with m.If(take):
            m.d.sync += [
                left.eq(left - 1),
                self.zero.eq(framed & (sides[0].next_outside | sides[1].next_outside)),
                *(side.place.eq(side.next) for side in sides),
            ]
            with m.If(last):
                m.d.sync += [active.eq(0), self.zero.eq(0)]

        given, frame = self.framing.payload, self.framing.payload.frame
        with m.If(self.framing.valid & self.framing.ready):
            m.d.sync += [
                active.eq(1),
                framed.eq(given.framed),
                left.eq(given.beats),
                self.zero.eq(given.framed & ((frame.above != 0) | (frame.before != 0))),
                *sides[0].begin(frame.before, frame.beats, frame.after),
                *sides[1].begin(frame.above, frame.lines, frame.below),
            ]

        return m


class _Side:
    """A place along one side of a frame: before, in or after what comes from memory."""

    def __init__(self, name: str) -> None:
        self.place = Signal(16, name=f"{name}")
        self.next = Signal(16, name=f"next_{name}")
        self._count = Signal(16, name=f"{name}_count")
        self._last = Signal(16, name=f"{name}_last")
        self.first = Signal(16, name=f"{name}_first")

    @property
    def ends(self) -> Any:
        return self.place == self._last

    @property
    def next_outside(self) -> Any:
        return self.next >= self._count

    def begin(self, before: Any, count: Any, after: Any) -> list[Any]:
        """Return the assignments that go to the first place of a new frame."""
        return [
            self.place.eq(-before),
            self.first.eq(-before),
            self._count.eq(count),
            self._last.eq(count + after - 1),
        ]
