"""The driver: identity, faults, time-outs, soft reset."""

import numpy as np
import pytest

from firmware.cards import Card, open_card
from firmware.cards.golden import GoldenCard
from firmware.driver import Driver
from firmware.errors import CardError, CardFault, CardTimeout
from firmware.program import Program, descriptor, matrix_walks
from rtl.config import PRESETS
from rtl.control.commands import LoadTarget, Stage
from rtl.interface.register_map import REGISTERS, Control
from rtl.sparsity.pattern import Pattern
from sim.verilated.build import BuildError

TINY = PRESETS["tiny"]


class _Tampered(GoldenCard):
    """A card some of whose registers read otherwise."""

    def __init__(self, **registers: int) -> None:
        self._tampered = {REGISTERS[name].offset: value for name, value in registers.items()}
        super().__init__(TINY)

    def read_register(self, offset: int) -> int:
        return self._tampered.get(offset, super().read_register(offset))


class _Silent(_Tampered):
    """A card that starts but never ends."""

    def write_register(self, offset: int, value: int) -> None:
        if offset != REGISTERS["CONTROL"].offset:
            super().write_register(offset, value)
        elif value & Control.START:
            self._tampered[offset] = Control.START
        elif value & Control.SOFT_RESET:
            self._tampered[offset] = Control.START | Control.SOFT_RESET


def _loads(config, *, address=0, count=1, base=0):
    program = Program(config, "loads")
    for _ in range(count):
        program.load(
            LoadTarget.AUX, Stage.FF, base=base, rows=2, d_words=1,
            descriptor=descriptor(config, address, 2),
        )  # fmt: skip
    return program


@pytest.mark.parametrize(
    ("register", "message"),
    [
        ("IDENTITY", "no SAT card: IDENTITY is 0x00001234, expected 0x53415431"),
        ("VERSION", "different versions: VERSION is 0x00001234"),
        ("CONFIG_HASH", "configuration 'tiny' of this software: CONFIG_HASH is 0x00001234"),
    ],
)
def test_wrong_cards_are_refused(register, message):
    with pytest.raises(CardError, match=message):
        Driver(_Tampered(**{register: 0x1234}))


def test_counters_are_differences(driver):
    program = _loads(driver.config, count=3)
    for _ in range(2):
        counters = driver.run(program).counters
        assert counters["COMMANDS"] == 3
        assert counters["READ_BEATS"] >= 6
    both = driver.run(program) + driver.run(program)
    assert both.counters["COMMANDS"] == 6


def test_fault_names_the_command_and_reset_recovers(driver):
    good, bad = _loads(driver.config), _loads(driver.config, address=TINY.memory_bytes - 32)
    kept = np.arange(64, dtype=np.uint8)
    driver.run(good)
    driver.card.write_memory(1 << 16, kept)
    with pytest.raises(CardFault) as caught:
        driver.run(bad)
    fault = caught.value
    assert (fault.code, fault.index) == ("ADDRESS_RANGE", 0)
    assert fault.address == TINY.memory_bytes
    assert "LOAD    FF     AUX" in fault.command and fault.command in str(fault)
    with pytest.raises(CardError, match="reset it"):
        driver.run(good)
    driver.reset()
    assert driver.counters()["COMMANDS"] == 0
    assert driver.run(good).counters["COMMANDS"] == 1
    np.testing.assert_array_equal(driver.card.read_memory(1 << 16, 64), kept)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"base": TINY.aux_depth - 1}, "SCRATCHPAD_RANGE"),
        ({"address": 8}, "MALFORMED"),
    ],
)
def test_fault_codes(driver, fields, code):
    with pytest.raises(CardFault, match=code):
        driver.run(_loads(driver.config, **fields))
    driver.reset()
    driver.run(_loads(driver.config))


def test_hang_ends_in_a_timeout(driver):
    """A program that waits for a token nobody gives; the card is usable after a reset."""
    program = _loads(driver.config, count=2)
    program.encode()
    program._commands[1].wait = 2
    program._encoded[1] = program._commands[1].encode()
    with pytest.raises(CardTimeout, match="loads didn't end within 2000 cycles") as caught:
        driver.run(program, timeout=2000)
    assert caught.value.status & Control.START
    assert caught.value.counters["COMMANDS"] == 1
    driver.reset()
    assert driver.run(_loads(driver.config)).counters["COMMANDS"] == 1


def test_a_silent_card_never_blocks():
    driver = Driver(_Silent())
    with pytest.raises(CardTimeout, match="didn't end"):
        driver.run(_loads(TINY))
    with pytest.raises(CardTimeout, match="didn't come out of reset"):
        driver.reset()


def test_programs_are_placed_once_and_again_when_changed():
    driver = Driver(GoldenCard(TINY))
    program = _loads(TINY)
    driver.run(program)
    address = program.address
    driver.run(program)
    assert program.address == address
    program.load(LoadTarget.AUX, Stage.FF, rows=1, d_words=1, descriptor=descriptor(TINY, 0, 1))
    assert driver.run(program).counters["COMMANDS"] == 2
    free = driver.memory.free_bytes
    driver.unload(program)
    assert driver.memory.free_bytes == free + program.nbytes


def _computes(config, count=1, **fields):
    program = Program(config, "computes")
    body = {"pattern": Pattern.DENSE, "o_stride": 1, "d_words": 1, "a_tiles": 1, "b_tiles": 1}
    body |= fields
    rows = body["b_tiles"] * (config.interleave >> body.get("a_contexts", 0))
    for _ in range(count):
        program.compute(Stage.FF, **matrix_walks(rows, body["d_words"]) | body)
    return program


@pytest.mark.parametrize(
    ("count", "fields", "code", "index"),
    [
        (1, {"pattern": Pattern.N2M16}, "PATTERN", 0),
        (1, {"d_words": 300}, "SCRATCHPAD_RANGE", 0),
        (1, {"a_contexts": 2, "a_tiles": 17, "d_words": 4}, "SCRATCHPAD_RANGE", 0),
        (1, {"a_contexts": 3}, "MALFORMED", 0),
        (1, {"a_contexts": 1, "a_tiles": 2, "a_padding": 16}, "MALFORMED", 0),
        (1, {"a_contexts": 1, "b_tiles": 3, "b_padding": 12}, "MALFORMED", 0),
        # 32 additions each, and bins with room for 64.
        (4, {"keep": 1, "d_words": 8}, "OVERRUN", 2),
    ],
)
def test_products_that_cannot_be_done(driver, count, fields, code, index):
    """Pattern, operands and length of a reduction are checked; the card works after a reset."""
    assert TINY.max_additions == 64
    with pytest.raises(CardFault) as caught:
        driver.run(_computes(driver.config, count, **fields))
    fault = caught.value
    assert (fault.code, fault.index, fault.counters["COMMANDS"]) == (code, index, index)
    assert "COMPUTE" in fault.command
    driver.reset()
    # Nothing of an abandoned reduction is left: there is room for a whole one again.
    whole = driver.run(_computes(driver.config, 2, keep=1, d_words=8))
    assert whole.counters["COMMANDS"] == 2


def test_sums_are_kept_for_the_same_contexts_only(driver):
    program = _computes(driver.config, keep=1, a_contexts=1)
    program.compute(
        Stage.FF, pattern=Pattern.DENSE, o_stride=1, d_words=1, a_tiles=1, b_tiles=1, a_contexts=2,
        **matrix_walks(1, 1),
    )  # fmt: skip
    with pytest.raises(CardFault, match="MALFORMED at command 1"):
        driver.run(program)


@pytest.mark.parametrize("name", ["golden", "golden:huge", "silicon:tiny", "golden:tiny:more", ""])
def test_unknown_cards_are_listed(name):
    kinds = "golden, verilated, bridged, cycles, c"
    with pytest.raises(CardError, match=f"{kinds} and PRESET one of tiny, sim"):
        open_card(name)


def test_golden_card_has_no_waveform(tmp_path):
    with pytest.raises(CardError, match="no signals"):
        open_card("golden:tiny", trace=tmp_path / "x.fst")


def test_gateware_that_does_not_build_is_no_card(monkeypatch):
    def fail(config, *, trace):
        raise BuildError("the compiler's words")

    monkeypatch.setattr("sim.verilated.model.build_library", fail)
    with pytest.raises(CardError, match="the compiler's words"):
        open_card("verilated:tiny")


def test_memory_is_bounded(card: Card):
    with pytest.raises(CardError, match="outside the card's memory"):
        card.read_memory(TINY.memory_bytes - 4, 8)
    with pytest.raises(CardError, match="outside the card's memory"):
        card.write_memory(-1, np.zeros(1, np.uint8))


def test_registers_read_back(card: Card):
    low = REGISTERS["PROGRAM_LOW"].offset
    card.write_register(low, 0x1234_5678)
    assert card.read_register(low) == 0x1234_5678
    identity = REGISTERS["IDENTITY"].offset
    card.write_register(identity, 0)
    assert card.read_register(identity) == 0x5341_5431
