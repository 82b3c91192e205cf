"""Writing a network as a TFLite file, with the schema classes that come with Vela.

Format: TensorFlow Lite schema, version 3 (file identifier TFL3).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flatbuffers
import numpy as np

from actcc.backends.ethos_u.network import FlatNetwork, FlatOperator, FlatTensor, Quantization

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
# Version of each operator that knows int8; what is not here is of version 1.
_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "ABS": 2,
        "ADD": 2,
        "AVERAGE_POOL_2D": 2,
        "BATCH_MATMUL": 2,
        "CONCATENATION": 2,
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 3,
        "EXP": 2,
        "FULLY_CONNECTED": 5,
        "GELU": 2,
        "LEAKY_RELU": 2,
        "LOG": 2,
        "LOGISTIC": 2,
        "MAXIMUM": 2,
        "MAX_POOL_2D": 2,
        "MEAN": 2,
        "MINIMUM": 2,
        "MUL": 2,
        "PAD": 2,
        "PADV2": 2,
        "QUANTIZE": 2,
        "RELU": 2,
        "RELU6": 2,
        "RESIZE_BILINEAR": 3,
        "RESIZE_NEAREST_NEIGHBOR": 3,
        "SOFTMAX": 2,
        "SPLIT_V": 2,
        "STRIDED_SLICE": 2,
        "SUB": 2,
        "TANH": 2,
        "TRANSPOSE": 2,
        "TRANSPOSE_CONV": 3,
    }
)
_TYPES: Mapping[type, str] = MappingProxyType(
    {np.int8: "INT8", np.int16: "INT16", np.int32: "INT32", np.int64: "INT64"}
)


def schema(name: str) -> Any:
    """The module of one table or enumeration of the TFLite schema."""
    return importlib.import_module(f"ethosu.vela.tflite.{name}")


def enumeration(name: str, value: str) -> int:
    """The number of an enumeration's value."""
    return int(getattr(getattr(schema(name), name), value))


def write_flatbuffer(network: FlatNetwork) -> bytes:
    """The network as the bytes of a .tflite file; equal networks give equal bytes."""
    return _Writer(network).model()


class _Writer:
    def __init__(self, network: FlatNetwork) -> None:
        self._network = network
        self._builder: Any = flatbuffers.Builder(1 << 20)
        self._codes = tuple(dict.fromkeys(operator.code for operator in network.operators))

    def model(self) -> bytes:
        """All tables, from the leaves to the root."""
        build, table = self._builder, schema("Model")
        buffers = self._offsets(table.StartBuffersVector, self._buffers())
        subgraphs = self._offsets(table.StartSubgraphsVector, [self._subgraph()])
        codes = self._offsets(table.StartOperatorCodesVector, [self._code(c) for c in self._codes])
        description = build.CreateString("actcc")
        table.Start(build)
        table.AddVersion(build, _SCHEMA_VERSION)
        table.AddOperatorCodes(build, codes)
        table.AddSubgraphs(build, subgraphs)
        table.AddDescription(build, description)
        table.AddBuffers(build, buffers)
        build.Finish(table.End(build), _IDENTIFIER)
        return bytes(build.Output())

    def _buffers(self) -> list[int]:
        """An empty buffer for everything that is computed, then one for each constant."""
        constants = [t.data for t in self._network.tensors if t.data is not None]
        return [self._buffer(None), *(self._buffer(np.ascontiguousarray(c)) for c in constants)]

    def _buffer(self, data: Any) -> int:
        build, table = self._builder, schema("Buffer")
        content = None
        if data is not None:
            raw = data.tobytes()
            # Readers map the file and use constants where they lie.
            build.Prep(_ALIGNMENT, len(raw))
            content = build.CreateByteVector(raw)
        table.Start(build)
        if content is not None:
            table.AddData(build, content)
        return int(table.End(build))

    def _subgraph(self) -> int:
        build, table, network = self._builder, schema("SubGraph"), self._network
        constant = (tensor.data is not None for tensor in network.tensors)
        places, count = [], 0
        for held in constant:
            count += held
            places.append(count if held else 0)
        tensors = [self._tensor(t, p) for t, p in zip(network.tensors, places, strict=True)]
        tensor_vector = self._offsets(table.StartTensorsVector, tensors)
        operators = [self._operator(operator) for operator in network.operators]
        operator_vector = self._offsets(table.StartOperatorsVector, operators)
        inputs, outputs = self._integers(network.inputs), self._integers(network.outputs)
        name = build.CreateString("main")
        table.Start(build)
        table.AddTensors(build, tensor_vector)
        table.AddInputs(build, inputs)
        table.AddOutputs(build, outputs)
        table.AddOperators(build, operator_vector)
        table.AddName(build, name)
        return int(table.End(build))

    def _tensor(self, tensor: FlatTensor, buffer: int) -> int:
        build, table = self._builder, schema("Tensor")
        name, shape = build.CreateString(tensor.name), self._integers(tensor.shape)
        quantization = self._quantization(tensor.quantization)
        element = _TYPES[_element(tensor)]
        table.Start(build)
        table.AddShape(build, shape)
        table.AddType(build, enumeration("TensorType", element))
        table.AddBuffer(build, buffer)
        table.AddName(build, name)
        if quantization is not None:
            table.AddQuantization(build, quantization)
        return int(table.End(build))

    def _quantization(self, found: Quantization | None) -> int | None:
        if found is None:
            return None
        build, table = self._builder, schema("QuantizationParameters")
        scales = build.CreateNumpyVector(np.asarray(found.scales, np.float32))
        zeros = build.CreateNumpyVector(np.asarray(found.zero_points, np.int64))
        table.Start(build)
        table.AddScale(build, scales)
        table.AddZeroPoint(build, zeros)
        table.AddQuantizedDimension(build, found.axis)
        return int(table.End(build))

    def _operator(self, operator: FlatOperator) -> int:
        build, table = self._builder, schema("Operator")
        inputs, outputs = self._integers(operator.inputs), self._integers(operator.outputs)
        options = self._options(operator) if operator.table else None
        table.Start(build)
        table.AddOpcodeIndex(build, self._codes.index(operator.code))
        table.AddInputs(build, inputs)
        table.AddOutputs(build, outputs)
        if options is not None:
            table.AddBuiltinOptionsType(build, enumeration("BuiltinOptions", operator.table))
            table.AddBuiltinOptions(build, options)
        return int(table.End(build))

    def _options(self, operator: FlatOperator) -> int:
        build, table = self._builder, schema(operator.table)
        table.Start(build)
        for name, value in operator.options.items():
            getattr(table, f"Add{name}")(build, value)
        return int(table.End(build))

    def _code(self, code: str) -> int:
        build, table = self._builder, schema("OperatorCode")
        number = enumeration("BuiltinOperator", code)
        table.Start(build)
        # Readers of before 2020 know one byte only; 127 says that the wide field holds.
        table.AddDeprecatedBuiltinCode(build, min(number, 127))
        table.AddVersion(build, _VERSIONS.get(code, 1))
        table.AddBuiltinCode(build, number)
        return int(table.End(build))

    def _integers(self, values: Sequence[int]) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(values, np.int32)))

    def _offsets(self, start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
        start(self._builder, len(offsets))
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())


def _element(tensor: FlatTensor) -> type:
    if tensor.data is not None:
        found: type = tensor.data.dtype.type
        return found
    return np.int16 if tensor.quantization is not None and tensor.quantization.wide else np.int8
