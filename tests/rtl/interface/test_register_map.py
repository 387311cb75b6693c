"""The register map is consistent in itself and with AXI4-Lite's address space."""

from rtl.control.commands import Stage
from rtl.interface.axi import LITE_ADDRESS_BITS
from rtl.interface.register_map import COUNTERS, IDENTITY, REGISTERS, STAGE_NAMES, Access


def test_offsets_are_distinct_words_within_the_address_space():
    offsets = [register.offset for register in REGISTERS.values()]
    assert len(set(offsets)) == len(offsets)
    assert all(offset % 4 == 0 and 0 <= offset < 1 << LITE_ADDRESS_BITS for offset in offsets)


def test_names_are_distinct_and_documented():
    assert all(name == register.name for name, register in REGISTERS.items())
    assert all(register.doc for register in REGISTERS.values())
    names = [counter.name for counter in COUNTERS]
    assert len(set(names)) == len(names)


def test_control_protocol_of_vitis():
    assert [
        REGISTERS[name].offset
        for name in ("CONTROL", "GLOBAL_INTERRUPT_ENABLE", "INTERRUPT_ENABLE", "INTERRUPT_STATUS")
    ] == [0x0, 0x4, 0x8, 0xC]


def test_every_counter_is_a_pair_of_read_only_words_low_first():
    for counter in COUNTERS:
        low, high = REGISTERS[f"{counter.name}_LOW"], REGISTERS[f"{counter.name}_HIGH"]
        assert high.offset == low.offset + 4
        assert low.offset % 8 == 0
        assert low.access is high.access is Access.READ_ONLY


def test_every_stage_is_counted():
    assert tuple(stage.name for stage in Stage) == STAGE_NAMES


def test_identity_reads_as_text():
    assert IDENTITY.to_bytes(4, "big") == b"SAT1"
