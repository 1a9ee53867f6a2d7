from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runner.evidence.provenance.statement import validate_statement
from runner.evidence.provenance.write import describe_conversion, named_digests, stable_part, write_provenance
from tests.locations import TINY_GRAPH_SHA256

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Toolchain
    from tests.unit.fixtures.conversion import Convert


def statement_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "provenance.json").read_text("utf-8")))


def test_the_statement_validates(delivered: Path) -> None:
    validate_statement(statement_in(delivered))


@pytest.mark.parametrize("part", ["_type", "subject", "predicateType", "predicate"])
def test_a_statement_without_a_part_does_not_validate(delivered: Path, part: str) -> None:
    statement = statement_in(delivered)
    del statement[part]
    with pytest.raises(ValueError, match=r"."):
        validate_statement(statement)


def test_a_field_the_standard_does_not_know_does_not_validate(delivered: Path) -> None:
    statement = statement_in(delivered)
    statement["predicate"]["buildDefinition"]["resolvedDependency"] = []
    with pytest.raises(ValueError, match="resolvedDependency"):
        validate_statement(statement)


def test_equal_inputs_give_equal_documents_but_for_what_varies(
    convert: Convert, toolchain: Toolchain
) -> None:
    one, other = (describe_conversion(convert(run), toolchain) for run in ("one", "other"))
    assert one != other
    assert stable_part(one) == stable_part(other)


def test_what_varies_carries_a_digest_that_does_not(convert: Convert, toolchain: Toolchain) -> None:
    byproducts = [
        {entry["name"]: entry for entry in statement["predicate"]["runDetails"]["byproducts"]}
        for statement in (describe_conversion(convert(run), toolchain) for run in ("one", "other"))
    ]
    one, other = (entries["mobiledet.raw.tflite"] for entries in byproducts)
    assert one["digest"] != other["digest"]
    assert one["annotations"]["canonicalSha256"] == other["annotations"]["canonicalSha256"]


def test_the_digest_of_the_graph_is_in_the_stable_part(convert: Convert, toolchain: Toolchain) -> None:
    stable = stable_part(describe_conversion(convert("one"), toolchain))
    named = {entry["name"]: entry for entry in stable["predicate"]["runDetails"]["byproducts"]}
    assert named["tflite_graph.pb"]["digest"] == {"sha256": TINY_GRAPH_SHA256}


def test_no_folder_of_the_user_is_named(delivered: Path, home: Path) -> None:
    assert str(home) not in (delivered / "provenance.json").read_text("utf-8")


def test_folders_are_named_when_asked(convert: Convert, toolchain: Toolchain, home: Path) -> None:
    statement = describe_conversion(convert("one"), toolchain, paths={"TF_MODEL_DIR": home / "model"})
    asked = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert asked["paths"] == {"TF_MODEL_DIR": str(home / "model")}


def test_no_environment_variable_is_recorded(
    convert: Convert, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2-hunter2")
    conversion = convert("one")
    write_provenance(conversion, toolchain)
    assert "hunter2" not in (conversion.folder / "provenance.json").read_text("utf-8")


def test_the_commands_are_those_that_ran_with_folders_as_variables(delivered: Path) -> None:
    steps = statement_in(delivered)["predicate"]["buildDefinition"]["internalParameters"]["steps"]
    assert [step["name"] for step in steps] == ["pipeline_config.py", "export_tflite_ssd_graph.py", "toco"]
    assert steps[0]["argv"][1:3] == ["--input", "${TF_MODEL_DIR}/fp32/pipeline.config"]
    assert "--trained_checkpoint_prefix=${TF_MODEL_DIR}/fp32/model.ckpt-400000" in steps[1]["argv"]
    assert "--output_file=${TFLITE_MODEL_DIR}/fp32/mobiledet.raw.tflite" in steps[2]["argv"]


def test_what_the_check_said_is_recorded(convert: Convert, toolchain: Toolchain) -> None:
    statement = describe_conversion(convert("one"), toolchain, check={"sentence": "it agrees"})
    assert statement["subject"][0]["annotations"]["check"] == {"sentence": "it agrees"}


def test_every_output_is_named_by_its_digest(delivered: Path) -> None:
    from runner.host.digests import digest_file

    outputs = {digest_file(path).sha256 for path in delivered.iterdir()}
    assert outputs == named_digests(delivered / "provenance.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"subject": 1}', b"\xff"])
def test_a_file_that_is_no_provenance_of_ours_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "provenance.json").write_bytes(content)
    assert named_digests(tmp_path / "provenance.json") == frozenset()


def test_somebody_elses_provenance_names_nothing(delivered: Path) -> None:
    path = delivered / "provenance.json"
    path.write_text(path.read_text("utf-8").replace("urn:mobiledet-runner:engine:", "https://example.org/"))
    assert named_digests(path) == frozenset()
