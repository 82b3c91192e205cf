"""Models of every layout, shape, and kind of input, output and weight."""

from __future__ import annotations

import numpy as np
from kind_models import (
    BODY,
    HEAD,
    IMAGE,
    MAP,
    Kind,
    Kinds,
    add_weight,
    adding_to,
    parsed,
    two_layers,
)
from onnx import TensorProto, helper, numpy_helper

KINDS: Kinds = {}
kind = adding_to(KINDS)


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
    add_weight(model, "two", np.asarray([2], np.int64))
    add_weight(model, "four", np.asarray([4], np.int64))
    add_weight(model, "zero", np.asarray(0, np.int64))
    add_weight(model, "at", np.asarray([0], np.int64))
    add_weight(model, "rest", np.asarray([-1], np.int64))
    add_weight(model, "first", np.asarray([1, 8], np.int64))
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
    add_weight(model, "bias", np.arange(8, dtype=np.float32))
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
    add_weight(model, "spare", np.zeros(4, np.float32))
    return Kind(model)


@kind
def no_inputs() -> Kind:
    body = "images = RandomNormal<shape = [1,3,8,8], seed = 1.0>() " + BODY
    return Kind(two_layers("", body=body))


@kind
def constants_only() -> Kind:
    body = "images = ConstantOfShape<value = float[1] {0.5}>(shape) " + BODY
    model = two_layers("", body=body)
    add_weight(model, "shape", np.asarray(IMAGE, np.int64))
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
    add_weight(model, "four", np.asarray(4, np.int64))
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
        add_weight(model, name, np.asarray(values, np.int64))
    add_weight(model, "minus", np.asarray([-1.0], np.float32))
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
