"""onnx-simplifier: folds constants, shapes and redundant nodes that exporters leave behind.

It runs in a process of its own, under a time limit, because it can crash, hang or be killed for
memory; then the model goes on without it. What it returns is taken only if it is valid ONNX with
the same opsets and grew by at most a tenth (64 KiB for small models). Declared inputs
and outputs, metadata and doc strings, which it alters, are restored.

Batch normalization is left to `fold-batch-norm`, which computes in double precision. Products with
a constant are left where they are: the last one of an activation, such as the half in GELU, would
go into the weights behind it, and what remains is no activation any more.

Requires: no initializer is listed as an input (it would be baked in), and a model small enough for
one protobuf message.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from actcc.graph import Graph
from actcc.graph.files import EXTERNAL_DATA_THRESHOLD
from actcc.pass_api import NormalizingPass

_LEAST_GROWTH = 64 * 1024
# onnxsim imports PyTorch where it is installed: two seconds for functions that are not called here.
_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"
_SCRIPT = """
import sys, onnx, onnxsim
source, result, largest = sys.argv[1:]
model, _ = onnxsim.simplify(
    onnx.load(source),
    check_n=0,
    skip_fuse_bn=True,
    skipped_optimizers=["fuse_preceding_mul_into_conv", "fuse_consecutive_mul"],
    tensor_size_threshold=largest,
)
onnx.save(model, result)
"""


class Simplify(NormalizingPass):
    """The model as onnx-simplifier returns it, or as it was."""

    name = "simplify"

    def __init__(self, time_limit_s: float = 120.0, script: str = _SCRIPT) -> None:
        self._time_limit_s = time_limit_s
        self._script = script

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The simplified graph and what went, or the graph itself and why."""
        if graph.overridable:
            return graph, ["left out: initializers are listed as inputs and would be baked in"]
        size = graph.frame().ByteSize() + graph.weight_bytes  # the frame may hold Constant nodes
        if size > EXTERNAL_DATA_THRESHOLD:
            return graph, ["left out: the model is too large for one protobuf message"]
        model = graph.to_proto()
        allowed = max(size // 10, _LEAST_GROWTH)
        simplified = self._simplify(model, allowed)
        if isinstance(simplified, str):
            return graph, [f"went on without onnx-simplifier: {simplified}"]
        problem = _problem(model, simplified, allowed)
        if problem:
            return graph, [f"went on without onnx-simplifier: {problem}"]
        notes = _changes(model, simplified)
        if not notes:
            return graph, []
        _restore(model, simplified)
        return graph.rebuilt(simplified), notes

    def _simplify(self, model: onnx.ModelProto, largest_constant: int) -> onnx.ModelProto | str:
        """The simplified model, or why there is none."""
        with tempfile.TemporaryDirectory(prefix="actcc-simplify-") as folder:
            source, result = Path(folder) / "source.onnx", Path(folder) / "result.onnx"
            source.write_bytes(model.SerializeToString())
            largest = f"{largest_constant // 1024}KB"
            script = _WITHOUT_TORCH + self._script
            command = [sys.executable, "-c", script, str(source), str(result), largest]
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    timeout=self._time_limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return f"it took longer than {self._time_limit_s:g} s"
            except OSError as error:
                return f"it could not be started ({error.strerror})"
            if done.returncode < 0:
                return f"it crashed ({_signal_name(-done.returncode)})"
            if done.returncode or not result.is_file():
                lines = done.stderr.decode(errors="replace").strip().splitlines()
                return f"it failed ({lines[-1][:200] if lines else 'no message'})"
            try:
                return onnx.load(result)
            except (DecodeError, ValueError) as error:
                return f"its result cannot be read ({error})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _problem(model: onnx.ModelProto, simplified: onnx.ModelProto, allowed: int) -> str:
    """Why the simplified model cannot be taken; empty where it can."""
    if {(e.domain, e.version) for e in model.opset_import} != {
        (e.domain, e.version) for e in simplified.opset_import
    }:
        return "it changed the opset"
    grown = simplified.ByteSize() - model.ByteSize()
    if grown > allowed:
        return f"the model grew by {grown} bytes"
    try:
        onnx.checker.check_model(simplified)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        return f"its result is not valid ({reason})"
    return ""


def _changes(model: onnx.ModelProto, simplified: onnx.ModelProto) -> list[str]:
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (model, simplified))
    gone, new = before - after, after - before
    notes = []
    if gone:
        notes.append("removed " + ", ".join(f"{n} {op}" for op, n in sorted(gone.items())))
    if new:
        notes.append("added " + ", ".join(f"{n} {op}" for op, n in sorted(new.items())))
    return notes


def _restore(model: onnx.ModelProto, simplified: onnx.ModelProto) -> None:
    """Put back what onnx-simplifier drops or adds and no run depends on."""
    graph, original = simplified.graph, model.graph
    simplified.ir_version = model.ir_version
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    tensors = {name for node in graph.node for name in node.output}
    del graph.value_info[:], graph.input[:], graph.output[:]
    graph.value_info.extend(info for info in original.value_info if info.name in tensors)
    graph.input.extend(original.input)
    graph.output.extend(original.output)
    nodes = {node.name: node for node in original.node if node.name}
    for node in graph.node:
        before = nodes.get(node.name)
        if before is not None and before.op_type == node.op_type:
            node.doc_string = before.doc_string
            del node.metadata_props[:]
            node.metadata_props.extend(before.metadata_props)
