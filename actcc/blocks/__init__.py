"""Blocks of a network, by their structure."""

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import Gate, find_gates
from actcc.blocks.kinds import Block, LayerShape, find_blocks, layer_shape, residual_of
from actcc.blocks.units import InnerUnits, find_inner_units

__all__ = [
    "Block",
    "Chain",
    "Gate",
    "InnerUnits",
    "LayerShape",
    "Link",
    "find_blocks",
    "find_chains",
    "find_gates",
    "find_inner_units",
    "layer_shape",
    "residual_of",
]
