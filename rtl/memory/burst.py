"""Descriptors to AXI bursts."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import Fault
from ..control.fault import FaultReport
from ..interface.axi import ADDRESS_BITS, Address
from .descriptor import DIMENSIONS, Descriptor

__all__ = ["BurstGenerator"]


class BurstGenerator(wiring.Component):
    """Walks a descriptor and emits the bursts that it stands for, one per cycle.

    A burst ends where its row of contiguous beats ends or at the next multiple of `longest` beats,
    so that none crosses 4 KiB. Rows that happen to follow each other in
    memory aren't merged.

    The first burst is offered the cycle after the descriptor was taken; the next descriptor can be
    taken the cycle after the last burst was.

    Parameters
    ----------
    config
        Sets beat width and the size of memory.
    longest
        Beats in the longest burst, a power of two; no more than ``config.burst_beats``.

    Attributes
    ----------
    descriptor : In(stream of Descriptor)
        What to walk.
    burst : Out(stream of Address)
        The bursts. When `halt` rises, one that wasn't taken is withdrawn.
    halt : In(1)
        Offer no burst and take no descriptor.
    fault : Out(FaultReport)
        ``MALFORMED`` (a count of zero, an address or stride that isn't a multiple of a beat;
        reported with the descriptor's address, no burst comes out) or ``ADDRESS_RANGE`` (this burst
        and those after it don't come out; bursts before it did). Stays until reset.
    idle : Out(1)
        No descriptor in work.
    """

    def __init__(self, config: Config, longest: int) -> None:
        self._config = config
        self._longest = longest
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor)),
                "burst": Out(stream.Signature(Address)),
                "halt": In(1),
                "fault": Out(FaultReport),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        beat_shift = exact_log2(config.beat_bytes)
        burst_shift = exact_log2(self._longest)
        block_shift = beat_shift + burst_shift
        memory_shift = exact_log2(config.memory_bytes)

        active = Signal()
        counts = Signal.like(self.descriptor.payload.counts)
        strides = Signal.like(self.descriptor.payload.strides)
        address = Signal(ADDRESS_BITS)
        beats_left = Signal(16)
        """Beats left in the current row."""
        left = [Signal(16, name=f"left_{i}") for i in range(1, DIMENSIONS)]
        starts = [
            Signal(memory_shift - beat_shift, name=f"start_{i}") for i in range(1, DIMENSIONS)
        ]
        """For each outer dimension, iterations left, with the current one, and the beat at which it
        began: in memory, or there would have been a fault."""

        # A burst reaches to the end of its row or of an aligned block of `longest` beats.
        room = Signal(range(self._longest + 1))
        length = Signal.like(room)
        row_ends = Signal()
        m.d.comb += [
            room.eq(self._longest - address[beat_shift:block_shift]),
            row_ends.eq(beats_left <= room),
            length.eq(Mux(row_ends, beats_left, room)),
            self.burst.payload.addr.eq(address),
            self.burst.payload.len.eq(length - 1),
        ]

        # The innermost dimension that isn't at its end says where the next row begins, which may be
        # outside of memory.
        ends = Signal(DIMENSIONS - 1)
        start, stride = Signal.like(starts[0]), Signal.like(strides[0])
        m.d.comb += ends.eq(Cat(count == 1 for count in left))
        for i in reversed(range(DIMENSIONS - 1)):
            with m.If(~ends[i]):
                m.d.comb += [start.eq(starts[i]), stride.eq(strides[i])]
        next_row = Cat(Const(0, beat_shift), start) + stride

        outside = Signal()
        m.d.comb += [
            outside.eq(address[memory_shift:].any()),
            self.burst.valid.eq(active & ~outside & ~self.halt),
            self.idle.eq(~active),
        ]

        with m.If(self.burst.valid & self.burst.ready):
            with m.If(~row_ends):
                m.d.sync += [
                    address.eq(Cat(Const(0, block_shift), address[block_shift:memory_shift] + 1)),
                    beats_left.eq(beats_left - length),
                ]
            with m.Else():
                m.d.sync += [address.eq(next_row), beats_left.eq(counts[0])]
                carry = 1
                for i in range(DIMENSIONS - 1):
                    with m.If(carry):
                        m.d.sync += [
                            left[i].eq(Mux(ends[i], counts[i + 1], left[i] - 1)),
                            starts[i].eq(next_row[beat_shift:memory_shift]),
                        ]
                    carry = carry & ends[i]
                with m.If(ends.all()):
                    m.d.sync += active.eq(0)

        given = self.descriptor.payload
        malformed = Signal()
        m.d.comb += [
            malformed.eq(
                Cat(*((count == 0) for count in given.counts)).any()
                | given.address[:beat_shift].any()
                | Cat(*(stride.as_unsigned()[:beat_shift] for stride in given.strides)).any()
            ),
            self.descriptor.ready.eq(~active & ~self.halt & (self.fault.code == Fault.NONE)),
        ]
        with m.If(self.descriptor.valid & self.descriptor.ready):
            m.d.sync += [
                counts.eq(given.counts),
                strides.eq(given.strides),
                address.eq(given.address),
                beats_left.eq(given.counts[0]),
                active.eq(~malformed),
                *(left[i].eq(given.counts[i + 1]) for i in range(DIMENSIONS - 1)),
                *(start.eq(given.address[beat_shift:memory_shift]) for start in starts),
            ]
            with m.If(malformed):
                m.d.sync += [
                    self.fault.code.eq(Fault.MALFORMED),
                    self.fault.address.eq(given.address),
                ]
        with m.If(active & outside & ~self.halt):
            m.d.sync += [
                active.eq(0),
                self.fault.code.eq(Fault.ADDRESS_RANGE),
                self.fault.address.eq(address),
            ]

        return m
