"""What the model predicts beside what a card has measured."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["side_by_side"]


def side_by_side(measured: Mapping[str, int], predicted: Mapping[str, int]) -> str:
    """Return a table of counters: measured, predicted, and by how much they differ.

    Parameters
    ----------
    measured, predicted
        By how much a program raised each counter on a card, and in the model. Those of `measured`
        are shown, in its order.
    """
    lines = [f"{'counter':17}{'measured':>14}{'predicted':>14}{'difference':>12}"]
    for name, count in measured.items():
        difference = predicted[name] - count
        share = f"{difference / count:+.2%}" if count else f"{difference:+}"
        lines.append(
            f"{name:17}{count:14,}{predicted[name]:14,}{share if difference else '':>12}".rstrip()
        )
    return "\n".join(lines)
