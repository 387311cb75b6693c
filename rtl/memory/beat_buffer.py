"""A beat on its way between two units."""

from typing import Any

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config

__all__ = ["BeatBuffer"]


class BeatBuffer(wiring.Component):
    """Keeps one beat, so that no path leads through it, neither of beats nor back.

    It takes a beat every other cycle at most: made for a unit that has several to do with each.

    Parameters
    ----------
    config
        Sets the size of a beat.

    Attributes
    ----------
    i, o : In, Out(stream of beats)
        The beats, a cycle later.
    """

    def __init__(self, config: Config) -> None:
        beat = stream.Signature(unsigned(config.beat_bits))
        super().__init__({"i": In(beat), "o": Out(beat)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        full, beat = Signal(), Signal(self.o.payload.shape(), reset_less=True)
        m.d.comb += [self.i.ready.eq(~full), self.o.valid.eq(full), self.o.payload.eq(beat)]
        with m.If(full):
            m.d.sync += full.eq(~self.o.ready)
        with m.Else():
            m.d.sync += [full.eq(self.i.valid), beat.eq(self.i.payload)]
        return m
