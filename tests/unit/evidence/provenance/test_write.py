from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import fastjsonschema
import pytest

from runner.engines.base import InterpreterFacts
from runner.evidence.provenance.write import describe_conversion, named_digests, stable_part, write_provenance
from runner.graph.template import Audit
from tests.locations import DATA, TINY_GRAPH_SHA256

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Toolchain
    from runner.graph.template import Template
    from tests.unit.fixtures.conversion import Convert

Validate = Callable[[Any], object]
OF_THE_CHECKOUT: Final = {"toolchain sources", "manifest of the models tree", "lock of the wheels"}


def statement_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "provenance.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def validate() -> Validate:
    """Check a document against the schema of the two specifications; raise ValueError if it differs."""
    schema = json.loads((DATA / "provenance_schema" / "statement.json").read_text("utf-8"))
    check: Validate = fastjsonschema.compile(schema)
    return check


def test_the_statement_is_as_the_specifications_want_it(delivered: Path, validate: Validate) -> None:
    validate(statement_in(delivered))


def test_the_statement_of_the_local_engine_is_valid_with_every_optional_part(
    convert: Convert, toolchain: Toolchain, home: Path, validate: Validate
) -> None:
    facts = InterpreterFacts(build="GCC 12.2.0", sha256="b" * 64, archive_sha256="c" * 64)
    local = replace(
        toolchain, engine="local", id="f6cabb397daafa68", base="CPython 3.7.17", interpreter=facts
    )
    paths = {"TF_MODEL_DIR": home / "model"}
    validate(describe_conversion(convert("one"), local, check={"sentence": "it agrees"}, paths=paths))


def test_the_toolchain_that_converted_is_recorded_beside_the_one_that_exported(
    convert: Convert, toolchain: Toolchain, validate: Validate
) -> None:
    toco = replace(toolchain, name="tf2.3", models_source=None, models_commit=None)
    statement = describe_conversion(convert("one"), toolchain, toco=toco)
    validate(statement)
    entries = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    named = {
        role: [it.get("name") for it in entries if it["annotations"]["role"] == role]
        for role in ("toolchain sources", "lock of the wheels", "models tree")
    }
    assert named["toolchain sources"] == ["toolchain", "toolchain tf2.3"]
    assert named["lock of the wheels"] == ["docker/requirements.lock", "toolchains/tf2.3/requirements.lock"]
    assert len(named["models tree"]) == 1


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_statements_of_version_0_1_0_are_valid(variant: str, validate: Validate) -> None:
    validate(json.loads((DATA / "old_provenance" / f"{variant}.json").read_text("utf-8")))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v2"),
        (("subject",), []),
        (("subject", 0, "digest"), {}),
        (("subject", 0, "digest", "sha256"), "not hexadecimal"),
        (("predicateType",), "https://slsa.dev/provenance/v2"),
        (("predicate", "runDetails"), {}),
        (("predicate", "runDetails", "builder", "id"), "no URI"),
        (("predicate", "runDetails", "metadata", "finishedOn"), "yesterday"),
        (("predicate", "buildDefinition", "resolvedDependency"), []),
        (("predicate", "buildDefinition", "resolvedDependencies"), [{"name": "only a name"}]),
    ],
    ids=str,
)
def test_the_schema_refuses_another_document(
    delivered: Path, validate: Validate, path: tuple[str | int, ...], value: object
) -> None:
    statement = statement_in(delivered)
    part: Any = statement
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=r"data"):
        validate(statement)


def test_the_document_is_the_one_that_was_written_with_the_attestation_library(delivered: Path) -> None:
    """Except for the version and the digests of this checkout, which change with ``docker/``.

    What was added since is in the golden document too: the digest of the frozen graph, ``isStandIn``,
    and how the graph was made.
    """
    statement = stable_part(statement_in(delivered))
    for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if entry["annotations"]["role"] in OF_THE_CHECKOUT:
            entry["digest"] = dict.fromkeys(entry["digest"], "of this checkout")
    statement["predicate"]["runDetails"]["builder"]["version"] = {"mobiledet-runner": "of this checkout"}
    parameters = statement["predicate"]["buildDefinition"]["externalParameters"]
    parameters["recipeSha256"] = "of this checkout"
    golden = (DATA / "golden_provenance.json").read_text("utf-8")
    assert json.dumps(statement, indent=2, ensure_ascii=False) + "\n" == golden


def test_a_template_is_an_input_and_what_the_script_did_not_do_is_recorded(
    convert: Convert, toolchain: Toolchain, graph_template: Template, validate: Validate
) -> None:
    conversion = replace(convert("one"), template=graph_template)
    statement = describe_conversion(conversion, toolchain)
    validate(statement)
    definition = statement["predicate"]["buildDefinition"]
    (entry,) = [it for it in definition["resolvedDependencies"] if it.get("name") == "graph template"]
    assert entry["digest"] == {"sha256": graph_template.sha256}
    assert entry["annotations"]["madeFrom"] == graph_template.made_from
    internal = definition["internalParameters"]
    assert internal["graphFrom"] == "template"
    assert "templateAudit" not in internal
    assert [step.get("insteadRun") for step in internal["steps"]] == [*["fill_template.py"] * 2, None]
    made_again = replace(graph_template, made_on="2026-02-02T00:00:00Z", made_from="f" * 64)
    other = describe_conversion(replace(conversion, template=made_again), toolchain)
    assert stable_part(other) == stable_part(statement)


@pytest.mark.parametrize("exported", ["one", "other"])
def test_an_audit_is_recorded_with_both_digests(
    convert: Convert, toolchain: Toolchain, validate: Validate, exported: str
) -> None:
    audit = Audit(
        template_sha256="d" * 64,
        filled_graph_sha256="one",
        exported_graph_sha256=exported,
        has_same_config=True,
    )
    statement = describe_conversion(replace(convert("one"), audit=audit), toolchain)
    validate(statement)
    recorded = statement["predicate"]["buildDefinition"]["internalParameters"]["templateAudit"]
    assert recorded["passed"] == (exported == "one")
    assert (recorded["filledGraphSha256"], recorded["exportedGraphSha256"]) == ("one", exported)


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


def test_the_result_of_the_check_is_recorded(convert: Convert, toolchain: Toolchain) -> None:
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
