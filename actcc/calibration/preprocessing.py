"""Preprocessing profiles: how an image becomes a model's input. Built-in ones, or a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from actcc.errors import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Preprocessing(BaseModel):
    """How an image becomes a model's input: resized, reordered, then (pixel · scale − mean) / std.

    Size, layout and element type are the model's.

    Attributes:
        name: what `--preprocess` takes, or the name of the TOML file.
        description: one line for people.
        resize: `stretch` to the input's size; `letterbox`: keep the aspect ratio and pad;
            `center-crop`: resize to cover the input's size / `crop_ratio`, then cut out its middle.
        position: where a letterboxed image lies.
        pad: pixel value around a letterboxed image.
        crop_ratio: side of the crop relative to the resized image.
        interpolation: of the resize.
        antialias: widen the filter when shrinking, as Pillow and torchvision do; OpenCV does not.
        channels: order of the colours, or `gray` for one channel.
        scale: factor on pixel values of 0 to 255.
        mean: subtracted after scaling; one value a channel in the order of `channels`, or one.
        std: divided by at the end; like `mean`.
        layout: where the channels are; `auto` finds the axis of 1 or 3.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    description: str = ""
    resize: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    position: Literal["center", "upper-left"] = "center"
    pad: int = Field(default=114, ge=0, le=255)
    crop_ratio: float = Field(default=0.875, gt=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "lanczos"] = "bilinear"
    antialias: bool = True
    channels: Literal["RGB", "BGR", "gray"] = "RGB"
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Preprocessing:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if len(values) not in (0, 1, self.channel_count):
                raise ValueError(
                    f"{key} has {len(values)} values; give 1 or {self.channel_count}, "
                    f"one for each channel of {self.channels}"
                )
        if any(value <= 0 for value in self.std):
            raise ValueError("std must be above 0")
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"{self.interpolation} is there with antialias only")
        return self

    @property
    def channel_count(self) -> int:
        """1 or 3."""
        return 1 if self.channels == "gray" else 3

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value that a pixel of 0 to 255 can become."""
        means, deviations = self.mean or (0.0,), self.std or (1.0,)
        count = max(len(means), len(deviations))
        pairs = [(means[c % len(means)], deviations[c % len(deviations)]) for c in range(count)]
        lowest = min((0.0 - mean) / deviation for mean, deviation in pairs)
        highest = max((255 * self.scale - mean) / deviation for mean, deviation in pairs)
        return lowest, highest


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

BUILT_IN: Mapping[str, Preprocessing] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Preprocessing(
                name="yolox",
                description="BGR 0–255, letterbox to the upper left, pad 114",
                resize="letterbox",
                position="upper-left",
                antialias=False,
                channels="BGR",
            ),
            Preprocessing(
                name="yolo",
                description="RGB / 255, letterbox in the centre, pad 114",
                resize="letterbox",
                antialias=False,
                scale=1 / 255,
            ),
            Preprocessing(
                name="imagenet",
                description="RGB / 255, centre crop of 87.5 %, ImageNet's mean and std",
                resize="center-crop",
                scale=1 / 255,
                mean=_IMAGENET_MEAN,
                std=_IMAGENET_STD,
            ),
            Preprocessing(
                name="imagenet-raw",
                description="RGB 0–255, centre crop of 87.5 %; the model normalizes or is uint8",
                resize="center-crop",
            ),
            Preprocessing(
                name="unit",
                description="RGB / 255, stretched to the input's size",
                scale=1 / 255,
            ),
        )
    }
)


def describe_built_in() -> str:
    """The built-in profiles in one line: name and what each does."""
    return "; ".join(f"{name} ({found.description})" for name, found in BUILT_IN.items())


def load_preprocessing(specification: str | Path | Preprocessing) -> Preprocessing:
    """A profile by built-in name or by path of a TOML file.

    A TOML file may say `extends = "yolox"` and then only what differs.

    Raises:
        DataError: unknown name, missing file, invalid TOML, or a field that does not fit.
    """
    if isinstance(specification, Preprocessing):
        return specification
    text = str(specification)
    if not text.endswith(".toml"):
        if text not in BUILT_IN:
            raise DataError(
                f"unknown preprocessing '{text}'; known: {describe_built_in()}; "
                "or give a path to a .toml"
            )
        return BUILT_IN[text]
    path = Path(text)
    if not path.is_file():
        raise DataError(f"{path}: no such preprocessing file; give a .toml file or a built-in name")
    return _read(path)


def _read(path: Path) -> Preprocessing:
    try:
        with path.open("rb") as file:
            own: dict[str, Any] = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML ({error}); correct that line") from error
    parent = own.pop("extends", None)
    if parent is not None and parent not in BUILT_IN:
        raise DataError(f"{path}: extends '{parent}', which is none of {', '.join(BUILT_IN)}")
    base = {} if parent is None else BUILT_IN[parent].model_dump(exclude={"description"})
    try:
        return Preprocessing(**{**base, "name": path.stem, **own})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        fields = ", ".join(Preprocessing.model_fields)
        subject = f"'{where}': " if where else ""
        raise DataError(f"{path}: {subject}{reason}; the fields are {fields}") from error
