"""Networks from PyTorch: the same layers, the same outputs and the same step of training."""

import re

import numpy as np
import pytest

from firmware.cards import open_card
from firmware.driver import Driver
from firmware.errors import ModelError
from firmware.model import (
    DENSE,
    Addition,
    Method,
    Shape,
)
from firmware.models import resnet18, resnet50, vgg19, vit_small
from firmware.network import Network
from firmware.schedule import Step
from rtl.sparsity.pattern import Pattern
from tests.firmware.reference import Reference
from tests.harness import default_seed

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed: pip install 'sat[torch]'", exc_type=ImportError
)
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from firmware.torch_import import import_module  # noqa: E402

IMAGES = Shape(8, 8, 3)


def _norm(channels):
    """Return a batch normalisation that has seen other images."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return norm


class BasicBlock(nn.Module):
    """The block of ResNet-18, as it is usually written."""

    def __init__(self, inputs, outputs, stride=1, norm=_norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = norm(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs)
            )

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """The block of ResNet-50."""

    def __init__(self, inputs, width, stride=1):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return torch.relu(torch.add(self.skip(x), self.bn3(self.conv3(y))))


class ResNet(nn.Module):
    """ResNet-18 or ResNet-50 with the modules of their usual implementation."""

    def __init__(self, block, expansion, counts, classes):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks, inputs = [], 64
        for group, count in enumerate(counts):
            for index in range(count):
                width = 64 << group
                blocks.append(block(inputs, width, 2 if group and not index else 1))
                inputs = width * expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class Transformer(nn.Module):
    """ViT-S without its dropout."""

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.norm1 = nn.LayerNorm(width, eps=1e-6)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.norm2 = nn.LayerNorm(width, eps=1e-6)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x):
            y = self.norm1(x)
            y, _ = self.attention(y, y, y, need_weights=False)
            x = x + y
            return x + self.mlp(self.norm2(x))

    def __init__(self, width=384, depth=12, heads=6, patch=4, tokens=64, classes=100):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(self.Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class Forms(nn.Module):
    """The same operations written in other ways, and sums that no layer can make on its way."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 12, 1, bias=False)
        self.norm = _norm(12)
        self.third = nn.Conv2d(12, 20, (2, 2), bias=False)
        self.last = nn.Linear(20, 5)

    def forward(self, x):
        x = self.first(x).relu()
        y = functional.relu(self.norm(self.second(x)))
        # Both have gone through a ReLU, and one is taken twice.
        x = functional.relu(x + y).add(y)
        x = functional.max_pool2d(x, 2)
        x = self.third(functional.max_pool2d(input=x, kernel_size=2, stride=2))
        x = functional.avg_pool2d(x, 1)
        return self.last(x.view(x.size(0), -1))


def _small(*layers):
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers)


MODULES = {
    "perceptron": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(48, 32),
            nn.ReLU(),
            nn.Linear(32, 32),
            nn.ReLU(),
            nn.Linear(32, 5),
        ),
        Shape(4, 4, 3),
    ),
    "flattened": (
        lambda: _small(
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * 4, 20),
            nn.ReLU(),
            nn.Linear(20, 5),
        ),
        IMAGES,
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            _norm(16),
            nn.ReLU(),
            BasicBlock(16, 16),
            BasicBlock(16, 24, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 5),
        ),
        IMAGES,
    ),
    "other forms": (Forms, IMAGES),
    "transformer": (
        lambda: Transformer(width=12, depth=2, heads=2, tokens=6, classes=5),
        Shape(8, 12, 3),
    ),
}
"""Modules, and the shapes of their images."""


def _seed():
    torch.manual_seed(default_seed())
    return np.random.default_rng(default_seed())


def _learned(imported):
    """Return all that a module has learned, by layer and kind."""
    values = {(name, "weights"): value for name, value in imported.weights.items()}
    values |= {(name, "bias"): value for name, value in imported.biases.items()}
    values |= {(name, "positions"): value for name, value in imported.positions.items()}
    for name, norm in imported.norms.items():
        values |= {(name, kind): value for kind, value in norm.items()}
    return values


def _reference(imported):
    """Return the network in binary64 with all that its module has learned."""
    reference = Reference(imported.model, imported.weights, half=False)
    learned = _learned(imported)
    for layer, kind in reference.parameters:
        reference.parameters[layer, kind] = learned[layer.name, kind].astype(np.float64)
    for layer in reference.averages:
        reference.averages[layer] = tuple(
            learned[layer.name, kind].astype(np.float64) for kind in ("average", "variance")
        )
    return reference


@pytest.mark.parametrize("name", MODULES)
def test_imported_networks_train_the_same(name):
    """Loss, and what a step of SGD makes of all that is learned, in binary64 on both sides."""
    rng = _seed()
    make, images = MODULES[name]
    module = make()
    imported = import_module(module, images)
    reference = _reference(imported)
    values = rng.standard_normal((6, images.height, images.width, images.channels))
    labels = rng.integers(0, 5, 6)
    reference.forward(values, labels)
    reference.backward()
    reference.update(Step(rate=0.5, momentum=0.0, decay=0.0))
    module.double().train()
    loss = functional.cross_entropy(
        module(torch.tensor(values.transpose(0, 3, 1, 2))), torch.tensor(labels)
    )
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.5).step()
    assert reference.loss == pytest.approx(loss.item(), rel=1e-9)
    after = _learned(import_module(module, images))
    actual = {(layer.name, kind): value for (layer, kind), value in reference.parameters.items()}
    for layer, (average, variance) in reference.averages.items():
        actual |= {(layer.name, "average"): average, (layer.name, "variance"): variance}
    assert actual.keys() == after.keys()
    for key, value in actual.items():
        # The importer gives binary32.
        np.testing.assert_allclose(
            value, after[key], rtol=3e-7, atol=3e-7, err_msg=f"{key}, SAT_SEED={default_seed()}"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if name != "transformer"])
def test_imported_networks_run_on_a_card(name):
    """Logits, with all that the module has learned."""
    rng = _seed()
    make, images = MODULES[name]
    module = make()
    imported = import_module(module, images)
    values = rng.standard_normal((5, images.height, images.width, images.channels))
    values = values.astype(np.float16)
    with open_card("golden:sim") as card:
        network = Network(Driver(card), imported.model, 5)
        network.initialise(imported.weights, biases=imported.biases, norms=imported.norms)
        logits, _ = network.infer(values)
    with torch.no_grad():
        inputs = torch.tensor(values.astype(np.float32).transpose(0, 3, 1, 2))
        expected = module.eval()(inputs).numpy()
    np.testing.assert_allclose(
        logits, expected, rtol=1e-2, atol=1e-2, err_msg=f"SAT_SEED={default_seed()}"
    )


def _described(model):
    """Return the layers of a network without their names, in any order."""

    def describe(layer):
        options = {
            name: getattr(layer, name)
            for name in ("kernel", "stride", "padding", "bias", "window", "heads", "method")
            if hasattr(layer, name)
        }
        sources = [source.shape for source in layer.sources]
        return str((type(layer).__name__, layer.shape, layer.relu, sources, options))

    return sorted(map(describe, model.layers))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ResNet(_standard_block, 1, (2, 2, 2, 2), 200), resnet18),
        (lambda: ResNet(Bottleneck, 4, (3, 4, 6, 3), 1000), resnet50),
        (Transformer, vit_small),
        (lambda: _vgg(), vgg19),
    ],
    ids=["resnet18", "resnet50", "vit-small", "vgg19"],
)
def test_the_networks_of_the_literature(make, expected):
    """Modules as they are usually written give the layers that our builders make."""
    _seed()
    method = Method.bdwp(Pattern.N2M8)
    model = expected(method)
    module = make()
    imported = import_module(module, model.input.shape, method=method)
    assert _described(imported.model) == _described(model)
    assert imported.model.parameters == sum(value.numel() for value in module.parameters())
    assert imported.model.parameters == model.parameters
    assert imported.model.ceiling == model.ceiling


def _standard_block(inputs, width, stride):
    return BasicBlock(inputs, width, stride, nn.BatchNorm2d)


def _vgg():
    layers, inputs = [], 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.0), nn.Linear(512, 100))


def test_relu_and_additions_are_fused():
    """Into the layers before them; what none of them can compute becomes a layer of its own."""
    residual = import_module(MODULES["residual"][0](), IMAGES).model
    assert not any(isinstance(layer, Addition) for layer in residual.layers)
    layers = {layer.name: layer for layer in residual.layers}
    assert layers["3.bn2"].rectified and layers["3.bn2"].add is layers["1"]
    assert layers["4.bn2"].add is layers["4.downsample.1"]
    assert not layers["4.downsample.1"].relu
    forms = import_module(Forms(), IMAGES).model
    kinds = [type(layer).__name__ for layer in forms.layers]
    assert kinds.count("Addition") == 2
    assert [layer.rectified for layer in forms.layers if isinstance(layer, Addition)] == [
        True, False
    ]  # fmt: skip


def test_only_layers_between_the_first_and_the_last_are_pruned():
    method = Method.ff(Pattern.N2M8)
    model = import_module(MODULES["residual"][0](), IMAGES, method=method).model
    methods = [layer.method for layer in model.convolutions]
    assert methods[0] == methods[-1] == DENSE and set(methods[1:-1]) == {method}


class Applied(nn.Module):
    """A block that applies a function to what a convolution gives."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def _head(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(self.conv(x))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Preactivated(nn.Module):
    """Takes what a convolution gives with and without ReLU, once under another name."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.same = nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        return functional.relu(self.same(x)) + x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: _head(Applied(torch.sigmoid)),
            "operation 'sigmoid' (call_function torch.sigmoid, in module '0'): isn't supported",
        ),
        (
            lambda: _head(Applied(lambda x: x.exp())),
            "operation 'exp' (call_method exp, in module '0'): isn't supported",
        ),
        (
            lambda: _head(_small(nn.ReLU(), nn.Sigmoid(), nn.Tanh())),
            "operation '_0_2' (torch.nn.modules.activation.Sigmoid, module '0.2'): isn't supported",
        ),
        (
            lambda: _head(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 18, 3, groups=3)),
            "module '1'): groups is 3, must be 1",
        ),
        (lambda: _head(nn.Conv2d(3, 16, 3, dilation=2)), "dilation is 2, must be 1"),
        (lambda: _head(nn.Conv2d(3, 16, (3, 1))), "kernel_size is (3, 1), must be a number"),
        (lambda: _head(nn.Conv2d(3, 16, 3, padding="same")), "padding is 'same', must be a"),
        (lambda: _head(nn.Conv2d(4, 16, 3)), "takes 4 channels, its input has 3"),
        (
            lambda: _head(nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect")),
            "padding_mode is 'reflect', must be 'zeros'",
        ),
        (lambda: _head(_small(nn.BatchNorm2d(16, affine=False))), "affine is False, must be True"),
        (lambda: _head(_small(nn.BatchNorm2d(16, momentum=None))), "momentum is None"),
        (lambda: _head(_small(nn.MaxPool2d(2, ceil_mode=True))), "ceil_mode is True"),
        (lambda: _head(_small(nn.Dropout(0.5))), "p is 0.5, must be 0.0"),
        (lambda: _head(_small(nn.GELU("tanh"))), "approximate is 'tanh', must be 'none'"),
        (lambda: _head(_small(nn.AvgPool2d(2))), "kernel_size is 2, must be that of the whole"),
        (lambda: nn.Sequential(Shared(), nn.Flatten(), nn.Linear(192, 5)), "is called twice"),
        (lambda: _head(Preactivated()), "what '0.conv' gives is taken without ReLU, too"),
        (lambda: _head(nn.ReLU(), nn.Conv2d(3, 16, 1)), "no ReLU can follow 'image', of kind"),
        (lambda: _head(Applied(lambda x: torch.add(x, x, alpha=2))), "alpha is 2, must be 1"),
        (lambda: _head(Applied(lambda x: x + 1)), "its input isn't what a layer gives"),
        (lambda: _head(Applied(lambda x: x.view(-1, 16))), "sizes must be those of images"),
        (lambda: _head(Applied(lambda x: x.mean(1))), "dim is 1, must be [2, 3]"),
        (lambda: _head(Applied(lambda x: x.flatten(0))), "dimensions 0 to -1 are flattened"),
        (lambda: _head(Applied(lambda x: x.add(x, out=x))), "isn't supported with these arguments"),
        (lambda: nn.Sequential(nn.Conv2d(3, 5, 8)), "'output' (output output, in Sequential): its "
         "input is [N, C, H, W], must be [N, C]"),
        (Branching, "module Branching can't be traced"),
    ],
)  # fmt: skip
def test_what_no_layer_does_is_refused(make, message):
    """With the operation, what it calls, and the module that it is in."""
    with pytest.raises(ModelError, match=re.escape(message)):
        import_module(make(), IMAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, "dropout is 0.1, must be 0.0"),
        ({"batch_first": False}, "batch_first is False, must be True"),
        ({"add_bias_kv": True}, "add_bias_kv is True, must be False"),
        ({"kdim": 4, "vdim": 4}, "queries, keys and values must be as wide as each other"),
    ],
)
def test_attention_that_is_another_is_refused(options, message):
    module = Transformer(width=8, depth=1, heads=2, tokens=4)
    module.blocks[0].attention = nn.MultiheadAttention(8, 2, **{"batch_first": True} | options)
    with pytest.raises(ModelError, match=f"module 'blocks.0.attention'.*{re.escape(message)}"):
        import_module(module, IMAGES)


def test_position_embeddings_must_have_a_value_for_each():
    module = Transformer(width=8, depth=1, heads=2, tokens=5)
    with pytest.raises(ModelError, match=re.escape("'positions' is [1, 5, 8], must be [1, 4, 8]")):
        import_module(module, IMAGES)
