"""Models in which numbers and names were replaced by ones that make no sense.

Flipped bytes mostly break the format; these files all parse.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import onnx
from damaged_files import DamagedFile

from actcc.graph.files import is_repeated

_NUMBERS = (-1, 0, -5, 2, 7, 2**31, 2**40, 2**50, 2**62, 2**63 - 1, -(2**63))
_KINDS = (0, 1, 2, 3, 6, 7, 8, 10, 16, 18, 22, 23)  # element and attribute types
_NAMES = ("", "Conv", "If", "Loop", "Reshape")
_LEFT_ALONE = ("ir_version", "version")  # refused before anything else is looked at

Place = tuple[Any, Any, "int | None"]


def altered_files(model: onnx.ModelProto, count: int, seed: int) -> Iterator[DamagedFile]:
    """Copies of a model with one to three numbers, types or names replaced."""
    generator = random.Random(seed)
    for number in range(count):
        altered = onnx.ModelProto()
        altered.CopyFrom(model)
        places = list(_places(altered))
        names = [*_NAMES, *(_value(place) for place in places if _is_text(place))]
        done = []
        for place in generator.sample(places, generator.choice((1, 1, 1, 2, 3))):
            value = _replacement(place, generator, names)
            _replace(place, value)
            done.append(f"{place[1].full_name} = {value!r}")
        skip = ("--skip", "simplify") if number % 10 else ()
        name = f"{number}: {', '.join(done)}"
        yield DamagedFile(name, altered.SerializeToString(), "optimize", skip)


def _places(message: Any) -> Iterator[Place]:
    """Every integer, enumeration value and text in a message, with its index where it repeats."""
    for field in message.DESCRIPTOR.fields:
        if field.name in _LEFT_ALONE:
            continue
        if field.type == field.TYPE_MESSAGE:
            inside = getattr(message, field.name)
            if is_repeated(field) or message.HasField(field.name):
                for inner in inside if is_repeated(field) else (inside,):
                    yield from _places(inner)
        elif field.type in (field.TYPE_INT64, field.TYPE_INT32, field.TYPE_ENUM, field.TYPE_STRING):
            if is_repeated(field):
                for index in range(len(getattr(message, field.name))):
                    yield message, field, index
            elif message.HasField(field.name):
                yield message, field, None


def _is_text(place: Place) -> bool:
    return bool(place[1].type == place[1].TYPE_STRING)


def _value(place: Place) -> Any:
    message, field, index = place
    held = getattr(message, field.name)
    return held if index is None else held[index]


def _replacement(place: Place, generator: random.Random, names: list[str]) -> Any:
    field = place[1]
    if _is_text(place):
        return generator.choice(names)
    if field.type == field.TYPE_ENUM:
        return generator.choice(tuple(value.number for value in field.enum_type.values))
    return generator.choice(_NUMBERS if field.type == field.TYPE_INT64 else _KINDS)


def _replace(place: Place, value: Any) -> None:
    message, field, index = place
    if index is None:
        setattr(message, field.name, value)
    else:
        getattr(message, field.name)[index] = value
