"""Settings for the scripts in ``boards/tcl``, which Vivado runs."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["copy_scripts", "settings", "tcl_list", "word"]

SCRIPTS = Path(__file__).parent / "tcl"


def word(value: object) -> str:
    """Return `value` as one word of a Tcl command; a list or tuple becomes a Tcl list.

    Raises
    ------
    ValueError
        The text has braces or backslashes, for which no setting has a use.
    """
    text = tcl_list(value) if isinstance(value, list | tuple) else str(value)
    if not isinstance(value, list | tuple) and any(c in text for c in "{}\\"):
        raise ValueError(f"'{text}' can't be a word of Tcl here: it has braces or backslashes")
    plain = text and not any(c.isspace() or c in '"$[];#' for c in text)
    return text if plain else f"{{{text}}}"


def tcl_list(values: Iterable[object]) -> str:
    """Return the text of a Tcl list."""
    return " ".join(word(value) for value in values)


def settings(values: Mapping[str, object]) -> str:
    """Return a script that sets global variables."""
    lines = [f"set {name} {word(value)}" for name, value in values.items()]
    return "\n".join(["# Made by boards.build from the configuration; don't edit.", *lines, ""])


def copy_scripts(names: Iterable[str], output: Path) -> list[Path]:
    """Copy scripts of ``boards/tcl`` to `output`; return the copies."""
    return [Path(shutil.copy(SCRIPTS / name, output / name)) for name in names]
