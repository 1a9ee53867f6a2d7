#!/usr/bin/env python3
"""Check a pipeline config and write an edited copy of it.

Settings that would make the export fail later are rejected here with a specific message. The copy is in
protobuf text format, as the detection API writes it; the result lists the changes.

    pipeline_config.py --input FILE [--output FILE] [--quantized true|false] [--max-detections N]
                       [--set FIELD=VALUE]... [--remove FIELD]... [--drop-unknown-fields]

FIELD is a path such as model.ssd.num_classes. Without --output the config is only checked and described.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _detection import (
    UnknownFieldError,
    parse_pipeline_config,
    read_config_text,
    write_pipeline_config,
)
from _step import InputError, Parser, run

if TYPE_CHECKING:
    import argparse

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message
    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig
    from object_detection.protos.post_processing_pb2 import BatchNonMaxSuppression

LABEL_REPEATED = 3
"""The value of google.protobuf.descriptor.FieldDescriptor.LABEL_REPEATED; avoids importing protobuf."""

# Fields of older detection APIs that have no effect on an export. Some configs in the zoo still have them:
# ssd_mobilenet_v2_coco_2018_03_29 and ssdlite_mobilenet_v2_coco_2018_05_09 set batch_norm_trainable.
# https://github.com/tensorflow/models/issues/4066
WITHDRAWN_FIELDS = {
    "SsdFeatureExtractor.batch_norm_trainable": "it only controls whether training updates BatchNorm",
}

# Feature extractors that the pinned tree does not have, and the tree that has them.
LATER_FEATURE_EXTRACTORS = {
    # https://github.com/tensorflow/models/issues/10320
    "ssd_spaghettinet": "a tensorflow/models commit of October 2021 or later, such as 3564634",
    "ssd_mobilenet_v3_small_pruned": "a later tensorflow/models commit, such as 3564634",
}
TF2_FEATURE_EXTRACTOR = "the TensorFlow 2 detection API and its export_tflite_graph_tf2.py"


def main() -> None:
    """Check and copy the config given on the command line."""
    parser = Parser("Check a pipeline config and write an edited copy.")
    parser.add_argument("--input", type=Path, required=True, help="the config; it is not changed")
    parser.add_argument("--output", type=Path, help="where to write the edited copy")
    parser.add_argument(
        "--quantized", choices=("true", "false"), help="whether the config is for a quantized conversion"
    )
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="set this field in the copy"
    )
    parser.add_argument(
        "--remove",
        metavar="FIELD",
        action="append",
        default=[],
        help="remove this field from the copy, even if the detection API does not have it",
    )
    parser.add_argument(
        "--drop-unknown-fields",
        action="store_true",
        help="remove every field that the detection API does not have",
    )
    parser.add_argument("--max-detections", type=int, help="the exporter's --max_detections; only checked")
    run(parser, check_and_edit)


def check_and_edit(options: argparse.Namespace) -> dict[str, Any]:
    """Check and edit the config, write the copy, and return the changes and a description of the model."""
    source, copy = options.input, options.output
    if copy is not None and source.resolve() == copy.resolve():
        raise InputError(
            f"{copy}: input and output are the same file",
            tip="inputs are never edited in place: choose another --output",
        )
    if options.max_detections is not None and options.max_detections < 1:
        raise InputError(
            f"--max-detections {options.max_detections}: must be at least 1",
            tip="MLPerf Mobile used 10",
        )
    removals = Removals(tuple(options.remove), options.drop_unknown_fields)
    config, changes = parse_repaired(read_config_text(source), source, removals)
    for path in options.remove:
        changes += remove_field(config, path)
    refuse_unexportable(config, source)
    if options.quantized is not None:
        refuse_other_kind(config, source, is_quantized=options.quantized == "true")
    for edit in options.set:
        changes += set_field(config, edit)
    refuse_contradicting_limits(config.model.ssd.post_processing.batch_non_max_suppression, source)
    refuse_impossible_threshold(config, source)
    if copy is not None:
        write_pipeline_config(config, copy)
    return {"output": None if copy is None else str(copy), "changes": changes, **describe(config)}


def parse_repaired(
    text: str, path: Path, removals: Removals
) -> tuple[TrainEvalPipelineConfig, list[dict[str, Any]]]:
    """Parse a config without the unknown fields that may be removed; return the removals as changes.

    Raises:
        InputError: the config cannot be parsed. If the cause is an unknown field, and the model could not be
            exported even without this field, the error states why not.
    """
    try:
        return parse_pipeline_config(text, path), []
    except UnknownFieldError as problem:
        field = f"{problem.message_type}.{problem.field}"
        why = removals.why(problem)
        repaired = without_field(text, problem) if why else text
        if repaired == text:
            config = parse_leniently(text, path)
            if config is not None:
                refuse_unexportable(config, path)
            raise
        config, changes = parse_repaired(repaired, path, removals)
        return config, [{"field": field, "from": f"line {problem.line}", "to": None, "why": why}, *changes]


def parse_leniently(text: str, path: Path) -> TrainEvalPipelineConfig | None:
    """Parse a config without its unknown fields; return None if protobuf cannot skip one (a list)."""
    try:
        return parse_pipeline_config(text, path, is_lenient=True)
    except InputError:
        return None


class Removals(NamedTuple):
    """The unknown fields that may be removed from a config: those at the listed paths, or all."""

    paths: tuple[str, ...] = ()
    is_all: bool = False

    def why(self, problem: UnknownFieldError) -> str | None:
        """Return the reason for removing an unknown field, or None if it may not be removed."""
        known = WITHDRAWN_FIELDS.get(f"{problem.message_type}.{problem.field}")
        if known is not None:
            return known
        if any(_is_at(path, problem) for path in self.paths):
            return "removed on request; this detection API does not have it"
        return "this detection API does not have it (--drop-unknown-fields)" if self.is_all else None


def _is_at(path: str, problem: UnknownFieldError) -> bool:
    """Return whether the unknown field is the one at this path."""
    from object_detection.protos import pipeline_pb2

    *parents, name = path.split(".")
    descriptor = pipeline_pb2.TrainEvalPipelineConfig.DESCRIPTOR
    for parent in parents:
        field = descriptor.fields_by_name.get(parent)
        if field is None or field.message_type is None:
            return False
        descriptor = field.message_type
    return (descriptor.name, name) == (problem.message_type, problem.field)


TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<mark>[{}<>\[\]:,;])|"""
    r"""[^\s{}<>\[\]:,;"'#]+"""
)


def without_field(text: str, problem: UnknownFieldError) -> str:
    """Blank out the field at which parsing failed, scalar or message. Line numbers do not change."""
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: problem.line - 1]) + problem.column - 1
    end = _end_of_field(text, start + len(problem.field))
    blank = re.sub(r"[^\n]", "", text[start:end])
    return text[:start] + blank + text[end:]


def _end_of_field(text: str, position: int) -> int:
    """Return the end of a field, after its value and separator. Its name ends at ``position``."""
    depth, has_value, is_string, end = 0, False, False, position
    for token in TOKEN.finditer(text, position):
        word = token.group()
        if word.isspace() or word.startswith("#"):
            continue
        if depth == 0 and has_value and not (token["string"] and is_string):
            return token.end() if word in ",;" else end
        depth += (word in "{<[") - (word in "}>]")
        has_value = has_value or word != ":"
        is_string = bool(token["string"])
        end = token.end()
        if depth < 0:
            return token.start()
    return end


def refuse_unexportable(config: TrainEvalPipelineConfig, path: Path) -> None:
    """Check that the exporter and TOCO support this model.

    Raises:
        InputError: the model is not supported; the message states why.
    """
    kind = config.model.WhichOneof("model")
    if kind != "ssd":
        what = f"this is a {kind} model" if kind else "this config describes no model"
        raise InputError(
            f"{path}: {what}; only SSD models can be exported to TFLite by this toolchain",
            tip="choose an archive whose config has model { ssd { … } }",
        )
    refuse_unknown_feature_extractor(config.model.ssd.feature_extractor.type, path)
    resizer = config.model.ssd.image_resizer.WhichOneof("image_resizer_oneof")
    if resizer != "fixed_shape_resizer":
        raise InputError(
            f"{path}: the image resizer is {resizer or 'not set'}; TFLite needs a fixed_shape_resizer",
            tip="in a copy, replace it with fixed_shape_resizer { height: H width: W }; the model was "
            "trained on other shapes, so measure its accuracy afterwards",
        )
    refuse_empty_input(config, path)
    refuse_other_box_coder(config.model.ssd.box_coder.WhichOneof("box_coder_oneof"), path)


def refuse_unknown_feature_extractor(name: str, path: Path) -> None:
    """Check that the models tree has this feature extractor.

    Raises:
        InputError: the tree lacks the feature extractor; the tip names a tree that has it, if known.
    """
    from object_detection.builders import model_builder

    known = sorted(model_builder.SSD_FEATURE_EXTRACTOR_CLASS_MAP)
    if name in known:
        return
    owner = TF2_FEATURE_EXTRACTOR if name.endswith("_keras") else LATER_FEATURE_EXTRACTORS.get(name)
    raise InputError(
        f"{path}: this tensorflow/models tree has no feature extractor {name!r}",
        tip=(f"it needs {owner}; " if owner else "") + f"this one has: {', '.join(known)}",
    )


def refuse_empty_input(config: TrainEvalPipelineConfig, path: Path) -> None:
    """Check that the size of the input image is set.

    Raises:
        InputError: height or width is not set.
    """
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    if resizer.height < 1 or resizer.width < 1:
        raise InputError(
            f"{path}: fixed_shape_resizer has height {resizer.height} and width {resizer.width}",
            tip="set height and width to the values that the model was trained with",
        )


def refuse_other_box_coder(name: str | None, path: Path) -> None:
    """Check that TFLite's detection operator can decode the boxes.

    The exporter does not check this; with another box coder every box would be wrong.

    Raises:
        InputError: the model uses another box coder.
    """
    if name != "faster_rcnn_box_coder":
        raise InputError(
            f"{path}: the box coder is {name or 'not set'}, but TFLite decodes only faster_rcnn_box_coder",
            tip="this model cannot be exported with TFLite's detection operator",
        )


def refuse_contradicting_limits(suppression: BatchNonMaxSuppression, path: Path) -> None:
    """Check that the exporter will accept the detection limits.

    Raises:
        InputError: max_detections_per_class is above max_total_detections.
    """
    per_class, total = suppression.max_detections_per_class, suppression.max_total_detections
    if per_class > total:
        limits = f"max_detections_per_class ({per_class}) is above max_total_detections ({total})"
        message = f"{path}: {limits}, which the exporter rejects"
        tip = (
            f"in a copy, set max_total_detections to {per_class}, as in the zoo's configs; the number of "
            "detections of the .tflite is set by the exporter's --max_detections"
        )
        raise InputError(message, tip=tip)


def refuse_other_kind(config: TrainEvalPipelineConfig, path: Path, *, is_quantized: bool) -> None:
    """Check that the config matches the kind of conversion, float or quantized.

    Raises:
        InputError: the kinds differ, or the config's quantization is not 8-bit.
    """
    has_rewriter = config.HasField("graph_rewriter")
    if is_quantized and not has_rewriter:
        message = f"{path}: a uint8 model is requested, but the config has no graph_rewriter quantization"
        tip = "use the config and checkpoint of quantization-aware training, or convert to float (fp32)"
        raise InputError(message, tip=tip)
    if has_rewriter and not is_quantized:
        raise InputError(
            f"{path}: a float model is requested, but the config has a graph_rewriter quantization",
            tip="use the config and checkpoint of the float model, or convert to uint8",
        )
    bits = config.graph_rewriter.quantization
    if has_rewriter and (bits.weight_bits, bits.activation_bits) != (8, 8):
        raise InputError(
            f"{path}: quantizes weights to {bits.weight_bits} and activations to {bits.activation_bits} bits",
            tip="only 8 and 8 are supported",
        )


def set_field(config: TrainEvalPipelineConfig, edit: str) -> list[dict[str, Any]]:
    """Set a scalar field (number, bool, string, enum); return the change, or [] if nothing changes.

    Raises:
        InputError: there is no such field, or the value is invalid for it.
    """
    path, _, text = edit.partition("=")
    *parents, name = path.split(".")
    message = config
    for parent in parents:
        descriptor = message.DESCRIPTOR.fields_by_name.get(parent)
        if descriptor is None or descriptor.message_type is None or descriptor.label == LABEL_REPEATED:
            raise _no_such_field(f"--set {path}", parent, message)
        message = getattr(message, parent)
    descriptor = message.DESCRIPTOR.fields_by_name.get(name)
    if descriptor is None or descriptor.message_type is not None or descriptor.label == LABEL_REPEATED:
        raise _no_such_field(f"--set {path}", name, message)
    before = getattr(message, name)
    try:
        setattr(message, name, _value(descriptor, text))
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"--set {edit}: {text!r} is not a valid value of {path}",
            tip=f"its value in the config is {_shown(descriptor, before)}",
        ) from problem
    after = getattr(message, name)
    if after == before:
        return []
    return [{"field": path, "from": _shown(descriptor, before), "to": _shown(descriptor, after)}]


def remove_field(config: TrainEvalPipelineConfig, path: str) -> list[dict[str, Any]]:
    """Remove a field or a whole message; return the change, or [] if the field is not set.

    Fields that the detection API does not know were removed when the config was parsed.

    Raises:
        InputError: there is no such message.
    """
    *parents, name = path.split(".")
    message = config
    for parent in parents:
        descriptor = message.DESCRIPTOR.fields_by_name.get(parent)
        if descriptor is None or descriptor.message_type is None or descriptor.label == LABEL_REPEATED:
            raise _no_such_field(f"--remove {path}", parent, message)
        if not message.HasField(parent):
            return []
        message = getattr(message, parent)
    set_fields = {descriptor.name: value for descriptor, value in message.ListFields()}
    if name not in set_fields:
        return []
    descriptor, before = message.DESCRIPTOR.fields_by_name[name], set_fields[name]
    is_scalar = descriptor.message_type is None and descriptor.label != LABEL_REPEATED
    message.ClearField(name)
    return [{"field": path, "from": _shown(descriptor, before) if is_scalar else "set", "to": None}]


def _no_such_field(flag: str, name: str, message: Message) -> InputError:
    known = ", ".join(sorted(message.DESCRIPTOR.fields_by_name))
    return InputError(
        f"{flag}: {message.DESCRIPTOR.name} has no field {name!r}, or it is a list or a message",
        tip=f"its fields: {known}",
    )


def _value(descriptor: FieldDescriptor, text: str) -> bool | int | float | str:
    """Parse a value as in protobuf's text format.

    Raises:
        KeyError, ValueError: the text is not a value of the field's type.
    """
    if descriptor.cpp_type == descriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}[text]
    if descriptor.cpp_type == descriptor.CPPTYPE_ENUM:
        return descriptor.enum_type.values_by_name[text].number
    if descriptor.cpp_type in (descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE):
        return float(text)
    return text if descriptor.cpp_type == descriptor.CPPTYPE_STRING else int(text)


def _shown(descriptor: FieldDescriptor, value: bool | int | float | str) -> bool | int | float | str:
    if descriptor.cpp_type == descriptor.CPPTYPE_ENUM:
        return descriptor.enum_type.values_by_number[value].name
    return _short(value) if isinstance(value, float) else value


def refuse_impossible_threshold(config: TrainEvalPipelineConfig, path: Path) -> None:
    """Check that the score threshold is in [0, 1).

    Raises:
        InputError: the threshold is outside this range or not a number.
    """
    threshold = config.model.ssd.post_processing.batch_non_max_suppression.score_threshold
    if not 0.0 <= threshold < 1.0:
        raise InputError(
            f"{path}: the score threshold is {_short(threshold)}, but must be at least 0 and below 1",
            tip="MLPerf Mobile used 0.3",
        )


def describe(config: TrainEvalPipelineConfig) -> dict[str, Any]:
    """Return the model's settings that matter for a conversion."""
    ssd = config.model.ssd
    resizer = ssd.image_resizer.fixed_shape_resizer
    suppression = ssd.post_processing.batch_non_max_suppression
    is_quantized = config.HasField("graph_rewriter")
    return {
        "feature_extractor": ssd.feature_extractor.type,
        "num_classes": ssd.num_classes,
        "input_height": resizer.height,
        "input_width": resizer.width,
        "input_channels": 1 if resizer.convert_to_grayscale else 3,
        "score_threshold": _short(suppression.score_threshold),
        "iou_threshold": _short(suppression.iou_threshold),
        "max_detections_per_class": suppression.max_detections_per_class,
        "max_total_detections": suppression.max_total_detections,
        "is_quantized": is_quantized,
        "quantization_delay": config.graph_rewriter.quantization.delay if is_quantized else None,
        "use_moving_averages": config.eval_config.use_moving_averages,
    }


def _short(value: float) -> float:
    """Return the shortest decimal that rounds to a float32: 0.3, not 0.30000001192092896."""
    short = float(str(np.float32(value)))
    return short if math.isfinite(short) else value


if __name__ == "__main__":
    main()
