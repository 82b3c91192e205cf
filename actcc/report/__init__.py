"""The report: one HTML file that tells what was done, on which grounds, and why no more."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actcc.graph import Graph
    from actcc.report.contents import Contents
    from actcc.result import Result

MOST_BYTES = 1_000_000

__all__ = ["MOST_BYTES", "report_html", "report_path", "write_report"]


def report_path(output: Path) -> Path:
    """Where the report of an output goes."""
    return output.with_name(output.name + ".report.html")


def write_report(
    result: Result, original: Graph, path: Path, *, network: Graph | None = None
) -> None:
    """Write the report as one HTML file, whole or not at all. See `report_html`.

    Raises:
        ModelError: the file cannot be written.
    """
    from actcc.graph.files import write_text

    write_text(path, report_html(result, original, network=network))


def report_html(
    result: Result,
    original: Graph,
    *,
    network: Graph | None = None,
    most_bytes: int = MOST_BYTES,
) -> str:
    """The report as HTML that loads nothing else.

    The same result gives the same text. It needs no script to be read; a few lines add sorting,
    filtering and zoom. A content security policy allows these lines and nothing from anywhere.

    Args:
        result: of `optimize()`, or one that holds a plan read back and the model it belongs to.
        original: the model as it was given.
        network: the graph in which the sites were found, which is drawn; the original where it
            is None.
        most_bytes: less is shown where the file would grow larger, and the report says so.
    """
    from actcc.report.contents import STEPS, gather

    contents = gather(result, original, network or original)
    text = ""
    for limits in STEPS:
        text = _rendered(contents.within(limits))
        if len(text.encode()) <= most_bytes:
            break
    return text


def _rendered(contents: Contents) -> str:
    import jinja2

    from actcc.report import plot

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("actcc.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates = resources.files("actcc.report") / "templates"
    style = (templates / "report.css").read_text(encoding="utf-8")
    script = (templates / "report.js").read_text(encoding="utf-8")
    # The policy names the script by its hash, so both must be the same to the last byte.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("report.html")
    return page.render(report=contents, style=style, script=script, digest=digest, plot=plot)
