"""Commands: encoded as the gateware's layouts read them, and refused where they don't fit."""

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.lib import data

from rtl.config import COMMAND_BYTES
from rtl.control.commands import (
    BODIES,
    Command,
    Fault,
    Header,
    LoadBody,
    LoadTarget,
    Opcode,
    Queue,
    Stage,
    encode,
)
from rtl.sparsity.pattern import Pattern
from tests.harness import unpack

SEED = 1


def decode(command: bytes):
    return unpack(Command, int.from_bytes(command, "little"))


def random_value(shape, rng):
    """Return a value of `shape` as `encode` takes it, extremes more often than chance has them."""
    if isinstance(shape, data.ArrayLayout):
        return [random_value(shape.elem_shape, rng) for _ in range(shape.length)]
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return {name: random_value(field.shape, rng) for name, field in shape.as_shape()}
    if isinstance(shape, type):
        return list(shape)[rng.integers(len(list(shape)))]
    shape = Shape.cast(shape)
    low = -(1 << shape.width - 1) if shape.signed else 0
    high = low + (1 << shape.width) - 1
    anything = low + (int.from_bytes(rng.bytes(8), "little") & (1 << shape.width) - 1)
    return (low, high, 0, anything)[rng.integers(4)]


def agree(view, value) -> bool:
    """Whether a constant of a layout holds `value`."""
    if isinstance(value, dict):
        return all(agree(view[name], part) for name, part in value.items())
    if isinstance(value, list):
        return all(agree(view[index], part) for index, part in enumerate(value))
    return view == value


@pytest.mark.parametrize("opcode", BODIES, ids=lambda opcode: opcode.name)
def test_what_is_encoded_is_what_the_layout_reads(opcode):
    rng = np.random.default_rng(SEED)
    for _ in range(50):
        body = random_value(BODIES[opcode], rng)
        header = random_value(Header, rng) | {"opcode": opcode}
        encoded = encode(**header, **body)
        assert len(encoded) == COMMAND_BYTES
        command = decode(encoded)
        assert agree(command.header, header), f"seed {SEED}: {header}"
        assert agree(command.body[opcode.name.lower()], body), f"seed {SEED}: {body}"


def test_opcode_is_in_the_first_byte():
    assert encode(Opcode.UPDATE)[0] & 0xF == Opcode.UPDATE.value


@pytest.mark.parametrize("opcode", [Opcode.NOP, Opcode.FINISH])
def test_command_without_body(opcode):
    command = decode(encode(opcode, queue=Queue.STORE, wait=0b001, stage=Stage.BP))
    assert command.header.opcode == opcode
    assert command.header.queue == Queue.STORE
    assert command.header.wait == 0b001
    assert command.header.signal == 0
    assert command.header.stage == Stage.BP
    assert command.body.raw == 0


def test_fields_not_given_are_zero():
    command = decode(encode(Opcode.LOAD, target=LoadTarget.D))
    assert command.body.load.target == LoadTarget.D
    assert command.body.load.pattern == Pattern.DENSE
    assert command.body.load.descriptor.counts[3] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wait": 32}, "Header.wait is 32, must be 0 to 31"),
        ({"signal": -1}, "Header.signal is -1, must be 0 to 31"),
        ({"base": 1 << 16}, "LoadBody.base is 65536, must be 0 to 65535"),
        ({"tiles": 1}, "LoadBody has no field 'tiles'; it has target, order"),
        ({"descriptor": {"address": -1}}, "Descriptor.address is -1, must be 0 to 1844"),
        ({"descriptor": {"counts": [1, 1, 1]}}, "Descriptor.counts has 4 elements, got 3"),
        ({"descriptor": {"counts": [1, 1, 1, 65536]}}, r"Descriptor.counts\[3\] is 65536"),
        (
            {"descriptor": {"strides": [1 << 31, 0, 0]}},
            r"Descriptor.strides\[0\] is 2147483648, must be -2147483648 to 2147483647",
        ),
        ({"descriptor": {"stride": 1}}, "Descriptor has no field 'stride'"),
        ({"target": 5}, "5 is not a valid"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        encode(Opcode.LOAD, **arguments)


def test_scale_is_signed():
    with pytest.raises(ValueError, match=r"UpdateBody\.scale is 128, must be -128 to 127"):
        encode(Opcode.UPDATE, scale=128)
    assert decode(encode(Opcode.UPDATE, scale=-128)).body.update.scale == -128


def test_body_of_a_command_without_one_is_refused():
    with pytest.raises(ValueError, match="FINISH takes no body, got rows"):
        encode(Opcode.FINISH, rows=1)


def test_every_body_fits():
    header = data.Layout.cast(Header).size
    assert data.Layout.cast(Command).size == 8 * COMMAND_BYTES
    assert header <= Command.as_shape()["body"].offset == 32
    assert all(data.Layout.cast(body).size <= 8 * COMMAND_BYTES - 32 for body in BODIES.values())


def test_no_fault_is_zero():
    assert Fault.NONE.value == 0
    assert LoadBody.as_shape()["target"].offset == 0
