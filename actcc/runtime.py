"""ONNX Runtime sessions: the one place where actcc runs a model on the host.

onnxruntime is imported on use, so that `actcc --help` stays fast.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actcc.errors import ModelError, PricingError, TargetError
from actcc.graph import Array, Graph, static_types
from actcc.graph.files import EXTERNAL_DATA_THRESHOLD, weight_bytes, write_model

# ORT_LOGGING_LEVEL_FATAL: errors come as exceptions and are said once, in one line.
_FATAL_ONLY = 4
_LONGEST_REASON = 300


def session(
    model: Graph | Path | onnx.ModelProto,
    *,
    threads: int = 1,
    optimise: bool = True,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    external_threshold: int = EXTERNAL_DATA_THRESHOLD,
) -> Any:
    """An `onnxruntime.InferenceSession` that executes its nodes one after another.

    Idle threads stop spinning when a run ends, so that sessions timed in turn do not disturb each
    other.

    Args:
        model: a proto is left as it is.
        threads: intra-operator threads.
        optimise: the runtime's full graph optimisation, or none at all.
        providers: execution providers in order of preference; all must be installed.
        external_threshold: bytes of weights above which the model is handed over as a file.

    Raises:
        ModelError: the runtime cannot load the model.
        TargetError: a provider is not part of the installed onnxruntime.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise TargetError(
            f"the installed onnxruntime has no execution provider '{missing[0]}'; "
            f"it has: {', '.join(available)}"
        )
    ort.set_default_logger_severity(_FATAL_ONLY)  # what fails before a session has its own
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def create(source: str | bytes) -> Any:
        try:
            # Without fallback: a provider that fails to start must not turn into the CPU.
            return ort.InferenceSession(
                source, options, providers=list(providers), enable_fallback=0
            )
        except Exception as error:  # the runtime raises a dozen unrelated types
            raise ModelError(
                f"ONNX Runtime cannot load the model ({one_line(error)}); "
                "check that it runs in ONNX Runtime before optimising it"
            ) from error

    if isinstance(model, Path):
        return create(str(model))
    proto = model.to_proto() if isinstance(model, Graph) else model
    if weight_bytes(proto) <= external_threshold:
        return create(proto.SerializeToString())
    with tempfile.TemporaryDirectory(prefix="actcc-session-") as folder:
        path = Path(folder) / "model.onnx"
        owned = proto if isinstance(model, Graph) else Graph.load(proto).to_proto()
        write_model(owned, path, external=True)
        del owned, proto
        return create(str(path))


def run(session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of one run, by name, in the model's order.

    Raises:
        ModelError: the runtime refuses the feeds or fails while running.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, dict(feeds))
    except Exception as error:  # the runtime raises a dozen unrelated types
        raise ModelError(
            f"ONNX Runtime cannot run the model ({one_line(error)}); "
            "check the shapes and types that are fed"
        ) from error
    return dict(zip(names, values, strict=True))


def random_feeds(graph: Graph, seed: int) -> dict[str, Array]:
    """Random values for every input, to compare two models with; never calibration data.

    Floats are standard normal, wide integers 0 or 1 (they may be indices or lengths), bytes span
    their whole range. Shapes are those of the graph, with `--shape` applied.

    Raises:
        ModelError: an input has no static shape.
        PricingError: an input is no tensor of numbers, or too large for this machine.
    """
    generator = np.random.default_rng(seed)
    types = static_types(graph)
    feeds: dict[str, Array] = {}
    for tensor in graph.inputs:
        found = types.get(tensor.name)
        try:
            feeds[tensor.name] = _random_values(tensor.name, found, generator)
        except (MemoryError, ValueError) as error:  # NumPy's, of sizes that no array can have
            raise PricingError(
                f"input '{tensor.name}' is too large to make up values for ({error}); "
                "feed it: give samples with --calib"
            ) from error
    return feeds


def _random_values(name: str, found: Any, generator: np.random.Generator) -> Array:
    if found is None or found.shape is None or found.element in _NO_NUMBERS:
        raise PricingError(
            f"input '{name}' is no tensor of numbers with a known shape; feed it: give samples "
            "with --calib"
        )
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(found.element))
    if dtype == np.bool_:
        coins: Array = generator.integers(0, 2, found.shape).astype(dtype)
        return coins
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        low, high = (int(bounds.min), int(bounds.max)) if dtype.itemsize == 1 else (0, 1)
        numbers: Array = generator.integers(low, high, found.shape, dtype=dtype, endpoint=True)
        return numbers
    floats: Array = np.asarray(generator.standard_normal(found.shape)).astype(dtype)
    return floats


_NO_NUMBERS = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)


def one_line(error: Exception) -> str:
    """The error's message in one line of bearable length.

    Of an error inside subgraphs, which names every node around it, the innermost.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    _, inside, innermost = text.rpartition("returned while running ")
    return (f"in {innermost}" if inside else text)[:_LONGEST_REASON]
