"""The identity of a model: a digest of each of its parts, and of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx
from google.protobuf.message import Message

from actcc.graph.graph import Graph

_SHOWN_DIGITS = 12


def model_parts(graph: Graph) -> dict[str, str]:
    """What a model is made of: operator sets, functions, inputs, outputs, nodes, weights, by name.

    Returns:
        In the model's order, e.g. "node Conv_0": "Conv 1f0c…" and "weight w": "float32 [8, 3] 9a…".
    """
    model = graph.to_proto()
    parts = {"opsets": ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in sorted(graph.opsets.items()))}
    for function in model.functions:
        parts[f"function {function.domain}.{function.name}"] = _digest(_bytes(function))
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            parts[f"{kind} {value.name}"] = _type(value.type)
    for node in model.graph.node:
        parts[f"node {node.name}"] = f"{node.op_type} {_digest(_bytes(node))}"
    for tensor in model.graph.initializer:
        raw = tensor.raw_data if tensor.HasField("raw_data") else _bytes(tensor)
        element = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        parts[f"weight {tensor.name}"] = f"{element} {list(tensor.dims)} {_digest(raw)}"
    for sparse in model.graph.sparse_initializer:
        parts[f"weight {sparse.values.name}"] = f"sparse {_digest(_bytes(sparse))}"
    return parts


def content_hash(graph: Graph) -> str:
    """SHA-256 over all parts of a model: its identity, however its file is laid out."""
    return hash_of_parts(model_parts(graph))


def hash_of_parts(parts: Mapping[str, str]) -> str:
    """SHA-256 over what `model_parts` returns."""
    text = "\n".join(f"{name}\t{value}" for name, value in parts.items())
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def first_difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The first part in which two models differ, in a sentence; empty if they are equal."""
    for name, value in expected.items():
        if name not in found:
            return f"it has no {name} ({_short(value)})"
        if found[name] != value:
            return f"{name} is {_short(found[name])} and not {_short(value)}"
    added = next((name for name in found if name not in expected), None)
    if added is not None:
        return f"it has {added} ({_short(found[added])}) besides"
    return "" if list(expected) == list(found) else "its parts are in another order"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(value: str) -> str:
    """A part's value with the first digits of its digest, which are enough to be told apart."""
    words = value.rsplit(" ", 1)
    if len(words[-1]) == hashlib.sha256().digest_size * 2:
        words[-1] = words[-1][:_SHOWN_DIGITS]
    return " ".join(words)


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _type(found: onnx.TypeProto) -> str:
    if not found.HasField("tensor_type"):
        return f"{found.WhichOneof('value')} {_digest(_bytes(found))}"
    element = onnx.TensorProto.DataType.Name(found.tensor_type.elem_type).lower()
    if not found.tensor_type.HasField("shape"):
        return f"{element} of any shape"
    dimensions = [
        d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?")
        for d in found.tensor_type.shape.dim
    ]
    return f"{element} [{', '.join(dimensions)}]"
