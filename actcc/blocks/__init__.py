"""Blocks of a network, by their structure."""

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import Gate, find_gates
from actcc.blocks.kinds import Block, LayerShape, find_blocks, layer_shape, residual_of

__all__ = [
    "Block",
    "Chain",
    "Gate",
    "LayerShape",
    "Link",
    "find_blocks",
    "find_chains",
    "find_gates",
    "layer_shape",
    "residual_of",
]
