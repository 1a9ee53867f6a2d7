"""Wrappers around the detection API: read and write a pipeline config, build the exporter's graph."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from _step import InputError, import_tensorflow, whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig


class UnknownFieldError(InputError):
    """A config contains a field that the pinned protos do not define."""

    def __init__(self, path: Path, line: int, column: int, message_type: str, field: str) -> None:
        self.line = line
        self.column = column
        self.message_type = message_type.rsplit(".", 1)[-1]
        self.field = field
        super().__init__(
            f"{path}, line {line}: this tensorflow/models tree has no field {field} in {self.message_type}",
            tip="the config was written for another version of the detection API: if the field has no effect "
            "on inference, `convert --drop-unknown-fields` or config_remove in a recipe removes it",
        )


def read_pipeline_config(path: Path) -> TrainEvalPipelineConfig:
    """Parse a pipeline config with the detection API's protobuf classes.

    Raises:
        InputError: the file is missing, empty, not text, or not a valid pipeline config.
    """
    return parse_pipeline_config(read_config_text(path), path)


def read_config_text(path: Path) -> str:
    """Read the text of a config.

    Raises:
        InputError: the file is missing, empty or not text.
    """
    tip = "pass the pipeline.config from the folder of the checkpoint"
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows write a byte order mark
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}", tip=tip) from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: this is a binary file, not a pipeline config", tip=tip) from problem
    if not text.strip():
        raise InputError(f"{path}: the file is empty", tip=tip)
    return text


def parse_pipeline_config(text: str, path: Path, *, is_lenient: bool = False) -> TrainEvalPipelineConfig:
    """Parse the text of a config; ``path`` is for error messages. ``is_lenient`` skips unknown fields.

    Raises:
        UnknownFieldError: the config has a field that the pinned protos do not define.
        InputError: any other parse error; the message contains the line number.
    """
    from google.protobuf import text_format
    from object_detection.protos import pipeline_pb2

    try:
        return text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig(), allow_unknown_field=is_lenient)
    except text_format.ParseError as problem:
        unknown = re.search(r'type "([\w.]+)" has no field named "(\w+)"', str(problem))
        if unknown:
            place = (problem.GetLine(), problem.GetColumn())
            raise UnknownFieldError(path, *place, *unknown.groups()) from problem
        what = re.sub(r"^\d+:\d+ : ", "", str(problem))
        raise InputError(
            f"{path}, line {problem.GetLine()}: {what}", tip="this is not valid pipeline config syntax"
        ) from problem


def write_pipeline_config(config: TrainEvalPipelineConfig, path: Path) -> None:
    """Write a config in protobuf text format."""
    with whole_file(path) as partial:
        partial.write_text(config_text(config), "utf-8")


def config_text(config: TrainEvalPipelineConfig) -> str:
    """Return a config in protobuf text format."""
    from google.protobuf import text_format

    return text_format.MessageToString(config)


def build_inference_graph(config: TrainEvalPipelineConfig) -> list[Any]:
    """Build the network that ``export_tflite_ssd_graph`` exports, in the default graph.

    Returns its two output tensors: the box encodings and the class predictions.
    """
    tf = import_tensorflow()
    from object_detection.builders import graph_rewriter_builder, model_builder

    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    channels = 1 if resizer.convert_to_grayscale else 3
    shape = [1, resizer.height, resizer.width, channels]
    image = tf.placeholder(tf.float32, shape=shape, name="normalized_input_image_tensor")
    model = model_builder.build(config.model, is_training=False)
    predictions = model.predict(image, true_image_shapes=None)
    tf.train.get_or_create_global_step()
    if config.HasField("graph_rewriter"):
        graph_rewriter_builder.build(config.graph_rewriter, is_training=False)()
    return [predictions["box_encodings"], predictions["class_predictions_with_background"]]
