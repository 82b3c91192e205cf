"""`.npz`, `.npy` and arrays in memory: how rows become samples, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from actcc.calibration import load_samples
from actcc.errors import DataError

ROWS = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)


@pytest.fixture
def npz(tmp_path: Path):
    def write(**arrays) -> Path:
        np.savez(tmp_path / "calib.npz", **arrays)
        return tmp_path / "calib.npz"

    return write


@pytest.mark.parametrize("batch", [1, "n"])
def test_rows_keep_a_batch_axis_of_one(model_with, npz, batch) -> None:
    graph = model_with(("x", [batch, 2, 3]))
    data = load_samples(npz(x=ROWS), graph)
    assert [sample.name for sample in data] == [f"calib.npz#{i}" for i in range(5)]
    for index, sample in enumerate(data):
        np.testing.assert_array_equal(sample.inputs["x"], ROWS[index : index + 1])


@pytest.mark.parametrize("shape", [[1, 2, 3], [2, 3], [6]])
def test_an_array_may_also_hold_each_sample_as_the_model_takes_it(model_with, npz, shape) -> None:
    rows = ROWS.reshape(5, *shape)
    data = load_samples(npz(x=rows), model_with(("x", shape)))
    np.testing.assert_array_equal(data[3].inputs["x"], rows[3])


def test_other_arrays_are_annotations_by_sample(model_with, npz) -> None:
    labels = np.array([3, 1, 4, 1, 5])
    names = np.array(["a", "b", "c", "d", "e"])
    data = load_samples(npz(x=ROWS, labels=labels, names=names), model_with(("x", [1, 2, 3])))
    assert data[2].annotations["labels"].item() == 4
    assert data[4].annotations["names"].item() == "e"
    assert list(data[0].inputs) == ["x"]


def test_several_inputs_are_found_by_name_and_a_scalar_is_shared(model_with, npz) -> None:
    graph = model_with(("x", [1, 2, 3]), ("state", [2, "n", 3]), ("rate", []))
    state = np.zeros((5, 2, 1, 3), np.float32)
    state[4] = 1
    data = load_samples(npz(rate=np.float32(8), state=state, x=ROWS), graph)
    sample = data[4]
    assert sample.inputs["rate"].shape == ()
    assert sample.inputs["rate"].item() == 8
    np.testing.assert_array_equal(sample.inputs["state"], state[4])
    np.testing.assert_array_equal(sample.inputs["x"], ROWS[4:])


@pytest.mark.parametrize("name", ["arr_0", "pictures"])
def test_the_only_array_needs_no_name_for_a_model_with_one_input(model_with, npz, name) -> None:
    data = load_samples(npz(**{name: ROWS}), model_with(("x", [1, 2, 3])))
    np.testing.assert_array_equal(data[1].inputs["x"], ROWS[1:2])


def test_a_compressed_file_an_npy_and_arrays_in_memory_give_the_same(
    model_with, tmp_path: Path
) -> None:
    graph = model_with(("x", [1, 2, 3]))
    np.savez_compressed(tmp_path / "a.npz", x=ROWS)
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS))
    for specification in (tmp_path / "a.npz", str(tmp_path / "a.npy"), ROWS, {"x": ROWS}):
        data = load_samples(specification, graph)
        assert len(data) == 5
        np.testing.assert_array_equal(data[2].inputs["x"], ROWS[2:3])
        assert data[2].inputs["x"].flags.c_contiguous


def test_big_endian_arrays_are_turned_around(model_with, npz) -> None:
    found = load_samples(npz(x=ROWS.astype(">f4")), model_with(("x", [1, 2, 3])))[1].inputs["x"]
    assert found.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(found, ROWS[1:2])


def test_strings_feed_a_string_input(model_with, npz) -> None:
    graph = model_with(("words", [1, 2]), element=TensorProto.STRING)
    found = load_samples(npz(words=np.array([["a", "b"], ["c", "d"]])), graph)[1].inputs["words"]
    assert found.dtype == object
    assert found.tolist() == [["c", "d"]]


def test_samples_load_in_another_process_from_a_path(model_with, npz) -> None:
    rows = np.zeros((40, 100, 100), np.float32)
    rows[33] = 7
    data = load_samples(npz(x=rows), model_with(("x", [1, 100, 100])))
    sent = pickle.dumps(data)
    assert len(sent) < 5_000
    np.testing.assert_array_equal(pickle.loads(sent)[33].inputs["x"], rows[33:34])


def test_unpacked_files_go_when_the_set_goes(model_with, npz) -> None:
    data = load_samples(npz(x=ROWS), model_with(("x", [1, 2, 3])))
    folder = data.loader._spool.path
    part = data.take(2)
    del data
    assert folder.is_dir()
    del part
    assert not folder.exists()


def test_a_wrong_shape_says_what_was_expected_and_found(model_with, npz) -> None:
    path = npz(images=np.zeros((100, 28, 28)), labels=np.zeros(100))
    with pytest.raises(DataError) as caught:
        load_samples(path, model_with(("images", [1, 1, 28, 28])))
    assert str(caught.value) == (
        "calib.npz: 'images' is float64 [100,28,28], the model expects float32 [1,1,28,28] per "
        "sample; convert it with .astype('float32') and the model's own scaling, all samples as "
        "[N,1,28,28]"
    )


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": ROWS.astype(np.uint8)}, "'x' is uint8 [5,2,3], the model expects float32 [1,2,3]"),
        ({"x": ROWS[:, :, :2]}, "'x' is float32 [5,2,2]"),
        ({"x": ROWS[0, 0]}, "'x' is float32 [3]"),
        ({"y": ROWS, "z": ROWS}, "no array is named like the model's input 'x'"),
        ({"x": ROWS, "labels": np.zeros(4)}, "'labels' is no input of the model"),
        ({"x": ROWS[:0]}, "hold 0 samples"),
        ({"x": np.full_like(ROWS, np.nan)}, "calib.npz#0: 'x' holds NaN or infinity"),
        ({"x": np.where(ROWS == 20, np.inf, ROWS)}, "calib.npz#3: 'x' holds NaN or infinity"),
        ({"x": np.array([{}, {}])}, "calib.npz: 'x' cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(model_with, npz, arrays, said) -> None:
    with pytest.raises(DataError) as caught:
        load_samples(npz(**arrays), model_with(("x", [1, 2, 3])))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fixed_batch_wants_whole_batches(model_with, npz) -> None:
    graph = model_with(("x", [4, 2, 3]))
    with pytest.raises(DataError, match=r"all samples as \[N,4,2,3\]"):
        load_samples(npz(x=ROWS), graph)
    assert len(load_samples(np.zeros((7, 4, 2, 3), np.float32), graph)) == 7


def test_inputs_with_different_numbers_of_samples_are_refused(model_with, npz) -> None:
    graph = model_with(("x", [1, 2, 3]), ("y", [1, 2, 3]))
    with pytest.raises(DataError, match="different numbers of samples: 'x' 5, 'y' 4"):
        load_samples(npz(x=ROWS, y=ROWS[:4]), graph)


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("cut", [0, 40, 200])
def test_a_broken_file_is_refused(model_with, tmp_path: Path, name: str, cut: int) -> None:
    path = tmp_path / name
    (np.savez if name.endswith("z") else np.save)(path, ROWS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot be read|not a readable \.npz"):
        load_samples(path, model_with(("x", [1, 2, 3])))


def test_an_npy_for_several_inputs_is_refused(model_with, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    graph = model_with(("x", [1, 2, 3]), ("y", [1]))
    with pytest.raises(DataError, match=r"the model has 2 inputs \(x, y\)"):
        load_samples(tmp_path / "a.npy", graph)


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("absent.npz", "absent.npz: no such file or folder; give a folder of images"),
        ("absent", "absent: no such file or folder"),
        (__file__, "no known kind of calibration data"),
        (3, "calibration data is a int"),
        ({"x": [1, 2]}, "'x' is a list; give numpy arrays"),
    ],
)
def test_what_is_no_data_is_refused(model_with, specification, said) -> None:
    with pytest.raises(DataError) as caught:
        load_samples(specification, model_with(("x", [1, 2, 3])))
    assert said in str(caught.value)


def test_preprocessing_of_arrays_is_refused(model_with, npz) -> None:
    with pytest.raises(DataError, match=r"preprocessing is for folders of images"):
        load_samples(npz(x=ROWS), model_with(("x", [1, 2, 3])), "imagenet")
