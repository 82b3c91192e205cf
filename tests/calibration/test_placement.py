"""Where an image lies in the input: known cases of the projects that made the models, and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcc.calibration import BUILT_IN, Preprocessing
from actcc.calibration.placement import Placement, place

sides = st.integers(1, 2000)
inputs = st.integers(8, 700)


@pytest.mark.parametrize(
    ("name", "image", "size", "expected"),
    [
        ("yolox", (480, 640), (416, 416), Placement(0, 0, 312, 416)),
        ("yolox", (500, 375), (416, 416), Placement(0, 0, 416, 312)),
        ("yolox", (425, 640), (416, 416), Placement(0, 0, 276, 416)),  # 276.25
        ("yolox", (427, 640), (640, 640), Placement(0, 0, 427, 640)),
        ("yolo", (480, 640), (640, 640), Placement(80, 0, 480, 640)),
        ("yolo", (427, 640), (640, 640), Placement(106, 0, 427, 640)),
        ("yolo", (361, 640), (416, 416), Placement(90, 0, 235, 416)),  # 234.65
        ("imagenet", (227, 227), (224, 224), Placement(-16, -16, 256, 256)),
        ("imagenet", (375, 500), (224, 224), Placement(-16, -58, 256, 341)),
        ("imagenet", (500, 375), (224, 224), Placement(-58, -16, 341, 256)),
        ("unit", (100, 300), (224, 320), Placement(0, 0, 224, 320)),
    ],
)
def test_images_lie_where_the_original_projects_put_them(
    name: str, image: tuple[int, int], size: tuple[int, int], expected: Placement
) -> None:
    assert place(BUILT_IN[name], image, size) == expected


@given(sides, sides, inputs, inputs, st.sampled_from(["yolo", "yolox"]))
def test_a_letterboxed_image_fills_one_side_and_keeps_its_aspect_ratio(
    height: int, width: int, rows: int, columns: int, name: str
) -> None:
    found = place(BUILT_IN[name], (height, width), (rows, columns))
    assert found.height == rows or found.width == columns
    assert 0 <= found.top <= rows - found.height
    assert 0 <= found.left <= columns - found.width
    scale = min(rows / height, columns / width)
    assert abs(found.height - height * scale) <= 1
    assert abs(found.width - width * scale) <= 1


@given(sides, sides, inputs, inputs)
def test_a_centred_letterbox_has_equal_bars_up_to_a_pixel(
    height: int, width: int, rows: int, columns: int
) -> None:
    found = place(BUILT_IN["yolo"], (height, width), (rows, columns))
    assert 0 <= rows - found.height - 2 * found.top <= 1
    assert 0 <= columns - found.width - 2 * found.left <= 1


@given(sides, sides, inputs, inputs, st.floats(0.3, 1.0))
def test_a_centre_crop_covers_the_whole_input(
    height: int, width: int, rows: int, columns: int, ratio: float
) -> None:
    profile = Preprocessing(name="crop", resize="center-crop", crop_ratio=ratio)
    found = place(profile, (height, width), (rows, columns))
    assert found.top <= 0
    assert found.left <= 0
    assert found.top + found.height >= rows
    assert found.left + found.width >= columns
