"""Preprocessing profiles: built-in names, TOML files, and what is refused."""

from pathlib import Path

import pytest

from actcc.calibration import BUILT_IN, Preprocessing, load_preprocessing
from actcc.errors import DataError


def test_built_in_profiles_are_known_by_their_names() -> None:
    assert list(BUILT_IN) == ["yolox", "yolo", "imagenet", "imagenet-raw", "unit"]
    assert load_preprocessing("yolox").channels == "BGR"
    assert load_preprocessing("imagenet").mean == (0.485, 0.456, 0.406)


def test_a_profile_is_given_back_as_it_is() -> None:
    profile = Preprocessing(name="mine")
    assert load_preprocessing(profile) is profile


def test_a_toml_file_extends_a_built_in_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "yolox"\npad = 0\nchannels = "RGB"\n')
    found = load_preprocessing(path)
    assert found == BUILT_IN["yolox"].model_copy(
        update={"name": "mine", "description": "", "pad": 0, "channels": "RGB"}
    )


def test_a_toml_file_can_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'resize = "letterbox"\nposition = "center"\npad = 0\ninterpolation = "bicubic"\n'
        'channels = "gray"\nscale = 0.0078125\nmean = [1.0]\nstd = [0.5]\nlayout = "NHWC"\n'
    )
    found = load_preprocessing(str(path))
    assert found.value_range == pytest.approx((-2.0, 1.984375))
    assert (found.name, found.layout, found.channel_count) == ("mine", "NHWC", 1)


def test_an_unknown_name_lists_the_known_ones_and_what_each_does() -> None:
    with pytest.raises(DataError, match=r"unknown preprocessing 'resnet'.*yolox \(BGR 0–255"):
        load_preprocessing("resnet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scale = ", "not valid TOML"),
        ('resise = "stretch"', "'resise': Extra inputs are not permitted; the fields are"),
        ("pad = 300", "'pad': Input should be less than or equal to 255"),
        ("mean = [0.1, 0.2]", "mean has 2 values; give 1 or 3"),
        ('channels = "gray"\nstd = [0.1, 0.2, 0.3]', "std has 3 values; give 1 or 1"),
        ("std = [0.1, 0.0, 0.1]", "std must be above 0"),
        ('antialias = false\ninterpolation = "area"', "area is there with antialias only"),
        ('extends = "resnet"', "extends 'resnet', which is none of yolox"),
    ],
)
def test_a_wrong_toml_file_is_refused_with_the_field_and_the_reason(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_preprocessing(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_toml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such preprocessing file"):
        load_preprocessing(tmp_path / "absent.toml")
