"""Image folders: every step from the file to the array, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from actcc.calibration import BUILT_IN, Preprocessing, load_samples
from actcc.calibration.images import ImageInput, prepare
from actcc.errors import DataError

COLOR = (200, 100, 50)
NCHW = ("x", [1, 3, 4, 4])
RAW = Preprocessing(name="raw")


def first(data):
    return data[0].inputs["x"]


def test_images_of_all_kinds_and_subfolders_come_sorted_and_hidden_ones_do_not(
    model_with, write_image, tmp_path
) -> None:
    for name in ("b.png", "a.JPEG", "cats/2.webp", "cats/1.bmp", ".cache/0.png", "._a.jpg"):
        write_image(name) if not name.startswith("._") else (
            tmp_path / "images" / name
        ).write_bytes(b"resource fork")
    (tmp_path / "images" / "labels.csv").write_text("a.JPEG,1")
    data = load_samples(tmp_path / "images", model_with(NCHW), "unit")
    assert [sample.name for sample in data] == ["a.JPEG", "b.png", "cats/1.bmp", "cats/2.webp"]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (RAW, COLOR),
        (Preprocessing(name="bgr", channels="BGR"), COLOR[::-1]),
        (Preprocessing(name="unit", scale=1 / 255), [v / 255 for v in COLOR]),
        (
            Preprocessing(name="all", scale=0.01, mean=(0.5, 0.2, 0.1), std=(0.5, 2, 4)),
            [(2 - 0.5) / 0.5, (1 - 0.2) / 2, (0.5 - 0.1) / 4],
        ),
        (
            Preprocessing(name="order", channels="BGR", mean=(50, 0, 0)),
            [0, 100, 200],  # mean in the order of the channels
        ),
    ],
)
def test_pixels_are_reordered_scaled_and_normalized(
    model_with, write_image, tmp_path, profile, expected
) -> None:
    write_image("a.png", color=COLOR)
    found = first(load_samples(tmp_path / "images", model_with(NCHW), profile))
    assert found.shape == (1, 3, 4, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found[0], np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 4, 4)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_layout_and_type_are_the_models(model_with, write_image, tmp_path, element) -> None:
    write_image("a.png", color=COLOR)
    graph = model_with(("x", [1, 4, 5, 3]), element=element)
    found = first(load_samples(tmp_path / "images", graph, RAW))
    assert found.shape == (1, 4, 5, 3)
    assert found.dtype == graph.dtype("x")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[0, 2, 3], COLOR)


def test_a_gray_input_gets_one_channel(model_with, write_image, tmp_path) -> None:
    write_image("a.png", color=(90, 90, 90))
    profile = Preprocessing(name="gray", channels="gray")
    found = first(load_samples(tmp_path / "images", model_with(("x", [1, 1, 4, 4])), profile))
    np.testing.assert_array_equal(found, np.full((1, 1, 4, 4), 90, np.float32))


def test_a_dynamic_model_takes_the_shape_that_it_is_bound_to(
    model_with, write_image, tmp_path
) -> None:
    write_image("a.png")
    graph = model_with(("x", ["n", 3, "h", "w"]))
    with pytest.raises(
        DataError, match="of no fixed size; choose one, as with --shape x=1x3x224x224"
    ):
        load_samples(tmp_path / "images", graph, "unit")
    bound = graph.with_input_shapes({"x": (1, 3, 6, 10)})
    assert first(load_samples(tmp_path / "images", bound, "unit")).shape == (1, 3, 6, 10)


def test_a_dynamic_batch_gets_one_image(model_with, write_image, tmp_path) -> None:
    write_image("a.png")
    graph = model_with(("x", ["n", 3, 4, 4]))
    assert first(load_samples(tmp_path / "images", graph, "unit")).shape == (1, 3, 4, 4)


def test_a_letterbox_pads_around_the_image_and_the_sample_says_where_it_lies(
    model_with, write_image, tmp_path
) -> None:
    write_image("a.png", size=(8, 4), color=COLOR)
    data = load_samples(tmp_path / "images", model_with(("x", [1, 3, 8, 8])), "yolox")
    sample = data[0]
    pixels = sample.inputs["x"][0]
    np.testing.assert_array_equal(
        pixels[:, :4], np.broadcast_to(np.reshape(COLOR[::-1], (3, 1, 1)), (3, 4, 8))
    )
    np.testing.assert_array_equal(pixels[:, 4:], np.full((3, 4, 8), 114))
    np.testing.assert_array_equal(sample.annotations["image_size"], [4, 8])
    np.testing.assert_array_equal(sample.annotations["placement"], [0, 0, 4, 8])


def test_a_centre_crop_keeps_the_middle() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    profile = Preprocessing(
        name="crop", resize="center-crop", crop_ratio=0.5, interpolation="nearest", channels="gray"
    )
    target = ImageInput("x", 4, 4, "NCHW", np.dtype(np.float32))
    found, _ = prepare(Image.fromarray(pixels), profile, target)
    np.testing.assert_array_equal(found[0, 0], pixels[2:6, 2:6])


def test_bilinear_without_antialias_reads_two_by_two_neighbours() -> None:
    row = np.array([[0, 40, 80, 120, 160, 200, 240, 250]], np.uint8)
    profile = Preprocessing(name="cv", antialias=False, channels="gray")
    target = ImageInput("x", 1, 2, "NHWC", np.dtype(np.float32))
    found, _ = prepare(Image.fromarray(row), profile, target)
    # centres 1.5 and 5.5 of the source; Pillow's filter would take eight pixels
    np.testing.assert_array_equal(found.ravel(), [60, 220])


@pytest.mark.parametrize("size", [(16, 24), (7, 9), (1, 3)])
def test_both_bilinear_filters_agree_when_an_image_is_enlarged(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    target = ImageInput("x", 40, 56, "NHWC", np.dtype(np.float32))
    smooth, _ = prepare(image, RAW, target)
    sharp, _ = prepare(image, RAW.model_copy(update={"antialias": False}), target)
    assert np.abs(smooth - sharp).max() <= 1


def test_photographs_are_turned_upright(model_with, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    image = Image.fromarray(np.dstack([np.tile([[0], [255]], (1, 4)).astype(np.uint8)] * 3))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "images" / "a.png", exif=exif)
    graph = model_with(("x", [1, 3, 2, 4]))
    found = first(load_samples(tmp_path / "images", graph, RAW))
    np.testing.assert_array_equal(found[0, 0], [[255] * 4, [0] * 4])


def test_sixteen_bit_images_keep_their_grey_levels(model_with, write_image, tmp_path) -> None:
    write_image("a.png", pixels=np.full((4, 4), 128 << 8, np.uint16))
    found = first(load_samples(tmp_path / "images", model_with(NCHW), RAW))
    np.testing.assert_array_equal(found, np.full((1, 3, 4, 4), 128))


def test_a_folder_without_preprocessing_is_refused_and_the_choices_are_said(
    model_with, write_image, tmp_path
) -> None:
    write_image("a.png")
    with pytest.raises(DataError) as caught:
        load_samples(tmp_path / "images", model_with(NCHW))
    for name, profile in BUILT_IN.items():
        assert f"{name} ({profile.description})" in str(caught.value)


def test_a_file_that_is_no_image_is_refused_at_once(model_with, write_image, tmp_path) -> None:
    write_image("a.png")
    (tmp_path / "images" / "b.jpg").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"b\.jpg: the image cannot be read \(not an image\)"):
        load_samples(tmp_path / "images", model_with(NCHW), "unit")


def test_a_truncated_image_is_refused_when_it_is_read(model_with, write_image, tmp_path) -> None:
    rng = np.random.default_rng(0)
    path = write_image("a.jpg", pixels=rng.integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-1000])
    data = load_samples(tmp_path / "images", model_with(NCHW), "unit")
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read \(.*truncated"):
        data[0]


@pytest.mark.parametrize(
    ("inputs", "element", "profile", "said"),
    [
        ([("x", [1, 3, 4, 4]), ("y", [1])], 1, "unit", "the model has 2 (x, y)"),
        ([("x", [1, 10])], 1, "unit", "'x' is float32 [1,10], which takes no image"),
        ([("x", [8, 3, 4, 4])], 1, "unit", "a fixed batch of 8"),
        ([("x", [1, 5, 4, 4])], 1, "unit", "its channel axis cannot be told"),
        ([("x", [1, 3, 4, 3])], 1, "unit", "its channel axis cannot be told"),
        ([("x", [1, 1, 4, 4])], 1, "unit", "1 channels, and preprocessing 'unit' makes 3"),
        ([("x", [1, 3, 4, 4])], TensorProto.UINT8, "imagenet", "which it cannot hold"),
        ([("x", [1, 3, 4, 4])], TensorProto.UINT8, "unit", "values from 0 to 1"),
        ([("x", [1, 3, 4, 4])], TensorProto.INT8, "yolox", "values from 0 to 255"),
        ([("x", [1, 3, 4, 4])], TensorProto.BOOL, "unit", "takes no image"),
    ],
)
def test_inputs_that_images_do_not_fit_are_refused(
    model_with, write_image, tmp_path, inputs, element, profile, said
) -> None:
    write_image("a.png")
    with pytest.raises(DataError) as caught:
        load_samples(tmp_path / "images", model_with(*inputs, element=element), profile)
    assert said in str(caught.value)


def test_an_empty_folder_is_refused(model_with, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"no image in this folder or below; images end in \.bmp"):
        load_samples(tmp_path / "images", model_with(NCHW), "unit")


def test_a_set_travels_as_paths_and_loads_elsewhere(
    model_with, write_image, tmp_path: Path
) -> None:
    for index in range(20):
        write_image(f"{index:02}.png", color=(index, 0, 0))
    data = load_samples(tmp_path / "images", model_with(("x", [1, 3, 256, 256])), RAW)
    list(data)
    sent = pickle.dumps(data)
    assert len(sent) < 5_000
    received = pickle.loads(sent)
    np.testing.assert_array_equal(received[7].inputs["x"], data[7].inputs["x"])
