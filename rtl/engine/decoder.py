"""Decodes operands on their way into the scratchpads."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..arithmetic.operand import decode
from ..config import Config
from ..delay import delayed
from ..memory.ports import DWriteSignature, SWriteSignature
from ..memory.scratchpad import DOperands, SOperand, SOperands

__all__ = ["OperandDecoder"]


class OperandDecoder(wiring.Component):
    """Decodes what is written to the S and D banks: once here, rather than in every PE.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    s_write, d_write : In
        Ports for the load unit.
    s, d : Out
        The same a cycle later, with decoded operands.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "s_write": In(SWriteSignature(config)),
                "d_write": In(DWriteSignature(config)),
                "s": Out(
                    wiring.Signature(
                        {
                            "enable": Out(config.rows),
                            "quarters": Out(config.ratio),
                            "address": Out(16),
                            "words": Out(
                                data.ArrayLayout(
                                    data.ArrayLayout(SOperands(config), config.ratio), config.ratio
                                )
                            ),
                        }
                    )
                ),
                "d": Out(
                    wiring.Signature(
                        {
                            "enable": Out(config.cols),
                            "address": Out(16),
                            "data": Out(DOperands(config)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()
        for name in ("enable", "quarters", "address"):
            m.d.comb += getattr(self.s, name).eq(delayed(m, getattr(self.s_write, name)))
        for name in ("enable", "address"):
            m.d.comb += getattr(self.d, name).eq(delayed(m, getattr(self.d_write, name)))

        entries = []
        for number, entry in enumerate(
            self.s_write.words[place][quarter][lane]
            for place in range(config.ratio)
            for quarter in range(config.ratio)
            for lane in range(config.lanes)
        ):
            decoded = Signal(SOperand(config), name=f"entry_{number}")
            m.d.comb += [
                decoded.operand.eq(decode(entry.value)),
                decoded.kind.eq(decoded.operand.kind()),
                decoded.index.eq(entry.index),
            ]
            entries.append(decoded)
        words = Signal.like(self.s.words, reset_less=True)
        with m.If(self.s_write.enable.any()):
            m.d.sync += words.eq(Cat(entries))
        word = Signal.like(self.d.data, reset_less=True)
        with m.If(self.d_write.enable.any()):
            m.d.sync += word.eq(Cat(decode(HALF(half)) for half in self.d_write.data))
        m.d.comb += [self.s.words.eq(words), self.d.data.eq(word)]
        return m
