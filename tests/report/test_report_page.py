"""The page without a browser: what is in it, what is escaped, how large it is, what it loads."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from networks import Builder

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.plan import CandidateFigures, Plan, SitePlan
from actcc.report import MOST_BYTES, report_html, report_path, write_report
from actcc.result import Result
from actcc.site import Refusal

GRIDS = 2  # of the plots; like the drawing itself, groups with a class and yet no boxes
_VOID = {"meta", "input", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements and text of a page; checks that every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def having(self, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for _, found in self.elements
            if all(value in found.get(key, "").split() for key, value in attributes.items())
        ]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


@pytest.fixture(scope="module")
def page(result: Result, original: Graph) -> Page:
    return Page(report_html(result, original))


def chain(sites: int) -> onnx.ModelProto:
    """Convolutions with SiLU, one after the other, with a shortcut over every third."""
    build = Builder()
    x = build.silu(build.conv("images", 3, 4))
    for index in range(sites - 1):
        y = build.silu(build.conv(x, 4, 4, kernel=1))
        x = build.add("Add", x, y) if index % 3 == 0 else y
    build.add("Flatten", x, output="features")
    return build.model((1, 3, 4, 4), {"features": (1, 64)})


def large_result(result: Result, sites: int) -> tuple[Result, Graph]:
    """A result with the sites of `chain`, eight candidates each, each with a reason."""
    graph = Graph.load(chain(sites))
    candidates = tuple(
        CandidateFigures(
            name, False, -6272.0, 250.0, 0.0528, "saves 6.3 µs: spent better elsewhere"
        )
        for name in ("HardSwish", "Gelu", "GeluTanh", "LeakyRelu", "Relu", "Relu6", "Elu", "Mish")
    )
    plans = tuple(
        SitePlan(
            f"swap-activation:{mul.outputs[0].name}",
            "swap-activation",
            "Silu",
            "Sigmoid+Mul",
            (mul.inputs[1].inputs[0].name, mul.name),
            ("HardSwish", "keep", "Relu")[index % 3],
            candidates,
        )
        for index, mul in enumerate(graph.nodes("Mul"))
    )
    refusals = tuple(
        ("swap-activation", Refusal(f"{p.id} → Swish", "needs opset 24")) for p in plans
    )
    plan = replace(result.plan, sites=plans)
    return replace(result, plan=plan, graph=graph, refusals=refusals), graph


def test_the_verdict_is_one_sentence(page: Page) -> None:
    assert (
        "1.15× faster; top1 0.923 → 0.917, within its budget; 4 of 6 sites rewritten." in page.text
    )


def test_figures_come_with_source_noise_interval_and_budget(page: Page) -> None:
    for said in (
        "Latency measured 2.032 ms 1.770 ms 1.148× (87.1 % ± 0.4 %)",
        "Accuracy top1 on 1,000 held-out samples 0.9230 0.9170 "
        "−0.0060, with 80 % confidence −0.0091 or better; allowed −0.0092",
        "Peak memory of activations, by the target's own rules 146 KiB 109 KiB 74.7 %",
    ):
        assert said in page.text


def test_every_site_has_a_row_and_every_candidate_a_price_and_a_reason(
    page: Page, result: Result
) -> None:
    for number, site in enumerate(result.plan.sites):
        assert len(page.having(id=f"site-{number}")) == 1
        assert site.id.partition(":")[2] in page.text
    candidates = sum(len(site.candidates) for site in result.plan.sites)
    assert page.text.count("spent better elsewhere") + page.text.count("chosen") >= candidates
    assert re.search(r"−\d+\.0 µs ± 0\.2", page.text)


def test_boxes_are_coloured_by_what_was_chosen(page: Page) -> None:
    groups = [found for tag, found in page.elements if tag == "g" and "transform" in found]
    colours = [group["class"] for group in groups if group.get("class") in ("c1", "c2", "keep")]
    assert sorted(colours) == ["c1", "c1", "c2", "c2", "keep", "keep"]
    assert "HardSwish 2 Relu 2 kept as it is 2" in page.text


def test_each_box_of_a_site_leads_to_its_row(page: Page, result: Result) -> None:
    targets = {
        found["href"] for found in page.having() if found.get("href", "").startswith("#site-")
    }
    assert targets == {f"#site-{number}" for number in range(len(result.plan.sites))}


def test_plans_refusals_and_provenance_are_told(page: Page, result: Result) -> None:
    for said in (
        "kept: the result",
        "top1 drops by 0.4, allowed 0.00923",
        "needs opset 24, the model has 17",
        result.plan.model_hash,
        "max drop 1 %",
        "Normalizing 0.2 s, Solving and verifying 4.0 s",
        "fold-constants 2 nodes",
    ):
        assert said in page.text


def test_the_same_result_gives_the_same_page(result: Result, original: Graph) -> None:
    assert report_html(result, original) == report_html(result, original)


def test_nothing_is_loaded_from_anywhere(result: Result, original: Graph) -> None:
    text = report_html(result, original)
    page = Page(text)
    assert page.count("script") == 1
    assert page.count("link") + page.count("img") + page.count("iframe") == 0
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_names_are_escaped(result: Result) -> None:
    evil = '<script>alert("1")</script>&<img src=x onerror=alert(2)>'
    build = Builder()
    x = build.conv("images", 3, 4)
    build.add("Relu", x, output=evil)
    build.nodes[-1].name = evil
    graph = Graph.load(build.model((1, 3, 8, 8), {evil: (1, 4, 8, 8)}))
    figures = CandidateFigures(evil, False, -1.0, 0.0, 0.1, evil)
    site = SitePlan(f"{evil}:{evil}", evil, evil, evil, (evil,), evil, (figures,))
    plan = replace(
        result.plan,
        sites=(site, replace(site, pass_name="another")),
        model_name=evil,
        target=evil,
        tool=evil,
        versions={evil: evil},
        settings={evil: evil},
        normalized=((evil, evil),),
    )
    refusals = ((evil, Refusal(evil, evil)),)
    trials = tuple(replace(trial, failures=(evil,)) for trial in result.trials)
    told = replace(
        result, plan=plan, graph=graph, reason=evil, refusals=refusals, trials=trials,
        stage_seconds={evil: 1.0},
    )  # fmt: skip
    text = report_html(told, graph)
    page = Page(text)
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert "alert(" not in text[text.rindex("<script>") :]
    assert 'alert("1")' in page.text


def test_a_model_of_1500_sites_stays_under_a_megabyte_and_says_what_is_left_out(
    result: Result,
) -> None:
    told, graph = large_result(result, 1500)
    text = report_html(told, graph)
    assert len(text.encode()) < MOST_BYTES
    page = Page(text)
    assert len(page.having(id="site-1499")) == 1
    assert "To keep the file small, candidates are listed for the" in page.text


def test_what_does_not_fit_is_counted(result: Result) -> None:
    told, graph = large_result(result, 200)
    whole, part = report_html(told, graph), report_html(told, graph, most_bytes=80_000)
    assert len(part.encode()) <= 80_000 < len(whole.encode())
    page = Page(part)
    rows = [found for tag, found in page.elements if tag == "tbody" and "id" in found]
    drawn = [found for tag, found in page.elements if tag == "g" and "class" in found]
    assert f"the first {len(rows)} of 200 sites are shown" in page.text
    assert f"The first {len(drawn) - 1 - GRIDS} boxes in order of execution" in page.text
    assert "To keep the file small" not in Page(whole).text


def test_without_data_sites_or_plans_the_page_says_so(unchanged: Result, original: Graph) -> None:
    page = Page(report_html(unchanged, original))
    for said in (
        "Unchanged: no site with a candidate was found.",
        "Largest output difference relative to the output's range none",
        "depends on data",
        "Nothing was traded: no plan was verified.",
        "No site with a candidate was found.",
    ):
        assert said in page.text
    assert page.having(id="refusals") == []


def test_a_model_that_the_target_cannot_time_is_reported(
    unchanged: Result, original: Graph
) -> None:
    plan = replace(unchanged.plan, latency=None, predicted_latency_ns=None)
    text = Page(report_html(replace(unchanged, plan=plan), original)).text
    assert "the target cannot time this model" in text


def test_a_plan_read_back_and_its_model_are_enough(result: Result, original: Graph) -> None:
    plan = Plan.from_json(result.plan.to_json())
    alone = Result(result.status, "applied", plan, original, None, (), (), {})
    page = Page(report_html(alone, original))
    assert len(page.having(id="plot-predicted")) == 1
    assert len(page.having(id="site-5")) == 1


def test_a_speed_up_too_small_for_a_factor_is_given_in_per_cent(
    result: Result, original: Graph
) -> None:
    assert result.plan.latency is not None
    plan = replace(result.plan, latency=replace(result.plan.latency, ratio=0.9996))
    assert "0.04 % faster" in Page(report_html(replace(result, plan=plan), original)).text


def test_the_file_is_written_whole_or_not_at_all(
    result: Result, original: Graph, tmp_path: Path
) -> None:
    path = report_path(tmp_path / "fast.onnx")
    write_report(result, original, path)
    assert path.name == "fast.onnx.report.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(ModelError, match="does not exist"):
        write_report(result, original, tmp_path / "missing" / "report.html")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
