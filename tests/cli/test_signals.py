"""A signal that ends the process leaves no file and no worker behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network

from actcc.cli.signals import ended_by_signals

SLOW_METRIC = """
import pathlib, time

def slow(outputs, samples):
    pathlib.Path("measuring").touch()
    time.sleep(60)
"""
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="processes are listed by /proc")


def living(group: int) -> list[int]:
    """Processes of a group, without those that ended and wait to be counted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(folder.name))
    return found


@needs_proc
def test_a_run_that_is_ended_leaves_no_file_and_no_worker(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    onnx.save_model(residual_network(), folder / "network.onnx")
    np.savez(folder / "calib.npz", images=images(4))
    (folder / "metric.py").write_text(SLOW_METRIC)
    command = "optimize network.onnx -t npu1 --calib calib.npz --metric metric.py:slow --workers 1"
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "actcc", *command.split(), "--no-cache", "-o", "out.onnx"],
        cwd=folder,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        wait_until((folder / "measuring").exists)
        assert len(living(process.pid)) > 1, "no worker was started"
        assert list(folder.glob(".actcc-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
        wait_until(lambda: not living(process.pid))
    finally:
        for left in living(process.pid):
            os.kill(left, signal.SIGKILL)
    left_behind = {path.name for path in folder.iterdir()}
    assert left_behind == {"network.onnx", "calib.npz", "metric.py", "measuring"}
    assert not list(temporary.glob("*actcc*"))


def wait_until(holds, seconds: float = 50.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


HANDLERS = """
import signal
from actcc.cli.signals import ended_by_signals

try:
    with ended_by_signals():
        signal.raise_signal({number})
except SystemExit as ended:
    assert ended.code == 128 + {number}
else:
    raise AssertionError("nothing was raised")
assert signal.getsignal({number}) is signal.SIG_DFL
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_handlers_are_put_back(number: signal.Signals) -> None:
    """In a process of its own, which is what a signal without its handler would end."""
    script = HANDLERS.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
