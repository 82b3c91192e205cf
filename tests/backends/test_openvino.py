"""The OpenVINO backend, on graphs whose latencies differ by far more than any noise."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import residual_network

from actcc.accuracy.fidelity import Fidelity
from actcc.backends.measure import Measurement
from actcc.backends.measured import MeasuredBackend
from actcc.calibration import load_samples
from actcc.comparison import compare_models
from actcc.errors import ModelError, PricingError, TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile
from actcc.memory import peak_memory
from actcc.observation import OnnxFile, observe
from actcc.prices import Price, PriceQuery, Unpriced
from actcc.runtime import session_source
from actcc.targets import Target, load_target
from actcc.tasks import process_pool

openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")

from actcc.backends.openvino import OpenVinoBackend  # noqa: E402
from actcc.backends.openvino_model import OpenVinoSettings, compile_model, request_for, tool_text  # noqa: E402


def backend(**settings: Any) -> OpenVinoBackend:
    short = {"neighbourhood_seconds": 0.3, "model_seconds": 0.5, **settings}
    return OpenVinoBackend(Profile(name="mine", description="", backend="openvino", settings=short))


def activated(body: str, size: int = 128) -> Graph:
    """An activation z → y of a large tensor."""
    shape = f"float[1,32,{size},{size}]"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 14]> part ({shape} z) => ({shape} y) '
        f"<float third = {{0.33333333}}> {{ {body} }}"
    )
    return Graph.load(model)


def unloadable() -> Graph:
    model = activated("y = Relu(z)").to_proto()
    model.graph.node[0].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    return Graph.load(model)


# ---------------------------------------------------------------- settings


def test_the_built_in_target_is_this_backend_and_names_what_decides_a_latency() -> None:
    target = load_target("openvino-cpu")
    assert isinstance(target.backend, OpenVinoBackend)
    assert (target.backend.source, target.backend.cacheable) == ("measured", True)
    tools = [
        backend().tool,
        backend(threads=2).tool,
        backend(clock="wall").tool,
        backend(inference_precision="bf16").tool,
        backend(properties={"CPU_DENORMALS_OPTIMIZATION": True}).tool,
    ]
    assert len(set(tools)) == len(tools)
    assert tools[0].startswith("openvino 20")
    assert "CPU, f32, 1 thread, thread time, " in tools[0]


def test_without_the_package_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "openvino":
            raise ImportError("No module named 'openvino'")
        return found(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(TargetError, match=r"pip install 'actcc\[openvino\]'") as told:
        _ = load_target("openvino-cpu").backend
    assert "\n" not in str(told.value)


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(TargetError, match=r"no device 'NPU9' on this machine; it has: .*CPU"):
        backend(device="NPU9")


@pytest.mark.parametrize("device", ["GPU", "GPU.0", "GPU.1"])
def test_one_of_several_devices_is_named_as_openvino_lists_it(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = TwoProcessors()
    monkeypatch.setattr("actcc.backends.openvino_model.import_openvino", lambda: two)
    assert f"full name of {device}" in tool_text(OpenVinoSettings(device=device))
    with pytest.raises(TargetError, match=r"no device 'GPU\.2'.*GPU\.0, GPU\.1"):
        tool_text(OpenVinoSettings(device="GPU.2"))


class TwoProcessors:
    """OpenVINO on a machine with two graphics processors."""

    available_devices = ("CPU", "GPU.0", "GPU.1")

    def Core(self) -> TwoProcessors:  # noqa: N802 (OpenVINO's name)
        return self

    def get_version(self) -> str:
        return "1-2"

    def get_property(self, device: str, name: str) -> str:
        return f"full name of {device}"


@pytest.mark.parametrize("name", ["INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT"])
def test_a_property_that_another_setting_decides_is_refused(name: str) -> None:
    with pytest.raises(TargetError, match=f"'properties.{name}' is decided by 'threads'"):
        backend(properties={name: 2})


def test_a_setting_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(TargetError, match=r"target 'mine': 'settings\.inference_precision'"):
        backend(inference_precision="int3")


def test_processor_time_is_all_the_time_that_a_run_takes() -> None:
    """With one thread the work is done by the thread that asks, so that its clock is true."""
    graph = activated("a = Exp(z) b = Erf(a) y = Tanh(b)")
    mine = backend()
    with session_source(graph) as source:
        values = mine.values({"z": np.ones((1, 32, 128, 128), np.float32)})
        run = mine.prepare(mine.loaded(source, values))
        thread, process = time.thread_time_ns(), time.process_time_ns()
        for _ in range(50):
            run()
        thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
    assert thread == pytest.approx(process, rel=0.25)


# ---------------------------------------------------------------- prices


def test_candidates_are_ordered_as_openvino_runs_them() -> None:
    query = PriceQuery(
        activated("a = Exp(z) b = Erf(a) y = Tanh(b)"), {"Relu": activated("y = Relu(z)")}
    )
    prices = backend().price(query)
    keep, relu = prices["keep"], prices["Relu"]
    assert isinstance(keep, Price)
    assert isinstance(relu, Price)
    assert relu.difference_ns < -relu.noise_ns
    assert relu.latency_ns < keep.latency_ns
    assert (relu.source, relu.tool) == ("measured", backend().tool)


def test_a_candidate_that_cannot_be_loaded_is_unpriced_in_one_line() -> None:
    query = PriceQuery(activated("y = Elu(z)"), {"broken": unloadable()})
    broken = backend().price(query)["broken"]
    assert isinstance(broken, Unpriced)
    assert "nowhere.Relu" in broken.reason
    assert "\n" not in broken.reason
    assert "src/" not in broken.reason


def test_text_cannot_be_fed() -> None:
    with pytest.raises(PricingError, match="input 'x' is complex64, which OpenVINO cannot be fed"):
        backend().values({"x": np.zeros(3, np.complex64)})


# ---------------------------------------------------------------- whole models


def test_whole_models_are_timed_against_the_first_with_the_rules_of_memory() -> None:
    slow, fast = activated("a = Exp(z) b = Erf(a) y = Tanh(b)"), activated("y = Relu(z)")
    first, second = backend().time_models([slow, fast])
    assert (first.ratio, first.ratio_noise) == (1.0, 0.0)
    assert second.ratio + second.ratio_noise < 1.0
    assert second.peak_bytes == peak_memory(fast).peak_bytes


def test_a_symbolic_input_is_compiled_at_the_shape_that_was_given() -> None:
    model = activated("y = Relu(z)").to_proto()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with session_source(Graph.load(model)) as source:
        shapes = {"z": (2, 32, 128, 128)}
        compiled = compile_model(source, shapes, OpenVinoSettings())
        feeds = backend().values({"z": np.ones(shapes["z"], np.float32)})
        request = request_for(compiled, feeds)
    assert tuple(request.get_output_tensor(0).shape) == shapes["z"]


def test_the_outputs_are_those_of_onnx_runtime() -> None:
    from actcc.runtime import random_feeds, run, session

    graph = Graph.load(residual_network())
    feeds = random_feeds(graph, 0)
    expected = run(session(graph), feeds)
    with session_source(graph) as source:
        shapes = {name: array.shape for name, array in feeds.items()}
        request = request_for(
            compile_model(source, shapes, OpenVinoSettings()), backend().values(feeds)
        )
    for name, values in expected.items():
        found = request.get_tensor(name).data
        assert np.allclose(found, values, rtol=1e-4, atol=1e-4 * np.abs(values).max())


def test_layers_share_out_the_latency_under_the_names_of_the_models_nodes(
    recorded_measurements: Callable[[MeasuredBackend], list[Measurement]],
) -> None:
    graph = Graph.load(residual_network())
    mine = backend()
    measured = recorded_measurements(mine)
    rows = mine.layers(graph)
    assert sum(row.latency_ns for row in rows) == pytest.approx(measured[0].latency_ns)
    convolutions = {str(node.name) for node in graph.nodes("Conv")}
    found = {row.name for row in rows if row.op.startswith("Convolution ")}
    assert found
    assert found <= convolutions
    assert all("f32" in row.op for row in rows if row.name in convolutions)


def test_a_model_that_openvino_cannot_read_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"OpenVINO cannot load the model \(.*nowhere\.Relu") as e:
        backend().time_models([unloadable()])
    assert "\n" not in str(e.value)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2_qdq"])
def test_real_networks_in_floating_point_and_int8_are_timed_and_shared_out(
    shared: Path, name: str
) -> None:
    graph = Graph.load(shared / "models" / f"{name}.onnx")
    first, second = backend(model_seconds=1.0).time_models([graph, graph.copy()])
    assert abs(second.ratio - 1.0) < max(3 * second.ratio_noise, 0.05)
    assert first.peak_bytes == second.peak_bytes
    convolutions = {str(node.name) for node in graph.nodes("Conv")}
    rows = backend(model_seconds=0.2).layers(graph)
    assert convolutions == {row.name for row in rows if "Convolution " in row.op}


# ---------------------------------------------------------------- outputs


def joined_int8(path: Path) -> Path:
    """A convolution with int8 weights behind two int8 tensors that are joined as real numbers.

    OpenVINO 2026.4.1 is a quarter of the largest value off.
    """
    body = """
        qa = QuantizeLinear (x, scale_a, zero_a)  a = DequantizeLinear (qa, scale_a, zero_a)
        qb = QuantizeLinear (x, scale_b, zero_b)  b = DequantizeLinear (qb, scale_b, zero_b)
        both = Concat <axis = 1> (a, b)
        kernel = DequantizeLinear <axis = 0> (stored, scales, zeros)
        y = Conv (both, kernel)
    """
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> joined (float[1,4,4,4] x) => (float[1,4,4,4] y)'
        "<float scale_a = {0.05}, int8 zero_a = {10}, float scale_b = {0.02}, int8 zero_b = {10}>"
        f"{{ {body} }}"
    )
    weights = {
        "stored": np.random.default_rng(0).integers(-127, 128, (4, 8, 1, 1)).astype(np.int8),
        "scales": np.full(4, 0.01, np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save_model(model, path)
    return path


def test_accuracy_is_observed_on_what_openvino_computes(tmp_path: Path) -> None:
    path = joined_int8(tmp_path / "joined.onnx")
    images = np.random.default_rng(1).standard_normal((2, 4, 4, 4), np.float32)
    np.savez(tmp_path / "x.npz", x=images)
    samples = load_samples(tmp_path / "x.npz", Graph.load(path))
    network = OnnxFile(path, load_target("openvino-cpu").profile)
    with process_pool(1) as executor:
        observed = observe(network, samples, Fidelity(), executor, lambda: None)
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for found, sample in zip(observed, samples, strict=True):
        np.testing.assert_array_equal(found["y"], compiled(sample.inputs)["y"])


def test_two_models_are_compared_on_what_openvino_computes(tmp_path: Path) -> None:
    """Other operators for ONNX Runtime, which does not know OpenVINO's own."""
    swish = '<ir_version: 8, opset_import: ["": 14, "org.openvinotoolkit": 1]> net (float[n,3] x)'
    paths = tmp_path / "own.onnx", tmp_path / "plain.onnx"
    bodies = "y = org.openvinotoolkit.Swish (x)", "gate = Sigmoid (x) y = Mul (x, gate)"
    for path, body in zip(paths, bodies, strict=True):
        onnx.save_model(onnx.parser.parse_model(f"{swish} => (float[n,3] y) {{ {body} }}"), path)
    short = {"model_seconds": 0.05}
    target = Target(Profile(name="mine", description="", backend="openvino", settings=short))
    found = compare_models(*paths, target, input_shapes={"x": (2, 3)})
    assert found.outputs[0].relative < 1e-6


def test_outputs_have_the_models_names_and_order_at_every_shape(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 14]> net (float[n,3] x, float[n,3] w)'
        "=> (float[n,3] z, float[n,3] y, float[n,3] sum, int64[2] size)"
        "{ sum = Add (x, w)  y = Identity (sum)  z = Identity (sum)  size = Shape (x) }"
    )
    onnx.save_model(model, tmp_path / "net.onnx")
    run = load_target("openvino-cpu").open(tmp_path / "net.onnx")
    kept = []
    for rows in (2, 5, 2):
        found = run(
            {"x": np.full((rows, 3), rows, np.float32), "w": np.ones((rows, 3), np.float32)}
        )
        assert list(found) == ["z", "y", "sum", "size"]
        assert found["size"].tolist() == [rows, 3]
        kept.append(found["y"])
    assert [values.tolist() for values in kept] == [[[r + 1] * 3] * r for r in (2, 5, 2)]


def test_what_openvino_cannot_run_is_said_in_one_line(tmp_path: Path) -> None:
    model = '<ir_version: 8, opset_import: ["": 14]> net (float[1,3] x) => (float[1,3] y)'
    onnx.save_model(onnx.parser.parse_model(f"{model} {{ y = Relu (x) }}"), tmp_path / "net.onnx")
    run = load_target("openvino-cpu").open(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="OpenVINO cannot run the model") as told:
        run({"x": np.ones((1, 5), np.float32)})
    assert "\n" not in str(told.value)


def test_a_model_that_openvino_cannot_open_is_said_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"OpenVINO cannot load the model \(.*nowhere\.Relu") as e:
        load_target("openvino-cpu").open(unloadable())({"z": np.ones((1, 32, 128, 128))})
    assert "\n" not in str(e.value)


def test_outputs_keep_their_names_where_openvino_joins_an_identity(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 13]> named (float[1,3] x) => (float[1,3] last, '
        "float[1,3] end) { a = Relu (x)  last = Identity (a)  end = Identity (a) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "named.onnx")
    x = np.float32([[-1.0, 0.0, 2.0]])
    found = load_target("openvino-cpu").open(tmp_path / "named.onnx")({"x": x})
    assert list(found) == ["last", "end"]
    np.testing.assert_array_equal(found["end"], [[0.0, 0.0, 2.0]])
