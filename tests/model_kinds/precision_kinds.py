"""Models in half and double precision, quantized ones, and such as read bytes."""

from __future__ import annotations

import numpy as np
import onnx
from kind_models import BODY, HEAD, Kind, Kinds, add_weight, adding_to, parsed, two_layers
from onnx import TensorProto, helper, numpy_helper

KINDS: Kinds = {}
kind = adding_to(KINDS)


def to_float16(model: onnx.ModelProto, *, keep_interface: bool = False) -> onnx.ModelProto:
    """Weights and value types in half precision; with casts at the border where it is kept."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del graph.value_info[:]
    if keep_interface:
        for value in graph.input:
            _cast_input(graph, value.name)
        for value in graph.output:
            _cast_output(graph, value.name)
        return half
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return half


def _cast_input(graph: onnx.GraphProto, name: str) -> None:
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = f"{name}_half"
    cast = helper.make_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16)
    graph.node.insert(0, cast)


def _cast_output(graph: onnx.GraphProto, name: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, found in enumerate(names):
                if found == name:
                    names[index] = f"{name}_half"
    graph.node.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))


@kind
def half_precision() -> Kind:
    return Kind(to_float16(two_layers()))


@kind
def half_precision_inside() -> Kind:
    return Kind(to_float16(two_layers(), keep_interface=True))


@kind
def double_precision() -> Kind:
    text = f"""{HEAD} network (double[4,8] x) => (double[4,8] y) {{
      h = MatMul(x, w) s = Sigmoid(h) a = Mul(h, s) o = MatMul(a, v) t = Sigmoid(o) y = Mul(o, t)
    }}"""
    model = parsed(text, w=(8, 8), v=(8, 8))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return Kind(model)


@kind
def quantize_dequantize() -> Kind:
    body = """
      qx = QuantizeLinear(images, in_scale, zero) x = DequantizeLinear(qx, in_scale, zero)
      fw = DequantizeLinear<axis = 0>(qw, w_scale, w_zero)
      c = Conv<pads = [1,1,1,1]>(x, fw)
      qc = QuantizeLinear(c, scale, zero) dc = DequantizeLinear(qc, scale, zero)
      s = Sigmoid(dc) a = Mul(dc, s)
      qa = QuantizeLinear(a, scale, zero) da = DequantizeLinear(qa, scale, zero)
      d = Conv<pads = [1,1,1,1]>(da, v) h = HardSwish(d)
      qh = QuantizeLinear(h, scale, zero) y = DequantizeLinear(qh, scale, zero)
    """
    model = two_layers(body=body)
    random = np.random.default_rng(0)
    _replace_weight(model, "w", "qw", random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8))
    add_weight(model, "w_scale", np.full(8, 0.004, np.float32))
    add_weight(model, "w_zero", np.zeros(8, np.int8))
    add_weight(model, "in_scale", np.float32(0.03))
    add_weight(model, "scale", np.float32(0.05))
    add_weight(model, "zero", np.uint8(128))
    return Kind(model)


@kind
def quantized_operators() -> Kind:
    body = """
      qx = QuantizeLinear(images, scale, zero)
      qc = QLinearConv<pads = [1,1,1,1]>(
        qx, scale, zero, qw, w_scale, w_zero, scale, zero)
      a = DequantizeLinear(qc, scale, zero)
      r = Relu(a) d = Conv<pads = [1,1,1,1]>(r, v) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers(body=body)
    random = np.random.default_rng(0)
    _replace_weight(model, "w", "qw", random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8))
    add_weight(model, "w_scale", np.float32(0.004))
    add_weight(model, "w_zero", np.int8(0))
    add_weight(model, "scale", np.float32(0.05))
    add_weight(model, "zero", np.uint8(128))
    return Kind(model)


@kind
def dynamically_quantized() -> Kind:
    body = """
      qa, a_scale, a_zero = DynamicQuantizeLinear(r)
      i = ConvInteger<pads = [1,1,1,1]>(qa, qw, a_zero)
      f = Cast<to = 1>(i) m = Mul(f, a_scale) d = Mul(m, w_scale) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers(body=f"c = Conv<pads = [1,1,1,1]>(images, w) r = Relu(c) {body}")
    random = np.random.default_rng(0)
    _replace_weight(model, "v", "qw", random.integers(0, 255, (8, 8, 3, 3)).astype(np.uint8))
    add_weight(model, "w_scale", np.float32(0.0004))
    return Kind(model)


@kind
def byte_images() -> Kind:
    body = f"images = Cast<to = 1>(bytes) {BODY}"
    return Kind(two_layers("uint8[1,3,8,8] bytes", body=body))


def _replace_weight(model: onnx.ModelProto, old: str, name: str, values: np.ndarray) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != old]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    add_weight(model, name, values)
