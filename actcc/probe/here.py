"""Kit, run and fit on this machine, in one go."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from actcc.backends.onnx_session import read_settings
from actcc.errors import TargetError
from actcc.output import check_output
from actcc.probe.fit import Fit, Kind, check_fit, fit_target
from actcc.probe.kit import RUNNER, unpack_kit, write_kit
from actcc.probe.probes import Probes
from actcc.targets import Target

_INTERRUPTED = 130


@dataclass(frozen=True)
class Runner:
    """What the kit's runner is told.

    Attributes:
        provider: ONNX Runtime's execution provider.
        threads: of one operator.
        runs: samples of each graph.
    """

    provider: str
    threads: int
    runs: int

    @classmethod
    def of(cls, target: Target, runs: int) -> Runner:
        """As a target's profile says.

        Raises:
            TargetError: it is not measured with ONNX Runtime, or needs what the runner cannot do.
        """
        if target.profile.backend != "onnxruntime":
            raise TargetError(
                f"target '{target.name}' is not run by ONNX Runtime on this machine; choose one "
                "such as cpu, or take a kit to the device with `actcc probe kit`"
            )
        settings = read_settings(target.profile)
        first, *others = settings.providers
        if others or first.options or settings.optimization != "all":
            raise TargetError(
                f"target '{target.name}': a kit's runner takes one provider without options, at "
                "the level all; name a profile of that kind"
            )
        return cls(first.name, settings.threads, runs)


def probe_here(
    probes: Probes,
    runner: Runner,
    output: Path,
    *,
    base: str | None = None,
    kind: Kind | None = None,
    predict: bool = False,
    quiet: bool = False,
) -> Fit:
    """Time the probes on this machine and make a target of what they took.

    The CSV lies beside the profile, with the ending .csv. An interrupted run goes on from there,
    which is said; a finished one is measured anew.

    Args:
        output: the profile to write.

    Raises:
        TargetError: the runner cannot begin, or the fit is refused.
        ModelError: the profile or the CSV cannot be written.
        KeyboardInterrupt: the runner was interrupted.
    """
    check_fit(output, base=base, kind=kind, predict=predict)
    results = check_output(output.with_suffix(".csv").resolve())
    with tempfile.TemporaryDirectory(prefix="actcc-probe-") as folder:
        unpack_kit(probes, Path(folder))
        command = [sys.executable, RUNNER, "--provider", runner.provider]
        command += ["--threads", str(runner.threads), "--runs", str(runner.runs)]
        command += ["--out", str(results), "--anew", *(["--quiet"] if quiet else [])]
        done = subprocess.run(
            command,
            cwd=folder,
            check=False,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == _INTERRUPTED:
            raise KeyboardInterrupt
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:].removeprefix("run_probes: ")
            raise TargetError(f"the probes could not be run: {said}")
        kit = Path(folder) / "kit.zip"
        left_out = write_kit(probes, kit)
        fit = fit_target(results, output, base=base, kind=kind, kit=kit, predict=predict)
    return replace(fit, notes=(*done.stderr.splitlines(), *left_out, *fit.notes))
