"""Networks written in PyTorch: a module traced by torch.fx becomes a `Model`.

PyTorch is an optional dependency: ``pip install 'sat[torch]'``.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .model import (
    DENSE,
    GELU,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool,
    Method,
    Model,
    PositionEmbedding,
    Shape,
)

try:
    import torch
    from torch import fx, nn
    from torch.nn import functional
except ImportError as error:
    raise ImportError(f"PyTorch is needed ({error}): pip install 'sat[torch]'") from error

__all__ = ["ImportedModel", "import_module"]

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ImportedModel:
    """A network, and what its module had learned, by the names of layers.

    Attributes
    ----------
    model
        The network.
    weights
        ``[kernel, kernel, inputs, outputs]`` of each convolution.
    biases
        ``[outputs]`` of each convolution that has any.
    norms
        Of each normalisation ``gain`` and ``shift``, of a batch normalisation also the running
        ``average`` and ``variance``, ``[channels]`` each.
    positions
        ``[height, width, channels]`` of each position embedding.
    """

    model: Model
    weights: dict[str, _Floats] = field(default_factory=dict)
    biases: dict[str, _Floats] = field(default_factory=dict)
    norms: dict[str, dict[str, _Floats]] = field(default_factory=dict)
    positions: dict[str, _Floats] = field(default_factory=dict)


def import_module(module: nn.Module, images: Shape, *, method: Method = DENSE) -> ImportedModel:
    """Return the network that a PyTorch module computes.

    ReLU and additions are fused into the layers before them where these compute them on their way.
    A fully connected layer on a flattened image becomes a convolution whose kernel is the image.
    Layers have the names of their modules.

    Parameters
    ----------
    module
        A classifier of images ``[N, C, H, W]``, whose graph `torch.fx` can trace.
    images
        Shape of its images.
    method
        How weights are pruned, but for those of the first and the last layer.

    Raises
    ------
    ModelError
        The module can't be traced, or does something that no layer does; the message names the
        first such operation, and the module that it is part of.
    """
    try:
        traced = fx.symbolic_trace(module)
    except fx.proxy.TraceError as error:
        raise ModelError(f"module {type(module).__name__} can't be traced: {error}") from error
    traced.graph.eliminate_dead_code()
    return _Importer(traced, type(module).__name__, images, method).run()


class _Layout(enum.Enum):
    """How PyTorch lays out what a layer gives."""

    IMAGES = "[N, C, H, W]"
    VECTORS = "[N, C]"
    PIXELS = "[N, C H W]"
    CHANNELS = "[N, C, tokens]"
    TOKENS = "[N, tokens, C]"


@dataclass(frozen=True)
class _Value:
    """What a node of the graph gives: the output of a layer.

    Attributes
    ----------
    node, layer, layout
        As said.
    shared
        Whether a node before this one, that gives the same, has others that take it.
    """

    node: fx.Node
    layer: Layer
    layout: _Layout
    shared: bool = False


@dataclass(frozen=True)
class _Parameter:
    """A parameter that the graph takes by itself."""

    name: str
    tensor: torch.Tensor


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a value, or one of them."""

    value: _Value
    dimension: int | None = None


class _Importer:
    """Follows a graph node by node.

    Parameters
    ----------
    traced
        The module with its graph.
    name
        Of the network.
    images, method
        As for `import_module`.
    """

    def __init__(self, traced: fx.GraphModule, name: str, images: Shape, method: Method) -> None:
        self._traced = traced
        self._name = name
        self._images = images
        self._method = method
        self._layers: list[Layer] = []
        self._values: dict[fx.Node, Any] = {}
        self._learned: dict[str, dict[str, Any]] = {
            kind: {} for kind in ("weights", "biases", "norms", "positions")
        }
        # The node that is followed.
        self._node: fx.Node = next(iter(traced.graph.nodes))

    def run(self) -> ImportedModel:
        """Follow the whole graph."""
        for node in self._traced.graph.nodes:
            self._node = node
            if node.op == "output":
                self._finish(self._lookup(node.args[0]))
            else:
                self._values[node] = self._follow()
        return ImportedModel(Model(self._name, tuple(self._layers)), **self._learned)

    # Nodes

    def _follow(self) -> Any:
        """Return what the node gives."""
        node = self._node
        if node.op == "placeholder":
            if self._layers:
                self._refuse("a network has one input, the images")
            shape = self._images
            image = Input("image", shape.height, shape.width, shape.channels)
            return self._append(image, _Layout.IMAGES)
        if node.op == "get_attr":
            return _Parameter(str(node.target), self._attribute(str(node.target)))
        handler: Callable[..., Any] | None
        arguments: tuple[Any, ...] = ()
        if node.op == "call_module":
            arguments = (self._traced.get_submodule(str(node.target)),)
            handler = _MODULES.get(type(arguments[0]))
        elif node.op == "call_method":
            handler = _METHODS.get(str(node.target))
        else:
            handler = _FUNCTIONS.get(node.target)
        if handler is None:
            self._refuse("isn't supported")
        arguments += fx.node.map_arg(node.args, self._values.__getitem__)
        options = fx.node.map_arg(node.kwargs, self._values.__getitem__)
        try:
            bound = inspect.signature(handler).bind(self, *arguments, **options)
        except TypeError as error:
            self._refuse(f"isn't supported with these arguments: {error}")
        return handler(*bound.args, **bound.kwargs)

    def _finish(self, result: Any) -> None:
        """Make the layer of the logits dense; it has to be the last one."""
        value = self._expect(result, _Layout.VECTORS)
        if isinstance(value.layer, Convolution) and value.layer is self._layers[-1]:
            self._replace(value.layer, method=DENSE)

    def _lookup(self, argument: Any) -> Any:
        return self._values.get(argument) if isinstance(argument, fx.Node) else argument

    def _attribute(self, path: str) -> torch.Tensor:
        """Return the parameter of this name."""
        owner, _, name = path.rpartition(".")
        return getattr(self._traced.get_submodule(owner), name)

    def _refuse(self, reason: str) -> NoReturn:
        """Raise an error that names the node, what it calls, and the module that it is part of."""
        node, target = self._node, self._node.target
        if node.op == "call_module":
            module = self._traced.get_submodule(str(target))
            kind = type(module)
            what = f"{kind.__module__}.{kind.__qualname__}, module '{target}'"
        else:
            stack = list(node.meta.get("nn_module_stack") or ())
            name = target if isinstance(target, str) else _name_of(target)
            what = f"{node.op} {name}, in " + (f"module '{stack[-1]}'" if stack else self._name)
        raise ModelError(f"operation '{node.name}' ({what}): {reason}")

    def _expect(self, value: Any, *layouts: _Layout) -> _Value:
        """Return an operand that must be laid out in one of these ways."""
        if not isinstance(value, _Value):
            self._refuse("its input isn't what a layer gives")
        if value.layout not in layouts:
            choices = " or ".join(layout.value for layout in layouts)
            self._refuse(f"its input is {value.layout.value}, must be {choices}")
        return value

    def _only(self, **options: tuple[Any, Any]) -> None:
        """Refuse options that aren't the only value that is supported; both are given."""
        for name, (value, supported) in options.items():
            if value != supported:
                self._refuse(f"{name} is {value!r}, must be {supported!r}")

    def _square(self, name: str, value: Any) -> int:
        """Return a size that is the same in both directions."""
        sizes = set(value) if isinstance(value, (tuple, list)) else {value}
        if len(sizes) > 1 or not all(isinstance(size, int) for size in sizes):
            self._refuse(f"{name} is {value!r}, must be a number, the same in both directions")
        return sizes.pop()

    # Layers

    def _append(self, layer: Layer, layout: _Layout) -> _Value:
        self._layers.append(layer)
        return _Value(self._node, layer, layout)

    def _same(self, value: _Value, layout: _Layout) -> _Value:
        """Return a value for a node that changes nothing, or only the layout."""
        shared = value.shared or len(_takers(value.node)) > 1
        return _Value(self._node, value.layer, layout, shared)

    def _replace(self, layer: Layer, **changes: Any) -> Layer:
        """Put a changed layer in place of one that nothing has taken yet, behind all others."""
        self._layers.remove(layer)
        self._layers.append(dataclasses.replace(layer, **changes))
        return self._layers[-1]

    def _own_name(self) -> str:
        """Return the name of the module that is called, which has parameters."""
        name = str(self._node.target)
        if any(layer.name == name for layer in self._layers):
            self._refuse("is called twice: layers don't share parameters")
        return name

    def _convolve(
        self,
        name: str,
        x: _Value,
        layout: _Layout,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> _Value:
        """Add a convolution with weights ``[outputs, inputs, kernel, kernel]``."""
        outputs, inputs, kernel, _ = weight.shape
        if inputs != x.layer.shape.channels:
            self._refuse(f"takes {inputs} channels, its input has {x.layer.shape.channels}")
        first = not any(isinstance(layer, Convolution) for layer in self._layers)
        layer = Convolution(
            name,
            x.layer,
            outputs,
            kernel=kernel,
            stride=stride,
            padding=padding,
            bias=bias is not None,
            method=DENSE if first else self._method,
        )
        self._learned["weights"][name] = _array(weight.permute(2, 3, 1, 0))
        if bias is not None:
            self._learned["biases"][name] = _array(bias)
        return self._append(layer, layout)

    def _conv2d(self, module: nn.Conv2d, input: Any) -> _Value:
        x = self._expect(input, _Layout.IMAGES)
        self._only(
            groups=(module.groups, 1),
            dilation=(self._square("dilation", module.dilation), 1),
            padding_mode=(module.padding_mode, "zeros"),
        )
        self._square("kernel_size", module.kernel_size)
        return self._convolve(
            self._own_name(),
            x,
            x.layout,
            module.weight,
            module.bias,
            stride=self._square("stride", module.stride),
            padding=self._square("padding", module.padding),
        )

    def _linear(self, module: nn.Linear, input: Any) -> _Value:
        x = self._expect(input, _Layout.VECTORS, _Layout.PIXELS, _Layout.TOKENS)
        shape, weight = x.layer.shape, module.weight
        if x.layout is not _Layout.PIXELS:
            return self._convolve(
                self._own_name(), x, x.layout, weight[:, :, None, None], module.bias
            )
        if shape.height != shape.width:
            self._refuse(f"it takes all pixels of an image of {shape}, which must be square")
        pixels = shape.positions * shape.channels
        if module.in_features != pixels:
            self._refuse(f"takes {module.in_features} values, its input has {pixels}")
        kernels = weight.reshape(-1, shape.channels, shape.height, shape.width)
        return self._convolve(self._own_name(), x, _Layout.VECTORS, kernels, module.bias)

    def _batch_norm(self, module: nn.BatchNorm1d | nn.BatchNorm2d, input: Any) -> _Value:
        flat = isinstance(module, nn.BatchNorm1d)
        x = self._expect(input, _Layout.VECTORS if flat else _Layout.IMAGES)
        self._only(
            affine=(module.affine, True),
            track_running_stats=(module.track_running_stats, True),
            num_features=(module.num_features, x.layer.shape.channels),
        )
        if module.momentum is None:
            self._refuse("momentum is None, must be a number")
        name = self._own_name()
        self._learned["norms"][name] = {
            "gain": _array(module.weight),
            "shift": _array(module.bias),
            "average": _array(module.running_mean),
            "variance": _array(module.running_var),
        }
        layer = BatchNorm(name, x.layer, momentum=module.momentum, epsilon=module.eps)
        return self._append(layer, x.layout)

    def _layer_norm(self, module: nn.LayerNorm, input: Any) -> _Value:
        x = self._expect(input, _Layout.TOKENS, _Layout.VECTORS)
        self._only(normalized_shape=(tuple(module.normalized_shape), (x.layer.shape.channels,)))
        if module.weight is None or module.bias is None:
            self._refuse("it must learn gain and shift")
        name = self._own_name()
        gain, shift = _array(module.weight), _array(module.bias)
        self._learned["norms"][name] = {"gain": gain, "shift": shift}
        return self._append(LayerNorm(name, x.layer, epsilon=module.eps), x.layout)

    def _attention(
        self,
        module: nn.MultiheadAttention,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[_Value]:
        """Projections, attention, projection; of what PyTorch gives only the first."""
        x = self._expect(query, _Layout.TOKENS)
        if key is not query or value is not query:
            self._refuse("queries, keys and values must be of the same tokens")
        if module.in_proj_weight is None:
            self._refuse("queries, keys and values must be as wide as each other")
        self._only(
            batch_first=(module.batch_first, True),
            dropout=(module.dropout, 0.0),
            add_bias_kv=(module.bias_k is not None, False),
            add_zero_attn=(module.add_zero_attn, False),
            key_padding_mask=(key_padding_mask, None),
            attn_mask=(attn_mask, None),
            is_causal=(is_causal, False),
        )
        name, out = self._own_name(), module.out_proj
        qkv = self._convolve(
            f"{name}.in_proj",
            x,
            x.layout,
            module.in_proj_weight[:, :, None, None],
            module.in_proj_bias,
        )
        heads = self._append(Attention(name, qkv.layer, heads=module.num_heads), x.layout)
        return (
            self._convolve(
                f"{name}.out_proj", heads, x.layout, out.weight[:, :, None, None], out.bias
            ),
        )

    # Layers without weights

    def _relu(self, input: Any, inplace: bool = False) -> _Value:
        x = self._expect(input, *_Layout)
        layer = x.layer
        if layer.relu:
            return self._same(x, x.layout)
        if not isinstance(layer, (Convolution, BatchNorm, MaxPool, Addition)):
            self._refuse(f"no ReLU can follow '{layer.name}', of kind {type(layer).__name__}")
        if not self._is_only_user(x):
            self._refuse(f"what '{layer.name}' gives is taken without ReLU, too")
        return _Value(self._node, self._replace(layer, rectified=True), x.layout)

    def _add(self, input: Any, other: Any, alpha: float = 1) -> _Value:
        self._only(alpha=(alpha, 1))
        if isinstance(other, _Parameter):
            return self._embed(input, other)
        if isinstance(input, _Parameter):
            return self._embed(other, input)
        x = self._expect(input, *_Layout)
        y = self._expect(other, x.layout)
        for sum_, added in ((x, y), (y, x)):
            layer = sum_.layer
            if (
                isinstance(layer, (Convolution, BatchNorm))
                and layer.add is None
                and not layer.relu
                and layer is not added.layer
                and self._is_only_user(sum_)
            ):
                return _Value(self._node, self._replace(layer, add=added.layer), x.layout)
        return self._append(Addition(self._node.name, x.layer, y.layer), x.layout)

    def _embed(self, input: Any, parameter: _Parameter) -> _Value:
        """Add a parameter to each image."""
        x = self._expect(input, _Layout.TOKENS, _Layout.IMAGES)
        shape, tensor, name = x.layer.shape, parameter.tensor, parameter.name
        images = x.layout is _Layout.IMAGES
        size = (
            (shape.channels, shape.height, shape.width)
            if images
            else (shape.positions, shape.channels)
        )
        if tuple(tensor.shape) not in (size, (1, *size)):
            self._refuse(
                f"parameter '{name}' is {list(tensor.shape)}, must be {[1, *size]}: a value for "
                "each channel of each position"
            )
        if any(layer.name == name for layer in self._layers):
            self._refuse(f"parameter '{name}' is added twice: layers don't share parameters")
        values = tensor.reshape(size).permute(1, 2, 0) if images else tensor
        self._learned["positions"][name] = _array(values).reshape(
            shape.height, shape.width, shape.channels
        )
        return self._append(PositionEmbedding(name, x.layer), x.layout)

    def _gelu(self, input: Any, approximate: str = "none") -> _Value:
        self._only(approximate=(approximate, "none"))
        x = self._expect(input, *_Layout)
        return self._append(GELU(self._node.name, x.layer), x.layout)

    def _max_pool(
        self,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> _Value:
        x = self._expect(input, _Layout.IMAGES)
        self._only(
            dilation=(self._square("dilation", dilation), 1),
            ceil_mode=(ceil_mode, False),
            return_indices=(return_indices, False),
        )
        window = self._square("kernel_size", kernel_size)
        layer = MaxPool(
            self._node.name,
            x.layer,
            window=window,
            stride=window if stride is None else self._square("stride", stride),
            padding=self._square("padding", padding),
        )
        return self._append(layer, x.layout)

    def _average(self, x: _Value, layout: _Layout) -> _Value:
        return self._append(GlobalAveragePool(self._node.name, x.layer), layout)

    def _adaptive_average_pool(self, input: Any, output_size: Any) -> _Value:
        x = self._expect(input, _Layout.IMAGES)
        self._only(output_size=(self._square("output_size", output_size), 1))
        return self._average(x, x.layout)

    def _average_pool(
        self,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> _Value:
        x = self._expect(input, _Layout.IMAGES)
        window, shape = self._square("kernel_size", kernel_size), x.layer.shape
        if (shape.height, shape.width) != (window, window):
            self._refuse(f"kernel_size is {window}, must be that of the whole image, {shape}")
        self._only(
            padding=(self._square("padding", padding), 0),
            divisor_override=(divisor_override, None),
        )
        return self._average(x, x.layout)

    def _mean(self, input: Any, dim: Any = None, keepdim: bool = False) -> _Value:
        x = self._expect(input, _Layout.IMAGES, _Layout.TOKENS)
        images = x.layout is _Layout.IMAGES
        rank = 4 if images else 3
        given = dim if isinstance(dim, (tuple, list)) else [] if dim is None else [dim]
        expected = [2, 3] if images else [1]
        if sorted(number % rank for number in given) != expected:
            self._refuse(f"dim is {dim!r}, must be {expected}, all pixels or tokens")
        if keepdim and not images:
            self._refuse("keepdim is True, must be False")
        return self._average(x, _Layout.IMAGES if keepdim else _Layout.VECTORS)

    def _identity(self, input: Any) -> _Value:
        x = self._expect(input, *_Layout)
        return self._same(x, x.layout)

    def _dropout(self, module: nn.Dropout, input: Any) -> _Value:
        self._only(p=(module.p, 0.0))
        return self._identity(input)

    # Other layouts of the same

    def _flatten(self, input: Any, start_dim: int = 0, end_dim: int = -1) -> _Value:
        x = self._expect(input, _Layout.IMAGES, _Layout.VECTORS, _Layout.PIXELS)
        images = x.layout is _Layout.IMAGES
        last = end_dim in (-1, 3 if images else 1)
        if images and start_dim == 2 and last:
            return self._same(x, _Layout.CHANNELS)
        if start_dim != 1 or not last:
            self._refuse(
                f"dimensions {start_dim} to {end_dim} are flattened, must be all but the images' "
                "or those of pixels"
            )
        if not images:
            return self._same(x, x.layout)
        one_pixel = x.layer.shape.positions == 1
        return self._same(x, _Layout.VECTORS if one_pixel else _Layout.PIXELS)

    def _view(self, input: Any, *sizes: Any) -> _Value:
        """``x.view(x.size(0), -1)``, which flattens."""
        batch, rest = sizes if len(sizes) == 2 else (None, None)
        if not isinstance(batch, _Sizes) or batch.dimension != 0 or rest != -1:
            self._refuse("sizes must be those of images, x.size(0), and -1 for all others")
        return self._flatten(input, 1)

    def _size(self, input: Any, dim: int | None = None) -> _Sizes:
        return _Sizes(self._expect(input, *_Layout), dim)

    def _attribute_of(self, input: Any, name: str) -> _Sizes:
        self._only(attribute=(name, "shape"))
        return self._size(input)

    def _transpose(self, input: Any, dim0: int, dim1: int) -> _Value:
        x = self._expect(input, _Layout.CHANNELS)
        if {dim0 % 3, dim1 % 3} != {1, 2}:
            self._refuse(f"dimensions {dim0} and {dim1} are exchanged, must be 1 and 2")
        return self._same(x, _Layout.TOKENS)

    def _permute(self, input: Any, *dims: Any) -> _Value:
        order = dims[0] if len(dims) == 1 else dims
        self._only(dims=(tuple(order), (0, 2, 1)))
        return self._transpose(input, 1, 2)

    def _item(self, values: Any, index: Any) -> _Value | _Sizes:
        if isinstance(values, _Sizes) and values.dimension is None:
            return _Sizes(values.value, index)
        if not isinstance(values, tuple) or index != 0:
            self._refuse("only the first result of an attention is supported")
        return self._same(values[0], values[0].layout)

    def _is_only_user(self, value: _Value) -> bool:
        return not value.shared and _takers(value.node) == {self._node}


def _takers(node: fx.Node) -> set[fx.Node]:
    """Return the nodes that take what a node gives, and not only its sizes."""
    return {user for user in node.users if user.target not in ("size", getattr)}


def _array(tensor: torch.Tensor | None) -> _Floats:
    """Return a copy of the values."""
    assert tensor is not None
    return tensor.detach().cpu().to(torch.float32).numpy().copy()


def _name_of(target: Any) -> str:
    """Return the name of a function as PyTorch writes it."""
    module, name = getattr(target, "__module__", None), getattr(target, "__name__", str(target))
    return f"{(module or 'torch').strip('_')}.{name}"


_Handler = Callable[..., Any]

_MODULES: Mapping[type[nn.Module], _Handler] = {
    nn.AdaptiveAvgPool2d: lambda self, m, x: self._adaptive_average_pool(x, m.output_size),
    nn.AvgPool2d: lambda self, m, x: self._average_pool(
        x, m.kernel_size, m.stride, m.padding, divisor_override=m.divisor_override
    ),
    nn.BatchNorm1d: _Importer._batch_norm,
    nn.BatchNorm2d: _Importer._batch_norm,
    nn.Conv2d: _Importer._conv2d,
    nn.Dropout: _Importer._dropout,
    nn.Flatten: lambda self, m, x: self._flatten(x, m.start_dim, m.end_dim),
    nn.GELU: lambda self, m, x: self._gelu(x, m.approximate),
    nn.Identity: lambda self, m, x: self._identity(x),
    nn.LayerNorm: _Importer._layer_norm,
    nn.Linear: _Importer._linear,
    nn.MaxPool2d: lambda self, m, x: self._max_pool(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.MultiheadAttention: _Importer._attention,
    nn.ReLU: lambda self, m, x: self._relu(x),
}
"""By exact type: a subclass may do something else."""

_FUNCTIONS: Mapping[Any, _Handler] = {
    getattr: _Importer._attribute_of,
    functional.adaptive_avg_pool2d: _Importer._adaptive_average_pool,
    functional.avg_pool2d: _Importer._average_pool,
    functional.gelu: _Importer._gelu,
    functional.max_pool2d: _Importer._max_pool,
    functional.relu: _Importer._relu,
    operator.add: _Importer._add,
    operator.getitem: _Importer._item,
    operator.iadd: _Importer._add,
    torch.add: _Importer._add,
    torch.flatten: _Importer._flatten,
    torch.mean: _Importer._mean,
    torch.relu: _Importer._relu,
    torch.transpose: _Importer._transpose,
}

_METHODS: Mapping[str, _Handler] = {
    "add": _Importer._add,
    "add_": _Importer._add,
    "contiguous": _Importer._identity,
    "flatten": _Importer._flatten,
    "mean": _Importer._mean,
    "permute": _Importer._permute,
    "relu": _Importer._relu,
    "relu_": _Importer._relu,
    "reshape": _Importer._view,
    "size": _Importer._size,
    "transpose": _Importer._transpose,
    "view": _Importer._view,
}
