#!/usr/bin/env python3
"""Make a stand-in for a checkpoint: the same variables with random values.

A stand-in is made from a recipe's variant, which has a table of the published variables and their
quantization ranges, or from a pipeline config alone. With a recipe, the files are written in the layout of
the zoo's archive, ``OUTPUT/VARIANT/{pipeline.config, model.ckpt-*}``; with a config, directly to ``OUTPUT``.
The detection API builds the model and so determines the variables. If there is a table, they must match it.

The values are random, scaled so that activations neither vanish nor explode. They are the same on every
machine: a tensor depends only on the seed and its name and shape, and is computed by operations that IEEE 754
defines to the last bit. (So values are uniform, not normal: a logarithm can differ between C libraries.)

    stand_in.py --recipe-dir DIR --variant fp32 --output DIR [--seed N] [--optimizer-slots]
    stand_in.py --pipeline-config FILE --output DIR [--prefix-name model.ckpt] [--seed N] [--optimizer-slots]
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _checkpoint import save_checkpoint
from _detection import (
    build_inference_graph,
    config_text,
    parse_pipeline_config,
    read_config_text,
    read_pipeline_config,
)
from _step import InputError, Parser, import_tensorflow, run, whole_folder

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig

README_NAME = "README.txt"
README_TITLE = "A STAND-IN CHECKPOINT: ITS DETECTIONS MEAN NOTHING"
README = """{title}

The variables have the names, shapes and dtypes of {model}, but none of its weights:
their values are random{ranges}.
Made by stand_in.py with {flags}. The same seed gives the same tensors on every machine.
Use it to try the toolchain without the download. A model made from it gives meaningless detections.
"""

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
FAKE_QUANT = "FakeQuantWithMinMaxVars"
# Folding scales weights by up to 1.16, because gamma and the variance are within 10 % of 1.
FOLDED_WEIGHTS_LIMIT = 1.2
# Limits of activations without ReLU, by operation; most values of a stand-in are within them.
LINEAR_LIMITS = {"Add": 24.0, "AddV2": 24.0}
OTHER_LINEAR_LIMIT = 12.0


class Variable(NamedTuple):
    """The dtype and shape of a variable."""

    dtype: str
    shape: tuple[int, ...]


class Source(NamedTuple):
    """What a stand-in is made from.

    ``table`` and ``quant_ranges`` contain the published variables and ranges. If both are None, the variables
    are not checked, and the ranges are chosen by this step.
    """

    folder: Path
    config: TrainEvalPipelineConfig
    config_text: str
    table: dict[str, Variable] | None
    quant_ranges: dict[str, float] | None


class Tensors(NamedTuple):
    """The values of a checkpoint: the model's variables, and the optimizer slots."""

    values: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]


def main() -> None:
    """Make the stand-in given on the command line."""
    parser = Parser("Make a stand-in checkpoint.")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--recipe-dir", type=Path, help="folder of the recipe, or of one of its variants")
    origin.add_argument("--pipeline-config", type=Path, help="make it from this config alone")
    parser.add_argument("--variant", help="with --recipe-dir: name of the variant's folder")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder to write; with --recipe-dir, the parent of the variant's folder",
    )
    parser.add_argument("--prefix-name", help="name of the checkpoint (default: model.ckpt-STEPS)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--optimizer-slots", action="store_true", help="add the optimizer slots of a training run"
    )
    run(parser, make_stand_in)


def make_stand_in(options: argparse.Namespace) -> dict[str, Any]:
    """Write the folder and return a description of it."""
    source = published_source(options) if options.recipe_dir else config_source(options)
    prefix_name = options.prefix_name or f"model.ckpt-{source.config.train_config.num_steps}"
    with whole_folder(source.folder) as partial:
        tensors = write_checkpoint(source, options, partial / prefix_name)
        (partial / "pipeline.config").write_text(source.config_text, "utf-8")
        (partial / README_NAME).write_text(readme(source, options), "utf-8")
    return {
        "model_dir": str(source.folder),
        "pipeline_config": str(source.folder / "pipeline.config"),
        "checkpoint_prefix": str(source.folder / prefix_name),
        "tensors": len(tensors.values),
        "optimizer_slots": len(tensors.slots),
        "tensors_sha256": digest(tensors.values),
        "seed": options.seed,
    }


def published_source(options: argparse.Namespace) -> Source:
    """Read the published config, variables and ranges of a recipe's variant.

    Raises:
        InputError: --variant is missing, the variant has no such files, or the output folder contains other
            files.
    """
    if options.variant is None:
        raise InputError("--recipe-dir needs --variant", tip="name one of the recipe's folders, such as fp32")
    folder = options.output / options.variant
    refuse_foreign_folder(folder)
    recipe_dir = options.recipe_dir / options.variant
    recipe_dir = recipe_dir if recipe_dir.is_dir() else options.recipe_dir
    config = read_pipeline_config(recipe_dir / "pipeline.config")
    restore_zoo_settings(config)
    return Source(
        folder=folder,
        config=config,
        config_text=config_text(config),
        table=read_tensor_table(recipe_dir / "tensors.tsv"),
        quant_ranges=read_quant_ranges(recipe_dir / "quant_ranges.tsv"),
    )


def config_source(options: argparse.Namespace) -> Source:
    """Read a config. The stand-in gets an unchanged copy, even with fields that this models tree lacks.

    Raises:
        InputError: this is not the config of an SSD model, or the output folder contains other files.
    """
    if options.variant is not None:
        raise InputError("--variant is for --recipe-dir", tip="name the folder to write with --output")
    refuse_foreign_folder(options.output)
    text = read_config_text(options.pipeline_config)
    config = parse_pipeline_config(text, options.pipeline_config, is_lenient=True)
    if config.model.WhichOneof("model") != "ssd":
        raise InputError(f"{options.pipeline_config}: this is not the config of an SSD model")
    return Source(folder=options.output, config=config, config_text=text, table=None, quant_ranges=None)


def readme(source: Source, options: argparse.Namespace) -> str:
    """Return the README text, which warns that the checkpoint is a stand-in."""
    origin = f"--variant {options.variant}" if options.variant else "--pipeline-config"
    slots = " --optimizer-slots" if options.optimizer_slots else ""
    return README.format(
        title=README_TITLE,
        model="the published checkpoint" if source.table else "the model that pipeline.config describes",
        ranges=", except for the published quantization ranges" if source.quant_ranges else "",
        flags=f"{origin} --seed {options.seed}{slots}",
    )


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse to replace a folder that this program did not make.

    Raises:
        InputError: the folder is not empty and has no stand-in README.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    mark = folder / README_NAME
    if not mark.is_file() or not mark.read_bytes().startswith(README_TITLE.encode("ascii")):
        raise InputError(
            f"{folder} already exists and is not a stand-in checkpoint", tip="choose another --output"
        )


def read_tensor_table(path: Path) -> dict[str, Variable]:
    """Read a recipe's table of tensors: name, dtype, shape (empty for a scalar); the CRC is not used.

    Raises:
        InputError: the file does not exist.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file",
            tip="pass a recipe's folder as --recipe-dir, and the name of a folder in it as --variant",
        )
    rows = (row.split("\t") for row in _rows(path))
    return {
        name: Variable(dtype, tuple(map(int, filter(None, shape.split(",")))))
        for name, dtype, shape, _ in rows
    }


def read_quant_ranges(path: Path) -> dict[str, float]:
    """Read the published minima and maxima of the quantization ranges; a float variant has none."""
    if not path.is_file():
        return {}
    rows = (row.split("\t") for row in _rows(path))
    return {name: float(value) for name, value in rows}


def _rows(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]


def restore_zoo_settings(config: TrainEvalPipelineConfig) -> None:
    """Undo the edits that MLCommons made to the published config for the benchmark.

    The score threshold becomes the usual one of the zoo's configs. Both limits of detections become 100,
    because the exporter rejects a ``max_detections_per_class`` above ``max_total_detections``.
    """
    suppression = config.model.ssd.post_processing.batch_non_max_suppression
    suppression.score_threshold = 1e-8
    suppression.max_detections_per_class = 100
    suppression.max_total_detections = 100


def choose_value(name: str, tensor: Variable, known: dict[str, float], seed: int) -> np.ndarray:
    """Return a variable's known value, or a random one.

    Weights have the variance 2 / fan-in of He et al. (https://arxiv.org/abs/1502.01852), which keeps the
    scale of activations from layer to layer. Batch-norm variables and biases are close to the identity.

    Raises:
        InputError: the variable is of an unknown kind.
    """
    kind = name.rsplit("/", 1)[-1]
    if name in known:
        value = np.array(known[name])
    elif kind in ("weights", "depthwise_weights"):
        value = weights_limit(kind, tensor.shape) * _uniform(name, tensor.shape, seed)
    elif kind in ("gamma", "moving_variance"):
        value = 1.0 + 0.1 * _uniform(name, tensor.shape, seed)
    elif kind in ("beta", "moving_mean", "biases"):
        value = 0.1 * _uniform(name, tensor.shape, seed)
    else:
        raise InputError(f"{name}: unknown kind of variable, cannot choose a stand-in value")
    return value.astype(tensor.dtype)


def weights_limit(kind: str, shape: tuple[int, ...]) -> float:
    """Return the largest magnitude of uniform weights with the variance 2 / fan-in."""
    return math.sqrt(6.0 / fan_in(kind, shape))


def fan_in(kind: str, shape: tuple[int, ...]) -> int:
    """Return the number of input values per output value; a depthwise convolution reads one channel."""
    height, width, channels, _ = shape
    return height * width * (1 if kind == "depthwise_weights" else channels)


def momentum_slots(values: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return random momentum slots, one for each trained variable, like those in a training checkpoint."""
    trained = ("weights", "biases", "gamma", "beta")
    slots = {f"{name}/Momentum": value for name, value in values.items() if name.endswith(trained)}
    return {
        name: (0.01 * _uniform(name, value.shape, seed)).astype(value.dtype) for name, value in slots.items()
    }


def _uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return uniform random values in [-1, 1): Mersenne Twister integers, scaled exactly (power of two)."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return 2.0 * np.random.RandomState(np.frombuffer(key, "<u4")).random_sample(shape) - 1.0


def write_checkpoint(source: Source, options: argparse.Namespace, prefix: Path) -> Tensors:
    """Build the graph, choose and assign the values, save the checkpoint and its meta graph."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        build_inference_graph(source.config)
        tensors = choose_values(tf, graph, source, options)
        for name, value in tensors.slots.items():
            tf.get_variable(name, shape=value.shape, dtype=value.dtype, trainable=False)
        save_checkpoint(tf, {**tensors.values, **tensors.slots}, prefix)
    return tensors


def choose_values(
    tf: ModuleType,
    graph: Any,  # noqa: ANN401 - a TensorFlow graph
    source: Source,
    options: argparse.Namespace,
) -> Tensors:
    """Return the values of the variables of a graph.

    Raises:
        InputError: the variables differ from the recipe's table, or one is of an unknown kind.
    """
    variables = {
        variable.op.name: Variable(variable.dtype.base_dtype.name, tuple(variable.shape.as_list()))
        for variable in tf.global_variables()
    }
    refuse_other_variables(variables, source.table)
    ranges = source.quant_ranges
    if ranges is None:
        ranges = choose_quant_ranges(graph, options.seed)
    known = {"global_step": source.config.train_config.num_steps, **ranges}
    values = {name: choose_value(name, tensor, known, options.seed) for name, tensor in variables.items()}
    return Tensors(values, momentum_slots(values, options.seed) if options.optimizer_slots else {})


def choose_quant_ranges(graph: Any, seed: int) -> dict[str, float]:  # noqa: ANN401 - a TensorFlow graph
    """Choose the minimum and maximum of every FakeQuant node, depending on the tensor that it quantizes.

    Both ends vary by up to 10 %, depending on the variable's name, so that all tensors have different ranges.
    """
    ranges = {}
    for node in graph.get_operations():
        if node.type == FAKE_QUANT:
            for end, limit in zip(node.inputs[1:], _limits(node)):
                name = _variable_of(end.op).name
                ranges[name] = limit * (0.95 + 0.05 * float(_uniform(name, (), seed)))
    return ranges


def _limits(fake_quant: Any) -> tuple[float, float]:  # noqa: ANN401 - a TensorFlow operation
    """Return a range that contains nearly all values of a quantized tensor."""
    source = fake_quant.inputs[0]
    consumers = fake_quant.outputs[0].consumers()
    convolution = next((each for each in consumers if each.type in CONVOLUTIONS), None)
    if convolution is not None and convolution.inputs[1].op is fake_quant:
        kind = "weights" if convolution.type == "Conv2D" else "depthwise_weights"
        limit = FOLDED_WEIGHTS_LIMIT * weights_limit(kind, tuple(source.shape.as_list()))
        return -limit, limit
    producer = source.op
    while producer.type == "Identity":
        producer = producer.inputs[0].op
    if producer.type in ("Relu", "Relu6"):
        return 0.0, 6.0
    limit = LINEAR_LIMITS.get(producer.type, OTHER_LINEAR_LIMIT)
    return -limit, limit


def _variable_of(operation: Any) -> Any:  # noqa: ANN401 - a TensorFlow operation
    """Return the variable that an operation reads, through Identity nodes."""
    while operation.inputs:
        operation = operation.inputs[0].op
    return operation


def refuse_other_variables(built: dict[str, Variable], table: dict[str, Variable] | None) -> None:
    """Check that the graph has exactly the variables of the recipe's table, if there is one.

    Raises:
        InputError: a variable is missing, unexpected, or has another dtype or shape.
    """
    if table is None:
        return
    different = sorted(name for name in {**built, **table} if built.get(name) != table.get(name))
    if different:
        count = f"{len(different)} variables, the first is {different[0]}"
        raise InputError(f"the detection API's model and the recipe's table differ in {count}")


def digest(values: dict[str, np.ndarray]) -> str:
    """Hash names, dtypes, shapes and bytes of all tensors."""
    total = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        total.update(f"{name}\t{value.dtype.name}\t{value.shape}\n".encode())
        total.update(value.tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    main()
