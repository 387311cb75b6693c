"""Configurations: what they refuse, what follows from them."""

import dataclasses

import pytest

from rtl.config import PRESETS, Config, ConfigError, preset

SIM = preset("sim")


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
                "o_depth", "aux_depth", "memory_bytes", "queue_depth", "burst_beats",
                "outstanding_reads",
            )
            for value in (0, -4, 3)
        ),
        ({"group": 4}, "group is 4, must be 8 or 16"),
        ({"group": 32}, "group is 32, must be 8 or 16"),
        ({"ratio": 1}, "ratio is 1, must be 2 to 4, half of group"),
        ({"ratio": 8}, "ratio is 8, must be 2 to 4, half of group"),
        ({"lanes": 2}, "lanes is 2, must be 4 to 16 at this ratio"),
        ({"lanes": 32}, "lanes is 32, must be 4 to 16 at this ratio"),
        ({"lanes": 4, "ratio": 2}, "lanes is 4, must be 8 to 32 at this ratio"),
        ({"rows": 2}, r"rows is 2, must be 4 \(ratio\) to 32 \(elements of a D word\)"),
        ({"rows": 64}, "rows is 64, must be 4"),
        ({"cols": 64}, r"cols is 64, must be 1 to 32 \(elements of a D word\)"),
        ({"interleave": 2}, "interleave is 2, must be 4 to 16"),
        ({"interleave": 32}, "interleave is 32, must be 4 to 16"),
        ({"accumulator_bits": 38}, "accumulator_bits is 38, must be 39 to 64"),
        ({"accumulator_bits": 65}, "accumulator_bits is 65, must be 39 to 64"),
        *(
            ({field: value}, f"{field} is {value}, must be 16 to 65536")
            for field in ("s_depth", "d_depth", "o_depth", "aux_depth")
            for value in (8, 1 << 17)
        ),
        ({"memory_bytes": 1 << 15}, "memory_bytes is 32768, must be 64 KiB to 1 TiB"),
        ({"memory_bytes": 1 << 41}, "must be 64 KiB to 1 TiB"),
        ({"queue_depth": 1}, "queue_depth is 1, must be 2 to 256"),
        ({"queue_depth": 512}, "queue_depth is 512, must be 2 to 256"),
        ({"burst_beats": 128}, r"burst_beats is 128, must be 1 to 64 \(4 KiB\)"),
        ({"outstanding_reads": 128}, "outstanding_reads is 128, must be 1 to 64"),
    ],
)  # fmt: skip
def test_impossible_parameter_is_refused(changes, message):
    with pytest.raises(ConfigError, match=f"^configuration 'sim': .*{message}"):
        dataclasses.replace(SIM, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 32}, {"cols": 1}, {"cols": 32}, {"lanes": 4}, {"lanes": 16},
        {"group": 16, "ratio": 8, "rows": 8}, {"ratio": 2}, {"interleave": 16},
        {"accumulator_bits": 39}, {"accumulator_bits": 64}, {"s_depth": 16}, {"d_depth": 65536},
        {"memory_bytes": 1 << 40},
        {"queue_depth": 2}, {"burst_beats": 1}, {"burst_beats": 64}, {"outstanding_reads": 1},
    ],
)  # fmt: skip
def test_extreme_parameter_is_accepted(changes):
    dataclasses.replace(SIM, **changes)


def test_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'huge'; choose from: tiny, sim, sim-wide"):
        preset("huge")


def test_derived_values():
    config = Config(
        "x", rows=8, cols=4, lanes=16, group=16, ratio=4, accumulator_bits=48, burst_beats=32
    )
    assert config.macs == 8 * 4 * 16
    assert config.elements == 64
    assert config.floats == 32
    assert (config.beat_bits, config.beat_bytes) == (1024, 128)
    assert config.index_bits == 4
    assert config.chunks == 4
    assert config.lanes_per_chunk == 4
    assert config.chunks * config.lanes_per_chunk == config.lanes
    assert config.max_additions == 1 << 10


def test_hash_depends_on_every_parameter():
    changes = [
        {"name": "other"},
        *(
            {field.name: getattr(SIM, field.name) * 2}
            for field in dataclasses.fields(Config)
            if field.name not in ("name", "group", "ratio", "accumulator_bits")
        ),
        {"group": 16},
        {"ratio": 2},
        {"accumulator_bits": 57},
    ]
    hashes = {dataclasses.replace(SIM, **change).hash for change in changes} | {SIM.hash}
    assert len(hashes) == len(changes) + 1
    assert all(0 <= value < 1 << 32 for value in hashes)


def test_hash_is_stable():
    assert dataclasses.replace(SIM).hash == SIM.hash
    assert len({config.hash for config in PRESETS.values()}) == len(PRESETS)
