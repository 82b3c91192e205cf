"""The built-in passes: one rewrite a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actcc.passes.cancel_transposes import CancelTransposes
from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.passes.collapse_matrix_products import CollapseMatrixProducts
from actcc.passes.compress_weights import CompressWeights
from actcc.passes.convolve_before_resize import ConvolveBeforeResize
from actcc.passes.drop_activation import DropActivation
from actcc.passes.factorize_layers import FactorizeLayers
from actcc.passes.fold_batch_norm import FoldBatchNorm
from actcc.passes.fold_clip_into_quantize import FoldClipIntoQuantize
from actcc.passes.fold_constants import FoldConstants
from actcc.passes.fold_padding import FoldPadding
from actcc.passes.fold_scale_and_shift import FoldScaleAndShift
from actcc.passes.freeze_initializers import FreezeInitializers
from actcc.passes.inline_functions import InlineFunctions
from actcc.passes.linear_bottleneck import LinearBottleneck
from actcc.passes.merge_convolutions import MergeConvolutions
from actcc.passes.merge_equal_nodes import MergeEqualNodes
from actcc.passes.merge_matrix_products import MergeMatrixProducts
from actcc.passes.merge_parallel_convolutions import MergeParallelConvolutions
from actcc.passes.move_activation import MoveActivation
from actcc.passes.narrow_blocks import NarrowBlocks
from actcc.passes.pooling_chain import PoolingChain
from actcc.passes.prune_branch import PruneBranch
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.remove_identity import RemoveIdentity
from actcc.passes.remove_squeeze_excite import RemoveSqueezeExcite
from actcc.passes.simplify import Simplify
from actcc.passes.simplify_activations import SimplifyActivations
from actcc.passes.space_to_depth_stem import SpaceToDepthStem
from actcc.passes.swap_activation import SwapActivation
from actcc.passes.swap_quantized_activation import SwapQuantizedActivation
from actcc.passes.transpose_before_join import TransposeBeforeJoin

if TYPE_CHECKING:
    from actcc.pass_api import NormalizingPass, Pass

BUILT_IN: tuple[type[Pass], ...] = (
    SwapActivation,
    SwapQuantizedActivation,
    MoveActivation,
    DropActivation,
    SpaceToDepthStem,
    PoolingChain,
    ConvolveBeforeResize,
    TransposeBeforeJoin,
    MergeConvolutions,
    MergeMatrixProducts,
    CollapseConvolutions,
    CollapseMatrixProducts,
    FactorizeLayers,
    NarrowBlocks,
    LinearBottleneck,
    RemoveSqueezeExcite,
    PruneBranch,
    QuantizeLayers,
    CompressWeights,
)

# In running order: frozen weights let the others work, and folding wants short ways between layers.
# Equal branches go before a fold gives each of them weights of its own, and sums of branches before
# the fold, so that it finds a layer before the BatchNormalization behind a sum. Padding goes before
# scale and shift, which ask whether a convolution pads; activations that change nothing go before
# both, so that it is seen which constants belong to one.
NORMALIZING: tuple[type[NormalizingPass], ...] = (
    FreezeInitializers,
    InlineFunctions,
    Simplify,
    FoldConstants,
    RemoveIdentity,
    CancelTransposes,
    MergeEqualNodes,
    SimplifyActivations,
    FoldClipIntoQuantize,
    FoldPadding,
    MergeParallelConvolutions,
    FoldBatchNorm,
    FoldScaleAndShift,
)
