#!/usr/bin/env python3
"""Make a checkpoint that stands in for the published one: the same variables, other values.

The folder it writes has the layout of the zoo's archive, ``OUTPUT/VARIANT/{pipeline.config, model.ckpt-*}``.
Names, shapes and dtypes are those of the recipe's ``tensors.tsv`` and are compared with what the detection
API builds; quantization ranges are the published ones. All other values are drawn anew, so that the network
is alive and the same everywhere: a tensor depends on the seed and its own name only, and is computed by
operations whose results IEEE 754 fixes to the last bit. (That is why it is uniform and not normal: a
logarithm may differ from one C library to the next.)

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

The variables here have the names, shapes and dtypes of the published checkpoint, and none of its weights:
their values are drawn from a seed{ranges}.
Made by stand_in.py with {flags}. The same seed gives the same tensors everywhere.
Use it to try a toolchain without the download. Whatever a model made from it detects is noise.
"""


class Variable(NamedTuple):
    """What is known of a variable before it has a value."""

    dtype: str
    shape: tuple[int, ...]


def main() -> None:
    """Make the stand-in the command line asks for."""
    parser = Parser("Make a stand-in checkpoint.")
    parser.add_argument(
        "--recipe-dir", type=Path, required=True, help="folder of the recipe, or of its variant"
    )
    parser.add_argument("--variant", required=True, help="folder in the recipe, and the one to make")
    parser.add_argument("--output", type=Path, required=True, help="where to make the variant's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer-slots", action="store_true", help="add the slots a training run leaves")
    run(parser, make_stand_in)


def make_stand_in(options: argparse.Namespace) -> dict[str, Any]:
    """Write the folder and say what is in it."""
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
    """Say what this is, before anybody looks at its detections."""
    slots = " --optimizer-slots" if options.optimizer_slots else ""
    return README.format(
        title=README_TITLE,
        ranges=", only the quantization ranges are the published ones" if has_ranges else "",
        flags=f"--variant {options.variant} --seed {options.seed}{slots}",
    )


def refuse_foreign_folder(folder: Path) -> None:
    """Let nobody's files be replaced but our own.

    Raises:
        InputError: the folder holds something, and no README of ours.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    mark = folder / README_NAME
    if not mark.is_file() or not mark.read_bytes().startswith(README_TITLE.encode("ascii")):
        raise InputError(
            f"{folder}: is there already and is no stand-in checkpoint", tip="choose another --output"
        )


def read_tensor_table(path: Path) -> dict[str, Variable]:
    """Read a recipe's inventory: name, dtype, shape (empty for a scalar), and a CRC we do not need.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file",
            tip="--recipe-dir is a recipe's folder, --variant a folder in it",
        )
    rows = (row.split("\t") for row in _rows(path))
    return {
        name: Variable(dtype, tuple(map(int, filter(None, shape.split(",")))))
        for name, dtype, shape, _ in rows
    }


def read_quant_ranges(path: Path) -> dict[str, float]:
    """Read the published ends of the quantization ranges; a float variant has none."""
    if not path.is_file():
        return {}
    rows = (row.split("\t") for row in _rows(path))
    return {name: float(value) for name, value in rows}


def _rows(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]


def restore_zoo_settings(config: TrainEvalPipelineConfig) -> None:
    """Undo the edits in the config, which was published as edited for the benchmark.

    The threshold is what the zoo's configs commonly have; the exporter refuses a
    ``max_detections_per_class`` above ``max_total_detections``.
    """
    suppression = config.model.ssd.post_processing.batch_non_max_suppression
    suppression.score_threshold = 1e-8
    suppression.max_detections_per_class = 100
    suppression.max_total_detections = 100


def give_value(name: str, tensor: Variable, known: dict[str, float], seed: int) -> np.ndarray:
    """Give a variable its known value, or draw one.

    Weights have the variance 2 / fan-in of He et al. (https://arxiv.org/abs/1502.01852), which keeps a
    signal's size from layer to layer; everything else scatters around the values that leave it alone.

    Raises:
        InputError: the variable is of a kind there is no such value for.
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
        raise InputError(f"no stand-in value is known for variables like {name}")
    return value.astype(tensor.dtype)


def fan_in(kind: str, shape: tuple[int, ...]) -> int:
    """Count the inputs of one output; a depthwise convolution sees one channel only."""
    height, width, channels, _ = shape
    return height * width * (1 if kind == "depthwise_weights" else channels)


def momentum_slots(values: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Draw what training with momentum leaves in a checkpoint: a slot for every trained variable."""
    trained = ("weights", "biases", "gamma", "beta")
    slots = {f"{name}/Momentum": value for name, value in values.items() if name.endswith(trained)}
    return {
        name: (0.01 * _uniform(name, value.shape, seed)).astype(value.dtype) for name, value in slots.items()
    }


def _uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw from [-1, 1): integers of the Mersenne Twister, scaled by a power of two, which is exact."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return 2.0 * np.random.RandomState(np.frombuffer(key, "<u4")).random_sample(shape) - 1.0


def write_checkpoint(
    config: TrainEvalPipelineConfig,
    values: dict[str, np.ndarray],
    slots: dict[str, np.ndarray],
    prefix: Path,
) -> None:
    """Build the graph, give its variables the values, save both."""
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
    """See that the graph has the variables of the recipe's table, all of them and no others.

    Raises:
        InputError: it has not.
    """
    built = {v.op.name: (v.dtype.base_dtype.name, tuple(v.shape.as_list())) for v in tf.global_variables()}
    wanted = {name: (value.dtype.name, value.shape) for name, value in values.items()}
    different = sorted(name for name in {**built, **wanted} if built.get(name) != wanted.get(name))
    if different:
        count = f"{len(different)} variables, the first is {different[0]}"
        raise InputError(f"the detection API's model and the recipe's table differ in {count}")


def assign(session: Any, variables: list[Any], values: dict[str, np.ndarray]) -> None:  # noqa: ANN401
    """Run all initializers at once, each fed with its variable's value instead of its own."""
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
