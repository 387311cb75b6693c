"""Brings the operands of a VECTOR to the lanes, a slice of a row at a time."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import FLOAT, HALF
from ..config import VECTOR_REGISTERS, Config
from ..control.commands import VectorBody
from ..delay import delayed
from .lane import PARTS

__all__ = ["RowSlice", "VectorIntake"]


class RowSlice(data.StructLayout):
    """Where a slice of a row belongs.

    Attributes
    ----------
    place
        Row and slice (the lowest bits) within its tile.
    part
        Number of the row among all of the command, modulo `PARTS`.
    first, last
        Its tile is the first or the last of its window.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "place": range(config.elements * config.vector_slices),
                "part": range(PARTS),
                "first": unsigned(1),
                "last": unsigned(1),
            }
        )


class VectorIntake(wiring.Component):
    """Takes the beats of a command's tiles, or reads registers, and issues slices of rows.

    A slice takes a cycle, or two if it comes from registers or if a wide one has two beats. A tile
    that is held takes a cycle a row, and so do the rows of a narrow tile that aren't worked on.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    body : In(VectorBody)
        The command, checked and constant from `start` on.
    start : In(1)
        Begins a command, while `idle`.
    idle : Out(1)
        Its last slice has been issued, and the beats behind it are taken.
    beats : In(stream of beats)
        Tiles as they lie in memory.
    register_address : Out
        Register and slice (the lowest bits) to be read.
    register : In(array of FLOAT)
        What was read, a cycle later.
    next : Out(RowSlice)
        The slice that is issued next.
    allow : In(1)
        It may be issued.
    issue : Out(1)
        It is.
    valid : Out(1)
        A slice has been issued in the cycle before.
    row_slice : Out(RowSlice)
        That one.
    x : Out(array of FLOAT)
        Its operands; those of narrow tiles are binary16, in the lower half.
    held : Out(array of array of HALF)
        For each column its elements of the tiles held.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        lanes = config.vector_lanes
        super().__init__(
            {
                "body": In(VectorBody),
                "start": In(1),
                "idle": Out(1),
                "beats": In(stream.Signature(unsigned(config.beat_bits))),
                "register_address": Out(range(config.vector_slices * VECTOR_REGISTERS)),
                "register": In(data.ArrayLayout(FLOAT, lanes)),
                "next": Out(RowSlice(config)),
                "allow": In(1),
                "issue": Out(1),
                "valid": Out(1),
                "row_slice": Out(RowSlice(config)),
                "x": Out(data.ArrayLayout(FLOAT, lanes)),
                "held": Out(data.ArrayLayout(data.ArrayLayout(HALF, 2), lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body = self._config, self.body
        lanes, slices = config.vector_lanes, config.vector_slices
        last_of_tile = config.elements - 1

        # Where the next beat or slice belongs.
        row, slice_ = Signal(range(config.elements)), Signal(range(slices))
        last_slice = slice_ == slices - 1
        last_row = row == delayed(m, body.rows - 1)
        part = Signal(range(PARTS))
        second_held = Signal()
        tile, group = Signal(16), Signal(16)
        last_tile = tile == delayed(m, body.window - 1)
        last_group = group == delayed(m, body.groups - 1)
        m.d.comb += [
            self.next.place.eq(Cat(slice_, row)),
            self.next.part.eq(part),
            self.next.first.eq(tile == 0),
            self.next.last.eq(last_tile),
        ]

        # A wide slice that has two beats waits for its second one; a beat of several is taken with
        # its last.
        gather = Signal()
        if slices == 1:
            upper_beat = Signal()
            lower = Signal(data.ArrayLayout(FLOAT, config.floats), reset_less=True)
            whole = ~body.wide | upper_beat
            ends_wide_beat: Any = Const(1)
            with m.If(self.issue):
                m.d.sync += upper_beat.eq(0)
            with m.If(gather):
                m.d.sync += [upper_beat.eq(1), lower.eq(self.beats.payload)]
        else:
            whole = Const(1)
            ends_wide_beat = slice_[:-1].all() if slices > 2 else Const(1)

        issue, tile_ends, hold = self.issue, Signal(), Signal()
        m.d.sync += self.valid.eq(issue)
        with m.If(issue):
            m.d.sync += [self.row_slice.eq(self.next), slice_.eq(slice_ + 1)]
            with m.If(last_slice):
                m.d.sync += [part.eq(part + 1), row.eq(row + 1)]

        with m.FSM():
            with m.State("Wait-For-Start"):
                m.d.comb += self.idle.eq(1)
                for position in (row, slice_, part, second_held, tile, group):
                    m.d.sync += position.eq(0)
                with m.If(self.start):
                    m.next = "Stream-Tile"
                    with m.If(body.from_registers):
                        m.next = "Read-Registers"
                    with m.Elif(body.held != 0):
                        m.next = "Hold-Tile"

            with m.State("Hold-Tile"):
                m.d.comb += [self.beats.ready.eq(1), hold.eq(self.beats.valid)]
                with m.If(hold):
                    m.d.sync += row.eq(row + 1)
                    with m.If(row == last_of_tile):
                        m.d.sync += second_held.eq(~second_held & body.held[1])
                        with m.If(second_held | ~body.held[1]):
                            m.next = "Stream-Tile"

            with m.State("Stream-Tile"):
                with m.If(row < body.rows):
                    m.d.comb += [
                        gather.eq(self.beats.valid & ~whole),
                        issue.eq(self.beats.valid & whole & self.allow),
                        self.beats.ready.eq(
                            ~whole | (self.allow & (last_slice | (body.wide & ends_wide_beat)))
                        ),
                    ]
                with m.Else():
                    m.d.comb += self.beats.ready.eq(1)
                    with m.If(self.beats.valid):
                        m.d.sync += row.eq(row + 1)
                with m.If(body.wide):
                    m.d.comb += tile_ends.eq(issue & last_slice & last_row)
                with m.Else():
                    taken = self.beats.valid & self.beats.ready
                    m.d.comb += tile_ends.eq(taken & (row == last_of_tile))
                with m.If(tile_ends):
                    m.d.sync += [row.eq(0), tile.eq(tile + 1)]
                    with m.If(last_tile):
                        m.d.sync += [tile.eq(0), group.eq(group + 1)]
                        with m.If(body.held != 0):
                            m.next = "Hold-Tile"
                        with m.If(last_group):
                            m.next = "Wait-For-Start"

            with m.State("Read-Registers"):
                m.next = "Issue-Registers"
            with m.State("Issue-Registers"):
                m.d.comb += issue.eq(self.allow)
                with m.If(issue):
                    m.next = "Read-Registers"
                    with m.If(last_slice & last_row):
                        m.next = "Wait-For-Start"

        # Registers: while x is taken, y is being read.
        x_register, y_register = Signal.like(body.x_register), Signal.like(body.y_register)
        m.d.comb += [
            x_register.eq(body.x_register + row),
            y_register.eq(body.y_register + row),
            self.register_address.eq(Cat(slice_, Mux(issue, y_register, x_register))),
        ]

        # The operands issued: a slice of what has arrived, and of the tiles held.
        narrow = _slices(HALF, self.beats.payload, config)
        if slices == 1:
            wide = data.View(
                data.ArrayLayout(FLOAT, lanes), Cat(lower.as_value(), self.beats.payload)
            )
        else:
            floats = data.ArrayLayout(FLOAT, lanes)
            wide = data.View(floats, self.beats.payload.word_select(slice_[:-1], floats.size))
        with m.If(issue):
            for i in range(lanes):
                with m.If(body.from_registers):
                    m.d.sync += self.x[i].eq(self.register[i])
                with m.Elif(body.wide):
                    m.d.sync += self.x[i].eq(wide[i])
                with m.Else():
                    m.d.sync += self.x[i].eq(narrow[slice_][i].as_value())
        for number in range(2):
            tile_held = Memory(shape=self.beats.payload.shape(), depth=config.elements, init=[])
            m.submodules[f"held_{number}"] = tile_held
            write = tile_held.write_port()
            # A slice of many is chosen before the register, one of few behind it.
            read = tile_held.read_port(domain="comb" if slices > 2 else "sync")
            m.d.comb += [
                write.addr.eq(row),
                write.data.eq(self.beats.payload),
                write.en.eq(hold & (second_held == number)),
                read.addr.eq(row),
            ]
            elements = _slices(HALF, read.data, config)
            issued = self.row_slice.place[: len(slice_)]
            for i in range(lanes):
                if slices > 2:
                    m.d.sync += self.held[i][number].eq(elements[slice_][i])
                else:
                    m.d.comb += self.held[i][number].eq(elements[issued][i])

        return m


def _slices(shape: Any, beat: Any, config: Config) -> data.View:
    """Return a beat of `shape` as its slices, each with an element for each lane."""
    row = data.ArrayLayout(shape, config.vector_lanes)
    return data.View(data.ArrayLayout(row, config.vector_slices), beat)
