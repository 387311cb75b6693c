"""AXI4 and AXI4-Lite signatures, as Arm IHI 0022 defines them, in the subset that SAT drives.

Every channel is a stream of a struct inside the gateware; the top level flattens them to the names
(``m_axi_araddr`` and so on) that vendor tools and testbenches recognise.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "AXI4LiteSignature",
    "AXI4ReadSignature",
    "AXI4WriteSignature",
    "Address",
    "Burst",
    "ReadData",
    "Response",
    "WriteData",
    "WriteResponse",
]

ADDRESS_BITS = 64
LITE_ADDRESS_BITS = 12


class Burst(enum.Enum, shape=2):
    """AxBURST."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.Enum, shape=2):
    """xRESP."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Address(data.Struct):
    """AR or AW channel; bursts are INCR and beats have the full width of the bus."""

    addr: unsigned(ADDRESS_BITS)
    len: unsigned(8)
    """Beats in the burst, less one."""


class ReadData(data.StructLayout):
    """R channel with `beat_bits` of data."""

    def __init__(self, beat_bits: int) -> None:
        super().__init__({"data": unsigned(beat_bits), "resp": Response, "last": unsigned(1)})


class WriteData(data.StructLayout):
    """W channel with `beat_bits` of data.

    SAT writes whole beats or, to end a burst that it abandons, nothing: one `strb` for all bytes.
    """

    def __init__(self, beat_bits: int) -> None:
        super().__init__({"data": unsigned(beat_bits), "strb": unsigned(1), "last": unsigned(1)})


class WriteResponse(data.Struct):
    """B channel."""

    resp: Response


class AXI4ReadSignature(wiring.Signature):
    """Read channels of an AXI4 master."""

    def __init__(self, beat_bits: int) -> None:
        super().__init__(
            {
                "ar": Out(stream.Signature(Address)),
                "r": In(stream.Signature(ReadData(beat_bits))),
            }
        )


class AXI4WriteSignature(wiring.Signature):
    """Write channels of an AXI4 master."""

    def __init__(self, beat_bits: int) -> None:
        super().__init__(
            {
                "aw": Out(stream.Signature(Address)),
                "w": Out(stream.Signature(WriteData(beat_bits))),
                "b": In(stream.Signature(WriteResponse)),
            }
        )


class LiteWriteData(data.Struct):
    """W channel of AXI4-Lite, 32 bits."""

    data: unsigned(32)
    strb: unsigned(4)


class LiteReadData(data.Struct):
    """R channel of AXI4-Lite, 32 bits."""

    data: unsigned(32)
    resp: Response


class AXI4LiteSignature(wiring.Signature):
    """All channels of an AXI4-Lite master with 32-bit data."""

    def __init__(self) -> None:
        super().__init__(
            {
                "aw": Out(stream.Signature(unsigned(LITE_ADDRESS_BITS))),
                "w": Out(stream.Signature(LiteWriteData)),
                "b": In(stream.Signature(WriteResponse)),
                "ar": Out(stream.Signature(unsigned(LITE_ADDRESS_BITS))),
                "r": In(stream.Signature(LiteReadData)),
            }
        )
