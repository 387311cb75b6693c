"""Random VECTOR commands with their streams, alone and as programs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.lib import data

from rtl.config import VECTOR_REGISTERS, Config
from rtl.control.commands import (
    CoefficientKind,
    Command,
    Fold,
    Function,
    LoadTarget,
    Mask,
    Opcode,
    Stage,
    VectorBody,
    VectorOperand,
    VectorTarget,
    encode,
)

__all__ = [
    "VectorProgram",
    "beats_taken",
    "beats_written",
    "random_body",
    "random_floats",
    "random_halves",
    "random_stream",
    "with_raw_field",
]

ONE = 0x3F800000
FLOAT_SPECIALS = np.array(
    [0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345,
     0x7F7FFFFF, 0x33000000, 0x477FF000, 0x3F800000, 0xBF800000],
    np.uint32,
)  # fmt: skip
HALF_SPECIALS = np.array(
    [0, 0x8000, 1, 0x83FF, 0x0400, 0x7C00, 0xFC00, 0x7C01, 0xFE12, 0x7BFF, 0x3C00, 0xBC00],
    np.uint16,
)


def random_body(
    config: Config, random: np.random.Generator, address: int, **fields: Any
) -> dict[str, Any]:
    """Return the fields of a valid VECTOR, most of them random; those given in `fields` stay.

    Its results go to memory contiguously from `address` on.
    """

    def choose(name: str, choices: Any) -> Any:
        if name not in fields:
            choices = list(choices)
            fields[name] = choices[random.integers(len(choices))]
        return fields[name]

    g = config.elements
    from_registers = choose("from_registers", [0, 0, 0, 1])
    rows = choose("rows", [1, 2, 3, g - 1, g, g, int(random.integers(1, g + 1))])
    held = 0 if from_registers else choose("held", range(3))
    wide = 0 if from_registers else choose("wide", range(2))
    window = 1 if from_registers else choose("window", [1, 1, 2, 3, 4])
    fold = choose("fold", Fold)
    target = choose("target", VectorTarget)
    single = from_registers or (
        target is VectorTarget.REGISTERS and (fold is not Fold.NONE or window == 1)
    )
    if target is VectorTarget.REGISTERS and not single:
        window, single = 1, True
    groups = 1 if single else choose("groups", range(1, 4))
    operands = [VectorOperand.NONE, VectorOperand.X, VectorOperand.X]
    operands += [VectorOperand.REGISTER] * 2 * bool(from_registers)
    operands += [VectorOperand.HELD_0, VectorOperand.HELD_1][:held] * 2
    y = choose("y", operands)
    masks = [Mask.NONE, Mask.HELD_0_POSITIVE, Mask.HELD_1_POSITIVE][: held + 1]
    if held and not wide and fold is Fold.NONE:
        masks += [Mask.FIRST_EQUAL] * 2
    has_y = y is not VectorOperand.NONE
    folds = fold is not Fold.NONE
    to_memory = target in (VectorTarget.NARROW, VectorTarget.WIDE)
    body = {
        "groups": groups, "window": window, "rows": rows, "held": held, "wide": wide,
        "from_registers": from_registers, "y": y, "fold": fold, "target": target,
        "a": _coefficient(random, [0, 1, 1, 2]),
        "b": _coefficient(random, [0, 1, 2] if has_y else [0]),
        "c": _coefficient(random, [0, 0, 1, 2]),
        "function": choose("function", [Function.IDENTITY] * 5 + [*Function]),
        "mask": choose("mask", masks),
        "reduce": choose("reduce", [Fold.NONE, *Fold]),
        "reduce_product": choose("reduce_product", range(2)) if has_y else 0,
        "times_y": choose("times_y", range(2)) if has_y and to_memory and not folds else 0,
        "x_register": int(random.integers(VECTOR_REGISTERS - rows + 1)),
        "y_register": int(random.integers(VECTOR_REGISTERS - rows + 1)),
        "target_register": int(random.integers(VECTOR_REGISTERS - rows + 1)),
        "reduce_register": int(random.integers(VECTOR_REGISTERS)),
        "product_register": int(random.integers(VECTOR_REGISTERS)),
    }  # fmt: skip
    body |= fields | {"groups": groups, "window": window, "held": held, "wide": wide}
    beats = max(1, beats_written(config, body))
    body["descriptor"] = {"address": address, "counts": [beats, 1, 1, 1], "strides": [0] * 3}
    return body


def _coefficient(random: np.random.Generator, kinds: list[int]) -> dict[str, Any]:
    kind = CoefficientKind(kinds[random.integers(len(kinds))])
    if kind is CoefficientKind.REGISTER:
        value = int(random.integers(VECTOR_REGISTERS))
    else:
        value = int(random_floats(random, (1,))[0])
    return {"kind": kind, "negative": int(random.integers(2)), "value": value}


def beats_taken(config: Config, body: dict[str, Any]) -> int:
    """Return the beats of the stream that a VECTOR takes."""
    if body["from_registers"]:
        return 0
    tile = 2 * body["rows"] if body["wide"] else config.elements
    return body["groups"] * (body["held"] * config.elements + body["window"] * tile)


def beats_written(config: Config, body: dict[str, Any]) -> int:
    """Return the beats that a VECTOR writes to memory."""
    tiles = body["groups"] * (body["window"] if body["fold"] is Fold.NONE else 1)
    match body["target"]:
        case VectorTarget.NARROW:
            return tiles * config.elements
        case VectorTarget.WIDE:
            return tiles * 2 * body["rows"]
    return 0


def random_stream(
    config: Config, random: np.random.Generator, body: dict[str, Any]
) -> npt.NDArray[np.uint8]:
    """Return the bytes of a VECTOR's stream; values repeat, so that maxima are met again."""
    g, parts = config.elements, []
    for _ in range(0 if body["from_registers"] else body["groups"]):
        held = random_halves(random, (body["held"], g, g))
        parts.append(held.view(np.uint8).ravel())
        shape = (body["window"], body["rows"], g)
        if body["wide"]:
            parts.append(random_floats(random, shape).view(np.uint8).ravel())
            continue
        tiles = random_halves(random, (body["window"], g, g))
        if body["held"]:
            equal = random.random(tiles.shape) < 0.4
            tiles = np.where(equal, np.broadcast_to(held[0], tiles.shape), tiles)
        parts.append(np.ascontiguousarray(tiles).view(np.uint8).ravel())
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def random_halves(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Return binary16 values, a few of them special."""
    values = random.normal(size=shape).astype(np.float16).view(np.uint16)
    specials = random.choice(HALF_SPECIALS, shape)
    return np.where(random.random(shape) < 0.05, specials, values)


def random_floats(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    """Return binary32 values, a few of them special."""
    values = random.normal(size=shape).astype(np.float32).view(np.uint32)
    specials = random.choice(FLOAT_SPECIALS, shape)
    return np.where(random.random(shape) < 0.05, specials, values)


class VectorProgram:
    """Random VECTORs with the LOADs that feed them, and what the registers hold before and after.

    Parameters
    ----------
    config
        Of the accelerator.
    random
        Source of everything.
    count
        Number of random VECTORs.
    fill
        Give all registers random values first; else they are those of the program before.

    Attributes
    ----------
    address, commands
        Where the program is and how many commands it has.
    image
        What card memory must hold from address 0 before the program runs.
    """

    def __init__(
        self, config: Config, random: np.random.Generator, count: int, *, fill: bool = True
    ) -> None:
        g, size = config.elements, config.beat_bytes
        parts: list[npt.NDArray[np.uint8]] = []
        commands: list[bytes] = []
        end = 0

        def place(data: npt.NDArray[np.uint8]) -> int:
            nonlocal end
            parts.append(data)
            end += data.size
            return end - data.size

        def add(body: dict[str, Any]) -> None:
            written = np.zeros(beats_written(config, body) * size, np.uint8)
            body["descriptor"]["address"] = place(written)
            commands.append(encode(Opcode.VECTOR, stage=Stage.WU, **body))

        def load(address: int, beats: int) -> None:
            descriptor = {"address": address, "counts": [beats, 1, 1, 1], "strides": [0, 0, 0]}
            commands.append(
                encode(
                    Opcode.LOAD, target=LoadTarget.STREAM, rows=beats, d_words=1,
                    descriptor=descriptor,
                )
            )  # fmt: skip

        def for_all_registers(**fields: Any) -> Iterator[dict[str, Any]]:
            for first in range(0, VECTOR_REGISTERS, g):
                rows = min(g, VECTOR_REGISTERS - first)
                yield {
                    "groups": 1, "window": 1, "rows": rows, "x_register": first,
                    "target_register": first, "fold": Fold.NONE,
                    "a": {"kind": CoefficientKind.IMMEDIATE, "value": ONE},
                    "descriptor": {"counts": [2 * rows, 1, 1, 1], "strides": [0, 0, 0]},
                } | fields  # fmt: skip

        if fill:
            for body in for_all_registers(target=VectorTarget.REGISTERS, wide=1):
                values = random_floats(random, (body["rows"], g))
                load(place(values.view(np.uint8).ravel()), 2 * body["rows"])
                add(body)
        for _ in range(count):
            body = random_body(config, random, 0)
            stream = random_stream(config, random, body)
            if stream.size:
                beats, address = stream.size // size, place(stream)
                # In one LOAD or in two.
                first = int(random.integers(1, beats + 1))
                load(address, first)
                if first < beats:
                    load(address + first * size, beats - first)
            add(body)
        for body in for_all_registers(target=VectorTarget.WIDE, from_registers=1):
            add(body)
        commands.append(encode(Opcode.FINISH))
        self.commands = len(commands)
        self.address = place(np.frombuffer(b"".join(commands), np.uint8))
        self.image = np.concatenate(parts)


def with_raw_field(command: bytes, name: str, value: int) -> bytes:
    """Return an encoded VECTOR with a field set to what its enumeration doesn't have.

    A coefficient's name stands for its kind.
    """
    layout: Any = data.Layout.cast(VectorBody)
    field = layout[name]
    width = CoefficientKind.as_shape().width if name in "abc" else field.width
    offset = data.Layout.cast(Command)["body"].offset + field.offset
    bits = int.from_bytes(command, "little") & ~((1 << width) - 1 << offset)
    return (bits | value << offset).to_bytes(len(command), "little")
