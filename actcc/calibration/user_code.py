"""Functions of the user's own, given as `file.py:function`."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from actcc.calibration.model_input import ModelInput
from actcc.calibration.sample import Sample
from actcc.errors import ActccError, DataError
from actcc.pass_api import load_module


def is_function(specification: str) -> bool:
    """Whether it reads `file.py:function`."""
    return specification.rpartition(":")[0].endswith(".py")


def load_function(specification: str, purpose: str, parameters: tuple[str, ...]) -> Any:
    """The function that `file.py:function` names.

    Args:
        purpose: what it is for, in messages: "metric".
        parameters: what it is called with, positionally.

    Raises:
        DataError: no such file or function, the file raises, or the function takes something else.
    """
    path, _, name = specification.rpartition(":")
    if not path.endswith(".py") or not name:
        raise DataError(f"'{specification}' names no {purpose}; write it as file.py:function")
    try:
        module = load_module(Path(path), purpose)
    except ActccError as error:
        raise DataError(str(error)) from error
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        known = ", ".join(there) or "none"
        raise DataError(f"{path}: no function '{name}' for the {purpose}; it has: {known}")
    call = f"{name}({', '.join(parameters)})"
    try:
        signature = inspect.signature(function)
    except ValueError:  # made of a builtin, which does not say what it takes
        return function
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise DataError(
            f"{specification}: the {purpose} cannot be called as {call} ({error}); "
            f"define it as def {call}"
        ) from error
    return function


def one_line(error: BaseException) -> str:
    """Type, message and innermost line of an exception of the user's code."""
    message = " ".join(str(error).split())
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{said}, at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else said


def samples_of_function(
    specification: str, inputs: Mapping[str, ModelInput], limit: int | None
) -> Iterator[Sample]:
    """The first `limit` samples that a user's function gives, or all.

    Raises:
        DataError: the function cannot be loaded or called, raises, or gives what does not fit.
    """
    function = load_function(specification, "calibration data", ())
    values = _guarded(specification, function)
    yield from samples_of_values(values, specification, inputs, limit)


def _guarded(specification: str, function: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    try:
        values = function()
        if isinstance(values, Mapping):
            raise TypeError("it returned a dict, which is one sample; return a list of them")
        yield from values
    except Exception as error:  # whatever the user's function raises
        raise DataError(
            f"{specification} raised {one_line(error)}; it must return an iterable of samples"
        ) from error


def samples_of_values(
    values: Iterable[Any], source: str, inputs: Mapping[str, ModelInput], limit: int | None
) -> Iterator[Sample]:
    """Samples from dicts, (inputs, annotations) pairs, single arrays, or samples.

    Raises:
        DataError: naming the first that does not fit.
    """
    for index, value in enumerate(islice(values, limit)):
        where = f"{source}#{index}"
        if isinstance(value, Sample):
            name, fed, annotations = value.name, value.inputs, value.annotations
        elif isinstance(value, tuple) and len(value) == 2:
            name, (fed, annotations) = where, value
        else:
            name, fed, annotations = where, value, {}
        if isinstance(fed, np.ndarray) and len(inputs) == 1:
            fed = {next(iter(inputs)): fed}
        yield Sample(name, _inputs(fed, where, inputs), _annotations(annotations, where))


def _inputs(value: object, where: str, inputs: Mapping[str, ModelInput]) -> dict[str, Any]:
    names = ", ".join(f"'{name}'" for name in inputs)
    if not isinstance(value, Mapping):
        raise DataError(
            f"{where}: a sample is a {type(value).__name__}; give a dict with an array for each "
            f"input ({names}), or a pair of it and a dict of annotations"
        )
    wrong = [name for name in inputs if name not in value] or [n for n in value if n not in inputs]
    if wrong:
        problem = "is missing" if wrong[0] in inputs else "is no input"
        raise DataError(f"{where}: '{wrong[0]}' {problem}; the model's inputs are {names}")
    return {name: entry.check(value[name], where) for name, entry in inputs.items()}


def _annotations(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: annotations are a {type(value).__name__}; give a dict of arrays")
    return {str(key): np.asarray(entry) for key, entry in value.items()}
