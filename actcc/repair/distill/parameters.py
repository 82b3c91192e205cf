"""The free weights of a span, in coordinates in which one learning rate suits all of them.

A network whose batch norms are folded has channels whose scales differ by orders of magnitude, and
Adam moves each weight by about its learning rate whatever its scale. So a weight is written as

    W[o, i, …] = W₀[o, i, …] + s_o / (σ_i · √n) · U[o, i, …]        b[o] = b₀[o] + s_o · v[o]

with σ_i the root mean square of input channel i, s_o the deviation of output channel o, both under
the weights at the start, and n the inputs of one output. U and v start at zero. A step of size η in
every U then moves an output by about η deviations, whatever scales were folded into the weights
(the diagonal of the whitening of Desjardins et al. 2015, "Natural neural networks", §3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from actcc.repair.distill.matching import input_axis
from actcc.repair.distill.network import Tensors
from actcc.repair.layers import Layer

# Channels that hardly move get a floor of this share of the mean, else their weights would run off.
_FLOOR = 0.05


@dataclass(frozen=True)
class Parameter:
    """One tensor of weights.

    Attributes:
        start: its values before the fit.
        scale: what one unit of `free` is worth; broadcasts to `start`.
        free: what the optimiser moves.
    """

    name: str
    start: torch.Tensor
    scale: torch.Tensor
    free: torch.Tensor

    @property
    def value(self) -> torch.Tensor:
        """The weights now."""
        return self.at(self.free)

    def at(self, free: torch.Tensor) -> torch.Tensor:
        """The weights at another place."""
        return self.start + self.scale * free


def free_parameters(
    layers: Sequence[Layer], weights: Mapping[str, torch.Tensor], activations: Tensors
) -> list[Parameter]:
    """Weights and biases of the layers, at rest.

    Args:
        weights: their present values by name.
        activations: what each layer reads and writes on a few samples.
    """
    found: list[Parameter] = []
    for layer in layers:
        into = _floored(_moment(activations[layer.reads], input_axis(layer)).sqrt())
        axis = 1 if layer.window is not None else -1
        out = _floored(_deviation(activations[layer.writes], axis))
        scale = _weight_scale(layer, into, out) / math.sqrt(layer.columns)
        found.append(_parameter(layer.weight, weights[layer.weight], scale))
        if layer.bias is not None:
            bias = weights[layer.bias]
            size = out.reshape(bias.shape) if bias.numel() == out.numel() else out.mean()
            found.append(_parameter(layer.bias, bias, size))
    return found


def _parameter(name: str, start: torch.Tensor, scale: torch.Tensor) -> Parameter:
    return Parameter(name, start, scale.detach(), torch.zeros_like(start, requires_grad=True))


def _weight_scale(layer: Layer, into: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """[as the weights, broadcast]: deviation of the output over size of the input."""
    if layer.window is None:
        table = out[None, :] / into[:, None]
        return table.t() if layer.transposed[1] else table
    groups, ones = layer.groups, [1] * (len(layer.shape) - 2)
    if layer.op == "Conv":
        of_group = into.reshape(groups, 1, -1).expand(-1, out.numel() // groups, -1)
        return (out[:, None] / of_group.reshape(out.numel(), -1)).reshape(*layer.shape[:2], *ones)
    of_group = out.reshape(groups, 1, -1).expand(-1, into.numel() // groups, -1)
    table = of_group.reshape(into.numel(), -1) / into[:, None]
    return table.reshape(*layer.shape[:2], *ones)


def _others(values: torch.Tensor, axis: int) -> list[int]:
    return [index for index in range(values.ndim) if index != axis % values.ndim]


def _moment(values: torch.Tensor, axis: int) -> torch.Tensor:
    others = _others(values, axis)
    return values.square().mean(others) if others else values.square()


def _deviation(values: torch.Tensor, axis: int) -> torch.Tensor:
    """A channel's deviation; its size where there is a single row to take it from."""
    rows = values.numel() // values.shape[axis]
    if rows < 2:
        return _moment(values, axis).sqrt()
    return values.var(_others(values, axis), correction=0).sqrt()


def _floored(sizes: torch.Tensor) -> torch.Tensor:
    return sizes + _FLOOR * sizes.mean() + 1e-12
