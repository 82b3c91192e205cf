"""Target profiles: one TOML file a target, read and checked here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actcc.errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).parent

Checked = TypeVar("Checked", bound=BaseModel)


class Profile(BaseModel):
    """A target profile.

    Attributes:
        name: what `--target` takes.
        description: one line for `actcc targets`.
        backend: what prices for it.
        settings: the backend's own section, checked by the backend.
        abstract: only a base that other profiles extend; not a target itself.
        folder: of the file, from which the settings' relative paths start; no field of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    description: str
    backend: str
    settings: dict[str, Any] = Field(default_factory=dict)
    abstract: bool = False
    folder: Path | None = Field(default=None, exclude=True)


def built_in_profiles() -> list[Profile]:
    """The profiles that come with actcc, by name, without the abstract ones."""
    profiles = [_read(path, ()) for path in sorted(_FOLDER.glob("*.toml"))]
    return [profile for profile in profiles if not profile.abstract]


def load_profile(name_or_path: str | Path) -> Profile:
    """A profile by built-in name or by path.

    Raises:
        TargetError: unknown name, missing file, invalid TOML, or a field that does not fit.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise TargetError(f"{path}: no such target profile; give a .toml file or a name")
        return _read(path, ())
    known = {profile.name: profile for profile in built_in_profiles()}
    if text not in known:
        names = ", ".join(known)
        raise TargetError(f"unknown target '{text}'; known: {names}, or give a path to a .toml")
    return known[text]


def _read(path: Path, extended_by: tuple[Path, ...]) -> Profile:
    values = dict(_tables(path, extended_by))
    if "folder" in values:
        raise TargetError(f"{path}: 'folder': is no field of a profile; see docs/targets.md")
    return _checked(Profile, {**values, "folder": path.parent}, str(path))


def checked_settings(kind: type[Checked], profile: Profile) -> Checked:
    """The section `[settings]` of a profile, checked by its backend's type.

    Raises:
        TargetError: a field is missing, unknown, or does not fit.
    """
    return _checked(kind, profile.settings, f"target '{profile.name}'", "settings")


def _checked(kind: type[Checked], values: Mapping[str, Any], source: str, *above: str) -> Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (*above, *first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise TargetError(
            f"{source}: '{where}': {message}; correct the profile, see docs/targets.md"
        ) from error


def _tables(path: Path, extended_by: tuple[Path, ...]) -> Mapping[str, Any]:
    """The file's tables laid over those of the profile that it extends."""
    if path in extended_by:
        raise TargetError(f"{path}: 'extends' goes in a circle; remove one of them")
    try:
        with path.open("rb") as file:
            own: dict[str, Any] = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: not valid TOML ({error}); correct that line") from error
    parent = own.pop("extends", None)
    if parent is None:
        return own
    beside = path.parent / f"{parent}.toml"
    source = beside if beside.is_file() else _FOLDER / f"{parent}.toml"
    if not source.is_file():
        raise TargetError(f"{path}: extends '{parent}', which is no profile; name one that is")
    inherited = {**_tables(source, (*extended_by, path)), "abstract": False}
    return _merge(inherited, own)


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
