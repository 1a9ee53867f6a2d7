#!/usr/bin/env python3
"""Make a stand-in for the published checkpoint: the same variables with random values.

The folder it writes has the layout of the zoo's archive, ``OUTPUT/VARIANT/{pipeline.config, model.ckpt-*}``.
Names, shapes and dtypes come from the recipe's ``tensors.tsv`` and are checked against the model that the
detection API builds; quantization ranges are the published ones. All other values are random, scaled so that
activations neither vanish nor explode. They are the same on every machine: a tensor depends only on the seed
and its name, and is computed by operations that IEEE 754 defines to the last bit. (So values are uniform, not
normal: a logarithm can differ between C libraries.)

    stand_in.py --recipe-dir DIR --variant fp32 --output DIR [--seed N] [--optimizer-slots]
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _detection import build_inference_graph, read_pipeline_config, write_pipeline_config
from _step import InputError, Parser, import_tensorflow, run, whole_folder

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig

README_NAME = "README.txt"
README_TITLE = "A STAND-IN CHECKPOINT: ITS DETECTIONS MEAN NOTHING"
README = """{title}

The variables have the names, shapes and dtypes of the published checkpoint, but none of its weights:
their values are random{ranges}.
Made by stand_in.py with {flags}. The same seed gives the same tensors on every machine.
Use it to try the toolchain without the download. The detections of a model made from it are meaningless.
"""


class Variable(NamedTuple):
    """The dtype and shape of a variable."""

    dtype: str
    shape: tuple[int, ...]


def main() -> None:
    """Make the stand-in given on the command line."""
    parser = Parser("Make a stand-in checkpoint.")
    parser.add_argument(
        "--recipe-dir", type=Path, required=True, help="folder of the recipe, or of one of its variants"
    )
    parser.add_argument("--variant", required=True, help="name of the variant's folder")
    parser.add_argument("--output", type=Path, required=True, help="where to make the variant's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--optimizer-slots", action="store_true", help="add the optimizer slots of a training run"
    )
    run(parser, make_stand_in)


def make_stand_in(options: argparse.Namespace) -> dict[str, Any]:
    """Write the folder and return a description of it."""
    folder = options.output / options.variant
    refuse_foreign_folder(folder)
    recipe_dir = options.recipe_dir / options.variant
    recipe_dir = recipe_dir if recipe_dir.is_dir() else options.recipe_dir
    config = read_pipeline_config(recipe_dir / "pipeline.config")
    restore_zoo_settings(config)
    step = config.train_config.num_steps
    known = {"global_step": step, **read_quant_ranges(recipe_dir / "quant_ranges.tsv")}
    tensors = read_tensor_table(recipe_dir / "tensors.tsv")
    values = {name: give_value(name, tensor, known, options.seed) for name, tensor in tensors.items()}
    slots = momentum_slots(values, options.seed) if options.optimizer_slots else {}

    prefix_name = f"model.ckpt-{step}"
    with whole_folder(folder) as partial:
        write_checkpoint(config, values, slots, partial / prefix_name)
        write_pipeline_config(config, partial / "pipeline.config")
        (partial / README_NAME).write_text(readme(options, has_ranges=len(known) > 1), "utf-8")
    return {
        "model_dir": str(folder),
        "pipeline_config": str(folder / "pipeline.config"),
        "checkpoint_prefix": str(folder / prefix_name),
        "tensors": len(values),
        "optimizer_slots": len(slots),
        "tensors_sha256": digest(values),
        "seed": options.seed,
    }


def readme(options: argparse.Namespace, *, has_ranges: bool) -> str:
    """Return the README text, which warns that the checkpoint is a stand-in."""
    slots = " --optimizer-slots" if options.optimizer_slots else ""
    return README.format(
        title=README_TITLE,
        ranges=", except for the published quantization ranges" if has_ranges else "",
        flags=f"--variant {options.variant} --seed {options.seed}{slots}",
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
            f"{folder}: already exists and is not a stand-in checkpoint", tip="choose another --output"
        )


def read_tensor_table(path: Path) -> dict[str, Variable]:
    """Read a recipe's table of tensors: name, dtype, shape (empty for a scalar); the CRC is not used.

    Raises:
        InputError: the file does not exist.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file",
            tip="--recipe-dir is a recipe's folder, --variant a folder in it",
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

    The threshold is the usual one of the zoo's configs. The exporter rejects a ``max_detections_per_class``
    above ``max_total_detections``.
    """
    suppression = config.model.ssd.post_processing.batch_non_max_suppression
    suppression.score_threshold = 1e-8
    suppression.max_detections_per_class = 100
    suppression.max_total_detections = 100


def give_value(name: str, tensor: Variable, known: dict[str, float], seed: int) -> np.ndarray:
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
        value = math.sqrt(6.0 / fan_in(kind, tensor.shape)) * _uniform(name, tensor.shape, seed)
    elif kind in ("gamma", "moving_variance"):
        value = 1.0 + 0.1 * _uniform(name, tensor.shape, seed)
    elif kind in ("beta", "moving_mean", "biases"):
        value = 0.1 * _uniform(name, tensor.shape, seed)
    else:
        raise InputError(f"{name}: unknown kind of variable, cannot choose a stand-in value")
    return value.astype(tensor.dtype)


def fan_in(kind: str, shape: tuple[int, ...]) -> int:
    """Return the number of inputs of one output; a depthwise convolution reads one channel."""
    height, width, channels, _ = shape
    return height * width * (1 if kind == "depthwise_weights" else channels)


def momentum_slots(values: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return random momentum slots, one for every trained variable, as training leaves in a checkpoint."""
    trained = ("weights", "biases", "gamma", "beta")
    slots = {f"{name}/Momentum": value for name, value in values.items() if name.endswith(trained)}
    return {
        name: (0.01 * _uniform(name, value.shape, seed)).astype(value.dtype) for name, value in slots.items()
    }


def _uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return uniform random values in [-1, 1): Mersenne Twister integers, scaled exactly (power of two)."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return 2.0 * np.random.RandomState(np.frombuffer(key, "<u4")).random_sample(shape) - 1.0


def write_checkpoint(
    config: TrainEvalPipelineConfig,
    values: dict[str, np.ndarray],
    slots: dict[str, np.ndarray],
    prefix: Path,
) -> None:
    """Build the graph, assign the values, save the checkpoint and its meta graph."""
    tf = import_tensorflow()
    with tf.Graph().as_default():
        build_inference_graph(config)
        refuse_other_variables(tf, values)
        for name, value in slots.items():
            tf.get_variable(name, shape=value.shape, dtype=value.dtype, trainable=False)
        saver = tf.train.Saver()
        with tf.Session() as session:
            assign(session, tf.global_variables(), {**values, **slots})
            saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
        meta_graph = tf.train.export_meta_graph(saver_def=saver.as_saver_def(), clear_devices=True)
    prefix.with_name(f"{prefix.name}.meta").write_bytes(meta_graph.SerializeToString(deterministic=True))


def refuse_other_variables(tf: ModuleType, values: dict[str, np.ndarray]) -> None:
    """Check that the graph has exactly the variables of the recipe's table.

    Raises:
        InputError: a variable is missing, unexpected, or has another dtype or shape.
    """
    built = {v.op.name: (v.dtype.base_dtype.name, tuple(v.shape.as_list())) for v in tf.global_variables()}
    wanted = {name: (value.dtype.name, value.shape) for name, value in values.items()}
    different = sorted(name for name in {**built, **wanted} if built.get(name) != wanted.get(name))
    if different:
        count = f"{len(different)} variables, the first is {different[0]}"
        raise InputError(f"the detection API's model and the recipe's table differ in {count}")


def assign(session: Any, variables: list[Any], values: dict[str, np.ndarray]) -> None:  # noqa: ANN401
    """Assign all values in one run: each initializer is fed with the variable's value."""
    feeds = {variable.initializer.inputs[1]: values[variable.op.name] for variable in variables}
    session.run([variable.initializer for variable in variables], feeds)


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
