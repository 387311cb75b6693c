"""Brings the operands of a VECTOR to the lanes, half a row at a time."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arithmetic.formats import FLOAT, HALF
from ..config import VECTOR_REGISTERS, Config
from ..control.commands import VectorBody

__all__ = ["HalfRow", "VectorIntake"]


class HalfRow(data.StructLayout):
    """Where half a row belongs.

    Attributes
    ----------
    place
        Row and half (the lowest bit) within its tile.
    part
        Number of the row among all of the command, modulo four.
    first, last
        Its tile is the first or the last of its window.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "place": unsigned(exact_log2(config.elements) + 1),
                "part": unsigned(2),
                "first": unsigned(1),
                "last": unsigned(1),
            }
        )


class VectorIntake(wiring.Component):
    """Takes the beats of a command's tiles, or reads registers, and issues half rows.

    A half row takes a cycle as beats come, from registers two. A tile that is held takes a cycle a
    row, and so do the rows of a narrow tile that aren't worked on.

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
        Its last half row has been issued, and the beats behind it are taken.
    beats : In(stream of beats)
        Tiles as they lie in memory.
    register_address : Out
        Register and half (the lowest bit) to be read.
    register : In(array of FLOAT)
        What was read, a cycle later.
    next : Out(HalfRow)
        The half row that is issued next.
    allow : In(1)
        It may be issued.
    issue : Out(1)
        It is.
    valid : Out(1)
        A half row has been issued in the cycle before.
    half_row : Out(HalfRow)
        That one.
    x : Out(array of FLOAT)
        Its operands; those of narrow tiles are binary16, in the lower half.
    held : Out(array of array of HALF)
        For each column its elements of the tiles held.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(VectorBody),
                "start": In(1),
                "idle": Out(1),
                "beats": In(stream.Signature(unsigned(config.beat_bits))),
                "register_address": Out(range(2 * VECTOR_REGISTERS)),
                "register": In(data.ArrayLayout(FLOAT, config.floats)),
                "next": Out(HalfRow(config)),
                "allow": In(1),
                "issue": Out(1),
                "valid": Out(1),
                "half_row": Out(HalfRow(config)),
                "x": Out(data.ArrayLayout(FLOAT, config.floats)),
                "held": Out(data.ArrayLayout(data.ArrayLayout(HALF, 2), config.floats)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body = self._config, self.body
        last_of_tile = config.elements - 1

        # Where the next beat or half row belongs.
        row, half = Signal(range(config.elements)), Signal()
        part = Signal(2)
        second_held = Signal()
        tile, group = Signal(16), Signal(16)
        last_tile = tile == body.window - 1
        last_group = group == body.groups - 1
        m.d.comb += [
            self.next.place.eq(Cat(half, row)),
            self.next.part.eq(part),
            self.next.first.eq(tile == 0),
            self.next.last.eq(last_tile),
        ]

        issue, tile_ends, hold = self.issue, Signal(), Signal()
        m.d.sync += self.valid.eq(issue)
        with m.If(issue):
            m.d.sync += [self.half_row.eq(self.next), half.eq(~half)]
            with m.If(half):
                m.d.sync += [part.eq(part + 1), row.eq(row + 1)]

        with m.FSM():
            with m.State("Wait-For-Start"):
                m.d.comb += self.idle.eq(1)
                for position in (row, half, part, second_held, tile, group):
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
                        issue.eq(self.beats.valid & self.allow),
                        self.beats.ready.eq(self.allow & (half | body.wide)),
                    ]
                with m.Else():
                    m.d.comb += self.beats.ready.eq(1)
                    with m.If(self.beats.valid):
                        m.d.sync += row.eq(row + 1)
                with m.If(body.wide):
                    m.d.comb += tile_ends.eq(issue & half & (row == body.rows - 1))
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
                    with m.If(half & (row == body.rows - 1)):
                        m.next = "Wait-For-Start"

        # Registers: while x is taken, y is being read.
        first_register = Signal.like(body.x_register)
        m.d.comb += [
            first_register.eq(Mux(issue, body.y_register, body.x_register)),
            self.register_address.eq(Cat(half, (first_register + row)[: len(first_register)])),
        ]

        # The operands issued: half a row of what has arrived, and of the tiles held.
        narrow = data.View(data.ArrayLayout(HALF, config.elements), self.beats.payload)
        wide = data.View(data.ArrayLayout(FLOAT, config.floats), self.beats.payload)
        with m.If(issue):
            for i in range(config.floats):
                chosen = Mux(half, narrow[config.floats + i].as_value(), narrow[i].as_value())
                with m.If(body.from_registers):
                    m.d.sync += self.x[i].eq(self.register[i])
                with m.Elif(body.wide):
                    m.d.sync += self.x[i].eq(wide[i])
                with m.Else():
                    m.d.sync += self.x[i].eq(chosen)
        for number in range(2):
            tile_held = Memory(shape=self.beats.payload.shape(), depth=config.elements, init=[])
            m.submodules[f"held_{number}"] = tile_held
            write, read = tile_held.write_port(), tile_held.read_port()
            m.d.comb += [
                write.addr.eq(row),
                write.data.eq(self.beats.payload),
                write.en.eq(hold & (second_held == number)),
                read.addr.eq(row),
            ]
            elements = data.View(data.ArrayLayout(HALF, config.elements), read.data)
            upper = self.half_row.place[0]
            for i in range(config.floats):
                chosen = Mux(upper, elements[config.floats + i].as_value(), elements[i].as_value())
                m.d.comb += self.held[i][number].eq(chosen)

        return m
