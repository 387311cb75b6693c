"""Weight update and pre-generation: SGD at stream rate, with both compressed copies on the way."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from ..arithmetic.formats import FLOAT, HALF
from ..block import Block
from ..config import Config
from ..control.commands import Fault, UpdateBody
from ..control.fault import FaultReport
from ..memory.descriptor import Descriptor
from ..memory.ports import OReadSignature
from ..sparsity.compressor import TileCompressor
from ..sparsity.packer import ChunkOrder
from ..sparsity.pattern import Pattern, supported_patterns
from .intake import StateIntake
from .sgd import SGDLane
from .transposer import BlockTransposer, ElementTransposer
from .writer import STATE_BEATS_PER_ROW, ResultWriter

__all__ = ["UpdateUnit"]


class UpdateUnit(wiring.Component):
    """Carries out UPDATE: new state and both compressed copies of each tile in one pass.

    One chunk of ``config.group`` weights goes through the SGD lanes in a cycle, or in
    `Config.update_slices`, as far as state arrives and results leave; `ResultWriter` tells in which
    order they leave.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    command : In(stream.Signature(UpdateBody))
        Commands, taken one after the other.
    state : In(stream.Signature(unsigned(beat_bits)))
        State beats of all tiles, as they lie in memory.
    o_read : Out(OReadSignature(config))
        Reads of the gradients.
    descriptor : Out(stream.Signature(Descriptor))
        Where the beats of `data` go.
    data : Out(stream.Signature(unsigned(beat_bits)))
        Results; the beats of a descriptor follow its handshake.
    done : Out(1)
        High for a cycle when a command's last beat has been handed over.
    fault : Out(FaultReport)
        MALFORMED (no tiles, rows not 1 to G, or fewer than G with a sparse or column copy),
        PATTERN, or SCRATCHPAD_RANGE with the address of the last O word asked for.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        beat = unsigned(config.beat_bits)
        super().__init__(
            {
                "command": In(stream.Signature(UpdateBody)),
                "state": In(stream.Signature(beat)),
                "o_read": Out(OReadSignature(config)),
                "descriptor": Out(stream.Signature(Descriptor)),
                "data": Out(stream.Signature(beat)),
                "done": Out(1),
                "fault": Out(FaultReport),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config

        m.submodules.intake = intake = StateIntake(config)
        m.submodules.writer = writer = ResultWriter(config)

        body, start = Signal(UpdateBody), Signal()
        self._accept_commands(m, body, start, idle=intake.idle & writer.idle)

        # State and gradients in.
        connect(m, flipped(self.state), intake.state)
        connect(m, flipped(self.o_read), intake.o_read)
        m.d.comb += [intake.body.eq(body), intake.start.eq(start)]

        # New weights and momentum, chunk by chunk.
        weights = data.ArrayLayout(FLOAT, config.update_lanes)
        new_weights, new_velocities = Signal(weights), Signal(weights)
        copies = Signal(data.ArrayLayout(HALF, config.update_lanes))
        lane_block = Block("sgd_lane", SGDLane())
        travelling = Signal(SGDLane.LATENCY)
        m.d.sync += travelling.eq(Cat(intake.valid, travelling))
        updated = travelling[-1]
        for index in range(config.update_lanes):
            m.submodules[f"lane_{index}"] = lane = lane_block.place(platform)
            m.d.comb += [
                lane.weight.eq(intake.weights[index]),
                lane.velocity.eq(intake.velocities[index]),
                lane.gradient.eq(intake.gradients[index]),
                lane.rate.eq(body.rate),
                lane.momentum.eq(body.momentum),
                lane.decay.eq(body.decay),
                lane.scale.eq(body.scale),
                lane.enable.eq(intake.valid | travelling.any()),
                new_weights[index].eq(lane.new_weight),
                new_velocities[index].eq(lane.new_velocity),
                copies[index].eq(lane.copy),
            ]

        # State out. A tile's worth of beats covers the time in which the copies are written.
        m.submodules.state_fifo = state_fifo = SyncFIFOBuffered(
            width=config.beat_bits, depth=STATE_BEATS_PER_ROW * config.elements + 1
        )
        self._collect_state(m, updated, new_weights, new_velocities, state_fifo)
        reserved = Signal(range(STATE_BEATS_PER_ROW * config.elements + 1))
        m.d.sync += reserved.eq(
            reserved
            + (intake.pair_taken << 1)
            - (state_fifo.r_stream.valid & state_fifo.r_stream.ready)
        )
        m.d.comb += intake.pair_room.eq(reserved <= STATE_BEATS_PER_ROW * config.elements - 2)

        # Copies out: along the rows as they come, along the columns transposed.
        chunk, chunk_complete = self._collect_copies(m, updated, copies)
        row_compressor = TileCompressor(config, ChunkOrder.ROW_MAJOR)
        column_compressor = TileCompressor(config, ChunkOrder.CHUNK_MAJOR)
        m.submodules.row_compressor = row_compressor
        m.submodules.column_compressor = column_compressor
        if config.update_lanes == 1:
            transposer: Any = ElementTransposer(config)
            m.d.comb += [
                transposer.i.valid.eq(updated & body.column_copy),
                transposer.i.payload.eq(copies[0]),
            ]
        else:
            transposer = BlockTransposer(config)
            m.d.comb += [
                transposer.i.valid.eq(chunk_complete & body.column_copy),
                transposer.i.payload.eq(chunk),
            ]
        m.submodules.transposer = transposer
        m.d.comb += [
            row_compressor.i.valid.eq(chunk_complete & body.row_copy),
            row_compressor.i.payload.eq(chunk),
        ]
        connect(m, transposer.o, column_compressor.i)
        for compressor, pattern, wanted in (
            (row_compressor, body.row_pattern, body.row_copy),
            (column_compressor, body.column_pattern, body.column_copy),
        ):
            m.d.comb += [
                compressor.pattern.eq(pattern),
                compressor.rows.eq(body.rows),
                compressor.begin.eq(intake.tile_begin & wanted),
            ]
        m.d.comb += intake.tile_free.eq(
            (row_compressor.free | ~body.row_copy) & (column_compressor.free | ~body.column_copy)
        )

        connect(m, state_fifo.r_stream, writer.state)
        connect(m, row_compressor.o, writer.row_copy)
        connect(m, column_compressor.o, writer.column_copy)
        connect(m, flipped(self.descriptor), writer.descriptor)
        connect(m, flipped(self.data), writer.data)
        m.d.comb += [
            writer.body.eq(body),
            writer.start.eq(start),
            writer.segment_begin.eq(intake.segment_begin),
            writer.row_complete.eq(row_compressor.complete),
            writer.column_complete.eq(column_compressor.complete),
            writer.row_beats.eq(row_compressor.beats),
            writer.column_beats.eq(column_compressor.beats),
        ]

        return m

    def _accept_commands(self, m: Module, body: Any, start: Signal, *, idle: Any) -> None:
        """Take a command into `body`, check it, run it until `idle`."""
        config = self._config
        rows_per_word = config.elements // config.cols
        patterns = supported_patterns(config)

        vector = body.rows < config.elements
        malformed = Signal()
        m.d.comb += malformed.eq(
            (body.tiles == 0)
            | (body.rows == 0)
            | (body.rows > config.elements)
            | (vector & body.row_copy & (body.row_pattern != Pattern.DENSE))
            | (vector & body.column_copy)
        )
        unsupported = Signal()
        m.d.comb += unsupported.eq(
            (body.row_copy & ~_any(body.row_pattern == pattern for pattern in patterns))
            | (body.column_copy & ~_any(body.column_pattern == pattern for pattern in patterns))
        )
        last_row = (body.tiles - 1)[:16] * rows_per_word + (body.rows - 1)[:8] // config.cols
        last_row_offset = Signal(unsigned(len(last_row) + 16), reset_less=True)
        last_word = Signal(len(last_row_offset) + 1)
        m.d.sync += last_row_offset.eq(last_row * body.o_stride)
        m.d.comb += last_word.eq(body.o_base + last_row_offset + 1)

        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += body.eq(self.command.payload)
                    m.next = "Check-Body"
            with m.State("Check-Body"):
                m.next = "Check-Range"
                with m.If(malformed):
                    m.d.sync += self.fault.code.eq(Fault.MALFORMED)
                    m.next = "Stopped"
                with m.Elif(unsupported):
                    m.d.sync += self.fault.code.eq(Fault.PATTERN)
                    m.next = "Stopped"
            with m.State("Check-Range"):
                with m.If(last_word >= config.o_depth):
                    m.d.sync += [
                        self.fault.code.eq(Fault.SCRATCHPAD_RANGE),
                        self.fault.address.eq(last_word),
                    ]
                    m.next = "Stopped"
                with m.Else():
                    m.d.comb += start.eq(1)
                    m.next = "Run"
            with m.State("Run"), m.If(idle):
                m.d.comb += self.done.eq(1)
                m.next = "Wait-For-Command"
            with m.State("Stopped"):
                pass

    def _collect_copies(self, m: Module, valid: Any, copies: Any) -> tuple[Any, Any]:
        """Return chunks of M weights, joined of those of the lanes, and when there is one."""
        slices = self._config.update_slices
        if slices == 1:
            return copies, valid
        bits = self._config.group * HALF.size
        earlier = Signal(bits - len(copies.as_value()), reset_less=True)
        number = Signal(range(slices))
        joined = Cat(earlier, copies)
        with m.If(valid):
            m.d.sync += [earlier.eq(joined[-len(earlier) :]), number.eq(number + 1)]
        return joined, valid & number.all()

    def _collect_state(
        self, m: Module, valid: Any, weights: Any, velocities: Any, fifo: SyncFIFOBuffered
    ) -> None:
        """Join chunks to beats and put them into `fifo`, weights before momentum.

        Pairs are at least two cycles apart, which `StateIntake` sees to; the FIFO has room for all
        that was issued.
        """
        bits = self._config.beat_bits
        chunks = self._config.floats // self._config.update_lanes
        weight_beat, velocity_beat = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        held_velocities = Signal(bits, reset_less=True)
        chunk = Signal(range(chunks))
        pair_complete, velocities_wait = Signal(), Signal()
        with m.If(valid):
            m.d.sync += [
                weight_beat.eq(Cat(weight_beat, weights)[-bits:]),
                velocity_beat.eq(Cat(velocity_beat, velocities)[-bits:]),
                chunk.eq(chunk + 1),
            ]
        m.d.sync += [
            pair_complete.eq(valid & (chunk == chunks - 1)),
            velocities_wait.eq(pair_complete),
            held_velocities.eq(velocity_beat),
        ]
        m.d.comb += [
            fifo.w_en.eq(pair_complete | velocities_wait),
            fifo.w_data.eq(held_velocities),
        ]
        with m.If(pair_complete):
            m.d.comb += fifo.w_data.eq(weight_beat)


def _any(conditions: Any) -> Any:
    """Return whether any of the one-bit `conditions` holds."""
    return Cat(*conditions).any()
