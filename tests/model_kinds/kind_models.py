"""One small model of each kind that exporters write, by name, for `test_model_kinds`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from networks import Builder
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.runtime import random_feeds

SIDE = 8
CHANNELS = 8
IMAGE = (1, 3, SIDE, SIDE)
MAP = (1, CHANNELS, SIDE, SIDE)


@dataclass(frozen=True)
class Kind:
    """A model.

    Attributes:
        shapes: that are chosen for symbolic inputs.
        feeds: what inputs have to be fed that take no random values.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """What one run is fed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        others = [value for value in model.graph.input if value.name not in self.feeds]
        del model.graph.input[:]
        model.graph.input.extend(others)
        return random_feeds(Graph.load(model, self.shapes or None), seed) | dict(self.feeds)


KINDS: dict[str, Callable[[], Kind]] = {}


def kind(function: Callable[[], Kind]) -> Callable[[], Kind]:
    KINDS[function.__name__.replace("_", " ")] = function
    return function


def parsed(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A model from ONNX text, with random float weights of the given shapes added."""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        fan_in = max(int(np.prod(shape[1:])), 1)
        values = (random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


WEIGHTS = {"w": (CHANNELS, 3, 3, 3), "v": (CHANNELS, CHANNELS, 3, 3)}
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
FIRST = "c = Conv<pads = [1,1,1,1]>(images, w) s = Sigmoid(c) a = Mul(c, s)"
SECOND = "d = Conv<pads = [1,1,1,1]>(a, v) t = Sigmoid(d) y = Mul(d, t)"
BODY = f"{FIRST} {SECOND}"


def two_layers(
    inputs: str = "float[1,3,8,8] images", outputs: str = "float[1,8,8,8] y", body: str = BODY
) -> onnx.ModelProto:
    """Two convolutions, each with a SiLU."""
    return parsed(f"{HEAD} network ({inputs}) => ({outputs}) {{ {body} }}", **WEIGHTS)


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


# -------------------------------------------------------------------- precision


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
    _add(model, "w_scale", np.full(8, 0.004, np.float32))
    _add(model, "w_zero", np.zeros(8, np.int8))
    _add(model, "in_scale", np.float32(0.03))
    _add(model, "scale", np.float32(0.05))
    _add(model, "zero", np.uint8(128))
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
    _add(model, "w_scale", np.float32(0.004))
    _add(model, "w_zero", np.int8(0))
    _add(model, "scale", np.float32(0.05))
    _add(model, "zero", np.uint8(128))
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
    _add(model, "w_scale", np.float32(0.0004))
    return Kind(model)


@kind
def byte_images() -> Kind:
    body = f"images = Cast<to = 1>(bytes) {BODY}"
    return Kind(two_layers("uint8[1,3,8,8] bytes", body=body))


def _replace_weight(model: onnx.ModelProto, old: str, name: str, values: np.ndarray) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != old]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    _add(model, name, values)


def _add(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


# -------------------------------------------------------------------- layout and shapes


@kind
def channels_last() -> Kind:
    body = f"""
      images = Transpose<perm = [0,3,1,2]>(x) {BODY}
      n = Transpose<perm = [0,2,3,1]>(y) h = HardSwish(n)
      l = ReduceMean<axes = [1,2], keepdims = 0>(h)
    """
    return Kind(two_layers("float[1,8,8,3] x", "float[1,8] l", body))


@kind
def dynamic_batch() -> Kind:
    model = two_layers("float[N,3,8,8] images", "float[N,8,8,8] y")
    return Kind(model, {"images": IMAGE})


@kind
def dynamic_image() -> Kind:
    body = f"""
      {BODY} shape = Shape(y) size = Slice(shape, two, four)
      half = Div(size, two) sides = Concat<axis = 0>(first, half)
      r = Resize<mode = "nearest">(y, , , sides) h = HardSwish(r)
      n = Gather(shape, zero) nine = Unsqueeze(n, at) flat = Concat<axis = 0>(nine, rest)
      z = Reshape(h, flat)
    """
    model = two_layers("float[N,3,H,W] images", "float[N,K] z", body)
    _add(model, "two", np.asarray([2], np.int64))
    _add(model, "four", np.asarray([4], np.int64))
    _add(model, "zero", np.asarray(0, np.int64))
    _add(model, "at", np.asarray([0], np.int64))
    _add(model, "rest", np.asarray([-1], np.int64))
    _add(model, "first", np.asarray([1, 8], np.int64))
    return Kind(model, {"images": IMAGE})


@kind
def unknown_rank() -> Kind:
    model = two_layers()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return Kind(model, {"images": IMAGE})


@kind
def sizes_that_depend_on_data() -> Kind:
    body = f"""
      {BODY} where = NonZero(y) some = Transpose(where)
      found = GatherND(y, some) z = HardSwish(found)
    """
    return Kind(two_layers(outputs="float[K] z", body=body))


# -------------------------------------------------------------------- interface


@kind
def initializers_as_inputs() -> Kind:
    model = two_layers()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return Kind(model)


@kind
def nodes_named_like_tensors() -> Kind:
    model = two_layers()
    for node in model.graph.node:
        node.name = node.output[0]
    return Kind(model)


@kind
def several_outputs() -> Kind:
    outputs = "float[1,8,8,8] y, float[1,8,8,8] a, float[1,8,8,8] d"
    return Kind(two_layers(outputs=outputs))


@kind
def outputs_that_nothing_computes() -> Kind:
    model = two_layers(outputs="float[1,8,8,8] y, float[1,3,8,8] images, float[8] bias")
    _add(model, "bias", np.arange(8, dtype=np.float32))
    return Kind(model)


@kind
def an_activation_as_the_whole_model() -> Kind:
    text = (
        f"{HEAD} network (float[1,8,8,8] images) => (float[1,8,8,8] y) {{ y = HardSwish(images) }}"
    )
    return Kind(parsed(text))


@kind
def unused_inputs() -> Kind:
    return Kind(two_layers("float[1,3,8,8] images, float[4] unused, int64 nothing"))


@kind
def unused_nodes_and_weights() -> Kind:
    model = two_layers(body=f'{BODY} q = Relu(d) p = Gelu<approximate = "tanh">(q)')
    model.opset_import[0].version = 20
    _add(model, "spare", np.zeros(4, np.float32))
    return Kind(model)


@kind
def no_inputs() -> Kind:
    body = "images = RandomNormal<shape = [1,3,8,8], seed = 1.0>() " + BODY
    return Kind(two_layers("", body=body))


@kind
def constants_only() -> Kind:
    body = "images = ConstantOfShape<value = float[1] {0.5}>(shape) " + BODY
    model = two_layers("", body=body)
    _add(model, "shape", np.asarray(IMAGE, np.int64))
    return Kind(model)


@kind
def text_beside_images() -> Kind:
    body = f"{BODY} name = Identity(label)"
    inputs, outputs = "float[1,3,8,8] images, string[1] label", "float[1,8,8,8] y, string[1] name"
    return Kind(two_layers(inputs, outputs, body), feeds={"label": np.array(["cat"], object)})


@kind
def shape_as_an_input() -> Kind:
    model = two_layers(
        "float[1,3,8,8] images, int64[2] size", "float[R,C] z", f"{BODY} z = Reshape(y, size)"
    )
    return Kind(model, feeds={"size": np.asarray([8, 64], np.int64)})


@kind
def operators_of_the_runtime() -> Kind:
    body = """
      c = Conv<pads = [1,1,1,1]>(images, w) a = com.microsoft.QuickGelu<alpha = 1.0>(c)
      d = Conv<pads = [1,1,1,1]>(a, v) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers(body=body)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, MAP))
    return Kind(model)


@kind
def sequence_output() -> Kind:
    body = f"{BODY} parts = SequenceConstruct(y, a)"
    return Kind(two_layers(outputs="seq(float[1,8,8,8]) parts", body=body))


@kind
def sequence_inside() -> Kind:
    body = (
        f"{BODY} parts = SplitToSequence<axis = 1>(y, four) z = ConcatFromSequence<axis = 1>(parts)"
    )
    model = two_layers(outputs="float[1,8,8,8] z", body=body)
    _add(model, "four", np.asarray(4, np.int64))
    return Kind(model)


@kind
def indices_lengths_and_masks() -> Kind:
    text = f"""{HEAD}
    network (int64[1,6] tokens, bool[1,6] mask, int64[1] length, float[1,6,8] extra)
      => (float[1,6,8] y, float[1,2,8] top) {{
      e = Gather(table, tokens) m = Where(m3, e, minus) h0 = MatMul(m, w) h = Add(h0, extra)
      m3 = Unsqueeze(mask, last) s = Sigmoid(h) a = Mul(h, s) o = MatMul(a, v) y = HardSwish(o)
      top = Slice(y, start, two, one)
    }}"""
    model = parsed(text, table=(40, 8), w=(8, 8), v=(8, 8))
    order = model.graph.node
    nodes = [order[5 - 1], *order[:4], *order[5:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, values in {"last": [2], "start": [0], "two": [2], "one": [1]}.items():
        _add(model, name, np.asarray(values, np.int64))
    _add(model, "minus", np.asarray([-1.0], np.float32))
    return Kind(model)


@kind
def weights_in_constant_nodes() -> Kind:
    model = two_layers()
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in model.graph.initializer
    ]
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend([*constants, *nodes])
    return Kind(model)


@kind
def sparse_weights() -> Kind:
    model = two_layers(body=f"{BODY[: -len('y = Mul(d, t)')]} m = Mul(d, t) y = Add(m, bias)")
    values = numpy_helper.from_array(np.asarray([1.0, 2.0], np.float32), "bias")
    indices = numpy_helper.from_array(np.asarray([1, 5], np.int64), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))
    return Kind(model)


# -------------------------------------------------------------------- control flow


def _condition(body: str, branches: str, outputs: str = "float[1,8,8,8] y") -> onnx.ModelProto:
    return two_layers(outputs=outputs, body=f"{body} {branches}")


@kind
def branches_on_data() -> Kind:
    branches = """
      mean = ReduceMean<keepdims = 0>(d) yes = Greater(mean, zero)
      p = If (yes) <
        then_branch = one () => (float[1,8,8,8] r) { u = Sigmoid(d) r = Mul(d, u) },
        else_branch = two () => (float[1,8,8,8] q) { q = HardSwish(d) }
      >
      e = Conv<pads = [1,1,1,1]>(p, v) f = Sigmoid(e) y = Mul(e, f)
    """
    model = _condition(f"{FIRST} d = Conv<pads = [1,1,1,1]>(a, v)", branches)
    _add(model, "zero", np.float32(0))
    return Kind(model)


@kind
def branches_on_an_input() -> Kind:
    body = f"""{FIRST}
      p = If (flag) <
        then_branch = one () => (float[1,8,8,8] r) {{ r = HardSwish(a) }},
        else_branch = two () => (float[1,8,8,8] q) {{ q = Relu(a) }}
      >
      d = Conv<pads = [1,1,1,1]>(p, v) t = Sigmoid(d) y = Mul(d, t)
    """
    return Kind(two_layers("float[1,3,8,8] images, bool flag", body=body))


@kind
def branches_on_a_constant() -> Kind:
    body = f"""{FIRST}
      p = If (yes) <
        then_branch = one () => (float[1,8,8,8] r) {{ r = HardSwish(a) }},
        else_branch = two () => (float[1,8,8,8] q) {{ q = Relu(a) }}
      >
      d = Conv<pads = [1,1,1,1]>(p, v) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers(body=body)
    _add(model, "yes", np.asarray(True))
    return Kind(model)


@kind
def loop() -> Kind:
    body = f"""{FIRST}
      last, all = Loop (three, yes, a) <
        body = step (int64 i, bool go, float[1,8,8,8] h) =>
          (bool on, float[1,8,8,8] n, float[1,8,8,8] kept) {{
            on = Identity(go) g = Conv<pads = [1,1,1,1]>(h, v) k = Sigmoid(g) n = Mul(g, k)
            kept = Identity(n)
        }}
      >
      d = Conv<pads = [1,1,1,1]>(last, v) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers(outputs="float[1,8,8,8] y, float[3,1,8,8,8] all", body=body)
    _add(model, "three", np.asarray(3, np.int64))
    _add(model, "yes", np.asarray(True))
    model.graph.value_info.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, MAP))
    return Kind(model)


@kind
def scan() -> Kind:
    text = f"""{HEAD}
    network (float[5,8] x) => (float[5,8] y) {{
      h0 = MatMul(x, w) s = Sigmoid(h0) a = Mul(h0, s)
      end, states = Scan<num_scan_inputs = 1,
        body = step (float[8] h, float[8] z) => (float[8] n, float[8] o) {{
          u = Add(h, z) n = Tanh(u) o = Identity(n)
        }}>(zero, a)
      h1 = MatMul(states, v) t = Sigmoid(h1) y = Mul(h1, t)
    }}"""
    model = parsed(text, w=(8, 8), v=(8, 8))
    _add(model, "zero", np.zeros(8, np.float32))
    return Kind(model)


@kind
def nested_control_flow() -> Kind:
    body = f"""{FIRST}
      p = If (flag) <
        then_branch = one () => (float[1,8,8,8] r) {{
          r = Loop (three, flag, a) <
            body = step (int64 i, bool go, float[1,8,8,8] h) => (bool on, float[1,8,8,8] n) {{
              on = Identity(go)
              n = If (go) <
                then_branch = in1 () => (float[1,8,8,8] n1) {{ n1 = HardSwish(a) }},
                else_branch = in2 () => (float[1,8,8,8] n2) {{ n2 = Relu(h) }}
              >
            }}
          >
        }},
        else_branch = two () => (float[1,8,8,8] q) {{ q = Relu(a) }}
      >
      d = Conv<pads = [1,1,1,1]>(p, v) t = Sigmoid(d) y = Mul(d, t)
    """
    model = two_layers("float[1,3,8,8] images, bool flag", body=body)
    _add(model, "three", np.asarray(3, np.int64))
    return Kind(model)


# -------------------------------------------------------------------- functions


FUNCTION_HEAD = '<ir_version: 9, opset_import: ["" : 18, "local" : 1]>'


def with_functions(body: str, functions: str) -> onnx.ModelProto:
    """A network whose body calls functions."""
    return parsed(
        f"{FUNCTION_HEAD} network (float[1,3,8,8] images) => (float[1,8,8,8] y) {{ {body} }} "
        f"{functions}",
        **WEIGHTS,
    )


CALLS = """
  c = Conv<pads = [1,1,1,1]>(images, w) a = local.silu(c)
  d = Conv<pads = [1,1,1,1]>(a, v) y = local.silu(d)
"""
SILU = '<domain: "local", opset_import: ["" : 18]> silu (x) => (z) { s = Sigmoid(x) z = Mul(x, s) }'


@kind
def functions() -> Kind:
    return Kind(with_functions(CALLS, SILU))


@kind
def nested_functions() -> Kind:
    block = """<domain: "local", opset_import: ["" : 18, "local" : 1]> block (x, k) => (z) {
      c = Conv<pads = [1,1,1,1]>(x, k) z = local.silu(c)
    }"""
    body = "a = local.block(images, w) y = local.block(a, v)"
    return Kind(with_functions(body, f"{block} {SILU}"))


@kind
def functions_with_attributes() -> Kind:
    leaky = """<domain: "local", opset_import: ["" : 18]> gate <slope> (x) => (z) {
      r = LeakyRelu<alpha : float = @slope>(x) s = Sigmoid(r) z = Mul(r, s)
    }"""
    body = """
      c = Conv<pads = [1,1,1,1]>(images, w) a = local.gate<slope = 0.1>(c)
      d = Conv<pads = [1,1,1,1]>(a, v) y = local.gate<slope = 0.2>(d)
    """
    return Kind(with_functions(body, leaky))


@kind
def functions_with_branches() -> Kind:
    gate = """<domain: "local", opset_import: ["" : 18]> gate (x) => (z) {
      m = ReduceMean<keepdims = 0>(x) zero = Constant<value_float = 0.0>() yes = Greater(m, zero)
      z = If (yes) <
        then_branch = one () => (r) { r = HardSwish(x) },
        else_branch = two () => (q) { q = Relu(x) }
      >
    }"""
    body = f"""{FIRST}
      b = local.gate(a) d = Conv<pads = [1,1,1,1]>(b, v) y = HardSwish(d)
    """
    return Kind(with_functions(body, gate))


@kind
def functions_of_another_opset() -> Kind:
    older = SILU.replace('"" : 18', '"" : 16')
    body = CALLS.replace("a = local.silu(c)", "k = Sigmoid(c) a = Mul(c, k)")
    return Kind(with_functions(body, older))


@kind
def functions_in_branches() -> Kind:
    body = f"""{FIRST}
      m = ReduceMean<keepdims = 0>(a) zero = Constant<value_float = 0.0>() yes = Greater(m, zero)
      b = If (yes) <
        then_branch = one () => (float[1,8,8,8] r) {{ r = local.silu(a) }},
        else_branch = two () => (float[1,8,8,8] q) {{ q = Relu(a) }}
      >
      d = Conv<pads = [1,1,1,1]>(b, v) y = local.silu(d)
    """
    return Kind(with_functions(body, SILU))


@kind
def functions_that_nothing_calls() -> Kind:
    return Kind(with_functions(CALLS.replace("local.silu", "HardSwish"), SILU))


# -------------------------------------------------------------------- operator sets


def at_opset(version: int) -> onnx.ModelProto:
    """Every activation that the opset knows as it is spelled there, behind a convolution each."""
    build = Builder(opset=version)
    x = build.silu(build.conv("images", 3, CHANNELS))
    x = build.add("Relu", build.conv(x, CHANNELS, CHANNELS))
    x = _relu6(build, build.conv(x, CHANNELS, CHANNELS))
    x = _hard_swish(build, build.conv(x, CHANNELS, CHANNELS))
    x = build.add("LeakyRelu", build.conv(x, CHANNELS, CHANNELS), alpha=0.1)
    x = build.add("Elu", build.conv(x, CHANNELS, CHANNELS), alpha=1.0)
    if version >= 9:
        x = _gelu(build, build.conv(x, CHANNELS, CHANNELS))
    if version >= 14:
        x = build.add("HardSwish", build.conv(x, CHANNELS, CHANNELS))
    if version >= 18:
        x = build.add("Mish", build.conv(x, CHANNELS, CHANNELS))
    if version >= 20:
        x = build.add("Gelu", build.conv(x, CHANNELS, CHANNELS))
    if version == 24:  # ONNX Runtime 1.31 has none beyond
        x = build.add("Swish", build.conv(x, CHANNELS, CHANNELS))
    build.add("Identity", x, output="y")
    model = build.model(IMAGE, {"y": MAP})
    model.ir_version = _ir_version(version)
    if model.ir_version < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
            for t in model.graph.initializer
        )
    return model


def _ir_version(opset: int) -> int:
    return helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset)]


def _relu6(build: Builder, x: str) -> str:
    if build.opset < 11:
        return build.add("Clip", x, min=0.0, max=6.0)
    low, high = build.weight(np.asarray(0.0)), build.weight(np.asarray(6.0))
    return build.add("Clip", x, low, high)


def _hard_swish(build: Builder, x: str) -> str:
    return build.add("Mul", x, build.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _gelu(build: Builder, x: str) -> str:
    gate = build.add("Erf", build.add("Div", x, build.weight(np.asarray(np.sqrt(2)))))
    product = build.add("Mul", x, build.add("Add", gate, build.weight(np.asarray(1.0))))
    return build.add("Mul", product, build.weight(np.asarray(0.5)))
