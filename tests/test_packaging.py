"""What gets installed: one import name, with profiles and type information."""

import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("onnx", "onnxruntime", "ortools", "numpy", "pandas", "onnx_graphsurgeon", "pydantic")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools leaves a build folder behind, and takes stale files out of it.
    ignored = shutil.ignore_patterns("build", "*.egg-info", ".*", "__pycache__", "examples")
    copy = shutil.copytree(ROOT, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_adds_one_top_level_name(wheel: list[str]) -> None:
    names = {name.split("/")[0] for name in wheel}
    assert {name for name in names if not name.endswith(".dist-info")} == {"actcc"}


def test_the_wheel_has_every_package_of_the_checkout(wheel: list[str]) -> None:
    folders = {"actcc": "actcc", "passes": "actcc/passes", "backends": "actcc/backends"}
    folders["latency_models"] = "actcc/latency_models"
    for folder, installed in folders.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml") or path.name == "py.typed":
                relative = path.relative_to(ROOT / folder).as_posix()
                assert f"{installed}/{relative}" in wheel


def test_the_wheel_is_typed_and_brings_its_targets(wheel: list[str]) -> None:
    assert "actcc/py.typed" in wheel
    assert {f"actcc/latency_models/{name}.toml" for name in ("cpu", "npu1", "npu2")} <= {*wheel}


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, actcc.cli\n"
        "try: actcc.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_answers_in_well_under_a_second() -> None:
    command = [sys.executable, "-m", "actcc", "--help"]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.8
