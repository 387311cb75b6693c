"""A training step written down directly, on whole images in binary64."""

import math

import numpy as np

from firmware.model import (
    GELU,
    Addition,
    Attention,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    Input,
    LayerNorm,
    MaxPool,
    PositionEmbedding,
)
from rtl.sparsity.pattern import Pattern
from sim.golden.sparsity import prune

__all__ = ["Reference"]


def _keep(_layer, values):
    return values


def _normal(values):
    """Return the distribution function of the normal distribution."""
    return (1 + np.vectorize(math.erf)(values / np.sqrt(2))) / 2


class Reference:
    """A network's parameters and what a step does to them.

    Parameters
    ----------
    model
        The network.
    weights
        ``[kernel, kernel, inputs, outputs]`` of each convolution, by its name.
    half
        Round what the card stores as binary16, and prune; otherwise it's plain mathematics.
    """

    def __init__(self, model, weights, *, half=True):
        self.model = model
        self.half = half
        self.parameters = {}
        self.averages = {}
        for layer in model.layers:
            if isinstance(layer, Convolution):
                self.parameters[layer, "weights"] = np.asarray(weights[layer.name], np.float64)
                if layer.bias:
                    self.parameters[layer, "bias"] = np.zeros(layer.outputs)
            elif isinstance(layer, (BatchNorm, LayerNorm)):
                channels = layer.shape.channels
                self.parameters[layer, "gain"] = np.ones(channels)
                self.parameters[layer, "shift"] = np.zeros(channels)
                if isinstance(layer, BatchNorm):
                    self.averages[layer] = np.zeros(channels), np.ones(channels)
            elif isinstance(layer, PositionEmbedding):
                shape = layer.shape.height, layer.shape.width, layer.shape.channels
                self.parameters[layer, "positions"] = np.zeros(shape)
        self.velocities = {key: np.zeros_like(value) for key, value in self.parameters.items()}

    def forward(self, images, labels=None, scale=1.0, *, training=True, check=_keep):
        """Return the logits; keep what `backward` needs.

        `check` is given each layer with its outputs, and returns those to go on with.
        """
        self.outputs, self.kept = {}, {}
        for layer in self.model.layers:
            inputs = [self.outputs[source] for source in layer.sources]
            outputs = self._round(self._output(layer, inputs, images, training))
            self.outputs[layer] = check(layer, outputs)
        logits = self.outputs[self.model.logits][:, 0, 0]
        if labels is not None:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = powers / powers.sum(axis=1, keepdims=True)
            images_ = np.arange(len(labels))
            self.loss = -np.log(probabilities[images_, labels]).mean()
            gradient = probabilities.copy()
            gradient[images_, labels] -= 1
            self.loss_gradient = self._round(gradient * scale / len(labels))[:, None, None]
        return logits

    def backward(self, *, check=_keep):
        """Compute the gradients of all outputs, before their ReLU, and of all parameters.

        `check` is given each layer with its gradient, and returns the one to go on with.
        """
        self.gradients = dict.fromkeys(self.model.layers, 0.0)
        self.gradients[self.model.logits] = self.loss_gradient
        self.slopes = {}
        for layer in reversed(self.model.layers):
            dy = self.gradients[layer]
            if layer.relu:
                dy = dy * (self.outputs[layer] > 0)
            dy = self.gradients[layer] = check(layer, self._round(dy))
            if isinstance(layer, Input):
                continue
            parts = self._input_gradients(layer, dy)
            for source, part in zip(layer.sources, parts, strict=True):
                self.gradients[source] = self._round(self.gradients[source] + part)

    def update(self, step):
        """Apply SGD; gain and shift don't decay."""
        for (layer, name), value in self.parameters.items():
            decay = 0 if name in ("gain", "shift") else step.decay
            slope = self.slopes[layer, name] * 2.0**-step.scale + decay * value
            velocity = step.momentum * self.velocities[layer, name] + slope
            self.velocities[layer, name] = velocity
            self.parameters[layer, name] = value - step.rate * velocity

    # Layers

    def _output(self, layer, inputs, images, training):
        if isinstance(layer, Input):
            return np.asarray(images, np.float64)
        if isinstance(layer, Convolution):
            y = self._convolve(layer, inputs[0], self._copy(layer, forward=True))
            if layer.bias:
                y = y + self._round(self.parameters[layer, "bias"])
        elif isinstance(layer, BatchNorm):
            y = self._normalise(layer, inputs[0], training)
        elif isinstance(layer, MaxPool):
            y = self._windows(layer, inputs[0]).max(axis=3)
        elif isinstance(layer, Addition):
            y = inputs[0]
        elif isinstance(layer, LayerNorm):
            y = self._normalise_tokens(layer, inputs[0])
        elif isinstance(layer, GELU):
            y = inputs[0] * _normal(inputs[0])
        elif isinstance(layer, PositionEmbedding):
            y = inputs[0] + self._round(self.parameters[layer, "positions"])
        elif isinstance(layer, Attention):
            y = self._attend(layer, inputs[0])
        else:
            assert isinstance(layer, GlobalAveragePool)
            y = inputs[0].mean(axis=(1, 2), keepdims=True)
        if len(inputs) > 1:
            y = y + inputs[1]
        return np.maximum(y, 0) if layer.relu else y

    def _input_gradients(self, layer, dy):
        x = self.outputs[layer.sources[0]]
        if isinstance(layer, Convolution):
            dx = self._back_convolve(layer, x, dy)
        elif isinstance(layer, BatchNorm):
            dx = self._back_normalise(layer, x, dy)
        elif isinstance(layer, MaxPool):
            windows = self._windows(layer, x)
            first = np.zeros(windows.shape)
            np.put_along_axis(first, windows.argmax(axis=3)[:, :, :, None], 1, axis=3)
            dx = self._from_windows(layer, first * dy[:, :, :, None], x.shape)
        elif isinstance(layer, Addition):
            dx = dy
        elif isinstance(layer, LayerNorm):
            dx = self._back_normalise_tokens(layer, dy)
        elif isinstance(layer, GELU):
            dx = dy * (_normal(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))
        elif isinstance(layer, PositionEmbedding):
            dx = dy
            self.slopes[layer, "positions"] = dy.sum(axis=0)
        elif isinstance(layer, Attention):
            dx = self._back_attend(layer, dy)
        else:
            dx = np.broadcast_to(dy / (x.shape[1] * x.shape[2]), x.shape)
        return (dx, dy)[: len(layer.sources)]

    def _convolve(self, layer, x, weights):
        padded = np.pad(x, ((0, 0), *[(layer.padding,) * 2] * 2, (0, 0)))
        shape = layer.shape
        y = np.zeros((len(x), shape.height, shape.width, layer.outputs))
        for r, s, place in self._taps(layer):
            y += padded[place] @ weights[r, s]
        return y

    def _back_convolve(self, layer, x, dy):
        pad = layer.padding
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        dx, dw = np.zeros(padded.shape), np.zeros(self.parameters[layer, "weights"].shape)
        copy = self._copy(layer, forward=False)
        for r, s, place in self._taps(layer):
            dx[place] += dy @ copy[r, s].T
            dw[r, s] = np.einsum("nyxi,nyxo->io", padded[place], dy)
        self.slopes[layer, "weights"] = dw
        if layer.bias:
            self.slopes[layer, "bias"] = dy.sum(axis=(0, 1, 2))
        height, width = x.shape[1:3]
        return dx[:, pad : pad + height, pad : pad + width]

    @staticmethod
    def _taps(layer):
        shape, stride = layer.shape, layer.stride
        for r in range(layer.kernel):
            for s in range(layer.kernel):
                rows = slice(r, r + (shape.height - 1) * stride + 1, stride)
                columns = slice(s, s + (shape.width - 1) * stride + 1, stride)
                yield r, s, (slice(None), rows, columns)

    def _copy(self, layer, *, forward):
        """Return the pruned copy: groups along the inputs, or along the outputs."""
        weights = self._round(self.parameters[layer, "weights"])
        pattern = layer.method.forward if forward else layer.method.backward
        if not self.half or pattern is Pattern.DENSE:
            return weights
        axis = 2 if forward else 3
        groups = np.moveaxis(weights, axis, -1)
        length = groups.shape[-1]
        whole = np.zeros((*groups.shape[:-1], -(-length // 16) * 16), np.float16)
        whole[..., :length] = groups
        rows = whole.reshape(-1, whole.shape[-1]).view(np.uint16)
        pruned = prune(rows, pattern).view(np.float16).reshape(whole.shape)
        return np.moveaxis(pruned[..., :length], -1, axis).astype(np.float64)

    def _normalise(self, layer, x, training):
        mean, variance = self.averages[layer]
        if training:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            count = x[..., 0].size
            old, new = 1 - layer.momentum, layer.momentum
            average, average_variance = self.averages[layer]
            unbiased = variance * count / max(count - 1, 1)
            self.averages[layer] = (
                old * average + new * mean,
                (old * average_variance + new * unbiased),
            )
        inverse = 1 / np.sqrt(variance + layer.epsilon)
        self.kept[layer] = normal = (x - mean) * inverse
        self.kept[layer, "inverse"] = inverse
        return normal * self.parameters[layer, "gain"] + self.parameters[layer, "shift"]

    def _back_normalise(self, layer, x, dy):
        normal, inverse = self.kept[layer], self.kept[layer, "inverse"]
        gain, shift = (dy * normal).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
        self.slopes[layer, "gain"], self.slopes[layer, "shift"] = gain, shift
        count = x[..., 0].size
        centred = dy - shift / count - normal * gain / count
        return self.parameters[layer, "gain"] * inverse * centred

    def _normalise_tokens(self, layer, x):
        mean, variance = (part(x, axis=-1, keepdims=True) for part in (np.mean, np.var))
        inverse = 1 / np.sqrt(variance + layer.epsilon)
        self.kept[layer] = normal = self._round((x - mean) * inverse)
        self.kept[layer, "inverse"] = inverse
        return normal * self.parameters[layer, "gain"] + self.parameters[layer, "shift"]

    def _back_normalise_tokens(self, layer, dy):
        normal, inverse = self.kept[layer], self.kept[layer, "inverse"]
        self.slopes[layer, "gain"] = (dy * normal).sum(axis=(0, 1, 2))
        self.slopes[layer, "shift"] = dy.sum(axis=(0, 1, 2))
        slope = self._round(dy * self.parameters[layer, "gain"])
        along = (slope * normal).mean(axis=-1, keepdims=True)
        return inverse * (slope - slope.mean(axis=-1, keepdims=True) - normal * along)

    def _attend(self, layer, x):
        """Every image and head by itself; keeps what it takes, ``[3, N, heads, tokens, width]``."""
        shape, heads = layer.shape, layer.heads
        split = x.reshape(len(x), shape.positions, 3, heads, shape.channels // heads)
        queries, keys, values = self.kept[layer] = split.transpose(2, 0, 3, 1, 4)
        scores = self._round(queries @ keys.swapaxes(-1, -2)) / np.sqrt(queries.shape[-1])
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probabilities = self._round(powers / powers.sum(axis=-1, keepdims=True))
        self.kept[layer, "probabilities"] = probabilities
        outputs = (probabilities @ values).swapaxes(1, 2)
        return outputs.reshape(len(x), shape.height, shape.width, shape.channels)

    def _back_attend(self, layer, dy):
        queries, keys, values = self.kept[layer]
        probabilities = self.kept[layer, "probabilities"]
        images, heads, tokens, width = queries.shape
        slope = dy.reshape(images, tokens, heads, width).swapaxes(1, 2)
        slopes = self._round(slope @ values.swapaxes(-1, -2))
        mean = (slopes * probabilities).sum(axis=-1, keepdims=True)
        scores = self._round(probabilities * (slopes - mean) / np.sqrt(width))
        parts = scores @ keys, scores.swapaxes(-1, -2) @ queries, (
            probabilities.swapaxes(-1, -2) @ slope
        )  # fmt: skip
        shape = layer.source.shape
        joined = np.stack(parts).transpose(1, 3, 0, 2, 4)
        return joined.reshape(images, shape.height, shape.width, shape.channels)

    @staticmethod
    def _places(layer):
        """Yield for each place in a window which pixels of the padded image are there."""
        shape, stride = layer.shape, layer.stride
        for down in range(layer.window):
            for right in range(layer.window):
                rows = slice(down, down + (shape.height - 1) * stride + 1, stride)
                columns = slice(right, right + (shape.width - 1) * stride + 1, stride)
                yield slice(None), rows, columns

    def _windows(self, layer, x):
        """Return ``[images, height, width, place in the window, channels]``."""
        around = ((0, 0), (layer.padding,) * 2, (layer.padding,) * 2, (0, 0))
        padded = np.pad(x, around, constant_values=-np.inf)
        return np.stack([padded[place] for place in self._places(layer)], axis=3)

    def _from_windows(self, layer, windows, shape):
        pad, (images, height, width, channels) = layer.padding, shape
        padded = np.zeros((images, height + 2 * pad, width + 2 * pad, channels))
        for index, place in enumerate(self._places(layer)):
            padded[place] += windows[:, :, :, index]
        return padded[:, pad : pad + height, pad : pad + width]

    def _round(self, values):
        values = np.asarray(values, np.float64)
        return values.astype(np.float16).astype(np.float64) if self.half else values
