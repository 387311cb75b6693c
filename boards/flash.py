"""Loads a card with what ``boards.build`` made: ``python -m boards.flash vcu1525``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .board import MissingTool, run
from .build import BOARDS, STATUS_FAILED, STATUS_MISSING_TOOL

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m boards.flash", description=__doc__)
    parser.add_argument("board", choices=BOARDS, help="board to load")
    parser.add_argument("--image", type=Path, help="file (that of build/boards/<board>)")
    parser.add_argument("--device", help="which card, as the board's tool names it (the only one)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    options = parser.parse_args(arguments)
    board = BOARDS[options.board]
    image = options.image or Path("build") / "boards" / board.name / board.image
    command = board.flash_command(image, options.device)
    if options.dry_run:
        print(command)
        return 0
    if not image.is_file():
        parser.error(f"no file '{image}'; python -m boards.build {board.name} makes it")
    try:
        status = run(command, image.resolve().parent)
    except MissingTool as missing:
        print(missing, file=sys.stderr)
        return STATUS_MISSING_TOOL
    if status:
        print(f"'{command.tools[0]}' failed with status {status}", file=sys.stderr)
        return STATUS_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
