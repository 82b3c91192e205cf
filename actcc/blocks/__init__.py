"""Blocks of a network, by their structure."""

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import Gate, find_gates
from actcc.blocks.kinds import Block, find_blocks, residual_of

__all__ = [
    "Block",
    "Chain",
    "Gate",
    "Link",
    "find_blocks",
    "find_chains",
    "find_gates",
    "residual_of",
]
