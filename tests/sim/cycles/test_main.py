"""Predictions beside measurements, from the command line."""

import pytest

from sim.cycles import __main__ as command


def test_a_layer(capsys):
    """To the cycle, as everywhere."""
    assert command.main(["--preset", "tiny", "--layer", "3,16,16,1", "--batch", "8"]) == 0
    shown = capsys.readouterr().out
    tables = shown.strip().split("\n\n")
    assert [table.splitlines()[0] for table in tables] == [
        f"convolution of 3 x 3, {stage}" for stage in ("FF", "BP", "WU")
    ]
    for table in tables:
        [cycles] = [line.split() for line in table.splitlines() if line.startswith("CYCLES ")]
        assert cycles[1] == cycles[2] and int(cycles[1].replace(",", "")) > 100


def test_cycles_that_differ_are_told(monkeypatch):
    def run_layer(driver, sizes, method, batch):
        predicts = not driver.card.computes
        yield "a layer", {"CYCLES": 1000 if predicts else 985}

    monkeypatch.setattr(command, "_run_layer", run_layer)
    assert command.main(["--preset", "tiny", "--layer", "3,16,16,1"]) == 1


def test_what_cannot_be_scheduled_is_refused(capsys):
    assert command.main(["--preset", "tiny", "--network", "resnet9"]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "3,16"], "four numbers from 1 on"),
        (["--layer", "3,16,16,0"], "four numbers from 1 on"),
        (["--network", "cnn", "--pattern", "3:7"], "no N:M pattern '3:7'"),
        ([], "one of the arguments --layer --network is required"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
