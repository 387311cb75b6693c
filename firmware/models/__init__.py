"""Ready-made networks, written from the tables of the papers that their docstrings name.

Builders take a `firmware.model.Method`, by which all layers with weights are pruned but the first
and the last, which stay dense.
"""

from .digits import perceptron, residual_cnn
from .resnet import resnet9, resnet18, resnet50
from .vgg import vgg19
from .vit import vit_small

__all__ = [
    "NETWORKS",
    "perceptron",
    "residual_cnn",
    "resnet9",
    "resnet18",
    "resnet50",
    "vgg19",
    "vit_small",
]

NETWORKS = {
    "resnet9": resnet9,
    "vgg19": vgg19,
    "vit-small": vit_small,
    "resnet18": resnet18,
    "resnet50": resnet50,
}
"""Builders by the names of their networks; each needs only a method."""
