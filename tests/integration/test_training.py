"""``train_detector.py``: a few steps of the trainings of `shapes`, and the inputs that it rejects."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from runner.checkpoint.index import read_index
from runner.recipes.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Answer, Samples, Steps

pytestmark = pytest.mark.any_engine

COUNT: Final = 6
BATCH: Final = 4
WEIGHTS: Final = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A copy of labelled images and of the configs of `shapes`, with small batches."""

    steps: Steps
    samples: Samples

    @property
    def folder(self) -> Path:
        return self.steps.folder

    def config(self, variant: str, *edits: tuple[str, str], step_count: int = 2) -> Path:
        data_dir = load_recipe("shapes").data_dir
        assert data_dir is not None
        text = (data_dir / variant / "pipeline.config").read_text("utf-8")
        number = r"num_steps: \d+", f"num_steps: {step_count}"
        for pattern, new in ((r"batch_size: 32", f"batch_size: {BATCH}"), number, *edits):
            text, count = re.subn(pattern, new, text)
            assert count, pattern
        path = self.folder / f"{variant}.config"
        path.write_text(text, "utf-8")
        return path

    def run(self, config: Path, output: str = "trained", *more: str | Path) -> Answer:
        images = ("--images", self.samples.images, "--annotations", self.samples.annotations)
        words = ("--pipeline-config", config, *images, "--output", self.folder / output)
        return self.steps.run("train_detector.py", *words, *more)

    def checksum(self, output: str) -> int:
        """The masked CRC of a layer's weights in the checkpoint that a training wrote."""
        return read_index(self.folder / output / "model.ckpt").tensors[WEIGHTS].masked_crc32c

    def change_annotations(self, change: Callable[[Any], None]) -> None:
        content = self.samples.content
        change(content)
        self.samples.annotations.write_text(json.dumps(content), "utf-8")


WITHOUT_LEARNING: Final = (
    (r"learning_rate_base: [\d.]+", "learning_rate_base: 0"),
    (r"warmup_learning_rate: [\d.]+", "warmup_learning_rate: 0"),
)


@pytest.fixture(scope="module")
def samples(draw_samples: Callable[..., Samples]) -> Samples:
    return draw_samples(COUNT)


@pytest.fixture
def training(steps: Steps, samples: Samples) -> Training:
    own = replace(samples, folder=steps.folder / "samples")
    shutil.copytree(samples.folder, own.folder)
    return Training(steps=steps, samples=own)


@pytest.mark.slow
def test_training_is_resumed_and_its_checkpoint_starts_another(training: Training) -> None:
    answer = training.run(training.config("fp32"))
    prefix = training.folder / "trained" / "model.ckpt"
    assert answer.value == {"checkpoint": str(prefix), "steps": 2, "seed": 0}
    first = training.checksum("trained")

    training.run(training.config("fp32", *WITHOUT_LEARNING, step_count=3))
    saved = sorted(path.name for path in (training.folder / "trained" / "training").glob("*.index"))
    assert saved == ["model-2.index", "model-3.index"]
    assert training.checksum("trained") == first

    quantized = training.config("uint8", *WITHOUT_LEARNING)
    training.run(quantized, "from_float", "--start", prefix)
    assert training.checksum("from_float") == first
    training.run(quantized, "from_scratch")
    assert training.checksum("from_scratch") != first

    fit = training.steps.run(
        "check_checkpoint.py",
        *("--pipeline-config", quantized),
        *("--checkpoint-prefix", training.folder / "from_float" / "model.ckpt"),
    )
    assert fit.value["extra_variables"] == 0


def test_set_smaller_than_a_batch_is_refused(training: Training) -> None:
    training.change_annotations(lambda content: content["images"].__delitem__(slice(BATCH - 1, None)))
    assert "3 images are fewer than a batch, which has 4" in training.run(training.config("fp32")).refusal


def test_training_of_no_steps_is_refused(training: Training) -> None:
    assert "num_steps in train_config is 0" in training.run(training.config("fp32", step_count=0)).refusal


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it["annotations"][0].update(category_id=4), "category 4 is not a class of this model"),
        (lambda it: it["annotations"][0].update(category_id=0), "category 0 is not a class of this model"),
        (lambda it: it["annotations"][0].update(bbox=[1, 2]), "not annotations in COCO format: ValueError"),
        (lambda it: it.pop("images"), "not annotations in COCO format: KeyError('images')"),
        (lambda it: it["images"][0].update(file_name="none.png"), "none.png: the image cannot be read"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(
    training: Training, change: Callable[[Any], None], words: str
) -> None:
    training.change_annotations(change)
    assert words in training.run(training.config("fp32")).refusal


def test_file_that_is_no_set_of_images_is_refused(training: Training) -> None:
    training.samples.annotations.write_text("id,box\n")
    assert "not annotations in COCO format: JSONDecodeError" in training.run(training.config("fp32")).refusal
    training.samples.annotations.unlink()
    assert "FileNotFoundError" in training.run(training.config("fp32")).refusal


def test_images_of_another_size_are_refused(training: Training) -> None:
    config = training.config("fp32", (r"height: 128 width: 128", "height: 160 width: 128"))
    assert "the image has 128x128 pixels" in training.run(config).refusal


def test_config_that_cannot_be_exported_is_refused(training: Training) -> None:
    config = training.config("fp32", (r"fixed_shape_resizer \{[^}]*\}", "keep_aspect_ratio_resizer { }"))
    assert "the image resizer is keep_aspect_ratio_resizer" in training.run(config).refusal


def test_checkpoint_to_start_from_has_to_fit(training: Training, stand_in_dir: Path) -> None:
    config = training.config("fp32")
    other = stand_in_dir / "fp32" / "model.ckpt-400000"
    assert "no variable fits this model" in training.run(config, "trained", "--start", other).refusal
    missing = training.folder / "nothing"
    assert "nothing: cannot be read" in training.run(config, "trained", "--start", missing).refusal
