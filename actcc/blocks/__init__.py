"""Blocks of a network, by their structure."""

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import Gate, find_gates

__all__ = ["Chain", "Gate", "Link", "find_chains", "find_gates"]
