"""Frames of zeros around what a LOAD reads."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """Zeros around images of beats, as `rtl.control.commands.Frame` describes them.

    Attributes
    ----------
    inside
        Images, their lines, and the beats of a line.
    margins
        Lines above and below, beats before and after.
    """

    inside: tuple[int, int, int]
    margins: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, fields: SimpleNamespace) -> Frame | None:
        """Return the frame with a LOAD's fields, if it has one."""
        if not any(vars(fields).values()):
            return None
        margins = (fields.above, fields.below), (fields.before, fields.after)
        return cls((fields.images, fields.lines, fields.beats), margins)

    @property
    def whole(self) -> tuple[int, int, int]:
        """Like `inside`, with the zeros."""
        (images, lines, beats), (vertical, horizontal) = self.inside, self.margins
        return images, lines + sum(vertical), beats + sum(horizontal)

    @property
    def malformed(self) -> bool:
        """Whether it surrounds nothing, or has a side of 2**16 or more."""
        return 0 in self.inside or max(self.whole) >= 1 << 16

    def put_around(self, beats: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return ``beats[beat, ...]`` with the zeros between them."""
        size = beats.shape[1:]
        images = beats.reshape(*self.inside, *size)
        margins = (0, 0), *self.margins, *[(0, 0)] * len(size)
        return np.pad(images, margins).reshape(-1, *size)
