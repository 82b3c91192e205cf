"""The report as people see it: opened in headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actcc.graph import Graph
from actcc.report import report_html
from actcc.result import Result

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Browser:
    """A headless browser with a profile of its own."""

    program: str
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            self.program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            f"--user-data-dir={self.folder / 'profile'}",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    def elements(self, page: str) -> str:
        """The document after its script has run; fails on anything that the console reports."""
        done = self.run("--dump-dom", self.address(page))
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return done.stdout

    def picture(self, page: str, *arguments: str, width: int = 1200) -> np.ndarray:
        """What is seen of the upper 2000 pixels: [2000, width, 3]."""
        path = self.folder / "seen.png"
        size = f"--window-size={width},2000"
        self.run(f"--screenshot={path}", size, *arguments, self.address(page))
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def address(self, page: str) -> str:
        """Where the page has been put for the browser to open."""
        path = self.folder / "report.html"
        path.write_text(page, encoding="utf-8")
        return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a browser: install Debian's package 'chromium'")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(result: Result, original: Graph) -> str:
    return report_html(result, original)


def driven(page: str, script: str) -> str:
    """The page with a script of the test's own, which the page's policy would not allow."""
    without_policy = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page)
    assert without_policy != page
    return without_policy.replace("</body>", f"<script>{script}</script></body>")


def has_colour(seen: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether at least 20 pixels have exactly this colour."""
    return int((seen == np.array(colour)).all(axis=2).sum()) >= 20


def test_the_page_runs_without_a_complaint(browser: Browser, page: str) -> None:
    elements = browser.elements(page)
    assert "6 of 6 sites" in elements
    assert '<p class="tools" id="zoom">' in elements
    assert elements.count('<tbody id="site-') == 6
    window = re.search(r'<rect id="window" width="(\d+)', elements)
    assert window is not None
    assert int(window.group(1)) > 0


def test_a_policy_of_its_own_keeps_foreign_scripts_out(browser: Browser, page: str) -> None:
    foreign = page.replace("</body>", "<script>document.title = 'foreign'</script></body>")
    done = browser.run("--dump-dom", browser.address(foreign))
    assert "<title>foreign</title>" not in done.stdout
    assert "Content Security Policy" in done.stderr


def test_boxes_bars_and_marks_are_seen_in_their_colours(browser: Browser, page: str) -> None:
    seen = browser.picture(page)
    for colour in ((0x2F, 0x6F, 0xDE), (0xDD, 0x7A, 0x1C), (0x8D, 0x96, 0xA1)):  # c1, c2, keep
        assert has_colour(seen, colour)
    assert has_colour(seen, (0x1A, 0x7F, 0x4B))  # the chosen plan
    assert tuple(seen[0, 0]) == (255, 255, 255)


def test_a_dark_desktop_gets_a_dark_page(browser: Browser, page: str) -> None:
    seen = browser.picture(page, "--blink-settings=preferredColorScheme=0")
    assert tuple(seen[0, 0]) == (0x15, 0x18, 0x1C)
    assert has_colour(seen, (0x5B, 0x93, 0xF5))


def test_nothing_sticks_out_of_a_narrow_window(browser: Browser, page: str) -> None:
    script = "document.title = document.documentElement.scrollWidth + ' in ' + window.innerWidth;"
    framed = (
        f'<iframe id="phone" width="400" height="800" srcdoc="{escaped(driven(page, script))}">'
        "</iframe><script>window.onload = () => { document.title = "
        "document.getElementById('phone').contentDocument.title }</script>"
    )
    elements = browser.elements(f"<!DOCTYPE html><title>wait</title><body>{framed}</body>")
    assert "<title>400 in 400</title>" in elements


def escaped(text: str) -> str:
    """Text for a double-quoted attribute."""
    return text.replace("&", "&amp;").replace('"', "&quot;")


def test_a_click_sorts_and_words_filter(browser: Browser, page: str) -> None:
    script = """
        const shown = "#site-table > tbody:not([hidden])";
        const rows = () => Array.from(document.querySelectorAll(shown));
        const saved = () => rows().map((row) => +row.dataset.saved);
        const head = document.querySelector("[data-key=saved]");
        head.firstElementChild.click();
        const most = saved();
        const first = head.getAttribute("aria-sort");
        head.firstElementChild.click();
        const least = saved();
        const filter = document.getElementById("filter");
        filter.value = "relu";
        filter.dispatchEvent(new Event("input"));
        const relu = rows().map((row) => row.id);
        filter.value = "";
        document.getElementById("changed-only").click();
        const changed = rows().length;
        document.title = JSON.stringify({ most, first, least, relu, changed });
    """
    elements = browser.elements(driven(page, script))
    told = re.search(r"<title>(.*?)</title>", elements)
    assert told is not None
    found = json.loads(told.group(1))
    assert found["most"] == sorted(found["most"], reverse=True)
    assert found["least"] == sorted(found["most"])
    assert found["first"] == "ascending"
    assert sorted(found["relu"]) == ["site-2", "site-5"]
    assert found["changed"] == 4


def test_candidates_open_by_a_click_without_the_script(browser: Browser, page: str) -> None:
    script = """
        const more = document.querySelector("#site-1 .more");
        const before = getComputedStyle(more).display;
        document.querySelector("#site-1 input").click();
        document.title = before + " then " + getComputedStyle(more).display;
    """
    bare = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "<title>none then table-row</title>" in browser.elements(driven(bare, script))


def test_zooming_changes_the_size_of_the_picture(browser: Browser, page: str) -> None:
    script = """
        const picture = document.getElementById("picture");
        const width = () => picture.getBoundingClientRect().width;
        const before = width();
        document.querySelector("[data-zoom=in]").click();
        document.title = (width() / before).toFixed(2);
    """
    assert "<title>1.25</title>" in browser.elements(driven(page, script))
