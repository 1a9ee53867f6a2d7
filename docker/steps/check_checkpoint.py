#!/usr/bin/env python3
"""Check that a checkpoint can be read and fits a pipeline config; the errors are clearer than the exporter's.

check_checkpoint.py --pipeline-config FILE --checkpoint-prefix PREFIX
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _detection import build_inference_graph, read_pipeline_config
from _step import InputError, Parser, import_tensorflow, run

if TYPE_CHECKING:
    import argparse

    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig

MAX_NAMES = 10
QUANT_RANGE = re.compile(r"quant/(min|max)$")


class Mismatch(NamedTuple):
    """A variable of the model that is missing from the checkpoint or has another shape there."""

    name: str
    model_shape: tuple[int, ...]
    checkpoint_shape: tuple[int, ...] | None

    def __str__(self) -> str:
        if self.checkpoint_shape is None:
            return f"{self.name}: missing"
        model_shape, checkpoint_shape = list(self.model_shape), list(self.checkpoint_shape)
        return f"{self.name}: {model_shape} in the model, {checkpoint_shape} in the checkpoint"


def main() -> None:
    """Check the checkpoint given on the command line."""
    parser = Parser("Check that a checkpoint fits a pipeline config.")
    parser.add_argument("--pipeline-config", type=Path, required=True)
    parser.add_argument(
        "--checkpoint-prefix", type=Path, required=True, help="path without .index or .data-…"
    )
    run(parser, check)


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the model's variables with the checkpoint's."""
    config = read_pipeline_config(options.pipeline_config)
    prefix = options.checkpoint_prefix
    refuse_file_name(prefix)
    refuse_incomplete(prefix)
    in_checkpoint = read_shapes(prefix)
    in_model = model_shapes(config)
    mismatches = [
        Mismatch(name, shape, in_checkpoint.get(name))
        for name, shape in sorted(in_model.items())
        if in_checkpoint.get(name) != shape
    ]
    if mismatches:
        refuse_mismatches(
            mismatches, in_model, options.pipeline_config, prefix, num_classes=config.model.ssd.num_classes
        )
    extra = sorted(set(in_checkpoint) - set(in_model))
    return {
        "checkpoint_prefix": str(prefix),
        "variables": len(in_model),
        "extra_variables": len(extra),
        "unused_quantization_ranges": sum(1 for name in extra if QUANT_RANGE.search(name)),
    }


def refuse_file_name(prefix: Path) -> None:
    """Reject a path that is not a checkpoint prefix.

    Raises:
        InputError: the path is a folder, or names one of the checkpoint's files.
    """
    file_name = re.match(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})$", prefix.name)
    if file_name:
        right = prefix.with_name(file_name.group(1))
        raise InputError(f"{prefix}: this is one file of a checkpoint, not its prefix", tip=f"use {right}")
    if prefix.is_dir():
        raise InputError(f"{prefix}: this is a folder, not a checkpoint prefix", tip=prefixes_tip(prefix))


def refuse_incomplete(prefix: Path) -> None:
    """Check that all files of the checkpoint exist.

    Raises:
        InputError: the index or a data file is missing.
    """
    if not Path(f"{prefix}.index").is_file():
        raise InputError(f"{prefix}.index: no such file", tip=prefixes_tip(prefix.parent))
    parts = sorted(path.name for path in prefix.parent.glob(f"{prefix.name}.data-?????-of-?????"))
    if not parts:
        raise InputError(
            f"{prefix}.data-00000-of-00001: no such file; it should contain the checkpoint's values",
            tip="copy the checkpoint or unpack its archive again",
        )
    count = int(parts[0][-5:])
    wanted = [f"{prefix.name}.data-{number:05}-of-{count:05}" for number in range(count)]
    missing = sorted(set(wanted) - set(parts))
    if missing:
        raise InputError(
            f"{prefix.with_name(missing[0])}: no such file",
            tip="copy the checkpoint or unpack its archive again",
        )


def prefixes_tip(folder: Path) -> str:
    """List the checkpoint prefixes in a folder, for a tip."""
    found = sorted(str(path)[: -len(".index")] for path in folder.glob("*.index"))
    return "found " + " and ".join(found) if found else f"there is no checkpoint in {folder}"


def read_shapes(prefix: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a checkpoint's variables.

    Raises:
        InputError: the index is damaged.
    """
    tf = import_tensorflow()
    try:
        shapes = tf.train.NewCheckpointReader(str(prefix)).get_variable_to_shape_map()
    except (tf.errors.OpError, RuntimeError) as problem:
        reason = getattr(problem, "message", str(problem)).splitlines()[0]
        raise InputError(
            f"{prefix}.index: cannot be read: {reason}", tip="unpack or download the archive again"
        ) from problem
    return {name: tuple(shape) for name, shape in shapes.items()}


def model_shapes(config: TrainEvalPipelineConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the variables that the exporter restores from a checkpoint."""
    tf = import_tensorflow()
    with tf.Graph().as_default():
        build_inference_graph(config)
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        if config.eval_config.use_moving_averages:
            variables = tf.train.ExponentialMovingAverage(0.0).variables_to_restore()
        return {name: tuple(variable.shape.as_list()) for name, variable in variables.items()}


def refuse_mismatches(
    mismatches: list[Mismatch],
    in_model: dict[str, tuple[int, ...]],
    config: Path,
    prefix: Path,
    *,
    num_classes: int,
) -> None:
    """Report the variables that do not fit and the most likely cause.

    Raises:
        InputError: always.
    """
    shown = "".join(f"\n  {mismatch}" for mismatch in mismatches[:MAX_NAMES])
    more = f"\n  and {len(mismatches) - MAX_NAMES} more" if len(mismatches) > MAX_NAMES else ""
    raise InputError(
        f"{len(mismatches)} of {len(in_model)} variables of {config} do not fit {prefix}:{shown}{more}",
        tip=likely_cause(mismatches, in_model, num_classes),
    )


def likely_cause(mismatches: list[Mismatch], in_model: dict[str, tuple[int, ...]], num_classes: int) -> str:
    """Return the most likely cause of the mismatches."""
    missing = [mismatch for mismatch in mismatches if mismatch.checkpoint_shape is None]
    if all(QUANT_RANGE.search(mismatch.name) for mismatch in mismatches):
        return (
            "only quantization ranges are missing: the config is for a quantized model, the checkpoint is a "
            "float one; use the float model's config, or a checkpoint from quantization-aware training (the "
            "zoo's quantized archives of 2018_07_03 also lack the ranges; use those of 2018_07_18)"
        )
    if all(mismatch.name.endswith("/ExponentialMovingAverage") for mismatch in mismatches):
        return (
            "the config has use_moving_averages: true, but the checkpoint has no moving averages: set it to "
            "false in a copy"
        )
    if not missing and all("ClassPredictor" in mismatch.name for mismatch in mismatches):
        fitting = fitting_classes(mismatches, num_classes)
        return (
            f"only the class predictors differ: num_classes ({num_classes}) is not what the checkpoint was "
            f"trained for{'' if fitting is None else f'; with num_classes: {fitting} it would fit'}"
        )
    if len(missing) == len(in_model):
        return "no variable fits: the checkpoint and the config belong to different models"
    return "use the pipeline.config from the folder of the checkpoint"


def fitting_classes(mismatches: list[Mismatch], num_classes: int) -> int | None:
    """Return the number of classes with which all class predictors would fit, or None.

    A predictor has one channel for each pair of anchor and class, including the background class.
    """
    found = set()
    for mismatch in mismatches:
        if not (mismatch.model_shape and mismatch.checkpoint_shape):
            return None
        anchors = mismatch.model_shape[-1] // (num_classes + 1)
        classes, rest = divmod(mismatch.checkpoint_shape[-1], max(anchors, 1))
        found.add(None if rest else classes - 1)
    return found.pop() if len(found) == 1 else None


if __name__ == "__main__":
    main()
