"""`prove` on the real toolchain: MLCommons' graph is rebuilt, and the claims of `explain` are tested."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runner.evidence.provenance.read import OUTPUT_FILES, read_provenance
from runner.evidence.provenance.verify import check_provenance
from runner.host.digests import digest_file
from runner.proof.dialects import as_tflite_convert
from runner.proof.rebuild import Match, prove
from runner.scripts.run import ScriptOptions
from runner.tflite.canonical import normalize_keys
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

pytestmark = pytest.mark.any_engine

DETERMINISTIC_DIGEST = """
import hashlib, sys
from tensorflow.core.framework.graph_pb2 import GraphDef
graph = GraphDef.FromString(open(sys.argv[1], "rb").read())
print(hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest())
"""


def test_the_toolchain_rebuilds_what_mlcommons_exported(
    engine: Engine, recipe: Recipe, stand_in_dir: Path, tmp_path: Path
) -> None:
    proof = prove(engine, recipe, ScriptOptions(log_dir=tmp_path), model_dir=stand_in_dir)
    is_pinned_tree = proof.toolchain.models_commit == load_models_pin().github.commit
    expected = Match.PUBLISHED if is_pinned_tree else Match.KNOWN_DIFFERENCE
    assert [variant.config for variant in proof.variants] == [Match.PUBLISHED, Match.PUBLISHED]
    assert [variant.graph for variant in proof.variants] == [expected, expected]
    assert proof.holds


def test_a_conversion_is_what_its_provenance_names(converted: Converted, stand_in_dir: Path) -> None:
    for variant in converted.results:
        report = check_provenance(converted.out_dir / variant / "provenance.json", model_dir=stand_in_dir)
        assert report.different == ()
        assert not [finding for finding in report.absent if finding.role in OUTPUT_FILES]


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_the_explained_tflite_convert_command_gives_the_same_file(
    converted: Converted, session: Session, workspace: Path, variant: str
) -> None:
    provenance = read_provenance(converted.out_dir / variant / "provenance.json")
    argv = as_tflite_convert(provenance.steps[-1].argv)
    assert argv is not None
    (workspace / "explained" / variant).mkdir(parents=True)
    shutil.copy(converted.out_dir / variant / "tflite_graph.pb", workspace / "explained" / variant)
    folder = str(workspace / "explained")
    done = session.run(*(word.replace("${TFLITE_MODEL_DIR}", folder) for word in argv))
    assert done.exit_code == 0, done.stderr
    (raw,) = (workspace / "explained" / variant).glob("*.tflite")
    assert normalize_keys(raw, None).digests.sha256 == provenance.subject.digests["sha256"]


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_the_graph_is_as_tensorflow_serializes_it_deterministically(
    converted: Converted, session: Session, workspace: Path, variant: str
) -> None:
    graph = workspace / f"canonical-{variant}.pb"
    shutil.copy(converted.out_dir / variant / "tflite_graph.pb", graph)
    done = session.run("python3", "-c", DETERMINISTIC_DIGEST, str(graph))
    assert done.exit_code == 0, done.stderr
    assert digest_file(graph).sha256 == done.stdout[-1]


@pytest.mark.slow
def test_both_conversions_compute_what_their_graphs_compute(program: Program, converted: Converted) -> None:
    done = program("check", converted.out_dir, "--json")
    assert done.exit_code == 0, done.stderr
    assert [report["variant"] for report in done.json] == ["fp32", "uint8"]
    assert all(report["passed"] and report["image_spread"] > 1 for report in done.json)


def test_a_file_checked_against_another_graph_is_found_out(program: Program, converted: Converted) -> None:
    graph = converted.out_dir / "uint8" / "tflite_graph.pb"
    done = program("check", converted.out_dir / "fp32" / "mobiledet.tflite", "--graph", graph)
    assert done.exit_code == 8, done.stderr
    assert "does not compute what tflite_graph.pb computes" in done.stdout
