"""Provenance files that an older version of this program wrote are still read."""

from __future__ import annotations

import pytest

from runner.evidence.provenance.read import Role, read_provenance
from runner.evidence.provenance.verify import ClaimState, check_provenance
from runner.proof.explain import explain
from runner.recipes.recipe import load_recipe
from tests.locations import DATA, TINY_DETECTOR

OLD = DATA / "old_provenance"


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_an_old_provenance_is_read_with_the_defaults_of_later_settings(variant: str) -> None:
    provenance = read_provenance(OLD / f"{variant}.json")
    assert provenance.request.settings == load_recipe().variants[variant].settings
    assert [step.name for step in provenance.steps] == [
        "pipeline_config.py",
        "export_tflite_ssd_graph.py",
        "toco",
    ]


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_an_old_provenance_is_explained(variant: str) -> None:
    page = explain(OLD / f"{variant}.json").as_markdown()
    assert f"python -m runner {variant} --model-dir" in page


def test_an_old_provenance_is_verified_as_far_as_its_files_are_at_hand() -> None:
    report = check_provenance(OLD / "fp32.json", file=TINY_DETECTOR / "fp32.run0.tflite")
    states = {claim.role: claim.state for claim in report.findings}
    assert states[Role.LOCK] is ClaimState.SAME
    assert states[Role.MANIFEST] is ClaimState.SAME
    assert states[Role.GRAPH] is ClaimState.ABSENT
    assert states[Role.FINAL] is ClaimState.DIFFERENT
