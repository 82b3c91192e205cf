"""The graph: loading, asking, editing, checking and saving a model."""

from actcc.graph.extract import content_hash, extract, static_types, structure_hash
from actcc.graph.graph import Array, Graph, Node, Operand, Tensor
from actcc.graph.shapes import Shape, TensorType
from actcc.graph.verifier import Interface, verify

__all__ = [
    "Array",
    "Graph",
    "Interface",
    "Node",
    "Operand",
    "Shape",
    "Tensor",
    "TensorType",
    "content_hash",
    "extract",
    "static_types",
    "structure_hash",
    "verify",
]
