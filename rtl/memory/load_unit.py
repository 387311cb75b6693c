"""Carries out LOAD: from memory to a scratchpad or to the update engine."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import Fault, LoadBody, LoadOrder, LoadTarget
from ..control.fault import FaultReport
from ..interface.axi import AXI4ReadSignature
from ..sparsity.pattern import Pattern, supported_patterns
from .placer import Placer
from .ports import AuxWriteSignature, DWriteSignature, SWriteSignature
from .products import PRODUCT_BITS, Products
from .read_dma import ReadDMA
from .transposer import Transposer

__all__ = ["LoadUnit"]


class LoadUnit(wiring.Component):
    """Checks each LOAD, reads what its descriptor names and places it.

    The check takes 12 cycles. The next command is taken, checked and its first reads are issued
    while the beats of the one before still arrive; its faults are reported only once that one is
    done.

    Parameters
    ----------
    config
        Sets all shapes.

    Attributes
    ----------
    command : In(stream of LoadBody)
        Commands.
    done : Out(1)
        One pulse per command, in order, while its last beat is written or after it was handed
        over.
    fault : Out(FaultReport)
        ``MALFORMED`` (a count of zero; rows that aren't a multiple of G for S, for tiles; beats to
        transpose that aren't; a sparse operand to transpose; a descriptor of another number of
        beats than the operand has) or ``PATTERN``, with address 0; ``SCRATCHPAD_RANGE`` with
        `base`; or a fault of the `ReadDMA`. Stays until reset.
    axi : Out(AXI4ReadSignature)
        Memory.
    s_write, d_write, aux_write : Out
        Scratchpads.
    update : Out(stream of beats)
        To the update engine.
    abort : In(1)
        Read nothing more and throw away what arrives; only a reset makes the unit usable again.
    idle : Out(1)
        No read is under way.
    beat : Out(1)
        A beat is taken from the bus in this cycle.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(LoadBody)),
                "done": Out(1),
                "fault": Out(FaultReport),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
                "s_write": Out(SWriteSignature(config)),
                "d_write": Out(DWriteSignature(config)),
                "aux_write": Out(AuxWriteSignature(config)),
                "update": Out(stream.Signature(unsigned(config.beat_bits))),
                "abort": In(1),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        g_shift = exact_log2(config.elements)
        rows_shift = exact_log2(config.rows)
        cols_shift = exact_log2(config.cols)

        m.submodules.dma = dma = ReadDMA(config)
        m.submodules.transposer = transposer = Transposer(config)
        m.submodules.placer = placer = Placer(config)
        m.submodules.products = products = Products([4, 3, 2])

        wiring.connect(m, dma.axi, wiring.flipped(self.axi))
        wiring.connect(m, placer.s_write, wiring.flipped(self.s_write))
        wiring.connect(m, placer.d_write, wiring.flipped(self.d_write))
        wiring.connect(m, placer.aux_write, wiring.flipped(self.aux_write))
        wiring.connect(m, placer.update, wiring.flipped(self.update))
        m.d.comb += [
            self.done.eq(placer.done),
            self.idle.eq(dma.idle),
            self.beat.eq(dma.beat),
            dma.abort.eq(self.abort),
        ]

        # The command and what follows from its pattern.
        body = Signal(LoadBody)
        supported, sparse = Signal(), Signal()
        steps_shift = Signal(range(exact_log2(config.ratio) + 1))
        tile_beats, words_per_row = Signal(16), Signal(16)
        to_s = body.target == LoadTarget.S
        tiles = to_s | ((body.target == LoadTarget.D) & (body.order == LoadOrder.TILES))
        with m.Switch(body.pattern):
            for pattern in supported_patterns(config):
                steps = pattern.steps(config)
                d_words_per_word = config.ratio // steps
                with m.Case(pattern):
                    m.d.comb += [
                        supported.eq(1),
                        sparse.eq(pattern is not Pattern.DENSE),
                        steps_shift.eq(exact_log2(steps)),
                        tile_beats.eq(pattern.tile_beats(config)),
                        words_per_row.eq(
                            (body.d_words + d_words_per_word - 1) >> exact_log2(d_words_per_word)
                        ),
                    ]
        row_step = Signal(16)
        m.d.comb += row_step.eq(Mux(to_s, words_per_row, body.d_words))

        # Beats that the descriptor names, beats that the operand has, words it takes of a bank.
        bank_rows = Signal(16)
        with m.Switch(body.target):
            with m.Case(LoadTarget.S):
                m.d.comb += bank_rows.eq(body.rows >> rows_shift)
            with m.Case(LoadTarget.D):
                m.d.comb += bank_rows.eq((body.rows + config.cols - 1) >> cols_shift)
            with m.Case(LoadTarget.AUX):
                m.d.comb += bank_rows.eq(body.rows)
        factors = [
            *body.descriptor.counts,
            Mux(to_s, body.rows >> g_shift, body.rows),
            body.d_words,
            Mux(to_s, tile_beats, 1),
            bank_rows,
            row_step,
        ]
        m.d.comb += [products.factors[i].eq(factor) for i, factor in enumerate(factors)]
        named_beats, beats, words = products.products

        depth = Signal(range((1 << 16) + 1))
        with m.Switch(body.target):
            with m.Case(LoadTarget.S):
                m.d.comb += depth.eq(config.s_depth)
            with m.Case(LoadTarget.D):
                m.d.comb += depth.eq(config.d_depth)
            with m.Case(LoadTarget.AUX):
                m.d.comb += depth.eq(config.aux_depth)

        verdict = Signal(FaultReport)
        malformed = (
            (body.rows == 0)
            | (body.d_words == 0)
            | (tiles & body.rows[:g_shift].any())
            | (to_s & body.transpose & sparse)
        )
        with m.If(malformed):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(to_s & ~supported):
            m.d.comb += verdict.code.eq(Fault.PATTERN)
        with m.Elif((named_beats != beats) | (body.transpose & beats[:g_shift].any())):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif((body.target != LoadTarget.STREAM) & (body.base + words > depth)):
            m.d.comb += [verdict.code.eq(Fault.SCRATCHPAD_RANGE), verdict.address.eq(body.base)]

        transposing = Signal()
        """Of the placement in work."""
        untransposed = Signal(PRODUCT_BITS)
        """Beats that the transposer has yet to get for it."""

        m.d.comb += dma.descriptor.payload.eq(body.descriptor)
        m.d.comb += [
            placer.placement.payload.target.eq(body.target),
            placer.placement.payload.tiles.eq(tiles),
            placer.placement.payload.sparse.eq(sparse),
            placer.placement.payload.steps_shift.eq(steps_shift),
            placer.placement.payload.base.eq(body.base),
            placer.placement.payload.count.eq(Mux(tiles, body.rows >> g_shift, body.rows)),
            placer.placement.payload.d_words.eq(body.d_words),
            placer.placement.payload.row_step.eq(row_step),
        ]

        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(~self.abort & (self.fault.code == Fault.NONE))
                with m.If(self.command.valid & self.command.ready):
                    m.d.sync += body.eq(self.command.payload)
                    m.next = "Start-Check"
            with m.State("Start-Check"):
                m.d.comb += products.start.eq(1)
                m.next = "Check"
            with m.State("Check"), m.If(products.done):
                m.next = "Issue-Descriptor"
                with m.If(verdict.code != Fault.NONE):
                    m.next = "Refuse"
            with m.State("Issue-Descriptor"):
                m.d.comb += dma.descriptor.valid.eq(1)
                with m.If(dma.descriptor.ready):
                    m.next = "Hand-Over"
            with m.State("Hand-Over"):
                m.d.comb += placer.placement.valid.eq(1)
                with m.If(placer.placement.ready):
                    m.d.sync += [transposing.eq(body.transpose), untransposed.eq(beats)]
                    m.next = "Wait-For-Command"
            # The command before ends first, so that the fault is this one's.
            with m.State("Refuse"), m.If(placer.placement.ready):
                m.d.sync += self.fault.eq(verdict)

        # A fault of a read waits for the beats before it to come out of the transposer.
        with m.If((dma.fault.code != Fault.NONE) & transposer.empty):
            m.d.sync += self.fault.eq(dma.fault)

        # From memory straight to the placer, or through the transposer.
        m.d.comb += transposer.i.payload.eq(dma.data.payload)
        with m.If(transposing):
            feed = untransposed != 0
            m.d.comb += [
                transposer.i.valid.eq(dma.data.valid & feed),
                dma.data.ready.eq(transposer.i.ready & feed),
                placer.beats.payload.eq(transposer.o.payload),
                placer.beats.valid.eq(transposer.o.valid),
                transposer.o.ready.eq(placer.beats.ready),
            ]
            with m.If(transposer.i.valid & transposer.i.ready):
                m.d.sync += untransposed.eq(untransposed - 1)
        with m.Else():
            m.d.comb += [
                placer.beats.payload.eq(dma.data.payload),
                placer.beats.valid.eq(dma.data.valid),
                dma.data.ready.eq(placer.beats.ready),
            ]

        return m
