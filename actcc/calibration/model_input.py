"""What a model expects of its inputs, and whether an array fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.errors import DataError
from actcc.graph import Array, Graph, Shape


@dataclass(frozen=True)
class ModelInput:
    """One input.

    Attributes:
        dtype: numpy's; `object` for strings.
        shape: with the numbers that `--shape` has bound; symbols or None elsewhere.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first axis takes any number of samples."""
        return bool(self.shape) and not isinstance(self.shape[0], int)

    @property
    def takes_one(self) -> bool:
        """Whether one sample can be fed with a batch axis of 1."""
        return bool(self.shape) and (self.has_dynamic_batch or self.shape[0] == 1)

    def accepts(self, shape: tuple[int, ...], *, skip: int = 0) -> bool:
        """Whether a shape fits; the input's first `skip` axes are left aside."""
        wanted = self.shape[skip:]
        return len(wanted) == len(shape) and all(
            not isinstance(w, int) or w == s for w, s in zip(wanted, shape, strict=True)
        )

    def accepts_type(self, dtype: np.dtype[Any]) -> bool:
        """Whether arrays of that type can be fed as they are, byte order aside."""
        if self.dtype == np.dtype(object):
            return dtype.kind in "OUS"
        return bool(dtype.newbyteorder("=") == self.dtype)

    def __str__(self) -> str:
        one = (1, *self.shape[1:]) if self.has_dynamic_batch else self.shape
        return f"{_type_name(self.dtype)} {format_shape(one)}"

    def check(self, value: object, where: str) -> Array:
        """The value if it can be fed for one sample, in native byte order.

        Raises:
            DataError: no array, another type, rank or shape, or NaN or infinity in it.
        """
        if not isinstance(value, np.ndarray | np.generic):
            raise DataError(
                f"{where}: '{self.name}' is a {type(value).__name__}; give a numpy array, {self}"
            )
        array = np.asarray(value)
        if not (self.accepts(array.shape) and self.accepts_type(array.dtype)):
            raise DataError(
                f"{where}: '{self.name}' is {describe_array(array)}, the model expects {self} "
                f"per sample; {self.remedy(array.dtype)}"
            )
        return self.check_values(array, where)

    def check_values(self, array: Array, where: str) -> Array:
        """The array in native byte order; raises DataError where it holds NaN or infinity."""
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"{where}: '{self.name}' holds NaN or infinity; correct or leave out that sample"
            )
        if array.dtype.kind in "US":
            return array.astype(object)
        native: Array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        return native

    def remedy(self, found: np.dtype[Any]) -> str:
        """What to do about an array of another shape or type."""
        if not self.accepts_type(found):
            return (
                f"convert it with .astype('{_type_name(self.dtype)}') and the model's own scaling"
            )
        return "reshape it"


def model_inputs(graph: Graph) -> dict[str, ModelInput]:
    """All inputs that a caller has to feed, by name.

    Raises:
        DataError: an input is no tensor, or its rank is unknown.
    """
    found = {}
    for tensor in graph.inputs:
        shape, dtype = graph.shape(tensor), graph.dtype(tensor)
        if shape is None or dtype is None:
            raise DataError(
                f"input '{tensor.name}' is no tensor of a known type and rank, so that no sample "
                "can be made for it; export the model with its input shapes"
            )
        found[tensor.name] = ModelInput(tensor.name, dtype, shape)
    return found


def format_shape(shape: Shape) -> str:
    """`[1,3,224,224]`; unknown dimensions are `?`."""
    return f"[{','.join('?' if d is None else str(d) for d in shape)}]"


def describe_array(array: Array) -> str:
    """Type and shape: `float64 [100,28,28]`."""
    return f"{_type_name(array.dtype)} {format_shape(array.shape)}"


def _type_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind in "OUS" else dtype.name
