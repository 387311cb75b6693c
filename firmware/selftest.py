"""Tests a card: registers, memory, products in every N:M pattern, updates, an error and after it.

``python -m firmware.selftest CARD``. Results are compared bit by bit with the golden model. Status:
0 if all passed, 1 if something failed, 2 if the card can't be tested at all.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtl.config import PAGE_BYTES
from rtl.control.commands import LoadOrder, LoadTarget, Stage
from rtl.interface.register_map import REGISTERS, Access, Control, Interrupt
from rtl.sparsity.pattern import Pattern, supported_patterns
from sim.golden.arithmetic import dot
from sim.golden.sparsity import pack_state_tile, pack_tiles, prune
from sim.golden.update import update

from .cards import BOARDS, MODELS, open_card
from .driver import Driver, RunResult
from .errors import AllocationError, CardError, CardFault
from .program import Program, descriptor, product
from .schedule import Step

__all__ = ["Check", "SelfTest", "main"]

_RATE, _MOMENTUM, _DECAY, _SCALE = 0.1, 0.9, 5e-4, 3
"""Of the update; the scale is the binary logarithm of what divides the gradients."""


class CheckFailed(Exception):
    """The card did something else than it should; the message says what."""


@dataclass(frozen=True)
class Check:
    """What came out of one check.

    Attributes
    ----------
    name
        What was checked.
    passed
        Whether it was right.
    detail
        What was done, or what was wrong.
    seconds
        How long it took.
    """

    name: str
    passed: bool
    detail: str
    seconds: float


class SelfTest:
    """The checks of one card.

    Whatever is in its memory is lost. Every wait is bounded, by the card's time-out.

    Parameters
    ----------
    driver
        Of the card.
    seed
        Of all random data.
    """

    def __init__(self, driver: Driver, seed: int = 0) -> None:
        self._driver = driver
        self._card = driver.card
        self._config = driver.config
        self._seed = seed
        patterns = supported_patterns(driver.config)
        self._checks: list[tuple[str, Callable[[], str]]] = [
            ("registers", self._check_registers),
            ("memory", self._check_memory),
            *((f"product {p}", functools.partial(self._check_product, p)) for p in patterns),
            *((f"update {p}", functools.partial(self._check_update, p)) for p in patterns),
            ("error and recovery", self._check_recovery),
        ]

    def run(self, show: Callable[[str], None] = lambda text: None) -> Iterator[Check]:
        """Run one check after the other; after one that failed, the card is reset.

        A card that can't be reset isn't checked any further. `show` is told what comes next.
        """
        for number, (name, check) in enumerate(self._checks, 1):
            show(f"{number} of {len(self._checks)}: {name}")
            start = time.monotonic()
            try:
                self._driver.reset()
                detail, passed = check(), True
            except (CheckFailed, CardError, AllocationError) as error:
                detail, passed = str(error), False
            yield Check(name, passed, detail, round(time.monotonic() - start, 3))
            if not passed:
                try:
                    self._driver.reset()
                except CardError as error:
                    yield Check("reset", False, str(error), 0.0)
                    return

    def _random(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    @contextmanager
    def _blocks(self, *sizes: int) -> Iterator[list[int]]:
        """Allocate blocks of memory, each on a page, and so a channel, of its own."""
        memory = self._driver.memory
        with ExitStack() as stack:
            addresses = []
            for size in sizes:
                addresses.append(memory.allocate(size, alignment=PAGE_BYTES))
                stack.callback(memory.free, addresses[-1])
            yield addresses

    def _run(self, program: Program) -> RunResult:
        """Run a program and free its memory, however it ends."""
        try:
            return self._driver.run(program)
        finally:
            self._driver.unload(program)

    def _read(self, name: str) -> int:
        return self._card.read_register(REGISTERS[name].offset)

    def _check_registers(self) -> str:
        """Those that can be written keep what was written, the others don't change."""
        writable = ("PROGRAM_LOW", "PROGRAM_HIGH", "PROGRAM_COMMANDS")
        values = [0, 0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, *(1 << bit for bit in range(32))]
        for turn, value in enumerate(values):
            # Each gets another value, so that one can't stand for its neighbour.
            written = {
                name: (value * (turn + i + 1)) & 0xFFFFFFFF for i, name in enumerate(writable)
            }
            for name, content in written.items():
                self._card.write_register(REGISTERS[name].offset, content)
            for name, content in written.items():
                _expect(f"register {name}", self._read(name), content)
        fixed = [name for name, each in REGISTERS.items() if each.access is Access.READ_ONLY]
        for name in fixed:
            before = self._read(name)
            self._card.write_register(REGISTERS[name].offset, ~before & 0xFFFFFFFF)
            _expect(f"read-only register {name}", self._read(name), before)
        _expect("CONTROL", self._read("CONTROL"), int(Control.IDLE))
        return f"{len(values)} values in {len(writable)} registers; {len(fixed)} read-only ones"

    def _check_memory(self) -> str:
        """Patterns, page borders of all channels, odd addresses and sizes, address lines."""
        random, size = self._random(), self._card.memory_bytes
        block = self._config.channels * PAGE_BYTES
        words = np.arange(block // 4, dtype="<u4")
        patterns = {
            "zeros": np.zeros(block, np.uint8),
            "ones": np.full(block, 0xFF, np.uint8),
            "0x55": np.full(block, 0x55, np.uint8),
            "0xAA": np.full(block, 0xAA, np.uint8),
            "addresses": words.view(np.uint8),
            "inverted addresses": (~words).view(np.uint8),
            "random bytes": random.integers(0, 256, block, np.uint8),
        }
        for name, content in patterns.items():
            for start in (0, size - block):
                self._write_and_read(f"memory, {name}", start, content)
        # Around the first borders between pages: every channel's neighbour.
        borders = range(PAGE_BYTES, (2 * self._config.channels + 1) * PAGE_BYTES, PAGE_BYTES)
        odd = 0
        for border in borders:
            for before, length in ((1, 2), (3, 7), (5, 64), (64, 65), (33, 200)):
                content = random.integers(0, 256, length, np.uint8)
                around = self._card.read_memory(border - before - 1, length + 2)
                around[1:-1] = content
                self._card.write_memory(border - before, content)
                found = self._card.read_memory(border - before - 1, length + 2)
                _expect_bytes("memory, page border", found, around, border - before - 1)
                odd += 1
        # A mark at every power of two: lines that are stuck or tied together lose one of them.
        marks = {1 << bit: bit for bit in range(6, size.bit_length() - 1)} | {0: 0xFF}
        for address, mark in marks.items():
            self._card.write_memory(address, np.full(64, mark, np.uint8))
        for address, mark in marks.items():
            found = self._card.read_memory(address, 64)
            _expect_bytes("memory, address lines", found, np.full(64, mark, np.uint8), address)
        return (
            f"{len(patterns)} patterns of {block:,} bytes at either end of {size:,}, "
            f"{odd} accesses across {len(borders)} page borders, {len(marks) - 1} address lines"
        )

    def _write_and_read(self, what: str, address: int, content: NDArray[np.uint8]) -> None:
        self._card.write_memory(address, content)
        _expect_bytes(what, self._card.read_memory(address, content.size), content, address)

    def _product(self, pattern: Pattern) -> RunResult:
        """Multiply random matrices and compare with the golden model."""
        config, g, words = self._config, self._config.elements, 2
        random = self._random()
        s = prune(_halves(random, g, words * g), pattern)
        d = _halves(random, g, words * g)
        tiles = pack_tiles(s, pattern, config)
        rows = d.view(np.uint8).reshape(-1)
        result_bytes = g * 2 * config.beat_bytes
        with self._blocks(tiles.size, rows.size, result_bytes) as (s_at, d_at, o_at):
            self._card.write_memory(s_at, tiles)
            self._card.write_memory(d_at, rows)
            self._card.write_memory(o_at, np.full(result_bytes, 0xA5, np.uint8))
            program = Program(config, f"product {pattern}")
            program.load(
                LoadTarget.S, Stage.FF, pattern=pattern, rows=g, d_words=words,
                descriptor=descriptor(config, s_at, tiles.size // config.beat_bytes),
            )  # fmt: skip
            program.load(
                LoadTarget.D, Stage.FF, rows=g, d_words=words,
                descriptor=descriptor(config, d_at, g * words),
            )  # fmt: skip
            program.compute(Stage.FF, o_stride=2, **product(config, pattern, a=g, b=g, k=words * g))
            program.store(
                Stage.FF, o_stride=2, rows=g, words=2, descriptor=descriptor(config, o_at, 2 * g)
            )
            result = self._run(program)
            found = self._card.read_memory(o_at, result_bytes)
            _expect_bytes(f"product {pattern}", found, _bytes(dot(s, d)), o_at)
        return result

    def _check_product(self, pattern: Pattern) -> str:
        config, g = self._config, self._config.elements
        result = self._product(pattern)
        _expect("counter COMMANDS", result.counters["COMMANDS"], 4)
        _expect("counter WRITE_BEATS", result.counters["WRITE_BEATS"], 2 * g)
        useful = g * g * 2 * g * pattern.n // pattern.m
        _expect("counter USEFUL_MACS", result.counters["USEFUL_MACS"], useful)
        return (
            f"{g} x {2 * g} by {2 * g} x {g}, {useful:,} MACs{_cycles(result, useful, config.macs)}"
        )

    def _check_update(self, pattern: Pattern) -> str:
        """A weight gradient, the update of its weights, and both compressed copies of them."""
        config, g = self._config, self._config.elements
        random = self._random()
        x, dy = _halves(random, g, g), _halves(random, g, g)
        weights, momentum = (
            random.standard_normal((1, g, g)).astype(np.float32).view(np.uint32) for _ in range(2)
        )
        settings = Step(_RATE, _MOMENTUM, _DECAY, _SCALE).fields()
        gradients = dot(np.ascontiguousarray(dy.T), np.ascontiguousarray(x.T))[None]
        expected = update(
            weights, momentum, gradients, config,
            row_pattern=pattern, column_pattern=pattern, **settings,
        )  # fmt: skip
        assert expected.row_copy is not None and expected.column_copy is not None
        state = pack_state_tile(weights, momentum)
        copy = expected.row_copy.size
        with self._blocks(x.nbytes, dy.nbytes, state.size, copy, copy) as blocks:
            x_at, dy_at, state_at, row_at, column_at = blocks
            self._card.write_memory(x_at, _bytes(x))
            self._card.write_memory(dy_at, _bytes(dy))
            self._card.write_memory(state_at, state)
            program = Program(config, f"update {pattern}")
            program.load(
                LoadTarget.S, Stage.WU, pattern=Pattern.DENSE, rows=g, d_words=1, transpose=1,
                descriptor=descriptor(config, dy_at, g),
            )  # fmt: skip
            program.load(
                LoadTarget.D, Stage.WU, rows=g, d_words=1, order=LoadOrder.TILES, transpose=1,
                descriptor=descriptor(config, x_at, g),
            )  # fmt: skip
            program.compute(Stage.WU, o_stride=2, **product(config, Pattern.DENSE, a=g, b=g, k=g))
            beats = 4 * g
            feed = {"rows": beats, "d_words": 1, "descriptor": descriptor(config, state_at, beats)}
            program.update(
                Stage.UPDATE, [feed], o_stride=2, tiles=1, rows=g, state_address=state_at,
                row_copy=1, row_pattern=pattern, row_address=row_at, row_stride=copy,
                column_copy=1, column_pattern=pattern, column_address=column_at,
                column_stride=copy, **settings,
            )  # fmt: skip
            result = self._run(program)
            for what, address, content in (
                ("weights and momentum", state_at, pack_state_tile(expected.w, expected.v)),
                ("backward copy", row_at, expected.row_copy),
                ("forward copy", column_at, expected.column_copy),
            ):
                found = self._card.read_memory(address, content.size)
                _expect_bytes(f"update {pattern}, {what}", found, content.reshape(-1), address)
        return f"{g} x {g} weights, momentum and two copies{_cycles(result)}"

    def _check_recovery(self) -> str:
        """A read behind the end of memory stops the program; a reset makes all well again."""
        config = self._config
        end, last = config.memory_bytes, self._card.memory_bytes - 64
        kept = self._random().integers(0, 256, 64, np.uint8)
        self._card.write_memory(last, kept)
        program = Program(config, "a read behind the end of memory")
        aux = {"rows": 2, "d_words": 1}
        for address in (0, end - config.beat_bytes, 0):
            program.load(LoadTarget.AUX, Stage.FF, descriptor=descriptor(config, address, 2), **aux)
        try:
            self._run(program)
        except CardFault as fault:
            _expect_text("code of the fault", fault.code, "ADDRESS_RANGE")
            _expect("command of the fault", fault.index, 1)
            _expect("address of the fault", fault.address, end)
        else:
            raise CheckFailed("a read behind the end of memory was carried out")
        status = Control(self._read("CONTROL"))
        _expect("CONTROL after a fault", int(status), int(Control.FAULT))
        causes = self._read("INTERRUPT_STATUS")
        _expect("INTERRUPT_STATUS after a fault", causes & Interrupt.FAULT, int(Interrupt.FAULT))
        if not self._card.wait_interrupt(self._card.default_timeout / 100):
            raise CheckFailed("the interrupt is low after a fault")
        self._driver.reset()
        _expect("CONTROL after a reset", self._read("CONTROL"), int(Control.IDLE))
        _expect("FAULT_CODE after a reset", self._read("FAULT_CODE"), 0)
        moved = {name: value for name, value in self._driver.counters().items() if value}
        if moved:
            raise CheckFailed(f"counters aren't zero after a reset: {moved}")
        if self._card.wait_interrupt(0):
            raise CheckFailed("the interrupt is high after a reset")
        _expect_bytes("memory after a reset", self._card.read_memory(last, 64), kept, last)
        self._product(Pattern.DENSE)
        return "fault ADDRESS_RANGE with its command and address, reset, a product"


def _halves(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint16]:
    """Return random binary16 numbers, a few of them subnormal."""
    values = random.standard_normal((rows, columns)).astype(np.float16)
    values[random.random(values.shape) < 0.02] *= np.float16(6e-8)
    return values.view(np.uint16)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1)


def _cycles(result: RunResult, useful: int = 0, macs: int = 0) -> str:
    """Return the cycles in words; nothing for a card without a clock."""
    if not result.cycles:
        return ""
    share = f", {useful / (result.cycles * macs):.0%} of all MACs" if useful else ""
    return f" in {result.cycles:,} cycles{share}"


def _expect(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise CheckFailed(f"{what} is {found:#x}, expected {expected:#x}")


def _expect_text(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise CheckFailed(f"{what} is {found}, expected {expected}")


def _expect_bytes(
    what: str, found: NDArray[np.uint8], expected: NDArray[np.uint8], address: int
) -> None:
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        first = int(wrong[0])
        raise CheckFailed(
            f"{what}: {wrong.size} of {expected.size} bytes are wrong, the first at "
            f"{address + first:#x}: {int(found[first]):#04x}, expected {int(expected[first]):#04x}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m firmware.selftest", description=__doc__)
    forms = [f"{kind}:PRESET" for kind in MODELS] + [form for form, _ in BOARDS.values()]
    parser.add_argument("card", metavar="CARD", help=", ".join(forms))
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of random data (%(default)s)")
    parser.add_argument(
        "--description", type=Path, metavar="FILE",
        help="JSON file by rtl.build of a board whose configuration is no preset",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        with console.status(f"opening {escape(options.card)}"):
            card = open_card(options.card, description=options.description)
        with card:
            if not card.computes:
                raise CardError(f"card '{options.card}' computes no values to compare")
            test = SelfTest(Driver(card), options.seed)
            with console.status("") as status:
                checks = list(test.run(status.update))
            report = {
                "card": options.card,
                "configuration": card.config.name,
                "config_hash": card.config.hash,
                "seed": options.seed,
                "passed": all(check.passed for check in checks),
                "remarks": card.remarks(),
                "checks": [asdict(check) for check in checks],
            }
    except CardError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["passed"] else 1


def _print(report: dict[str, Any]) -> None:
    """Print a report for people."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{escape(report['card'])}: configuration {report['configuration']}, "
        f"hash {report['config_hash']:#010x}"
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in report["checks"]:
        mark = "[green]ok[/]" if check["passed"] else "[red]FAILED[/]"
        table.add_row(mark, check["name"], f"{check['seconds']:.2f} s", escape(check["detail"]))
    console.print(table)
    for remark in report["remarks"]:
        console.print(f"note: {escape(remark)}")
    failed = sum(not check["passed"] for check in report["checks"])
    console.print(
        f"[red]{failed} of {len(report['checks'])} failed[/]"
        if failed
        else f"[green]all {len(report['checks'])} passed[/]"
    )


if __name__ == "__main__":
    sys.exit(main())
