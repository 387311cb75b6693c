"""Configurations: what they refuse, what follows from them."""

import dataclasses

import pytest

from rtl.config import DEVICES, PRESETS, PRODUCT_BITS, Config, ConfigError, preset
from rtl.technology import DEVICE_TECHNOLOGY

SIM = preset("sim")

WIDE = {"lanes": 16, "rows": 8, "drain_rows": 8}
"""Changes to twice the lanes, whose sums leave in two turns."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 2.0}, "rows is 2.0, must be an integer"),
        ({"cols": True}, "cols is True, must be an integer"),
        ({"lanes": "8"}, "lanes is '8', must be an integer"),
        *(
            ({field: value}, f"{field} is {value}, must be a power of two")
            for field in (
                "rows", "cols", "lanes", "group", "ratio", "interleave", "s_depth", "d_depth",
                "o_depth", "aux_depth", "drain_rows", "memory_bytes", "queue_depth",
                "burst_beats", "outstanding_reads",
            )
            for value in (0, -4, 3)
        ),
        ({"group": 4}, "group is 4, must be 8 or 16"),
        ({"group": 32}, "group is 32, must be 8 or 16"),
        ({"ratio": 1}, "ratio is 1, must be 2 to 4, half of group"),
        ({"ratio": 8}, "ratio is 8, must be 2 to 4, half of group"),
        ({"lanes": 1}, "lanes is 1, must be 2 to 16 at this ratio"),
        ({"lanes": 32}, "lanes is 32, must be 2 to 16 at this ratio"),
        ({"lanes": 2, "ratio": 2}, "lanes is 2, must be 4 to 32 at this ratio"),
        ({"lanes": 2}, "compressed_stores is 1, must be 0, as a D word is a single chunk"),
        (
            {"lanes": 2, "compressed_stores": 0},
            "update_slices is 1, must be 2 or more, as a D word is a single chunk",
        ),
        ({"rows": 2}, r"rows is 2, must be 4 \(ratio\) to 32 \(elements of a D word\)"),
        ({"rows": 64}, "rows is 64, must be 4"),
        ({"cols": 64}, r"cols is 64, must be 1 to 32 \(elements of a D word\)"),
        ({"interleave": 2}, "interleave is 2, must be 4 to 16"),
        ({"interleave": 32}, "interleave is 32, must be 4 to 16"),
        ({"drain_rows": 2}, r"drain_rows is 2, must be 4 to 4 \(rows\)"),
        ({"rows": 16, "drain_rows": 2}, r"drain_rows is 2, must be 4 to 16 \(rows\)"),
        ({"rows": 16, "drain_rows": 32}, r"drain_rows is 32, must be 4 to 16 \(rows\)"),
        ({"rows": 32, "drain_rows": 8}, r"drain_rows is 8, must be 32 \(rows\)"),
        ({"ratio": 2, "rows": 2, "drain_rows": 1, "lanes": 16}, "drain_rows is 1, must be 2 to 2"),
        ({"lanes": 16}, "drain_rows is 4, must be at least 8 with 16 lanes"),
        ({"bin_bits": 41}, "bin_bits is 41, must be 42 to 48"),
        ({"bin_bits": 49}, "bin_bits is 49, must be 42 to 48"),
        ({"bin_bits": "48"}, "bin_bits is '48', must be an integer"),
        ({"bin_ports": 3}, "bin_ports is 3, must be 1 or 2"),
        ({"bin_ports": 1}, "bin_ports is 1, must be 2 with 8 lanes and drain_rows 4"),
        ({"accumulator_bits": 50}, "accumulator_bits is 50, must be 51 to 72"),
        ({"accumulator_bits": 73}, "accumulator_bits is 73, must be 51 to 72"),
        ({"accumulator_bits": 45, "bin_bits": 43}, "accumulator_bits is 45, must be 46 to 72"),
        (WIDE | {"accumulator_bits": 51}, "accumulator_bits is 51, must be 52 to 72"),
        ({"device": "xc7a35t"}, "device is 'xc7a35t', must be one of generic, xcvu9p, xcu250"),
        ({"device": 9}, "device is 9, must be one of generic, xcvu9p"),
        *(
            ({field: value}, f"{field} is {value}, must be 16 to 65536")
            for field in ("s_depth", "d_depth", "o_depth", "aux_depth")
            for value in (8, 1 << 17)
        ),
        ({"memory_bytes": 1 << 15}, "memory_bytes is 32768, must be 64 KiB to 1 TiB"),
        ({"memory_bytes": 1 << 41}, "must be 64 KiB to 1 TiB"),
        ({"channels": 0}, "channels is 0, must be 1, 2 or 4"),
        ({"channels": 3}, "channels is 3, must be 1, 2 or 4"),
        ({"channels": 8}, "channels is 8, must be 1, 2 or 4"),
        ({"queue_depth": 1}, "queue_depth is 1, must be 2 to 256"),
        ({"queue_depth": 512}, "queue_depth is 512, must be 2 to 256"),
        ({"burst_beats": 128}, r"burst_beats is 128, must be 1 to 64 \(4 KiB\)"),
        ({"outstanding_reads": 128}, "outstanding_reads is 128, must be 1 to 64"),
        *(
            ({name: value}, f"{name} is {value}, must be a power of two")
            for name in ("vector_slices", "epilogue_slices", "update_slices")
            for value in (0, 3)
        ),
        ({"vector_slices": 64}, r"vector_slices is 64, must be 1 to 32 \(elements of a D word\)"),
        ({"epilogue_slices": 32}, r"epilogue_slices is 32, must be 1 to 16 \(values of an O word"),
        ({"stream_queue": 2}, "stream_queue is 2, must be 0 or 1"),
        ({"compressed_stores": 2}, "compressed_stores is 2, must be 0 or 1"),
        ({"update_slices": 16}, r"update_slices is 16, must be 1 to 8 \(group\)"),
    ],
)  # fmt: skip
def test_impossible_parameter_is_refused(changes, message):
    with pytest.raises(ConfigError, match=f"^configuration 'sim': .*{message}"):
        dataclasses.replace(SIM, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 32, "drain_rows": 32}, {"rows": 16}, {"rows": 16, "drain_rows": 16},
        {"cols": 1}, {"cols": 32}, {"lanes": 4}, WIDE,
        {"lanes": 32, "ratio": 2, "rows": 16, "drain_rows": 16},
        {"ratio": 2, "rows": 2, "drain_rows": 2},
        {"lanes": 2, "compressed_stores": 0, "update_slices": 2},
        {"group": 16, "ratio": 8, "rows": 8}, {"ratio": 2}, {"interleave": 16},
        {"bin_bits": 42}, {"accumulator_bits": 51}, {"accumulator_bits": 72},
        {"s_depth": 16}, {"d_depth": 65536}, {"memory_bytes": 1 << 16}, {"memory_bytes": 1 << 40},
        {"channels": 2}, {"channels": 4, "memory_bytes": 1 << 16},
        *({"device": device} for device in DEVICES),
        {"queue_depth": 2}, {"burst_beats": 1}, {"burst_beats": 64}, {"outstanding_reads": 1},
        {"vector_slices": 1}, {"vector_slices": 32}, {"epilogue_slices": 16}, {"update_slices": 8},
    ],
)  # fmt: skip
def test_extreme_parameter_is_accepted(changes):
    dataclasses.replace(SIM, **changes)


def test_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'huge'; choose from: tiny, sim, sim-wide"):
        preset("huge")


def test_derived_values():
    config = Config(
        "x", rows=16, cols=4, lanes=16, group=16, ratio=4, drain_rows=8, bin_bits=45,
        accumulator_bits=52, burst_beats=32,
    )  # fmt: skip
    assert config.macs == 16 * 4 * 16
    assert config.exits == 2
    assert config.elements == 64
    assert config.floats == 32
    assert config.vector_lanes == 32
    assert dataclasses.replace(config, vector_slices=1).vector_lanes == 64
    assert (config.epilogue_lanes, config.update_lanes) == (32, 16)
    sliced = dataclasses.replace(config, epilogue_slices=4, update_slices=8)
    assert (sliced.epilogue_lanes, sliced.update_lanes) == (8, 2)
    assert (config.beat_bits, config.beat_bytes) == (1024, 128)
    assert config.page_beats == 32
    assert config.index_bits == 4
    assert config.chunks == 4
    assert config.lanes_per_chunk == 4
    assert config.chunks * config.lanes_per_chunk == config.lanes
    assert config.bin_additions == 1 << 4
    assert config.max_additions == 1 << 7


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_longest_reduction_of_largest_products_fits(config):
    """The bound is exact: twice as many of the largest products wouldn't fit."""
    product = (1 << PRODUCT_BITS) - 1
    lane_bin = config.bin_additions * product
    assert lane_bin < 1 << config.bin_bits - 1 <= 2 * lane_bin + 2 * config.bin_additions
    longest = config.max_additions * config.lanes
    accumulator = longest * product
    assert accumulator < 1 << config.accumulator_bits - 1 <= 2 * accumulator + 2 * longest
    # A lane's bins of one drain must fit those that they are added to.
    assert config.max_additions >= config.bin_additions


@pytest.mark.parametrize(
    ("name", "macs", "channels", "bin_additions", "max_additions"),
    [
        ("tiny", 32, 1, 8, 64),
        ("sim", 256, 1, 128, 1 << 17),
        ("sim-wide", 256, 1, 128, 1 << 17),
        ("sim-8x", 256, 1, 128, 1 << 17),
        ("ulx3s", 32, 1, 8, 512),
        ("vcu1525", 4096, 4, 128, 1 << 17),
        ("vcu1525-1k", 1024, 4, 128, 1 << 17),
        ("u250", 4096, 4, 128, 1 << 17),
        ("u250-1k", 1024, 4, 128, 1 << 17),
    ],
)
def test_preset(name, macs, channels, bin_additions, max_additions):
    config = preset(name)
    assert config.name == name
    assert (config.macs, config.channels) == (macs, channels)
    assert (config.bin_additions, config.max_additions) == (bin_additions, max_additions)


def test_every_preset_is_tested():
    (mark,) = test_preset.pytestmark
    assert [name for name, *_ in mark.args[1]] == list(PRESETS)


def test_every_device_has_a_technology():
    assert tuple(DEVICE_TECHNOLOGY) == DEVICES
    assert {config.device for config in PRESETS.values()} == set(DEVICES)


@pytest.mark.parametrize(
    ("channels", "stream_queue", "ports"), [(1, 1, 1), (1, 0, 1), (2, 0, 1), (2, 1, 2), (4, 1, 2)]
)
def test_streams_have_a_port_if_there_are_channels(channels, stream_queue, ports):
    config = dataclasses.replace(SIM, channels=channels, stream_queue=stream_queue)
    assert config.read_ports == ports


def test_hash_depends_on_every_parameter():
    other = {
        "name": "other", "group": 16, "ratio": 2, "drain_rows": 4, "bin_bits": 47, "bin_ports": 1,
        "accumulator_bits": 64, "vector_slices": 1, "stream_queue": 0, "compressed_stores": 0,
        "device": "xcvu9p",
    }  # fmt: skip
    base = dataclasses.replace(SIM, rows=8, drain_rows=8)
    configs = [
        dataclasses.replace(base, **{name: other.get(name, value * 2)})
        for name, value in vars(base).items()
    ]
    assert all(config != base for config in configs)
    hashes = {config.hash for config in configs} | {base.hash}
    assert len(hashes) == len(configs) + 1
    assert all(0 <= value < 1 << 32 for value in hashes)


def test_hash_is_stable():
    assert dataclasses.replace(SIM).hash == SIM.hash
    assert len({config.hash for config in PRESETS.values()}) == len(PRESETS)
