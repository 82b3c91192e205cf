"""A network in int8 as the device loads it, and as this machine runs it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.errors import PricingError
from actcc.graph import Array
from actcc.prices import Timing
from actcc.runtime import ModelRun

_LOWEST, _HIGHEST = -128, 127


def runs_here() -> bool:
    """Whether LiteRT, which runs TFLite files on this machine, is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


@dataclass(frozen=True)
class TfliteModel:
    """An ONNX network as a TFLite file; picklable.

    Attributes:
        content: of the .tflite file, whose inputs are int8, and whose outputs int8 or int16.
        compiled: what the device's compiler makes of it.
        timing: what the compiler says of it.
        inputs, outputs: names in the ONNX network, in order.
        orders: the ONNX axis at each position in which an input or output is stored, by name.
    """

    content: bytes
    compiled: bytes
    timing: Timing
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    orders: Mapping[str, tuple[int, ...]]

    def open(self) -> ModelRun:
        """The network with real values in the layout of ONNX, run by LiteRT.

        The delegate for CPUs is left out: it rounds in its own way, the plain kernels as the
        specification and the device do.

        Raises:
            PricingError: LiteRT has no kernel for an operator.
        """
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            interpreter = Interpreter(
                model_content=self.content, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:  # whatever the extension raises
            reason = " ".join(str(error).split())
            raise PricingError(
                f"LiteRT cannot run the network in int8: {reason}; use --precision float"
            ) from error

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            for name, place in zip(self.inputs, interpreter.get_input_details(), strict=True):
                values = feeds[name].transpose(self.orders[name])
                interpreter.set_tensor(place["index"], _stored(values, place))
            interpreter.invoke()
            found: dict[str, Array] = {}
            for name, place in zip(self.outputs, interpreter.get_output_details(), strict=True):
                values = _real(interpreter.get_tensor(place["index"]), place)
                found[name] = values.transpose(np.argsort(self.orders[name]))
            return found

        return run


def _stored(values: Array, place: Mapping[str, Any]) -> Array:
    scale, zero_point = place["quantization"]
    stored = np.round(values / scale) + zero_point
    clipped: Array = np.clip(stored, _LOWEST, _HIGHEST).astype(np.int8)
    return clipped


def _real(stored: Array, place: Mapping[str, Any]) -> Array:
    scale, zero_point = place["quantization"]
    values: Array = (stored.astype(np.float32) - zero_point) * np.float32(scale)
    return values
