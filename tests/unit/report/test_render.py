"""How numbers and names are written on the page, and that names from a file are escaped."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from runner.report.collect import ReportRequest, collect
from runner.report.render import (
    breakable,
    is_page_of_ours,
    markdown,
    number_text,
    percent_text,
    range_text,
    render,
    size_text,
)
from runner.report.subject import find_subjects
from runner.scripts.provider import ToolchainProvider
from runner.scripts.run import ScriptOptions
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine
    from runner.report.data import Report

MINUS = "\N{MINUS SIGN}"
SECTIONS = ("images", "accuracy", "precision", "contents", "origin")


def no_engine() -> Engine:
    pytest.fail("a page without a frozen graph started the toolchain")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What is known of two files without frozen graphs."""
    options = ScriptOptions(log_dir=tmp_path_factory.mktemp("logs"))
    subjects = find_subjects([TINY_DETECTOR / f"{kind}.run0.tflite" for kind in ("fp32", "uint8")])
    request = ReportRequest(subjects=subjects, score_threshold=0.0)
    return collect(request, ToolchainProvider(engine=no_engine, options=lambda: options))


class Page(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567.0, "1,234,567"),
        (81.19, "81.2"),
        (-0.5, f"{MINUS}0.500"),
        (0.0078125, "0.00781"),
        (4.18e-5, f"4.18e{MINUS}5"),
    ],
)
def test_numbers_have_three_digits_and_a_minus_sign(value: float, text: str) -> None:
    assert number_text(value) == text


def test_parts_sizes_and_ranges() -> None:
    assert [percent_text(it) for it in (0, 0.0001, 0.039, 1)] == ["0 %", "< 0.1 %", "3.9 %", "100.0 %"]
    assert [size_text(it) for it in (12, 4321, 16569612)] == ["12 B", "4.3 kB", "16.6 MB"]
    assert range_text((-10.69, 1.214)) == f"{MINUS}10.7 … 1.21"


def test_names_break_behind_slashes_and_are_escaped() -> None:
    assert breakable("a/<b>") == "a/<wbr>&lt;b&gt;"
    assert markdown("**not** `a<b`") == "<strong>not</strong> <code>a&lt;b</code>"


def test_every_section_is_there_and_nothing_is_loaded_from_elsewhere(report: Report) -> None:
    page = Page(render(report))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == list(SECTIONS)
    addresses = [
        value for _, attributes in page.tags for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert addresses
    assert all(it.startswith(("#", "data:")) for it in addresses)
    links = {it[1:] for it in addresses if it.startswith("#")}
    assert links <= {attributes.get("id") for _, attributes in page.tags}


def test_names_in_a_file_cannot_add_to_the_page(report: Report) -> None:
    evil = "<script>alert(1)</script>\"'&"
    first = report.files[0]
    tensors = tuple(replace(it, name=evil) for it in first.tensors)
    changed = replace(report, title=evil, files=(replace(first, what=evil, tensors=tensors),))
    tags = [tag for tag, _ in Page(render(changed)).tags]
    assert tags.count("script") == 1


def test_a_page_of_ours_is_recognised(report: Report, tmp_path: Path) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    page.write_text(render(report), "utf-8")
    other.write_text("<html><head><meta name='generator' content='something else'></head></html>", "utf-8")
    assert is_page_of_ours(page)
    assert not is_page_of_ours(other)


def test_images_differ_where_the_detections_do(report: Report) -> None:
    (first, *_) = report.images
    assert [run.title for run in first.runs] == ["fp32.run0.tflite file", "uint8.run0.tflite file"]
    assert {len(it.image) > 100 for run in report.images for it in run.runs} == {True}
    found = [len(run.detections) for run in first.runs]
    assert len(first.rows) >= max(found) > 0
    assert {it.row for run in first.runs for it in run.detections} == {row.row for row in first.rows}
