from __future__ import annotations

from typing import Any

import pytest

from runner.proof.rebuild import Match, judge
from runner.recipes.recipe import load_recipe
from runner.toolchain.pins import load_models_pin

RECIPE = load_recipe()
FP32 = RECIPE.variants["fp32"]
(PYPI_TREE,) = RECIPE.graph_differences
OTHER = "0" * 64


def step(*, with_excerpt: str | None = None, **changes: str) -> dict[str, Any]:
    published = {
        "graph_sha256": FP32.published_meta_graph_sha256,
        "pipeline_config_git_blob": FP32.published_pipeline_config_git_blob,
        "nodes": 8469,
        "with_excerpt": with_excerpt and {"graph_sha256": with_excerpt, "added": 48, "replaced": 6},
    }
    return {**published, **changes}


def test_the_published_graph_and_config_hold() -> None:
    proof = judge(step(), FP32, None)
    assert proof.holds
    assert proof.graph is Match.PUBLISHED
    assert proof.known_difference is None


def test_a_graph_that_only_lacks_the_known_nodes_is_expected() -> None:
    proof = judge(step(graph_sha256=OTHER, with_excerpt=FP32.published_meta_graph_sha256), FP32, PYPI_TREE)
    assert proof.holds
    assert proof.graph is Match.KNOWN_DIFFERENCE
    assert "expected here (48 " in proof.sentence


def test_a_graph_that_differs_in_more_than_the_known_nodes_does_not_hold() -> None:
    proof = judge(step(graph_sha256=OTHER, with_excerpt="1" * 64), FP32, PYPI_TREE)
    assert not proof.holds


@pytest.mark.parametrize("key", ["graph_sha256", "pipeline_config_git_blob"])
def test_with_the_pinned_tree_any_difference_fails(key: str) -> None:
    proof = judge(step(**{key: OTHER}), FP32, None)
    assert not proof.holds
    assert "is not the published one" in proof.sentence


def test_what_the_pypi_tree_lacks_is_known() -> None:
    assert PYPI_TREE.models_commit == load_models_pin().pypi.commit
    assert RECIPE.data_dir is not None
    assert (RECIPE.data_dir / PYPI_TREE.excerpt).is_file()
