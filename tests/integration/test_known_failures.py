"""The known failures, caused in the real toolchain; each is reported with its cause and a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runner.errors import (
    DiskFullError,
    OutOfMemoryError,
    OutputMissingError,
    RunnerError,
    ScriptError,
    ScriptTimeoutError,
)
from runner.scripts.run import Script, ScriptOptions, require_output, run_script
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.engines.base import Session

pytestmark = pytest.mark.any_engine

TINY_CHECKPOINT = PROJECT_ROOT / "tests/data/tiny_checkpoint/plain"
PREFIX = "model.ckpt-400000"

# What the export does with a checkpoint, without the 20 s before it.
RESTORE = """
import sys, tensorflow.compat.v1 as tf
tf.get_variable(sys.argv[2], [int(size) for size in sys.argv[3].split(",") if size])
with tf.Session() as session:
    tf.train.Saver().restore(session, sys.argv[1])
"""
RUN_POST_PROCESSING = """
import tensorflow.compat.v1 as tf
node = tf.GraphDef().node.add(name="detections", op="TFLite_Detection_PostProcess")
tf.import_graph_def(tf.GraphDef(node=[node]))
"""
FILL_DISK = "open('/dev/full', 'w').write('x' * 99999)"
UNQUANTIZED_GRAPH = """
node { name: "in" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: 1 } dim { size: 8 } } } } }
node { name: "mid" op: "Relu6" input: "in" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "out" op: "Softmax" input: "mid" attr { key: "T" value { type: DT_FLOAT } } }
"""
# A quantized detection operator without _support_output_type_float_in_quantized_op.
DETECTION_GRAPH = """
node { name: "in" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: 1 } dim { size: 8 } } } } }
node { name: "TFLite_Detection_PostProcess" op: "TFLite_Detection_PostProcess" input: "in"
       attr { key: "_output_quantized" value { b: true } }
       attr { key: "_output_types" value { list { type: DT_FLOAT } } } }
"""
CUSTOM_GRAPH = UNQUANTIZED_GRAPH.replace("Softmax", "TFLite_Detection_PostProcess")
ARRAYS = ("--input_arrays=in", "--input_shapes=1,8")


@dataclass(frozen=True, kw_only=True)
class FailingToolchain:
    """The shared session, and a folder that it can write to."""

    session: Session
    folder: Path
    config: Path
    log_dir: Path

    def fail(
        self,
        *argv: str,
        timeout_s: float = 120.0,
        memory_mib: int = 4096,
        kind: type[RunnerError] = ScriptError,
    ) -> RunnerError:
        """Run a command that fails and return the error message."""
        options = ScriptOptions(log_dir=self.log_dir, timeout_s=timeout_s, memory_mib=memory_mib)
        script = Script(name=argv[0], argv=argv, log_name="script.log", options=options)
        with pytest.raises(kind) as caught:
            run_script(self.session, script)
        assert str(script.log) in caught.value.message
        assert script.log.is_file()
        return caught.value

    def fail_restoring(self, prefix: str, name: str, shape: str, *damaged: str) -> RunnerError:
        """Restore one variable from a copy of the tiny checkpoint, with every bit of some files flipped."""
        for original in TINY_CHECKPOINT.glob(f"{PREFIX}.*"):
            content = original.read_bytes()
            if original.name in damaged:
                content = bytes(byte ^ 0xFF for byte in content)
            (self.folder / original.name).write_bytes(content)
        return self.fail("python", "-c", RESTORE, str(self.folder / prefix), name, shape)

    def fail_exporting(self, pattern: str, replacement: str) -> RunnerError:
        """Export with the stand-in's config after one change; there is no checkpoint."""
        text, count = re.subn(pattern, replacement, self.config.read_text(), count=1, flags=re.DOTALL)
        assert count == 1
        edited = self.folder / "pipeline.config"
        edited.write_text(text)
        return self.fail(*export_argv(edited, self.folder))

    def written(self, graph_text: str) -> Path:
        """Write a graph to a file."""
        graph = self.folder / "graph.pbtxt"
        graph.write_text(graph_text)
        return graph

    def fail_converting(
        self, graph_text: str, *flags: str, command: str = "toco", output: str = "out"
    ) -> RunnerError:
        """Convert a small graph."""
        graph, model = self.written(graph_text), self.folder / "model.tflite"
        files = (f"--input_file={graph}", f"--output_file={model}", f"--output_arrays={output}")
        failure = self.fail(command, *files, *ARRAYS, *flags)
        assert not model.exists()
        return failure


def export_argv(config: Path, out_dir: Path | str, prefix: str = "none") -> tuple[str, ...]:
    return (
        "export_tflite_ssd_graph.py",
        f"--pipeline_config_path={config}",
        f"--trained_checkpoint_prefix={prefix}",
        f"--output_directory={out_dir}",
    )


@pytest.fixture
def toolchain(session: Session, workspace: Path, stand_in_dir: Path, tmp_path: Path) -> FailingToolchain:
    folder = workspace / tmp_path.name
    folder.mkdir()
    config = stand_in_dir / "fp32" / "pipeline.config"
    return FailingToolchain(session=session, folder=folder, config=config, log_dir=tmp_path)


CASES: dict[str, tuple[Callable[[FailingToolchain], RunnerError], str, str]] = {
    "quantization ranges that a float checkpoint lacks": (
        lambda it: it.fail_restoring(PREFIX, "Conv/act_quant/max", ""),
        "float checkpoint",
        "issues/5089",
    ),
    "variables of another model": (
        lambda it: it.fail_restoring(PREFIX, "Mixed_5b/weights", "3,3"),
        "variables that the checkpoint does not have",
        "the pipeline.config that came with the checkpoint",
    ),
    "variables of another shape": (
        lambda it: it.fail_restoring(PREFIX, "Conv/biases", "7"),
        "other shapes",
        "num_classes",
    ),
    "the index in place of the prefix": (
        lambda it: it.fail_restoring(f"{PREFIX}.index", "Conv/biases", "4"),
        "one of its files",
        "without .index",
    ),
    "a data file in place of the prefix": (
        lambda it: it.fail_restoring(f"{PREFIX}.data-00000-of-00001", "Conv/biases", "4"),
        "one of its files",
        "without .index",
    ),
    "damaged values": (
        lambda it: it.fail_restoring(PREFIX, "Conv/biases", "4", f"{PREFIX}.data-00000-of-00001"),
        "the checkpoint is damaged",
        "download or copy it again",
    ),
    "a damaged index": (
        lambda it: it.fail_restoring(PREFIX, "Conv/biases", "4", f"{PREFIX}.index"),
        "the checkpoint is damaged",
        "download or copy it again",
    ),
    "a field that later trees withdrew": (
        lambda it: it.fail_exporting(
            r"feature_extractor \{", "feature_extractor { batch_norm_trainable: true"
        ),
        "batch_norm_trainable",
        "issues/4066",
    ),
    "a field that these protos do not know": (
        lambda it: it.fail_exporting(r"ssd \{", "ssd { no_such_field: 1"),
        "another version of the detection API",
        "remove it in a copy",
    ),
    "a network for TensorFlow 2": (
        lambda it: it.fail_exporting(r"type: \"ssd_\w+\"", 'type: "ssd_mobilenet_v2_fpn_keras"'),
        "no such feature extractor",
        "TensorFlow 2",
    ),
    "no SSD": (
        lambda it: it.fail_exporting(r".*", "model { faster_rcnn { num_classes: 3 } }"),
        "not an SSD",
        "model { ssd",
    ),
    "images of varying shape": (
        lambda it: it.fail_exporting(
            r"fixed_shape_resizer \{.*?\}", "keep_aspect_ratio_resizer { max_dimension: 320 }"
        ),
        "varying shape",
        "fixed_shape_resizer",
    ),
    "anchors for another network": (
        lambda it: it.fail_exporting(r"num_layers: \d+", "num_layers: 3"),
        "another number of feature maps",
        "must match",
    ),
    "more detections of a class than in total": (
        lambda it: it.fail_exporting(r"max_total_detections: \d+", "max_total_detections: 10"),
        "more detections per class",
        "raise max_total_detections",
    ),
    "an array without a range": (
        lambda it: it.fail_converting(
            UNQUANTIZED_GRAPH, "--inference_type=QUANTIZED_UINT8", "--mean_values=128", "--std_values=128"
        ),
        "no FakeQuant node",
        "issues/24663",
    ),
    "a detection operator whose outputs are not said to be float": (
        lambda it: it.fail_converting(
            DETECTION_GRAPH,
            "--inference_type=QUANTIZED_UINT8",
            "--mean_values=128",
            "--std_values=128",
            "--allow_custom_ops",
            output="TFLite_Detection_PostProcess",
        ),
        "_support_output_type_float_in_quantized_op",
        "export_tflite_ssd_graph.py",
    ),
    "a custom operator that was not allowed": (
        lambda it: it.fail_converting(CUSTOM_GRAPH),
        "custom operator",
        "--allow_custom_ops",
    ),
    "TensorFlow told to run the post-processing": (
        lambda it: it.fail("python", "-c", RUN_POST_PROCESSING),
        "only TensorFlow Lite has it",
        "issues/29758",
    ),
    "native flags for tflite_convert": (
        lambda it: it.fail_converting(UNQUANTIZED_GRAPH, command="tflite_convert"),
        "flags of the native TOCO",
        "`toco`",
    ),
    "toco_from_protos that is not on PATH": (
        lambda it: it.fail(
            "bash",
            "-c",
            'convert=$(command -v tflite_convert); PATH=/usr/bin:/bin exec "$convert" "$@"',
            "bash",
            f"--graph_def_file={it.written(UNQUANTIZED_GRAPH)}",
            f"--output_file={it.folder}/model.tflite",
            "--output_arrays=out",
            *ARRAYS,
        ),
        "not on PATH",
        "issues/40121",
    ),
    "memory that cannot be had": (
        lambda it: it.fail("bash", "-c", "ulimit -v 4000000; python -c 'b = bytearray(1 << 33)'"),
        "not enough memory",
        "--memory-mib",
    ),
    "a full disk": (
        lambda it: it.fail("python", "-c", FILL_DISK, kind=DiskFullError),
        "the disk is full",
        "another --out",
    ),
    "a folder that cannot be written": (
        lambda it: it.fail(*export_argv(it.config, "/sys/nothing")),
        "could not be read or written",
        "--out",
    ),
    "a file that is not there": (
        lambda it: it.fail(*export_argv(it.folder / "none.config", it.folder)),
        "does not exist",
        "check the path",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_known_failure_is_explained(toolchain: FailingToolchain, case: str) -> None:
    make_it_happen, cause, remedy = CASES[case]
    failure = make_it_happen(toolchain)
    assert cause in failure.message
    assert remedy in (failure.tip or "")
    assert failure.last_lines


def test_checkpoint_that_is_not_there_is_explained(toolchain: FailingToolchain) -> None:
    failure = toolchain.fail(
        *export_argv(toolchain.config, toolchain.folder, prefix=str(toolchain.folder / "model.ckpt"))
    )
    assert "no checkpoint with this prefix" in failure.message
    assert ".index" in (failure.tip or "")


def test_script_that_takes_too_much_memory_is_told_apart(toolchain: FailingToolchain) -> None:
    hog = "import time; b = b'x' * (400 << 20); time.sleep(60)"
    failure = toolchain.fail("python", "-c", hog, memory_mib=100)
    assert isinstance(failure, OutOfMemoryError)
    assert "of 100 MiB" in failure.message
    assert "--memory-mib" in (failure.tip or "")


def test_script_that_takes_too_long_is_told_apart(toolchain: FailingToolchain) -> None:
    failure = toolchain.fail("sleep", "60", timeout_s=1.0)
    assert isinstance(failure, ScriptTimeoutError)
    assert "longer than 1 s" in failure.message
    assert "--timeout-s" in (failure.tip or "")


def test_script_that_succeeds_and_writes_nothing_is_an_error(toolchain: FailingToolchain) -> None:
    """https://github.com/tensorflow/models/issues/5713."""
    options = ScriptOptions(log_dir=toolchain.log_dir)
    argv = (*export_argv(toolchain.config, toolchain.folder), "--help")
    script = Script(name=argv[0], argv=argv, log_name="export.log", options=options)
    run_script(toolchain.session, script)
    with pytest.raises(OutputMissingError, match=r"wrote no tflite_graph\.pb") as caught:
        require_output(toolchain.folder / "tflite_graph.pb", script)
    assert str(script.log) in caught.value.message
