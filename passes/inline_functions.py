"""Calls of functions that the model defines become the functions' own nodes.

    y = local.silu(x)  →  s = Sigmoid(x); y = Mul(x, s)

Exporters write modules as functions (`torch.onnx.export` with dynamo, onnxscript), and no rewrite
looks into them; a runtime inlines them anyway when it loads the model. Calls inside subgraphs and
functions are inlined as well (onnx.inliner). The body of a function that was written for another
version of the ONNX operators is converted to the model's, where onnx.version_converter can.

Left as they are: calls of functions that cannot be converted.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import inliner

from actcc.graph import Graph
from actcc.pass_api import NormalizingPass


class InlineFunctions(NormalizingPass):
    """Call of a function that the model defines  →  the function's nodes."""

    name = "inline-functions"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph without its functions, and how many calls were inlined."""
        if not graph.functions:
            return graph, []
        frame = graph.frame()  # without weights, which no function holds
        inlined = _inlined(frame)
        left = _calls(inlined)
        gone = _calls(frame) - left
        notes = []
        if gone:
            notes.append(f"inlined {gone.total()} calls of {len(gone)} functions")
        notes += [
            f"{count} calls of '{name}' are left: it is written for another version of operators"
            for name, count in sorted(left.items())
        ]
        model = graph.to_proto()
        del model.graph.node[:], model.functions[:], model.opset_import[:]
        model.graph.node.extend(inlined.graph.node)
        model.functions.extend(inlined.functions)
        model.opset_import.extend(inlined.opset_import)
        return graph.rebuilt(model), notes


def _inlined(frame: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return inliner.inline_local_functions(frame, convert_version=True)
    except (RuntimeError, ValueError):  # no conversion between those versions
        return inliner.inline_local_functions(frame)


def _calls(model: onnx.ModelProto) -> Counter[str]:
    """Calls by name of function, in the main graph and the functions and subgraphs it reaches."""
    functions = {(found.domain, found.name, found.overload): found for found in model.functions}
    calls: Counter[str] = Counter()
    seen = set()
    waiting = list(model.graph.node)
    while waiting:
        node = waiting.pop()
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                waiting.extend(inner.node)
        key = node.domain, node.op_type, node.overload
        if key in functions:
            calls[node.op_type] += 1
            if key not in seen:
                seen.add(key)
                waiting.extend(functions[key].node)
    return calls
