#!/usr/bin/env python3
"""Run a frozen graph and its ``.tflite`` on the same images and write the arrays to compare.

The graph runs in TensorFlow, the ``.tflite`` in TensorFlow 1.15's interpreter. Boxes and classes are taken
before the detection operator, because its outputs depend on sorting. The ``.npz`` contains:

* ``inputs``: the images, uint8
* ``graph_boxes``, ``graph_classes``; ``interpreter_boxes``, ``interpreter_classes`` (not dequantized)
* ``anchors``
* ``weights_N`` and ``bias_N``: folded weights and bias, in TFLite's layout, of entry N of ``convolutions``
  in the step's result
* ``operand_N``: the value of entry N of ``operands`` in the result
* with ``--layers K``, ``layer_N``: the values on the first K images of entry N of ``layers`` in the result.
  These are the nodes that have the name of a tensor of the ``.tflite``. If a node is fake-quantized, the
  values are those after fake quantization.

    parity.py --frozen-graph FILE --tflite FILE --raw-tensors BOXES,CLASSES --output FILE.npz
              [--mean M --std S] [--seed N --count N | --image FILE ...] [--layers K]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _frozen_graph import FrozenGraph
from _step import InputError, Parser, import_tensorflow, run, whole_file

if TYPE_CHECKING:
    import argparse


def main() -> None:
    """Run the graph and the ``.tflite`` given on the command line."""
    parser = Parser("Run a frozen graph and its .tflite and write the arrays to compare.")
    parser.add_argument("--frozen-graph", type=Path, required=True)
    parser.add_argument("--tflite", type=Path, required=True)
    parser.add_argument(
        "--raw-tensors", required=True, help="indices in the .tflite of box encodings and class predictions"
    )
    parser.add_argument("--output", type=Path, required=True, help="an .npz file")
    parser.add_argument("--mean", type=float, default=127.5, help="real = (pixel - mean) / std")
    parser.add_argument("--std", type=float, default=127.5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random images")
    parser.add_argument("--count", type=int, default=2, help="number of random images")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="image file to use instead of random images"
    )
    parser.add_argument(
        "--layers",
        type=int,
        default=0,
        help="also write all layers, for the first LAYERS images",
    )
    run(parser, describe)


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Write the arrays to the output file, and return names, ranges and attributes of the graph."""
    graph = FrozenGraph.read(options.frozen_graph)
    shape = [dimension.size for dimension in graph.nodes[graph.input].attr["shape"].shape.dim][1:]
    images = read_images(options.image, shape) if options.image else random_images(options, shape)
    reals = ((images - options.mean) / options.std).astype(np.float32)
    boxes, classes, anchors = graph.raw_outputs()
    layers = graph.layers(tensor_names(options.tflite)) if options.layers else {}
    runs = [
        graph.evaluate(
            [boxes, classes, *(layers.values() if number < options.layers else ())],
            {graph.input: real[np.newaxis]},
        )
        for number, real in enumerate(reals)
    ]
    raw_tensors = [int(index) for index in options.raw_tensors.split(",")]
    interpreted = interpret(options.tflite, raw_tensors, images, reals)
    convolutions = list(graph.convolutions())
    arrays = {
        "inputs": images,
        "graph_boxes": np.concatenate([run[boxes] for run in runs]),
        "graph_classes": np.concatenate([run[classes] for run in runs]),
        "interpreter_boxes": interpreted[0],
        "interpreter_classes": interpreted[1],
        "anchors": graph.evaluate([anchors])[anchors],
    }
    for number, convolution in enumerate(convolutions):
        arrays[f"weights_{number}"] = convolution.weights
        arrays[f"bias_{number}"] = convolution.bias
    operands = graph.operands()
    for number, operand in enumerate(operands.values()):
        arrays[f"operand_{number}"] = operand
    for number, node in enumerate(layers.values()):
        arrays[f"layer_{number}"] = np.concatenate([run[node] for run in runs[: options.layers]])
    with whole_file(options.output) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    return {
        "input": graph.input,
        "convolutions": [
            {
                "name": each.name,
                "weight_range": each.weight_range,
                "outputs": each.outputs,
                "scaled_inputs": each.scaled_inputs,
            }
            for each in convolutions
        ],
        "operands": list(operands),
        "layers": list(layers),
        "ranges": graph.ranges(),
        "post_process": graph.post_process.name,
        "attributes": graph.attributes(),
    }


def random_images(options: argparse.Namespace, shape: list[int]) -> np.ndarray:
    """Generate random images; the same seed gives the same images on every machine."""
    return np.random.RandomState(options.seed).randint(0, 256, [options.count, *shape]).astype(np.uint8)


def read_images(paths: list[Path], shape: list[int]) -> np.ndarray:
    """Read image files and resize them to the model's input.

    Raises:
        InputError: a file cannot be read as an image.
    """
    return np.stack([_read_image(path, shape) for path in paths])


def _read_image(path: Path, shape: list[int]) -> np.ndarray:
    from PIL import Image

    height, width, channels = shape
    try:
        with Image.open(str(path)) as image:
            resized = image.convert("RGB" if channels == 3 else "L").resize((width, height), Image.BILINEAR)
    except OSError as problem:
        raise InputError(f"{path}: cannot be read as an image", tip="pass PNG or JPEG files") from problem
    return np.asarray(resized, np.uint8).reshape(shape)


def tensor_names(tflite: Path) -> list[str]:
    """Return the names of the tensors of a ``.tflite``.

    Raises:
        InputError: TensorFlow 1.15's interpreter cannot load the file.
    """
    return [tensor["name"] for tensor in load(tflite).get_tensor_details()]


def interpret(
    tflite: Path, raw_tensors: list[int], images: np.ndarray, reals: np.ndarray
) -> list[np.ndarray]:
    """Run a ``.tflite`` in TensorFlow 1.15's interpreter and return the requested tensors.

    Raises:
        InputError: this interpreter cannot load the file.
    """
    interpreter = load(tflite)
    entry = interpreter.get_input_details()[0]
    collected = []
    for feed in images if entry["dtype"] == np.uint8 else reals:
        interpreter.set_tensor(entry["index"], feed[np.newaxis])
        interpreter.invoke()
        collected.append([interpreter.get_tensor(index) for index in raw_tensors])
    return [np.concatenate(outputs) for outputs in zip(*collected)]


def load(tflite: Path) -> Any:  # noqa: ANN401 - TensorFlow ships no types
    """Load a ``.tflite`` into TensorFlow 1.15's interpreter.

    Raises:
        InputError: the interpreter cannot load the file.
    """
    tf = import_tensorflow()
    try:
        interpreter = tf.lite.Interpreter(model_path=str(tflite))
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as problem:
        raise InputError(f"{tflite}: TensorFlow 1.15's interpreter cannot load it: {problem}") from problem
    return interpreter


if __name__ == "__main__":
    main()
