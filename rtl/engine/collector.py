"""The way out of a column of processing elements."""

import functools
import operator
from typing import Any

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.float32 import FloatAdder
from ..arithmetic.formats import FLOAT
from ..arithmetic.rounding import Rounder
from ..config import Config
from ..delay import delayed
from .pe import Result, sum_bits

__all__ = ["ResultCollector"]

_JOINED = 6
"""Values that one stage joins: as many as a LUT has inputs."""


class ResultCollector(wiring.Component):
    """Rounds the sums of `config.drain_rows` processing elements, of which one has any at a time.

    Each is then added to what a reduction has come to before, -0 if this is all of it: that leaves
    every value as it is, zeros too.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    results : In
        What leaves the processing elements: zeros, or in one of them a sum.
    valid : Out(1)
        A sum is about to be rounded.
    addend : In(FLOAT)
        What it's added to, `ADDEND_LATENCY` cycles after `valid`.
    value : Out(FLOAT)
        The binary32, `VALUE_LATENCY` cycles after `valid`.
    """

    ADDEND_LATENCY = Rounder.LATENCY
    VALUE_LATENCY = ADDEND_LATENCY + FloatAdder.LATENCY

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "results": In(data.ArrayLayout(Result(config), config.drain_rows)),
                "valid": Out(1),
                "addend": In(FLOAT),
                "value": Out(FLOAT),
            }
        )

    @staticmethod
    def latency(config: Config) -> int:
        """Cycles from a sum to its binary32."""
        stages, values = 0, config.drain_rows
        while values > 1:
            stages, values = stages + 1, -(-values // _JOINED)
        return stages + ResultCollector.VALUE_LATENCY

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        results = [self.results[row] for row in range(config.drain_rows)]
        valid: Value = Cat(result.valid for result in results).any()
        values: list[Value] = [result.value.as_value() for result in results]
        while len(values) > 1:
            groups = [values[i : i + _JOINED] for i in range(0, len(values), _JOINED)]
            values = [delayed(m, functools.reduce(operator.or_, group)) for group in groups]
            valid = delayed(m, valid, reset=True)

        m.submodules.rounder = rounder = Rounder(sum_bits(config))
        m.submodules.adder = adder = FloatAdder()
        m.d.comb += [
            self.valid.eq(valid),
            rounder.valid.eq(valid),
            rounder.sum.eq(values[0]),
            adder.a.eq(rounder.result),
            adder.b.eq(self.addend),
            self.value.eq(adder.o),
        ]
        return m
