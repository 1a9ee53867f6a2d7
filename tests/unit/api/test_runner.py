"""What the methods of `Runner` return and raise where no toolchain is needed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import runner
from runner import Runner
from runner.errors import ConfigError, IntegrityError, UsageError
from runner.evidence.provenance.verify import ClaimState
from runner.tflite.diff import Kind, Verdict
from tests.locations import DATA, TINY_DETECTOR, TINY_GRAPH

if TYPE_CHECKING:
    from pathlib import Path

FILE = TINY_DETECTOR / "fp32.run0.tflite"
OTHER_ORDER = TINY_DETECTOR / "fp32.run1.tflite"
OTHER_CONVERTER = TINY_DETECTOR / "fp32.tf2.1.tflite"


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="Runer"):
        runner.Runer  # type: ignore[attr-defined]  # noqa: B018


def test_an_unknown_engine_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="podman"):
        Runner(engine="podman")


def test_verify_reports_a_file_that_is_not_the_published_one() -> None:
    found = Runner().verify(FILE)
    assert not found.verdict.is_same_content


def test_verify_against_a_file_of_another_run() -> None:
    assert Runner().verify(str(FILE), against=OTHER_ORDER).verdict is Verdict.OTHER_KEY_ORDER


def test_verify_refuses_a_variant_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="fp16"):
        Runner().verify(FILE, variant="fp16")


def test_diff_compares_content() -> None:
    assert Runner().diff(FILE, OTHER_ORDER).means_the_same
    assert {it.kind for it in Runner().diff(FILE, OTHER_CONVERTER).differences} >= {Kind.METADATA}


def test_diff_refuses_files_of_different_kinds() -> None:
    with pytest.raises(UsageError, match="different kinds"):
        Runner().diff(FILE, TINY_GRAPH / "one.pb")


def test_inspect_refuses_what_is_no_tflite() -> None:
    with pytest.raises(IntegrityError):
        Runner().inspect(TINY_GRAPH / "one.pb")


def test_normalize_gives_the_same_file_for_every_run(tmp_path: Path) -> None:
    targets = [tmp_path / "one.tflite", tmp_path / "other.tflite"]
    for source, target in zip((FILE, OTHER_ORDER), targets, strict=True):
        Runner().normalize(source, target)
    assert targets[0].read_bytes() == targets[1].read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        Runner().normalize(FILE, targets[0])


def test_a_provenance_is_verified() -> None:
    report = Runner().verify_provenance(DATA / "old_provenance" / "fp32.json", file=FILE)
    assert ClaimState.DIFFERENT in {finding.state for finding in report.findings}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"variants": ["fp16"]}, "no variant 'fp16'"),
        ({"settings": replace(Runner().settings, score_threshold=3.0)}, "score_threshold = 3.0 is out of"),
        ({"settings": replace(Runner().settings, max_detections=0)}, "max_detections = 0 is out of"),
    ],
)
def test_convert_refuses_what_is_not_valid(tmp_path: Path, arguments: Any, complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(UsageError, match=complaint):
        Runner().convert(model_dir=tmp_path, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_convert_takes_one_variant_by_its_name(tmp_path: Path) -> None:
    shutil.copytree(DATA / "tiny_checkpoint" / "plain", tmp_path / "model" / "fp32")
    (tmp_path / "model" / "fp32" / "pipeline.config").write_text("model {}\n")
    with pytest.raises(ConfigError, match="fp32"):  # it is another model
        Runner().convert(model_dir=tmp_path / "model", out=tmp_path / "out", variants="fp32")
