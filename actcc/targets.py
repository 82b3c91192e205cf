"""Targets: device plus toolchain, described in one TOML profile."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from actcc.errors import TargetError
from actcc.latency_models import Profile, built_in_profiles, load_profile
from actcc.prices import Backend

# Imported on use: a backend's libraries are heavy or optional.
_BACKENDS: Mapping[str, str] = {
    "onnxruntime": "actcc.backends.onnx_runtime:OnnxRuntimeBackend",
    "analytic": "actcc.backends.analytic:AnalyticBackend",
    "openvino": "actcc.backends.openvino:OpenVinoBackend",
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
    def backend(self) -> Backend:
        """The backend that prices for this target; raises TargetError if it is not there."""
        location = _BACKENDS.get(self.profile.backend)
        if location is None:
            known = ", ".join(sorted(_BACKENDS))
            raise TargetError(
                f"target '{self.name}' names the backend '{self.profile.backend}'; known: {known}"
            )
        module, _, attribute = location.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
        return cast(Backend, factory(self.profile))


def load_target(name_or_path: str | Path) -> Target:
    """A target by built-in name or by path of a TOML profile.

    Raises:
        TargetError: unknown name, missing file, or a profile that is not valid.
    """
    return Target(load_profile(name_or_path))


def list_targets() -> list[Target]:
    """All built-in targets."""
    return [Target(profile) for profile in built_in_profiles()]
