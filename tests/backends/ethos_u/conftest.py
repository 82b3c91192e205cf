"""Running a lowered network beside the ONNX model that it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from actcc.calibration import Sample
from actcc.graph import Array, Graph
from actcc.quantization import Range
from actcc.runtime import random_feeds, run, session


@dataclass(frozen=True)
class Int8Run:
    """What an int8 network computes against what ONNX Runtime computes.

    Attributes:
        errors: largest difference by output, as a share of the range of its values.
        operators: how often each TFLite operator is in the network.
    """

    errors: Mapping[str, float]
    operators: Counter[str]

    @property
    def worst(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values())


Lowered = Callable[..., Int8Run]


@pytest.fixture
def run_int8() -> Lowered:
    """Lower a model with the ranges of random samples, and run both on one of them."""
    pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    pytest.importorskip("ai_edge_litert", reason="needs the extra 'test'")
    return _run_int8


def _run_int8(
    model: onnx.ModelProto | Graph,
    feeds: Sequence[Mapping[str, Array]] | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> Int8Run:
    from actcc.backends.ethos_u.flatbuffer import write_flatbuffer
    from actcc.backends.ethos_u.lowering import lower
    from actcc.quantization import observed

    graph = model if isinstance(model, Graph) else Graph.load(model)
    samples = feeds or [random_feeds(graph, seed) for seed in range(2)]
    named = [Sample(f"#{index}", dict(feeds), {}) for index, feeds in enumerate(samples)]
    if ranges is None:  # the largest error is asked for, so that nothing may be cut off
        ranges = {name: found.extremes for name, found in observed(graph, named).items()}
    network = lower(graph, ranges)
    stored: list[Array] = []
    exact: dict[str, Array] = {}
    for tensor, index in zip(graph.inputs, network.inputs, strict=True):
        order = network.orders[tensor.name]
        quantization = network.tensors[index].quantization
        assert quantization is not None
        values = quantization.quantize(samples[0][tensor.name].transpose(order))
        stored.append(values)
        # ONNX Runtime sees what int8 can say of the input: its rounding is no error of ours.
        exact[tensor.name] = quantization.dequantize(values).transpose(np.argsort(order))
    wanted = run(session(graph), exact)
    found = _litert(write_flatbuffer(network), network.inputs, stored, network.outputs)
    errors: dict[str, float] = {}
    for tensor, index, values in zip(graph.outputs, network.outputs, found, strict=True):
        quantization = network.tensors[index].quantization
        assert quantization is not None
        order = network.orders[tensor.name]
        real = quantization.dequantize(values).transpose(np.argsort(order))
        assert real.shape == wanted[tensor.name].shape
        reached = np.append(wanted[tensor.name], 0.0) if real.size == 1 else wanted[tensor.name]
        spread = max(float(np.ptp(reached)), 1e-6)
        errors[tensor.name] = float(np.abs(real - wanted[tensor.name]).max()) / spread
    return Int8Run(errors, Counter(operator.code for operator in network.operators))


def _litert(
    model: bytes, inputs: Sequence[int], values: Sequence[Array], outputs: Sequence[int]
) -> list[Array]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # The delegate for CPUs rounds in its own way.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for index, stored in zip(inputs, values, strict=True):
        interpreter.set_tensor(index, stored)
    interpreter.invoke()
    return [interpreter.get_tensor(index) for index in outputs]
