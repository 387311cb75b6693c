"""The table of measured and predicted counters."""

from sim.cycles.report import side_by_side


def test_differences_stand_out():
    measured = {"CYCLES": 2000, "READ_BEATS": 7, "WRITE_BEATS": 0}
    predicted = {"CYCLES": 1990, "READ_BEATS": 7, "WRITE_BEATS": 3, "OTHER": 1}
    table = side_by_side(measured, predicted)
    _, cycles, reads, writes = table.splitlines()
    assert cycles.split() == ["CYCLES", "2,000", "1,990", "-0.50%"]
    assert reads.split() == ["READ_BEATS", "7", "7"]
    assert writes.split() == ["WRITE_BEATS", "0", "3", "+3"]
