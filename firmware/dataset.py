"""The embedded data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .model import Shape

__all__ = ["Dataset", "load_digits"]

_TRAINING_IMAGES = 1437


@dataclass(frozen=True)
class Dataset:
    """Images ``[count, height, width, channels]`` with their classes, for training and the test."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def shape(self) -> Shape:
        """Shape of an image."""
        return Shape(*self.train_images.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


def load_digits(rng: np.random.Generator) -> Dataset:
    """Return scikit-learn's 1,797 real 8 x 8 digits, values 0 to 1, split by `rng` 1,437 to 360."""
    # scikit-learn takes a second to import, which only training should pay for.
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    order = rng.permutation(len(images))
    train, test = order[:_TRAINING_IMAGES], order[_TRAINING_IMAGES:]
    return Dataset(
        images[train], labels[train].astype(np.int64), images[test], labels[test].astype(np.int64)
    )
