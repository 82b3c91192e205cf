"""Labels of image folders: csv, COCO json, masks and class folders, matched by file name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.errors import DataError


@pytest.fixture
def samples_of(write_image, model_with, tmp_path):
    """Samples of images of the given names; 8 pixels wide and 6 high."""

    def make(*names: str) -> SampleSet:
        for name in names:
            write_image(name)
        return load_samples(tmp_path / "images", model_with(("x", [1, 3, 12, 16])), "unit")

    return make


@pytest.fixture
def csv_of(tmp_path: Path):
    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def classes_of(samples: SampleSet) -> dict[str, int]:
    return {sample.name: int(sample.annotations["label"]) for sample in samples}


class TestClasses:
    @pytest.mark.parametrize(
        "text",
        [
            "file,class\na.jpg,3\nb.jpg,0\n",
            "Label;Image\n3;a.jpg\n0;b.jpg\n\n",
            "id\tfilename\ttarget\n9\ta.jpg\t 3\n9\tb.jpg\t0\n",
            "image_name,class_id\na,3\nb,0\n",
            "path,label\nval/deep/a.jpg,3\n.\\b.jpg,0\nc.jpg,7\n",
            'file,class\n"a.jpg",3\n"b.jpg",0\nb.jpg,0\n',
        ],
    )
    def test_columns_separators_and_paths_are_understood(self, text, samples_of, csv_of) -> None:
        labelled = label_samples(samples_of("a.jpg", "b.jpg"), csv_of(text))
        assert classes_of(labelled) == {"a.jpg": 3, "b.jpg": 0}
        assert labelled[0].annotations["label"].dtype == np.int64
        assert labelled[0].annotations["placement"].tolist() == [0, 0, 12, 16]

    def test_a_byte_order_mark_is_no_part_of_the_header(self, samples_of, csv_of) -> None:
        path = csv_of("file,class\na.jpg,1\n", "utf-8-sig")
        assert classes_of(label_samples(samples_of("a.jpg"), path)) == {"a.jpg": 1}

    def test_images_in_folders_are_told_apart_by_their_path(self, samples_of, csv_of) -> None:
        samples = samples_of("cat/1.jpg", "dog/1.jpg", "2.jpg")
        path = csv_of("file,class\ncat/1.jpg,0\ndog/1.jpg,1\nelsewhere/2.jpg,2\n")
        found = classes_of(label_samples(samples, path))
        assert found == {"cat/1.jpg": 0, "dog/1.jpg": 1, "2.jpg": 2}

    def test_two_labels_that_fit_one_image_are_refused(self, samples_of, csv_of) -> None:
        path = csv_of("file,class\nx/1.jpg,0\ny/1.jpg,1\n")
        with pytest.raises(DataError, match=r"'x/1\.jpg' and 'y/1\.jpg' are both of '1\.jpg'"):
            label_samples(samples_of("1.jpg"), path)

    def test_an_image_of_another_kind_is_another_image(self, samples_of, csv_of) -> None:
        path = csv_of("file,class\na.jpg,0\na.png,1\n")
        found = classes_of(label_samples(samples_of("a.jpg", "a.png"), path))
        assert found == {"a.jpg": 0, "a.png": 1}

    def test_images_without_a_label_are_counted(self, samples_of, csv_of) -> None:
        samples = samples_of("a.jpg", "b.jpg", "c.jpg")
        with pytest.raises(DataError, match=r"no label for 'b\.jpg' and 1 more of 3 images"):
            label_samples(samples, csv_of("file,class\na.jpg,0\n"))
        few = label_samples(samples[:1], csv_of("file,class\na.jpg,0\n"))
        assert classes_of(few) == {"a.jpg": 0}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "no column is named file"),
            ("a.jpg,3\n", r"no column is named file.*first line is 'a\.jpg,3'; put 'file,class'"),
            ("file,score\na.jpg,3\n", "no column is named class, label, target"),
            ("file,class\n", "no line below the header"),
            ("file,class\na.jpg\n", "line 2: 1 cells only"),
            ("file,class\na.jpg,cat\n", "line 2: class 'cat' is no whole number"),
            ("file,class\na.jpg,0.5\n", "class '0.5' is no whole number; give the index"),
            ("file,class\na.jpg,1\na.jpg,2\n", "line 3: 'a.jpg' has class 2 here and 1 above"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, text, said, samples_of, csv_of) -> None:
        with pytest.raises(DataError, match=said) as caught:
            label_samples(samples_of("a.jpg"), csv_of(text))
        assert "labels.csv" in str(caught.value)

    def test_a_file_in_another_encoding_is_refused(self, samples_of, csv_of) -> None:
        with pytest.raises(DataError, match=r"labels\.csv: cannot be read .*UTF-8"):
            label_samples(samples_of("a.jpg"), csv_of("file,class\né.jpg,1\n", "latin-1"))


class TestBoxes:
    @pytest.fixture
    def json_of(self, tmp_path: Path):
        def write(**changed: object) -> Path:
            content = {
                "images": [
                    {"id": 7, "file_name": "a.jpg", "width": 8, "height": 6},
                    {"id": 8, "file_name": "b.jpg"},
                    {"id": 9, "file_name": "elsewhere.jpg"},
                ],
                "annotations": [
                    {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 9.5},
                    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 8, 6], "iscrowd": 1},
                    {"image_id": 1234, "category_id": 1, "bbox": [0, 0, 1, 1]},
                ],
                "categories": [{"id": 90}, {"id": 5}, {"id": 1, "name": "person"}],
            }
            path = tmp_path / "instances.json"
            path.write_text(json.dumps({**content, **changed}))
            return path

        return write

    def test_boxes_are_corners_and_classes_count_all_categories(self, samples_of, json_of) -> None:
        first, second = label_samples(samples_of("a.jpg", "b.jpg"), json_of())
        found = first.annotations
        assert found["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 8, 6]]
        assert found["classes"].tolist() == [2, 0]
        assert found["areas"].tolist() == [9.5, 48]
        assert found["crowd"].tolist() == [False, True]
        assert found["category_ids"].tolist() == [1, 5, 90]
        assert second.annotations["boxes"].shape == (0, 4)
        assert second.annotations["classes"].shape == (0,)
        assert "labelled_size" not in found

    def test_an_image_that_the_file_lacks_is_named(self, samples_of, json_of) -> None:
        with pytest.raises(DataError, match=r"no label for 'c\.jpg' of 2 images"):
            label_samples(samples_of("a.jpg", "c.jpg"), json_of())

    def test_an_image_of_another_size_than_labelled_is_refused(self, samples_of, json_of) -> None:
        images = [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}]
        labelled = label_samples(samples_of("a.jpg"), json_of(images=images))
        with pytest.raises(DataError, match=r"a\.jpg: is 8x6 pixels, and its boxes .* 640x480"):
            labelled[0]

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"categories": []}, "category 90, which is not among the categories"),
            ({"annotations": [{"image_id": 7, "category_id": 1}]}, r"annotations\.0\.bbox: Field"),
            ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1]}]}, r"0\.bbox"),
            ({"images": 3}, r"images: Input should be a valid \w+; give COCO's instances"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, changed, said, samples_of, json_of) -> None:
        with pytest.raises(DataError, match=said) as caught:
            label_samples(samples_of("a.jpg"), json_of(**changed))
        assert "instances.json" in str(caught.value)

    def test_a_file_that_is_no_json_is_refused(self, samples_of, tmp_path: Path) -> None:
        (tmp_path / "cut.json").write_text('{"images": [')
        with pytest.raises(DataError, match=r"cut\.json: the file: Invalid JSON.*instances format"):
            label_samples(samples_of("a.jpg"), tmp_path / "cut.json")


class TestMasks:
    def test_grey_values_and_palette_indices_are_classes(self, samples_of, tmp_path: Path) -> None:
        folder = tmp_path / "masks"
        (folder / "sub").mkdir(parents=True)
        indices = np.arange(48, dtype=np.uint8).reshape(6, 8)
        indices[0, 0] = 255
        Image.fromarray(indices).save(folder / "a.png")
        palette = Image.fromarray(indices, mode="P")
        palette.putpalette([255 - i // 3 for i in range(768)])
        palette.save(folder / "sub" / "b.png")
        wide = Image.fromarray(indices.astype(np.uint16) * 3)
        wide.save(folder / "c.png")
        for sample in label_samples(samples_of("a.jpg", "sub/b.jpg"), folder):
            assert sample.annotations["mask"].tolist() == indices.tolist()
        last = label_samples(samples_of("a.jpg", "sub/b.jpg", "c.jpg"), folder)[1]
        assert last.annotations["mask"].max() == 765

    def test_masks_are_read_when_they_are_asked_for(self, samples_of, tmp_path: Path) -> None:
        folder = tmp_path / "masks"
        folder.mkdir()
        (folder / "a.png").write_bytes(b"no image")
        labelled = label_samples(samples_of("a.jpg"), folder)
        with pytest.raises(DataError, match=r"a\.png: the mask cannot be read \(not an image\)"):
            labelled[0]
        Image.new("RGB", (8, 6)).save(folder / "a.png")
        with pytest.raises(DataError, match=r"a\.png: the mask is in colours \(RGB\); write the"):
            labelled[0]

    def test_an_image_without_a_mask_is_named(self, samples_of, tmp_path: Path) -> None:
        (tmp_path / "masks").mkdir()
        with pytest.raises(DataError, match=r"masks: no label for 'a\.jpg' of 1 images"):
            label_samples(samples_of("a.jpg"), tmp_path / "masks")


class TestFolders:
    def test_sorted_folders_are_classes(self, samples_of) -> None:
        samples = samples_of("dog/1.jpg", "cat/x/2.jpg", "emu/3.jpg")
        labelled = label_samples(samples, Path("folders"))
        assert classes_of(labelled) == {"cat/x/2.jpg": 0, "dog/1.jpg": 1, "emu/3.jpg": 2}
        part = label_samples(samples[1:], Path("folders"))  # of which classes there are, all count
        assert classes_of(part) == {"dog/1.jpg": 1, "emu/3.jpg": 2}
        assert int(part[0].annotations["class_count"]) == 3

    def test_an_image_in_no_folder_is_named(self, samples_of) -> None:
        with pytest.raises(
            DataError, match=r"'1\.jpg' lies in no folder of a class; with --labels"
        ):
            label_samples(samples_of("1.jpg", "cat/2.jpg"), Path("folders"))


def test_labelled_samples_travel_and_keep_their_order(samples_of, csv_of) -> None:
    samples = samples_of("a.jpg", "b.jpg", "c.jpg")
    labelled = label_samples(samples, csv_of("file,class\na.jpg,0\nb.jpg,1\nc.jpg,2\n"))
    received = pickle.loads(pickle.dumps(labelled[1:]))
    assert classes_of(received) == {"b.jpg": 1, "c.jpg": 2}
    assert received.names == ["b.jpg", "c.jpg"]
    assert labelled.source.endswith("labels.csv")


@pytest.mark.parametrize(
    ("name", "said"),
    [("absent.csv", "no such file or folder of labels"), ("labels.xml", "no known kind of labels")],
)
def test_other_files_are_refused_with_what_is_understood(name, said, samples_of, tmp_path) -> None:
    (tmp_path / "labels.xml").write_text("<a/>")
    with pytest.raises(DataError, match=rf"{name}: {said}; give a \.csv .*'folders'"):
        label_samples(samples_of("a.jpg"), tmp_path / name)


@pytest.mark.shared
def test_coco_labels_belong_to_their_images(shared: Path, model_with) -> None:
    coco = shared / "data" / "coco"
    samples = load_samples(coco / "evaluation", model_with(("x", [1, 3, 64, 64])), "yolox", limit=5)
    for sample in label_samples(samples, coco / "evaluation.json"):
        height, width = sample.annotations["image_size"]
        assert (sample.annotations["boxes"][:, 2:] <= [width + 1, height + 1]).all()
        assert sample.annotations["classes"].max() < 80
