"""What transformers have besides fully connected layers and layer normalisation.

The tokens of an image are the positions of a `Shape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtl.control.commands import Stage

from .layer import Layer

__all__ = ["Attention", "MatrixProduct", "PositionEmbedding"]


@dataclass(frozen=True, eq=False, repr=False)
class PositionEmbedding(Layer):
    """Adds a learned value to each channel of each position, the same for all images.

    Parameters
    ----------
    source
        Its input.
    """

    source: Layer

    def __post_init__(self) -> None:
        self._keep_shape(self.source)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)

    @property
    def parameters(self) -> int:
        return self.shape.positions * self.shape.channels


@dataclass(frozen=True)
class MatrixProduct:
    """Matrix products of one form, ``[rows, reduction] x [reduction, columns]``.

    Parameters
    ----------
    stage
        Part of the training step.
    name
        What comes out.
    count
        Products for one image.
    rows, columns, reduction
        Their sizes.
    """

    stage: Stage
    name: str
    count: int
    rows: int
    columns: int
    reduction: int

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return self.count * self.rows * self.columns * self.reduction


@dataclass(frozen=True, eq=False, repr=False)
class Attention(Layer):
    """Multi-head self-attention without its projections, which are convolutions of one tap.

    Each head computes ``P = softmax(Q K^T / sqrt(d))`` and ``P V`` on its ``d`` channels of
    queries, keys and values. Both operands of both products are activations: there is nothing to
    prune, and no weight to learn. (A. Vaswani et al., "Attention is all you need", 2017.)

    Parameters
    ----------
    source
        Queries, keys and values: each a third of its channels, in this order, with the channels of
        a head side by side.
    heads
        How many; they share the channels evenly.
    """

    source: Layer
    heads: int = 1

    def __post_init__(self) -> None:
        self._need_at_least(1, heads=self.heads)
        shape = self.source.shape
        if shape.channels % (3 * self.heads):
            self._refuse(
                f"{shape.channels} channels aren't queries, keys and values of {self.heads} heads: "
                f"must be a multiple of {3 * self.heads}"
            )
        self._set_shape(shape.height, shape.width, shape.channels // 3)

    @property
    def sources(self) -> tuple[Layer, ...]:
        return (self.source,)

    @property
    def products(self) -> tuple[MatrixProduct, ...]:
        """The products of a training step: two forward, and for each two gradients backward.

        With the gradient ``dO`` of the output: ``dP = dO V^T``, ``dV = P^T dO``, and with the
        gradient ``dS`` of the scores ``Q K^T`` that follows, ``dQ = dS K`` and ``dK = dS^T Q``.
        """
        tokens, width = self.shape.positions, self.shape.channels // self.heads
        sizes = {
            "scores": (Stage.FF, tokens, tokens, width),
            "outputs": (Stage.FF, tokens, width, tokens),
            "probability gradients": (Stage.BP, tokens, tokens, width),
            "value gradients": (Stage.BP, tokens, width, tokens),
            "query gradients": (Stage.BP, tokens, width, tokens),
            "key gradients": (Stage.BP, tokens, width, tokens),
        }
        return tuple(
            MatrixProduct(stage, name, self.heads, *size) for name, (stage, *size) in sizes.items()
        )

    def macs(self, stage: Stage) -> int:
        """Return the multiply-adds for one image: twice as many in BP as in FF, none in WU."""
        return sum(product.macs for product in self.products if product.stage is stage)
