"""The commands of the published lines, in the real toolchain: ``toco`` and the two export scripts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runner.tflite.key_orders import read_post_process_options, replace_options
from runner.tflite.model import read_model
from runner.tflite.summary import QuantizationKind, summarise

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import JobResult, Session
    from tests.integration.conftest import Converted, Program

pytestmark = pytest.mark.any_engine

OUTPUTS = ",".join(
    ["TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{n}" for n in (1, 2, 3))]
)
ARRAYS = (
    "--input_shapes=1,320,320,3",
    "--input_arrays=normalized_input_image_tensor",
    f"--output_arrays={OUTPUTS}",
)
UINT8 = (*ARRAYS, "--inference_type=QUANTIZED_UINT8", "--allow_custom_ops", "--mean_values=128")

SMALL_GRAPH = """
node {
  name: "in" op: "Placeholder"
  attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: -1 } dim { size: 8 } } } }
}
node {
  name: "out" op: "Relu6" input: "in"
  attr { key: "T" value { type: DT_FLOAT } }
}
"""
SMALL = ("--input_arrays=in", "--input_shapes=1,8", "--output_arrays=out")


@pytest.fixture(scope="session")
def graphs(converted: Converted, workspace: Path) -> dict[str, Path]:
    """Return the frozen graphs of the stand-in, in a folder that the session can read."""
    graphs = {variant: workspace / f"{variant}.pb" for variant in ("fp32", "uint8")}
    for variant, graph in graphs.items():
        shutil.copy(converted.out_dir / variant / "tflite_graph.pb", graph)
    return graphs


@pytest.fixture
def small_graph(workspace: Path) -> Path:
    graph = workspace / "small.pbtxt"
    graph.write_text(SMALL_GRAPH)
    return graph


def in_fixed_order(model: Path) -> bytes:
    """Return a model in the fixed key order, the only thing in which runs of TOCO differ."""
    content = model.read_bytes()
    options = read_post_process_options(read_model(content))
    assert options is not None
    return replace_options(content, options, options.fixed_order)


def convert(session: Session, graph: Path, *arguments: str, output: str) -> Path:
    model = graph.parent / output
    result = session.run("toco", f"--input_file={graph}", f"--output_file={model}", *arguments)
    assert result.exit_code == 0, result.stderr
    return model


def tflite_convert(session: Session, graph: Path, *arguments: str, output: str) -> Path:
    model = graph.parent / output
    result = session.run(
        "tflite_convert",
        f"--graph_def_file={graph}",
        f"--output_file={model}",
        *UINT8,
        "--std_dev_values=128",
        *arguments,
    )
    assert result.exit_code == 0, result.stderr
    return model


@pytest.fixture(scope="session")
def native_uint8(session: Session, graphs: dict[str, Path]) -> bytes:
    """Return the result of the published command line."""
    return in_fixed_order(
        convert(session, graphs["uint8"], *UINT8, "--std_values=128", output="native.tflite")
    )


def test_uint8_equals_tflite_convert_with_the_native_default(
    session: Session, graphs: dict[str, Path], native_uint8: bytes
) -> None:
    other = tflite_convert(
        session, graphs["uint8"], "--change_concat_input_ranges=TRUE", output="convert-true.tflite"
    )
    assert native_uint8 == in_fixed_order(other)


@pytest.mark.slow
def test_uint8_differs_from_tflite_convert_with_its_own_default(
    session: Session, graphs: dict[str, Path], native_uint8: bytes
) -> None:
    other = tflite_convert(session, graphs["uint8"], output="convert.tflite")
    assert native_uint8 != in_fixed_order(other)


def test_false_on_the_command_line_is_not_unset(
    session: Session, graphs: dict[str, Path], native_uint8: bytes
) -> None:
    model = convert(
        session,
        graphs["uint8"],
        *UINT8,
        "--std_values=128",
        "--change_concat_input_ranges=false",
        output="native-false.tflite",
    )
    assert native_uint8 != in_fixed_order(model)


def test_by_hand_gives_what_the_server_gives(
    session: Session, graphs: dict[str, Path], native_uint8: bytes
) -> None:
    model = graphs["uint8"].parent / "by-hand.tflite"
    # env is no script of the toolchain, so this toco is a process with nothing imported beforehand.
    result = session.run(
        "env",
        "toco",
        "--input_file",
        str(graphs["uint8"]),
        "--output_file",
        str(model),
        *UINT8,
        "--std_values",
        "128",
    )
    assert result.exit_code == 0, result.stderr
    assert native_uint8 == in_fixed_order(model)


def test_text_graph_converts(session: Session, small_graph: Path) -> None:
    model = convert(session, small_graph, *SMALL, output="small.tflite")
    assert len(list(read_model(model.read_bytes()).operators())) == 1


def test_model_flags_file_is_what_the_command_line_adds_to(session: Session, small_graph: Path) -> None:
    flags = small_graph.with_name("flags.pbtxt")
    flags.write_text('input_arrays { name: "in" shape { dims: 1 dims: 8 } }')
    arguments = (f"--model_flags_file={flags}", "--output_arrays=out")
    model = convert(session, small_graph, *arguments, output="from-flags.tflite")
    assert model.read_bytes() == convert(session, small_graph, *SMALL, output="small.tflite").read_bytes()


def refused(result: JobResult) -> str:
    """Return the error message of a command that is refused before the engine runs."""
    said = "\n".join(result.stderr)
    assert result.exit_code == 2, said
    assert not any(line.startswith("20") for line in result.stderr), said
    return said


def toco_refusal(session: Session, graph: Path, *arguments: str) -> str:
    model = graph.with_name("refused.tflite")
    said = refused(session.run("toco", f"--input_file={graph}", f"--output_file={model}", *arguments))
    assert not model.exists()
    return said


def test_misspelt_flag_is_named_with_the_nearest_one(session: Session, small_graph: Path) -> None:
    said = toco_refusal(session, small_graph, *SMALL, "--allow_custom_op")
    assert "unknown flag --allow_custom_op" in said
    assert "did you mean --allow_custom_ops?" in said


def test_array_the_graph_does_not_have_is_named_with_the_nearest_one(
    session: Session, small_graph: Path
) -> None:
    said = toco_refusal(session, small_graph, "--input_arrays=in", "--output_arrays=outt")
    assert "no array 'outt'" in said
    assert "did you mean out?" in said


def test_shape_the_graph_contradicts_is_refused(session: Session, small_graph: Path) -> None:
    said = toco_refusal(
        session, small_graph, "--input_arrays=in", "--input_shapes=1,9", "--output_arrays=out"
    )
    assert "1,9 here and ?,8 in the graph" in said


@pytest.mark.parametrize(
    ("in_graph", "message", "tip"),
    [
        ("dim { size: -1 } dim { size: 8 }", "'in' as ?,8", "--input_shapes=1,8"),
        (
            "dim { size: -1 } dim { size: -1 } dim { size: -1 } dim { size: 3 }",
            "'in' as ?,?,?,3",
            "for images of 300 x 300: --input_shapes=1,300,300,3",
        ),
        ("unknown_rank: true", "'in' without a shape", "for images of 300 x 300: --input_shapes=1,300,300,3"),
    ],
)
def test_shape_that_the_graph_leaves_open_is_asked_for(
    session: Session, small_graph: Path, in_graph: str, message: str, tip: str
) -> None:
    small_graph.write_text(SMALL_GRAPH.replace("dim { size: -1 } dim { size: 8 }", in_graph))
    arguments = ("--input_arrays=in", "--output_arrays=out")
    said = toco_refusal(session, small_graph, *arguments)
    assert f"--input_shapes is missing, and the graph has {message}" in said
    assert said.endswith(f"  tip: {tip}")
    convert(session, small_graph, *arguments, tip.rsplit(maxsplit=1)[-1], output="as-advised.tflite")


def test_shape_that_the_graph_has_is_taken_from_it(
    session: Session, program: Program, small_graph: Path, tmp_path: Path
) -> None:
    small_graph.write_text(SMALL_GRAPH.replace("-1", "5"))
    arrays = ("--input_arrays=in", "--output_arrays=out")
    model = convert(session, small_graph, *arrays, output="from-graph.tflite")
    with_shape = convert(session, small_graph, *arrays, "--input_shapes=5,8", output="with-shape.tflite")
    assert model.read_bytes() == with_shape.read_bytes()
    own = ("--input-array", "in", "--output-arrays", "out")
    done = program("toco", small_graph, "--out", tmp_path / "own.tflite", *own)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "own.tflite").read_bytes() == model.read_bytes()


def test_float_graph_is_not_quantized_without_ranges(session: Session, graphs: dict[str, Path]) -> None:
    said = toco_refusal(session, graphs["fp32"], *UINT8, "--std_values=128")
    assert "no FakeQuant nodes" in said


@pytest.mark.parametrize("high", [6, 255])
def test_placeholder_ranges_are_recognised(session: Session, graphs: dict[str, Path], high: int) -> None:
    ranges = ("--default_ranges_min=0", f"--default_ranges_max={high}")
    model = convert(session, graphs["fp32"], *UINT8, "--std_values=128", *ranges, output="placeholder.tflite")
    summary = summarise(read_model(model.read_bytes()))
    assert summary.quantization is QuantizationKind.PLACEHOLDER
    assert summary.placeholder is not None
    assert summary.placeholder.scale == pytest.approx(high / 255, rel=1e-6)
    assert summary.placeholder.count >= summary.placeholder.total - 3


@pytest.mark.parametrize(
    ("content", "said"), [(b"not a graph", "not a GraphDef"), (b"", "a graph without nodes")]
)
def test_file_that_is_no_graph_is_refused(
    session: Session, workspace: Path, content: bytes, said: str
) -> None:
    graph = workspace / "none.pb"
    graph.write_bytes(content)
    assert said in toco_refusal(session, graph, *SMALL)


def test_engine_that_aborts_gives_its_signal_and_leaves_nothing(session: Session, small_graph: Path) -> None:
    model = small_graph.with_name("aborted.tflite")
    result = session.run(
        "toco",
        f"--input_file={small_graph}",
        f"--output_file={model}",
        *SMALL,
        "--model_checks={count_type:Relu6,count_min:2}",
    )
    assert result.exit_code == 134
    assert "the engine was ended by SIGABRT" in result.stderr[-1]
    assert not list(small_graph.parent.glob("*aborted.tflite*"))


def test_engine_that_fails_gives_1_and_leaves_nothing(session: Session, small_graph: Path) -> None:
    model = small_graph.with_name("denied.tflite")
    result = session.run(
        "toco", f"--input_file={small_graph}", f"--output_file={model}", "--output_arrays=out"
    )
    assert result.exit_code == 1
    assert result.stderr[-1].startswith("toco: ")
    assert not list(small_graph.parent.glob("*denied.tflite*"))


EXPORTS = ("export_tflite_ssd_graph.py", "export_inference_graph.py")
REQUIRED = ("--pipeline_config_path=none", "--trained_checkpoint_prefix=none", "--output_directory=none")


@pytest.mark.parametrize("script", EXPORTS)
def test_export_refuses_a_misspelt_flag(session: Session, script: str) -> None:
    said = refused(session.run(script, *REQUIRED, "--input_typ=image_tensor"))
    assert "'input_typ'" in said
    assert "input_type" in said


@pytest.mark.parametrize("script", EXPORTS)
def test_export_refuses_a_stray_argument(session: Session, script: str) -> None:
    assert "unexpected argument 'true'" in refused(session.run(script, *REQUIRED, "true"))


@pytest.mark.parametrize("script", EXPORTS)
def test_export_needs_an_output_directory(session: Session, script: str) -> None:
    assert "--output_directory" in refused(session.run(script, *REQUIRED[:2]))


@pytest.mark.parametrize("script", EXPORTS)
def test_export_answers_help(session: Session, script: str) -> None:
    result = session.run(script, "--help")
    assert result.exit_code == 0
    assert any("--pipeline_config_path" in line for line in result.stdout)


@pytest.mark.parametrize("script", EXPORTS)
def test_export_takes_the_flags_of_published_lines(session: Session, script: str) -> None:
    published = (
        "--input_type",
        "image_tensor",
        "--add_postprocessing_op=true",
        "--config_override",
        " model{}",
    )
    result = session.run(script, *REQUIRED, *published)
    # All flags are fine; what is missing is the config.
    assert result.exit_code == 1
    assert "NotFoundError: none; No such file or directory" in result.stderr[-1]
