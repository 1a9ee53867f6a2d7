"""Pages of real conversions, opened in a real browser; each planted fault can be found on its page."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # ships no types
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.altered import with_other_scale
from tests.conftest import CHROMIUM
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.integration.conftest import Converted, Program

pytestmark = pytest.mark.any_engine

SECTIONS = ["images", "accuracy", "precision", "contents", "origin"]
MOST_BYTES = 3_000_000
QAT, QAT_GRAPH = "uint8/shapes_qat.tflite", "uint8/tflite_graph.pb"
SCORES = "concat_1"
INPUT = "normalized_input_image_tensor"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A page and the same data as JSON."""

    page: Path
    data: Mapping[str, Any]

    @property
    def text(self) -> str:
        return self.page.read_text("utf-8")


@pytest.fixture(scope="module")
def report(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reported]:
    def run(*arguments: str | Path) -> Reported:
        page = tmp_path_factory.mktemp("page") / "report.html"
        done = program("report", *arguments, "--out", page, "--json")
        assert done.exit_code == 0, done.stderr
        return Reported(page=page, data=json.loads(done.stdout))

    return run


@pytest.fixture(scope="module")
def stand_in(report: Callable[..., Reported], converted: Converted) -> Reported:
    return report(converted.out_dir)


@pytest.fixture(scope="module")
def tiny(report: Callable[..., Reported]) -> Reported:
    """Two files without frozen graphs."""
    files = (TINY_DETECTOR / f"{kind}.run0.tflite" for kind in ("fp32", "uint8"))
    return report(*files, "--score-threshold", "0")


def open_page(
    browser: Browser, file: Path, scheme: Literal["light", "dark"], width: int, *, folds: str
) -> list[str]:
    """Open a page and its folds; return messages on the console, requests, and violations of axe-core."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    console: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda problem: console.append(str(problem)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    sections = page.locator("section")
    assert [sections.nth(index).get_attribute("id") for index in range(sections.count())] == SECTIONS
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(f"for (const fold of document.querySelectorAll('{folds}')) fold.open = true")
    violations = [
        f"{it['id']}: {node['html'][:200]}"
        for it in Axe().run(page).response["violations"]
        for node in it["nodes"]
    ]
    page.close()
    elsewhere = [url[:100] for url in requests if url != file.as_uri() and not url.startswith("data:")]
    return [*console, *elsewhere, *violations]


def check_page(browser: Browser, file: Path, *, folds: str = "details:not(.long)") -> None:
    """Open a page on a wide and on a narrow screen, in light and in dark.

    axe-core needs long for tables of hundreds of rows, so most of them stay behind their folds.
    """
    assert file.stat().st_size < MOST_BYTES
    assert open_page(browser, file, "light", 1400, folds=folds) == []
    assert open_page(browser, file, "dark", 390, folds=folds) == []


@pytest.mark.browser
def test_page_of_files_alone_opens_without_a_request(browser: Browser, tiny: Reported) -> None:
    check_page(browser, tiny.page, folds="details")


@pytest.mark.browser
def test_tensors_are_sorted_by_a_column(browser: Browser, tiny: Reported) -> None:
    page = browser.new_page()
    page.goto(tiny.page.as_uri())
    page.get_by_text("All 23 tensors of uint8.run0.tflite").click()
    table = page.get_by_role("region", name="Tensors of uint8.run0.tflite")
    for sort, is_descending in (("ascending", False), ("descending", True)):
        table.get_by_role("button", name="Bytes").click()
        heading = table.get_by_role("columnheader", name="Bytes")
        assert heading.get_attribute("aria-sort") == sort
        sizes = [int(it.replace(",", "")) for it in table.locator("tbody td:nth-child(6)").all_inner_texts()]
        assert len(set(sizes)) > 3
        assert sizes == sorted(sizes, reverse=is_descending)
    page.close()


@pytest.mark.browser
def test_page_of_the_stand_in_opens_without_a_request(browser: Browser, stand_in: Reported) -> None:
    check_page(browser, stand_in.page)


def test_page_of_the_stand_in_says_that_its_weights_are_random(stand_in: Reported) -> None:
    images = stand_in.text[stand_in.text.index('<section id="images">') :]
    assert "<strong>These detections mean nothing.</strong>" in images[:500]
    assert all(it["has_random_weights"] for it in stand_in.data["files"])


def test_layers_of_the_float_file_are_those_of_the_graph(stand_in: Reported) -> None:
    fp32, uint8 = stand_in.data["files"]
    assert (fp32["name"], uint8["name"]) == ("fp32", "uint8")
    # The input, and what 125 operators compute but the detections.
    assert [len(it["precision"]["layers"]) for it in (fp32, uint8)] == [125, 125]
    assert fp32["precision"]["layers"][0]["name"] == INPUT
    assert max(it["rms"] for it in fp32["precision"]["layers"]) < 1e-3
    assert all(it["checked"]["is_good"] for it in (fp32, uint8))
    for image in stand_in.data["images"]:
        raw = image["raw"][0]
        assert raw["largest_score_difference"] < 1e-3


def test_published_range_of_a_concatenation_is_found(stand_in: Reported) -> None:
    _, uint8 = stand_in.data["files"]
    different = [it for it in uint8["precision"]["ranges"] if it["is_different"]]
    assert [it["name"] for it in different] == ["concat_1"]
    assert [it["section"] for it in uint8["warnings"]] == ["clipped", "images"]
    assert "scores at most 0.771 instead of 0.845" in stand_in.text


# --- a detector that detects, and one planted fault at a time ----------------------------------------------


@pytest.fixture(scope="module")
def shapes_dir(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both files of the recipe, and their page."""
    out_dir = tmp_path_factory.mktemp("shapes")
    done = program("build-all", "--recipe", "shapes", "--out", out_dir, "--report")
    assert done.exit_code == 0, done.stderr
    return out_dir


@pytest.fixture(scope="module")
def clipped(shapes_dir: Path, report: Callable[..., Reported]) -> Reported:
    """The quantized file with a quarter of the range of its scores: TOCO's flag clips nothing here."""
    file = shapes_dir / "clipped.tflite"
    file.write_bytes(with_other_scale((shapes_dir / QAT).read_bytes(), SCORES, factor=0.25))
    return report(file, "--graph", shapes_dir / QAT_GRAPH, "--recipe", "shapes")


@pytest.fixture(scope="module")
def wrong_mean(program: Program, shapes_dir: Path, report: Callable[..., Reported]) -> Reported:
    """The quantized graph, converted for pixels from 0 to 1."""
    file, graph = shapes_dir / "mean.tflite", shapes_dir / QAT_GRAPH
    quantized = ("--inference-type", "QUANTIZED_UINT8", "--mean-value", "0", "--std-value", "255")
    done = program("toco", graph, "--out", file, *quantized, "--", "--change_concat_input_ranges=false")
    assert done.exit_code == 0, done.stderr
    return report(file, "--graph", graph, "--recipe", "shapes")


@pytest.mark.browser
def test_page_of_build_all_opens_without_a_request(browser: Browser, shapes_dir: Path) -> None:
    check_page(browser, shapes_dir / "report.html")


def test_file_without_a_fault_has_nothing_to_look_at(shapes_dir: Path) -> None:
    text = (shapes_dir / "report.html").read_text("utf-8")
    assert 'id="look"' not in text
    assert text.count("None: no concatenation cuts off values of its inputs.") == 1
    assert "These detections mean nothing" not in text


@pytest.mark.browser
def test_page_of_a_clipped_concatenation_shows_it(browser: Browser, clipped: Reported) -> None:
    check_page(browser, clipped.page, folds="details")
    (file,) = clipped.data["files"]
    assert [it["section"] for it in file["warnings"]] == ["check", "clipped"]
    assert file["checked"]["is_good"] is False
    assert SCORES in file["checked"]["text"]
    cut = {it["name"]: it["lost"] for it in file["precision"]["ranges"] if it["is_different"]}
    assert cut == {SCORES: pytest.approx(0.75, abs=0.01)}
    assert {it["concatenation"] for it in file["check"]["clipped"]} == {SCORES}
    # The frozen graph is sure of what it finds, and this file cannot be.
    graph, found = (
        [it["score"] for image in clipped.data["images"] for it in image["runs"][run]["detections"]]
        for run in (0, 1)
    )
    assert max(graph) > 0.9
    assert max(found, default=0.0) <= max(it["largest_score"] for it in file["check"]["clipped"]) + 0.01 < 0.9


@pytest.mark.slow
@pytest.mark.browser
def test_page_of_a_wrong_mean_shows_it(browser: Browser, wrong_mean: Reported, shapes_dir: Path) -> None:
    check_page(browser, wrong_mean.page)
    (file,) = wrong_mean.data["files"]
    assert file["pixels"] == {"low": 0.0, "high": pytest.approx(1.0), "is_expected": False}
    assert file["warnings"][0]["section"] == "images"
    assert file["checked"]["is_good"] is False
    layers = file["precision"]["layers"]
    assert max(layers, key=lambda it: it["rms"])["name"] == layers[0]["name"] == INPUT
    # Black is grey to this file, and its frozen graph sees the image itself.
    graph, seen = images_on(wrong_mean.text)[:2]
    right = images_on((shapes_dir / "report.html").read_text("utf-8"))
    assert darkest(graph) < 40
    assert darkest(seen) > 120
    assert graph in right
    assert seen not in right


def images_on(page: str) -> list[str]:
    """Return the images of a page, in its order, as base64."""
    return re.findall(r'href="data:image/webp;base64,([^"]+)"', page)


def darkest(image: str) -> int:
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return int(np.asarray(opened.convert("RGB")).min())
