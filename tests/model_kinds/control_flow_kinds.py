"""Models with branches and loops, and such as call functions of their own."""

from __future__ import annotations

import numpy as np
import onnx
from kind_models import (
    FIRST,
    HEAD,
    MAP,
    WEIGHTS,
    Kind,
    Kinds,
    add_weight,
    adding_to,
    parsed,
    two_layers,
)
from onnx import TensorProto, helper

KINDS: Kinds = {}
kind = adding_to(KINDS)


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
    add_weight(model, "zero", np.float32(0))
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
    add_weight(model, "yes", np.asarray(True))
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
    add_weight(model, "three", np.asarray(3, np.int64))
    add_weight(model, "yes", np.asarray(True))
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
    add_weight(model, "zero", np.zeros(8, np.float32))
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
    add_weight(model, "three", np.asarray(3, np.int64))
    return Kind(model)


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
