#!/usr/bin/env python3
"""Check a pipeline config and write an edited copy of it.

What the export would trip over later, half an hour into somebody's evening, is refused here by name. The copy
is what the detection API's own protobuf prints; what changed is in the result.

    pipeline_config.py --input FILE [--output FILE] [--quantized true|false] [--max-detections N]
                       [--set FIELD=VALUE]...

FIELD is a path such as model.ssd.num_classes. Without --output the config is only checked and described.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""google.protobuf.descriptor.FieldDescriptor.LABEL_REPEATED, known before protobuf is imported."""

# Fields that an older detection API knew, that have no effect on an export, and that configs in the zoo still
# hold: ssd_mobilenet_v2_coco_2018_03_29 and ssdlite_mobilenet_v2_coco_2018_05_09 say batch_norm_trainable.
# https://github.com/tensorflow/models/issues/4066
WITHDRAWN_FIELDS = {
    "SsdFeatureExtractor.batch_norm_trainable": "it only told a training run whether to update BatchNorm",
}

# Feature extractors of other trees than the pinned one.
LATER_FEATURE_EXTRACTORS = {
    # https://github.com/tensorflow/models/issues/10320
    "ssd_spaghettinet": "a tensorflow/models commit of October 2021 or later, such as 3564634",
    "ssd_mobilenet_v3_small_pruned": "a later tensorflow/models commit, such as 3564634",
}
TF2_FEATURE_EXTRACTOR = "the TensorFlow 2 detection API and its export_tflite_graph_tf2.py, which this is not"


def main() -> None:
    """Check and copy the config the command line names."""
    parser = Parser("Check a pipeline config and write an edited copy.")
    parser.add_argument("--input", type=Path, required=True, help="the config; it is not touched")
    parser.add_argument("--output", type=Path, help="the copy")
    parser.add_argument(
        "--quantized", choices=("true", "false"), help="the kind of conversion it is meant for"
    )
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="set this field in the copy"
    )
    parser.add_argument("--max-detections", type=int, help="what the exporter will be told; only checked")
    run(parser, check_and_edit)


def check_and_edit(options: argparse.Namespace) -> dict[str, Any]:
    """Refuse what cannot be exported, edit, write, say what was changed and what the config is."""
    source, copy = options.input, options.output
    if copy is not None and source.resolve() == copy.resolve():
        raise InputError(
            f"{copy}: input and output are the same file",
            tip="inputs are never edited in place: choose another --output",
        )
    if options.max_detections is not None and options.max_detections < 1:
        raise InputError(
            f"a model that gives {options.max_detections} detections makes no sense",
            tip="--max-detections 10 is what MLPerf Mobile used",
        )
    config, changes = parse_repaired(read_config_text(source), source)
    refuse_unexportable(config, source)
    if options.quantized is not None:
        refuse_other_kind(config, source, is_quantized=options.quantized == "true")
    for edit in options.set:
        changes += set_field(config, edit)
    refuse_impossible_threshold(config, source)
    if copy is not None:
        write_pipeline_config(config, copy)
    return {"output": None if copy is None else str(copy), "changes": changes, **describe(config)}


def parse_repaired(text: str, path: Path) -> tuple[TrainEvalPipelineConfig, list[dict[str, Any]]]:
    """Parse a config, leaving out the withdrawn fields, and record each as a change.

    Raises:
        InputError: it cannot be parsed. If the reason is a field these protos do not know, but the model is
            one that cannot be exported anyway, the refusal says that instead.
    """
    try:
        return parse_pipeline_config(text, path), []
    except UnknownFieldError as problem:
        field = f"{problem.message_type}.{problem.field}"
        why = WITHDRAWN_FIELDS.get(field)
        repaired = without_field(text, problem) if why else text
        if repaired == text:
            refuse_unexportable(parse_pipeline_config(text, path, is_lenient=True), path)
            raise
        config, changes = parse_repaired(repaired, path)
        return config, [{"field": field, "from": f"line {problem.line}", "to": None, "why": why}, *changes]


def without_field(text: str, problem: UnknownFieldError) -> str:
    """Blank out a scalar field where the parser met it; the lines keep their numbers."""
    lines = text.split("\n")
    scalar = re.compile(rf"\b{problem.field}\s*:\s*\w+\s*[,;]?")
    lines[problem.line - 1] = scalar.sub("", lines[problem.line - 1], count=1)
    return "\n".join(lines)


def refuse_unexportable(config: TrainEvalPipelineConfig, path: Path) -> None:
    """See that the exporter and TOCO can do something with this model.

    Raises:
        InputError: they cannot, with the reason.
    """
    kind = config.model.WhichOneof("model")
    if kind != "ssd":
        what = f"this is a {kind} model" if kind else "this config describes no model"
        raise InputError(
            f"{path}: {what}; only SSD models can be exported to TFLite by this toolchain",
            tip="choose an archive whose config says model { ssd { … } }",
        )
    refuse_unknown_feature_extractor(config.model.ssd.feature_extractor.type, path)
    resizer = config.model.ssd.image_resizer.WhichOneof("image_resizer_oneof")
    if resizer != "fixed_shape_resizer":
        raise InputError(
            f"{path}: the image resizer is {resizer or 'not set'}; TFLite needs a fixed_shape_resizer",
            tip="a model trained on images of varying shape cannot be exported",
        )
    refuse_empty_input(config, path)
    refuse_other_box_coder(config.model.ssd.box_coder.WhichOneof("box_coder_oneof"), path)
    refuse_contradicting_limits(config.model.ssd.post_processing.batch_non_max_suppression, path)


def refuse_unknown_feature_extractor(name: str, path: Path) -> None:
    """See that the models tree has this network.

    Raises:
        InputError: it has not; the tip says who has, if that is known.
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
    """See that the input has a size.

    Raises:
        InputError: it has none.
    """
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    if resizer.height < 1 or resizer.width < 1:
        raise InputError(
            f"{path}: fixed_shape_resizer says {resizer.height} x {resizer.width}, which is no image",
            tip="set height and width to those the model was trained with",
        )


def refuse_other_box_coder(name: str | None, path: Path) -> None:
    """See that boxes are coded as TFLite's detection operator decodes them.

    Raises:
        InputError: they are coded otherwise; the exporter would not notice, and every box would be wrong.
    """
    if name != "faster_rcnn_box_coder":
        raise InputError(
            f"{path}: the box coder is {name or 'not set'}, TFLite decodes the faster_rcnn_box_coder only",
            tip="this model cannot be exported with its detection operator",
        )


def refuse_contradicting_limits(suppression: BatchNonMaxSuppression, path: Path) -> None:
    """See that the exporter's own check of the limits will pass.

    Raises:
        InputError: one class may have more detections than there may be in total.
    """
    per_class, total = suppression.max_detections_per_class, suppression.max_total_detections
    if per_class > total:
        limits = f"max_detections_per_class ({per_class}) is above max_total_detections ({total})"
        message = f"{path}: {limits}, which the exporter refuses"
        tip = (
            f"in a copy, set max_total_detections to {per_class}, as the zoo's configs have it: how many "
            "detections the .tflite gives is decided by the exporter's own --max_detections"
        )
        raise InputError(message, tip=tip)


def refuse_other_kind(config: TrainEvalPipelineConfig, path: Path, *, is_quantized: bool) -> None:
    """See that config and conversion agree on quantization.

    Raises:
        InputError: they do not, or the config asks for a quantization other than to 8 bits.
    """
    has_rewriter = config.HasField("graph_rewriter")
    if is_quantized and not has_rewriter:
        message = f"{path}: a uint8 model is asked for, but the config has no graph_rewriter quantization"
        tip = "use the config and checkpoint of quantization-aware training, or convert to float (fp32)"
        raise InputError(message, tip=tip)
    if has_rewriter and not is_quantized:
        raise InputError(
            f"{path}: a float model is asked for, but the config has a graph_rewriter quantization",
            tip="use the config and checkpoint of the float model, or convert to uint8",
        )
    bits = config.graph_rewriter.quantization
    if has_rewriter and (bits.weight_bits, bits.activation_bits) != (8, 8):
        raise InputError(
            f"{path}: quantizes weights to {bits.weight_bits} and activations to {bits.activation_bits} bits",
            tip="only 8 and 8 are supported",
        )


def set_field(config: TrainEvalPipelineConfig, edit: str) -> list[dict[str, Any]]:
    """Set a field that holds one number, truth value, word or enum value; report it if that is a change.

    Raises:
        InputError: there is no such field, or it cannot hold that value.
    """
    path, _, text = edit.partition("=")
    *parents, name = path.split(".")
    message = config
    for parent in parents:
        descriptor = message.DESCRIPTOR.fields_by_name.get(parent)
        if descriptor is None or descriptor.message_type is None or descriptor.label == LABEL_REPEATED:
            raise _no_such_field(path, parent, message)
        message = getattr(message, parent)
    descriptor = message.DESCRIPTOR.fields_by_name.get(name)
    if descriptor is None or descriptor.message_type is not None or descriptor.label == LABEL_REPEATED:
        raise _no_such_field(path, name, message)
    before = getattr(message, name)
    try:
        setattr(message, name, _value(descriptor, text))
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"--set {edit}: {text!r} is not a value of {path}",
            tip=f"it is {_shown(descriptor, before)} in the config",
        ) from problem
    after = getattr(message, name)
    if after == before:
        return []
    return [{"field": path, "from": _shown(descriptor, before), "to": _shown(descriptor, after)}]


def _no_such_field(path: str, name: str, message: Message) -> InputError:
    known = ", ".join(sorted(message.DESCRIPTOR.fields_by_name))
    return InputError(
        f"--set {path}: {message.DESCRIPTOR.name} has no field {name!r} that holds one value",
        tip=f"its fields: {known}",
    )


def _value(descriptor: FieldDescriptor, text: str) -> bool | int | float | str:
    """Read a value as protobuf's text format writes it.

    Raises:
        KeyError, ValueError: it is none of the field's type.
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
    """See that scores can reach the score threshold.

    Raises:
        InputError: no score can, or it is no number.
    """
    threshold = config.model.ssd.post_processing.batch_non_max_suppression.score_threshold
    if not 0.0 <= threshold < 1.0:
        raise InputError(
            f"{path}: a score threshold of {_short(threshold)} makes no sense, scores are between 0 and 1",
            tip="0.3 is what MLPerf Mobile used",
        )


def describe(config: TrainEvalPipelineConfig) -> dict[str, Any]:
    """Say what the config says of the model, as far as a conversion depends on it."""
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
    """Give a float32 as the shortest number that means it: 0.3, not 0.30000001192092896."""
    short = float(str(np.float32(value)))
    return short if math.isfinite(short) else value


if __name__ == "__main__":
    main()
