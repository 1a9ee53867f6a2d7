"""`export-inference-graph`: the graph for TensorFlow, for a recipe and for the user's own model."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from runner.convert.inference_graph import FROZEN_NAME, LOG_NAME, PRODUCTS
from runner.host.digests import digest_file, sha256_of
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Program

pytestmark = pytest.mark.any_engine

GRAPH_DIGEST = """
import hashlib, sys
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
graph = MetaGraphDef.FromString(open(sys.argv[1], "rb").read()).graph_def
print(hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest())
"""
DETECT = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf

graph = tf.GraphDef.FromString(open(sys.argv[1] + "/frozen_inference_graph.pb", "rb").read())
image = np.random.RandomState(0).randint(0, 255, (1, 100, 120, 3)).astype(np.uint8)
with tf.Session(graph=tf.Graph()) as session:
    tf.import_graph_def(graph, name="")
    frozen = session.run(["detection_boxes:0", "detection_scores:0"], {"image_tensor:0": image})
with tf.Session(graph=tf.Graph()) as session:
    loaded = tf.saved_model.loader.load(session, ["serve"], sys.argv[1] + "/saved_model")
    outputs = loaded.signature_def["serving_default"].outputs
    names = [outputs["detection_boxes"].name, outputs["detection_scores"].name]
    saved = session.run(names, {"image_tensor:0": image})
assert all(np.array_equal(*pair) for pair in zip(frozen, saved))
print(*frozen[0].shape)
"""


@pytest.fixture(scope="module")
def exported(program: Program, stand_in_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("inference") / "out"
    words = ("--variant", "fp32", "--model-dir", stand_in_dir, "--out", out_dir)
    done = program("export-inference-graph", *words, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json == {
        "file": str(out_dir / FROZEN_NAME),
        "sha256": sha256_of(out_dir / FROZEN_NAME),
        "size_bytes": (out_dir / FROZEN_NAME).stat().st_size,
    }
    return out_dir


def test_products_and_log_are_in_the_output_directory_and_nothing_else(exported: Path) -> None:
    files = [str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([*PRODUCTS, LOG_NAME])
    assert "export_inference_graph.py" in (exported / LOG_NAME).read_text()


def test_config_and_graph_are_those_that_mlcommons_exported(
    engine: Engine, program: Program, recipe: Recipe, exported: Path
) -> None:
    fp32 = recipe.variants["fp32"]
    assert digest_file(exported / "pipeline.config").git_blob == fp32.published_pipeline_config_git_blob
    if engine.prepare().models_commit == load_models_pin().github.commit:
        done = program(
            "exec", "--model-dir", exported, "--", "python3", "-c", GRAPH_DIGEST, exported / "model.ckpt.meta"
        )
        assert done.stdout.split()[-1] == fp32.published_meta_graph_sha256


def test_frozen_graph_and_saved_model_detect_the_same(
    session: Session, workspace: Path, exported: Path
) -> None:
    copy = workspace / "inference-graph"
    shutil.copytree(exported, copy)
    done = session.run("python3", "-c", DETECT, str(copy))
    assert done.exit_code == 0, done.stderr
    assert done.stdout[-1] == "1 10 4"  # ten detections in total, as the override asks


@pytest.mark.slow
def test_own_model_has_no_override_and_the_same_bytes_every_time(
    program: Program, stand_in_dir: Path, exported: Path, tmp_path: Path
) -> None:
    folder = stand_in_dir / "fp32"
    words = ("--pipeline-config", folder / "pipeline.config", "--checkpoint", folder / "model.ckpt-400000")
    digests = set()
    for number in range(2):
        done = program("export-inference-graph", *words, "--out", tmp_path / str(number))
        assert done.exit_code == 0, done.stderr
        digests.add(done.stdout.split()[0])
    assert len(digests) == 1
    assert digests != {hashlib.sha256((exported / FROZEN_NAME).read_bytes()).hexdigest()}
    assert "max_total_detections: 100" in (tmp_path / "0" / "pipeline.config").read_text()


def test_checkpoint_of_another_model_is_refused_and_nothing_is_left(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    config = ("--pipeline-config", stand_in_dir / "uint8" / "pipeline.config")
    checkpoint = ("--checkpoint", stand_in_dir / "fp32" / "model.ckpt-400000")
    done = program("export-inference-graph", *config, *checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "only quantization ranges are missing" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
