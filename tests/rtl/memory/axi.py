"""Memory models and descriptors for the tests of everything that touches AXI."""

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiRamWrite, AxiReadBus, AxiWriteBus

from rtl.config import Config
from rtl.memory.descriptor import Descriptor
from tests.harness import pack

__all__ = [
    "FaultyRead",
    "FaultyWrite",
    "addresses",
    "descriptor",
    "packed",
    "pauses",
    "read_memory",
    "restart",
    "wait_for",
    "write_memory",
]


class FaultyRead(AxiRamRead):
    """A memory that answers reads of the addresses in `bad` with SLVERR and records its bursts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bad: set[int] = set()

    async def _read(self, address: int, length: int) -> bytes:
        if address in self.bad:
            raise OSError
        return await super()._read(address, length)


class FaultyWrite(AxiRamWrite):
    """A memory that answers writes to the addresses in `bad` with SLVERR."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bad: set[int] = set()

    async def _write(self, address: int, data: bytes) -> None:
        if address in self.bad:
            raise OSError
        await super()._write(address, data)


def read_memory(dut: Any, config: Config, content: bytes | None = None) -> FaultyRead:
    """Return a memory on the read channels of port ``m_axi``."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    ram = FaultyRead(
        AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=config.memory_bytes
    )
    if content is not None:
        ram.write(0, content)
    return ram


def write_memory(dut: Any, config: Config) -> FaultyWrite:
    """Return a memory on the write channels of port ``m_axi``."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    return FaultyWrite(
        AxiWriteBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=config.memory_bytes
    )


def pauses(rng: np.random.Generator, probability: float = 0.3) -> Iterator[bool]:
    """Yield for each cycle whether a channel pauses."""
    while True:
        yield from (rng.random(4096) < probability).tolist()


def descriptor(
    address: int, counts: tuple[int, ...], strides: tuple[int, ...] = (0, 0, 0)
) -> dict[str, Any]:
    """Return a descriptor's fields; counts and strides not given are 1 and 0."""
    return {
        "address": address & (1 << 64) - 1,
        "counts": [*counts, 1, 1, 1][:4],
        "strides": [*strides, 0, 0, 0][:3],
    }


def packed(fields: dict[str, Any]) -> int:
    """Return the bits of a descriptor."""
    return pack(Descriptor, fields)


def addresses(fields: dict[str, Any], config: Config) -> list[int]:
    """Return the address of every beat that a descriptor names, in order."""
    steps = [config.beat_bytes, *fields["strides"]]
    loops = [range(count) for count in reversed(fields["counts"])]
    return [
        fields["address"] + sum(i * step for i, step in zip(reversed(index), steps, strict=True))
        for index in itertools.product(*loops)
    ]


async def restart(dut: Any) -> None:
    """Reset for two cycles."""
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def wait_for(dut: Any, signal: Any, value: int = 1, *, limit: int = 2000) -> int:
    """Wait until `signal` has `value` at a rising edge; return the cycles that took."""
    for cycle in range(limit):
        await RisingEdge(dut.clk)
        if int(signal.value) == value:
            return cycle
    raise AssertionError(f"{signal._name} didn't become {value} within {limit} cycles")
