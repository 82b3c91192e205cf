"""Arm's Vela compiler as a process of its own: a .tflite file in, cycles by layer out.

A process of its own, because a compiler may crash or run for ever, and neither may end the run.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from actcc.backends.ethos_u.settings import EthosUSettings
from actcc.errors import PricingError, TargetError

_STEM = "network"
_PACKAGE = "ethos-u-vela"
_MEMORIES = ("sram", "dram", "on_chip_flash", "off_chip_flash")
_BOUNDS = {
    "NPU": "compute",
    "SRAM AC": "sram",
    "DRAM AC": "dram",
    "OnFlash AC": "on-chip flash",
    "OffFlash AC": "off-chip flash",
}
# Where Vela reads its configuration, in a traceback of its own: that holds for every network.
_ABOUT_PROFILE = ("in _parse_config", "architecture_features.py", "error: argument")


@dataclass(frozen=True)
class CompiledLayer:
    """One row of Vela's table of layers.

    Attributes:
        tensor: name of the TFLite tensor that it writes.
        operator: Vela's name of what it does.
        bound: what takes that long: "compute", "sram", "dram", …
    """

    tensor: str
    operator: str
    cycles: float
    bound: str


@dataclass(frozen=True)
class Compiled:
    """What Vela makes of a network.

    Attributes:
        cycles: of one inference; the sum of the layers'.
        clock_hz: of the accelerator.
        memory_bytes: peak use by memory: "sram", "dram", "on_chip_flash", "off_chip_flash".
        model: the compiled .tflite file; empty unless it was asked for.
    """

    cycles: float
    clock_hz: float
    layers: tuple[CompiledLayer, ...]
    memory_bytes: Mapping[str, int]
    model: bytes = b""

    @property
    def latency_ns(self) -> float:
        """Latency of one inference."""
        return self.cycles * self.ns_per_cycle

    @property
    def ns_per_cycle(self) -> float:
        """Length of a clock cycle."""
        return 1e9 / self.clock_hz


def require_vela(target: str) -> str:
    """Version of the installed Vela.

    Raises:
        TargetError: it is not installed.
    """
    if util.find_spec("ethosu") is None:
        raise TargetError(
            f"target '{target}' needs Arm's Vela compiler, which is not installed; "
            "run: pip install 'actcc[ethos-u]'"
        )
    return metadata.version(_PACKAGE)


def compile_network(model: bytes, settings: EthosUSettings, *, keep: bool = False) -> Compiled:
    """Compile a .tflite file.

    Args:
        keep: whether the compiled file is wanted.

    Raises:
        PricingError: Vela refuses the network, takes too long, or leaves an operator to the CPU,
            whose time it does not know.
        TargetError: Vela does not know the accelerator, system or memory mode, or cannot make
            sense of the configuration file.
    """
    with tempfile.TemporaryDirectory(prefix="actcc-vela-") as place:
        folder = Path(place)
        source = folder / f"{_STEM}.tflite"
        source.write_bytes(model)
        _run(source, folder, settings)
        layers = _layers(folder / f"{_STEM}_per-layer.csv")
        (summary,) = folder.glob(f"{_STEM}_summary_*.csv")
        with summary.open(newline="") as file:
            figures = next(csv.DictReader(file))
        memories = {
            name: round(1024 * float(figures[f"{name}_memory_used"]))
            for name in _MEMORIES
            if float(figures[f"{name}_memory_used"])
        }
        compiled = (folder / f"{_STEM}_vela.tflite").read_bytes() if keep else b""
    cycles, clock = float(figures["cycles_total"]), float(figures["core_clock"])
    if cycles <= 0:
        raise PricingError(
            "nothing is left to run on it: what the network computes is constant or free"
        )
    return Compiled(cycles, clock, layers, memories, compiled)


def _run(source: Path, folder: Path, settings: EthosUSettings) -> None:
    command = [
        *(sys.executable, "-m", "ethosu.vela", str(source)),
        *("--output-dir", str(folder), "--verbose-performance"),
        *settings.arguments,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=folder,  # with -m, Python looks for modules here first
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=settings.time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PricingError(
            f"Vela did not finish within {settings.time_limit_s:g} s; raise time_limit_s in the "
            "target's profile"
        ) from error
    if done.returncode == 0:
        return
    said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    reason = said[-1] if said else f"it ended with code {done.returncode}"
    if any(sign in done.stdout for sign in _ABOUT_PROFILE):
        raise TargetError(
            f"Vela cannot be set up for {settings.accelerator} with {settings.config}: {reason}; "
            "correct the target's profile"
        )
    raise PricingError(f"Vela cannot compile for {settings.accelerator}: {reason}")


def _layers(table: Path) -> tuple[CompiledLayer, ...]:
    found: list[CompiledLayer] = []
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["Target"] != "NPU":
                raise PricingError(
                    f"Vela leaves {row['Original Operator']} ('{row['Name']}') to the CPU, whose "
                    "time it does not know; rewrite it, or measure on the device"
                )
            bound = max(_BOUNDS, key=lambda column: float(row[column]))
            cycles = float(row["Op Cycles"])
            operator = row["NNG Operator"]
            found.append(CompiledLayer(row["Name"], operator, cycles, _BOUNDS[bound]))
    return tuple(found)
