"""Trains a network on a card, and checks the result against the golden model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtl.config import Config
from rtl.control.commands import Stage
from rtl.interface.register_map import STAGE_NAMES
from rtl.sparsity.pattern import Pattern

from .cards import Card, open_card
from .cards.golden import GoldenCard
from .dataset import Dataset, load_digits
from .driver import Driver, RunResult
from .loss import LossScale, one_cycle
from .model import METHOD_KINDS, PRODUCT_STAGES, Model
from .models import perceptron, residual_cnn
from .network import Network
from .schedule import Step

__all__ = [
    "MODELS",
    "Diverged",
    "Outcome",
    "Progress",
    "Settings",
    "build_model",
    "compare",
    "train",
    "train_reference",
]

MODELS = {"mlp": 4, "cnn": 2}
"""Networks by name, with the epochs that they are trained for unless it's said."""

_HOPELESS = 40
"""Steps skipped one after the other: no loss scale helps any more."""


_RECENT = 20
"""Batches over which the displayed accuracy is taken."""


class Diverged(RuntimeError):
    """Training met infinities or NaNs at every loss scale."""


@dataclass(frozen=True)
class Settings:
    """All that determines a training run.

    Parameters
    ----------
    card
        Name of the card, see `open_card`.
    model
        ``mlp``, a perceptron, or ``cnn``, a residual network.
    method
        What is pruned: ``bdwp``, forward and backward weights, or only one, ``ff`` or ``bp``.
    hidden
        Widths of the perceptron's hidden layers.
    widths
        Channels of the residual network's blocks.
    epochs, batch, seed
        Epochs, images in a batch, and the seed of split, weights and order.
    rate, momentum, decay
        Peak of the one-cycle learning rate, momentum, weight decay.
    loss_scale
        Binary logarithm of the first loss scale.
    growth_interval
        Clean steps after which the loss scale doubles.
    steps
        End after so many steps; None for whole epochs.
    description
        File with the configuration of a board that has none of the presets, see `open_card`.
    """

    card: str = "verilated:sim"
    model: str = "mlp"
    method: str = "bdwp"
    hidden: tuple[int, ...] = (128, 128, 128)
    widths: tuple[int, ...] = (32, 64)
    epochs: int = 4
    batch: int = 32
    seed: int = 0
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    loss_scale: int = 12
    growth_interval: int = 200
    steps: int | None = None
    description: str | None = None

    def open_card(self, trace: Path | None = None) -> Card:
        """Open the card, with a file for a waveform if one is wanted."""
        description = None if self.description is None else Path(self.description)
        return open_card(self.card, trace=trace, description=description)


@dataclass
class Progress:
    """State of a run, for display; `accuracy` is that of the last batches in training."""

    step: int
    steps: int
    loss: float
    accuracy: float
    cycles: int


@dataclass
class Outcome:
    """Result of one training run.

    Attributes
    ----------
    pattern
        N:M pattern of the hidden layers, as text.
    accuracy
        Share of the test images that the trained network gets right on the card.
    losses
        Training loss of every step.
    cycles
        By stage, and ``total``; training only.
    test_cycles
        Cycles of the forward passes over the test images.
    useful, dense_useful
        Multiply-adds of the training, after pruning and without pruning.
    slots
        Multiply-adds that the array could have made in all its cycles.
    skipped
        Steps whose gradient overflowed and was not applied.
    loss_scale
        ``(step, binary logarithm)`` wherever the loss scale changed.
    counters
        Every counter of the card, over the training.
    state
        What the network has learned, by name, as it lies in card memory.
    mismatches
        Tensors that differ from the golden model; None if they weren't compared.
    compared_bytes
        Bytes that were compared.
    """

    pattern: str
    accuracy: float = 0.0
    losses: list[float] = field(default_factory=list)
    cycles: dict[str, int] = field(default_factory=dict)
    test_cycles: int = 0
    useful: int = 0
    dense_useful: int = 0
    slots: int = 0
    skipped: int = 0
    loss_scale: list[tuple[int, int]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    state: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    mismatches: list[str] | None = None
    compared_bytes: int = 0

    @property
    def utilisation(self) -> float | None:
        """Useful multiply-adds for each that the array could have made; None without a clock."""
        return self.useful / self.slots if self.slots else None

    @property
    def lost(self) -> dict[str, float] | None:
        """Where the other multiply-adds went, as shares of all; None without a clock.

        ``edge``: padding of tiles, reductions and tensors, and the sums for the biases; ``filler``:
        lanes without an entry; ``fill``, ``drain`` and ``operand``: cycles without operands, as
        the counters call them.
        """
        if not self.slots:
            return None
        macs = self.counters["USEFUL_MACS"] + self.counters["EDGE_MACS"]
        return {
            "edge": (macs - self.useful) / self.slots,
            "filler": self.counters["FILLER_MACS"] / self.slots,
        } | {
            cause: self.counters[f"LOST_{cause.upper()}"] / self.cycles["total"]
            for cause in ("fill", "drain", "operand")
        }

    @property
    def adds_up(self) -> bool | None:
        """Whether the card accounts for every multiply-add; None without a clock."""
        if not self.slots:
            return None
        counted = sum(self.counters[f"{kind}_MACS"] for kind in ("USEFUL", "EDGE", "FILLER"))
        lost = sum(self.counters[f"LOST_{cause}"] for cause in ("FILL", "DRAIN", "OPERAND"))
        return counted + self.slots // self.cycles["total"] * lost == self.slots


def build_model(settings: Settings, data: Dataset, pattern: Pattern) -> Model:
    """Return the network; its first and its last layer are dense whatever `pattern`."""
    method = METHOD_KINDS[settings.method](pattern)
    if settings.model == "mlp":
        return perceptron(data.shape, data.classes, settings.hidden, method)
    return residual_cnn(data.shape, data.classes, settings.widths, method)


def train(
    settings: Settings,
    pattern: Pattern,
    *,
    trace: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train one network on the card, and test it there.

    Parameters
    ----------
    settings
        What to train.
    pattern
        N:M pattern of all layers but the first and the last.
    trace
        File for a waveform of the initialisation and the first step.
    report
        Called after every step.

    Raises
    ------
    CardError
        The card is missing, stopped at a fault, or didn't answer.
    Diverged
        No loss scale kept the gradients finite.
    """
    with settings.open_card(trace) as card:
        run = _Run(settings, pattern, card, report)
        outcome = run.train()
        outcome.accuracy, outcome.test_cycles = run.test()
        outcome.state = run.network.snapshot()
    return outcome


def train_reference(
    settings: Settings,
    pattern: Pattern,
    config: Config,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train the same network on the golden model of `config`; as `train`, but for the test."""
    with GoldenCard(config) as card:
        run = _Run(settings, pattern, card, report)
        outcome = run.train()
        outcome.state = run.network.snapshot()
    return outcome


def compare(outcome: Outcome, reference: Outcome) -> None:
    """Note in `outcome` where its losses and its state differ from the reference's."""
    outcome.mismatches = [
        name
        for name, bits in outcome.state.items()
        if not np.array_equal(bits, reference.state[name])
    ]
    if outcome.losses != reference.losses:
        outcome.mismatches.append("training loss")
    outcome.compared_bytes = sum(bits.size for bits in outcome.state.values())


class _Run:
    """One network in training on one card."""

    def __init__(
        self,
        settings: Settings,
        pattern: Pattern,
        card: Card,
        report: Callable[[Progress], None],
    ) -> None:
        self._settings = settings
        self._pattern = pattern
        self._card = card
        self._report = report
        self._rng = np.random.default_rng(settings.seed)
        self._data: Dataset = load_digits(self._rng)
        model = build_model(settings, self._data, pattern)
        self.network = Network(Driver(card), model, settings.batch)

    def train(self) -> Outcome:
        """Train from the beginning."""
        settings, data = self._settings, self._data
        outcome = Outcome(str(self._pattern))
        scale = LossScale(settings.loss_scale, settings.growth_interval)
        steps_per_epoch = len(data.train_images) // settings.batch
        all_steps = settings.epochs * steps_per_epoch
        steps = min(all_steps, settings.steps or all_steps)
        convolutions = self.network.model.convolutions
        self.network.initialise(
            {layer.name: layer.initial_weights(self._rng) for layer in convolutions}
        )
        total: RunResult | None = None
        skipped_in_a_row = 0
        recent: deque[float] = deque(maxlen=_RECENT)
        order = np.zeros(0, np.int64)
        for step in range(steps):
            if step % steps_per_epoch == 0:
                # The images that don't fill a batch sit this epoch out.
                order = self._rng.permutation(len(data.train_images))
            first = step % steps_per_epoch * settings.batch
            images = order[first : first + settings.batch]
            rate = one_cycle(step, all_steps, settings.rate)
            loss, right, clean, results = self._step(images, rate, scale)
            recent.append(right / settings.batch)
            if step == 0:
                self._card.stop_trace()
            for result in results:
                total = result if total is None else total + result
            outcome.losses.append(loss)
            self._count_products(outcome, PRODUCT_STAGES if len(results) > 1 else [Stage.FF])
            skipped_in_a_row = 0 if clean else skipped_in_a_row + 1
            if skipped_in_a_row == _HOPELESS:
                raise Diverged(
                    f"{_HOPELESS} steps in a row met infinities or NaNs, the last at step "
                    f"{step}: lower the learning rate"
                )
            assert total is not None
            accuracy = sum(recent) / len(recent)
            self._report(Progress(step + 1, steps, loss, accuracy, total.cycles))
        assert total is not None
        outcome.counters = dict(total.counters)
        outcome.cycles = {
            stage.lower(): total.counters[f"CYCLES_{stage}"] for stage in STAGE_NAMES
        } | {"total": total.cycles}
        outcome.slots = total.cycles * self._card.config.macs
        outcome.skipped, outcome.loss_scale = scale.skipped, scale.log
        return outcome

    def test(self) -> tuple[float, int]:
        """Return the share of test images that are classified right, and the cycles this took."""
        images, labels = self._data.test_images, self._data.test_labels
        right = cycles = 0
        for first in range(0, len(images), self._settings.batch):
            batch = slice(first, first + self._settings.batch)
            logits, result = self.network.infer(self._images(images[batch]))
            right += int((logits.argmax(axis=1) == labels[batch]).sum())
            cycles += result.cycles
        return right / len(images), cycles

    def _step(
        self, images: NDArray[np.int64], rate: float, scale: LossScale
    ) -> tuple[float, int, bool, list[RunResult]]:
        """Carry out one step.

        Returns its loss, how many images were right, whether it was applied, and what the card did.
        """
        settings, data = self._settings, self._data
        batch = self._images(data.train_images[images])
        loss, forward = self.network.forward(batch, data.train_labels[images], scale.factor)
        results = [forward]
        clean = not forward.counters["NONFINITE"]
        if clean:
            step = Step(rate, settings.momentum, settings.decay, scale.exponent)
            backward = self.network.backward(step)
            results.append(backward)
            clean = not backward.counters["NONFINITE"]
        if clean:
            self.network.apply()
        scale.observe(clean=clean)
        return loss.mean, loss.right, clean, results

    def _images(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images as the network takes them."""
        shape = self.network.model.input.shape
        return images.reshape(-1, shape.height, shape.width, shape.channels)

    def _count_products(self, outcome: Outcome, stages: Iterable[Stage]) -> None:
        """Count the multiply-adds of some stages of a step."""
        batch, model = self._settings.batch, self.network.model
        for stage in stages:
            outcome.useful += batch * model.kept_macs(stage)
            outcome.dense_useful += batch * model.macs(stage)
