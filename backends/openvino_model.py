"""Models compiled by OpenVINO: what a target profile can choose, and runs made so.

`openvino` is imported on use: it comes with the extra of that name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from actcc.backends.measure import Run
from actcc.backends.measured import MeasuringSettings
from actcc.backends.processor import processor_name
from actcc.errors import ModelError, PricingError, TargetError
from actcc.graph import Array
from actcc.runtime import ModelRun, SessionSource, one_line

# Of a model's inputs; each has a compiled model, with weights of its own.
_SHAPES_KEPT = 4
# Lines of an OpenVINO error that say where in its own source it was raised.
_OF_ITS_SOURCE = ("Exception from src/", "Check '", "FrontEnd API failed")


class OpenVinoSettings(MeasuringSettings):
    """The section `[settings]` of a profile with `backend = "openvino"`.

    Attributes:
        device: as OpenVINO names it.
        inference_precision: element type that floating-point layers run in; "f32" also where the
            processor has a faster one, so that the model computes what it says.
        properties: further properties of the compiled model, as OpenVINO names them; none of those
            that the other settings decide.
    """

    device: str = Field(default="CPU", min_length=1)
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    properties: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _decided_once(self) -> OpenVinoSettings:
        decided = [name for name in self.properties if name in self._decided]
        if decided:
            raise ValueError(
                f"'properties.{decided[0]}' is decided by 'threads', 'inference_precision' or "
                "'device'; set that, and leave the property out"
            )
        return self

    @property
    def runs_in_one_thread(self) -> bool:
        """With one thread, the CPU device works in the thread that asks for a run."""
        return self.threads == 1 and self.device == "CPU"

    @property
    def configuration(self) -> dict[str, Any]:
        """Properties of the compiled model."""
        return self._decided | dict(self.properties)

    @property
    def _decided(self) -> dict[str, Any]:
        """Properties that follow from the other settings."""
        chosen: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.inference_precision,
        }
        if self.device == "CPU":
            chosen |= {
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": self.threads,
                # A pinned thread waits for whatever else runs on its core.
                "ENABLE_CPU_PINNING": False,
            }
        return chosen


def import_openvino() -> Any:
    """The module.

    Raises:
        TargetError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise TargetError(
            f"the backend 'openvino' needs the package openvino ({one_line(error)}); "
            "pip install 'actcc[openvino]'"
        ) from error
    return openvino


def version(openvino: Any) -> str:
    """Release and build, such as "2026.4.1-22982"."""
    return "-".join(str(openvino.get_version()).split("-")[:2])


def tool_text(settings: OpenVinoSettings) -> str:
    """Version and all settings that decide a latency, and the device's name.

    Raises:
        TargetError: OpenVINO is not installed, or has no such device here.
    """
    openvino = import_openvino()
    core = openvino.Core()
    name = _device_name(core, settings.device)
    further = "".join(f", {key}={value}" for key, value in sorted(settings.properties.items()))
    return (
        f"openvino {version(openvino)}, {settings.device}, {settings.inference_precision}"
        f"{further}, {settings.text}, {name}"
    )


def _device_name(core: Any, device: str) -> str:
    """The full name of a device.

    One of its kind is listed as "GPU", and "GPU.0" names it too; several are listed as "GPU.0" and
    "GPU.1", and "GPU" names the first.

    Raises:
        TargetError: OpenVINO has no such device here.
    """
    known = list(core.available_devices)
    kinds = [name.partition(".")[0] for name in known]
    if device in known or device in kinds or device.partition(".")[0] in known:
        own = device == "CPU"
        return processor_name() if own else str(core.get_property(device, "FULL_DEVICE_NAME"))
    raise TargetError(
        f"OpenVINO has no device '{device}' on this machine; "
        f"it has: {', '.join(known)}; name one of these in 'settings.device'"
    )


def compile_model(
    source: SessionSource,
    shapes: Mapping[str, tuple[int, ...]],
    settings: OpenVinoSettings,
    **properties: Any,
) -> Any:
    """An `openvino.CompiledModel` of an ONNX model at fixed input shapes.

    Args:
        source: from `actcc.runtime.session_source`.
        shapes: of all inputs, by name.
        properties: beside those of the settings.

    Raises:
        ModelError: OpenVINO cannot read or compile the model.
    """
    with _loading() as core:
        return _compiled(core, core.read_model(source), shapes, settings, **properties)


def open_model(source: SessionSource, settings: OpenVinoSettings) -> ModelRun:
    """A function from a model's inputs to its outputs; compiled anew for other shapes of inputs.

    Args:
        source: as for `compile_model`.

    Raises:
        ModelError: OpenVINO cannot read the model, and from a run: it cannot compile or run it.
    """
    with _loading() as core:
        model = core.read_model(source)
    # Compiled, an output behind an Identity has the names of both its ends.
    names = [output.get_any_name() for output in model.outputs]

    @lru_cache(maxsize=_SHAPES_KEPT)
    def request(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Any:
        with _loading() as core:
            compiled = _compiled(core, model.clone(), dict(shapes), settings)
        return compiled.create_infer_request()

    return lambda feeds: run_request(
        request(tuple((name, array.shape) for name, array in feeds.items())), names, feeds
    )


def run_request(request: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of one run of an `openvino.InferRequest`, by name, in the model's order.

    They are copies, which the next run leaves alone.

    Args:
        names: of the outputs.

    Raises:
        ModelError: OpenVINO refuses the feeds or fails while running.
    """
    try:
        found = request.infer(dict(feeds))
        return {name: np.array(value) for name, value in zip(names, found.values(), strict=True)}
    except Exception as error:  # OpenVINO raises RuntimeError and pybind's TypeError alike
        raise ModelError(
            f"OpenVINO cannot run the model ({reason(error)}); "
            "check the shapes and types that are fed"
        ) from error


@contextlib.contextmanager
def _loading() -> Iterator[Any]:
    """An `openvino.Core`, whose errors are those of a model that cannot be loaded."""
    openvino = import_openvino()
    try:
        yield openvino.Core()
    except Exception as error:  # OpenVINO raises RuntimeError and pybind's TypeError alike
        raise ModelError(
            f"OpenVINO cannot load the model ({reason(error)}); "
            f"see whether it loads in OpenVINO {version(openvino)} by itself"
        ) from error


def _compiled(
    core: Any,
    model: Any,
    shapes: Mapping[str, tuple[int, ...]],
    settings: OpenVinoSettings,
    **properties: Any,
) -> Any:
    """See `compile_model`; the model is changed."""
    open_shapes = {
        name: shapes[name]
        for entry in model.inputs
        for name in entry.get_names()
        if name in shapes and entry.get_partial_shape().is_dynamic
    }
    if open_shapes:
        model.reshape(open_shapes)
    return core.compile_model(model, settings.device, {**settings.configuration, **properties})


def import_model(exported: bytes, settings: OpenVinoSettings) -> Any:
    """An `openvino.CompiledModel` from what `export_model` of one gave.

    Raises:
        ModelError: OpenVINO cannot read it back.
    """
    openvino = import_openvino()
    try:
        return openvino.Core().import_model(exported, settings.device, settings.configuration)
    except Exception as error:  # OpenVINO raises RuntimeError and pybind's TypeError alike
        raise ModelError(
            f"OpenVINO cannot read back the model that it compiled ({reason(error)}); "
            "see whether the device can export models, or choose another in 'settings.device'"
        ) from error


def request_for(compiled: Any, values: Mapping[str, Any]) -> Any:
    """An `openvino.InferRequest` that is fed and has run once.

    Args:
        values: `openvino.Tensor` by input name.

    Raises:
        PricingError: OpenVINO refuses the values or fails while running.
    """
    request = compiled.create_infer_request()
    try:
        for entry in compiled.inputs:
            request.set_tensor(entry, next(values[n] for n in entry.get_names() if n in values))
        request.infer(share_outputs=True)
    except Exception as error:  # OpenVINO raises RuntimeError, pybind's TypeError, StopIteration
        raise PricingError(
            f"OpenVINO cannot run it on the values that it was fed ({reason(error)}); "
            "give samples that make sense to it with --calib"
        ) from error
    return request


def runner(request: Any) -> Run:
    """A function that runs the request once; outputs are not copied."""
    return partial(request.infer, share_outputs=True)


def reason(error: Exception) -> str:
    """What an OpenVINO error says, in one line, without the places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(_OF_ITS_SOURCE)]
    return one_line(RuntimeError(" ".join(said))) if said else one_line(error)
