"""Ready-made networks: their sizes against the literature's, and what pruning leaves of them."""

import importlib
import math
import sys

import pytest

from firmware.model import DENSE, METHODS, PRODUCT_STAGES, Attention, MaxPool, Method, Shape
from firmware.models import NETWORKS, perceptron, residual_cnn, resnet18, resnet50, vit_small
from rtl.control.commands import Stage
from rtl.sparsity.pattern import Pattern

BDWP = Method.bdwp(Pattern.N2M8)


def test_networks_for_digits():
    mlp = perceptron(Shape(8, 8, 1), 10, (32, 24), BDWP)
    assert [layer.shape.channels for layer in mlp.layers] == [64, 32, 24, 10]
    assert [layer.relu for layer in mlp.convolutions] == [True, True, False]
    assert [layer.method for layer in mlp.convolutions] == [DENSE, BDWP, DENSE]
    cnn = residual_cnn(Shape(8, 8, 1), 10, (16, 32, 32), BDWP)
    shapes = {layer.name: layer.shape for layer in cnn.layers}
    assert shapes["pool"] == Shape(4, 4, 16) and shapes["block 2 second norm"] == Shape(2, 2, 32)
    assert shapes["block 3 second norm"] == Shape(1, 1, 32)
    # A skip of the same shape is taken as it is.
    assert "block 1 skip" not in shapes and {"block 2 skip", "block 3 skip"} < shapes.keys()
    dense = [layer.name for layer in cnn.convolutions if layer.method == DENSE]
    assert dense == ["stem", "classes"]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # D. Page's "How to train your ResNet": 6,573,120 parameters.
        ("resnet9", 6_573_120, 379.3e6),
        # Convolutions 20,018,880, normalisation 11,008, classes 51,300; 0.40 G multiply-adds.
        ("vgg19", 20_018_880 + 11_008 + 51_300, 398.2e6),
        # DeiT-S has 22.05 M, of which 384 x 1000 + 1000 are its classes, 384 x 16 x 16 x 3 its
        # patches, 197 x 384 its positions and 384 its token for the class.
        (
            "vit-small",
            22_050_664 - 385_000 - 294_912 - 75_648 - 384 + 38_500 + 384 * 4 * 4 * 3 + 64 * 384,
            1397.9e6,
        ),
        # 11,689,512 with a thousand classes, of 513 parameters each.
        ("resnet18", 11_689_512 - 800 * 513, 148.1e6),
        # 25.6 M parameters, 4.1 G multiply-adds.
        ("resnet50", 25_557_032, 4.089e9),
    ],
)
def test_networks_have_the_sizes_of_the_literature(name, parameters, macs):
    model = NETWORKS[name](DENSE)
    assert model.name == name
    assert model.parameters == parameters
    assert model.macs(Stage.FF) == pytest.approx(macs, rel=5e-4)


def test_networks_for_other_images():
    """ResNet-18 for ImageNet has 1.82 G multiply-adds, and classes are what is asked for."""
    model = resnet18(DENSE, images=Shape(224, 224, 3), classes=1000)
    assert model.parameters == 11_689_512
    assert model.macs(Stage.FF) == pytest.approx(1.814e9, rel=5e-4)
    for build in NETWORKS.values():
        assert build(DENSE, classes=7).logits.shape == Shape(1, 1, 7)


def test_networks_have_the_shapes_of_their_tables():
    shapes = {layer.name: layer.shape for layer in resnet50(DENSE).layers}
    assert shapes["conv1 norm"] == Shape(112, 112, 64) and shapes["pool"] == Shape(56, 56, 64)
    for group, side, count, width in (
        (2, 56, 3, 64),
        (3, 28, 4, 128),
        (4, 14, 6, 256),
        (5, 7, 3, 512),
    ):
        for index in range(count):
            block = f"conv{group}_{index + 1}"
            # Only a block that begins a group changes the size, with its convolution of 3 x 3.
            first = 2 * side if group > 2 and not index else side
            assert shapes[f"{block} first norm"] == Shape(first, first, width)
            assert shapes[f"{block} second norm"] == Shape(side, side, width)
            assert shapes[f"{block} third norm"] == Shape(side, side, 4 * width)
            assert (f"{block} skip" in shapes) == (index == 0)
    tokens = vit_small(DENSE)
    attention = [layer for layer in tokens.layers if isinstance(layer, Attention)]
    assert len(attention) == 12
    assert {layer.shape for layer in attention} == {Shape(8, 8, 384)}
    assert {product.count for layer in attention for product in layer.products} == {6}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_between_the_first_and_the_last_are_pruned(name):
    methods = [layer.method for layer in NETWORKS[name](BDWP).convolutions]
    assert methods[0] == methods[-1] == DENSE
    assert set(methods[1:-1]) == {BDWP}


def test_networks_overlap_windows_only_as_their_tables_do():
    pools = {
        name: {
            (pool.window, pool.stride, pool.padding)
            for pool in build(DENSE).layers
            if isinstance(pool, MaxPool)
        }
        for name, build in NETWORKS.items()
    }
    assert pools["resnet18"] == pools["resnet50"] == {(3, 2, 1)}
    assert pools["vgg19"] == {(2, 2, 0)} and pools["resnet9"] == {(2, 2, 0), (4, 4, 0)}


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        # The first layer is dense, as is the last.
        ("resnet9", 1.994),
        ("vgg19", 1.994),
        # Attention, 2.7 % of the forward multiply-adds, has no weights to prune.
        ("vit-small", 1.946),
        # 6.5 % and 2.9 % of the forward multiply-adds are the first layer's.
        ("resnet18", 1.914),
        ("resnet50", 1.961),
    ],
)
def test_ceilings_by_multiply_adds(name, ceiling):
    build = NETWORKS[name]
    assert build(BDWP).ceiling == pytest.approx(ceiling, abs=5e-4)
    ceilings = [build(method).ceiling for method in METHODS]
    assert ceilings[0] == 1
    # One direction less has less to gain, and so has a group with more entries.
    assert ceilings[1:] == sorted(ceilings[1:])
    dense, pruned = build(DENSE), build(BDWP)
    for stage in PRODUCT_STAGES:
        assert pruned.macs(stage) == dense.macs(stage) == dense.kept_macs(stage)
    assert pruned.kept_macs(Stage.WU) == pruned.macs(Stage.WU)


def test_ceilings_of_all_networks():
    """Geometric means; without dense layers they would be 4/3, 3/2, 2 and 12/5."""
    for method, mean in (("ff-2:8", 1.325), ("bdwp-2:4", 1.485), ("bdwp-2:8", 1.961)):
        ceilings = [build(Method.parse(method)).ceiling for build in NETWORKS.values()]
        assert math.prod(ceilings) ** (1 / len(ceilings)) == pytest.approx(mean, abs=1e-3)


def test_an_import_from_pytorch_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "firmware.torch_import", raising=False)
    with pytest.raises(ImportError, match=r"PyTorch is needed .*: pip install 'sat\[torch\]'"):
        importlib.import_module("firmware.torch_import")
