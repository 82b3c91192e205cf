"""Networks run segment by segment, compared with one session."""

from __future__ import annotations

import networks
import numpy as np
import onnx
from onnx import numpy_helper

from actcc.graph import Graph
from actcc.repair.execution import Execution, TensorStore
from actcc.runtime import run, session

SAMPLES = 3


def feeds(count=SAMPLES, size=16):
    return [{"images": image[None]} for image in networks.images(count, size)]


def model(text, opset=17, **weights):
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    parsed.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    for index, node in enumerate(parsed.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return parsed


def check_segments(parsed, samples, pool, limit=1 << 20, segments=None):
    """Tensors reached one after the other are what one session of the whole network writes."""
    graph = Graph.load(parsed)
    names = [tensor.name for node in graph.nodes() for tensor in node.outputs if tensor.name]
    names = [name for name in names if name in graph.types]
    whole = onnx.ModelProto()
    whole.CopyFrom(graph.to_proto())
    have = {output.name for output in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have)
    runner = session(whole, optimise=False)
    with TensorStore(limit) as store:
        network = Execution(graph, samples, store, pool)
        network.want(names)
        for name in names:
            network.reach([name])
            for index, sample in enumerate(samples):
                expected = run(runner, sample)[name]
                found = network.values(name, index)
                assert found.dtype == expected.dtype
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
            network.release(name)
            assert store.bytes <= limit
        assert store.most_bytes <= limit
        assert store.bytes == 0
        assert network.runs == (len(names) if segments is None else segments)
        return store
