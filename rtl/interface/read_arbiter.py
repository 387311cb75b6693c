"""Shares one AXI read port between several masters."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .axi import Address, AXI4ReadSignature

__all__ = ["ReadArbiter"]


class ReadArbiter(wiring.Component):
    """Read port shared by several masters, without IDs: bursts are answered in the order of issue.

    No master may wait for another with its data on offer, as `ReadBuffer`, `ReadStriper` and the
    fetch don't: so neither can hold the others up. They take turns, burst by burst.

    An address takes one cycle longer than without arbiter, data none.

    Parameters
    ----------
    config
        Sets the width of a beat.
    masters
        How many there are.
    bursts
        Bursts under way of all of them together.

    Attributes
    ----------
    masters : In(array of AXI4ReadSignature)
        The masters.
    axi : Out(AXI4ReadSignature)
        The shared port.
    """

    def __init__(self, config: Config, *, masters: int, bursts: int) -> None:
        self._bursts = bursts
        signature = AXI4ReadSignature(config.beat_bits)
        super().__init__({"masters": In(signature).array(masters), "axi": Out(signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        numbers = range(len(self.masters))
        ar, r = self.axi.ar, self.axi.r

        # An address, once offered, must stay: it is chosen into a register.
        turn, chosen = Signal(numbers), Signal(numbers)
        """Who was chosen last, and who is next: the first that asks behind that."""
        asks = Signal(len(numbers))
        m.d.comb += [asks[i].eq(master.ar.valid) for i, master in enumerate(self.masters)]
        with m.Switch(turn):
            for last in numbers:
                with m.Case(last):
                    for distance in reversed(numbers):
                        candidate = (last + 1 + distance) % len(numbers)
                        with m.If(asks[candidate]):
                            m.d.comb += chosen.eq(candidate)
        m.submodules.owners = owners = fifo.SyncFIFOBuffered(width=len(turn), depth=self._bursts)
        grant = Signal()
        m.d.comb += [
            grant.eq(asks.any() & (~ar.valid | ar.ready) & owners.w_rdy),
            owners.w_data.eq(chosen),
            owners.w_en.eq(grant),
        ]
        with m.If(ar.ready):
            m.d.sync += ar.valid.eq(0)
        address = Signal(Address)
        with m.Switch(chosen):
            for i, master in enumerate(self.masters):
                with m.Case(i):
                    m.d.comb += [address.eq(master.ar.payload), master.ar.ready.eq(grant)]
        with m.If(grant):
            m.d.sync += [ar.valid.eq(1), ar.payload.eq(address), turn.eq(chosen)]

        # Data to whom they belong.
        m.d.comb += owners.r_en.eq(r.valid & r.ready & r.payload.last)
        for i, master in enumerate(self.masters):
            m.d.comb += master.r.payload.eq(r.payload)
            with m.If(owners.r_rdy & (owners.r_data == i)):
                m.d.comb += [master.r.valid.eq(r.valid), r.ready.eq(master.r.ready)]
        return m
