"""The picture of the front says what is on its axes, and is the same file each time."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from actcc.errors import ModelError, PlotError
from actcc.front import Front
from actcc.front_plot import check_plot, draw

needs_matplotlib = pytest.mark.usefixtures("matplotlib")


@pytest.fixture
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")


@needs_matplotlib
def test_a_vector_picture_names_axes_units_model_and_budgets(front: Front, tmp_path: Path) -> None:
    front.save_plot(tmp_path / "front.svg")
    root = ElementTree.parse(tmp_path / "front.svg").getroot()
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "network.onnx on npu1" in texts
    assert "latency, estimated (ms)" in texts
    assert "fidelity on 8 held-out samples" in texts
    assert "original" in texts
    assert {f"≤ {row.budget}" for row in front.rows[1:]} <= set(texts)
    assert any("80 % bounds" in text for text in texts)


@needs_matplotlib
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_front_gives_the_same_file(front: Front, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    front.save_plot(first)
    front.save_plot(second)
    assert first.read_bytes() == second.read_bytes()


@needs_matplotlib
def test_a_bitmap_is_drawn_and_not_blank(front: Front, tmp_path: Path) -> None:
    front.save_plot(tmp_path / "front.png")
    pixels = np.asarray(Image.open(tmp_path / "front.png").convert("L"))
    assert min(pixels.shape) > 600
    assert 0.002 < np.mean(pixels < 128) < 0.2


@needs_matplotlib
def test_every_point_lies_where_its_figures_say(front: Front) -> None:
    (axes,) = draw(front).axes
    line = axes.lines[0]
    assert list(line.get_xdata()) == [row.latency_ms for row in front.rows]
    assert list(line.get_ydata()) == [row.value for row in front.rows]


@needs_matplotlib
def test_another_format_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=r"\.svg or \.png"):
        check_plot(tmp_path / "front.gif")
    with pytest.raises(ModelError, match="does not exist"):
        check_plot(tmp_path / "absent" / "front.svg")


def test_without_matplotlib_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotError, match=r"pip install 'actcc\[plot\]'"):
        check_plot(tmp_path / "front.svg")
