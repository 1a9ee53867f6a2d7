"""`convert` with a user's own SSD: unusual paths, overrides, models that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.checkpoint.files import find_checkpoint
from runner.errors import ConfigError
from runner.recipes.recipe import RECIPES_DIR
from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from runner.engines.base import Session
    from tests.integration.conftest import Finished, Program

pytestmark = pytest.mark.engine("local")  # the files are the same with every engine

FITTING = "with num_classes: 90 it would fit"
PREFIX = "model.ckpt-400000"
WRITE_TF2 = """
import sys
import tensorflow.compat.v1 as tf
tf.enable_eager_execution()
tf.train.Checkpoint(weights=tf.Variable([1.0, 2.0])).write(sys.argv[1])
"""


@pytest.mark.slow
def test_places_and_line_endings_of_other_systems_change_nothing(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    """A byte order mark, CRLF, no label map, spaces, umlauts, relative paths and links: the same file."""
    plain = program(
        "convert",
        *("--pipeline-config", stand_in_dir / "fp32" / "pipeline.config"),
        *("--checkpoint", stand_in_dir / "fp32" / PREFIX, "--out", tmp_path / "plain", "--no-check"),
    )
    assert plain.exit_code == 0, plain.stderr
    folder = tmp_path / "mein Modell ü"
    folder.mkdir()
    for path in (stand_in_dir / "fp32").glob(f"{PREFIX}.*"):
        (folder / path.name).symlink_to(path)
    text = (stand_in_dir / "fp32" / "pipeline.config").read_text()
    text = re.sub('label_map_path: ".*"', 'label_map_path: "C:/no such/map.pbtxt"', text)
    (folder / "my config").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    done = program(
        "convert",
        *("--pipeline-config", f"{folder.name}/my config", "--checkpoint", f"{folder.name}/{PREFIX}"),
        *("--out", "aus gabe é", "--no-check"),
        cwd=tmp_path,
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split()[0] == plain.stdout.split()[0]


def test_every_override_reaches_the_file_and_the_command_that_explain_prints(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    config = ("--pipeline-config", stand_in_dir / "uint8" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "uint8" / PREFIX)
    choices = ("--input-shape", "1,160,192,3", "--mean-value", "127", "--std-value", "64", "--nms", "regular")
    flags = ("--", "--change_concat_input_ranges=true")
    done = program("convert", *config, *checkpoint, "--out", tmp_path / "out", *choices, *flags)
    assert done.exit_code == 0, done.stderr
    summary = summarise(read_model_file(tmp_path / "out" / "model.tflite"))
    assert (summary.inputs[0].shape, summary.inputs[0].dtype) == ((1, 160, 192, 3), "uint8")
    assert summary.post_processing is not None
    assert summary.post_processing["use_regular_nms"] is True
    command = one_command(program("explain", tmp_path / "out"))
    for words in (choices[:2], choices[2:4], choices[4:6], choices[6:], flags):
        assert " ".join(words) in command
    checked = program("check", tmp_path / "out", "--json")
    assert checked.exit_code == 0, checked.stderr
    assert checked.json[0]["concat"]["change_concat_input_ranges"] is True


@pytest.mark.slow
def test_a_quantized_model_is_converted_as_float_and_checked(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    config = ("--pipeline-config", stand_in_dir / "uint8" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "uint8" / PREFIX)
    done = program("convert", *config, *checkpoint, "--out", tmp_path / "out", "--inference-type", "FLOAT")
    assert done.exit_code == 0, done.stderr
    file = tmp_path / "out" / "model.tflite"
    summary = summarise(read_model_file(file))
    assert summary.inputs[0].dtype == "float32"
    assert summary.operators["FAKE_QUANT"] > 100
    statement = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert "without a limit" in statement["subject"][0]["annotations"]["check"]["sentence"]
    assert "--inference-type FLOAT" in one_command(program("explain", file))
    spoil(file)
    checked = program("check", file)
    assert checked.exit_code == 8
    assert "weights is" in checked.stdout


def spoil(file: Path) -> None:
    """Double the weights of the first convolution."""
    content = bytearray(file.read_bytes())
    graph = read_model_file(file).graphs[0]
    convolution = next(operator for operator in graph.operators if operator.name == "CONV_2D")
    data = bytes(graph.tensors[convolution.inputs[1]].data)
    at = content.index(data)
    content[at : at + len(data)] = (np.frombuffer(data, "<f4") * 2).astype("<f4").tobytes()
    file.write_bytes(bytes(content))


def one_command(explained: Finished) -> str:
    (line,) = re.findall("^python -m runner convert .*$", explained.stdout, re.MULTILINE)
    return str(line)


@pytest.mark.slow
def test_ranges_can_be_ignored_on_request(program: Program, stand_in_dir: Path, tmp_path: Path) -> None:
    config = ("--pipeline-config", stand_in_dir / "fp32" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "uint8" / PREFIX)
    done = program("convert", *config, *checkpoint, "--out", tmp_path / "out", "--ignore-quantization")
    assert done.exit_code == 0, done.stderr
    assert "--ignore-quantization" in one_command(program("explain", tmp_path / "out"))


@pytest.mark.parametrize(
    ("found", "instead", "said", "tip"),
    [
        (
            "num_classes: 90",
            "num_classes: 1",
            "BoxPredictor_0/ClassPredictor",
            FITTING,
        ),
        pytest.param(
            "num_classes: 90",
            "num_classes: 91",
            "BoxPredictor_0/ClassPredictor",
            FITTING,
            marks=pytest.mark.slow,
        ),
        (
            "fixed_shape_resizer",
            "keep_aspect_ratio_resizer",
            "keep_aspect_ratio_resizer",
            "replace it with fixed",
        ),
        ("  ssd {", "  faster_rcnn {", "this is a faster_rcnn model", "model { ssd"),
    ],
)
def test_a_config_that_does_not_fit_is_named_with_what_to_try(
    program: Program, stand_in_dir: Path, tmp_path: Path, found: str, instead: str, said: str, tip: str
) -> None:
    text = (stand_in_dir / "fp32" / "pipeline.config").read_text()
    if "aspect" in instead:
        text = text.replace("height: 320", "min_dimension: 320").replace("width: 320", "max_dimension: 320")
    if "faster" in instead:
        text = "model {\n  ssd {\n    num_classes: 90\n  }\n}\n"
    assert found in text
    config = tmp_path / "mine.config"
    config.write_text(text.replace(found, instead))
    checkpoint = ("--checkpoint", stand_in_dir / "fp32" / PREFIX)
    done = program("convert", "--pipeline-config", config, *checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert str(config) in done.stderr
    assert tip in done.stderr.splitlines()[-1]


def test_a_checkpoint_that_tensorflow_2_would_write_is_refused(
    session: Session, workspace: Path, stand_in_dir: Path
) -> None:
    prefix = workspace / "tf2" / "ckpt-1"
    prefix.parent.mkdir()
    done = session.run("python3", "-c", WRITE_TF2, str(prefix))
    assert done.exit_code == 0, done.stderr
    with pytest.raises(ConfigError, match="ckpt-1 is a TensorFlow 2 checkpoint") as problem:
        find_checkpoint(stand_in_dir / "fp32" / "pipeline.config", prefix)
    assert "export_tflite_graph_tf2.py" in str(problem.value.tip)


def test_a_model_of_another_architecture_lists_what_does_not_fit(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    other = RECIPES_DIR / "ssd_mobilenet_v3_large_coco_2020_01_14" / "fp32" / "pipeline.config"
    config = Path(shutil.copy(other, tmp_path / "v3.config"))
    checkpoint = ("--checkpoint", stand_in_dir / "fp32" / PREFIX)
    done = program("convert", "--pipeline-config", config, *checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert f"variables of {config} do not fit {stand_in_dir / 'fp32' / PREFIX}" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("use the pipeline.config from the folder of the checkpoint")
