"""Brings the state and the gradients of tiles together."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import FLOAT
from ..config import FLOAT_BITS, Config
from ..control.commands import UpdateBody
from ..delay import delayed
from ..memory.ports import O_READ_LATENCY, OReadSignature

__all__ = ["StateIntake"]


class StateIntake(wiring.Component):
    """Takes state beats in pairs, reads their gradients, and issues chunks of both.

    A chunk is `Config.update_lanes` weights.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    body : In(UpdateBody)
        The command, constant from `start` on.
    start : In(1)
        Begins a command, while `idle`.
    idle : Out(1)
        The last pair of the command's last tile has been taken.
    state : In(stream.Signature(unsigned(beat_bits)))
        A beat of weights, then one of momentum, for each O word of each row of each tile.
    o_read : Out(OReadSignature(config))
        Reads of the gradients.
    tile_free : In(1)
        The next tile may begin.
    tile_begin : Out(1)
        High for a cycle as a tile begins, its first beat not taken yet.
    pair_room : In(1)
        There is room for the results of a pair.
    pair_taken : Out(1)
        High for a cycle as the second beat of a pair is taken.
    segment_begin : Out(1)
        High with `pair_taken` for the first pair of every ``config.group`` rows of a tile.
    valid : Out(1)
        A chunk is issued; it cannot be kept waiting. The last chunks of two pairs are at least two
        cycles apart, however long their reads have waited.
    weights, velocities, gradients : Out(ArrayLayout(FLOAT, config.update_lanes))
        The chunk.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        chunk = data.ArrayLayout(FLOAT, config.update_lanes)
        super().__init__(
            {
                "body": In(UpdateBody),
                "start": In(1),
                "idle": Out(1),
                "state": In(stream.Signature(unsigned(config.beat_bits))),
                "o_read": Out(OReadSignature(config)),
                "tile_free": In(1),
                "tile_begin": Out(1),
                "pair_room": In(1),
                "pair_taken": Out(1),
                "segment_begin": Out(1),
                "valid": Out(1),
                "weights": Out(chunk),
                "velocities": Out(chunk),
                "gradients": Out(chunk),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        chunk_bits = config.update_lanes * FLOAT_BITS
        chunks = config.beat_bits // chunk_bits
        rows_per_tile = config.elements // config.cols

        # Where the next pair stands, and where its gradients do.
        tiles_left = Signal(16)
        row = Signal(range(config.elements))
        second_word = Signal()
        last_row = row == self.body.rows - 1
        bank = Signal(range(config.cols))
        tile_address, row_address = Signal(16), Signal(16)
        next_tile_address = Signal(16)
        m.d.comb += [
            self.idle.eq(tiles_left == 0),
            next_tile_address.eq(tile_address + self.body.o_stride * rows_per_tile),
        ]

        # Tiles begin when their copies have somewhere to go.
        tile_open = Signal()
        m.d.comb += self.tile_begin.eq(~self.idle & ~tile_open & self.tile_free)
        with m.If(self.tile_begin):
            m.d.sync += tile_open.eq(1)

        # Weights wait for their momentum; the pair then waits for the one before it to be issued.
        # Each pair's results leave in two beats, so pairs of a single chunk keep a cycle between
        # them: after reads that waited, both beats of the next pair may be here at once.
        weights = Signal(config.beat_bits, reset_less=True)
        has_weights = Signal()
        has_pair, issues = Signal(), Signal()
        chunk = Signal(range(chunks))
        is_last_issued = issues & (chunk == chunks - 1)
        pair_free = ~has_pair | is_last_issued if chunks > 1 else ~has_pair
        pair_ready = Signal()
        m.d.comb += [
            issues.eq(has_pair & self.o_read.ready),
            pair_ready.eq(self.pair_room & pair_free),
            self.state.ready.eq(tile_open & (~has_weights | pair_ready)),
            self.pair_taken.eq(self.state.valid & tile_open & has_weights & pair_ready),
            self.segment_begin.eq(self.pair_taken & ~second_word & (row % config.group == 0)),
        ]
        with m.If(self.state.valid & self.state.ready):
            m.d.sync += has_weights.eq(~has_weights)
            with m.If(~has_weights):
                m.d.sync += weights.eq(self.state.payload)
        with m.If(self.pair_taken):
            m.d.sync += second_word.eq(~second_word)
            with m.If(second_word):
                m.d.sync += [row.eq(row + 1), bank.eq(bank + 1)]
                with m.If(bank == config.cols - 1):
                    m.d.sync += row_address.eq(row_address + self.body.o_stride)
                with m.If(last_row):
                    m.d.sync += [
                        row.eq(0),
                        bank.eq(0),
                        tile_address.eq(next_tile_address),
                        row_address.eq(next_tile_address),
                        tile_open.eq(0),
                        tiles_left.eq(tiles_left - 1),
                    ]
        with m.If(self.start):
            m.d.sync += [
                tiles_left.eq(self.body.tiles),
                tile_address.eq(self.body.o_base),
                row_address.eq(self.body.o_base),
            ]

        # Issue the pair chunk by chunk, its O word being read at the same time.
        pair_weights = Signal(config.beat_bits, reset_less=True)
        pair_velocities = Signal(config.beat_bits, reset_less=True)
        with m.If(self.pair_taken):
            m.d.sync += [
                has_pair.eq(1),
                pair_weights.eq(weights),
                pair_velocities.eq(self.state.payload),
                self.o_read.bank.eq(bank),
                self.o_read.address.eq(row_address + second_word),
            ]
        with m.Elif(is_last_issued):
            m.d.sync += has_pair.eq(0)
        with m.If(issues):
            m.d.sync += chunk.eq(Mux(is_last_issued, 0, chunk + 1))

        # The chunk meets its gradients when these have been read.
        place = delayed(m, chunk, O_READ_LATENCY)
        chunk_weights = pair_weights.word_select(chunk, chunk_bits)
        chunk_velocities = pair_velocities.word_select(chunk, chunk_bits)
        m.d.comb += [
            self.valid.eq(delayed(m, issues, O_READ_LATENCY, reset=True)),
            self.weights.eq(delayed(m, chunk_weights, O_READ_LATENCY)),
            self.velocities.eq(delayed(m, chunk_velocities, O_READ_LATENCY)),
            self.gradients.eq(self.o_read.data.as_value().word_select(place, chunk_bits)),
        ]

        return m
