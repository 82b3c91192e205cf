"""`import actcc` gives everything that the documents name, and costs next to nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import actcc

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", actcc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(actcc, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = actcc.nothing


def test_python_started_in_a_checkout_finds_all_packages() -> None:
    program = "import actcc.passes, actcc.backends, actcc.latency_models; print(actcc.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == ROOT / "actcc"
