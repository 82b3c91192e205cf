"""Accuracy without training: fidelity, the user's metric, and estimates for one site at a time."""
