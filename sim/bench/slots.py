"""Where the MAC slots of a program go: cycles times multipliers, by the card's counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CAUSES", "LOST", "PADDING", "account"]

LOST = {
    "fill": "LOST_FILL",
    "drain": "LOST_DRAIN",
    "operand": "LOST_OPERAND",
}
"""Causes for which a cycle has no products at all, and their counters."""

PADDING = {"edge": "EDGE_MACS", "filler": "FILLER_MACS"}
"""Causes for which single MACs of a cycle are lost."""

CAUSES = (*LOST, *PADDING)


def account(
    what: object, counters: Mapping[str, int], macs: int, products: int | None = None
) -> dict[str, Any]:
    """Return the share of the slots that were used, and those of each cause of losing them.

    Parameters
    ----------
    what
        The program, for messages.
    counters
        By how much it raised them.
    macs
        Multipliers of the card.
    products
        Those that count as useful, if not all that the card counts as such: the difference is of
        the kind of an edge.

    Returns
    -------
    ``utilisation`` and ``lost``, by cause; together 1 but for the rounding to five digits.

    Raises
    ------
    AssertionError
        The counters don't account for every slot, or for fewer useful ones than `products`.
    """
    total = counters["CYCLES"] * macs
    useful = counters["USEFUL_MACS"]
    lost = {cause: counters[name] * macs for cause, name in LOST.items()}
    lost |= {cause: counters[name] for cause, name in PADDING.items()}
    assert useful + sum(lost.values()) == total, (
        f"{what}: {useful} useful MACs and those lost, {lost}, aren't {total} in all"
    )
    if products is not None:
        assert useful >= products, f"{what}: {useful} useful MACs, expected at least {products}"
        lost["edge"] += useful - products
        useful = products
    return {
        "utilisation": round(useful / total, 5),
        "lost": {cause: round(share / total, 5) for cause, share in lost.items()},
    }
