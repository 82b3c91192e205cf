"""The algebra of linear layers: read from nodes, composed, added, written back."""

from actcc.linear.addition import add, added_weights, common_axis
from actcc.linear.composition import (
    compose,
    composed_axis,
    composed_weights,
    composition_inside,
    composition_obstacle,
)
from actcc.linear.convolution import (
    Axis,
    Convolution,
    Obstacle,
    Sizes,
    average,
    identity,
    on_axes,
    per_channel,
    regrouped,
    spread,
)
from actcc.linear.matrix import AffineMap, FullyConnected, compose_maps, fully_connected
from actcc.linear.reading import (
    Types,
    as_operands,
    convolution_of,
    element_of,
    fits,
    is_convolution,
    spatial_sizes,
    training_obstacle,
)

__all__ = [
    "AffineMap",
    "Axis",
    "Convolution",
    "FullyConnected",
    "Obstacle",
    "Sizes",
    "Types",
    "add",
    "added_weights",
    "as_operands",
    "average",
    "common_axis",
    "compose",
    "compose_maps",
    "composed_axis",
    "composed_weights",
    "composition_inside",
    "composition_obstacle",
    "convolution_of",
    "element_of",
    "fits",
    "fully_connected",
    "identity",
    "is_convolution",
    "on_axes",
    "per_channel",
    "regrouped",
    "spatial_sizes",
    "spread",
    "training_obstacle",
]
