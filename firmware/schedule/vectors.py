"""Commands of the vector unit: arithmetic on its registers, and on tiles that stream through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtl.control.commands import (
    CoefficientKind,
    Fold,
    Function,
    Mask,
    Stage,
    VectorOperand,
    VectorTarget,
)

from ..program import descriptor
from ..tensor import Activations, Records
from .assembly import Assembly, Step, float_bits, nests
from .patch import cut
from .pieces import PIECE_BEATS, Needs, Pieces, Steps, Written, line_pieces

__all__ = ["Feed", "Gather", "Register", "Vectors"]


@dataclass(frozen=True)
class Register:
    """A register of the vector unit; ``-register`` is a coefficient of the other sign."""

    number: int
    negative: bool = False

    def __neg__(self) -> Register:
        return Register(self.number, not self.negative)


_COMMAND = 60
"""Cycles of a command beside what it streams, about."""

Coefficient = float | Register | None


def _coefficient(value: Coefficient) -> dict[str, Any]:
    """Return the fields of a coefficient; None is an absent one."""
    if value is None:
        return {"kind": CoefficientKind.ABSENT}
    if isinstance(value, Register):
        return {
            "kind": CoefficientKind.REGISTER,
            "negative": int(value.negative),
            "value": value.number,
        }
    return {"kind": CoefficientKind.IMMEDIATE, "value": float_bits(value)}


def _coefficients(**values: Coefficient) -> dict[str, Any]:
    return {name: _coefficient(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Feed:
    """Tiles that a LOAD brings, in their order.

    Parameters
    ----------
    tiles
        Addresses.
    transpose
        Transpose each on the way.
    wide
        They are rows of binary32.
    """

    tiles: Sequence[int]
    transpose: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Gather:
    """Beats from anywhere, as a LOAD with these fields puts them together to tiles."""

    fields: dict[str, Any]


class Vectors:
    """Adds commands of the vector unit to a program.

    Parameters
    ----------
    assembly
        The program.
    stage
        Part of a training step that the commands belong to.
    """

    def __init__(self, assembly: Assembly, stage: Stage) -> None:
        self._assembly = assembly
        self._config = assembly.config
        self._stage = stage
        self._cycles = 0

    def elapsed(self) -> int:
        """Return about how many cycles what has been added since the last call takes."""
        cycles, self._cycles = self._cycles, 0
        return cycles

    def compute(
        self,
        target: Register | None,
        x: Register,
        *,
        a: Coefficient = 1.0,
        b: Coefficient = None,
        y: Register | None = None,
        c: Coefficient = None,
        function: Function = Function.IDENTITY,
        rows: int = 1,
        reduce: Fold = Fold.NONE,
        into: Register | None = None,
    ) -> None:
        """Add ``target = function(a * x + b * y + c)`` on registers.

        With several `rows` also on those that follow `target`, `x` and `y`; `reduce` puts the sum
        or the maximum of the results into `into`.
        """
        body: dict[str, Any] = {
            "groups": 1,
            "window": 1,
            "rows": rows,
            "from_registers": 1,
            "x_register": x.number,
            "function": function,
            **_coefficients(a=a, b=b, c=c),
        }
        if target is not None:
            body |= {"target": VectorTarget.REGISTERS, "target_register": target.number}
        if y is not None:
            body |= {"y": VectorOperand.REGISTER, "y_register": y.number}
        if into is not None:
            body |= {"reduce": reduce, "reduce_register": into.number}
        self._add([], rows, body)

    def adjust(self, **coefficients: Callable[[Step], float]) -> None:
        """Let coefficients of the command added last depend on the step."""

        def fields(step: Step) -> dict[str, Any]:
            return {name: _coefficient(value(step)) for name, value in coefficients.items()}

        self._assembly.adjust(fields)

    def descend(self, value: Register, momentum: Register, gradient: Register) -> None:
        """Add a step of SGD, without weight decay, on G values in registers."""
        self.compute(momentum, momentum, a=0.0, b=1.0, y=gradient)
        self.adjust(a=lambda step: step.momentum, b=lambda step: 2.0**-step.scale)
        self.compute(value, value, b=0.0, y=momentum)
        self.adjust(b=lambda step: -step.rate)

    def fill(self, records: Records, block: int, count: int, first: Register) -> None:
        """Add the loading of the first `count` values of G channels into registers."""
        address = records.row(block, records.names[0])
        for register, values, source in self._values(address, count, first):
            self.read_registers(register, values, source)

    def spill(self, records: Records, block: int, name: str, count: int, first: Register) -> None:
        """Add the writing of registers to `count` values of G channels, from value `name` on."""
        address = records.row(block, name)
        for register, values, target in self._values(address, count, first):
            self.write_registers(register, values, target)

    def _values(
        self, address: int, count: int, first: Register
    ) -> Iterator[tuple[Register, int, dict[str, Any]]]:
        """Yield the registers, as many as a tile has rows at most, in which values belong."""
        for part in cut(count, self._config.elements):
            place = address + 2 * part.start * self._config.beat_bytes
            register = Register(first.number + part.start)
            yield register, len(part), descriptor(self._config, place, 2 * len(part))

    def read_registers(
        self, first: Register, count: int, source: Mapping[str, Any], *, parts: int = 1
    ) -> None:
        """Add the loading of `count` registers, two beats each; the sums of several `parts`."""
        feed = {
            "rows": 2 * count,
            "d_words": parts,
            "descriptor": source,
        }
        body = {
            "groups": 1,
            "window": parts,
            "rows": count,
            "wide": 1,
            "fold": Fold.SUM if parts > 1 else Fold.NONE,
            "target": VectorTarget.REGISTERS,
            "target_register": first.number,
            **_coefficients(a=1.0),
        }
        self._add([feed], 2 * count * parts, body)

    def write_registers(self, first: Register, count: int, target: Mapping[str, Any]) -> None:
        """Add the writing of `count` registers to memory, two beats each."""
        body = {
            "groups": 1,
            "window": 1,
            "rows": count,
            "from_registers": 1,
            "x_register": first.number,
            "target": VectorTarget.WIDE,
            "descriptor": target,
            **_coefficients(a=1.0),
        }
        self._add([], 2 * count, body)

    def stream(
        self,
        feeds: Sequence[Feed | Gather],
        *,
        groups: int,
        rows: int,
        window: int = 1,
        held: int = 0,
        y: VectorOperand = VectorOperand.NONE,
        a: Coefficient = None,
        b: Coefficient = None,
        c: Coefficient = None,
        function: Function = Function.IDENTITY,
        mask: Mask = Mask.NONE,
        fold: Fold = Fold.NONE,
        target: VectorTarget = VectorTarget.NONE,
        results: Sequence[int] = (),
        reduce: Fold = Fold.NONE,
        into: Register | None = None,
        product_into: Register | None = None,
        times_y: bool = False,
    ) -> None:
        """Add one command on tiles from memory; see `rtl.control.commands.VectorBody`.

        Parameters
        ----------
        feeds
            What it takes, in this order.
        results
            Addresses of the tiles that it writes, which one descriptor must be able to name.
        into, product_into
            Registers of the reductions.
        """
        loads: list[dict[str, Any]] = []
        for feed in feeds:
            if isinstance(feed, Gather):
                loads.append(dict(feed.fields))
                continue
            beats = 2 * rows if feed.wide else self._config.elements
            loads += self._assembly.feeds(feed.tiles, beats, transpose=feed.transpose)
        body: dict[str, Any] = {
            "groups": groups,
            "window": window,
            "rows": rows,
            "held": held,
            "wide": int(isinstance(feeds[-1], Feed) and feeds[-1].wide),
            "y": y,
            "function": function,
            "mask": mask,
            "fold": fold,
            "target": target,
            "times_y": int(times_y),
            **_coefficients(a=a, b=b, c=c),
        }
        if results:
            ((_, _, loops),) = nests(results)
            size = 2 * rows if target is VectorTarget.WIDE else self._config.elements
            body["descriptor"] = descriptor(self._config, results[0], size, *loops)
        if into is not None:
            body |= {"reduce": reduce, "reduce_register": into.number}
        if product_into is not None:
            body |= {"reduce_product": 1, "product_register": product_into.number}
        self._add(loads, sum(load["rows"] * load["d_words"] for load in loads), body)

    def reduce_pieces(
        self,
        sources: Sequence[Sequence[int]],
        *,
        rows: int,
        y: VectorOperand,
        total: Register,
        products: Register,
        scratch: Sequence[Register],
    ) -> Pieces:
        """Add the sums of a tensor's values, and of their products with ``y``, of each column.

        Parameters
        ----------
        sources
            Addresses of each operand's tiles: one that is held first, if any, ``x`` last.
        rows
            Images in a tile.
        y
            By what each value is multiplied.
        total, products
            Registers of both sums.
        scratch
            Registers that follow each other, which take the sums of the pieces.
        """
        groups = list(zip(*sources, strict=True))
        most = min(len(scratch) // 2, self._config.elements)
        size = max(self._piece_groups(len(sources)), -(-len(groups) // most))
        parts = [groups[first : first + size] for first in range(0, len(groups), size)]
        alone = len(parts) == 1
        for index, part in enumerate(parts):
            self.stream(
                [Feed([tile for group in part for tile in group])],
                groups=len(part),
                rows=rows,
                held=len(sources) - 1,
                a=1.0,
                y=y,
                reduce=Fold.SUM,
                into=total if alone else scratch[index],
                product_into=products if alone else scratch[most + index],
            )
            yield self.elapsed()
        if not alone:
            for first, result in ((scratch[0], total), (scratch[most], products)):
                self.compute(None, first, rows=len(parts), reduce=Fold.SUM, into=result)

    def map_pieces(
        self,
        sources: Sequence[Sequence[int]],
        results: Sequence[int],
        *,
        rows: int,
        **arithmetic: Any,
    ) -> Pieces:
        """Add an element-wise operation on tensors, tile by tile.

        Parameters
        ----------
        sources
            Addresses of each operand's tiles: those held first, ``x`` last.
        results
            Addresses of the result's.
        rows
            Images in a tile.
        **arithmetic
            As for `stream`.
        """
        size = self._piece_groups(len(sources))
        for first, count, _ in nests(results):
            for start in range(first, first + count, size):
                part = slice(start, min(start + size, first + count))
                groups = list(zip(*(tiles[part] for tiles in sources), strict=True))
                # A part of a nest isn't always one itself.
                for begin, length, _ in nests(results[part]):
                    some = groups[begin : begin + length]
                    self.stream(
                        [Feed([tile for group in some for tile in group])],
                        groups=length,
                        rows=rows,
                        held=len(sources) - 1,
                        target=VectorTarget.NARROW,
                        results=results[part][begin : begin + length],
                        **arithmetic,
                    )
                yield self.elapsed()

    def map_lines(
        self,
        sources: Sequence[Activations],
        result: Activations,
        **arithmetic: Any,
    ) -> Steps:
        """Add an element-wise operation on tensors of the same shape, line by line.

        Parameters
        ----------
        sources
            Operands: those held first, ``x`` last.
        result
            What is written.
        **arithmetic
            As for `stream`.
        """
        for block, lines in line_pieces(result, len(sources)):
            for source in sources:
                yield Needs(source, block, lines.stop)
            tiles = result.line_tiles(block, lines)
            yield from self.map_pieces(
                [source.line_tiles(block, lines) for source in sources],
                tiles,
                rows=self._config.elements,
                **arithmetic,
            )
            yield Written(result, tiles)

    def _piece_groups(self, operands: int) -> int:
        """Return how many groups of `operands` tiles a piece has."""
        return max(PIECE_BEATS // (operands * self._config.elements), 1)

    def _add(self, loads: Sequence[dict[str, Any]], beats: int, body: dict[str, Any]) -> None:
        """Add a command that takes so many beats."""
        self._assembly.program.vector(self._stage, loads, **body)
        self._cycles += _COMMAND + beats
