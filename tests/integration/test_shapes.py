"""The detector that ships, `shapes`: its files, how well they detect, what one fault does to the numbers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli

from runner.engines.base import Folders
from runner.evaluation.coco import CocoStatistics, coco_statistics
from runner.evidence.check.run import CheckRequest, run_graph
from runner.host.digests import digest_file
from runner.litert.worker import litert_worker
from runner.recipes.recipe import load_recipe
from runner.recipes.status import SHIPPED_FILE, evidence_of
from runner.scripts.run import ScriptOptions
from tests.altered import post_processing_alone, with_other_scale, with_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.engines.base import Engine
    from tests.integration.conftest import Finished, Program, Samples

pytestmark = pytest.mark.any_engine

VARIANTS: Final = ("fp32", "uint8")
SEED: Final = 1000
"""Of the images here. The training used seed 1."""
FEW, MANY = 200, 1000
ROUNDING: Final = 0.005
"""What rounding may change in an average precision, from the frozen graph or from another CPU."""
VISIBLE: Final = 2 * ROUNDING
"""A difference that rounding, in both of two files, does not explain."""

NETWORK = "FeatureExtractor/MobilenetV1"
WEIGHTS, BIAS = f"{NETWORK}/Conv2d_0/weights", f"{NETWORK}/MobilenetV1/Conv2d_0/Conv2D_bias"
LATE_LAYER = f"{NETWORK}/MobilenetV1/Conv2d_11_pointwise"


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What `demo --recipe shapes` makes, and the means to judge it."""

    out_dir: Path
    sha256: Mapping[str, str]
    program: Program
    engine: Engine

    def file(self, variant: str) -> Path:
        return self.out_dir / variant / load_recipe("shapes").variants[variant].file_name

    def graph(self, variant: str) -> Path:
        return self.out_dir / variant / "tflite_graph.pb"

    def evaluate(self, samples: Samples, *files: Path) -> tuple[CocoStatistics, ...]:
        return tuple(CocoStatistics(**it["coco"]) for it in self.run_evaluate(samples, *files).json["files"])

    def run_evaluate(self, samples: Samples, *files: Path) -> Finished:
        given = ("--annotations", samples.annotations, "--images", samples.images)
        return self.program("evaluate", *files, *given, "--json")

    def evaluate_graph(self, samples: Samples, work_dir: Path) -> CocoStatistics:
        """Judge the float graph: its outputs in TensorFlow 1.15, then the detection operator of its file."""
        file = self.file("fp32")
        images = samples.content["images"]
        paths = tuple(samples.images / image["file_name"] for image in images)
        request = CheckRequest(
            variant=load_recipe("shapes").variants["fp32"],
            graph=self.graph("fp32"),
            tflite=file,
            work_dir=work_dir,
            options=ScriptOptions(log_dir=work_dir),
            images=paths,
        )
        folders = Folders(read_only=(file.parent, samples.images), writable=(work_dir,))
        with self.engine.open(folders, {}) as session:
            boxes, classes = run_graph(session, request).graph_outputs
        operator = work_dir / "operator.tflite"
        operator.write_bytes(post_processing_alone(file.read_bytes()))
        found: list[dict[str, Any]] = []
        with litert_worker(operator, threads=1, timeout_s=60) as worker:
            for image, *inputs in zip(images, boxes, classes, strict=True):
                found += coco_results(image, *worker.run(*inputs).outputs)
        return coco_statistics(samples.content, found)


def coco_results(image: Mapping[str, Any], boxes: Any, classes: Any, scores: Any, count: Any) -> Any:  # noqa: ANN401 - arrays
    """Return the four outputs of the operator for a picture in COCO's format of results."""
    for (ymin, xmin, ymax, xmax), kind, score in list(
        zip(boxes[0].tolist(), classes[0].tolist(), scores[0].tolist(), strict=True)
    )[: int(count[0])]:
        width, height = image["width"], image["height"]
        box = [xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height]
        yield {"image_id": image["id"], "category_id": int(kind) + 1, "bbox": box, "score": score}


@pytest.fixture(scope="module")
def shapes(engine: Engine, program: Program, tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    out_dir = tmp_path_factory.mktemp("shapes")
    done = program("demo", "--recipe", "shapes", "--out", out_dir, "--json")
    assert done.exit_code == 0, done.stderr
    sha256 = {it["variant"]: it["sha256"] for it in done.json}
    return Shapes(out_dir=out_dir, sha256=sha256, program=program, engine=engine)


@pytest.fixture(scope="module")
def few(draw_samples: Callable[..., Samples]) -> Samples:
    return draw_samples(FEW, seed=SEED)


@pytest.fixture(scope="module")
def many(draw_samples: Callable[..., Samples]) -> Samples:
    return draw_samples(MANY, seed=SEED)


@pytest.fixture(scope="module")
def of_few(shapes: Shapes, few: Samples) -> Mapping[str, CocoStatistics]:
    found = shapes.evaluate(few, *map(shapes.file, VARIANTS))
    return dict(zip(VARIANTS, found, strict=True))


@pytest.fixture(scope="module")
def of_many(shapes: Shapes, many: Samples) -> Mapping[str, CocoStatistics]:
    found = shapes.evaluate(many, *map(shapes.file, VARIANTS))
    return dict(zip(VARIANTS, found, strict=True))


def recorded(variant: str, samples: int) -> Mapping[str, float]:
    """What was measured when the checkpoint was trained."""
    data_dir = load_recipe("shapes").variants[variant].data_dir
    assert data_dir is not None
    evidence = tomli.loads((data_dir / SHIPPED_FILE).read_text("utf-8"))
    measured: Mapping[str, float] = evidence["measured"][str(samples)]
    return measured


def test_the_shipped_checkpoints_give_the_recorded_files(shapes: Shapes) -> None:
    evidence = {name: evidence_of(it) for name, it in load_recipe("shapes").variants.items()}
    assert shapes.sha256 == {name: it and it.sha256 for name, it in evidence.items()}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_alone_is_proven_and_its_recipe_is_found(shapes: Shapes, variant: str, tmp_path: Path) -> None:
    file = shutil.copy(shapes.file(variant), tmp_path)
    done = shapes.program("prove", file, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["verdict"] == "same-bytes"


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_detects_as_recorded(of_few: Mapping[str, CocoStatistics], variant: str) -> None:
    found, expected = of_few[variant], recorded(variant, FEW)
    assert (found.ap, found.ap_50) == pytest.approx((expected["ap"], expected["ap_50"]), abs=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_detects_on_a_thousand_images(of_many: Mapping[str, CocoStatistics], variant: str) -> None:
    found, expected = of_many[variant], recorded(variant, MANY)
    assert (found.ap, found.ap_50) == pytest.approx((expected["ap"], expected["ap_50"]), abs=ROUNDING)
    assert found.ap_50 >= 0.94
    assert found.ap >= 0.70


@pytest.mark.slow
def test_the_float_file_detects_as_its_graph(
    shapes: Shapes, few: Samples, of_few: Mapping[str, CocoStatistics], tmp_path: Path
) -> None:
    graph = shapes.evaluate_graph(few, tmp_path)
    assert of_few["fp32"].ap == pytest.approx(graph.ap, abs=ROUNDING)
    assert of_few["fp32"].ap_50 == pytest.approx(graph.ap_50, abs=ROUNDING)


@pytest.mark.slow
def test_the_float_file_detects_as_its_graph_on_a_thousand_images(
    shapes: Shapes, many: Samples, of_many: Mapping[str, CocoStatistics], tmp_path: Path
) -> None:
    graph = shapes.evaluate_graph(many, tmp_path)
    assert of_many["fp32"].ap == pytest.approx(graph.ap, abs=ROUNDING)


def for_pixels_from_0_to_1(content: bytes) -> bytes:
    """Fold another preprocessing into the first layer: of pixel / 255 it makes what it made of -1 to 1."""
    weights = []

    def doubled(values: Any) -> Any:  # noqa: ANN401 - arrays
        weights.append(values.copy())
        return 2 * values

    scaled = with_values(content, WEIGHTS, "<f4", doubled)
    return with_values(scaled, BIAS, "<f4", lambda bias: bias - weights[0].sum(axis=(1, 2, 3)))


def without_bias(content: bytes, name: str, dtype: str) -> bytes:
    return with_values(content, f"{LATE_LAYER}/{name}", dtype, lambda bias: 0 * bias)


def with_x_before_y(content: bytes) -> bytes:
    """Swap y and x, height and width, in the anchors."""
    dtype = "<f4" if f"{LATE_LAYER}/Conv2D_bias".encode() in content else "u1"
    return with_values(content, "anchors", dtype, lambda anchors: anchors[:, [1, 0, 3, 2]])


def with_clipping(content: bytes, *tensors: str) -> bytes:
    """Give a concatenation a quarter of its range; the second tensor is its reshaped result."""
    for tensor in tensors:
        content = with_other_scale(content, tensor, factor=0.25)
    return content


FAULTS: Final[Mapping[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "wrong mean": ("fp32", for_pixels_from_0_to_1),
    "no bias": ("fp32", lambda content: without_bias(content, "Conv2D_bias", "<f4")),
    "x before y": ("fp32", with_x_before_y),
    "no bias, quantized": ("uint8", lambda content: without_bias(content, "Conv2D_Fold_bias", "<i4")),
    "x before y, quantized": ("uint8", with_x_before_y),
    "clipped concatenation of scores": ("uint8", lambda content: with_clipping(content, "concat_1")),
    "clipped concatenation of boxes": ("uint8", lambda content: with_clipping(content, "concat", "Squeeze")),
}


@pytest.fixture(scope="module")
def of_faults(
    shapes: Shapes, few: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, CocoStatistics]:
    folder, files = tmp_path_factory.mktemp("faults"), []
    for name, (variant, plant) in FAULTS.items():
        files.append(folder / f"{name}.tflite")
        files[-1].write_bytes(plant(shapes.file(variant).read_bytes()))
    return dict(zip(FAULTS, shapes.evaluate(few, *files), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_in_the_numbers(
    of_faults: Mapping[str, CocoStatistics], of_few: Mapping[str, CocoStatistics], fault: str
) -> None:
    assert of_faults[fault].ap < of_few[FAULTS[fault][0]].ap - VISIBLE


def test_quantized_input_with_another_mean_is_refused(shapes: Shapes, few: Samples, tmp_path: Path) -> None:
    """The file says what its input means, unlike a float one, so this is found without numbers."""
    file = tmp_path / "other_mean.tflite"
    done = convert_again(shapes, file, mean="0", std="255", change_concat_input_ranges="false")
    assert done.exit_code == 0, done.stderr
    refused = shapes.run_evaluate(few, file)
    assert refused.exit_code == 2
    assert "is not quantized like pixels" in refused.stderr


def test_toco_clips_nothing_here(shapes: Shapes, tmp_path: Path) -> None:
    """The first of two feature maps has the wider ranges, so clipping to them changes nothing."""
    file = tmp_path / "default.tflite"
    done = convert_again(shapes, file, mean="128", std="128", change_concat_input_ranges="true")
    assert done.exit_code == 0, done.stderr
    assert digest_file(file).sha256 == shapes.sha256["uint8"]


def convert_again(
    shapes: Shapes, file: Path, *, mean: str, std: str, change_concat_input_ranges: str
) -> Finished:
    """Convert the quantized graph as the recipe does, with other flags."""
    return shapes.program(
        *("toco", shapes.graph("uint8"), "--out", file, "--inference-type", "QUANTIZED_UINT8"),
        *("--mean-value", mean, "--std-value", std),
        *("--", f"--change_concat_input_ranges={change_concat_input_ranges}"),
    )
