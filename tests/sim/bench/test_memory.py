"""Convolutions in card memory: that results and slots are checked, and what is scaled."""

import dataclasses

import pytest

from firmware.cards.golden import GoldenCard
from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver
from rtl.config import PRESETS, preset
from rtl.control.commands import Stage
from rtl.sparsity.pattern import Pattern
from sim.bench.memory import (
    BYTES_PER_CYCLE,
    LATENCY,
    LAYERS,
    QUICK_LAYERS,
    REFERENCE,
    Layer,
    card_config,
    run,
    stream,
    timing_for,
)
from sim.bench.slots import CAUSES, LOST

TINY = preset("tiny")


@pytest.fixture(scope="module")
def card():
    with VerilatedCard(TINY, timing=timing_for(TINY)) as card:
        yield card


@pytest.fixture
def golden():
    with GoldenCard(TINY) as golden:
        yield golden


@pytest.mark.parametrize(
    ("layer", "pattern"),
    [
        (QUICK_LAYERS[0], "dense"),
        (QUICK_LAYERS[0], "2:8"),
        # A stride, so that BP takes four products.
        (Layer("strided", 4, 16, 32, 2, 16), "2:4"),
        # More than one block of images.
        (Layer("blocks", 2, 16, 16, 1, 20), "4:8"),
        # Images and channels that don't fill a block.
        (Layer("edges", 3, 24, 8, 1, 5), "1:8"),
    ],
    ids=str,
)
def test_slots_add_up_and_bytes_are_counted(card, golden, layer, pattern):
    pattern = Pattern.parse(pattern)
    rows = run(Driver(card), golden, layer, pattern)
    convolution = layer.convolution(pattern)
    assert [row["stage"] for row in rows] == ["FF", "BP", "WU"]
    for row in rows:
        assert set(row["lost"]) == set(CAUSES)
        assert row["utilisation"] + sum(row["lost"].values()) == pytest.approx(1, abs=1e-4)
        products = layer.batch * convolution.kept_macs(Stage[row["stage"]])
        assert row["utilisation"] == pytest.approx(products / (row["cycles"] * TINY.macs), abs=1e-5)
        moved = row["bytes_read"] + row["bytes_written"]
        assert row["bandwidth"] == pytest.approx(
            moved / (row["cycles"] * BYTES_PER_CYCLE * TINY.macs), abs=1e-5
        )
        # Memory gives no more, but for 16 beats that it saves while nothing is asked of it.
        allowed = row["cycles"] * timing_for(TINY).bandwidth + 16
        assert moved <= allowed * TINY.beat_bytes
    forward, backward, update = rows
    blocks = -(-layer.batch // TINY.elements)
    g_blocks = {name: -(-getattr(layer, name) // TINY.elements) for name in ("inputs", "outputs")}
    tile = TINY.elements * TINY.beat_bytes
    pixels = {"inputs": convolution.source.shape.positions, "outputs": convolution.shape.positions}
    sizes = {name: blocks * pixels[name] * g_blocks[name] * tile for name in pixels}
    assert forward["bytes_written"] == sizes["outputs"]
    assert backward["bytes_written"] == sizes["inputs"]
    assert forward["bytes_read"] >= sizes["inputs"]
    # The output's gradient, and the input as mask.
    assert backward["bytes_read"] >= sizes["inputs"] + sizes["outputs"]
    state = 9 * g_blocks["inputs"] * g_blocks["outputs"] * 4 * tile
    assert update["bytes_written"] > state and update["bytes_read"] > state


@pytest.mark.parametrize("stage", ["FF", "BP", "WU"])
def test_a_wrong_result_is_noticed(card, golden, monkeypatch, stage):
    """One bit of what the golden model has written."""
    from sim.bench.memory import Workload

    def results(self, of):
        found = right(self, of)
        if self._driver.card is golden and of == stage:
            *_, name = found
            found = found | {name: found[name][:-1] + bytes([found[name][-1] ^ 0x80])}
        return found

    right = Workload.results
    monkeypatch.setattr(Workload, "results", results)
    with pytest.raises(AssertionError, match=f"small, dense, {stage}: .* differs from the golden"):
        run(Driver(card), golden, QUICK_LAYERS[0], Pattern.DENSE)


def test_a_lost_slot_is_noticed(card, golden, monkeypatch):
    monkeypatch.delitem(LOST, "operand")
    with pytest.raises(AssertionError, match=r"small, 2:8, FF: .* aren't \d+ in all"):
        run(Driver(card), golden, QUICK_LAYERS[0], Pattern.N2M8)


def test_streams_use_the_slots_of_the_port(card, golden):
    """Of a card that has fewer beats under way than the latency takes, and short STOREs."""
    rates = stream(card, golden)
    card.model.set_timing(timing_for(TINY))
    assert rates["read"] > 0.8 * TINY.outstanding_reads * TINY.burst_beats / LATENCY
    assert rates["write"] > 0.7
    assert max(rates.values()) <= 1


def test_a_stream_of_other_values_is_noticed(card, golden, monkeypatch):
    monkeypatch.setattr(golden, "read_memory", lambda address, size: card.read_memory(0, size))
    with pytest.raises(AssertionError, match="what the STOREs wrote differs"):
        stream(card, golden)


@pytest.mark.parametrize("name", ["sim", "sim-wide", "vcu1525"])
def test_a_card_has_its_share_of_the_reference(name):
    """As many words in all, and as many bytes a cycle for each MAC."""
    config, board = card_config(name), PRESETS[REFERENCE]
    assert config.rows * config.s_depth == board.rows * board.s_depth
    assert config.cols * config.d_depth == board.cols * board.d_depth
    assert config.cols * config.o_depth == board.cols * board.o_depth
    timing = timing_for(config)
    assert timing.latency == LATENCY
    bytes_per_cycle = timing.bandwidth * config.beat_bytes
    if name == REFERENCE:
        assert bytes_per_cycle == 2 * config.beat_bytes, "what the port takes"
    else:
        assert bytes_per_cycle * 4096 / config.macs * 250e6 == pytest.approx(77e9)
    same = {"name", "s_depth", "d_depth", "o_depth", "aux_depth", "queue_depth", "memory_bytes"}
    kept = {f.name for f in dataclasses.fields(config)} - same
    assert all(getattr(config, field) == getattr(preset(name), field) for field in kept)


def test_layers_are_those_of_resnet_18():
    """Each stage's first layer halves the image that the one before leaves; all are measured."""
    stages: dict[str, list[str]] = {}
    for layer in LAYERS:
        stages.setdefault(layer.name, []).extend(layer.stages)
    assert all(found == ["FF", "BP", "WU"] for found in stages.values())
    layers = list({layer.name: layer for layer in LAYERS}.values())
    assert [layer.outputs for layer in layers] == [128, 128, 256, 256, 512, 512]
    for first, other in zip(layers[::2], layers[1::2], strict=True):
        assert (first.stride, other.stride) == (2, 1)
        assert first.convolution(Pattern.DENSE).shape.height == other.side
        assert first.outputs == other.inputs == other.outputs == 2 * first.inputs
