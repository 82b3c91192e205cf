"""Parts of a model, and the first in which two models differ."""

from collections.abc import Callable

import onnx
import pytest

from actcc.graph import Graph
from actcc.graph.fingerprint import first_difference, hash_of_parts, model_parts

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[batch, 3] x) => (float[batch, 3] y) <float[3] w = {1, 2, 3}> {
  [scale] s = Mul(x, w)
  [activation] y = Relu(s)
}
"""


def parts(edit: Callable[[str], str] = lambda text: text) -> dict[str, str]:
    return model_parts(Graph.load(onnx.parser.parse_model(edit(NETWORK))))


def test_every_part_is_listed_in_order() -> None:
    names = ["opsets", "input x", "output y", "node scale", "node activation", "weight w"]
    assert list(parts()) == names
    assert parts()["input x"] == "float [batch, 3]"


def test_equal_models_do_not_differ() -> None:
    assert first_difference(parts(), parts()) == ""
    assert hash_of_parts(parts()) == hash_of_parts(parts())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Relu", "Sigmoid", "node activation is Sigmoid .* and not Relu"),
        ("{1, 2, 3}", "{1, 2, 4}", r"weight w is float \[3\] .* and not float \[3\]"),
        ("[batch, 3] x", "[7, 3] x", r"input x is float \[7, 3\] and not float \[batch, 3\]"),
        ('"" : 17', '"" : 18', "opsets is ai.onnx 18 and not ai.onnx 17"),
        ("[scale]", "[other]", r"it has no node scale \(Mul"),
    ],
)
def test_the_first_difference_is_named(old: str, new: str, said: str) -> None:
    other = parts(lambda text: text.replace(old, new, 1))
    assert hash_of_parts(other) != hash_of_parts(parts())
    import re

    assert re.match(said, first_difference(parts(), other))


def test_a_part_too_many_is_named() -> None:
    more = parts(lambda t: t.replace("y = Relu(s)", "y = Relu(s)\n  [idle] z = Neg(s)"))
    assert first_difference(parts(), more).startswith("it has node idle (Neg")
