"""Drawn text for the two models, with the truth, and the metric of the one that reads.

For actcc as ``samples.py:pages``, ``samples.py:held_out_pages``, ``samples.py:lines``,
``samples.py:held_out_lines`` and ``--metric samples.py:character_accuracy``. Calibration and
held-out images share no word and no seed. Needs rapidocr-onnxruntime: ``pip install 'actcc[ocr]'``.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAGE_HEIGHT, PAGE_WIDTH = 320, 480
LINE_HEIGHT, LINE_WIDTH = 48, 320
INPUT = "x"
SHORTEST_SIDE = 320
PAGES, LINES = 20, 60
CALIBRATION_WORDS = (
    "harbour window Monday copper signal 1984 receipt lantern quiet August bridge 27.50 garden "
    "velvet orbit Number engine paper 603 station cloud Figure market winter 15:30 valley Open"
)
HELD_OUT_WORDS = (
    "river Tuesday silver ticket 2047 invoice compass bright October tunnel 88.90 forest cotton "
    "planet Table motor letter 715 airport shadow Chapter summer 09:45 island Closed kitchen"
)

Pixels = NDArray[np.uint8]
Arrays = dict[str, NDArray[Any]]


class Sample(Protocol):
    """What the metric reads of a sample."""

    @property
    def annotations(self) -> Mapping[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class Drawn:
    """An image [h, w, 3], BGR as OpenCV reads it, and its text, line by line."""

    pixels: Pixels
    lines: tuple[str, ...]


def phrase(words: Sequence[str], longest: int, rng: np.random.Generator) -> str:
    """Return words with spaces between, at most ``longest`` characters in all."""
    chosen = str(rng.choice(words))
    while len(chosen) + 1 + len(added := str(rng.choice(words))) <= longest:
        chosen += f" {added}"
    return chosen


def photograph(image: Image.Image, tilt: float, rng: np.random.Generator) -> Pixels:
    """Return the image tilted by up to ``tilt`` degrees, unevenly lit and noisy, as BGR."""
    paper = image.getpixel((0, 0))
    angle = rng.uniform(-tilt, tilt)
    turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    pixels = np.asarray(turned, np.float32)
    light = np.linspace(rng.uniform(0.75, 1), rng.uniform(0.75, 1), pixels.shape[1])
    pixels = pixels * light[None, :, None] + rng.normal(0, rng.uniform(1, 9), pixels.shape)
    return np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)[..., ::-1])


def colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a light colour of paper and a dark one of ink."""
    return tuple(rng.integers(200, 256, 3).tolist()), tuple(rng.integers(0, 90, 3).tolist())


def draw_page(words: Sequence[str], rng: np.random.Generator) -> Drawn:
    """Return four to six lines of text on a page of 320 × 480."""
    paper, ink = colours(rng)
    image = Image.new("RGB", (PAGE_WIDTH, PAGE_HEIGHT), paper)
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(4, 7))
    lines = []
    for row in range(count):
        text = phrase(words, 20, rng)
        font = ImageFont.load_default(int(rng.integers(20, 32)))
        place = (int(rng.integers(24, 60)), 20 + row * (PAGE_HEIGHT - 40) // count)
        draw.text(place, text, ink, font)
        lines.append(text)
    return Drawn(photograph(image, 1.0, rng), tuple(lines))


def draw_line(words: Sequence[str], rng: np.random.Generator) -> Drawn:
    """Return one line of text, cut out closely."""
    paper, ink = colours(rng)
    text = phrase(words, 13, rng)
    font = ImageFont.load_default(int(rng.integers(18, 44)))
    left, top, right, bottom = font.getbbox(text)
    margins = rng.integers(3, 9, 4)
    size = int(right - left + margins[:2].sum()), int(bottom - top + margins[2:].sum())
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).text((margins[0] - left, margins[2] - top), text, ink, font)
    return Drawn(photograph(image, 1.0, rng), (text,))


def model_file(name: str) -> Path:
    """Return the model ``det`` or ``rec`` that rapidocr-onnxruntime brings with it."""
    import rapidocr_onnxruntime

    folder = Path(rapidocr_onnxruntime.__file__).parent / "models"
    found = sorted(folder.glob(f"*_{name}_infer.onnx"))
    if not found:
        raise FileNotFoundError(f"{folder}: no model *_{name}_infer.onnx; pip install 'actcc[ocr]'")
    return found[0]


def page_input(pixels: Pixels) -> NDArray[np.float32]:
    """Return [1, 3, h, w] as RapidOCR feeds it to the detector; sides are multiples of 32."""
    from rapidocr_onnxruntime.ch_ppocr_det.utils import DetPreProcess

    prepared: NDArray[np.float32] = DetPreProcess(SHORTEST_SIDE, "min")(pixels)
    return prepared


def line_input(pixels: Pixels) -> NDArray[np.float32]:
    """Return [1, 3, 48, 320] as RapidOCR feeds it to the recogniser: scaled, padded with 0."""
    import cv2

    width = min(-(-LINE_HEIGHT * pixels.shape[1] // pixels.shape[0]), LINE_WIDTH)
    scaled = cv2.resize(pixels, (width, LINE_HEIGHT)).astype(np.float32).transpose(2, 0, 1)
    padded = np.zeros((1, 3, LINE_HEIGHT, LINE_WIDTH), np.float32)
    padded[0, :, :, :width] = (scaled / 255 - 0.5) / 0.5
    return padded


def drawn_pages(words: str, seed: int) -> list[Drawn]:
    """Return the pages of a seed."""
    rng = np.random.default_rng(seed)
    return [draw_page(words.split(), rng) for _ in range(PAGES)]


def _lines(words: str, seed: int) -> Iterator[tuple[Arrays, Arrays]]:
    rng = np.random.default_rng(seed)
    for _ in range(LINES):
        drawn = draw_line(words.split(), rng)
        truth = np.array([ord(letter) for letter in drawn.lines[0]])
        yield {INPUT: line_input(drawn.pixels)}, {"text": truth}


def pages() -> Iterator[Arrays]:
    """Yield the detector's calibration samples."""
    return ({INPUT: page_input(page.pixels)} for page in drawn_pages(CALIBRATION_WORDS, 1))


def held_out_pages() -> Iterator[Arrays]:
    """Yield the samples that the detector is verified on."""
    return ({INPUT: page_input(page.pixels)} for page in drawn_pages(HELD_OUT_WORDS, 2))


def lines() -> Iterator[tuple[Arrays, Arrays]]:
    """Yield the recogniser's calibration samples."""
    return _lines(CALIBRATION_WORDS, 3)


def held_out_lines() -> Iterator[tuple[Arrays, Arrays]]:
    """Yield the samples that the recogniser is verified on."""
    return _lines(HELD_OUT_WORDS, 4)


@functools.cache
def alphabet() -> tuple[str, ...]:
    """Return what each column of the recogniser's output means; the first one is the blank."""
    import onnx

    model = onnx.load(model_file("rec"))
    (listed,) = [entry.value for entry in model.metadata_props if entry.key == "character"]
    return ("", *listed.splitlines(), " ")


def read(probabilities: NDArray[np.float32]) -> str:
    """Return the text in [t, 6625], greedily (Graves et al. 2006, section 3.2)."""
    best = probabilities.argmax(1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    return "".join(alphabet()[index] for index in best[starts])


def agreement(found: str, truth: str) -> int:
    """Return how many characters stand in both in the same order."""
    blocks = SequenceMatcher(None, found, truth, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)


def character_accuracy(
    outputs: Sequence[Mapping[str, NDArray[Any]]], samples: Sequence[Sample]
) -> float:
    """Return the share of characters in [0, 1] that are read right; characters too many count."""
    right = total = 0
    for output, sample in zip(outputs, samples, strict=True):
        (probabilities,) = output.values()
        truth = "".join(map(chr, sample.annotations["text"]))
        found = read(probabilities[0])
        right += agreement(found, truth)
        total += max(len(found), len(truth))
    return right / total
