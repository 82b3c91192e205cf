"""The graph: loading, asking, editing, checking and saving a model."""

from actcc.graph.extract import ancestors, extract, static_types, structure_hash
from actcc.graph.fingerprint import content_hash
from actcc.graph.graph import Graph, Operand
from actcc.graph.shapes import Shape, TensorType
from actcc.graph.verifier import Interface, verify
from actcc.graph.view import Array, Node, Tensor

__all__ = [
    "Array",
    "Graph",
    "Interface",
    "Node",
    "Operand",
    "Shape",
    "Tensor",
    "TensorType",
    "ancestors",
    "content_hash",
    "extract",
    "static_types",
    "structure_hash",
    "verify",
]
