"""Targets: device plus toolchain, described in one TOML profile."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from actcc.errors import TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile, built_in_profiles, load_profile
from actcc.prices import Backend, RuntimeBackend, Source
from actcc.runtime import ModelRun, open_model, session_source


@dataclass(frozen=True)
class BackendEntry:
    """Where a backend is, and what it needs; imported on use, since its libraries are heavy.

    Attributes:
        location: module and class.
        source: how its whole-model figures come about.
        modules: packages that it imports, by their import names.
        extra: the extra of actcc that brings them; empty where actcc itself does.
    """

    location: str
    source: Source
    modules: tuple[str, ...] = ()
    extra: str = ""

    @property
    def missing(self) -> str:
        """What to install, as a command; empty where everything is there."""
        if all(importlib.util.find_spec(name) is not None for name in self.modules):
            return ""
        return f"pip install 'actcc[{self.extra}]'"


_BACKENDS: Mapping[str, BackendEntry] = {
    "onnxruntime": BackendEntry("actcc.backends.onnx_runtime:OnnxRuntimeBackend", "measured"),
    "analytic": BackendEntry("actcc.backends.analytic:AnalyticBackend", "estimated"),
    "table": BackendEntry("actcc.backends.table:TableBackend", "estimated"),
    "ethos-u": BackendEntry(
        "actcc.backends.ethos_u.backend:EthosUBackend",
        "compiled",
        ("ethosu", "flatbuffers"),
        "ethos-u",
    ),
    "openvino": BackendEntry(
        "actcc.backends.openvino:OpenVinoBackend", "measured", ("openvino",), "openvino"
    ),
}


@dataclass(frozen=True)
class Target:
    """A device with its toolchain."""

    profile: Profile

    @property
    def name(self) -> str:
        """Name of the profile."""
        return self.profile.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the backend, as the profile gives them."""
        return self.profile.settings

    @cached_property
    def int8_weight_bits(self) -> int | None:
        """Of weights in QuantizeLinear models; None where the target does not run such models.

        Raises:
            ModelError: they are to be found out, and the runtime cannot run the layer that tells.
            TargetError: they are to be found out, and the backend is not there.
        """
        found = self.profile.settings.get("int8_weight_bits")
        if found != "auto":
            return None if found is None else int(found)
        from actcc.quantization.saturation import exact_weight_bits

        return exact_weight_bits(self.open)

    @property
    def entry(self) -> BackendEntry:
        """What is known of the backend without importing it.

        Raises:
            TargetError: the profile names no backend.
        """
        named = self.profile.backend
        found = _BACKENDS.get(named)
        if found is None and ".py:" in named:
            return BackendEntry(named, "estimated")
        if found is None:
            known = ", ".join(sorted(_BACKENDS))
            raise TargetError(
                f"target '{self.name}' names the backend '{named}'; known: {known}, or give one of "
                "your own as file.py:Class"
            )
        return found

    @cached_property
    def backend(self) -> Backend:
        """The backend that prices for this target; raises TargetError if it is not there."""
        entry = self.entry
        if entry.missing:
            raise TargetError(
                f"target '{self.name}' needs the backend '{self.profile.backend}', which is not "
                f"installed; {entry.missing}"
            )
        module, _, attribute = entry.location.rpartition(":")
        if module.endswith(".py"):
            factory = _from_file((self.profile.folder or Path()) / module, attribute)
        else:
            factory = getattr(importlib.import_module(module), attribute)
        return cast(Backend, factory(self.profile))

    def open(self, model: Graph | Path) -> ModelRun:
        """A model in the backend's own runtime, or in ONNX Runtime where it has none.

        Raises:
            ModelError: the runtime cannot load the model.
            TargetError: the backend is not there.
        """
        if not isinstance(self.backend, RuntimeBackend):
            return open_model(model)
        with session_source(model) as source:
            return self.backend.open(source)


def _from_file(path: Path, attribute: str) -> Any:
    """A class of a Python file.

    Raises:
        ActccError: the file is missing or cannot be run.
        TargetError: it has no such class.
    """
    from actcc.pass_api import load_module  # which knows targets

    module = load_module(path, "backend")
    if not hasattr(module, attribute):
        raise TargetError(f"{path}: has no class '{attribute}'; name the one that is the backend")
    return getattr(module, attribute)


def load_target(name_or_path: str | Path) -> Target:
    """A target by built-in name or by path of a TOML profile.

    Raises:
        TargetError: unknown name, missing file, or a profile that is not valid.
    """
    return Target(load_profile(name_or_path))


def list_targets() -> list[Target]:
    """All built-in targets."""
    return [Target(profile) for profile in built_in_profiles()]
