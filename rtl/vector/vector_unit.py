"""Carries out VECTOR: element-wise arithmetic on tiles and registers, folds, and sums over rows."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from ..arithmetic.formats import FLOAT
from ..block import Block, block_name
from ..config import VECTOR_REGISTERS, Config
from ..control.commands import (
    CoefficientKind,
    Fault,
    Fold,
    VectorBody,
    VectorTarget,
)
from ..control.fault import FaultReport
from ..memory.descriptor import Descriptor
from .checker import VectorChecker
from .intake import VectorIntake
from .lane import VectorLane
from .sequencer import SLOWEST, VectorSequencer
from .writer import VectorWriter

__all__ = ["VectorUnit"]

_COEFFICIENTS = 3

_FOLD_SPACING = 8
"""Cycles from a slice of a tile to the same of the next, if they are folded: what was added must be
there before more is."""


class VectorUnit(wiring.Component):
    """Carries out one VECTOR after the other, a slice of a row a cycle.

    That's a row or a part of it (`Config.vector_slices`). `VectorSequencer.spacing` tells for which
    commands slices are further apart.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    command : In(stream.Signature(VectorBody))
        Commands.
    beats : In(stream.Signature(unsigned(beat_bits)))
        Tiles as they lie in memory.
    descriptor : Out(stream.Signature(Descriptor))
        Where the beats of `data` go.
    data : Out(stream.Signature(unsigned(beat_bits)))
        Results; the beats of a descriptor follow its handshake.
    done : Out(1)
        High for a cycle when a command's last beat has been handed over and its registers are
        written.
    fault : Out(FaultReport)
        See `VectorChecker.verdict`. Stays until reset.
    nonfinite : Out(range)
        Infinities and NaNs among what goes to memory.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        beat = unsigned(config.beat_bits)
        super().__init__(
            {
                "command": In(stream.Signature(VectorBody)),
                "beats": In(stream.Signature(beat)),
                "descriptor": Out(stream.Signature(Descriptor)),
                "data": Out(stream.Signature(beat)),
                "done": Out(1),
                "fault": Out(FaultReport),
                "nonfinite": Out(range(config.vector_lanes + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        m.submodules.checker = checker = VectorChecker(config)
        m.submodules.intake = intake = VectorIntake(config)
        m.submodules.sequencer = sequencer = VectorSequencer(config)
        m.submodules.writer = writer = VectorWriter(config)

        body = Signal(VectorBody)
        to_registers = body.target == VectorTarget.REGISTERS
        narrow = body.target == VectorTarget.NARROW
        wide = body.target == VectorTarget.WIDE
        to_memory = narrow | wide
        reduces = (body.reduce != Fold.NONE) | body.reduce_product
        m.d.comb += [
            checker.body.eq(body),
            intake.body.eq(body),
            sequencer.body.eq(body),
            self.descriptor.payload.eq(body.descriptor),
        ]
        connect(m, flipped(self.beats), intake.beats)

        # One command after the other. Its coefficients are loaded while it is checked.
        lanes_count, slices = config.vector_lanes, config.vector_slices
        slice_bits = exact_log2(slices)
        loads = _COEFFICIENTS * slices
        beats_left = Signal.like(checker.beats)
        coefficient = Signal(range(loads + 1), init=loads)
        loading = coefficient != loads
        with m.If(loading):
            m.d.sync += coefficient.eq(coefficient + 1)
        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += [body.eq(self.command.payload), coefficient.eq(0)]
                    m.next = "Start-Check"
            with m.State("Start-Check"):
                m.d.comb += [checker.start.eq(1), sequencer.begin.eq(1)]
                m.next = "Check"
            with m.State("Check"), m.If(checker.done):
                m.d.sync += beats_left.eq(Mux(to_memory, checker.beats, 0))
                m.next = "Start-Intake"
                with m.If(checker.verdict.code != Fault.NONE):
                    m.d.sync += self.fault.eq(checker.verdict)
                    m.next = "Stopped"
                with m.Elif(to_memory):
                    m.next = "Issue-Descriptor"
            with m.State("Issue-Descriptor"):
                m.d.comb += self.descriptor.valid.eq(1)
                with m.If(self.descriptor.ready):
                    m.next = "Start-Intake"
            with m.State("Start-Intake"), m.If(coefficient >= loads - 1):
                m.d.comb += intake.start.eq(1)
                m.next = "Compute"
            with m.State("Compute"), m.If(intake.idle & ~sequencer.busy):
                m.next = "Hand-Over"
                with m.If(to_registers):
                    m.d.comb += sequencer.drain.eq(1)
                    m.next = "Write-Registers"
                with m.Elif(reduces):
                    m.d.comb += sequencer.combine.eq(1)
                    m.next = "Add-Parts"
            with m.State("Write-Registers"), m.If(~sequencer.busy):
                m.next = "Hand-Over"
                with m.If(reduces):
                    m.d.comb += sequencer.combine.eq(1)
                    m.next = "Add-Parts"
            with m.State("Add-Parts"), m.If(~sequencer.busy):
                m.next = "Hand-Over"
            with m.State("Hand-Over"), m.If(beats_left == 0):
                m.d.comb += self.done.eq(1)
                m.next = "Wait-For-Command"
            with m.State("Stopped"):
                pass
        with m.If(self.data.valid & self.data.ready):
            m.d.sync += beats_left.eq(beats_left - 1)

        # Registers: coefficients first, then operands.
        registers = Memory(
            shape=data.ArrayLayout(FLOAT, lanes_count), depth=slices * VECTOR_REGISTERS, init=[]
        )
        m.submodules.registers = registers
        register_read, register_write = registers.read_port(), registers.write_port()
        m.d.comb += [
            register_read.addr.eq(intake.register_address),
            intake.register.eq(register_read.data),
            register_write.addr.eq(sequencer.register_address),
            register_write.en.eq(sequencer.to_register),
        ]
        loaded, taken = Signal(range(loads)), Signal()
        m.d.sync += [loaded.eq(coefficient), taken.eq(loading)]
        terms = (body.a, body.b, body.c)
        for index, term in enumerate(terms):
            with m.If(loading & (coefficient[slice_bits:] == index)):
                m.d.comb += register_read.addr.eq(
                    Cat(coefficient[:slice_bits], term.value[: len(body.x_register)])
                )
        # A term left out is -0, which changes no sum; that of a, with no other term, +0.
        absent = Cat(term.kind == CoefficientKind.ABSENT for term in terms)
        term_number = loaded[slice_bits:]
        from_register, negation, immediate = Signal(), Signal(FLOAT.size), Signal(FLOAT.size)
        with m.Switch(term_number):
            for index, term in enumerate(terms):
                with m.Case(index):
                    m.d.comb += [
                        from_register.eq(term.kind == CoefficientKind.REGISTER),
                        negation.eq(term.negative << FLOAT.size - 1),
                        immediate.eq(
                            Mux(
                                absent[index],
                                ~absent.all() << FLOAT.size - 1,
                                term.value ^ negation,
                            )
                        ),
                    ]

        # A slice goes on if there's room for what it gives, and if nothing is in its way. Phases
        # are counted from the command on, so that its time doesn't depend on those before it.
        folds = body.fold != Fold.NONE
        phase = Signal(range(SLOWEST))
        m.d.sync += phase.eq(Mux(sequencer.begin | (phase + 1 >= sequencer.spacing), 0, phase + 1))
        tile_pause = Signal(range(_FOLD_SPACING))
        begins_tile = intake.next.place == 0
        place = intake.next.place
        begins_narrow_beat = ~place[:slice_bits].any()
        begins_wide_beat = ~place[: max(0, slice_bits - 1)].any()
        gives = ((wide & begins_wide_beat) | (narrow & begins_narrow_beat)) & (
            ~folds | intake.next.last
        )
        m.d.comb += [
            intake.allow.eq(
                (~gives | writer.room) & ~(begins_tile & (tile_pause != 0)) & (phase == 0)
            ),
            writer.reserve.eq(intake.issue & gives),
            sequencer.valid.eq(intake.valid),
            sequencer.row_slice.eq(intake.row_slice),
        ]
        # Slices may have come late, but those of the next tile needn't. From its first one to each
        # of the others as many cycles pass as these can be apart at least.
        distance = Mux(body.wide, 2, sequencer.spacing) if slices == 1 else sequencer.spacing
        near = place[: exact_log2(_FOLD_SPACING)]
        elapsed = Signal(range(SLOWEST * _FOLD_SPACING))
        with m.Switch(distance):
            for cycles in range(1, SLOWEST + 1):
                with m.Case(cycles):
                    m.d.comb += elapsed.eq(near * cycles)
        is_far = place[len(near) :].any() | (elapsed >= _FOLD_SPACING)
        with m.If(intake.issue & folds):
            m.d.sync += tile_pause.eq(Mux(is_far, 0, _FOLD_SPACING - 1 - elapsed))
        with m.Elif(tile_pause != 0):
            m.d.sync += tile_pause.eq(tile_pause - 1)

        # The lanes.
        lane_block = Block(block_name(config, "vector_lane"), VectorLane(config))
        lanes = lane_block.place_all(m, platform, lanes_count)
        for i, lane in enumerate(lanes):
            m.d.comb += [
                lane.command.narrow.eq(~body.wide & ~body.from_registers),
                lane.command.y.eq(body.y),
                lane.command.mask.eq(body.mask),
                lane.command.function.eq(body.function),
                lane.command.without_a.eq(absent[0]),
                lane.step.eq(sequencer.step),
                lane.step.load.eq(Mux(taken, 1 << term_number, 0)),
                lane.step.load_slice.eq(loaded[:slice_bits]),
                lane.coefficient.eq(
                    Mux(from_register, register_read.data[i].as_value() ^ negation, immediate)
                ),
                lane.x.eq(intake.x[i]),
                lane.held.eq(intake.held[i]),
                lane.y_register.eq(register_read.data[i]),
                lane.enable.eq(sequencer.busy | taken),
                register_write.data[i].eq(lane.o),
                writer.floats[i].eq(lane.o),
                writer.halves[i].eq(lane.half),
            ]

        # Results to memory.
        connect(m, writer.data, flipped(self.data))
        m.d.comb += [
            writer.wide.eq(wide),
            writer.rows.eq(body.rows),
            writer.valid.eq(sequencer.to_memory),
            self.nonfinite.eq(writer.nonfinite),
        ]

        return m
