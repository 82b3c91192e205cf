"""Sessions of the `onnxruntime` backend: what a target profile can choose, and sessions made so.

`actcc.runtime` makes all sessions; these are run for their time, with the execution providers,
options and optimisation level of the profile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from actcc.backends.measured import MeasuringSettings
from actcc.backends.processor import processor_name
from actcc.errors import ModelError, PricingError, TargetError
from actcc.graph import Array
from actcc.latency_models import Profile, checked_settings
from actcc.runtime import (
    OptimisationLevel,
    SessionSource,
    create_session,
    one_line,
    onnx_runtime,
    session_options,
)

_CPU = "CPUExecutionProvider"


class Provider(BaseModel):
    """An execution provider with its own options, as ONNX Runtime names both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """Name and options, for the cache key."""
        chosen = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({chosen})" if chosen else self.name


class Settings(MeasuringSettings):
    """The section `[settings]` of a profile with `backend = "onnxruntime"`.

    Attributes:
        providers: in order of preference; a name, or a table with `name` and `options`.
        optimization: the runtime's graph optimisation level.
        contrib_operators: whether operators of com.microsoft are offered: no other runtime reads
            the result then.
    """

    providers: tuple[Provider, ...] = Field(default=(Provider(name=_CPU),), min_length=1)
    optimization: OptimisationLevel = "all"
    contrib_operators: bool = False

    @property
    def runs_in_one_thread(self) -> bool:
        """With one thread, and no provider but the CPU's, which has threads of its own."""
        return self.threads == 1 and all(provider.name == _CPU for provider in self.providers)

    @field_validator("providers", mode="before")
    @classmethod
    def _names_are_providers(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]


def read_settings(profile: Profile) -> Settings:
    """The settings of a profile.

    Raises:
        TargetError: a field does not fit, or a provider is not part of the installed onnxruntime.
    """
    onnxruntime = onnx_runtime()
    settings = checked_settings(Settings, profile)
    available = onnxruntime.get_available_providers()
    for provider in settings.providers:
        if provider.name not in available:
            raise TargetError(
                f"target '{profile.name}': the installed onnxruntime has no execution provider "
                f"'{provider.name}'; it has: {', '.join(available)}; install the onnxruntime "
                "package that brings it, or name one of these"
            )
    return settings


def tool_text(settings: Settings) -> str:
    """Version and all settings that decide a latency, and the processor's name."""
    onnxruntime = onnx_runtime()
    providers = "+".join(provider.text for provider in settings.providers)
    return (
        f"onnxruntime {onnxruntime.__version__}, {providers}, level {settings.optimization}, "
        f"{settings.text}, {processor_name()}"
    )


def open_session(
    source: SessionSource,
    settings: Settings,
    adjust: Callable[[Any], None] = lambda options: None,
) -> Any:
    """An `onnxruntime.InferenceSession`.

    Args:
        source: from `actcc.runtime.session_source`.
        adjust: may set further fields of the `SessionOptions`.

    Raises:
        ModelError: the runtime cannot load the graph.
        TargetError: a provider is installed but does not start on this machine.
    """
    options = session_options(settings.threads, settings.optimization)
    adjust(options)
    providers = [
        (provider.name, {key: str(value) for key, value in provider.options.items()})
        for provider in settings.providers
    ]
    return create_session(source, options, providers)


def host_values(feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Feeds as OrtValues that the runtime allocated, aligned as its own tensors are.

    Text cannot be held by them; where there is any, all arrays stay as they are.

    Raises:
        ModelError: an element type that NumPy does not have.
    """
    ort = onnx_runtime()
    if any(array.dtype.kind == "O" for array in feeds.values()):
        return dict(feeds)
    values = {}
    for name, array in feeds.items():
        try:
            values[name] = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type)
            values[name].update_inplace(array)
        except Exception as error:  # the runtime raises a dozen unrelated types
            raise ModelError(f"input '{name}' cannot be fed: {one_line(error)}") from error
    return values


def bound_run(session: Any, values: Mapping[str, Any]) -> Callable[[], object]:
    """A function that runs the session once, with as little work around it as there can be.

    Args:
        values: from `host_values`.

    Raises:
        PricingError: the runtime refuses the values or fails while running.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        if any(isinstance(value, np.ndarray) for value in values.values()):
            run: Callable[[], object] = partial(session.run, names, dict(values))
        elif all(output.type.startswith("tensor(") for output in session.get_outputs()):
            binding = session.io_binding()
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in names:
                binding.bind_output(name)
            run = partial(session.run_with_iobinding, binding)
        else:
            run = partial(session.run_with_ort_values, names, dict(values))
        run()
    except Exception as error:  # the runtime raises a dozen unrelated types
        raise PricingError(
            f"ONNX Runtime cannot run it on the values that it was fed ({one_line(error)}); "
            "give samples that make sense to it with --calib"
        ) from error
    return run
