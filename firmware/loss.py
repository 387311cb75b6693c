"""What the host decides in training: the scale of the loss, and the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["LossScale", "one_cycle"]


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of `step`: linear up to `peak`, then down along a cosine.

    It begins at a tenth of `peak`, reaches it after three tenths of `steps`, and ends at a
    hundredth of it.
    """
    warm_up, first, last = 0.3, 0.1, 0.01
    progress = step / steps
    if progress < warm_up:
        return peak * (first + (1 - first) * progress / warm_up)
    fall = (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2
    return peak * (last + (1 - last) * fall)


@dataclass
class LossScale:
    """Dynamic loss scale, a power of two.

    A step that met an infinity or a NaN is not applied and halves the scale; a run of clean steps
    doubles it.

    Parameters
    ----------
    exponent
        Binary logarithm of the scale at the start.
    growth_interval
        Clean steps after which it doubles.

    Attributes
    ----------
    skipped
        Steps that were not applied.
    log
        ``(step, exponent)`` at the start and wherever the exponent changed.
    """

    exponent: int
    growth_interval: int
    skipped: int = field(default=0, init=False)
    log: list[tuple[int, int]] = field(init=False)

    LIMITS = (-14, 24)
    """Of the exponent: within them 1.0 times the scale is a normal binary16, or nearly so."""

    def __post_init__(self) -> None:
        low, high = self.LIMITS
        if not low <= self.exponent <= high:
            raise ValueError(
                f"the loss scale's exponent is {self.exponent}, must be {low} to {high}"
            )
        if self.growth_interval < 1:
            raise ValueError(f"the growth interval is {self.growth_interval}, must be positive")
        self.log = [(0, self.exponent)]
        self._steps = 0
        self._clean = 0

    @property
    def factor(self) -> float:
        """The scale."""
        return math.ldexp(1.0, self.exponent)

    def observe(self, *, clean: bool) -> None:
        """Take note of a step's outcome; `clean` if it met no infinity and no NaN."""
        low, high = self.LIMITS
        before = self.exponent
        self._steps += 1
        self._clean = self._clean + 1 if clean else 0
        if not clean:
            self.skipped += 1
            self.exponent = max(low, self.exponent - 1)
        elif self._clean == self.growth_interval:
            self._clean = 0
            self.exponent = min(high, self.exponent + 1)
        if self.exponent != before:
            self.log.append((self._steps, self.exponent))
