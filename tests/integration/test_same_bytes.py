"""Ten runs of TOCO on one export give different raw files, which can be converted to each other."""

from __future__ import annotations

import shutil
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from runner.convert.toco import toco_argv
from runner.host.digests import digest_bytes, digest_file
from runner.recipes.recipe import PublishedIdentity
from runner.tflite.canonical import normalize_keys
from runner.tflite.diff import Kind, Verdict
from runner.tflite.key_orders import read_post_process_options, replace_options
from runner.tflite.model import read_model, read_model_file
from runner.tflite.runtime_version import replace_min_runtime_version
from runner.tflite.verify import verify, verify_against
from tests.altered import (
    with_other_metadata,
    with_other_operator,
    with_other_options,
    with_other_scale,
    with_other_weight,
    with_other_zero_point,
)
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Session
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

RUNS: Final = 10
AT_ONCE: Final = 2


@pytest.fixture(params=["fp32", "uint8"])
def variant_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def raw_files(
    session: Session, recipe: Recipe, converted: Converted, workspace: Path
) -> Mapping[str, tuple[bytes, ...]]:
    """Ten runs of TOCO on the graph of each variant."""
    return {name: ten_runs(session, recipe, converted, workspace, name) for name in recipe.variants}


def ten_runs(
    session: Session, recipe: Recipe, converted: Converted, workspace: Path, name: str
) -> tuple[bytes, ...]:
    folder = workspace / f"ten-{name}"
    folder.mkdir()
    graph = folder / "tflite_graph.pb"
    shutil.copy(converted.out_dir / name / "tflite_graph.pb", graph)
    outputs = [folder / f"run{number}.tflite" for number in range(RUNS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = pool.map(lambda output: session.run(*published_line(recipe, name, graph, output)), outputs)
    assert [result.exit_code for result in ended] == [0] * RUNS
    return tuple(output.read_bytes() for output in outputs)


def published_line(recipe: Recipe, name: str, graph: Path, output: Path) -> tuple[str, ...]:
    variant = recipe.variants[name]
    assert variant.input_shape is not None
    return toco_argv(
        graph=str(graph),
        output=str(output),
        inference_type=variant.inference_type,
        input_array=variant.input_array,
        input_shape=variant.input_shape,
        output_arrays=variant.output_arrays,
        mean_value=variant.mean_value,
        std_value=variant.std_value,
    )


def all_orders(raw: bytes) -> frozenset[bytes]:
    options = read_post_process_options(read_model(raw))
    assert options is not None
    return frozenset(replace_options(raw, options, order) for order in options.possible_orders)


def identity_of(content: bytes) -> PublishedIdentity:
    digests = digest_bytes(content)
    return PublishedIdentity(md5=digests.md5, git_blob=digests.git_blob, url="https://example.org/it.tflite")


def test_ten_runs_have_one_pinned_final_file(
    raw_files: Mapping[str, tuple[bytes, ...]], variant_name: str
) -> None:
    raw = raw_files[variant_name]
    assert len(set(raw)) > 1, "ten runs of TOCO happened to write one file; there are 44"
    assert {normalize_keys(run, None).digests.sha256 for run in raw} == {FINAL_SHA256[variant_name]}


def test_each_raw_file_gives_the_exact_bytes_of_all_others(
    raw_files: Mapping[str, tuple[bytes, ...]], variant_name: str
) -> None:
    raw = raw_files[variant_name]
    families = {all_orders(run) for run in raw}
    assert len(families) == 1
    (family,) = families
    assert len(family) == 44
    assert family.issuperset(raw)


@pytest.mark.slow
def test_exports_in_separate_sessions_write_one_graph(
    program: Program, converted: Converted, stand_in_dir: Path, variant_name: str, tmp_path: Path
) -> None:
    done = program(
        "export",
        *("--pipeline-config", stand_in_dir / variant_name / "pipeline.config"),
        *("--checkpoint", stand_in_dir / variant_name / "model.ckpt-400000"),
        *("--out", tmp_path, "--score-threshold", "0.3", "--json"),
    )
    assert done.exit_code == 0, done.stderr
    graph = converted.out_dir / variant_name / "tflite_graph.pb"
    assert done.json["sha256"] == digest_file(graph).sha256


def test_a_published_run_is_matched_from_any_other(
    raw_files: Mapping[str, tuple[bytes, ...]], variant_name: str
) -> None:
    raw = raw_files[variant_name]
    published = identity_of(raw[-1])
    for run in raw[:-1]:
        normalized = normalize_keys(run, published)
        assert normalized.matches_published
        assert normalized.content == raw[-1]


def test_a_published_run_of_another_toco_is_matched(
    raw_files: Mapping[str, tuple[bytes, ...]], variant_name: str
) -> None:
    raw = raw_files[variant_name]
    other_toco = replace_min_runtime_version(read_model(raw[-1]), "1.14.0")
    normalized = normalize_keys(raw[0], identity_of(other_toco))
    assert normalized.matches_published
    assert normalized.min_runtime_version != normalized.raw_min_runtime_version
    assert normalized.content == other_toco


def test_the_stand_in_has_the_right_structure_and_other_content(
    converted: Converted, recipe: Recipe, variant_name: str
) -> None:
    found = verify(converted.out_dir / variant_name / recipe.variants[variant_name].file_name, recipe)
    assert (found.verdict, found.variant, found.problems) == (Verdict.OTHER_CONTENT, variant_name, ())


@pytest.mark.parametrize("alteration", ["weight", "scale", "zero point", "threshold", "operator", "metadata"])
def test_one_alteration_is_named_exactly(
    alteration: str, raw_files: Mapping[str, tuple[bytes, ...]], recipe: Recipe, tmp_path: Path
) -> None:
    whole, reference, copy = raw_files["uint8"][0], tmp_path / "reference.tflite", tmp_path / "copy.tflite"
    reference.write_bytes(raw_files["uint8"][1])
    graph = read_model(whole).graphs[0]
    tensor = graph.tensors[graph.operators[0].inputs[1]].name
    logistic = next(operator for operator in graph.operators if operator.name == "LOGISTIC")
    (result,) = graph.tensor_names(logistic.outputs)
    content, kind, where = {
        "weight": (with_other_weight(whole, tensor), Kind.WEIGHTS, tensor),
        "scale": (with_other_scale(whole, tensor), Kind.SCALE, tensor),
        "zero point": (with_other_zero_point(whole, tensor), Kind.ZERO_POINT, tensor),
        "threshold": (
            with_other_options(whole, {"nms_score_threshold": 0.5}),
            Kind.OPTION,
            "TFLite_Detection_PostProcess.nms_score_threshold",
        ),
        "operator": (with_other_operator(whole), Kind.OPERATOR, f"TANH -> {result}"),
        "metadata": (with_other_metadata(whole), Kind.METADATA, "min_runtime_version"),
    }[alteration]
    copy.write_bytes(content)
    found = verify_against(copy, reference, recipe)
    assert found.diff is not None
    assert [(it.kind, it.where) for it in found.diff.differences] == [(kind, where)]
    assert found.verdict.is_same_content == (alteration == "metadata")


@pytest.mark.slow
def test_two_variants_graphs_differ(program: Program, converted: Converted) -> None:
    graph, other = (converted.out_dir / name / "tflite_graph.pb" for name in ("fp32", "uint8"))
    assert program("diff", graph, graph).exit_code == 0
    differing = program("diff", graph, other, "--json")
    assert differing.exit_code == 8
    assert not differing.json["means_the_same"]


def test_graphs_directly_in_the_temporary_folder_are_compared(program: Program, converted: Converted) -> None:
    """That folder must not be mounted, and is not: only the files are."""
    graph = converted.out_dir / "fp32" / "tflite_graph.pb"
    with tempfile.NamedTemporaryFile(dir="/tmp", suffix=".pb") as copy:
        copy.write(graph.read_bytes())
        copy.flush()
        done = program("diff", copy.name, graph, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["means_the_same"]


def test_one_altered_attribute_of_a_graph_is_named(
    program: Program, converted: Converted, tmp_path: Path
) -> None:
    graph, copy = converted.out_dir / "fp32" / "tflite_graph.pb", tmp_path / "copy.pb"
    content = bytearray(graph.read_bytes())
    attribute = b"nms_score_threshold\x12\x05\x25"  # an AttrValue of five bytes, a float in its field 4
    place = content.index(attribute) + len(attribute)
    content[place : place + 4] = struct.pack("<f", 0.5)
    copy.write_bytes(content)
    done = program("diff", graph, copy, "--json")
    assert done.exit_code == 8
    (difference,) = done.json["differences"]
    assert difference["where"] == "TFLite_Detection_PostProcess.nms_score_threshold"
    assert difference["right"] == "f: 0.5"


def test_what_is_no_graph_is_refused_by_name(program: Program, converted: Converted, tmp_path: Path) -> None:
    graph, text = converted.out_dir / "fp32" / "tflite_graph.pb", tmp_path / "text.pb"
    text.write_text("no graph at all")
    refused = program("diff", graph, text)
    assert refused.exit_code == 2
    assert "text.pb is not a graph" in refused.stderr
    assert program("diff", graph, tmp_path / "nothing.pb").exit_code == 2


def test_the_converted_file_says_what_it_is(
    converted: Converted, program: Program, variant_name: str
) -> None:
    (path,) = (converted.out_dir / variant_name).glob("mobiledet*.raw.tflite")
    summary = program("inspect", path, "--json").json
    kinds = {"fp32": "none: float weights, float arithmetic", "uint8": "integer, uint8"}
    assert summary["quantization"].startswith(kinds[variant_name])
    assert summary["operators"]["CONV_2D"] == 66
    assert summary["tensor_count"] == len(read_model_file(path).graphs[0].tensors) == 329
