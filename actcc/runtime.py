"""ONNX Runtime sessions, in which actcc runs models on the host.

onnxruntime is imported on use, so that `actcc --help` stays fast.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from actcc.errors import ModelError, PricingError, TargetError
from actcc.graph import Array, Graph, static_types
from actcc.graph.files import EXTERNAL_DATA_THRESHOLD, weight_bytes, write_model

OptimisationLevel: TypeAlias = Literal["disabled", "basic", "extended", "all"]
SessionSource: TypeAlias = bytes | str
"""A serialized model, or the path of a file."""
ModelRun: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]
"""From a model's inputs by name to all its outputs, in its order; raises ModelError."""

# ORT_LOGGING_LEVEL_FATAL: errors come as exceptions and are said once, in one line.
_FATAL_ONLY = 4
_LONGEST_REASON = 300


def onnx_runtime() -> Any:
    """The module onnxruntime, imported when it is first asked for.

    Since 1.29 it reports on every run to its vendor when it is imported, and leaves a file `.ses`
    in the temporary folder, unless the environment says ORT_DISABLE_TELEMETRY=1. It does here; who
    wants the reports sets that to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def session(
    model: Graph | Path | onnx.ModelProto,
    *,
    threads: int = 1,
    optimise: bool = True,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    external_threshold: int = EXTERNAL_DATA_THRESHOLD,
) -> Any:
    """An `onnxruntime.InferenceSession` that executes its nodes one after another.

    Args:
        model: a proto is left as it is.
        threads: intra-operator threads.
        optimise: the runtime's full graph optimisation, or none at all.
        providers: execution providers in order of preference; all must be installed.
        external_threshold: bytes of weights above which the model is handed over as a file.

    Raises:
        ModelError: the runtime cannot load the model.
        TargetError: a provider is not part of the installed onnxruntime, or does not start.
    """
    options = session_options(threads, "all" if optimise else "disabled")
    with session_source(model, external_threshold) as source:
        return create_session(source, options, [(name, {}) for name in providers])


def session_options(threads: int, level: OptimisationLevel) -> Any:
    """`onnxruntime.SessionOptions` of a session that executes its nodes one after another.

    Idle threads stop spinning when a run ends, so that sessions timed in turn do not disturb each
    other.

    Args:
        threads: intra-operator threads.
        level: of the runtime's graph optimisation.
    """
    ort = onnx_runtime()
    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = {
        "disabled": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[level]
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@contextlib.contextmanager
def session_source(
    model: Graph | Path | onnx.ModelProto, external_threshold: int = EXTERNAL_DATA_THRESHOLD
) -> Iterator[SessionSource]:
    """A model in the form that sessions are made from: its bytes, or, if very large, a file.

    Args:
        model: a proto is left as it is.
        external_threshold: bytes of weights above which the model is handed over as a file.
    """
    if isinstance(model, Path):
        yield str(model)
        return
    proto = model.to_proto() if isinstance(model, Graph) else model
    if weight_bytes(proto) <= external_threshold:
        yield proto.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="actcc-session-") as folder:
        path = Path(folder) / "model.onnx"
        owned = proto if isinstance(model, Graph) else Graph.load(proto).to_proto()
        write_model(owned, path, external=True)
        del owned, proto
        yield str(path)


def create_session(
    source: SessionSource, options: Any, providers: Sequence[tuple[str, Mapping[str, str]]]
) -> Any:
    """An `onnxruntime.InferenceSession`.

    Args:
        options: from `session_options`.
        providers: execution providers with their options, in order of preference.

    Raises:
        ModelError: the runtime cannot load the model.
        TargetError: a provider is not part of the installed onnxruntime, or does not start.
    """
    ort = onnx_runtime()
    available = ort.get_available_providers()
    for name, _ in providers:
        if name not in available:
            raise TargetError(
                f"the installed onnxruntime has no execution provider '{name}'; "
                f"it has: {', '.join(available)}"
            )
    ort.set_default_logger_severity(_FATAL_ONLY)  # what fails before a session has its own
    chosen = [(name, dict(settings)) for name, settings in providers]
    try:
        # Without fallback: a provider that fails to start must not turn into the CPU.
        made = ort.InferenceSession(source, options, providers=chosen, enable_fallback=0)
    except Exception as error:  # the runtime raises a dozen unrelated types
        raise ModelError(
            f"ONNX Runtime cannot load the model ({one_line(error)}); "
            f"see whether it runs in ONNX Runtime {ort.__version__} by itself"
        ) from error
    started = made.get_providers()
    for name, _ in providers:
        if name not in started:
            raise TargetError(
                f"the execution provider '{name}' does not start on this machine; "
                "check its driver and libraries, or name another in the target profile"
            )
    return made


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


def open_model(model: Graph | Path) -> ModelRun:
    """A model in ONNX Runtime, on one thread of the CPU.

    Raises:
        ModelError: the runtime cannot load the model.
    """
    return partial(run, session(model))


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
