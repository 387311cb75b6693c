"""A training step written down directly, on whole images in binary64."""

import numpy as np

from firmware.model import Addition, BatchNorm, Convolution, GlobalAveragePool, Input, MaxPool
from rtl.sparsity.pattern import Pattern
from sim.golden.sparsity import prune

__all__ = ["Reference"]


def _keep(_layer, values):
    return values


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
            elif isinstance(layer, BatchNorm):
                channels = layer.shape.channels
                self.parameters[layer, "gain"] = np.ones(channels)
                self.parameters[layer, "shift"] = np.zeros(channels)
                self.averages[layer] = np.zeros(channels), np.ones(channels)
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

    @staticmethod
    def _windows(layer, x):
        """Return ``[images, height, width, place in the window, channels]``."""
        side, shape = layer.window, layer.shape
        used = x[:, : shape.height * side, : shape.width * side]
        split = used.reshape(len(x), shape.height, side, shape.width, side, -1)
        return split.transpose(0, 1, 3, 2, 4, 5).reshape(
            len(x), shape.height, shape.width, side * side, -1
        )

    @staticmethod
    def _from_windows(layer, windows, shape):
        side = layer.window
        images, height, width, _, channels = windows.shape
        split = windows.reshape(images, height, width, side, side, channels)
        whole = np.zeros(shape)
        whole[:, : height * side, : width * side] = split.transpose(0, 1, 3, 2, 4, 5).reshape(
            images, height * side, width * side, channels
        )
        return whole

    def _round(self, values):
        values = np.asarray(values, np.float64)
        return values.astype(np.float16).astype(np.float64) if self.half else values
