"""Which weights take part in a training step: N:M sparse training methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rtl.sparsity.pattern import Pattern, PatternError

__all__ = ["DENSE", "METHODS", "METHOD_KINDS", "Method"]


@dataclass(frozen=True)
class Method:
    """How the weights of a layer are pruned in each direction of a training step.

    Each direction has a copy of its own, pruned by magnitude from the same dense master weights,
    and renewed at every update. Weight gradients are dense and reach every master weight (a
    straight-through estimator).

    Parameters
    ----------
    forward
        N:M pattern of the weights in FF, in groups along the input channels.
    backward
        N:M pattern of the weights in BP, in groups along the output channels.
    """

    forward: Pattern = Pattern.DENSE
    backward: Pattern = Pattern.DENSE

    @classmethod
    def ff(cls, pattern: Pattern) -> Method:
        """Return pruning of the forward pass only, as SR-STE prunes.

        The gradient of the data takes the dense weights. Without SR-STE's decay of pruned weights.
        (A. Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch",
        2021.)
        """
        return cls(forward=pattern)

    @classmethod
    def bp(cls, pattern: Pattern) -> Method:
        """Return pruning of the backward pass only; the forward pass takes the dense weights."""
        return cls(backward=pattern)

    @classmethod
    def bdwp(cls, pattern: Pattern) -> Method:
        """Return bidirectional weight pruning.

        (C. Fang et al., "Efficient N:M sparse DNN training using algorithm, architecture, and
        dataflow co-design", 2023.)
        """
        return cls(pattern, pattern)

    @classmethod
    def parse(cls, text: str) -> Method:
        """Return the method written as ``dense`` or ``KIND-N:M``, such as ``bdwp-2:8``.

        Raises
        ------
        ValueError
            There is no such method.
        """
        if text == str(DENSE):
            return DENSE
        kind, _, pattern = text.partition("-")
        if kind not in METHOD_KINDS:
            choices = ", ".join(f"{kind}-N:M" for kind in METHOD_KINDS)
            raise ValueError(f"no training method '{text}'; choose from: dense, {choices}")
        try:
            return METHOD_KINDS[kind](Pattern.parse(pattern))
        except PatternError as error:
            raise ValueError(f"no training method '{text}': {error}") from None

    def __str__(self) -> str:
        if self.forward is self.backward:
            return "dense" if self.forward is Pattern.DENSE else f"bdwp-{self.forward}"
        if self.backward is Pattern.DENSE:
            return f"ff-{self.forward}"
        if self.forward is Pattern.DENSE:
            return f"bp-{self.backward}"
        return f"ff-{self.forward} bp-{self.backward}"


DENSE = Method()
"""Training without pruning."""

METHOD_KINDS: dict[str, Callable[[Pattern], Method]] = {
    "bdwp": Method.bdwp,
    "ff": Method.ff,
    "bp": Method.bp,
}
"""Methods by name, for a pattern that is yet to be chosen."""

METHODS = tuple(
    map(Method.parse, ("dense", "ff-2:8", "bp-2:8", "bdwp-2:4", "bdwp-2:8", "bdwp-1:8"))
)
"""The methods that are compared with each other."""
