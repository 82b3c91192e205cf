"""How many bits of weights a runtime multiplies exactly, by a layer of the largest numbers."""

import os
import platform
import subprocess
import sys

import pytest

from actcc.graph import Graph
from actcc.quantization.saturation import exact_weight_bits
from actcc.runtime import ModelRun
from actcc.targets import Target, load_target

SATURATED = 32767 / (2 * 255 * 127)  # of a sum by twos, in 16 bits


def runtime(share: float) -> ModelRun:
    """Gives a share of what a layer of weights of 127 gives."""
    return lambda inputs: {"y": share * 127 * inputs["x"].sum(axis=1, keepdims=True)}


def test_seven_bits_where_products_saturate() -> None:
    assert exact_weight_bits(lambda graph: runtime(1.0)) == 8
    assert exact_weight_bits(lambda graph: runtime(SATURATED)) == 7


@pytest.mark.parametrize("name", ["cpu", "openvino-cpu"])
def test_built_in_targets_find_out(name: str) -> None:
    target = load_target(name)
    if target.entry.missing:
        pytest.skip(f"needs the extra '{target.entry.extra}'")
    seen: list[Graph] = []

    def opened(graph: Graph) -> ModelRun:
        seen.append(graph)
        return target.open(graph)

    assert target.settings["int8_weight_bits"] == "auto"
    assert target.int8_weight_bits == exact_weight_bits(opened)
    assert [node.op for node in seen[0].nodes()].count("Conv") == 1


def test_a_profile_that_says_how_many_is_not_asked() -> None:
    profile = load_target("cpu").profile
    for bits in (7, 8):
        own = profile.model_copy(update={"settings": {"int8_weight_bits": bits}})
        assert Target(own).int8_weight_bits == bits
    assert load_target("npu1").int8_weight_bits is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="saturation is of x86")
def test_openvino_without_vnni_has_seven() -> None:
    pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    ask = (
        "from actcc.targets import load_target; print(load_target('openvino-cpu').int8_weight_bits)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "7"
