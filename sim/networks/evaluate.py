"""One network's training step on one card: scheduled, run through the cycle model, accounted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firmware.cards.cycles import CycleCard
from firmware.driver import Driver
from firmware.model import PRODUCT_STAGES, Layer, Method, Model
from firmware.models import NETWORKS
from firmware.network import Network
from rtl.config import Config, preset
from rtl.control.commands import Queue, Stage
from rtl.interface.register_map import STAGE_NAMES

from ..bench.slots import account
from ..cache import digest
from .points import timing_for
from .timeline import attribute

__all__ = ["BATCHES", "Job", "evaluate", "evaluate_model"]

BATCHES = {"resnet9": 128, "vgg19": 128, "vit-small": 128, "resnet18": 128, "resnet50": 64}
"""Images in a step of each network."""


@dataclass(frozen=True)
class Job:
    """A training step of one of `NETWORKS`.

    Parameters
    ----------
    network, method, preset
        Names of the network, the training method, and the configuration of the card.
    batch
        Images.
    """

    network: str
    method: str
    preset: str
    batch: int

    def __str__(self) -> str:
        return f"{self.network}, {self.method}, {self.preset}, batch {self.batch}"

    def model(self) -> Model:
        """Return the network."""
        return NETWORKS[self.network](Method.parse(self.method))

    def key(self, sources: str) -> str:
        """Return what the result depends on, as a short name; `sources` is that of the sources."""
        config = preset(self.preset)
        return digest(
            {
                "sources": sources,
                "config": dataclasses.asdict(config),
                "timing": dataclasses.asdict(timing_for(config)),
                "layers": list(map(repr, self.model().layers)),
                "batch": self.batch,
            }
        )


def evaluate(job: Job) -> dict[str, Any]:
    """Carry out a job; returns what `evaluate_model` does, with the job's fields.

    Raises
    ------
    ScheduleError, AllocationError
        The network doesn't run on the card; the message names the layer and the reason.
    """
    figures = evaluate_model(job.model(), preset(job.preset), job.batch)
    return dataclasses.asdict(job) | figures


def evaluate_model(model: Model, config: Config, batch: int) -> dict[str, Any]:
    """Schedule a network's training step and run its programs through the cycle model.

    Parameters
    ----------
    model
        The network, with the patterns of its layers.
    config
        The card; its memory is that of the design points.
    batch
        Images in the step.

    Returns
    -------
    ``macs`` of the card; ``cycles`` by stage and ``total``; ``kept_macs`` of the batch after
    pruning, and ``dense_macs`` before; ``utilisation`` and ``lost`` slots by cause, together 1;
    ``held``, cycles by what held the card; ``read_bytes`` and ``written_bytes``; ``port_bytes``,
    the most that goes through one of the core's ports; ``commands``;
    ``layers``, a record for each layer and stage as `timeline.Share` has it, with its kind and its
    multiply-adds, cycles counted from the beginning of the step; and ``counters``.

    Raises
    ------
    ScheduleError, AllocationError
        The network doesn't run on the card; the message names the layer and the reason.
    """
    card = CycleCard(config, timing=timing_for(config))
    driver = Driver(card)
    network = Network(driver, model, batch, step_only=True)
    layers = {layer.name: layer for layer in model.layers}
    records: list[dict[str, Any]] = []
    counters: Counter[str] = Counter()
    streamed = 0
    for program in network.step_programs:
        began = counters["CYCLES"]
        counters.update(driver.run(program).counters)
        if config.read_ports > 1:
            streams = (i for i, queue in enumerate(program.queues) if queue is Queue.STREAM)
            streamed += sum(program.traffic(index)[0] for index in streams)
        assert card.measurement is not None
        for share in attribute(program, card.measurement):
            layer = layers.get(share.label)
            records.append(
                {
                    "layer": share.label or "other",
                    "kind": type(layer).__name__ if layer else "Loss",
                    "stage": share.stage.name.lower(),
                    "start": began + share.start,
                    "end": began + share.end,
                    "cycles": share.cycles,
                    "held": share.held,
                    "macs": _macs(model, layer, share.stage, batch),
                    "read_bytes": share.read_bytes,
                    "written_bytes": share.written_bytes,
                    "commands": share.commands,
                }
            )
    kept = batch * sum(map(model.kept_macs, PRODUCT_STAGES))
    slots = account(model.name, counters, config.macs, kept)
    held: Counter[str] = Counter()
    for record in records:
        held.update(record["held"])
    read, written = (counters[f"{way}_BEATS"] * config.beat_bytes for way in ("READ", "WRITE"))
    return {
        "macs": config.macs,
        "beat_bytes": config.beat_bytes,
        "cycles": _by_stage(counters),
        "kept_macs": kept,
        "dense_macs": batch * sum(map(model.macs, PRODUCT_STAGES)),
        "ceiling": model.ceiling,
        **slots,
        "held": dict(held),
        "read_bytes": read,
        "written_bytes": written,
        "port_bytes": max(read - streamed, streamed, written),
        "commands": counters["COMMANDS"],
        "layers": records,
        "counters": dict(counters),
    }


def _by_stage(counters: Mapping[str, int]) -> dict[str, int]:
    stages = {name.lower(): counters[f"CYCLES_{name}"] for name in STAGE_NAMES}
    return stages | {"total": counters["CYCLES"]}


def _macs(model: Model, layer: Layer | None, stage: Stage, batch: int) -> int:
    """Return the multiply-adds that a layer has in a stage, after pruning."""
    if layer is None or stage not in PRODUCT_STAGES or not model.has_stage(layer, stage):
        return 0
    return batch * layer.kept_macs(stage)
