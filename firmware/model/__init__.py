"""What a network computes: its layers with their shapes, before any card is involved.

Layers name the layers whose outputs they take, so that a network is a graph; the layers of a
network stand in an order in which they can be computed. Two layers are the same only if they are
one object.
"""

from .attention import Attention, MatrixProduct, PositionEmbedding
from .convolution import Convolution, linear
from .elementwise import GELU, Addition
from .graph import Model
from .layer import PRODUCT_STAGES, Input, Layer, Shape
from .method import DENSE, METHOD_KINDS, METHODS, Method
from .normalisation import BatchNorm, LayerNorm
from .pooling import GlobalAveragePool, MaxPool

__all__ = [
    "DENSE",
    "GELU",
    "METHODS",
    "METHOD_KINDS",
    "PRODUCT_STAGES",
    "Addition",
    "Attention",
    "BatchNorm",
    "Convolution",
    "GlobalAveragePool",
    "Input",
    "Layer",
    "LayerNorm",
    "MatrixProduct",
    "MaxPool",
    "Method",
    "Model",
    "PositionEmbedding",
    "Shape",
    "linear",
]
