"""Benchmarks are run by hand and by nobody else: what they import must still be there."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
LOAD = """
import runpy, sys
for script in sys.argv[1:]:
    sys.path.insert(0, script.rpartition("/")[0])
    runpy.run_path(script, run_name="loaded")
"""


def test_every_benchmark_can_be_loaded() -> None:
    scripts = sorted(path.as_posix() for path in TESTS.rglob("benchmark_*.py"))
    assert scripts
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *scripts],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
