"""The built-in passes: one rewrite a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.passes.collapse_matrix_products import CollapseMatrixProducts
from actcc.passes.drop_activation import DropActivation
from actcc.passes.fold_batch_norm import FoldBatchNorm
from actcc.passes.fold_constants import FoldConstants
from actcc.passes.freeze_initializers import FreezeInitializers
from actcc.passes.inline_functions import InlineFunctions
from actcc.passes.merge_convolutions import MergeConvolutions
from actcc.passes.merge_matrix_products import MergeMatrixProducts
from actcc.passes.merge_parallel_convolutions import MergeParallelConvolutions
from actcc.passes.move_activation import MoveActivation
from actcc.passes.prune_branch import PruneBranch
from actcc.passes.remove_identity import RemoveIdentity
from actcc.passes.remove_squeeze_excite import RemoveSqueezeExcite
from actcc.passes.simplify import Simplify
from actcc.passes.swap_activation import SwapActivation

if TYPE_CHECKING:
    from actcc.pass_api import NormalizingPass, Pass

BUILT_IN: tuple[type[Pass], ...] = (
    SwapActivation,
    MoveActivation,
    DropActivation,
    MergeConvolutions,
    MergeMatrixProducts,
    CollapseConvolutions,
    CollapseMatrixProducts,
    RemoveSqueezeExcite,
    PruneBranch,
)

# In running order: frozen weights let the others work; folding wants short ways between layers, and
# sums merged before it, so that it finds a layer before the BatchNormalization behind a sum.
NORMALIZING: tuple[type[NormalizingPass], ...] = (
    FreezeInitializers,
    InlineFunctions,
    Simplify,
    FoldConstants,
    RemoveIdentity,
    MergeParallelConvolutions,
    FoldBatchNorm,
)
