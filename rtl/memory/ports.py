"""Ports of the scratchpads, as loader, array, store and update units see them."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..arithmetic.formats import HALF
from ..config import HALF_BITS, Config

__all__ = [
    "O_READ_LATENCY",
    "AuxWriteSignature",
    "ByteAccessSignature",
    "ByteAnswer",
    "ByteRequest",
    "DWriteSignature",
    "OReadSignature",
    "SWord",
    "SWriteSignature",
]

O_READ_LATENCY = 2
"""Cycles from `bank` and `address` of an O read to its `data`."""


class SEntry(data.StructLayout):
    """What one lane multiplies: a binary16 value and the element of the chunk it belongs to."""

    def __init__(self, config: Config) -> None:
        super().__init__({"value": HALF, "index": unsigned(config.index_bits)})


class SWord(data.ArrayLayout):
    """One S word: an entry for each lane."""

    def __init__(self, config: Config) -> None:
        super().__init__(SEntry(config), config.lanes)


class SWriteSignature(wiring.Signature):
    """Write port of all S banks, from the loader.

    ``enable[i]`` selects bank i, ``quarters[y]`` S word y of the `ratio` S words in a bank's word;
    bank i takes S word y from ``words[i % ratio][y]``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "enable": Out(config.rows),
                "quarters": Out(config.ratio),
                "address": Out(16),
                "words": Out(
                    data.ArrayLayout(data.ArrayLayout(SWord(config), config.ratio), config.ratio)
                ),
            }
        )


class DWriteSignature(wiring.Signature):
    """Write port of all D banks, from the loader: ``enable[j]`` selects bank j."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "enable": Out(config.cols),
                "address": Out(16),
                "data": Out(data.ArrayLayout(unsigned(HALF_BITS), config.elements)),
            }
        )


class AuxWriteSignature(wiring.Signature):
    """Write port of the auxiliary scratchpad, from the loader; a word is a beat."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {"enable": Out(1), "address": Out(16), "data": Out(unsigned(config.beat_bits))}
        )


class OReadSignature(wiring.Signature):
    """Read port of the O banks: G/2 binary32 values, `O_READ_LATENCY` cycles after the address.

    There is nothing to read while ``ready`` is low: results that are added to others come first.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "bank": Out(range(config.cols)),
                "address": Out(16),
                "ready": In(1),
                "data": In(data.ArrayLayout(unsigned(32), config.floats)),
            }
        )


class ByteRequest(data.Struct):
    """Access to a byte of card memory."""

    address: unsigned(40)
    write: unsigned(1)
    data: unsigned(8)


class ByteAnswer(data.Struct):
    """How it ended."""

    valid: unsigned(1)
    """High for a cycle."""
    data: unsigned(8)
    error: unsigned(1)
    """There is no such address; nothing was done, and `data` means nothing."""


class ByteAccessSignature(wiring.Signature):
    """Card memory as the serial bridge sees it, one access at a time."""

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(ByteRequest)),
                "answer": In(ByteAnswer),
            }
        )
