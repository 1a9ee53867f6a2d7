"""Recipes that start from the frozen graph in an archive, converted from archives that this toolchain made.

The graph is exported by the real script from a checkpoint with random weights; the archive is unpacked by
`fetch`.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runner.convert.stand_in import SyntheticArchive, write_synthetic
from runner.host.digests import sha256_of
from runner.recipes.recipe import RECIPES_DIR
from runner.scripts.run import ScriptOptions
from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from runner.engines.base import Session
    from tests.integration.conftest import Program

pytestmark = pytest.mark.engine("local")  # the files are the same with every engine

MLPERF: Final = "mlperf_mobile_v0_7_ssd_mobilenet_v2_uint8"
ARM: Final = "arm_ml_zoo_ssd_mobilenet_v1_uint8"
CONFIGS: Final = {
    MLPERF: "ssd_mobilenet_v2_quantized_300x300_coco_2019_01_03",
    ARM: "ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_18",
}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A fetched archive, and the results of `build-all` from its graph."""

    recipe: str
    model_dir: Path
    out_dir: Path
    result: dict[str, Any]

    @property
    def file(self) -> Path:
        return Path(self.result["file"])

    @property
    def statement(self) -> Any:  # noqa: ANN401 - parsed JSON
        return json.loads((self.out_dir / "uint8" / "provenance.json").read_text())


@pytest.fixture(scope="module", params=[MLPERF, pytest.param(ARM, marks=pytest.mark.slow)])
def converted(
    request: pytest.FixtureRequest,
    program: Program,
    session: Session,
    workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Converted:
    recipe, folder = str(request.param), tmp_path_factory.mktemp("shipped")
    archive = folder / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(synthetic_archive(session, workspace / recipe, CONFIGS[recipe]), arcname="inner")
    fetched = program("fetch", "--recipe", recipe, "--url", archive, "--out", folder / "models", "--json")
    assert fetched.exit_code == 0, fetched.stderr
    model_dir = folder / "models" / CONFIGS[recipe]
    assert fetched.json["model_dir"] == str(model_dir)
    words = ("--recipe", recipe, "--model-dir", model_dir, "--out", folder / "out")
    done = program("build-all", *words, "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = done.json
    return Converted(recipe=recipe, model_dir=model_dir, out_dir=folder / "out", result=result)


def synthetic_archive(session: Session, folder: Path, name: str) -> Path:
    """Make an unpacked archive with config, checkpoint and graph; the session reads a copy of the config."""
    folder.mkdir()
    config = folder / "archive.config"
    config.write_bytes((RECIPES_DIR / name / "uint8" / "pipeline.config").read_bytes())
    archive = SyntheticArchive(
        pipeline_config=config, folder=folder / "archive", prefix_name="model.ckpt", ships_graph=True
    )
    write_synthetic(session, archive, ScriptOptions(log_dir=folder / "logs"))
    return archive.folder


def test_nothing_is_exported_and_the_shipped_graph_is_a_product(converted: Converted) -> None:
    names = {path.name for path in (converted.out_dir / "uint8").iterdir()}
    assert "export.log" not in names
    graph = sha256_of(converted.model_dir / "tflite_graph.pb")
    assert sha256_of(converted.out_dir / "uint8" / "tflite_graph.pb") == graph
    definition = converted.statement["predicate"]["buildDefinition"]
    assert [step["name"] for step in definition["internalParameters"]["steps"]] == [
        "pipeline_config.py",
        "toco",
    ]
    roles = {entry["annotations"]["role"]: entry for entry in definition["resolvedDependencies"]}
    assert roles["frozen graph of the archive"]["digest"] == {"sha256": graph}
    assert roles["frozen graph of the archive"]["annotations"]["isStandIn"]
    assert roles["archive"]["digest"]["sha256"]
    assert not {"checkpoint", "checkpoint index", "checkpoint data"} & roles.keys()


def test_file_is_quantized_and_was_checked(converted: Converted) -> None:
    summary = summarise(read_model_file(converted.file))
    (entry,) = summary.inputs
    assert (entry.shape, entry.dtype) == ((1, 300, 300, 3), "uint8")
    check = converted.statement["subject"][0]["annotations"]["check"]
    assert "match the graph" in check["sentence"]
    assert "change_concat_input_ranges=false" in check["sentence"]


def test_check_finds_graph_and_setting_by_the_provenance(program: Program, converted: Converted) -> None:
    done = program("check", converted.file, "--recipe", converted.recipe, "--json")
    assert done.exit_code == 0, done.stderr
    (report,) = done.json
    assert report["passed"]
    assert report["has_random_weights"]


def test_verify_compares_provenance_and_archive(program: Program, converted: Converted) -> None:
    provenance = converted.out_dir / "uint8" / "provenance.json"
    done = program("verify", "--provenance", provenance, "--model-dir", converted.model_dir, "--json")
    assert done.exit_code == 0, done.stderr
    states = {entry["role"]: entry["state"] for entry in done.json["findings"]}
    assert states["frozen graph of the archive"] == "same"
    with (converted.model_dir / "tflite_graph.pb").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    try:
        changed = program("verify", "--provenance", provenance, "--model-dir", converted.model_dir)
    finally:
        with (converted.model_dir / "tflite_graph.pb").open("r+b") as file:
            file.write(first)
    assert changed.exit_code == 8
    assert "frozen graph of the archive" in changed.stderr


def test_verify_says_that_it_is_not_the_published_file(program: Program, converted: Converted) -> None:
    done = program("verify", converted.file, "--recipe", converted.recipe)
    assert done.exit_code == 8


def test_explain_names_the_graph_and_no_checkpoint(program: Program, converted: Converted) -> None:
    done = program("explain", converted.file)
    assert done.exit_code == 0, done.stderr
    assert "frozen graph of the archive: tflite_graph.pb" in done.stdout
    assert "made from the published weights" not in done.stdout
    assert "the checkpoint by a digest" not in done.stdout
    assert "export_tflite_ssd_graph" not in done.stdout
    assert f"uint8 --recipe {converted.recipe}" in done.stdout


@pytest.mark.slow
def test_inference_graph_is_exported_from_the_checkpoint_beside_the_graph(
    program: Program, converted: Converted, tmp_path: Path
) -> None:
    words = ("--recipe", converted.recipe, "--model-dir", converted.model_dir, "--out", tmp_path / "out")
    done = program("export-inference-graph", *words)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out" / "frozen_inference_graph.pb").stat().st_size > 1 << 20
