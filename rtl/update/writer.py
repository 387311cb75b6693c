"""Sends the results of an update to memory, each part after its descriptor."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..control.commands import UpdateBody
from ..memory.descriptor import Descriptor

__all__ = ["STATE_BEATS_PER_ROW", "ResultWriter"]

STATE_BEATS_PER_ROW = 4
"""Weights and momentum of each of two O words."""


class _Source(enum.Enum, shape=2):
    """Where the beats of a part come from."""

    STATE = 0
    ROW_COPY = 1
    COLUMN_COPY = 2


class ResultWriter(wiring.Component):
    """Chooses what is written next and hands over its descriptor and then its beats.

    State is written in segments of ``config.group`` rows, or what is left of a tile. The copies of
    a tile, row copy first, come after its state and, as soon as they are complete, before more
    state. The descriptor of a part may be sent while the part before it leaves.

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
        Nothing is known that has still to be written.
    segment_begin : In(1)
        The beats of one more segment of state will arrive.
    row_complete, column_complete : In(1)
        One more tile of a copy is complete.
    row_beats, column_beats : In(range(G + 1))
        Beats in a tile of each copy.
    state, row_copy, column_copy : In(stream.Signature(unsigned(beat_bits)))
        The beats.
    descriptor : Out(stream.Signature(Descriptor))
        Where the beats of `data` go; contiguous.
    data : Out(stream.Signature(unsigned(beat_bits)))
        The beats of a descriptor, which follow its handshake.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        beat = stream.Signature(unsigned(config.beat_bits))
        super().__init__(
            {
                "body": In(UpdateBody),
                "start": In(1),
                "idle": Out(1),
                "segment_begin": In(1),
                "row_complete": In(1),
                "column_complete": In(1),
                "row_beats": In(range(config.elements + 1)),
                "column_beats": In(range(config.elements + 1)),
                "state": In(beat),
                "row_copy": In(beat),
                "column_copy": In(beat),
                "descriptor": Out(stream.Signature(Descriptor)),
                "data": Out(beat),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body = self._config, self.body

        # What can be written. Copies take turns: a tile's row copy, then its column copy.
        segments = Signal(range(2 * config.elements))
        rows_ready, columns_ready = Signal(range(4)), Signal(range(4))
        tiles_due = Signal(range(4))
        column_turn = Signal()
        segment_chosen, row_chosen, column_chosen = Signal(), Signal(), Signal()
        tile_closed, copies_closed = Signal(), Signal()
        m.d.sync += [
            segments.eq(segments + self.segment_begin - segment_chosen),
            rows_ready.eq(rows_ready + self.row_complete - row_chosen),
            columns_ready.eq(columns_ready + self.column_complete - column_chosen),
            tiles_due.eq(tiles_due + tile_closed - copies_closed),
        ]

        # Choose the next part while the one before it leaves.
        state_address, row_address, column_address = (
            Signal(64, name=f"{name}_address") for name in ("state", "row", "column")
        )
        rows_left = Signal(range(config.elements + 1))
        segment_rows = Signal(range(config.group + 1))
        last_segment = rows_left <= config.group
        chosen, announced = Signal(), Signal()
        address = Signal(64)
        beats = Signal(range(max(STATE_BEATS_PER_ROW * config.group, config.elements) + 1))
        source = Signal(_Source)
        segment_beats = segment_rows * STATE_BEATS_PER_ROW
        m.d.comb += segment_rows.eq(Mux(last_segment, rows_left, config.group))
        with m.If(~chosen):
            with m.If((tiles_due != 0) & ~column_turn & (rows_ready != 0)):
                m.d.comb += [row_chosen.eq(1), copies_closed.eq(~body.column_copy)]
                m.d.sync += [
                    source.eq(_Source.ROW_COPY),
                    address.eq(row_address),
                    beats.eq(self.row_beats),
                    row_address.eq(row_address + body.row_stride),
                    column_turn.eq(body.column_copy),
                ]
            with m.Elif((tiles_due != 0) & column_turn & (columns_ready != 0)):
                m.d.comb += [column_chosen.eq(1), copies_closed.eq(1)]
                m.d.sync += [
                    source.eq(_Source.COLUMN_COPY),
                    address.eq(column_address),
                    beats.eq(self.column_beats),
                    column_address.eq(column_address + body.column_stride),
                    column_turn.eq(~body.row_copy),
                ]
            with m.Elif(segments != 0):
                m.d.comb += [
                    segment_chosen.eq(1),
                    tile_closed.eq(last_segment & (body.row_copy | body.column_copy)),
                ]
                m.d.sync += [
                    source.eq(_Source.STATE),
                    address.eq(state_address),
                    beats.eq(segment_beats),
                    state_address.eq(state_address + segment_beats * config.beat_bytes),
                    rows_left.eq(Mux(last_segment, body.rows, rows_left - config.group)),
                ]
        with m.If(row_chosen | column_chosen | segment_chosen):
            m.d.sync += chosen.eq(1)
        with m.If(self.start):
            m.d.sync += [
                state_address.eq(body.state_address),
                row_address.eq(body.row_address),
                column_address.eq(body.column_address),
                rows_left.eq(body.rows),
                column_turn.eq(~body.row_copy),
            ]

        m.d.comb += [
            self.descriptor.valid.eq(chosen & ~announced),
            self.descriptor.payload.address.eq(address),
            self.descriptor.payload.counts[0].eq(beats),
        ]
        for count in list(self.descriptor.payload.counts)[1:]:
            m.d.comb += count.eq(1)
        with m.If(self.descriptor.valid & self.descriptor.ready):
            m.d.sync += announced.eq(1)

        # Hand over the part announced.
        left = Signal.like(beats)
        current = Signal(_Source)
        active = left != 0
        with m.Switch(current):
            for case, beat_stream in (
                (_Source.STATE, self.state),
                (_Source.ROW_COPY, self.row_copy),
                (_Source.COLUMN_COPY, self.column_copy),
            ):
                with m.Case(case):
                    m.d.comb += [
                        self.data.payload.eq(beat_stream.payload),
                        self.data.valid.eq(active & beat_stream.valid),
                        beat_stream.ready.eq(active & self.data.ready),
                    ]
        ending = Signal()
        m.d.comb += ending.eq((left == 1) & self.data.valid & self.data.ready)
        with m.If(self.data.valid & self.data.ready):
            m.d.sync += left.eq(left - 1)
        with m.If(announced & (~active | ending)):
            m.d.sync += [left.eq(beats), current.eq(source), chosen.eq(0), announced.eq(0)]

        m.d.comb += self.idle.eq((segments == 0) & (tiles_due == 0) & ~chosen & ~active)

        return m
