"""Training from the command line, and its reports."""

import json
from pathlib import Path

import numpy as np
import pytest

from firmware import report, training
from firmware.cards import open_card
from firmware.cards.golden import GoldenCard
from firmware.dataset import load_digits
from firmware.errors import CardFault
from firmware.model import DENSE, Method
from firmware.network import Network
from firmware.train import main
from firmware.training import (
    Diverged,
    Outcome,
    Settings,
    build_model,
    compare,
    train,
    train_reference,
)
from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern

SMALL = ["--layers", "32,32"]


def test_trains_tests_and_verifies(tmp_path, capsys):
    """One epoch on the smallest configuration."""
    status = main(["--card", "golden:tiny", "--epochs", "1", "--out", str(tmp_path), *SMALL])
    assert status == 0
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["bit_exact"] is True
    assert figures["slots_add_up"] is None and figures["lost"]["sparse"] is None
    assert figures["accuracy_dense"] > 0.6 and figures["accuracy_sparse"] > 0.5
    assert set(figures["cycles_dense"]) == {"ff", "bp", "wu", "update", "total"}
    assert len(figures["loss_sparse"]) == figures["steps"] == 1437 // 32
    # 64 x 32, 32 x 32 in 2:8, 32 x 10; FF, BP but for the first layer, WU.
    dense = 2 * (2048 + 1024 + 320) - 2048 + (2048 + 1024 + 320)
    assert figures["ceiling"] == pytest.approx(dense / (dense - 2 * 768))
    assert "bit for bit equal" in capsys.readouterr().out
    page = (tmp_path / "train.html").read_text()
    assert "data:image/png;base64," in page and "first and the last layer are dense" in page


@pytest.mark.parametrize("method", ["ff", "bp"])
def test_trains_with_one_direction_pruned(method, tmp_path, capsys):
    """It learns nearly as well, of fewer multiply-adds in one direction."""
    arguments = ["--card", "golden:tiny", "--epochs", "1", "--method", method, "--no-verify"]
    assert main([*arguments, "--out", str(tmp_path), *SMALL]) == 0
    figures = json.loads((tmp_path / "train.json").read_text())
    assert (figures["method"], figures["pattern"]) == (method, "2:8")
    assert figures["accuracy_sparse"] > 0.5 and figures["loss_sparse"] != figures["loss_dense"]
    dense = 3 * (2048 + 1024 + 320) - 2048
    assert figures["ceiling"] == pytest.approx(dense / (dense - 768))
    words = {"ff": "forward weights only", "bp": "backward weights only"}
    assert f"Pruned: {words[method]}." in (tmp_path / "train.html").read_text()
    assert f"method {method}" in " ".join(capsys.readouterr().out.split())


def test_a_wrong_bit_is_found(tmp_path, monkeypatch, capsys):
    """The verification notices a single differing bit, and the status says so."""
    test = training._Run.test

    def spoilt(self):
        # Only what the card has trained is tested, after which its state is read.
        state = list(self.network.tensors.values())[1].backward
        byte = self._card.read_memory(state.address + 3, 1)
        self._card.write_memory(state.address + 3, byte ^ 4)
        return test(self)

    monkeypatch.setattr(training._Run, "test", spoilt)
    status = main(["--card", "golden:tiny", "--steps", "2", "--out", str(tmp_path), *SMALL])
    assert status == 1
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["bit_exact"] is False
    assert figures["mismatches"]["sparse"] == ["layer 2 backward copy"]
    assert "differs from the golden model" in capsys.readouterr().out


def test_training_on_every_card(card_name):
    """Two steps, verified, every slot accounted for; the same losses again with the same seed."""
    settings = Settings(card=card_name, hidden=(32, 32), batch=16, steps=2)
    first = train(settings, Pattern.N2M8)
    compare(first, train_reference(settings, Pattern.N2M8, PRESETS["tiny"]))
    assert first.mismatches == [] and first.compared_bytes > 0
    assert first.adds_up is (None if card_name.startswith("golden") else True)
    assert train(settings, Pattern.N2M8).losses == first.losses


def test_training_on_a_board(tmp_path, monkeypatch):
    """A board is compared with the golden model of the configuration that it tells itself."""
    opened = []

    def board(name, **options):
        opened.append((name, options["description"]))
        return GoldenCard(PRESETS["tiny"])

    monkeypatch.setattr(training, "open_card", board)
    arguments = ["--card", "serial:/dev/ttyUSB0", "--description", "sat.json", "--layers", "16,16"]
    arguments += ["--batch", "16", "--steps", "1", "--epochs", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert set(opened) == {("serial:/dev/ttyUSB0", Path("sat.json"))}
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["mismatches"] == {"dense": [], "sparse": []}
    assert figures["settings"]["description"] == "sat.json"


def _train_residual(*arguments):
    """Train the residual network from the command line; return the figures."""
    folder = Path(arguments[-1])
    arguments = ["--card", "golden:sim", "--model", "cnn", "--no-verify", *arguments]
    assert main([*arguments[:-1], "--out", str(folder)]) == 0
    return json.loads((folder / "train.json").read_text())


def test_a_residual_network_trains(tmp_path):
    figures = _train_residual("--steps", "2", "--widths", "8,16", str(tmp_path))
    assert figures["model"] == "cnn"
    assert np.isfinite(figures["loss_dense"] + figures["loss_sparse"]).all()
    assert figures["bit_exact"] is None
    assert "blocks of 8, 16 channels" in (tmp_path / "train.html").read_text()


@pytest.mark.long
def test_a_residual_network_learns(tmp_path):
    figures = _train_residual("--epochs", "1", "--widths", "16,32", str(tmp_path))
    assert figures["accuracy_dense"] > 0.9 and figures["accuracy_sparse"] > 0.85


def test_an_overflowing_gradient_is_skipped():
    """A loss scale far too large halves until the gradients fit."""
    settings = Settings(card="golden:tiny", hidden=(32, 32), batch=16, steps=14, loss_scale=24)
    outcome = train(settings, Pattern.N2M8)
    assert 2 <= outcome.skipped <= 10
    assert outcome.loss_scale[: outcome.skipped + 1] == [
        (step, 24 - step) for step in range(outcome.skipped + 1)
    ]
    assert np.isfinite(outcome.losses).all()


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_a_nonfinite_step_is_not_applied(stage, monkeypatch):
    """What the card counts is heeded even where the host's own numbers are finite."""
    calls: list[str] = []

    def recorded(name):
        original = getattr(Network, name)

        def call(self, *arguments):
            result = original(self, *arguments)
            if name == stage and stage not in calls:
                run = result[1] if name == "forward" else result
                run.counters["NONFINITE"] += 1
            calls.append(name)
            return result

        return call

    for name in ("forward", "backward", "apply"):
        monkeypatch.setattr(Network, name, recorded(name))
    settings = Settings(card="golden:tiny", hidden=(32, 32), batch=16, steps=2)
    outcome = training.train(settings, Pattern.N2M8)
    assert outcome.skipped == 1
    # The step skipped and the one after it, 16 images each: 64 x 32, 32 x 32 in 2:8, 32 x 10.
    applied = (2048 + 2 * 256 + 2 * 320) + (2048 + 1024 + 320)
    begun = (2048 + 256 + 320) if stage == "forward" else applied
    assert outcome.useful == 16 * (applied + begun)
    assert outcome.loss_scale == [(0, 12), (1, 11)]
    first = ["forward"] if stage == "forward" else ["forward", "backward"]
    steps = [*first, "forward", "backward", "apply"]
    assert calls[: len(steps)] == steps and calls.count("apply") == 1


def test_divergence_ends_the_run(monkeypatch):
    monkeypatch.setattr(training, "_HOPELESS", 5)
    settings = Settings(card="golden:tiny", hidden=(32, 32), batch=16, epochs=1, rate=1e5)
    with pytest.raises(Diverged, match="lower the learning rate"):
        train(settings, Pattern.DENSE)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_first_and_last_layer_are_dense(model):
    data = load_digits(np.random.default_rng(0))
    network = build_model(Settings(model=model, widths=(16, 32)), data, Pattern.N2M8)
    methods = [layer.method for layer in network.convolutions]
    assert methods[0] == methods[-1] == DENSE
    assert set(methods[1:-1]) == {Method.bdwp(Pattern.N2M8)}
    assert network.logits.shape.channels == data.classes == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--card", "golden:huge"], "PRESET one of tiny, sim"),
        (["--card", "golden:tiny", "--pattern", "2:16"], "doesn't support 2:16; choose from"),
        (["--card", "golden:tiny", "--model", "cnn"], "no room for"),
    ],
)
def test_what_cannot_be_done_ends_with_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_fault_is_told_with_its_command(monkeypatch, capsys):
    """The message is printed as it is, brackets included."""
    fault = CardFault(
        code="READ_RESPONSE", index=3, command="LOAD memory=0x40[16x2]", address=0x40,
        counters={"COMMANDS": 2},
    )  # fmt: skip

    def stop(*_):
        raise fault

    monkeypatch.setattr(Network, "forward", stop)
    assert main(["--card", "golden:tiny", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "READ_RESPONSE at command 3, address 0x40" in error
    assert "LOAD memory=0x40[16x2]" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pattern", "3:8"], "no N:M pattern '3:8'; choose from: dense, 1:4"),
        (["--layers", "64"], "two widths or more"),
        (["--layers", "64,0"], "0 isn't positive"),
        (["--method", "wu"], "invalid choice: 'wu' (choose from"),
        (["--loss-scale", "1000"], "1000 is no power of two"),
        (["--epochs", "many"], "'many' is no integer"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_report_of_a_card_with_a_clock(tmp_path):
    """Table, picture and page with cycles."""
    outcomes = [
        Outcome(
            pattern, accuracy=0.97, losses=[2.0, 1.0, 0.5], useful=useful, dense_useful=900,
            cycles={"ff": cycles, "bp": 20, "wu": 30, "update": 5, "total": 55 + cycles},
            slots=16 * (55 + cycles), mismatches=[],
            counters={
                "CYCLES_FF": cycles, "CYCLES_BP": 20, "CYCLES_WU": 30,
                "MAC_SLOTS_FF": 15, "MAC_SLOTS_BP": 15, "MAC_SLOTS_WU": 27,
                "USEFUL_MACS": useful + 8, "EDGE_MACS": 16, "FILLER_MACS": 57 * 16 - useful - 24,
                "LOST_FILL": 5, "LOST_DRAIN": 10, "LOST_OPERAND": cycles - 17,
            },
        )
        for pattern, useful, cycles in (("dense", 700, 45), ("2:8", 600, 20))
    ]  # fmt: skip
    figures = report.summary(Settings(), PRESETS["sim"], *outcomes, 1.0)
    assert figures["speedup"] == pytest.approx(100 / 75)
    assert figures["ceiling"] == 1.5
    assert figures["utilisation_sparse"] == 600 / (16 * 75)
    assert figures["lost"]["sparse"] == pytest.approx(
        {"edge": 24 / 1200, "filler": 288 / 1200, "fill": 5 / 75, "drain": 10 / 75,
         "operand": 3 / 75}
    )  # fmt: skip
    for run in ("dense", "sparse"):
        lost = sum(figures["lost"][run].values())
        assert figures[f"utilisation_{run}"] + lost == pytest.approx(1)
    assert figures["slots_add_up"] is True
    assert figures["bit_exact"] is True
    table = {row[0]: row[1:] for row in report.rows(figures)}
    assert table["cycles, total"] == ("100", "75", "1.33x")
    assert table["cycles with operands, WU"][:2] == ("90.0%", "90.0%")
    assert table["useful MACs of all"][:2] == ("43.8%", "50.0%")
    assert table["lost MACs, draining"][:2] == ("10.0%", "13.3%")
    assert table["speedup"][2] == "ceiling by MAC count 1.50x"
    paths = report.write(figures, tmp_path)
    assert all(path.stat().st_size > 1000 for path in paths)
    outcomes[1].counters["LOST_FILL"] += 1
    assert report.summary(Settings(), PRESETS["sim"], *outcomes, 1.0)["slots_add_up"] is False


def test_settings_have_a_card_that_exists():
    kind, _, preset = Settings().card.partition(":")
    with open_card(f"golden:{preset}") as card:
        assert kind == "verilated" and card.config is PRESETS[preset]
