"""Learned positions, which are added to the tokens of all images."""

from __future__ import annotations

from rtl.control.commands import Fold, Stage, VectorOperand, VectorTarget

from ..layers import PositionTensors
from ..tokens import TokenActivations
from .assembly import Assembly
from .patch import cut
from .pieces import Needs, Pieces, Steps, Written, line_pieces
from .vectors import Feed, Register, Vectors

__all__ = ["PositionSchedule"]

_ROWS = 16
"""Positions that are updated at once: as many registers are taken by each of three values."""

_VALUE, _MOMENTUM, _GRADIENT = (Register(index * _ROWS) for index in range(3))


class PositionSchedule:
    """Adds the passes of one position embedding to a program.

    Parameters
    ----------
    assembly
        The program.
    tensors
        What it learns.
    """

    def __init__(self, assembly: Assembly, tensors: PositionTensors) -> None:
        self._assembly = assembly
        self._tensors = tensors

    def initialise(self) -> None:
        """Add the binary16 copies of the positions."""
        vectors = Vectors(self._assembly, Stage.UPDATE)
        for word in range(self._tensors.copy.words):
            self._copy(vectors, self._tensors, word)

    def forward(self, x: TokenActivations, y: TokenActivations) -> Steps:
        """Add ``y = x + positions``."""
        vectors, config = Vectors(self._assembly, Stage.FF), self._assembly.config
        positions = self._tensors.copy.line_tiles(0, range(1))
        for block, lines in line_pieces(y, 2):
            yield Needs(x, block, lines.stop)
            tiles = y.line_tiles(block, lines)
            # The same tiles for each image.
            yield from vectors.map_pieces(
                [list(positions) * len(lines), x.line_tiles(block, lines)],
                tiles,
                rows=config.elements,
                a=1.0,
                b=1.0,
                y=VectorOperand.HELD_0,
            )
            yield Written(y, tiles)

    def learn(self, dy: TokenActivations, updated: PositionTensors) -> Pieces:
        """Add the gradients of the positions, sums over all images, and their update.

        Parameters
        ----------
        dy
            Gradient by the output, which is also that by the input.
        updated
            Receives what the next step needs.
        """
        sums = Vectors(self._assembly, Stage.BP)
        updates = Vectors(self._assembly, Stage.UPDATE)
        config, tensors = self._assembly.config, self._tensors
        images, columns = dy.shape.height, dy.shape.width
        for word in range(dy.words):
            for column, rows in enumerate(tensors.rows):
                tiles = [dy.tile(0, image, column, word) for image in range(images)]
                sums.stream(
                    [Feed(tiles)],
                    groups=1,
                    window=images,
                    rows=rows,
                    a=1.0,
                    fold=Fold.SUM if images > 1 else Fold.NONE,
                    target=VectorTarget.WIDE,
                    results=[tensors.gradients.position(word, column * config.elements)],
                )
                yield images * config.elements
            for part in cut(dy.tokens, min(_ROWS, config.elements)):
                self._update(updates, updated, word, part.start, len(part))
            self._copy(updates, updated, word)
            yield columns * config.elements

    def _update(
        self, vectors: Vectors, updated: PositionTensors, word: int, first: int, rows: int
    ) -> None:
        """Add SGD on some positions."""
        tensors = self._tensors
        for register, records in (
            (_VALUE, tensors.values),
            (_MOMENTUM, tensors.momentum),
            (_GRADIENT, tensors.gradients),
        ):
            vectors.read_registers(register, rows, records.positions(word, first, rows))
        vectors.compute(_GRADIENT, _GRADIENT, a=0.0, b=0.0, y=_VALUE, rows=rows)
        vectors.adjust(a=lambda step: 2.0**-step.scale, b=lambda step: step.decay)
        vectors.compute(_MOMENTUM, _MOMENTUM, a=0.0, b=1.0, y=_GRADIENT, rows=rows)
        vectors.adjust(a=lambda step: step.momentum)
        vectors.compute(_VALUE, _VALUE, b=0.0, y=_MOMENTUM, rows=rows)
        vectors.adjust(b=lambda step: -step.rate)
        for register, records in ((_VALUE, updated.values), (_MOMENTUM, updated.momentum)):
            vectors.write_registers(register, rows, records.positions(word, first, rows))

    def _copy(self, vectors: Vectors, tensors: PositionTensors, word: int) -> None:
        """Add the binary16 copy of G channels of all positions."""
        for column, rows in enumerate(tensors.rows):
            first = column * self._assembly.config.elements
            vectors.stream(
                [Feed([tensors.values.position(word, first)], wide=True)],
                groups=1,
                rows=rows,
                a=1.0,
                target=VectorTarget.NARROW,
                results=[tensors.copy.tile(0, 0, column, word)],
            )
