"""What the cycle model has from the gateware: command formats, constants, configurations.

`header` turns them into the C++ header ``gateware.hpp``, so that both are of the same source.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import functools
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

from rtl.arithmetic.float32 import FloatAdder
from rtl.arithmetic.function import FunctionUnit
from rtl.config import ACCUMULATOR_BINS, COMMAND_BYTES, PAGE_BYTES, Config
from rtl.control.commands import BODIES, Command, Header, Queue
from rtl.control.fetcher import PREFETCH
from rtl.engine.array import UPDATE_LATENCY, result_latency
from rtl.engine.epilogue import Epilogue
from rtl.engine.mapper import settling_cycles
from rtl.engine.pe import drain_distance, drain_turns
from rtl.headers import ENUMERATIONS
from rtl.interface.read_striper import BEATS
from rtl.interface.register_map import COUNTERS
from rtl.interface.striping import BURSTS
from rtl.interface.write_arbiter import MASTER_BURSTS
from rtl.memory.ports import O_READ_LATENCY
from rtl.memory.write_completion import WRITERS_UNDER_WAY
from rtl.sparsity.pattern import Pattern, supported_patterns
from rtl.sparsity.reducer import NMReducer
from rtl.update.sgd import SGDLane
from rtl.update.writer import STATE_BEATS_PER_ROW
from rtl.vector.lane import VectorLane
from rtl.vector.sequencer import combination_cycles

from ..verilated.model import MemoryTiming

__all__ = ["Parameters", "Timing", "header", "parameters", "timing_of"]

CONSTANTS = {
    "kQueues": (len(Queue), "of commands"),
    "kCommandBytes": (COMMAND_BYTES, "of a command in memory"),
    "kPageBytes": (PAGE_BYTES, "from one memory channel to the next"),
    "kAccumulatorBins": (ACCUMULATOR_BINS, "bins that are drained of each output"),
    "kPrefetch": (PREFETCH, "words of commands that the fetch reads ahead"),
    "kStriperBeats": (BEATS, "beats that the read striper has room for"),
    "kChannelBursts": (BURSTS, "bursts that wait at a channel"),
    "kMasterBursts": (MASTER_BURSTS, "bursts of a write DMA that memory hasn't acknowledged"),
    "kStateBeatsPerRow": (STATE_BEATS_PER_ROW, "of weights and momentum in a row of a tile"),
    "kReducerLatency": (NMReducer.LATENCY, "from a chunk to its entries"),
    "kFloatAdderLatency": (FloatAdder.LATENCY, "of an addition in binary32"),
    "kFunctionLatency": (FunctionUnit.LATENCY, "of the function unit"),
    "kStoreTravel": (
        O_READ_LATENCY + Epilogue.LATENCY,
        "from reading an O word to its beat, or to the reducers",
    ),
    "kUpdateTravel": (
        O_READ_LATENCY + SGDLane.LATENCY,
        "from issuing a chunk of state to the new weights",
    ),
    "kVectorResult": (VectorLane.RESULT, "from cycle 0 of a slice to its result"),
    "kVectorProduct": (
        VectorLane.PRODUCT + FloatAdder.LATENCY,
        "from a result to the sum of its products",
    ),
    # What the gateware doesn't name.
    "kLoadCheckCycles": (11, "from a LOAD to the end of its check: three and eight factors"),
    "kStoreCheckCycles": (14, "of a STORE: eleven factors"),
    "kVectorCheckCycles": (10, "of a VECTOR that writes to memory: seven factors"),
    "kComputeCheckCycles": (6, "from a COMPUTE to its product"),
    "kVectorCoefficients": (3, "coefficients of a VECTOR, of which a slice takes a cycle to load"),
    "kVectorFoldSpacing": (8, "from a slice of a tile to the same of the next, if they are folded"),
    "kVectorReadyBeats": (64, "results that wait for the write DMA behind the lanes"),
    "kVectorMostBeats": (2, "beats that a slice gives at most"),
    "kVectorDrainCycles": (2, "from reading a tile folded to its register"),
    "kVectorCombinationResult": (5, "from asking for sums of parts to the result of the first"),
    "kStoreReadyBeats": (32, "results that wait for the write DMA behind the epilogue"),
    "kLoadsUnderWay": (2, "LOADs issued that haven't ended"),
    "kComputesUnderWay": (2, "COMPUTEs"),
    "kWritersUnderWay": (WRITERS_UNDER_WAY, "STOREs or UPDATEs, and VECTORs"),
    "kWordsPerRow": (2, "O words in a row of a tile, and in a beat of binary16"),
    "kWideBeats": (2, "beats in a row of a wide tile"),
}  # fmt: skip
"""Numbers that hold in every configuration, with what they count: cycles, unless it says."""

_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.name not in ("name", "device"))
_PROPERTIES = (
    "macs", "elements", "floats", "beat_bytes", "read_ports", "write_burst_beats", "page_beats",
    "bin_additions", "chunks", "lanes_per_chunk",
)  # fmt: skip
_DERIVED = (
    "result_latency", "drain_turns", "drain_delay", "settling_cycles", "addend_latency",
    "combination_cycles",
)  # fmt: skip
_TABLES = ("tile_beats", "pattern_steps", "pattern_entries")


class Parameters(ctypes.Structure):
    """``Config`` of the C++ side: a configuration with all that follows from it."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*_FIELDS, *_PROPERTIES, *_DERIVED)),
        *((name, ctypes.c_int64 * len(Pattern)) for name in _TABLES),
    )


class Timing(ctypes.Structure):
    """``Timing`` of the C++ side: of each memory channel, bandwidth in beats in 1,024 cycles."""

    _fields_ = (("latency", ctypes.c_int64), ("bandwidth", ctypes.c_int64))


@functools.cache
def parameters(config: Config) -> Parameters:
    """Return `config` as the C++ side takes it.

    Raises
    ------
    ValueError
        Its vector unit, epilogue or update unit has fewer lanes than the model knows.
    """
    for name, most in (("vector_slices", 2), ("epilogue_slices", 1), ("update_slices", 1)):
        if getattr(config, name) > most:
            raise ValueError(
                f"configuration '{config.name}': {name} is {getattr(config, name)}, must be at "
                f"most {most} for the cycle model"
            )
    values = {name: getattr(config, name) for name in (*_FIELDS, *_PROPERTIES)}
    made = Parameters(
        **values,
        result_latency=result_latency(config),
        drain_turns=drain_turns(config),
        drain_delay=max(0, drain_distance(config) - config.interleave),
        settling_cycles=settling_cycles(config),
        # To the first read for the sums of an output, which take a cycle for each row and column.
        addend_latency=result_latency(config) - UPDATE_LATENCY - (config.rows + config.cols) + 3,
        combination_cycles=combination_cycles(config.vector_slices),
    )
    for pattern in supported_patterns(config):
        made.tile_beats[pattern.value] = pattern.tile_beats(config)
        made.pattern_steps[pattern.value] = pattern.steps(config)
        made.pattern_entries[pattern.value] = pattern.entries_per_chunk(config)
    return made


def timing_of(timing: MemoryTiming) -> Timing:
    """Return `timing` as the C++ side takes it.

    Raises
    ------
    ValueError
        It asks for pauses, which aren't modelled.
    """
    if timing.stall or timing.silent:
        raise ValueError(
            f"memory timing: stall is {timing.stall} and silent {timing.silent}, must be 0 and "
            "False, as the cycle model has no pauses"
        )
    return Timing(latency=timing.latency, bandwidth=round(timing.bandwidth * 1024))


def header() -> str:
    """Return the text of ``gateware.hpp``."""
    structs: dict[str, str] = {}
    for layout in (Header, *BODIES.values()):
        _add_struct(layout, structs)
    body = data.Layout.cast(Command)["body"].offset
    bodies = [(opcode.name, layout.__name__) for opcode, layout in BODIES.items()]
    lines = [
        "// Made by sim.cycles.gateware; don't edit.",
        "#pragma once",
        "#include <array>",
        "#include <cstdint>",
        "namespace sat {",
        *(
            f"constexpr int64_t {name} = {value};  // {text}"
            for name, (value, text) in CONSTANTS.items()
        ),
        *(_enumeration(kind.__name__, _members(kind)) for kind in ENUMERATIONS),
        _enumeration("Counter", {c.name: index for index, c in enumerate(COUNTERS)}),
        *(_structure("Config", Parameters), _structure("Timing", Timing)),
        _READ_BITS,
        *structs.values(),
        "struct Command {",
        "  Header header{};",
        *(f"  {layout} {_lower(name)}{{}};" for name, layout in bodies),
        "  explicit Command(const uint8_t* bytes) {",
        "    header.read(bytes, 0);",
        "    switch (header.opcode) {",
        *(
            f"      case Opcode::{name}: {_lower(name)}.read(bytes, {body}); break;"
            for name, _ in bodies
        ),
        "    }",
        "  }",
        "};",
        "}  // namespace sat",
    ]
    return "\n".join([*lines, ""])


_READ_BITS = """\
inline int64_t read_bits(const uint8_t* bytes, int bit, int width, bool is_signed) {
  uint64_t value = 0;
  for (int i = (bit + width - 1) / 8; i > bit / 8; --i) value = value << 8 | bytes[i];
  value = value << (8 - bit % 8) | bytes[bit / 8] >> bit % 8;
  if (width < 64) value &= (uint64_t{1} << width) - 1;
  if (is_signed && width < 64 && value >> (width - 1)) value |= ~uint64_t{0} << width;
  return static_cast<int64_t>(value);
}"""


def _lower(name: str) -> str:
    return name.lower()


def _members(kind: type[enum.Enum]) -> dict[str, int]:
    return {member.name: member.value for member in kind}


def _enumeration(name: str, members: dict[str, int]) -> str:
    values = ", ".join(f"{member} = {value}" for member, value in members.items())
    return f"namespace {name} {{ enum : int64_t {{ {values} }}; }}"


def _structure(name: str, layout: type[ctypes.Structure]) -> str:
    fields = []
    for field in layout._fields_:
        length = getattr(field[1], "_length_", None)
        fields.append(f"  int64_t {field[0]}{f'[{length}]' if length else ''};")
    return "\n".join([f"struct {name} {{", *fields, "};"])


def _is_struct(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, data.Struct)


def _add_struct(struct: type[data.Struct], structs: dict[str, str]) -> None:
    """Add the definition of `struct`, behind those of the structs in it."""
    members, reads = [], []
    for name, field in data.Layout.cast(struct):
        if _is_struct(field.shape):
            _add_struct(field.shape, structs)
            members.append(f"  {field.shape.__name__} {name};")
            reads.append(f"    {name}.read(bytes, bit + {field.offset});")
        elif isinstance(field.shape, data.ArrayLayout):
            members.append(f"  std::array<int64_t, {field.shape.length}> {name};")
            reads += [
                f"    {name}[{index}] = {_read(element.shape, field.offset + element.offset)};"
                for index, element in field.shape
            ]
        else:
            members.append(f"  int64_t {name};")
            reads.append(f"    {name} = {_read(field.shape, field.offset)};")
    structs[struct.__name__] = "\n".join(
        [f"struct {struct.__name__} {{", *members, "  void read(const uint8_t* bytes, int bit) {",
         *reads, "  }", "};"]
    )  # fmt: skip


def _read(shape: Any, offset: int) -> str:
    plain = Shape.cast(shape)
    signed = str(plain.signed).lower()
    return f"read_bits(bytes, bit + {offset}, {plain.width}, {signed})"
