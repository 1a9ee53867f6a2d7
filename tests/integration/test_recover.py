"""`recover` and `prove FILE` on the real toolchain, with only the file."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from runner.checkpoint.compare import read_tensor_table
from runner.checkpoint.index import read_index
from tests.altered import with_other_options, with_other_scale, with_other_weight, with_other_zero_point

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

DIFFERENT: Final = 8
ACTIVATION: Final = "FeatureExtractor/MobileDetEdgeTPU/TuckerConv/Conv/Relu6"
BOX_WEIGHTS: Final = "BoxPredictor_0/BoxEncodingPredictor/weights"
VARIABLES: Final = {"fp32": 430, "uint8": 832}


def content_of(converted: Converted, variant: str) -> bytes:
    return (converted.out_dir / variant / f"{NAMES[variant]}.tflite").read_bytes()


NAMES: Final = {"fp32": "mobiledet", "uint8": "mobiledet_qat"}


def prove(program: Program, content: bytes, folder: Path, *arguments: str | Path) -> tuple[int, Any]:
    """Prove a file that is alone in its folder and has a neutral name."""
    folder.mkdir()
    file = folder / "unknown.tflite"
    file.write_bytes(content)
    done = program("prove", file, "--json", *arguments)
    assert done.stdout, done.stderr
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture(scope="module")
def proofs(
    program: Program, converted: Converted, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, tuple[int, Any]]:
    folder = tmp_path_factory.mktemp("proofs")
    return {name: prove(program, content_of(converted, name), folder / name) for name in NAMES}


@pytest.mark.parametrize("variant", NAMES)
def test_a_file_alone_gives_the_same_bytes_again(proofs: Mapping[str, tuple[int, Any]], variant: str) -> None:
    code, proof = proofs[variant]
    assert (code, proof["verdict"]) == (0, "same-bytes")
    recovered = proof["recovered"]
    assert recovered["variables"] == VARIABLES[variant]
    assert recovered["not_determined"] == ["global_step"]
    assert recovered["approximate"] == []


@pytest.mark.parametrize(("variant", "compared"), [("fp32", 24), ("uint8", 402)])
def test_the_published_tables_are_compared_as_well(
    proofs: Mapping[str, tuple[int, Any]], variant: str, compared: int
) -> None:
    _, proof = proofs[variant]
    # The stand-in has the published ranges, and random weights.
    assert len(proof["published"]["different"]) == (0 if variant == "uint8" else compared)
    assert proof["published"]["compared"] == compared


@pytest.mark.slow
@pytest.mark.parametrize("variant", NAMES)
def test_the_recovered_checkpoint_has_the_published_variables(
    program: Program, recipe: Recipe, converted: Converted, tmp_path: Path, variant: str
) -> None:
    out = tmp_path / "recovered"
    done = program("recover", converted.out_dir / variant / f"{NAMES[variant]}.tflite", "--out", out)
    assert done.exit_code == 0, done.stderr
    table = recipe.variants[variant].tensor_table
    assert table is not None
    wanted = {name: (dtype, shape) for name, (dtype, shape, _) in read_tensor_table(table).items()}
    found = {name: (it.dtype, it.shape) for name, it in read_index(out / "model.ckpt").tensors.items()}
    assert found == wanted
    assert "not the original training state" in " ".join((out / "README.md").read_text("utf-8").split())


FAULTS: Final[Mapping[str, tuple[str, Callable[[bytes], bytes], str]]] = {
    "threshold": (
        "fp32",
        lambda content: with_other_options(content, {"nms_score_threshold": 0.25}),
        "nms_score_threshold",
    ),
    "one option": ("fp32", lambda content: with_other_options(content, {"h_scale": 4.0}), "h_scale"),
    "scale": ("uint8", lambda content: with_other_scale(content, ACTIVATION), ACTIVATION),
    "zero point": ("uint8", lambda content: with_other_zero_point(content, ACTIVATION), ACTIVATION),
}


@pytest.mark.slow
@pytest.mark.any_engine
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(program: Program, converted: Converted, tmp_path: Path, fault: str) -> None:
    variant, alter, named = FAULTS[fault]
    code, proof = prove(program, alter(content_of(converted, variant)), tmp_path / "alone")
    assert (code, proof["verdict"]) == (DIFFERENT, "different")
    assert any(named in reason for reason in proof["best"]["reasons"])


@pytest.mark.slow
@pytest.mark.any_engine
def test_the_setting_for_concatenations_is_found(
    program: Program, converted: Converted, tmp_path: Path
) -> None:
    other = tmp_path / "other.tflite"
    graph = converted.out_dir / "uint8" / "tflite_graph.pb"
    flags = ["--inference-type", "QUANTIZED_UINT8", "--", "--change_concat_input_ranges=false"]
    made = program("toco", graph, "--out", other, "--mean-value", "128", "--std-value", "128", *flags)
    assert made.exit_code == 0, made.stderr
    code, proof = prove(program, other.read_bytes(), tmp_path / "alone")
    assert (code, proof["verdict"]) == (0, "same-bytes")
    assert proof["best"]["change_concat_input_ranges"] is False


@pytest.mark.slow
@pytest.mark.any_engine
def test_a_weight_of_a_box_predictor_is_named_by_the_table(
    program: Program, recipe: Recipe, stand_in_dir: Path, converted: Converted, tmp_path: Path
) -> None:
    """The bytes are reproduced, so only the table of the original's tensors shows the difference."""
    assert recipe.data_dir is not None
    own = tmp_path / "recipe"
    shutil.copytree(recipe.data_dir, own)
    entries = read_index(stand_in_dir / "fp32" / "model.ckpt-400000").tensors.values()
    rows = (
        f"{it.name}\t{it.dtype}\t{','.join(map(str, it.shape))}\t{it.masked_crc32c:08x}\n" for it in entries
    )
    (own / "fp32" / "tensors.tsv").write_text("".join(rows), "utf-8")
    altered = with_other_weight(content_of(converted, "fp32"), BOX_WEIGHTS)
    code, proof = prove(program, altered, tmp_path / "alone", "--recipe", own)
    assert (code, proof["verdict"]) == (0, "same-bytes")
    assert proof["published"]["different"] == [BOX_WEIGHTS]
    assert "does not show" in proof["meaning"]


@pytest.mark.any_engine
def test_a_config_of_another_model_is_refused_with_what_differs(
    program: Program, recipe: Recipe, converted: Converted, tmp_path: Path
) -> None:
    assert recipe.data_dir is not None
    text = (recipe.data_dir / "fp32" / "pipeline.config").read_text("utf-8")
    config = tmp_path / "pipeline.config"
    # The exporter rejects fewer detections in total than per class.
    text = text.replace("max_total_detections: 10\n", "max_total_detections: 100\n")
    config.write_text(text.replace("num_classes: 90", "num_classes: 3"), "utf-8")
    file = converted.out_dir / "fp32" / "mobiledet.tflite"
    done = program("recover", file, "--out", tmp_path / "out", "--pipeline-config", config)
    assert done.exit_code == 2
    assert "BoxPredictor_0/ClassPredictor/weights has the shape [1, 1, 96, 12]" in done.stderr
    assert not list((tmp_path / "out").iterdir())
