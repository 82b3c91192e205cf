"""Does ONNX Runtime fuse an activation into the operator before it?

Found by timing, as nn-Meter's fusion rule tester does (Zhang et al. 2021, "nn-Meter: towards
accurate latency prediction of deep-learning model inference on diverse edge devices"): two
operators are fused if T1 + T2 - T12 > α · min(T1, T2) with α = 0.5. Beside it, what the optimised
graph says.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import median

import onnx

from actcc.backends.measure import Limits, median_interval, sample_blocks
from actcc.backends.onnx_layers import fused_operators
from actcc.backends.onnx_session import (
    Settings,
    bound_run,
    host_values,
    open_session,
)
from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.runtime import random_feeds, session_source

# Two operators count as fused if together they save this share of the cheaper one (nn-Meter's α).
_SAVED_SHARE = 0.5
_MOST_ROUNDS = 400


@dataclass(frozen=True)
class FusionProbe:
    """What timing two operators apart and together says; without the cost of calling the runtime.

    Attributes:
        producer_ns: of the first operator by itself.
        activation_ns: of the second operator by itself.
        together_ns: of both as one graph.
        saved_ns: the first two less the third.
        noise_ns: half width of the interval in which `saved_ns` lies.
        fused: saved beyond the noise, and more than half of what the cheaper operator costs.
        operators: what the runtime runs for both together; "Conv+Relu" is one operator.
    """

    producer_ns: float
    activation_ns: float
    together_ns: float
    saved_ns: float
    noise_ns: float
    fused: bool
    operators: tuple[str, ...]


def probe_fusion(
    producer: Graph,
    activation: Graph,
    settings: Settings | None = None,
    *,
    time_limit_s: float = 1.0,
) -> FusionProbe:
    """Time `producer`, `activation` and the two joined, interleaved.

    Args:
        producer: one output.
        activation: one input, of the type of that output; the same opset.

    Raises:
        ModelError: the two do not fit together, or the runtime cannot run them.
    """
    chosen = settings or Settings()
    together = join(producer, activation)
    graphs = [_nothing(producer.opset), producer, activation, together]
    with contextlib.ExitStack() as files:
        runs = [
            bound_run(
                open_session(files.enter_context(session_source(graph)), chosen),
                host_values(random_feeds(graph, 0)),
            )
            for graph in graphs
        ]
        limits = Limits(time_limit_s, precision=0.0, max_rounds=_MOST_ROUNDS)
        samples = sample_blocks(lambda block: runs, limits, blocks=1, clocks=chosen.clocks)
    rounds = [
        (one - call, two - call, both - call) for call, one, two, both in zip(*samples, strict=True)
    ]
    one_ns, two_ns, both_ns = (median(column) for column in zip(*rounds, strict=True))
    saved, noise = median_interval([one + two - both for one, two, both in rounds])
    return FusionProbe(
        producer_ns=one_ns,
        activation_ns=two_ns,
        together_ns=both_ns,
        saved_ns=saved,
        noise_ns=noise,
        fused=saved - noise > 0 and saved > _SAVED_SHARE * min(one_ns, two_ns),
        operators=tuple(fused_operators(together, chosen)),
    )


def join(producer: Graph, activation: Graph) -> Graph:
    """Both as one graph.

    Raises:
        ModelError: not one output and one input, or different opsets or types.
    """
    if len(producer.outputs) != 1 or len(activation.inputs) != 1:
        raise ModelError(
            "a fusion probe joins one output to one input; "
            f"the producer has {len(producer.outputs)}, the activation {len(activation.inputs)}"
        )
    first, second = producer.to_proto(), activation.to_proto()
    first.ir_version = second.ir_version = max(first.ir_version, second.ir_version)
    wiring = [(first.graph.output[0].name, second.graph.input[0].name)]
    try:
        joined = onnx.compose.merge_models(
            first, second, io_map=wiring, prefix1="producer/", prefix2="activation/"
        )
    except (ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the two graphs of a fusion probe do not fit together: {reason}"
        ) from error
    return Graph.load(joined)


def _nothing(opset: int) -> Graph:
    """The smallest graph: its time is the cost of a call."""
    scalar = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "nothing", [scalar], [result])
    imports = [onnx.helper.make_opsetid("", opset)]
    return Graph.load(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8))
