"""Measure how well `.tflite` files, and the frozen graph behind one, detect shapes, by COCO's definition.

    python -m bench.shapes_accuracy --samples DIR [--graph tflite_graph.pb --engine local] FILE…

Images of `samples` have the size of the input, so nothing is resized. The graph runs in TF 1.15. Its
raw outputs, before the detection operator, go through that operator of the first FILE, a float model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flatbuffers  # type: ignore[import-untyped] # ships no types
import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
from PIL import Image

from runner.engines.base import Folders
from runner.engines.choose import EngineOptions, engine_named
from runner.evaluation.samples import ANNOTATIONS, IMAGES
from runner.evidence.check.run import CheckRequest, run_graph
from runner.recipes.recipe import load_recipe
from runner.scripts.run import ScriptOptions
from runner.tflite.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from runner.engines.base import Engine

    Detections = list[dict[str, Any]]


def main() -> None:
    """Print one line for each file, and one for the graph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--engine", default="local")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    for file in options.files:
        _print(file.name, accuracy(options.samples, detect(options.samples, file)))
    if options.graph is not None:
        engine = engine_named(options.engine, EngineOptions())
        found = detect_with_graph(options.samples, options.graph, options.files[0], engine)
        _print(options.graph.name, accuracy(options.samples, found))


def detect(samples: Path, file: Path) -> Detections:
    """Run a ``.tflite`` on all images."""
    run = _Detector(file.read_bytes())
    pictures = (np.asarray(Image.open(path).convert("RGB")) for path in _pictures(samples))
    if run.takes_floats:
        pictures = ((picture.astype(np.float32) - 127.5) / 127.5 for picture in pictures)
    return _as_coco(samples, (run(picture[np.newaxis]) for picture in pictures))


def detect_with_graph(samples: Path, graph: Path, float_file: Path, engine: Engine) -> Detections:
    """Run a frozen graph on all images, then a float model's detection operator on its raw outputs."""
    pictures = tuple(_pictures(samples))
    with tempfile.TemporaryDirectory() as scratch:
        work_dir = Path(scratch)
        request = CheckRequest(
            variant=load_recipe("shapes").variants["fp32"],
            graph=graph.resolve(),
            tflite=float_file.resolve(),
            work_dir=work_dir,
            options=ScriptOptions(log_dir=work_dir),
            images=pictures,
        )
        folders = Folders(
            read_only=(graph.resolve().parent, float_file.resolve().parent, pictures[0].parent),
            writable=(work_dir,),
        )
        with engine.open(folders, {}) as session:
            boxes, classes = run_graph(session, request).graph_outputs
    run = _Detector(post_processing_alone(float_file.read_bytes()))
    return _as_coco(
        samples,
        (run(box[np.newaxis], scores[np.newaxis]) for box, scores in zip(boxes, classes, strict=True)),
    )


def post_processing_alone(content: bytes) -> bytes:
    """Return a model that contains only the last operator of another: the detection operator."""
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    graph.operators = graph.operators[-1:]
    graph.inputs = graph.operators[0].inputs[:2]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def accuracy(samples: Path, found: Detections) -> dict[str, float]:
    """Return COCO's mAP, AP50 and AP75."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(samples / ANNOTATIONS))
        evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
        evaluation.run()
    return dict(zip(("mAP", "AP50", "AP75"), map(float, evaluation.stats), strict=False))


class _Detector:
    """A model in LiteRT; called with the values of its inputs, it returns those of its four outputs."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = [it["index"] for it in self._interpreter.get_output_details()]

    @property
    def takes_floats(self) -> bool:
        return bool(self._inputs[0]["dtype"] is np.float32)

    def __call__(self, *values: NDArray[Any]) -> list[NDArray[np.float32]]:
        for entry, value in zip(self._inputs, values, strict=True):
            self._interpreter.set_tensor(entry["index"], value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _images(samples: Path) -> Sequence[dict[str, Any]]:
    images: Sequence[dict[str, Any]] = json.loads((samples / ANNOTATIONS).read_text("utf-8"))["images"]
    return images


def _pictures(samples: Path) -> Iterator[Path]:
    return ((samples / IMAGES / it["file_name"]).resolve() for it in _images(samples))


def _as_coco(samples: Path, outputs: Iterable[list[NDArray[np.float32]]]) -> Detections:
    """Turn boxes (y0, x0, y1, x1, relative), classes, scores and their number into COCO's result format."""
    found = []
    for image, (boxes, classes, scores, count) in zip(_images(samples), outputs, strict=True):
        sides = np.array([image["height"], image["width"]] * 2)
        for box, kind, score in list(zip(boxes * sides, classes, scores, strict=True))[: int(count)]:
            top, left, bottom, right = map(float, box)
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": int(kind) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(score),
                }
            )
    return found


def _print(name: str, values: dict[str, float]) -> None:
    measured = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
    sys.stdout.write(f"{name:20}  {measured}\n")


if __name__ == "__main__":
    main()
