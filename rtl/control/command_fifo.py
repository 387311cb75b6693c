"""Commands that wait for their unit."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import COMMAND_BYTES, Config
from .commands import Command

__all__ = ["INDEX_BITS", "CommandFIFO", "CommandPart", "IndexedCommand"]

INDEX_BITS = 32
"""Of a command's place in its program."""


class IndexedCommand(data.Struct):
    """A command and its place in the program."""

    index: unsigned(INDEX_BITS)
    command: Command


class CommandPart(data.StructLayout):
    """One of `Config.command_parts` of an indexed command, the lowest bits of either first."""

    def __init__(self, config: Config) -> None:
        parts = config.command_parts
        super().__init__({"index": INDEX_BITS // parts, "command": 8 * COMMAND_BYTES // parts})


class CommandFIFO(wiring.Component):
    """First in, first out. Commands come in parts and leave whole.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    parts : In
        `Config.command_parts` for each command; there's room for `Config.queue_depth` commands.
    commands : Out
        Commands, each at the earliest in the second cycle after its last part has come. If it has
        several parts, the next is a cycle more behind it than they are many.
    empty : Out
        Nothing is queued, not even a part.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "parts": In(stream.Signature(CommandPart(config))),
                "commands": Out(stream.Signature(IndexedCommand)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parts = self._config.command_parts
        width, depth = CommandPart(self._config).size, self._config.queue_depth * parts
        kind = fifo.SyncFIFOBuffered if parts == 1 else fifo.SyncFIFO
        m.submodules.waiting = waiting = kind(width=width, depth=depth)
        m.d.comb += [
            waiting.w_data.eq(self.parts.payload),
            waiting.w_en.eq(self.parts.valid),
            self.parts.ready.eq(waiting.w_rdy),
        ]
        if parts == 1:
            m.d.comb += [
                self.commands.payload.eq(waiting.r_data),
                self.commands.valid.eq(waiting.r_rdy),
                waiting.r_en.eq(self.commands.ready),
                self.empty.eq(waiting.level == 0),
            ]
            return m

        # The first part moves down as the others come in above.
        gathered = Signal(data.ArrayLayout(CommandPart(self._config), parts), reset_less=True)
        count = Signal(range(parts))
        whole = Signal()
        m.d.comb += [
            self.commands.payload.index.eq(Cat(part.index for part in gathered)),
            self.commands.payload.command.eq(Cat(part.command for part in gathered)),
            self.commands.valid.eq(whole),
            waiting.r_en.eq(~whole),
            self.empty.eq((waiting.level == 0) & (count == 0) & ~whole),
        ]
        with m.If(whole):
            m.d.sync += whole.eq(~self.commands.ready)
        with m.Elif(waiting.r_rdy):
            m.d.sync += [
                gathered.eq(Cat(*(gathered[number] for number in range(1, parts)), waiting.r_data)),
                count.eq(count + 1),
                whole.eq(count == parts - 1),
            ]
        return m
