"""The algebra of linear layers: read from nodes, composed, added, written back."""

from actcc.linear.addition import add, added_weights, common_axis
from actcc.linear.batch_norm import statistics_as_scale, training_obstacle
from actcc.linear.branches import (
    LARGER,
    Branch,
    branch_convolution,
    branch_weights,
    is_sum,
    is_whole_sum,
    parallel_branches,
    terms_of,
)
from actcc.linear.composition import (
    compose,
    composed_axis,
    composed_weights,
    composition_inside,
    composition_obstacle,
    largest_composed,
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
from actcc.linear.folding import fold_batch_norm, without_batch_norms
from actcc.linear.linear_layer import only_read_by
from actcc.linear.low_rank import MOST_DIRECTIONS, factors
from actcc.linear.matrix import (
    AffineMap,
    FullyConnected,
    compose_maps,
    fully_connected,
    largest_composed_map,
)
from actcc.linear.reading import (
    Types,
    as_operands,
    convolution_of,
    element_of,
    fits,
    is_convolution,
    spatial_sizes,
    types_in_every_run,
)
from actcc.linear.resizing import (
    fixed_channels,
    is_resize,
    resize_arguments,
    resize_obstacle,
)

__all__ = [
    "LARGER",
    "MOST_DIRECTIONS",
    "AffineMap",
    "Axis",
    "Branch",
    "Convolution",
    "FullyConnected",
    "Obstacle",
    "Sizes",
    "Types",
    "add",
    "added_weights",
    "as_operands",
    "average",
    "branch_convolution",
    "branch_weights",
    "common_axis",
    "compose",
    "compose_maps",
    "composed_axis",
    "composed_weights",
    "composition_inside",
    "composition_obstacle",
    "convolution_of",
    "element_of",
    "factors",
    "fits",
    "fixed_channels",
    "fold_batch_norm",
    "fully_connected",
    "identity",
    "is_convolution",
    "is_resize",
    "is_sum",
    "is_whole_sum",
    "largest_composed",
    "largest_composed_map",
    "on_axes",
    "only_read_by",
    "parallel_branches",
    "per_channel",
    "regrouped",
    "resize_arguments",
    "resize_obstacle",
    "spatial_sizes",
    "spread",
    "statistics_as_scale",
    "terms_of",
    "training_obstacle",
    "types_in_every_run",
    "without_batch_norms",
]
