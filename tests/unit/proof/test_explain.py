from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.console import plain
from runner.errors import IntegrityError, UsageError
from runner.evidence.provenance.write import write_provenance
from runner.graph.template import Audit
from runner.host.digests import digest_file
from runner.proof.explain import explain
from runner.recipes.recipe import DEFAULT_RECIPE, RECIPES_DIR, PublishedIdentity, load_recipe
from runner.tflite.key_orders import read_post_process_options, write_flexbuffer
from runner.tflite.model import read_model
from tests.altered import with_other_blob
from tests.locations import DATA

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Toolchain
    from runner.graph.template import Template
    from tests.unit.fixtures.conversion import Convert


def test_a_file_is_explained_from_the_provenance_beside_it(delivered: Path) -> None:
    page = explain(delivered / "mobiledet.tflite").as_markdown()
    assert digest_file(delivered / "mobiledet.tflite").sha256 in page
    assert "python -m runner fp32" in page
    assert "toco \\\n" in page
    assert "tflite_convert \\\n" in page


@pytest.mark.parametrize("name", [".", "provenance.json", "mobiledet.tflite", "../ssd_mobiledets.f32.tflite"])
def test_folder_provenance_file_and_copy_lead_to_one_page(delivered: Path, name: str) -> None:
    page = explain(delivered / name).as_markdown()
    assert explain(delivered / "provenance.json").as_markdown().partition("## Made from")[2] in page


def test_a_byproduct_is_called_what_it_is(delivered: Path) -> None:
    assert "TOCO's own file" in explain(delivered / "mobiledet.raw.tflite").what[0]


def test_a_file_that_is_not_published_says_that_nobody_has_compared(delivered: Path) -> None:
    explanation = explain(delivered)
    assert any("not the published file" in sentence for sentence in explanation.what)
    assert any("was ever compared" in item for item in explanation.not_proven)


def test_a_match_with_both_published_digests_is_reported(convert: Convert, toolchain: Toolchain) -> None:
    conversion = convert("one")
    digests = conversion.normalized.digests
    variant = replace(
        conversion.plan.variant,
        published=PublishedIdentity(md5=digests.md5, git_blob=digests.git_blob, url="https://example.org/x"),
    )
    matched = replace(
        conversion,
        plan=replace(conversion.plan, variant=variant),
        normalized=replace(conversion.normalized, matches_published=True),
    )
    write_provenance(matched, toolchain)
    explanation = explain(matched.folder)
    assert any("the published file**" in sentence for sentence in explanation.what)
    assert not any("has compared" in item for item in explanation.not_proven)


def test_settings_unlike_the_published_ones_are_reported_and_in_the_command(
    convert: Convert, toolchain: Toolchain
) -> None:
    conversion = convert("one")
    settings = replace(conversion.plan.settings, max_detections=40)
    changed = replace(conversion, plan=replace(conversion.plan, settings=settings))
    write_provenance(changed, toolchain)
    explanation = explain(changed.folder)
    assert any("cannot be: it was made with --max-detections 40" in sentence for sentence in explanation.what)
    assert "--max-detections 40" in explanation.commands[0].text


def test_the_result_of_the_check_is_listed_as_proven(convert: Convert, toolchain: Toolchain) -> None:
    conversion = convert("one")
    path = conversion.folder / "provenance.json"
    write_provenance(conversion, toolchain)
    assert any("--no-check" in item for item in explain(path).not_proven)
    write_provenance(conversion, toolchain, check={"sentence": "largest difference 1e-6"})
    assert any("largest difference 1e-6" in item for item in explain(path).proven)
    assert not any("--no-check" in item for item in explain(path).not_proven)


def test_a_template_is_an_input_and_its_audit_is_listed_as_proven(
    convert: Convert, toolchain: Toolchain, graph_template: Template
) -> None:
    conversion = replace(convert("one"), template=graph_template)
    path = conversion.folder / "provenance.json"
    write_provenance(conversion, toolchain)
    assert any(graph_template.sha256 in item for item in explain(path).made_from)
    assert any("was not audited on this checkpoint" in item for item in explain(path).not_proven)
    audit = Audit(
        template_sha256="d" * 64, filled_graph_sha256="1", exported_graph_sha256="1", has_same_config=True
    )
    write_provenance(replace(conversion, audit=audit), toolchain)
    assert any("which was audited" in item for item in explain(path).proven)
    assert not any("was not audited" in item for item in explain(path).not_proven)


def test_a_file_without_provenance_is_explained_by_its_bytes(tmp_path: Path) -> None:
    shutil.copy(DATA / "tiny_detector" / "fp32.run0.tflite", tmp_path / "found.tflite")
    page = explain(tmp_path / "found.tflite").as_markdown()
    assert "normalized_input_image_tensor" in page
    assert "contains its sha256" in page
    assert "another model" in page


def test_an_order_that_no_public_toco_writes_is_reported(tmp_path: Path) -> None:
    uint8_run = (DATA / "tiny_detector" / "uint8.run0.tflite").read_bytes()
    options = read_post_process_options(read_model(uint8_run))
    assert options is not None
    odd = with_other_blob(uint8_run, write_flexbuffer(tuple(sorted(options.order)), options.values))
    (tmp_path / "found.tflite").write_bytes(odd)
    page = explain(tmp_path / "found.tflite").as_markdown()
    assert "none of the 44 orders that a TOCO built from public source can write" in page


def test_a_provenance_of_another_file_is_not_taken_for_its_own(delivered: Path) -> None:
    shutil.copy(DATA / "tiny_detector" / "fp32.run1.tflite", delivered / "other.tflite")
    assert "contains its sha256" in explain(delivered / "other.tflite").as_markdown()


def test_the_page_for_programs_has_every_part(delivered: Path) -> None:
    page = json.loads(json.dumps(plain(explain(delivered))))
    assert set(page) == {"title", "what", "made_from", "commands", "proven", "not_proven"}
    assert all(page.values())


def test_nothing_at_the_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        explain(tmp_path / "none.tflite")


def test_an_output_directory_names_its_conversions(delivered: Path) -> None:
    with pytest.raises(UsageError) as raised:
        explain(delivered.parent)
    assert str(delivered) in str(raised.value.tip)


def test_a_file_that_is_no_model_is_an_integrity_error(tmp_path: Path) -> None:
    (tmp_path / "page.tflite").write_text("<html>quota exceeded</html>")
    with pytest.raises(IntegrityError):
        explain(tmp_path / "page.tflite")


def test_an_unknown_recipe_is_an_error(delivered: Path) -> None:
    path = delivered / "provenance.json"
    path.write_text(path.read_text("utf-8").replace("mobiledet_edgetpu", "of_the_future"), "utf-8")
    with pytest.raises(UsageError, match="of_the_future"):
        explain(path)


def as_made_by(recipe_sha256: str, delivered: Path) -> None:
    """Let the provenance record another recipe of the same name."""
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement["predicate"]["buildDefinition"]["externalParameters"]["recipeSha256"] = recipe_sha256
    path.write_text(json.dumps(statement), "utf-8")


def test_a_recipe_of_the_same_name_is_not_taken_for_the_shipped_one(delivered: Path, tmp_path: Path) -> None:
    assert "another recipe" not in explain(delivered).as_markdown()
    folder = tmp_path / DEFAULT_RECIPE
    shutil.copytree(RECIPES_DIR / DEFAULT_RECIPE, folder)
    with (folder / "recipe.toml").open("a") as file:
        file.write("# changed\n")
    as_made_by(load_recipe(folder).digest, delivered)
    page = explain(delivered).as_markdown()
    assert f"**another recipe** than the current {DEFAULT_RECIPE}" in page
    right = explain(delivered, str(folder)).as_markdown()
    assert "another recipe" not in right
    assert f"fp32 --recipe {folder} --model-dir" in right
