"""The one configuration from which gateware, register map, headers and drivers are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

__all__ = ["PRESETS", "Config", "ConfigError", "preset"]

HALF_BITS = 16
FLOAT_BITS = 32
COMMAND_BYTES = 64
INDEX_SLOT_BITS = 4
"""Room that one N:M index takes in memory; a nibble serves M up to 16."""

ACCUMULATOR_BINS = 4
"""Product exponents 2..60 fall into four bins of sixteen."""

PRODUCT_BITS = 40
"""Magnitude of a product in units of its bin; see `rtl.arithmetic.operand`."""

VECTOR_REGISTERS = 64
"""Registers of the vector unit, each G binary32 values."""

PAGE_BYTES = 4096
"""Memory is striped over its channels in pages, which are what an AXI burst can't cross."""

MULTIPLIER_BITS = 48
"""Width of the adder behind a DSP block's multiplier, and so of the widest lane bin."""

DEVICES = ("generic", "xcvu9p", "xcu250", "lfe5u-85f")
"""FPGAs that presets are made for; ``generic`` uses the primitives of none."""


class ConfigError(ValueError):
    """A parameter is impossible; the message names it, its value and the valid range."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class Config:
    """Parameters of one accelerator.

    Parameters
    ----------
    name
        Name of the preset; part of the generated file names.
    rows, cols
        Shape of the PE array. Row ``i`` computes outputs ``a = i (mod rows)`` of the S operand's
        rows, column ``j`` outputs ``b = j (mod cols)`` of the D operand's rows.
    lanes
        Multipliers in one PE.
    group
        M of the largest supported N:M pattern; also the width of a lane's activation select.
    ratio
        Largest M/N that is served at full rate. One D word holds ``lanes * ratio`` elements, a
        chunk of `group` or more. If it's a single one, the least that a small FPGA can do with,
        `compressed_stores` is 0 and `update_slices` at least 2.
    interleave
        Independent outputs that a PE walks in turn (accumulator contexts).
    s_depth, d_depth, o_depth
        Words in each bank of the S, D and O scratchpads.
    aux_depth
        Words of the auxiliary scratchpad (bias vectors, ReLU masks).
    drain_rows
        Rows of a column whose sums leave by the same way, one a cycle; each way has a rounder.
    bin_bits
        Width of a lane's bins; ``2**(bin_bits - 41)`` products are added before they are drained.
    bin_ports
        Read ports of each half of a lane's bins, 1 or 2. A single one takes half as much memory
        where that is LUTs with one read port; a tile is drained up to ``interleave - 3`` cycles
        later, and there may be at most as many lanes as `drain_rows`, or 4.
    accumulator_bits
        Width of a PE's bins, to which those of its lanes are added; bounds the length of a
        reduction.
    memory_bytes
        Card memory that the DMA may address, from address 0; of all channels together.
    channels
        AXI masters, 1, 2 or 4, over which memory is striped: page ``p`` of 4 KiB is page
        ``p // channels`` of channel ``p % channels``.
    queue_depth
        Commands that each queue holds.
    burst_beats
        Longest AXI burst of reads; of writes, `write_burst_beats`.
    outstanding_reads
        Full read bursts under way at once; shorter ones share the same room.
    vector_slices
        Parts in which the vector unit takes a row of a D word's width, one a cycle: 1 to all of its
        elements.
    epilogue_slices
        Parts in which a word of the O scratchpad goes through the epilogue of a STORE, one a cycle.
    update_slices
        Parts in which `group` weights go through SGD, one a cycle.
    stream_queue
        Whether LOADs to the vector and to the update unit have a queue, a load unit and, with
        several channels, a read port of their own, 0 or 1.
    compressed_stores
        Whether a STORE can write its result compressed, 0 or 1. Pruning gradients needs it, pruning
        weights doesn't.
    device
        FPGA whose primitives the gateware may use, one of `DEVICES`.
    """

    name: str
    rows: int = 4
    cols: int = 8
    lanes: int = 8
    group: int = 8
    ratio: int = 4
    interleave: int = 4
    s_depth: int = 1024
    d_depth: int = 1024
    o_depth: int = 512
    aux_depth: int = 512
    drain_rows: int = 4
    bin_bits: int = 48
    bin_ports: int = 2
    accumulator_bits: int = 61
    memory_bytes: int = 64 << 20
    channels: int = 1
    queue_depth: int = 16
    burst_beats: int = 16
    outstanding_reads: int = 8
    vector_slices: int = 2
    epilogue_slices: int = 1
    update_slices: int = 1
    stream_queue: int = 1
    compressed_stores: int = 1
    device: str = "generic"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "device"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                self._refuse(field.name, "an integer")
        for name in (
            "rows", "cols", "lanes", "group", "ratio", "interleave", "s_depth", "d_depth",
            "o_depth", "aux_depth", "drain_rows", "memory_bytes", "queue_depth", "burst_beats",
            "outstanding_reads", "vector_slices", "epilogue_slices", "update_slices",
        ):  # fmt: skip
            if not _is_power_of_two(getattr(self, name)):
                self._refuse(name, "a power of two")
        if self.group not in (8, 16):
            self._refuse("group", "8 or 16")
        if not 2 <= self.ratio <= self.group // 2:
            self._refuse("ratio", f"2 to {self.group // 2}, half of group")
        if not self.group <= self.elements <= 64:
            self._refuse("lanes", f"{self.lanes_per_chunk} to {64 // self.ratio} at this ratio")
        if not self.ratio <= self.rows <= self.elements:
            self._refuse("rows", f"{self.ratio} (ratio) to {self.elements} (elements of a D word)")
        if not 1 <= self.cols <= self.elements:
            self._refuse("cols", f"1 to {self.elements} (elements of a D word)")
        if not 4 <= self.interleave <= 16:
            self._refuse("interleave", "4 to 16: the accumulator's loop takes 4 cycles")
        if not min(4, self.rows) <= self.drain_rows <= self.rows:
            self._refuse("drain_rows", f"{min(4, self.rows)} to {self.rows} (rows)")
        if self.lanes > 8 * max(1, self.drain_rows // ACCUMULATOR_BINS):
            self._refuse("drain_rows", f"at least {self.lanes // 2} with {self.lanes} lanes")
        if self.exits > 1 and self.rows > self.floats:
            self._refuse("drain_rows", f"{self.rows} (rows), as there are more rows than floats")
        if not PRODUCT_BITS + 2 <= self.bin_bits <= MULTIPLIER_BITS:
            self._refuse("bin_bits", f"{PRODUCT_BITS + 2} to {MULTIPLIER_BITS}")
        if self.bin_ports not in (1, 2):
            self._refuse("bin_ports", "1 or 2")
        if self.bin_ports == 1 and self.lanes > 4 * max(1, self.drain_rows // ACCUMULATOR_BINS):
            self._refuse("bin_ports", f"2 with {self.lanes} lanes and drain_rows {self.drain_rows}")
        lowest = self.bin_bits + (self.lanes - 1).bit_length()
        if not lowest <= self.accumulator_bits <= 72:
            self._refuse("accumulator_bits", f"{lowest} to 72")
        for name in ("s_depth", "d_depth", "o_depth", "aux_depth"):
            if not 16 <= getattr(self, name) <= 65536:
                self._refuse(name, "16 to 65536")
        if not 1 << 16 <= self.memory_bytes <= 1 << 40:
            self._refuse("memory_bytes", "64 KiB to 1 TiB")
        if self.channels not in (1, 2, 4):
            self._refuse("channels", "1, 2 or 4")
        if not 2 <= self.queue_depth <= 256:
            self._refuse("queue_depth", "2 to 256")
        if not 1 <= self.burst_beats <= self.page_beats:
            self._refuse("burst_beats", f"1 to {self.page_beats} (4 KiB)")
        if not 1 <= self.outstanding_reads <= 64:
            self._refuse("outstanding_reads", "1 to 64")
        for name, most, whole in (
            ("vector_slices", self.elements, "elements of a D word"),
            ("epilogue_slices", self.floats, "values of an O word"),
            ("update_slices", self.group, "group"),
        ):
            if not 1 <= getattr(self, name) <= most:
                self._refuse(name, f"1 to {most} ({whole})")
        for name in ("stream_queue", "compressed_stores"):
            if getattr(self, name) not in (0, 1):
                self._refuse(name, "0 or 1")
        if self.floats < self.group:
            # A chunk takes two O words then, which STORE would have to join.
            if self.compressed_stores:
                self._refuse("compressed_stores", "0, as a D word is a single chunk")
            if self.update_lanes > self.floats:
                self._refuse("update_slices", "2 or more, as a D word is a single chunk")
        if self.device not in DEVICES:
            self._refuse("device", f"one of {', '.join(DEVICES)}")

    def _refuse(self, field: str, valid: str) -> None:
        raise ConfigError(
            f"configuration '{self.name}': {field} is {getattr(self, field)!r}, must be {valid}"
        )

    @property
    def macs(self) -> int:
        """Multipliers in the whole array."""
        return self.rows * self.cols * self.lanes

    @property
    def exits(self) -> int:
        """Ways out of a column."""
        return self.rows // self.drain_rows

    @property
    def elements(self) -> int:
        """Binary16 values in a D word, and in one AXI beat ("G" in the documentation)."""
        return self.lanes * self.ratio

    @property
    def floats(self) -> int:
        """Binary32 values in one AXI beat."""
        return self.elements // 2

    @property
    def vector_lanes(self) -> int:
        """Columns that the vector unit works on in a cycle."""
        return self.elements // self.vector_slices

    @property
    def epilogue_lanes(self) -> int:
        """Values of an O word that the epilogue takes in a cycle."""
        return self.floats // self.epilogue_slices

    @property
    def update_lanes(self) -> int:
        """Weights that the update unit takes in a cycle."""
        return self.group // self.update_slices

    @property
    def read_ports(self) -> int:
        """Read ports of the core: with several channels, one of them is for streams."""
        return 2 if self.stream_queue and self.channels > 1 else 1

    @property
    def decoupled_loads(self) -> bool:
        """Whether registers part what a LOAD passes: reads' addresses and beats take a few cycles
        more, but no path leads through all of it, as the slow LUTs of an ECP5 need.
        """
        return self.device == "lfe5u-85f"

    @property
    def command_parts(self) -> int:
        """Parts in which commands go to their queues and wait there: beats where wires and LUTRAM
        are scarce, as on an ECP5, else one.
        """
        if self.device != "lfe5u-85f":
            return 1
        return max(1, COMMAND_BYTES // self.beat_bytes)

    @property
    def beat_bits(self) -> int:
        """Width of the AXI data bus."""
        return self.elements * HALF_BITS

    @property
    def beat_bytes(self) -> int:
        """Bytes in one AXI beat; every DMA address is a multiple of it."""
        return self.beat_bits // 8

    @property
    def write_burst_beats(self) -> int:
        """Longest AXI burst of writes: of 16 beats at most, as it is gathered before it leaves."""
        return min(self.burst_beats, 16)

    @property
    def page_beats(self) -> int:
        """Beats in a page, from one channel's to the next."""
        return PAGE_BYTES // self.beat_bytes

    @property
    def index_bits(self) -> int:
        """Bits of an index into one group of M."""
        return (self.group - 1).bit_length()

    @property
    def chunks(self) -> int:
        """Groups of M elements in a D word."""
        return self.elements // self.group

    @property
    def lanes_per_chunk(self) -> int:
        """Lanes that select from the same group of M elements."""
        return self.group // self.ratio

    @property
    def bin_additions(self) -> int:
        """Products that a lane may add to an output before its bins must be drained."""
        return 1 << (self.bin_bits - 1 - PRODUCT_BITS)

    @property
    def max_additions(self) -> int:
        """S words that may be added to an output: the longest reduction."""
        return 1 << (self.accumulator_bits - 1 - PRODUCT_BITS - (self.lanes - 1).bit_length())

    @property
    def hash(self) -> int:
        """Content hash (32 bits) of every parameter, readable in register ``CONFIG_HASH``."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "little")


PRESETS: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            "tiny", rows=4, cols=2, lanes=4, s_depth=256, d_depth=256, o_depth=256, aux_depth=128,
            bin_bits=44, accumulator_bits=49, memory_bytes=1 << 20, queue_depth=4, burst_beats=8,
            outstanding_reads=4,
        ),
        Config("sim"),
        Config("sim-wide", rows=8, cols=4, interleave=8, drain_rows=8),
        Config("sim-8x", rows=8, cols=4, group=16, ratio=8, drain_rows=8),
        Config(
            "ulx3s", rows=4, cols=2, lanes=4, ratio=2, s_depth=512, d_depth=512, o_depth=512,
            aux_depth=512, bin_bits=44, bin_ports=1, accumulator_bits=52, memory_bytes=256 << 10,
            queue_depth=4, burst_beats=8, outstanding_reads=4, vector_slices=8, epilogue_slices=4,
            update_slices=8, stream_queue=0, compressed_stores=0, device="lfe5u-85f",
        ),
        Config(
            "vcu1525", rows=16, cols=32, s_depth=1024, d_depth=1024, o_depth=512, aux_depth=1024,
            drain_rows=8, memory_bytes=64 << 30, channels=4, queue_depth=64, burst_beats=64,
            outstanding_reads=16, vector_slices=1, device="xcvu9p",
        ),
        Config(
            "vcu1525-1k", rows=8, cols=16, s_depth=4096, d_depth=4096, o_depth=1024, aux_depth=2048,
            drain_rows=8, memory_bytes=64 << 30, channels=4, queue_depth=64, burst_beats=64,
            outstanding_reads=16, vector_slices=1, device="xcvu9p",
        ),
        Config(
            "u250", rows=16, cols=32, group=16, ratio=8, s_depth=1024, d_depth=512, o_depth=512,
            aux_depth=1024, drain_rows=8, memory_bytes=64 << 30, channels=4, queue_depth=64,
            burst_beats=32, outstanding_reads=16, vector_slices=1, device="xcu250",
        ),
        Config(
            "u250-1k", rows=8, cols=16, group=16, ratio=8, s_depth=4096, d_depth=2048, o_depth=1024,
            aux_depth=2048, drain_rows=4, memory_bytes=64 << 30, channels=4, queue_depth=64,
            burst_beats=32, outstanding_reads=16, vector_slices=1, device="xcu250",
        ),
    )
}  # fmt: skip
"""Named configurations: ``tiny`` for quick tests; ``sim`` for training in simulation, ``sim-wide``
as many MACs in another shape, ``sim-8x`` again as many at eight times the dense rate in 1:8 and
2:16; and for the boards ``ulx3s``, ``vcu1525`` and ``u250`` (4,096 multipliers, the latter with a
ratio of 8), and these two with a quarter of the multipliers, ``-1k``."""


def preset(name: str) -> Config:
    """Return the preset called `name`.

    Raises
    ------
    ConfigError
        No preset has that name; the message lists those that exist.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"no preset '{name}'; choose from: {', '.join(PRESETS)}") from None
