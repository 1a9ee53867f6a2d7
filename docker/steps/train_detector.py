#!/usr/bin/env python3
"""Train an SSD on labelled images: a float model from scratch, or a quantized one from a float model.

    train_detector.py --pipeline-config FILE --images DIR --annotations FILE --output DIR
                      [--start PREFIX] [--seed N]

The detection API builds model, losses and optimizer from the config; ``train_config`` sets the batch size and
the number of steps. With a ``graph_rewriter`` in the config, training is quantization-aware. The annotations
are in COCO format, and the images must have the size of the model's input. They are augmented at random:
flipped, with permuted channels and changed contrast and brightness.

Writes ``model.ckpt``, with only the variables of the inference graph, and ``training/``, with all variables,
to the output folder. If training is interrupted, the same command resumes it. The seed determines the initial
values, the order of the images and the augmentation. Two runs can still give different weights, because sums
are computed in parallel, in varying order.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import numpy as np
from _detection import build_inference_graph, read_pipeline_config
from _graph_template import Checkpoint
from _step import InputError, Parser, import_tensorflow, run
from pipeline_config import refuse_unexportable

if TYPE_CHECKING:
    import argparse

    from object_detection.protos.pipeline_pb2 import TrainEvalPipelineConfig

THREADS = 2
STEPS_PER_CHECKPOINT = 500
STEPS_PER_REPORT = 100
BATCHES_AHEAD = 4


class LabelledImages(NamedTuple):
    """N images and their objects; M is the largest number of objects, and padding has weight 0."""

    pixels: np.ndarray  # [N, H, W, 3], uint8
    boxes: np.ndarray  # [N, M, 4]: y0, x0, y1, x1, relative
    classes: np.ndarray  # [N, M, classes], one-hot
    weights: np.ndarray  # [N, M]


def main() -> None:
    """Run the training requested on the command line."""
    parser = Parser("Train an SSD on labelled images.")
    parser.add_argument("--pipeline-config", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="prefix of the checkpoint to start from")
    parser.add_argument("--seed", type=int, default=0)
    run(parser, _train)


def _train(arguments: argparse.Namespace) -> dict[str, Any]:
    config = read_pipeline_config(arguments.pipeline_config)
    refuse_unexportable(config, arguments.pipeline_config)
    if not config.train_config.num_steps:
        raise InputError(
            f"{arguments.pipeline_config}: num_steps in train_config is 0, so nothing is trained",
            tip="set num_steps",
        )
    images = _read_images(arguments.images, arguments.annotations, config)
    checkpoint = _run_training(config, images, arguments)
    prefix = arguments.output / "model.ckpt"
    _save_model_variables(config, checkpoint, prefix)
    return {"checkpoint": str(prefix), "steps": config.train_config.num_steps, "seed": arguments.seed}


def _read_images(folder: Path, annotations: Path, config: TrainEvalPipelineConfig) -> LabelledImages:
    """Read COCO annotations and their images.

    Raises:
        InputError: this is not a set of labelled images, it is smaller than a batch, or it does not fit the
            model.
    """
    resizer, class_count = config.model.ssd.image_resizer.fixed_shape_resizer, config.model.ssd.num_classes
    height, width = resizer.height, resizer.width
    names, objects = _read_annotations(annotations, class_count)
    if len(names) < config.train_config.batch_size:
        raise InputError(
            f"{annotations}: {len(names)} images are fewer than a batch, which has "
            f"{config.train_config.batch_size}",
            tip="use more images, or set a smaller batch_size in train_config",
        )
    most = max(map(len, objects.values()), default=0)
    pixels = np.zeros((len(names), height, width, 3), np.uint8)
    boxes = np.zeros((len(names), most, 4), np.float32)
    classes = np.zeros((len(names), most, class_count), np.float32)
    weights = np.zeros((len(names), most), np.float32)
    for row, (number, name) in enumerate(names.items()):
        pixels[row] = _read_image(folder / name, width, height)
        for column, (category, (left, top, across, down)) in enumerate(objects[number]):
            boxes[row, column] = top / height, left / width, (top + down) / height, (left + across) / width
            classes[row, column, category - 1] = 1
            weights[row, column] = 1
    return LabelledImages(pixels, boxes, classes, weights)


def _read_annotations(path: Path, class_count: int) -> tuple[dict[int, str], dict[int, list[Any]]]:
    """Return the file name of each image, and its objects: the category and the box; both keyed by image id.

    Raises:
        InputError: the file does not contain COCO annotations, or a category is not a class of the model.
    """
    objects: dict[int, list[Any]] = defaultdict(list)
    try:
        content = json.loads(path.read_text("utf-8"))
        names = {entry["id"]: entry["file_name"] for entry in content["images"]}
        for annotation in content["annotations"]:
            left, top, across, down = map(float, annotation["bbox"])
            objects[annotation["image_id"]].append((annotation["category_id"], (left, top, across, down)))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{path}: these are not annotations in COCO format: {problem!r}",
            tip="`samples` draws images and writes such annotations",
        ) from problem
    for category in {category for found in objects.values() for category, _ in found}:
        if category not in range(1, class_count + 1):
            raise InputError(
                f"{path}: category {category} is not a class of this model",
                tip=f"number the categories from 1 to {class_count}, or set num_classes",
            )
    return names, objects


def _read_image(path: Path, width: int, height: int) -> np.ndarray:
    """Return the pixels of an image, [height, width, 3].

    Raises:
        InputError: the image cannot be read, or it has another size.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            size, pixels = image.size, np.asarray(image.convert("RGB"))
    except OSError as problem:
        raise InputError(
            f"{path}: the image cannot be read: {problem}", tip="--images is the folder of the images"
        ) from problem
    if size != (width, height):
        raise InputError(
            f"{path}: the image has {size[0]}x{size[1]} pixels",
            tip=f"this model is trained on images of {width}x{height}",
        )
    return pixels


def _batches(images: LabelledImages, size: int, random: np.random.RandomState) -> Iterator[LabelledImages]:
    """Yield augmented batches forever; in each pass over the images, every image is used at most once."""
    while True:
        order = random.permutation(len(images.pixels))
        for first in range(0, len(order) - size + 1, size):
            chosen = order[first : first + size]
            yield _augment(LabelledImages(*(part[chosen] for part in images)), random)


def _augment(batch: LabelledImages, random: np.random.RandomState) -> LabelledImages:
    """Flip half of the images, permute the channels, change contrast and brightness slightly."""
    pixels = batch.pixels.astype(np.float32)
    boxes = batch.boxes.copy()
    for row in range(len(pixels)):
        image = pixels[row][:, :, random.permutation(3)]
        if random.randint(2):
            image = image[:, ::-1]
            boxes[row] = boxes[row][:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1]
        contrast, brightness = random.uniform(0.8, 1.25), random.uniform(-16, 16)
        pixels[row] = (image - 127.5) * contrast + 127.5 + brightness
    # Set the padded boxes to 0 again: a flip moves them to the right edge.
    return batch._replace(pixels=np.clip(pixels, 0, 255), boxes=boxes * batch.weights[:, :, None])


def _prefetch(batches: Iterator[LabelledImages]) -> Iterator[LabelledImages]:
    """Prepare batches in a thread while TensorFlow computes."""
    ready: queue.Queue[LabelledImages] = queue.Queue(BATCHES_AHEAD)

    def fill() -> None:
        for batch in batches:
            ready.put(batch)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ready.get()


def _run_training(
    config: TrainEvalPipelineConfig, images: LabelledImages, arguments: argparse.Namespace
) -> str:
    """Train up to `num_steps`; return the prefix of the last checkpoint, which has all variables."""
    tf = import_tensorflow()
    folder = arguments.output / "training"
    folder.mkdir(parents=True, exist_ok=True)
    settings = config.train_config
    with tf.Graph().as_default():
        tf.set_random_seed(arguments.seed)
        batch = LabelledImages(
            *(tf.placeholder(tf.float32, (settings.batch_size, *part.shape[1:])) for part in images)
        )
        step = tf.train.get_or_create_global_step()
        losses, train = _training_graph(config, batch)
        saver = tf.train.Saver(max_to_keep=None)
        starter = None if arguments.start is None else _starter(arguments.start)
        limits = tf.ConfigProto(intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=THREADS)
        with tf.Session(config=limits) as session:
            session.run(tf.global_variables_initializer())
            last = tf.train.latest_checkpoint(str(folder))
            if last is not None:
                saver.restore(session, last)
            elif starter is not None:
                starter.restore(session, str(arguments.start))
            done = first = int(session.run(step))
            random = np.random.RandomState([arguments.seed, done])
            recent, clock = [], time.monotonic()
            for ready in _prefetch(_batches(images, settings.batch_size, random)):
                if done >= settings.num_steps:
                    break
                values, _ = session.run([losses, train], dict(zip(batch, ready)))
                recent.append(values)
                done += 1
                if done % STEPS_PER_REPORT == 0:
                    pace = (time.monotonic() - clock) / (done - first)
                    means = ", ".join(f"{value:.4f}" for value in np.mean(recent, axis=0))
                    sys.stderr.write(f"step {done}: losses {means}; {pace:.3f} s per step\n")
                    sys.stderr.flush()
                    recent = []
                if done % STEPS_PER_CHECKPOINT == 0 or done == settings.num_steps:
                    last = saver.save(session, str(folder / "model"), done, write_meta_graph=False)
        return str(last)


def _training_graph(config: TrainEvalPipelineConfig, batch: LabelledImages) -> tuple[Any, Any]:
    """Build the losses (boxes, classes, regularization) and the operation that trains one step."""
    tf = import_tensorflow()
    from object_detection.builders import graph_rewriter_builder, model_builder, optimizer_builder

    model = model_builder.build(config.model, is_training=True)
    model.provide_groundtruth(
        groundtruth_boxes_list=tf.unstack(batch.boxes),
        groundtruth_classes_list=tf.unstack(batch.classes),
        groundtruth_weights_list=tf.unstack(batch.weights),
    )
    pixels, shapes = model.preprocess(batch.pixels)
    of_model = model.loss(model.predict(pixels, shapes), shapes)
    names = ("Loss/localization_loss", "Loss/classification_loss")
    losses = [*(of_model[name] for name in names), tf.add_n(tf.losses.get_regularization_losses())]
    loss = tf.add_n(losses)
    if config.HasField("graph_rewriter"):
        graph_rewriter_builder.build(config.graph_rewriter, is_training=True)()
    optimizer, _ = optimizer_builder.build(config.train_config.optimizer)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return losses, optimizer.minimize(loss, global_step=tf.train.get_global_step())


def _starter(prefix: Path) -> Any:  # noqa: ANN401 - a tf.train.Saver
    """Return a saver that restores the variables that a checkpoint contains in the same shape.

    The global step is not restored.

    Raises:
        InputError: the checkpoint cannot be read, or it has no such variable.
    """
    tf = import_tensorflow()
    stored = Checkpoint(prefix).shapes
    taken = [
        variable
        for variable in tf.global_variables()
        if stored.get(variable.op.name) == tuple(variable.shape.as_list())
        and variable.op.name != "global_step"
    ]
    if not taken:
        raise InputError(
            f"{prefix}: no variable fits this model", tip="start from a checkpoint of this model"
        )
    return tf.train.Saver(taken)


def _save_model_variables(config: TrainEvalPipelineConfig, checkpoint: str, prefix: Path) -> None:
    """Write only the variables of the exporter's graph, without the optimizer's."""
    tf = import_tensorflow()
    with tf.Graph().as_default():
        build_inference_graph(config)
        saver = tf.train.Saver()
        with tf.Session() as session:
            saver.restore(session, checkpoint)
            saver.save(session, str(prefix), write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    main()
