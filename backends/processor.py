"""The processor that measured latencies belong to."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from pathlib import Path


def processor_name() -> str:
    """Name of this machine's processor, with family and model where the system gives them."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    if "model name" in found:
        return f"{found['model name']} family {found.get('cpu family')} model {found.get('model')}"
    if "CPU part" in found:
        part = f"implementer {found.get('CPU implementer')} part {found['CPU part']}"
        return f"{platform.machine()} {part}"
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
            return answer.stdout.strip()
    return platform.processor() or platform.machine()
