"""Which configuration a real card has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from rtl.config import PRESETS, Config, ConfigError
from rtl.interface.register_map import IDENTITY, REGISTERS

from ..errors import CardError

__all__ = ["identify", "read_description"]

_NOBODY = 0xFFFFFFFF
"""What a read over PCIe gives when nothing answers."""


def read_description(file: Path) -> Config:
    """Return the configuration in a JSON file that ``rtl.build`` wrote.

    Raises
    ------
    CardError
        The file can't be read, isn't such a file, or was edited.
    """
    try:
        card = json.loads(file.read_text())
        fields = {field.name: card["config"][field.name] for field in dataclasses.fields(Config)}
        config, expected = Config(**fields), card["config_hash"]
    except OSError as error:
        raise CardError(f"cannot read '{file}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = error if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise CardError(f"'{file}' is no description of a card by rtl.build: {reason}") from None
    if config.hash != expected:
        raise CardError(
            f"'{file}' says hash {expected:#010x}, its configuration has {config.hash:#010x}"
        )
    return config


def identify(
    place: str, read_register: Callable[[int], int], description: Path | None = None
) -> Config:
    """Return the configuration of the card at `place`, by its registers.

    Parameters
    ----------
    place
        The card's name, for messages.
    read_register
        Reads one of its registers.
    description
        File of `read_description`, for a configuration that is no preset.

    Raises
    ------
    CardError
        This is no SAT card, or its configuration isn't known; the message says which are.
    """
    identity = read_register(REGISTERS["IDENTITY"].offset)
    if identity == _NOBODY:
        raise CardError(f"{place}: nothing answers on the bus, registers read {_NOBODY:#010x}")
    if identity != IDENTITY:
        raise CardError(
            f"{place}: this is no SAT card: IDENTITY is {identity:#010x}, expected {IDENTITY:#010x}"
        )
    found = read_register(REGISTERS["CONFIG_HASH"].offset)
    known = list(PRESETS.values()) if description is None else [read_description(description)]
    for config in known:
        if config.hash == found:
            return config
    listed = ", ".join(f"{config.name} {config.hash:#010x}" for config in known)
    raise CardError(
        f"{place}: CONFIG_HASH is {found:#010x}, known are {listed}; a card with another "
        "configuration needs the JSON file that rtl.build wrote with its gateware"
    )
