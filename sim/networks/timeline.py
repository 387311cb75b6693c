"""Which layer a program's cycles go to, and what holds the card then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware.program import Program
from rtl.control.commands import Opcode, Queue, Stage

from ..cycles.model import Measurement

__all__ = ["HOLDERS", "Share", "attribute"]

HOLDERS = ("array", "update", "store", "vector", "load", "idle")
"""What holds the card in a cycle: the first of these that is under way."""

_HOLDER_OF = {
    Opcode.COMPUTE: "array",
    Opcode.VECTOR: "vector",
    Opcode.UPDATE: "update",
    Opcode.STORE: "store",
    Opcode.LOAD: "load",
}

_PRIORITY = (Queue.COMPUTE, Queue.STORE, Queue.VECTOR, Queue.LOAD, Queue.STREAM)


@dataclass(frozen=True)
class Share:
    """What a layer has of a program's cycles, in one stage.

    Parameters
    ----------
    label
        The layer's name, or what else the commands belong to.
    stage
        Part of the training step.
    start, end
        Cycles of the program in which its first command began and its last one ended.
    held
        Cycles that it is given, by what held the card: all shares together have every cycle once.
    read_bytes, written_bytes
        What its commands move from and to memory.
    commands
        How many it has.
    """

    label: str
    stage: Stage
    start: int
    end: int
    held: dict[str, int]
    read_bytes: int
    written_bytes: int
    commands: int

    @property
    def cycles(self) -> int:
        """Cycles that it is given."""
        return sum(self.held.values())


def attribute(program: Program, measurement: Measurement) -> list[Share]:
    """Divide a program's cycles among its layers.

    A cycle belongs to the layer whose COMPUTE is under way; if there is none, to that of the
    command of the store queue, then of the vector, the load and the stream queue; else to the one
    before. (The card's own counters divide cycles among the stages in the same order.)

    Parameters
    ----------
    program
        The program.
    measurement
        What it does, to its end.

    Returns
    -------
    A share for each layer and stage that has commands, in the order of their beginnings.
    """
    opcodes, stages = program.opcodes, program.stages
    labels = {label: number for number, label in enumerate(dict.fromkeys(program.labels))}
    groups = np.array(
        [
            labels[label] * len(Stage) + stage.value
            for label, stage in zip(program.labels, stages, strict=True)
        ]
    )
    holders = np.array([HOLDERS.index(_HOLDER_OF[opcode]) for opcode in opcodes])
    queues = np.array([queue.value for queue in program.queues])
    owner, holder, lengths = _segments(measurement, queues, holders)
    count = len(labels) * len(Stage)
    held = np.zeros((count, len(HOLDERS)), np.int64)
    np.add.at(held, (groups[owner], holder), lengths)
    start = np.full(count, measurement.cycles, np.int64)
    end = np.zeros(count, np.int64)
    np.minimum.at(start, groups, measurement.issued)
    np.maximum.at(end, groups, measurement.ended)
    moved = np.zeros((count, 2), np.int64)
    np.add.at(moved, groups, [program.traffic(index) for index in range(len(opcodes))])
    names = list(labels)
    shares = [
        Share(
            label=names[group // len(Stage)],
            stage=Stage(group % len(Stage)),
            start=int(start[group]),
            end=int(end[group]),
            held={name: int(cycles) for name, cycles in zip(HOLDERS, held[group]) if cycles},
            read_bytes=int(moved[group, 0]),
            written_bytes=int(moved[group, 1]),
            commands=int(commands),
        )
        for group, commands in enumerate(np.bincount(groups, minlength=count))
        if commands
    ]
    return sorted(shares, key=lambda share: (share.start, share.end))


def _segments(
    measurement: Measurement, queues: NDArray[np.int64], holders: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut a program's time where any queue turns to another command.

    Returns
    -------
    Of each segment the command that it belongs to, what holds the card, and its cycles.
    """
    busy = []
    for queue in _PRIORITY:
        own = np.flatnonzero(queues == queue.value)
        ended = np.maximum.accumulate(measurement.ended[own])
        # Of commands that overlap, the earlier one has the cycles of both.
        began = np.maximum(measurement.issued[own], np.concatenate([[0], ended[:-1]]))
        real = began < ended
        busy.append((own[real], began[real], ended[real]))
    times = [times for _, began, ended in busy for times in (began, ended)]
    cuts = np.unique(np.concatenate([*times, [0, measurement.cycles]]))
    cuts = cuts[cuts <= measurement.cycles]
    starts, lengths = cuts[:-1], np.diff(cuts)
    owner = np.full(len(starts), -1, np.int64)
    for own, began, ended in busy:
        place = np.searchsorted(began, starts, side="right") - 1
        active = (place >= 0) & (owner < 0)
        active[active] = ended[place[active]] > starts[active]
        owner[active] = own[place[active]]
    holder = np.where(owner >= 0, holders[owner], HOLDERS.index("idle"))
    # What nothing is under way in follows the command before, at the beginning the first one.
    latest = np.maximum.accumulate(np.where(owner >= 0, np.arange(len(owner)), -1))
    first = owner[np.argmax(owner >= 0)]
    return np.where(latest >= 0, owner[latest], first), holder, lengths
