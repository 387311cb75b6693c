"""The golden vector unit against scalar arithmetic, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import softfloatpy

from rtl.config import PRESETS, VECTOR_REGISTERS, Config
from rtl.control.commands import (
    CoefficientKind,
    Fault,
    Fold,
    Function,
    LoadTarget,
    Mask,
    Opcode,
    Stage,
    VectorOperand,
    VectorTarget,
    encode,
)
from sim.golden.functions import apply
from sim.golden.machine import Machine, Result
from sim.golden.vector import affine, fold_window, reduce_rows
from tests.harness import default_seed
from tests.vectors import (
    beats_taken,
    beats_written,
    random_body,
    random_floats,
    random_halves,
    random_stream,
    with_raw_field,
)

TINY = PRESETS["tiny"]
G = TINY.elements
INPUT, OUTPUT, SPILL = 0x1_0000, 0x4_0000, 0x8_0000
SIGN, NAN, MINUS_INFINITY = 1 << 31, 0x7FC00000, 0xFF800000
ABSENT = {"kind": CoefficientKind.ABSENT}


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def immediate(value: float, *, negative: int = 0) -> dict[str, Any]:
    return {"kind": CoefficientKind.IMMEDIATE, "value": bits(value), "negative": negative}


def register(number: int) -> dict[str, Any]:
    return {"kind": CoefficientKind.REGISTER, "value": number}


# Scalar arithmetic


def flush(x: int) -> int:
    return x & SIGN if x & 0x7F800000 == 0 else x


def soft(x: int) -> softfloatpy.Float32:
    return softfloatpy.Float32.from_bytes(flush(x).to_bytes(4, "big"))


def settle(x: softfloatpy.Float32) -> int:
    pattern = flush(int.from_bytes(x.to_bytes(), "big"))
    return NAN if pattern & ~SIGN > 0x7F800000 else pattern


def plus(a: int, b: int) -> int:
    return settle(softfloatpy.f32_add(soft(a), soft(b)))


def times(a: int, b: int) -> int:
    """The product; right where it doesn't come near 2**-126."""
    return settle(softfloatpy.f32_mul(soft(a), soft(b)))


def number(half: int) -> float:
    return float(np.uint16(half).view(np.float16))


def widened(half: int) -> int:
    wide = bits(number(half))
    return NAN if wide & ~SIGN > 0x7F800000 else wide


def rank(x: int) -> int:
    return -(x & ~SIGN) - 1 if x & SIGN else x


def total(values: list[int]) -> int:
    """The sum of a column in the order that the vector unit adds it."""
    parts = [0] * 8
    for index, value in enumerate(values):
        parts[index % 8] = plus(parts[index % 8], value)
    pairs = [plus(parts[index], parts[index + 1]) for index in (0, 2, 4, 6)]
    return plus(plus(pairs[0], pairs[1]), plus(pairs[2], pairs[3]))


def folded(values: list[int], fold: Fold) -> int:
    if fold is Fold.MAXIMUM:
        return max(values, key=rank)
    result = values[0]
    for value in values[1:]:
        result = plus(result, value)
    return result


class Scalar:
    """A vector unit that knows only one element at a time."""

    def __init__(self, config: Config) -> None:
        self.g = config.elements
        self.registers = [[0] * self.g for _ in range(VECTOR_REGISTERS)]

    def run(self, body: dict[str, Any], stream: np.ndarray) -> bytes:
        """Carry out a command on the bytes of its stream; return the bytes that it writes."""
        g, rows, window = self.g, body["rows"], body["window"]
        halves, words = (stream.view(kind).tolist() for kind in (np.uint16, np.uint32))
        coefficients = [
            [self.coefficient(body[name], column) for column in range(g)] for name in "abc"
        ]
        held_halves = body["held"] * g * g
        tile_halves = 4 * rows * g // 2 if body["wide"] else g * g
        group_halves = held_halves + window * tile_halves
        all_results: list[list[int]] = []
        all_products: list[list[int]] = []
        tiles: list[list[list[int]]] = []
        for group in range(body["groups"]):
            results: list[list[list[int]]] = []
            found: set[tuple[int, int]] = set()
            for tile in range(window):
                results.append([])
                for row in range(rows):
                    made, products = [], []
                    for column in range(g):
                        place = row * g + column
                        first = group * group_halves
                        held = [
                            halves[first + number * g * g + place] for number in range(body["held"])
                        ]
                        half = 0
                        start = first + held_halves + tile * tile_halves
                        if body["from_registers"]:
                            x = self.registers[body["x_register"] + row][column]
                        elif body["wide"]:
                            x = words[start // 2 + place]
                        else:
                            half = halves[start + place]
                            x = widened(half)
                        y = self.operand(body, x, held, row, column)
                        a, b, c = (values[column] for values in coefficients)
                        result = self.element(body["function"], x, y, a, b, c)
                        keep = True
                        match body["mask"]:
                            case Mask.HELD_0_POSITIVE:
                                keep = number(held[0]) > 0
                            case Mask.HELD_1_POSITIVE:
                                keep = number(held[1]) > 0
                            case Mask.FIRST_EQUAL:
                                equal = number(half) == number(held[0])
                                keep = equal and (row, column) not in found
                                if equal:
                                    found.add((row, column))
                        made.append(result if keep else 0)
                        products.append(times(made[-1], y) if y is not None else 0)
                    results[-1].append(made)
                    all_results.append(made)
                    all_products.append(products)
            if body["times_y"]:
                first = len(all_products) - window * rows
                tiles += [
                    all_products[first + tile * rows : first + (tile + 1) * rows]
                    for tile in range(window)
                ]
            elif body["fold"] is Fold.NONE:
                tiles += results
            else:
                tiles.append([
                    [folded([tile[row][column] for tile in results], body["fold"])
                     for column in range(g)] for row in range(rows)
                ])  # fmt: skip
        if body["target"] is VectorTarget.REGISTERS:
            first = body["target_register"]
            self.registers[first : first + rows] = tiles[0]
        columns = range(g)
        if body["reduce"] is Fold.SUM:
            self.registers[body["reduce_register"]] = [
                total([row[column] for row in all_results]) for column in columns
            ]
        if body["reduce"] is Fold.MAXIMUM:
            self.registers[body["reduce_register"]] = [
                max((row[column] for row in all_results), key=rank) for column in columns
            ]
        if body["reduce_product"]:
            self.registers[body["product_register"]] = [
                total([row[column] for row in all_products]) for column in columns
            ]
        written = np.array(tiles, np.uint32)
        if body["target"] is VectorTarget.WIDE:
            return written.tobytes()
        if body["target"] is VectorTarget.NARROW:
            narrow = np.zeros((len(tiles), g, g), np.float16)
            with np.errstate(all="ignore"):
                narrow[:, :rows] = written.view(np.float32).astype(np.float16)
            return narrow.tobytes()
        return b""

    def coefficient(self, field: dict[str, Any], column: int) -> int | None:
        if field["kind"] is CoefficientKind.ABSENT:
            return None
        value = field["value"]
        if field["kind"] is CoefficientKind.REGISTER:
            value = self.registers[value][column]
        return value ^ SIGN if field.get("negative") else value

    def operand(
        self, body: dict[str, Any], x: int, held: list[int], row: int, column: int
    ) -> int | None:
        match body["y"]:
            case VectorOperand.X:
                return x
            case VectorOperand.HELD_0:
                return widened(held[0])
            case VectorOperand.HELD_1:
                return widened(held[1])
            case VectorOperand.REGISTER:
                return self.registers[body["y_register"] + row][column]
        return None

    @staticmethod
    def element(
        function: Function, x: int, y: int | None, a: int | None, b: int | None, c: int | None
    ) -> int:
        if a is b is c is None:
            result = 0
        else:
            p = times(a, x) if a is not None else SIGN
            q = times(b, y) if b is not None and y is not None else SIGN
            result = plus(plus(p, q), c if c is not None else SIGN)
        if function is Function.IDENTITY:
            return result
        if function is Function.RELU:
            return 0 if result & SIGN else result
        return int(apply(function, np.array([result], np.uint32))[0])


class Bench:
    """A machine, and commands for it."""

    def __init__(self, config: Config = TINY) -> None:
        self.machine = Machine(config)

    def run(self, *commands: bytes) -> Result:
        program = np.frombuffer(b"".join([*commands, encode(Opcode.FINISH)]), np.uint8)
        self.machine.memory[: program.size] = program
        return self.machine.run(0, len(commands) + 1)

    def vector(self, body: dict[str, Any], stream: npt.NDArray[np.uint8] | None = None) -> Result:
        """Run a command on the bytes of its stream."""
        commands = []
        if stream is not None and stream.size:
            self.machine.memory[INPUT : INPUT + stream.size] = stream
            beats = stream.size // self.machine.config.beat_bytes
            commands.append(load(INPUT, beats))
        return self.run(*commands, encode(Opcode.VECTOR, stage=Stage.FF, **body))

    def written(self, size: int) -> bytes:
        return self.machine.memory[OUTPUT : OUTPUT + size].tobytes()

    def registers(self) -> np.ndarray:
        """Spill all registers and return them."""
        for first in range(0, VECTOR_REGISTERS, G):
            spill = {
                "groups": 1, "window": 1, "rows": G, "from_registers": 1, "x_register": first,
                "a": immediate(1), "target": VectorTarget.WIDE,
                "descriptor": nest(SPILL + first * G * 4, 2 * G),
            }  # fmt: skip
            assert self.vector(spill).finished
        size = VECTOR_REGISTERS * G * 4
        return self.machine.memory[SPILL : SPILL + size].view(np.uint32).reshape(-1, G)


def nest(address: int, beats: int) -> dict[str, Any]:
    return {"address": address, "counts": [beats, 1, 1, 1], "strides": [0, 0, 0]}


def load(address: int, beats: int) -> bytes:
    return encode(
        Opcode.LOAD, target=LoadTarget.STREAM, rows=beats, d_words=1,
        descriptor=nest(address, beats),
    )  # fmt: skip


def test_random_commands() -> None:
    """Commands of every kind, with registers from one to the next."""
    seed = default_seed()
    random = np.random.default_rng(seed)
    bench, scalar = Bench(), Scalar(TINY)
    for number in range(150):
        body = random_body(TINY, random, OUTPUT)
        stream = random_stream(TINY, random, body)
        assert stream.size == beats_taken(TINY, body) * TINY.beat_bytes
        message = f"command {number}, SAT_SEED={seed}: {body}"
        result = bench.vector(body, stream)
        assert result.finished, f"{result.fault} {message}"
        expected = scalar.run(body, stream)
        assert len(expected) == beats_written(TINY, body) * TINY.beat_bytes
        narrow = body["target"] is VectorTarget.NARROW
        got, wanted = (
            np.frombuffer(data, np.uint16 if narrow else np.uint32).astype(np.int64)
            for data in (bench.written(len(expected)), expected)
        )
        np.testing.assert_array_equal(got, wanted, message)
        np.testing.assert_array_equal(bench.registers(), np.array(scalar.registers), message)
        if wanted.size:
            exponent = 0x7C00 if narrow else 0x7F800000
            assert result.counters["NONFINITE"] == int((wanted & exponent == exponent).sum())
            assert result.counters["WRITE_BEATS"] == beats_written(TINY, body)


def test_batch_normalisation() -> None:
    """Statistics, coefficients from registers, and both passes, against binary64."""
    random = np.random.default_rng(3)
    groups, bench = 6, Bench()
    x = random.normal(3, 2, (groups, G, G)).astype(np.float16)
    dy = random.normal(0, 1, (groups, G, G)).astype(np.float16)
    gamma, beta = random.normal(1, 0.2, (2, G)).astype(np.float32)
    n, epsilon = groups * G, 1e-5
    tile = {"groups": groups, "window": 1, "rows": G}
    narrow = {"target": VectorTarget.NARROW, "descriptor": nest(OUTPUT, groups * G)}
    row = {"groups": 1, "window": 1, "rows": 1, "from_registers": 1,
           "target": VectorTarget.REGISTERS}  # fmt: skip

    def step(target: int, x: int = 0, **body: Any) -> None:
        assert bench.vector(row | {"x_register": x, "target_register": target} | body).finished

    parameters = {"groups": 1, "window": 1, "rows": 2, "wide": 1, "a": immediate(1),
                  "target": VectorTarget.REGISTERS, "target_register": 10}  # fmt: skip
    assert bench.vector(parameters, np.stack([gamma, beta]).view(np.uint8).ravel()).finished
    sums = {"y": VectorOperand.X, "a": immediate(1), "reduce": Fold.SUM, "reduce_register": 0,
            "reduce_product": 1, "product_register": 1}  # fmt: skip
    assert bench.vector(tile | sums, x.view(np.uint8).ravel()).finished
    step(2, 0, a=immediate(1 / n))  # mean
    step(3, 2, y=VectorOperand.REGISTER, y_register=2, b=register(2))  # its square
    # The inverse deviation, from the mean square minus the square of the mean.
    step(4, 1, a=immediate(1 / n), y=VectorOperand.REGISTER, y_register=3,
         b=immediate(1, negative=1), c=immediate(epsilon), function=Function.RSQRT)  # fmt: skip
    step(5, 4, a=register(10))  # scale
    step(6, 2, a=register(5), y=VectorOperand.REGISTER, y_register=11)
    step(7, 6, a=immediate(1, negative=1), c=register(11))  # shift
    apply_body = tile | narrow | {"a": register(5), "c": register(7)}
    assert bench.vector(apply_body, x.view(np.uint8).ravel()).finished

    mean = x.astype(np.float64).mean((0, 1))
    deviation = np.sqrt(x.astype(np.float64).var((0, 1)) + epsilon)
    z = (x - mean) / deviation
    y = np.frombuffer(bench.written(groups * G * G * 2), np.float16).reshape(groups, G, G)
    np.testing.assert_allclose(y, gamma * z + beta, rtol=2e-3, atol=2e-3)

    # Sums of dy and of dy * x, each group with its tile of x before that of dy.
    pair = np.stack([x, dy], 1)
    sums = {"held": 1, "y": VectorOperand.HELD_0, "a": immediate(1), "reduce": Fold.SUM,
            "reduce_register": 20, "reduce_product": 1, "product_register": 21}  # fmt: skip
    assert bench.vector(tile | sums, pair.view(np.uint8).ravel()).finished
    registers = bench.registers().view(np.float32)
    np.testing.assert_allclose(registers[20], dy.astype(float).sum((0, 1)), rtol=1e-4, atol=1e-3)
    products = (dy.astype(float) * x).sum((0, 1))
    np.testing.assert_allclose(registers[21], products, rtol=1e-4, atol=1e-2)


def test_max_pooling_and_its_gradient() -> None:
    random = np.random.default_rng(4)
    groups, window, bench = 3, 4, Bench()
    x = random.integers(-3, 3, (groups, window, G, G)).astype(np.float16)
    dy = random.normal(size=(groups, G, G)).astype(np.float16)
    pool = {"groups": groups, "window": window, "rows": G, "a": immediate(1), "fold": Fold.MAXIMUM,
            "target": VectorTarget.NARROW, "descriptor": nest(OUTPUT, groups * G)}  # fmt: skip
    assert bench.vector(pool, x.view(np.uint8).ravel()).finished
    y = np.frombuffer(bench.written(groups * G * G * 2), np.float16).reshape(groups, G, G)
    np.testing.assert_array_equal(y, x.max(1))

    stream = np.concatenate([y[:, None], dy[:, None], x], 1)
    unpool = {"groups": groups, "window": window, "rows": G, "held": 2, "y": VectorOperand.HELD_1,
              "b": immediate(1), "mask": Mask.FIRST_EQUAL, "target": VectorTarget.NARROW,
              "descriptor": nest(OUTPUT, groups * window * G)}  # fmt: skip
    assert bench.vector(unpool, stream.view(np.uint8).ravel()).finished
    dx = np.frombuffer(bench.written(x.size * 2), np.float16).reshape(x.shape)
    expected = np.zeros_like(x)
    np.put_along_axis(expected, x.argmax(1)[:, None], dy[:, None], 1)
    np.testing.assert_array_equal(dx, expected)


def test_softmax() -> None:
    """Logits transposed: rows are classes, columns images."""
    random = np.random.default_rng(5)
    bench, classes = Bench(), 10
    logits = np.zeros((G, G), np.float16)
    logits[:classes] = random.normal(0, 4, (classes, G))
    stream = logits.view(np.uint8).ravel()
    tile = {"groups": 1, "window": 1, "rows": classes}
    row = {"groups": 1, "window": 1, "rows": 1, "from_registers": 1,
           "target": VectorTarget.REGISTERS}  # fmt: skip
    log2e = float(np.log2(np.e))
    largest = {"a": immediate(1), "reduce": Fold.MAXIMUM, "reduce_register": 0}
    assert bench.vector(tile | largest, stream).finished
    scaled = {"x_register": 0, "a": immediate(log2e, negative=1), "target_register": 1}
    assert bench.vector(row | scaled).finished
    powers = {"a": immediate(log2e), "c": register(1), "function": Function.EXP2,
              "reduce": Fold.SUM, "reduce_register": 2, "target": VectorTarget.REGISTERS,
              "target_register": 16}  # fmt: skip
    assert bench.vector(tile | powers, stream).finished
    inverse = {"x_register": 2, "a": immediate(1), "function": Function.RECIPROCAL,
               "target_register": 3}  # fmt: skip
    assert bench.vector(row | inverse).finished
    normal = {"rows": classes, "x_register": 16, "a": register(3), "target_register": 32}
    assert bench.vector(row | normal).finished
    softmax = bench.registers()[32 : 32 + classes].view(np.float32)
    exact = np.exp(logits[:classes].astype(np.float64))
    np.testing.assert_allclose(softmax, exact / exact.sum(0), rtol=1e-5)


def test_terms_left_out_change_nothing() -> None:
    """Not even the sign of a zero, and no infinity meets a zero."""
    minus_zero, infinity = np.array([SIGN], np.uint32), np.array([0x7F800000], np.uint32)
    one, nothing = np.array([bits(1)], np.uint32), None
    assert affine(minus_zero, minus_zero, one, nothing, nothing).tolist() == [SIGN]
    assert affine(infinity, minus_zero, nothing, one, nothing).tolist() == [SIGN]
    assert affine(infinity, nothing, nothing, nothing, minus_zero).tolist() == [SIGN]
    assert affine(infinity, infinity, nothing, nothing, nothing).tolist() == [0]
    subnormal = np.array([0x80000001], np.uint32)
    assert affine(one, nothing, nothing, nothing, subnormal).tolist() == [SIGN]


def test_maxima_of_special_values() -> None:
    values = np.array([[0xBF800000], [SIGN], [MINUS_INFINITY]], np.uint32)
    assert reduce_rows(values, Fold.MAXIMUM).tolist() == [SIGN]
    assert reduce_rows(values[2:], Fold.MAXIMUM).tolist() == [MINUS_INFINITY]
    more = np.array([[SIGN], [0], [0x7F800000], [NAN]], np.uint32)
    assert reduce_rows(more[:2], Fold.MAXIMUM).tolist() == [0]
    assert reduce_rows(more, Fold.MAXIMUM).tolist() == [NAN]
    assert fold_window(more[None, :, None], Fold.MAXIMUM).tolist() == [[[[NAN]]]]


def test_registers_are_read_before_any_is_written() -> None:
    bench, random = Bench(), np.random.default_rng(6)
    values = random_floats(random, (8, G))
    tile = {"groups": 1, "window": 1, "rows": 8, "a": immediate(1),
            "target": VectorTarget.REGISTERS}  # fmt: skip
    assert bench.vector(tile | {"wide": 1}, values.view(np.uint8).ravel()).finished
    before = bench.registers().copy()
    # Moved by one row onto themselves, with a sum over what was there.
    shift = {"from_registers": 1, "target_register": 1, "reduce": Fold.SUM, "reduce_register": 0}
    assert bench.vector(tile | shift).finished
    after = bench.registers()
    np.testing.assert_array_equal(after[1:9], before[:8])
    np.testing.assert_array_equal(after[0], reduce_rows(before[:8], Fold.SUM))


def test_streams_need_not_match_commands() -> None:
    """One LOAD may feed several commands, and several LOADs one."""
    bench, random = Bench(), np.random.default_rng(7)
    tiles = random_halves(random, (4, G, G))
    tiles[tiles & 0x7C00 == 0x7C00] = 0
    size = tiles.size * 2
    bench.machine.memory[INPUT : INPUT + size] = tiles.view(np.uint8).ravel()
    copy: dict[str, Any] = {"groups": 2, "window": 1, "rows": G, "a": immediate(1),
                            "target": VectorTarget.NARROW}  # fmt: skip
    vectors = [
        encode(Opcode.VECTOR, **copy, descriptor=nest(OUTPUT + part * size // 2, 2 * G))
        for part in range(2)
    ]
    middle, end = 3 * G + 5, 4 * G
    loads = [load(INPUT, middle), load(INPUT + middle * TINY.beat_bytes, end - middle)]
    assert bench.run(*loads, *vectors).finished
    assert bench.written(size) == tiles.tobytes()


BASE: dict[str, Any] = {"groups": 2, "window": 2, "rows": G, "held": 2, "a": immediate(1)}
NARROW = BASE | {"target": VectorTarget.NARROW, "descriptor": nest(OUTPUT, 4 * G)}
ROWS: dict[str, Any] = {"groups": 1, "window": 1, "rows": 4, "from_registers": 1,
                        "a": immediate(1)}  # fmt: skip
IN_REGISTERS = ROWS | {"target": VectorTarget.REGISTERS}
FAULTS: dict[str, tuple[dict[str, Any], Fault, int]] = {
    "no groups": (BASE | {"groups": 0}, Fault.MALFORMED, 0),
    "no window": (BASE | {"window": 0}, Fault.MALFORMED, 0),
    "no rows": (BASE | {"rows": 0}, Fault.MALFORMED, 0),
    "too many rows": (BASE | {"rows": G + 1}, Fault.MALFORMED, 0),
    "too many tiles held": (BASE | {"held": 3}, Fault.MALFORMED, 0),
    "y not held": (BASE | {"held": 0, "y": VectorOperand.HELD_0}, Fault.MALFORMED, 0),
    "second y not held": (BASE | {"held": 1, "y": VectorOperand.HELD_1}, Fault.MALFORMED, 0),
    "mask not held": (BASE | {"held": 0, "mask": Mask.HELD_0_POSITIVE}, Fault.MALFORMED, 0),
    "second mask not held": (BASE | {"held": 1, "mask": Mask.HELD_1_POSITIVE}, Fault.MALFORMED, 0),
    "nothing to equal": (BASE | {"held": 0, "mask": Mask.FIRST_EQUAL}, Fault.MALFORMED, 0),
    "y register": (BASE | {"y": VectorOperand.REGISTER}, Fault.MALFORMED, 0),
    "held with registers": (ROWS | {"held": 1}, Fault.MALFORMED, 0),
    "y held with registers": (ROWS | {"y": VectorOperand.HELD_0}, Fault.MALFORMED, 0),
    "groups of registers": (ROWS | {"groups": 2}, Fault.MALFORMED, 0),
    "window of registers": (ROWS | {"window": 2, "fold": Fold.SUM}, Fault.MALFORMED, 0),
    "equal wide": (BASE | {"wide": 1, "mask": Mask.FIRST_EQUAL}, Fault.MALFORMED, 0),
    "equal folded": (BASE | {"fold": Fold.SUM, "mask": Mask.FIRST_EQUAL}, Fault.MALFORMED, 0),
    "two tiles in registers": (
        BASE | {"groups": 1, "target": VectorTarget.REGISTERS}, Fault.MALFORMED, 0),
    "two folds in registers": (
        BASE | {"fold": Fold.SUM, "target": VectorTarget.REGISTERS}, Fault.MALFORMED, 0),
    "products without y": (BASE | {"reduce_product": 1}, Fault.MALFORMED, 0),
    "times no y": (NARROW | {"times_y": 1}, Fault.MALFORMED, 0),
    "times y to nowhere": (
        BASE | {"times_y": 1, "y": VectorOperand.X}, Fault.MALFORMED, 0),
    "times y folded": (
        NARROW | {"times_y": 1, "y": VectorOperand.X, "fold": Fold.SUM,
                  "descriptor": nest(OUTPUT, 2 * G)}, Fault.MALFORMED, 0),
    "times y in registers": (
        IN_REGISTERS | {"times_y": 1, "y": VectorOperand.REGISTER}, Fault.MALFORMED, 0),
    "term without y": (BASE | {"b": register(64)}, Fault.MALFORMED, 0),
    "narrow beats": (NARROW | {"descriptor": nest(OUTPUT, 4 * G + 1)}, Fault.MALFORMED, 0),
    "folded beats": (
        NARROW | {"fold": Fold.SUM, "descriptor": nest(OUTPUT, 4 * G - 1)}, Fault.MALFORMED, 0),
    "wide beats": (NARROW | {"target": VectorTarget.WIDE}, Fault.MALFORMED, 0),
    "a": (ROWS | {"a": register(64), "b": register(65)} | {"y": VectorOperand.X},
          Fault.SCRATCHPAD_RANGE, 64),
    "b": (ROWS | {"b": register(1 << 20), "y": VectorOperand.X}, Fault.SCRATCHPAD_RANGE, 1 << 20),
    "c": (ROWS | {"c": register(0xFFFFFFFF)}, Fault.SCRATCHPAD_RANGE, 0xFFFFFFFF),
    "x registers": (ROWS | {"x_register": 61}, Fault.SCRATCHPAD_RANGE, 61),
    "y registers": (
        ROWS | {"y_register": 62, "y": VectorOperand.REGISTER}, Fault.SCRATCHPAD_RANGE, 62),
    "target registers": (IN_REGISTERS | {"target_register": 63}, Fault.SCRATCHPAD_RANGE, 63),
    "unaligned": (
        ROWS | {"target": VectorTarget.WIDE, "descriptor": nest(OUTPUT + 4, 8)},
        Fault.MALFORMED, OUTPUT + 4),
    "outside": (
        ROWS | {"target": VectorTarget.WIDE, "descriptor": nest(TINY.memory_bytes, 8)},
        Fault.ADDRESS_RANGE, TINY.memory_bytes),
}  # fmt: skip
"""Faults with the address that they report."""

UNKNOWN = {"y": 5, "mask": 4, "fold": 3, "reduce": 3, "a": 3, "b": 3, "c": 3}
"""Values that the enumerations don't have."""


@pytest.mark.parametrize(("body", "code", "address"), FAULTS.values(), ids=FAULTS)
def test_faults(body: dict[str, Any], code: Fault, address: int) -> None:
    bench = Bench()
    result = bench.vector(body)
    assert (result.fault, result.fault_command, result.fault_address) == (code, 0, address)
    bench.machine.reset()
    assert bench.vector(ROWS).finished


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_values(name: str) -> None:
    command = with_raw_field(encode(Opcode.VECTOR, **ROWS), name, UNKNOWN[name])
    result = Bench().run(command)
    assert (result.fault, result.fault_address) == (Fault.MALFORMED, 0)


def test_limits_themselves_are_no_faults() -> None:
    bench = Bench()
    last = {"x_register": 60, "y_register": 60, "target_register": 60, "y": VectorOperand.REGISTER,
            "a": register(63), "b": register(63), "c": register(63)}  # fmt: skip
    assert bench.vector(IN_REGISTERS | last).finished
    assert bench.vector(ROWS | {"mask": Mask.NONE, "fold": Fold.SUM}).finished
