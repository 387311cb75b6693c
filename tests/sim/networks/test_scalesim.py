"""SCALE-Sim is asked for exactly the products that the cycle model runs."""

import dataclasses
import sys
from pathlib import Path

import pytest

from rtl.config import PRESETS
from rtl.sparsity.pattern import Pattern
from sim.networks import scalesim
from sim.networks.scalesim import PATTERNS, PRODUCTS, QUICK_PRODUCTS, ScaleSimError, compare

# Answers as SCALE-Sim does for arrays that everything fits: a fold is its weights, its rows, and
# their way through the array.
_STAND_IN = """\
import configparser, math, pathlib, sys
folder = pathlib.Path(sys.argv[1])
config = configparser.ConfigParser()
config.read(folder / "array.cfg")
side = config.getint("architecture_presets", "ArrayHeight")
name, m, n, k, ratio, rest = (folder / "product.csv").read_text().split("\\n")[1].split(",")
kept, group = map(int, ratio.split(":"))
assert config.getboolean("sparsity", "SparsitySupport") == (kept < group)
assert (folder / "layout.csv").exists()
folds = math.ceil(int(k) * kept / group / side) * math.ceil(int(n) / side)
(folder / "product").mkdir()
(folder / "product" / "COMPUTE_REPORT.csv").write_text(
    "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles,\\n"
    f"0, 0.0, {folds * (int(m) + 3 * side - 2) - 1}.0, 0,\\n"
)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setattr(scalesim, "CACHE", tmp_path)
    monkeypatch.setattr(scalesim, "_environment", lambda: Path(sys.executable))
    monkeypatch.setattr(scalesim, "_RUN", _STAND_IN)


def test_products_are_of_layers_that_there_are():
    assert len(PRODUCTS) >= 8 and set(QUICK_PRODUCTS) <= set(PRODUCTS)
    assert len({product.name for product in PRODUCTS}) == len(PRODUCTS)
    for product in PRODUCTS:
        layer = product.convolution(Pattern.N2M8)
        assert product.m == 64 * layer.shape.positions
        assert (product.n, product.k) == (layer.outputs, layer.inputs * layer.taps)
        assert product.k % 8 == 0


def test_both_models_get_the_same_products(stand_in):
    small = dataclasses.replace(PRODUCTS[5], inputs=32, outputs=32, height=1, width=1)
    dense, sparse = compare([small], workers=2)
    assert [row["pattern"] for row in (dense, sparse)] == list(PATTERNS)
    assert (dense["m"], dense["n"], dense["k"], dense["macs"]) == (64, 32, 32, 1024)
    assert dense["cycles_scalesim"] == sparse["cycles_scalesim"] == 64 + 94 - 1
    # 16 rows of the array at a time, each with four lanes of what is dense.
    slots = 64 * 32 * 32 // PRESETS["u250-1k"].macs
    assert dense["slots_model"] >= slots and sparse["slots_model"] * 4 == dense["slots_model"]
    assert dense["cycles_model"] > dense["slots_model"]


def test_results_are_kept(stand_in, monkeypatch):
    first = list(compare(QUICK_PRODUCTS, workers=1))
    monkeypatch.setattr(scalesim, "_check", None)
    assert list(compare(QUICK_PRODUCTS, workers=1)) == first


def test_failures_end_with_what_it_wrote(stand_in, monkeypatch):
    monkeypatch.setattr(scalesim, "_RUN", "raise SystemExit('no such layer')")
    with pytest.raises(ScaleSimError, match=r"conv2_1 third.*dense failed:\nno such layer"):
        list(compare(QUICK_PRODUCTS, workers=1))


@pytest.mark.long
def test_scalesim_itself(monkeypatch, tmp_path):
    """Installs it; its cycles are those of folds that follow each other."""
    monkeypatch.setattr(scalesim, "CACHE", tmp_path)
    dense, sparse = compare(QUICK_PRODUCTS, workers=1)
    [product] = QUICK_PRODUCTS
    folds = product.k // 32 * product.n // 32
    assert dense["cycles_scalesim"] == folds * (product.m + 94) - 1
    assert sparse["cycles_scalesim"] == -(-product.k // 4 // 32) * product.n // 32 * 1118 - 1
