"""Reads a program from memory, command by command."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import COMMAND_BYTES, Config
from ..interface.axi import AXI4ReadSignature
from ..memory.read_dma import ReadDMA
from .command_fifo import INDEX_BITS, CommandPart
from .fault import FaultReport

__all__ = ["PREFETCH", "Fetcher"]

PREFETCH = 8
"""Commands read ahead of the dispatcher, or half as many if they are handed over in parts."""


class Fetcher(wiring.Component):
    """Command fetch.

    Commands are requested only when there is room for them, so that the fetcher never holds up the
    read data channel, which the load unit shares.

    Attributes
    ----------
    start : In
        Begin with `count` commands at `address`; ignored while a program is being fetched.
    commands : Out
        The program in order, in parts.
    first_part, last_part : Out
        Which part of a command is on offer.
    index : Out
        Commands handed over so far.
    last : Out
        The command on offer is the program's last.
    ended : Out
        The program's last command has been handed over.
    fault, abort, idle : as in `ReadDMA`
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(64),
                "count": In(32),
                "commands": Out(stream.Signature(CommandPart(config))),
                "first_part": Out(1),
                "last_part": Out(1),
                "index": Out(INDEX_BITS),
                "last": Out(1),
                "ended": Out(1),
                "fault": Out(FaultReport),
                "abort": In(1),
                "idle": Out(1),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat_bytes = self._config.beat_bytes
        parts = self._config.command_parts
        beats_per_word = max(1, COMMAND_BYTES // beat_bytes)
        commands_per_word = max(1, beat_bytes // COMMAND_BYTES)
        word_bytes = beats_per_word * beat_bytes
        depth = PREFETCH if parts == 1 else PREFETCH // 2
        batch = depth // 2

        m.submodules.dma = dma = ReadDMA(self._config)
        m.submodules.prefetch = prefetch = fifo.SyncFIFOBuffered(
            width=word_bytes * 8 // parts, depth=depth * parts
        )
        wiring.connect(m, wiring.flipped(self.axi), dma.axi)
        m.d.comb += [
            self.fault.eq(dma.fault),
            dma.abort.eq(self.abort),
            self.idle.eq(dma.idle),
        ]

        # Room is reserved when a batch is requested, and given back as words leave the FIFO.
        words_left = Signal(32)
        next_address = Signal(64)
        reserved = Signal(range(depth + 1))
        requested = Signal(range(batch + 1))
        words = Mux(words_left < batch, words_left, batch)
        descriptor = dma.descriptor
        m.d.comb += [
            descriptor.payload.address.eq(next_address),
            descriptor.payload.counts[0].eq(beats_per_word),
            descriptor.payload.counts[1].eq(words),
            descriptor.payload.counts[2].eq(1),
            descriptor.payload.counts[3].eq(1),
            descriptor.payload.strides[0].eq(word_bytes),
            descriptor.valid.eq((words_left != 0) & (reserved <= depth - batch)),
        ]
        with m.If(descriptor.valid & descriptor.ready):
            m.d.comb += requested.eq(words)
            m.d.sync += [
                words_left.eq(words_left - words),
                next_address.eq(next_address + (words << (word_bytes.bit_length() - 1))),
            ]
        word_leaves = prefetch.r_en & prefetch.r_rdy & self.last_part
        m.d.sync += reserved.eq(reserved + requested - word_leaves)

        # Beats are gathered into words of at least one command, or into parts.
        gathered = beats_per_word // parts
        beats = Signal(data.ArrayLayout(self._config.beat_bits, gathered))
        beat = Signal(range(gathered))
        last_beat = beat == gathered - 1
        entry = Cat(*(beats[i] for i in range(1, gathered)), dma.data.payload)
        m.d.comb += [
            prefetch.w_data.eq(entry),
            prefetch.w_en.eq(dma.data.valid & last_beat),
            dma.data.ready.eq(prefetch.w_rdy | ~last_beat),
        ]
        with m.If(dma.data.valid & dma.data.ready):
            m.d.sync += [beats.eq(entry), beat.eq(Mux(last_beat, 0, beat + 1))]

        # Words are handed over command by command, and these part by part.
        left = Signal(32)
        place = Signal(range(commands_per_word))
        part = Signal(range(parts))
        word = data.ArrayLayout(8 * COMMAND_BYTES // parts, commands_per_word)(prefetch.r_data)
        index = data.ArrayLayout(INDEX_BITS // parts, parts)(self.index)
        handed_over = self.commands.valid & self.commands.ready
        m.d.comb += [
            self.commands.payload.command.eq(word[place]),
            self.commands.payload.index.eq(index[part]),
            self.commands.valid.eq(prefetch.r_rdy & (left != 0)),
            self.first_part.eq(part == 0),
            self.last_part.eq(part == parts - 1),
            prefetch.r_en.eq(handed_over & ((place == commands_per_word - 1) | (left == 1))),
            self.last.eq(left == 1),
            self.ended.eq(left == 0),
        ]
        with m.If(handed_over):
            m.d.sync += part.eq(part + 1)
        with m.If(handed_over & self.last_part):
            m.d.sync += [
                left.eq(left - 1),
                self.index.eq(self.index + 1),
                place.eq(place + 1),
            ]

        with m.If(self.start & self.ended):
            m.d.sync += [
                next_address.eq(self.address),
                words_left.eq(
                    (self.count + (commands_per_word - 1)) >> (commands_per_word.bit_length() - 1)
                ),
                left.eq(self.count),
                self.index.eq(0),
                place.eq(0),
            ]
        return m
