"""Pipeline registers."""

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data

__all__ = ["delayed"]


def delayed(m: Module, value: Any, cycles: int = 1, *, reset: bool = False) -> Any:
    """Return `value`, a value or a view, as it was `cycles` ago.

    Parameters
    ----------
    m
        Module that takes the registers, in the domain ``sync``.
    value
        What to delay.
    cycles
        Registers in the way; none returns `value` itself.
    reset
        Whether reset clears the registers; needed only where the value acts on its own, as a strobe
        does.
    """
    shape = value.shape() if isinstance(value, data.View) else Value.cast(value).shape()
    for _ in range(cycles):
        register = Signal(shape, reset_less=not reset)
        m.d.sync += register.eq(value)
        value = register
    return value
