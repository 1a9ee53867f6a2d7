"""Convert a checkpoint to both files: check which files exist, who owns them, and that LiteRT runs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

from runner.engines.base import Folders
from runner.evaluation.detector import open_detector
from runner.evaluation.origin import find_origin
from runner.host.digests import digest_file
from runner.tflite.model import read_model_file
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from runner.engines.base import Engine
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

VARIANTS = ("fp32", "uint8")
OPERATORS = {
    "CONV_2D": 66,
    "DEPTHWISE_CONV_2D": 27,
    "ADD": 15,
    "RESHAPE": 13,
    "CONCATENATION": 2,
    "LOGISTIC": 1,
    "TFLite_Detection_PostProcess": 1,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_conversion_has_the_published_operators(converted: Converted, variant: str) -> None:
    model = read_model_file(Path(converted.results[variant]["file"]))
    counted: dict[str, int] = {}
    for operator in model.graphs[0].operators:
        counted[operator.name] = counted.get(operator.name, 0) + 1
    assert counted == OPERATORS


@pytest.mark.parametrize(("variant", "dtype"), [("fp32", np.float32), ("uint8", np.uint8)])
def test_litert_runs_a_conversion(converted: Converted, variant: str, dtype: type) -> None:
    interpreter = Interpreter(model_path=converted.results[variant]["file"])
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    assert (entry["dtype"], list(entry["shape"])) == (dtype, [1, 320, 320, 3])
    image = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3))
    interpreter.set_tensor(entry["index"], (image if dtype is np.uint8 else image / 128 - 1).astype(dtype))
    interpreter.invoke()
    shapes = [interpreter.get_tensor(out["index"]).shape for out in interpreter.get_output_details()]
    assert shapes == [(1, 10, 4), (1, 10), (1, 10), (1,)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_conversion_is_known_as_mobiledets_when_its_accuracy_is_computed(
    converted: Converted, recipe: Recipe, variant: str, tmp_path: Path
) -> None:
    file = Path(converted.results[variant]["file"])
    beside = find_origin(open_detector(file), None)
    alone = find_origin(open_detector(Path(shutil.copy(file, tmp_path))), None)
    assert beside is not None
    assert alone is not None
    for found in (beside, alone):
        assert (found.recipe, found.variant) == (recipe, recipe.variants[variant])
    assert beside.because.endswith("provenance.json names this recipe")
    assert alone.because == "it has the structure of this recipe's files"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_conversion_leaves_exactly_the_promised_files(
    converted: Converted, recipe: Recipe, variant: str
) -> None:
    name = Path(recipe.variants[variant].file_name)
    assert {path.name for path in (converted.out_dir / variant).iterdir()} == {
        *("pipeline.config", "tflite_graph.pb", "export.log", "toco.log", "provenance.json"),
        *(str(name), f"{name.stem}.raw.tflite"),
    }
    assert {path.name for path in converted.out_dir.iterdir()} == {
        *VARIANTS,
        *("ssd_mobiledets.f32.tflite", "ssd_mobiledets.uint8.tflite"),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_copy_is_the_file_and_the_digest_is_its_own(converted: Converted, variant: str) -> None:
    result = converted.results[variant]
    digests = {digest_file(Path(result[key])).sha256 for key in ("file", "copy")}
    assert digests == {result["sha256"]}


def test_the_edit_of_the_config_is_shown(converted: Converted) -> None:
    assert "score_threshold: 1e-08 -> 0.3" in converted.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_config_used_says_what_the_published_one_says(converted: Converted, variant: str) -> None:
    assert "score_threshold: 0.3\n" in (converted.out_dir / variant / "pipeline.config").read_text()


def test_a_second_conversion_has_the_pinned_bytes_too_builds_nothing_and_leaves_its_inputs(
    program: Program, converted: Converted, recipe: Recipe, stand_in_dir: Path, tmp_path: Path
) -> None:
    before = {path: digest_file(path) for path in stand_in_dir.rglob("*") if path.is_file()}
    out_dir = shutil.copytree(converted.out_dir, tmp_path / "out")
    again = program("build-all", "--model-dir", stand_in_dir, "--out", out_dir, "--no-check")
    assert again.exit_code == 0, again.stderr
    for folder in (converted.out_dir, out_dir):
        for name, variant in recipe.variants.items():
            assert digest_file(folder / name / variant.file_name).sha256 == FINAL_SHA256[name]
            assert digest_file(folder / str(variant.copy_name)).sha256 == FINAL_SHA256[name]
    assert "build the toolchain" not in again.stderr
    assert {path: digest_file(path) for path in stand_in_dir.rglob("*") if path.is_file()} == before


def test_results_belong_to_the_caller_even_without_a_passwd_entry(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.name == "docker":  # the local engine is the caller
        os.chown(tmp_path, 12345, 12345)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr(os, "getgid", lambda: 12345)
    expected = os.getuid()
    with engine.open(Folders(writable=(tmp_path,)), {}) as session:
        result = session.run("python3", "-c", f"open({str(tmp_path / 'made')!r}, 'w').write('x')")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "made").stat().st_uid == expected


def test_one_step_alone_gives_the_same_bytes(program: Program, converted: Converted, tmp_path: Path) -> None:
    out = tmp_path / "alone.tflite"
    graph = converted.out_dir / "uint8" / "tflite_graph.pb"
    flags = ("--inference-type", "QUANTIZED_UINT8", "--mean-value", "128", "--std-value", "128")
    done = program("toco", graph, "--out", out, *flags, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["sha256"] == converted.results["uint8"]["sha256"]


def test_export_alone_takes_a_config_and_a_prefix(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    done = program(
        "export",
        *("--pipeline-config", stand_in_dir / "fp32" / "pipeline.config"),
        *("--checkpoint", stand_in_dir / "fp32" / "model.ckpt-400000"),
        *("--out", tmp_path),
    )
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pipeline.config", "tflite_graph.pb", "export.log"}
