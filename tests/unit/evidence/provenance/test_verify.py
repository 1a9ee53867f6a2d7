from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from runner.errors import IntegrityError, UsageError
from runner.evidence.provenance.verify import ClaimState, check_provenance
from runner.host.digests import sha256_of
from runner.toolchain.pins import PROJECT_ROOT
from tests.locations import TINY_GRAPH, TINY_GRAPH_SHA256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fixtures.conversion import Convert

OUTPUTS = (
    "mobiledet.tflite",
    "mobiledet.raw.tflite",
    "tflite_graph.pb",
    "pipeline.config",
    "../ssd_mobiledets.f32.tflite",
    "export.log",
    "toco.log",
)
CHECKPOINT = (
    "fp32/pipeline.config",
    "fp32/model.ckpt-400000.index",
    "fp32/model.ckpt-400000.data-00000-of-00001",
)


def states_in(folder: Path) -> dict[str, ClaimState]:
    findings = check_provenance(folder / "provenance.json").findings
    return {finding.name: finding.state for finding in findings}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_untouched_conversion_is_as_named(delivered: Path, model_dir: Path) -> None:
    report = check_provenance(delivered / "provenance.json", model_dir=model_dir)
    assert report.different == ()
    assert [finding.role.value for finding in report.absent] == ["toolchain image"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_flipped_byte_in_an_output_is_found_and_named(delivered: Path, name: str) -> None:
    flip_a_byte(delivered / name)
    report = check_provenance(delivered / "provenance.json")
    assert [finding.name for finding in report.different] == [name]
    assert name in report.sentence


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_flipped_byte_in_the_checkpoint_is_found_and_named(
    delivered: Path, model_dir: Path, name: str
) -> None:
    flip_a_byte(model_dir / name)
    report = check_provenance(delivered / "provenance.json", model_dir=model_dir)
    assert name in [finding.name for finding in report.different]


@pytest.mark.parametrize(
    "name",
    [
        "docker/requirements.lock",
        "docker/manifests/models-research-3564634.manifest",
    ],
)
def test_a_flipped_byte_in_the_project_is_found_and_named(delivered: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(PROJECT_ROOT / "docker", root / "docker", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("models-research-pin.txt", "cpython-pin.txt", "Dockerfile"):
        shutil.copy(PROJECT_ROOT / file, root)
    assert check_provenance(delivered / "provenance.json", root=root).different == ()
    flip_a_byte(root / name)
    report = check_provenance(delivered / "provenance.json", root=root)
    assert {finding.name for finding in report.different} == {name, "toolchain"}


def test_files_of_another_run_have_the_same_content(delivered: Path, convert: Convert) -> None:
    other = convert("other").folder
    for name in ("mobiledet.raw.tflite", "tflite_graph.pb", "mobiledet.tflite"):
        shutil.copy(other / name, delivered / name)
    states = states_in(delivered)
    assert states["mobiledet.raw.tflite"] is ClaimState.REORDERED
    assert states["tflite_graph.pb"] is ClaimState.SAME
    assert states["mobiledet.tflite"] is ClaimState.SAME


def test_a_graph_of_a_version_that_did_not_sort_it_is_compared_by_content(delivered: Path) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    byproducts = statement["predicate"]["runDetails"]["byproducts"]
    (graph,) = (entry for entry in byproducts if entry["name"] == "tflite_graph.pb")
    graph["digest"] = {"sha256": sha256_of(TINY_GRAPH / "one.pb")}
    graph["annotations"] |= {"differsFromRunToRun": True, "canonicalSha256": TINY_GRAPH_SHA256}
    path.write_text(json.dumps(statement), "utf-8")
    shutil.copy(TINY_GRAPH / "other.pb", delivered / "tflite_graph.pb")
    assert states_in(delivered)["tflite_graph.pb"] is ClaimState.REORDERED


def test_a_file_elsewhere_can_be_named(delivered: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renamed.tflite"
    (delivered / "mobiledet.tflite").replace(elsewhere)
    assert check_provenance(delivered / "provenance.json", file=elsewhere).different == ()


def test_without_its_file_a_provenance_shows_nothing(delivered: Path) -> None:
    (delivered / "mobiledet.tflite").unlink()
    with pytest.raises(UsageError, match=r"mobiledet\.tflite"):
        check_provenance(delivered / "provenance.json")


def test_a_missing_provenance_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"provenance\.json"):
        check_provenance(tmp_path / "provenance.json")


def test_a_cut_off_provenance_is_damaged(delivered: Path) -> None:
    path = delivered / "provenance.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="damaged"):
        check_provenance(path)


def test_a_provenance_larger_than_any_is_not_read(delivered: Path) -> None:
    path = delivered / "provenance.json"
    path.write_bytes(path.read_bytes() + b" " * (5 << 20))
    with pytest.raises(IntegrityError, match="too large"):
        check_provenance(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret", "fp32/../../../secret"])
def test_a_provenance_cannot_have_other_files_read(delivered: Path, name: str) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement["predicate"]["runDetails"]["byproducts"][0]["name"] = name
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="leads away from the folder of the provenance"):
        check_provenance(path)


@pytest.mark.parametrize("part", ["_type", "subject", "predicateType", "predicate"])
def test_a_statement_without_a_part_is_no_provenance(delivered: Path, part: str) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    del statement[part]
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="not a provenance of this tool"):
        check_provenance(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://slsa.dev/provenance/v0.2"),
        ("subject", [{"name": "x", "digest": {"sha256": 7}, "annotations": {"published": {}}}]),
    ],
)
def test_a_statement_with_another_part_is_no_provenance(delivered: Path, part: str, value: object) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement[part] = value
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="not a provenance of this tool"):
        check_provenance(path)


def test_a_field_of_a_later_version_is_ignored(delivered: Path) -> None:
    """Both specifications require this."""
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement["predicate"]["runDetails"]["of a later version"] = 1
    path.write_text(json.dumps(statement), "utf-8")
    assert check_provenance(path).different == ()


@pytest.mark.parametrize("name", [7, {"of": "another kind"}])
def test_a_name_that_is_no_text_is_damaged(delivered: Path, name: object) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]["name"] = name
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="is not a string"):
        check_provenance(path)


@pytest.mark.parametrize("part", ["published", "externalParameters", "resolvedDependencies", "check"])
def test_a_statement_of_another_kind_is_no_provenance_of_ours(delivered: Path, part: str) -> None:
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    annotations = statement["subject"][0]["annotations"]
    definition = statement["predicate"]["buildDefinition"]
    if part == "published":
        del annotations["published"]
    elif part == "check":
        annotations["check"] = {"passed": True}
    else:
        definition[part] = [{"name": "something", "annotations": {"role": "unheard of"}}]
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="not a provenance of this tool"):
        check_provenance(path)
