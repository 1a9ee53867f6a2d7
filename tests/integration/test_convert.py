"""`convert` with a user's own checkpoint, float and quantized, and other commands on the result."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Program

pytestmark = pytest.mark.any_engine

PREFIX = "model.ckpt-400000"
STRANGE = "of_tomorrow { a: 1 }"
CONCAT = "--change_concat_input_ranges=false"


@dataclass(frozen=True, kw_only=True)
class Own:
    """A user's own model, config and checkpoint in two folders, and the results of `convert`."""

    config: Path
    checkpoint: Path
    out_dir: Path
    result: dict[str, Any]
    stderr: str

    @property
    def tflite(self) -> Path:
        return self.out_dir / "model.tflite"


@pytest.fixture(scope="module", params=[pytest.param("fp32", marks=pytest.mark.slow), "uint8"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def own(program: Program, stand_in_dir: Path, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Own:
    folder = tmp_path_factory.mktemp(f"own-{kind}")
    checkpoint, config = folder / "training", folder / "configs" / "my.config"
    shutil.copytree(stand_in_dir / kind, checkpoint)
    config.parent.mkdir()
    shutil.move(checkpoint / "pipeline.config", config)
    text = config.read_text()
    config.write_text(text.replace("min_depth: 16", f"min_depth: 16 {STRANGE}", 1))
    assert STRANGE in config.read_text()
    out_dir = folder / "out"
    paths = ("--pipeline-config", config, "--checkpoint", checkpoint / PREFIX, "--out", out_dir)
    done = program("convert", *paths, "--drop-unknown-fields", "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = done.json
    return Own(
        config=config, checkpoint=checkpoint / PREFIX, out_dir=out_dir, result=result, stderr=done.stderr
    )


def test_all_files_are_in_the_output_directory_itself(own: Own) -> None:
    assert sorted(path.name for path in own.out_dir.iterdir()) == [
        "export.log",
        "model.raw.tflite",
        "model.tflite",
        "pipeline.config",
        "provenance.json",
        "tflite_graph.pb",
        "toco.log",
    ]
    assert (own.result["file"], own.result["copy"]) == (str(own.tflite), None)


def test_shape_and_kind_come_from_the_config_and_the_rest_is_the_default(own: Own, kind: str) -> None:
    summary = summarise(read_model_file(own.tflite))
    (entry,) = summary.inputs
    assert (entry.shape, entry.dtype) == ((1, 320, 320, 3), "uint8" if kind == "uint8" else "float32")
    assert summary.post_processing is not None
    assert summary.post_processing["use_regular_nms"] is False
    assert summary.post_processing["max_detections"] == 10
    provenance = json.loads((own.out_dir / "provenance.json").read_text())
    toco = provenance["predicate"]["buildDefinition"]["internalParameters"]["steps"][-1]["argv"]
    quantized = {"--mean_values=128", "--std_values=128", CONCAT}
    assert quantized & set(toco) == (quantized if kind == "uint8" else set())


def test_the_check_is_in_the_provenance_and_so_is_the_dropped_field(own: Own) -> None:
    provenance = json.loads((own.out_dir / "provenance.json").read_text())
    assert "match the graph" in provenance["subject"][0]["annotations"]["check"]["sentence"]
    (change,) = provenance["predicate"]["buildDefinition"]["internalParameters"]["configChanges"]
    assert change["field"] == "SsdFeatureExtractor.of_tomorrow"
    assert "SsdFeatureExtractor.of_tomorrow" in own.stderr
    assert str(own.config.parent.parent) not in (own.out_dir / "provenance.json").read_text()


def test_verify_and_explain_know_the_file(program: Program, own: Own) -> None:
    verified = program("verify", own.tflite)
    assert verified.exit_code == 0, verified.stderr
    assert "same: model.tflite (final file)" in verified.stdout
    explained = program("explain", own.tflite)
    assert "user's own" in explained.stdout
    assert "published" not in explained.stdout.partition("## What is proven")[0]


def test_verify_compares_the_checkpoint_too(program: Program, own: Own) -> None:
    done = program("verify", own.tflite, "--model-dir", own.checkpoint.parent, "--json")
    assert done.exit_code == 0, done.stderr
    states = {entry["role"]: entry["state"] for entry in done.json["findings"]}
    assert (states["checkpoint"], states["checkpoint data"]) == ("same", "same")
    assert states["pipeline config"] == "not available"


def test_once_the_config_was_read_a_dry_run_prints_the_plan(program: Program, own: Own) -> None:
    paths = ("--pipeline-config", own.config, "--checkpoint", own.checkpoint, "--out", own.out_dir)
    done = program("convert", *paths, "--drop-unknown-fields", "--dry-run", "--json", "--max-detections", "7")
    (conversion,) = done.json["conversions"]
    assert conversion["settings"]["maxDetections"] == 7
    assert "--max_detections=7" in conversion["commands"]["export"]


def test_an_unknown_field_is_an_error_with_its_line(program: Program, own: Own, tmp_path: Path) -> None:
    paths = ("--pipeline-config", own.config, "--checkpoint", own.checkpoint, "--out", tmp_path / "out")
    done = program("convert", *paths)
    line = own.config.read_text().partition(STRANGE)[0].count("\n") + 1
    assert done.exit_code == 2
    assert f"my.config, line {line}: this tensorflow/models tree has no field of_tomorrow" in done.stderr
    assert "--drop-unknown-fields" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    paths = ("--pipeline-config", stand_in_dir / "uint8" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "fp32" / PREFIX)
    done = program("convert", *paths, *checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "only quantization ranges are missing" in done.stderr


def test_ranges_that_a_float_config_would_ignore_are_counted(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    paths = ("--pipeline-config", stand_in_dir / "fp32" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "uint8" / PREFIX)
    done = program("convert", *paths, *checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "model is converted as a float model: 402 quantization ranges" in done.stderr
    assert "graph_rewriter" in done.stderr.splitlines()[-1]


def test_the_command_of_the_readme_works(program: Program, stand_in_dir: Path, tmp_path: Path) -> None:
    section = (PROJECT_ROOT / "README.md").read_text("utf-8").partition("## Your own model")[2]
    line = re.search(r"^    python -m runner (convert .*)$", section, re.MULTILINE)
    assert line is not None
    (tmp_path / "train").mkdir()
    for path in (stand_in_dir / "fp32").iterdir():
        shutil.copyfile(path, tmp_path / "train" / path.name.replace("ckpt-400000", "ckpt-1000"))
    done = program(*line[1].split(), cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert summarise(read_model_file(tmp_path / "out" / "model.tflite")).inputs[0].dtype == "float32"
    assert program("verify", tmp_path / "out" / "model.tflite").exit_code == 0
