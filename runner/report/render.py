"""Render the data of a page as one HTML file that makes no request."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.report import charts
from runner.report.data import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from runner.report.data import Ends, Layer, MatchRow, Report, Warn

PAGE_DIR: Final = Path(__file__).with_name("page")
GENERATOR: Final = "mobiledet-runner report"
"""The generator that a page names; a file that names it is one of our pages and may be replaced."""
WORST_LAYERS: Final = 12
SHOWN_ROWS: Final = 10
MINUS: Final = "\N{MINUS SIGN}"


def render(report: Report) -> str:
    """Return the page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": breakable,
        "bytes": size_text,
        "data_uri": data_uri,
        "markdown": markdown,
        "number": number_text,
        "pixel": pixel_text,
        "percent": percent_text,
        "range": range_text,
    }
    environment.globals |= {
        "answers": _answers(report),
        "warnings": _warnings(report),
        "charts": charts,
        "generator": GENERATOR,
        "script": (PAGE_DIR / "page.js").read_text("utf-8"),
        "style": (PAGE_DIR / "page.css").read_text("utf-8"),
        "shown_rows": SHOWN_ROWS,
        "source_of_most": source_of_most,
        "split_rows": split_rows,
        "worst_layers": worst_layers,
    }
    return environment.get_template("page.html.j2").render(report=report)


def is_page_of_ours(path: Path) -> bool:
    """Return whether a file was written by `render`."""
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR}'.encode() in file.read(1000)


def _answers(report: Report) -> dict[str, list[tuple[str, Answer]]]:
    """Return the answers to each question, by file; only one if all files have the same answer."""
    questions = {
        "What is it?": [(it.name, Answer(is_good=None, text=it.what)) for it in report.files],
        "Is it the published file?": [(it.name, it.published) for it in report.files],
        "Did it pass its checks?": [(it.name, it.checked) for it in report.files],
    }
    return {
        question: given if len({answer for _, answer in given}) > 1 else [("", given[0][1])]
        for question, given in questions.items()
    }


def _warnings(report: Report) -> dict[Warn, list[int]]:
    """Return the warnings, each with the indices of the files that it is about."""
    found: dict[Warn, list[int]] = {}
    for number, file in enumerate(report.files):
        for warning in file.warnings:
            found.setdefault(warning, []).append(number)
    return found


def worst_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers with the largest errors, the worst first."""
    return sorted(layers, key=lambda layer: -layer.rms)[:WORST_LAYERS]


def source_of_most(layers: Sequence[Layer]) -> Layer | None:
    """Return the layer that adds most to the error of its inputs; None if all layers are exact."""
    worst = max(layers, key=lambda layer: layer.rms - (layer.inputs_rms or 0.0), default=None)
    return worst if worst is not None and worst.rms > 0 else None


def split_rows(rows: Sequence[MatchRow]) -> tuple[Sequence[MatchRow], Sequence[MatchRow]]:
    """Return the rows of a comparison that are always shown, and the rows that are folded."""
    return rows[:SHOWN_ROWS], rows[SHOWN_ROWS:]


# --- filters ----------------------------------------------------------------------------------------------


def number_text(value: float, digits: int = 3) -> str:
    """Format a number with the given number of significant digits."""
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")
    if value == 0:
        text = "0"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def pixel_text(value: float) -> str:
    """Format a pixel coordinate."""
    return str(round(value)).replace("-", MINUS)


def range_text(ends: Ends) -> str:
    """Format a range."""
    return f"{number_text(ends[0])} … {number_text(ends[1])}"


def percent_text(part: float) -> str:
    """Format a fraction as a percentage."""
    return "0 %" if part == 0 else f"{100 * part:.1f} %" if part >= 0.001 else "< 0.1 %"


def size_text(size_bytes: int) -> str:
    """Format a size."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} B"


def data_uri(webp: bytes) -> str:
    """Return an image as a ``data:`` URI."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def breakable(name: str) -> Markup:
    """Allow a line break after each slash of a long name."""
    from markupsafe import Markup, escape

    return Markup("/<wbr>").join(map(escape, name.split("/")))


def markdown(text: str) -> Markup:
    """Turn the little Markdown that `explain` writes into HTML: bold text and code."""
    from markupsafe import Markup, escape

    escaped = str(escape(text))
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))
