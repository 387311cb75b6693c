"""Carries out LOAD: from memory to a scratchpad or to a unit that asks for beats."""

from collections.abc import Collection
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import Fault, LoadBody, LoadOrder, LoadTarget
from ..control.fault import FaultReport
from ..interface.axi import AXI4ReadSignature
from ..sparsity.pattern import Pattern, supported_patterns
from .framer import Framer
from .placer import Placer, target_ports
from .products import Products
from .read_dma import ReadDMA
from .transposer import Transposer

__all__ = ["LoadUnit"]


class LoadUnit(wiring.Component):
    """Checks each LOAD, reads what its descriptor names and places it.

    The check takes 11 cycles. The next command is taken, checked and its first reads are issued
    while the beats of the one before still arrive, and its beats go into the transposer while that
    one's still come out; its faults are reported only once that one is done.

    Parameters
    ----------
    config
        Sets all shapes.
    targets
        Where the LOADs go that it is given. There is nothing in it for others.

    Attributes
    ----------
    command : In(stream of LoadBody)
        Commands, to `targets` or to none that there is.
    done : Out(1)
        One pulse per command, in order, while its last beat is written or after it was handed
        over.
    fault : Out(FaultReport)
        ``MALFORMED`` (an unknown target; a count of zero, in a frame as well; a frame with a side
        of 2**16 or more; rows that aren't a multiple of G for S, for tiles; beats to transpose that
        aren't; a sparse operand to transpose; a descriptor or a frame of another number of beats
        than the operand has) or ``PATTERN``, with address 0; ``SCRATCHPAD_RANGE`` with `base`; or
        a fault of the `ReadDMA`. Stays until reset.
    axi : Out(AXI4ReadSignature)
        Memory.
    s_write, d_write, aux_write : Out
        Scratchpads, each only if it's a target.
    stream, state : Out(stream of beats)
        To the vector unit, and to the update engine, each only if it's a target.
    abort : In(1)
        Read nothing more and throw away what arrives; only a reset makes the unit usable again.
    idle : Out(1)
        No read is under way.
    beat : Out(1)
        A beat is taken from the bus in this cycle.
    """

    def __init__(self, config: Config, targets: Collection[LoadTarget] = tuple(LoadTarget)) -> None:
        self._config = config
        self._targets = tuple(targets)
        super().__init__(
            {
                "command": In(stream.Signature(LoadBody)),
                "done": Out(1),
                "fault": Out(FaultReport),
                "axi": Out(AXI4ReadSignature(config.beat_bits)),
                **target_ports(config, self._targets),
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
        m.submodules.framer = framer = Framer(config)
        m.submodules.transposer = transposer = Transposer(config)
        m.submodules.placer = placer = Placer(config, self._targets)
        m.submodules.memory_products = memory_products = Products([4, 3])
        m.submodules.operand_products = operand_products = Products([3, 2, 3])

        wiring.connect(m, dma.axi, wiring.flipped(self.axi))
        for name in target_ports(config, self._targets):
            wiring.connect(m, getattr(placer, name), wiring.flipped(getattr(self, name)))
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

        def goes_to(target: LoadTarget) -> Value:
            return body.target == target if target in self._targets else Const(0)

        to_s = goes_to(LoadTarget.S)
        tiles = to_s | (goes_to(LoadTarget.D) & (body.order == LoadOrder.TILES))
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

        # Beats that the descriptor names, of these those that the frame surrounds, beats that the
        # operand has, words it takes of a bank, beats of the framed images.
        bank_rows = Signal(16)
        to_scratchpad = Signal()
        depth = Signal(range((1 << 16) + 1))
        for target, its_rows, its_depth in (
            (LoadTarget.S, body.rows >> rows_shift, config.s_depth),
            (LoadTarget.D, (body.rows + config.cols - 1) >> cols_shift, config.d_depth),
            (LoadTarget.AUX, body.rows, config.aux_depth),
        ):
            with m.If(goes_to(target)):
                m.d.comb += [to_scratchpad.eq(1), bank_rows.eq(its_rows), depth.eq(its_depth)]
        frame, framed = body.frame, Signal()
        height, width = Signal(17), Signal(18)
        m.d.comb += [
            framed.eq(frame.as_value().any()),
            height.eq(frame.above + frame.lines + frame.below),
            width.eq(frame.before + frame.beats + frame.after),
        ]
        memory_factors = [*body.descriptor.counts, frame.images, frame.lines, frame.beats]
        operand_factors = [
            Mux(to_s, body.rows >> g_shift, body.rows),
            body.d_words,
            Mux(to_s, tile_beats, 1),
            bank_rows,
            row_step,
            frame.images,
            height[:16],
            width[:16],
        ]
        for unit, factors in (
            (memory_products, memory_factors),
            (operand_products, operand_factors),
        ):
            m.d.comb += [unit.factors[i].eq(factor) for i, factor in enumerate(factors)]
        named_beats, inner_beats = memory_products.products
        beats, words, framed_beats = operand_products.products

        verdict = Signal(FaultReport)
        malformed = (
            (body.target.as_value() > max(target.value for target in LoadTarget))
            | (body.rows == 0)
            | (body.d_words == 0)
            | (tiles & body.rows[:g_shift].any())
            | (to_s & body.transpose & sparse)
            | (framed & ((frame.images == 0) | (frame.lines == 0) | (frame.beats == 0)))
            | height[16:].any()
            | width[16:].any()
        )
        other_beats = Mux(
            framed,
            (named_beats != inner_beats) | (framed_beats != beats),
            named_beats != beats,
        )
        with m.If(malformed):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(to_s & ~supported):
            m.d.comb += verdict.code.eq(Fault.PATTERN)
        with m.Elif(other_beats | (body.transpose & beats[:g_shift].any())):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(to_scratchpad & (body.base + words > depth)):
            m.d.comb += [verdict.code.eq(Fault.SCRATCHPAD_RANGE), verdict.address.eq(body.base)]

        feeds_transposer, from_transposer = Signal(), Signal()
        """Of the framing, and of the placement, in work."""

        m.d.comb += [
            dma.descriptor.payload.eq(body.descriptor),
            framer.framing.payload.framed.eq(framed),
            framer.framing.payload.frame.eq(frame),
            framer.framing.payload.beats.eq(beats),
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
                m.d.comb += [memory_products.start.eq(1), operand_products.start.eq(1)]
                m.next = "Check"
            with m.State("Check"), m.If(operand_products.done):
                m.next = "Issue-Descriptor"
                with m.If(verdict.code != Fault.NONE):
                    m.next = "Refuse"
            with m.State("Issue-Descriptor"):
                m.d.comb += dma.descriptor.valid.eq(1)
                with m.If(dma.descriptor.ready):
                    m.next = "Hand-Over-Framing"
            with m.State("Hand-Over-Framing"):
                m.d.comb += framer.framing.valid.eq(1)
                with m.If(framer.framing.ready):
                    m.d.sync += feeds_transposer.eq(body.transpose)
                    m.next = "Hand-Over-Placement"
            with m.State("Hand-Over-Placement"):
                m.d.comb += placer.placement.valid.eq(1)
                with m.If(placer.placement.ready):
                    m.d.sync += from_transposer.eq(body.transpose)
                    m.next = "Wait-For-Command"
            # The command before ends first, so that the fault is this one's.
            with m.State("Refuse"), m.If(placer.placement.ready):
                m.d.sync += self.fault.eq(verdict)

        # From memory into the frame, and then straight to the placer or through the transposer.
        arriving: Any = dma.data
        empty: Value = transposer.empty
        if config.decoupled_loads:
            m.submodules.beats = buffer = fifo.SyncFIFOBuffered(width=config.beat_bits, depth=4)
            wiring.connect(m, dma.data, buffer.w_stream)
            arriving = buffer.r_stream
            empty = empty & (buffer.level == 0)
        wiring.connect(m, arriving, framer.i)

        # A fault of a read waits for the beats before it to come out, zeros of the frame as well.
        with m.If((dma.fault.code != Fault.NONE) & ~framer.zero & empty):
            m.d.sync += self.fault.eq(dma.fault)

        m.d.comb += [
            transposer.i.payload.eq(framer.o.payload),
            transposer.i.valid.eq(framer.o.valid & feeds_transposer),
        ]
        with m.If(from_transposer):
            m.d.comb += [
                placer.beats.payload.eq(transposer.o.payload),
                placer.beats.valid.eq(transposer.o.valid),
                transposer.o.ready.eq(placer.beats.ready),
            ]
        with m.Else():
            m.d.comb += [
                placer.beats.payload.eq(framer.o.payload),
                placer.beats.valid.eq(framer.o.valid & ~feeds_transposer),
            ]
        m.d.comb += framer.o.ready.eq(
            Mux(feeds_transposer, transposer.i.ready, placer.beats.ready & ~from_transposer)
        )

        return m
