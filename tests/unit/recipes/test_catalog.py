"""The shipped recipes are readable, and none claims more than its evidence shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.checkpoint.files import locate_checkpoint
from runner.evaluation.shapes import LABELS
from runner.recipes.recipe import (
    DEFAULT_RECIPE,
    RECIPES_DIR,
    InferenceType,
    PublishedIdentity,
    Variant,
    load_recipe,
    recipe_names,
)
from runner.recipes.status import (
    ARCHIVE_FILE,
    SHIPPED_FILE,
    STAND_IN_FILE,
    SYNTHETIC_FILE,
    Status,
    evidence_of,
    status_of,
)
from tests.integration.test_synthetic import MODELS
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from pathlib import Path

ALL_VARIANTS = [(name, variant) for name in recipe_names() for variant in load_recipe(name).variants.values()]


@pytest.mark.parametrize("folder", sorted(RECIPES_DIR.iterdir()), ids=lambda folder: folder.name)
def test_every_folder_of_the_catalog_is_a_recipe(folder: object) -> None:
    assert load_recipe(str(folder)).variants


def test_what_counts_as_converted_is_what_the_integration_tests_convert() -> None:
    """They make each of these models again and compare its sha256 with the recorded one."""
    converted = {
        variant.data_dir
        for name, variant in ALL_VARIANTS
        if status_of(variant, evidence_of(variant)) is Status.SYNTHETIC
    } - {RECIPES_DIR / DEFAULT_RECIPE / variant for variant in FINAL_SHA256}
    assert converted == {model.folder for model in MODELS.values() if RECIPES_DIR in model.folder.parents}


def test_the_default_recipe_counts_as_converted_with_the_pinned_files() -> None:
    recorded = {name: evidence_of(it) for name, it in load_recipe().variants.items()}
    assert {name: it and it.sha256 for name, it in recorded.items()} == FINAL_SHA256


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_03", Status.REFUSED),
        ("spaghettinet_edgetpu_l_2021_10_13", Status.REFUSED),
        ("ssd_inception_v2_coco_2018_01_28", Status.NOT_EXERCISED),
        ("ssd_mobilenet_v3_large_coco_2020_01_14", Status.SYNTHETIC),
    ],
)
def test_the_status_follows_from_the_evidence(name: str, status: Status) -> None:
    (variant,) = load_recipe(name).variants.values()
    assert status_of(variant, evidence_of(variant)) is status


@pytest.mark.parametrize(
    ("md5", "status"), [("11" * 16, Status.PUBLISHED), ("22" * 16, Status.REAL), (None, Status.REAL)]
)
def test_a_published_file_counts_as_matched_only_if_all_its_digests_do(
    tmp_path: Path, md5: str | None, status: Status
) -> None:
    recorded = {"sha256": "00" * 32, "command": "a command", "date": "2026-11-24"}
    recorded |= {} if md5 is None else {"md5": md5}
    text = "".join(f'{name} = "{value}"\n' for name, value in recorded.items())
    (tmp_path / ARCHIVE_FILE).write_text(text, "utf-8")
    variant = Variant(
        name="fp32",
        data_dir=tmp_path,
        inference_type=InferenceType.FLOAT,
        published=PublishedIdentity(md5="11" * 16),
    )
    assert status_of(variant, evidence_of(variant)) is status


def test_no_recipe_claims_a_real_archive_yet() -> None:
    """If one does, a test must repeat the conversion, or compare with the record of a hosted machine."""
    claimed = {status_of(variant, evidence_of(variant)) for _, variant in ALL_VARIANTS}
    assert claimed.isdisjoint({Status.PUBLISHED, Status.REAL})


def test_no_evidence_lies_outside_a_variant() -> None:
    known = {variant.data_dir for _, variant in ALL_VARIANTS}
    assert {path.parent for path in RECIPES_DIR.rglob(SYNTHETIC_FILE)} <= known
    assert {path.parent for path in RECIPES_DIR.rglob(STAND_IN_FILE)} <= known
    assert {path.parent for path in RECIPES_DIR.rglob(SHIPPED_FILE)} <= known


def test_what_counts_as_converted_from_a_shipped_checkpoint_ships_one() -> None:
    """The integration tests convert `shapes` and compare the sha256 of its files with the recorded ones."""
    shipped = {
        (name, variant.name)
        for name, variant in ALL_VARIANTS
        if status_of(variant, evidence_of(variant)) is Status.SHIPPED
    }
    assert shipped == {("shapes", "fp32"), ("shapes", "uint8")}
    for name, variant in shipped:
        recipe = load_recipe(name)
        assert all(
            it.is_file()
            for it in locate_checkpoint(RECIPES_DIR / name, recipe, recipe.variants[variant]).paths
        )


def test_the_classes_of_shapes_are_those_that_samples_draws() -> None:
    assert load_recipe("shapes").labels == LABELS
