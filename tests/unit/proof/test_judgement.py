from __future__ import annotations

from typing import Any

import pytest

from runner.pins import load_models_pin
from runner.prove import Match, judge
from runner.recipe import load_recipe

FP32 = load_recipe().variants["fp32"]


def step(**changes: str) -> dict[str, Any]:
    published = {
        "graph_sha256": FP32.published_meta_graph_sha256,
        "pipeline_config_git_blob": FP32.published_pipeline_config_git_blob,
        "nodes": 8469,
    }
    return {**published, **changes}


def test_the_published_graph_and_config_hold() -> None:
    proof = judge(step(), FP32, load_models_pin().github.commit)
    assert proof.holds
    assert proof.graph is Match.PUBLISHED
    assert proof.known_difference is None


def test_the_graph_of_the_pypi_tree_is_an_expected_difference_there() -> None:
    (known,) = FP32.other_meta_graphs
    proof = judge(step(graph_sha256=known.sha256), FP32, load_models_pin().pypi.commit)
    assert proof.holds
    assert proof.graph is Match.KNOWN_DIFFERENCE
    assert "48" in proof.sentence
    assert "expected here" in proof.sentence


def test_the_graph_of_the_pypi_tree_does_not_hold_for_the_pinned_one() -> None:
    (known,) = FP32.other_meta_graphs
    assert not judge(step(graph_sha256=known.sha256), FP32, load_models_pin().github.commit).holds


@pytest.mark.parametrize("key", ["graph_sha256", "pipeline_config_git_blob"])
def test_anything_else_does_not_hold(key: str) -> None:
    proof = judge(step(**{key: "0" * 64}), FP32, load_models_pin().pypi.commit)
    assert not proof.holds
    assert "is not the published one" in proof.sentence


def test_every_variant_has_a_known_graph_for_the_pypi_tree() -> None:
    commit = load_models_pin().pypi.commit
    for variant in load_recipe().variants.values():
        assert commit in [known.models_commit for known in variant.other_meta_graphs]
