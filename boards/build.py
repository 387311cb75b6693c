"""From a configuration to what a board is loaded with.

``python -m boards.build vcu1525`` writes Verilog, scripts and constraints to the directory
``build/boards/vcu1525`` and runs the board's tools there. Where one of them is missing, all that
comes before it is there, with a README that says what to run, and the exit status is 3.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rtl.build import configure
from rtl.config import ConfigError

from .alveo import U200, U250
from .board import Board, MissingTool, run
from .ulx3s import ULX3S
from .vcu1525 import VCU1525

__all__ = ["BOARDS", "main"]

BOARDS: dict[str, Board] = {board.name: board for board in (ULX3S(), VCU1525(), U200, U250)}
"""Every board by its name."""

STATUS_FAILED = 1
STATUS_MISSING_TOOL = 3


def readme(board: Board, preset: str, files: Sequence[Path], output: Path) -> str:
    """Return a page that says what is in `output` and what to run there."""
    shown = [path.relative_to(output) for path in files if path.parent == output]
    return "\n".join(
        [
            f"# SAT for {board.name}",
            "",
            f"Made by `python -m boards.build {board.name}` from the configuration '{preset}'. "
            "Verilog is in `rtl/`; beside it:",
            "",
            *(f"- `{path}`" for path in shown),
            "",
            f"To make `{board.image}`, run here:",
            "",
            "```sh",
            *map(str, board.build_commands()),
            "```",
            "",
            "To load it onto a card:",
            "",
            "```sh",
            str(board.flash_command(output / board.image, None)),
            "```",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m boards.build", description=__doc__)
    parser.add_argument("board", choices=BOARDS, help="board to build for")
    parser.add_argument("--preset", help="configuration (the board's own)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings",
        help="change a parameter of the preset; may be given several times",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="directory (build/boards/<board>)")
    parser.add_argument(
        "--clock", type=float, metavar="MHZ",
        help="clock of the accelerator (the board's own)",
    )  # fmt: skip
    parser.add_argument(
        "--no-tools", action="store_true", help="write what the board's tools start from, no more"
    )
    options = parser.parse_args(arguments)
    board = BOARDS[options.board]
    output = (options.out or Path("build") / "boards" / board.name).resolve()
    clock_mhz = board.clock_mhz if options.clock is None else options.clock
    if not 10 <= clock_mhz <= 500:
        parser.error(f"--clock is {clock_mhz}, must be 10 to 500 MHz")
    try:
        config = configure(options.preset or board.preset, options.settings)
        files = board.write(config, output, clock_mhz)
        (output / "README.md").write_text(readme(board, config.name, files, output))
    except ConfigError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot write to '{output}': {error.strerror}")
    print(f"{config.name} for {board.name}: {len(files)} files in {output}")
    if options.no_tools:
        return 0
    for command in board.build_commands():
        try:
            print(f"running {command}", flush=True)
            status = run(command, output)
        except MissingTool as missing:
            print(f"{missing}; {output / 'README.md'} says what to run", file=sys.stderr)
            return STATUS_MISSING_TOOL
        if status:
            print(f"'{command.tools[0]}' failed with status {status}", file=sys.stderr)
            return STATUS_FAILED
    print(f"made {output / board.image}")
    report = board.report(output)
    if report:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
