"""A training step of one random layer as a command program, for tests of whole accelerators."""

import numpy as np
import numpy.typing as npt

from firmware.program import product
from rtl.config import Config
from rtl.control.commands import LoadTarget, Opcode, Queue, Stage, encode
from rtl.sparsity.pattern import Pattern
from sim.golden.sparsity import pack_state_tile, pack_tiles

__all__ = ["LayerStep"]

LOAD, COMPUTE, STORE = (1 << queue.value for queue in (Queue.LOAD, Queue.COMPUTE, Queue.STORE))


def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


class LayerStep:
    """Forward, backward and update of a layer of G x 2G weights on G images, all data random.

    Parameters
    ----------
    config
        Of the accelerator.
    pattern
        Of forward and backward weights.
    random
        Source of all data.

    Attributes
    ----------
    program, address, commands
        The program, where it goes and how many commands it has.
    image
        What card memory must hold from address 0 before the program runs.
    """

    def __init__(self, config: Config, pattern: Pattern, random: np.random.Generator) -> None:
        self.config, self.pattern, self.random = config, pattern, random
        self._next = 0
        self._parts: list[tuple[int, npt.NDArray[np.uint8]]] = []
        g = config.elements
        self.inputs, self.outputs, self.batch = 2 * g, g, g
        x = self._place(self._halves(self.batch, self.inputs))
        dy = self._place(self._halves(self.batch, self.outputs))
        weights = self._halves(self.outputs, self.inputs)
        forward = self._place(pack_tiles(weights, pattern, config))
        backward = self._place(pack_tiles(np.ascontiguousarray(weights.T), pattern, config))
        bias = self._place(self._halves(1, self.outputs))
        state = self._place(
            np.concatenate([pack_state_tile(self._floats(g), self._floats(g)) for _ in range(2)])
        )
        bias_state = self._place(pack_state_tile(self._floats(1), self._floats(1)))
        y = self._reserve(self.batch * self.outputs * 2)
        dx = self._reserve(self.batch * self.inputs * 2)

        self._commands: list[bytes] = []
        self._forward(x, forward, bias, y)
        self._backward(dy, backward, x, dx)
        self._update(x, dy, state, forward, backward, bias_state, bias)
        self._commands.append(encode(Opcode.FINISH))

        self.commands = len(self._commands)
        self.program = b"".join(self._commands)
        self.address = self._next
        self._place(np.frombuffer(self.program, np.uint8))
        self.image = np.zeros(self._next, np.uint8)
        for address, data in self._parts:
            self.image[address : address + data.size] = data

    # ---- Data ----

    def _halves(self, rows: int, columns: int) -> npt.NDArray[np.uint16]:
        """Random numbers, a few of them extreme."""
        values = self.random.standard_normal((rows, columns)).astype(np.float16)
        values[self.random.random(values.shape) < 0.2] = 0
        values[self.random.random(values.shape) < 0.02] *= np.float16(6e-8)
        return values.view(np.uint16)

    def _floats(self, rows: int) -> npt.NDArray[np.uint32]:
        shape = (rows, self.config.elements)
        return self.random.standard_normal(shape).astype(np.float32).view(np.uint32)

    def _reserve(self, size: int) -> int:
        address = self._next
        self._next += -(-size // 256) * 256
        return address

    def _place(self, data: npt.NDArray[np.generic]) -> int:
        content = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self._reserve(content.size)
        self._parts.append((address, content))
        return address

    # ---- Commands ----

    def _add(self, opcode: Opcode, **fields: object) -> None:
        self._commands.append(encode(opcode, **fields))  # type: ignore[arg-type]

    def _descriptor(self, address: int, *counts: int, strides: tuple[int, ...] = ()) -> dict:
        return {
            "address": address,
            "counts": [*counts, *[1] * (4 - len(counts))],
            "strides": [*strides, *[0] * (3 - len(strides))],
        }

    def _load_tiles(self, address: int, d_words: int, blocks: int, **fields: object) -> None:
        beats = d_words * blocks * self.pattern.tile_beats(self.config)
        self._add(
            Opcode.LOAD, target=LoadTarget.S, pattern=self.pattern,
            rows=blocks * self.config.elements, d_words=d_words,
            descriptor=self._descriptor(address, beats), **fields,
        )  # fmt: skip

    def _load_transposed(
        self, target: LoadTarget, address: int, columns: int, **fields: object
    ) -> None:
        """The transpose of a matrix of G rows by `columns`."""
        g, beat = self.config.elements, self.config.beat_bytes
        words = columns // g
        self._add(
            Opcode.LOAD, target=target, transpose=1, order=1, rows=columns, d_words=1,
            descriptor=self._descriptor(address, 1, g, words, strides=(words * beat, beat)),
            **fields,
        )  # fmt: skip

    def _compute(
        self, pattern: Pattern, a: int, b: int, k: int, a_contexts: int | None, **fields: object
    ) -> int:
        """Add a COMPUTE; return the O words that it fills in each bank with an `o_stride` of 2."""
        config = self.config
        sizes = product(config, pattern, a=a, b=b, k=k, a_contexts=a_contexts)
        self._add(Opcode.COMPUTE, **sizes, **fields)
        return 2 * sizes["b_tiles"] * (config.interleave >> sizes["a_contexts"])

    def _forward(self, x: int, forward: int, bias: int, y: int) -> None:
        g = self.config.elements
        stage = {"stage": Stage.FF}
        words = self.inputs // g
        self._load_tiles(forward, words, 1, **stage)
        self._add(
            Opcode.LOAD, target=LoadTarget.D, rows=self.batch, d_words=words,
            descriptor=self._descriptor(x, self.batch * words), **stage,
        )  # fmt: skip
        self._add(
            Opcode.LOAD, target=LoadTarget.AUX, rows=1, d_words=1, signal=COMPUTE,
            descriptor=self._descriptor(bias, 1), **stage,
        )  # fmt: skip
        self._compute(
            self.pattern, g, self.batch, self.inputs, 0, o_stride=2, wait=LOAD,
            signal=STORE | LOAD, **stage,
        )  # fmt: skip
        self._add(
            Opcode.STORE, o_stride=2, rows=self.batch, words=2, bias=1, relu=1, convert=1,
            wait=COMPUTE, signal=COMPUTE | LOAD, descriptor=self._descriptor(y, self.batch),
            **stage,
        )  # fmt: skip

    def _backward(self, dy: int, backward: int, x: int, dx: int) -> None:
        g = self.config.elements
        stage = {"stage": Stage.BP}
        words = self.inputs // g
        self._load_tiles(backward, 1, words, wait=COMPUTE | STORE, **stage)
        self._add(
            Opcode.LOAD, target=LoadTarget.AUX, rows=self.batch, d_words=words,
            descriptor=self._descriptor(x, self.batch * words), **stage,
        )  # fmt: skip
        self._add(
            Opcode.LOAD, target=LoadTarget.D, rows=self.batch, d_words=1, signal=COMPUTE,
            descriptor=self._descriptor(dy, self.batch), **stage,
        )  # fmt: skip
        self._compute(
            self.pattern, self.inputs, self.batch, g, 1, o_stride=2 * words,
            wait=LOAD | STORE, signal=STORE | LOAD, **stage,
        )  # fmt: skip
        self._add(
            Opcode.STORE, o_stride=2 * words, rows=self.batch, words=2 * words, mask=1, convert=1,
            wait=COMPUTE, signal=COMPUTE, descriptor=self._descriptor(dx, self.batch * words),
            **stage,
        )  # fmt: skip

    def _update(
        self, x: int, dy: int, state: int, forward: int, backward: int, bias_state: int, bias: int
    ) -> None:
        g = self.config.elements
        tile = self.pattern.tile_beats(self.config) * self.config.beat_bytes
        stage = {"stage": Stage.WU}
        tiles = self.inputs // g
        self._load_transposed(LoadTarget.S, dy, self.outputs, wait=COMPUTE, **stage)
        self._load_transposed(LoadTarget.D, x, self.inputs, signal=COMPUTE, **stage)
        # The bias gradient's O words stand behind those of the weights.
        behind = self._compute(
            Pattern.DENSE, g, self.inputs, self.batch, 0, o_stride=2, wait=LOAD | STORE, **stage
        )
        self._compute(
            Pattern.DENSE, g, 1, self.batch, None, o_base=behind, o_stride=2, ones=1,
            signal=STORE, **stage,
        )  # fmt: skip
        sgd = {
            "rate": _float_bits(0.1), "momentum": _float_bits(0.9), "decay": _float_bits(5e-4),
            "scale": 3, "stage": Stage.UPDATE, "o_stride": 2,
        }  # fmt: skip
        self._add(
            Opcode.UPDATE, tiles=tiles, rows=g, row_copy=1, column_copy=1,
            row_pattern=self.pattern, column_pattern=self.pattern, wait=COMPUTE,
            state_address=state, row_address=backward, row_stride=tile,
            column_address=forward, column_stride=tile, **sgd,
        )  # fmt: skip
        self._add(
            Opcode.UPDATE, o_base=behind, tiles=1, rows=1, row_copy=1,
            state_address=bias_state, row_address=bias, **sgd,
        )  # fmt: skip
        for address, beats in ((state, 4 * g * tiles), (bias_state, 4)):
            self._add(
                Opcode.LOAD, target=LoadTarget.STATE, rows=beats, d_words=1,
                descriptor=self._descriptor(address, beats), stage=Stage.UPDATE,
            )  # fmt: skip
