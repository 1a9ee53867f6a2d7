"""Judge outputs of TOCO's files in LiteRT against given outputs in place of the frozen graph's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.errors import IdentityError
from runner.evidence.check.compare import Range
from runner.evidence.check.files import sentence
from runner.evidence.check.run import CheckReport, CheckRequest, GraphRun, judge, require_passed
from runner.litert.worker import litert_worker
from runner.recipes.recipe import load_recipe
from runner.scripts.run import ScriptOptions
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.model import read_model_file
from tests.locations import DATA
from tests.unit.fixtures.graph_facts import graph_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RANGES = {
    "boxes_0": Range(low=-8.0, high=8.0),
    "boxes_1": Range(low=-4.0, high=4.0),
    "classes_0": Range(low=-8.0, high=1.2),
    "classes_1": Range(low=-8.0, high=2.0),
}
IMAGES = np.random.RandomState(0).randint(0, 256, [200, 4, 4, 3]).astype(np.uint8)
PICTURE = DATA / "two_heads" / "README.md"
"""What the images are read from does not matter here, only that the user named some."""


def request_for(name: str, work_dir: Path, *images: Path) -> CheckRequest:
    return CheckRequest(
        variant=load_recipe().variants["uint8"],
        graph=work_dir / "tflite_graph.pb",
        tflite=DATA / "two_heads" / f"{name}.tflite",
        work_dir=work_dir,
        options=ScriptOptions(log_dir=work_dir),
        images=images,
    )


def outputs_of(
    name: str,
) -> tuple[tuple[NDArray[np.uint8], ...], tuple[NDArray[np.float64], ...]]:
    """Run a file; return box encodings and class predictions as integers and as real values."""
    path = DATA / "two_heads" / f"{name}.tflite"
    file = read_model_file(path).graphs[0]
    (detection,) = [operator for operator in file.operators if operator.name == POST_PROCESS]
    raw_tensors = detection.inputs[:2]
    with litert_worker(path, tensors=raw_tensors, timeout_s=60.0) as worker:
        rows = [worker.run(image[np.newaxis]).outputs for image in IMAGES]
    integers = tuple(map(np.concatenate, zip(*rows, strict=True)))
    quantizations = [file.tensors[index].quantization for index in raw_tensors]
    reals = tuple(
        (made.astype(np.float64) - each.zero_points[0]) * each.scales[0]
        for made, each in zip(integers, quantizations, strict=True)
        if each is not None
    )
    return integers, reals


def graph_run(name: str, reals: tuple[NDArray[np.float64], ...]) -> GraphRun:
    """Pretend that the graph of a file gives these outputs."""
    model = read_model_file(DATA / "two_heads" / f"{name}.tflite")
    return GraphRun(
        graph=graph_of(model, RANGES),
        images=IMAGES,
        graph_outputs=reals,
        interpreter_outputs=outputs_of(name)[0],
    )


def test_a_clipped_file_is_compared_with_outputs_clipped_alike(tmp_path: Path) -> None:
    reals = outputs_of("faithful")[1]
    clipped_scores = outputs_of("clipped")[1][1]
    assert np.abs(reals[1] - clipped_scores).max() * 256 > 10, "nothing that a limit of 10 steps would find"
    report = judge(request_for("clipped", tmp_path, PICTURE), graph_run("clipped", reals))
    assert len(report.clipped) == 1
    assert {each.output: each.limit for each in report.differences} == {"boxes": 16, "classes": 10}
    assert max(each.largest for each in report.differences) <= 2
    assert report.passed


@pytest.mark.parametrize(("position", "output", "limit"), [(0, "boxes", 16), (1, "classes", 10)])
def test_outputs_on_named_images_have_a_limit_in_steps(
    tmp_path: Path, position: int, output: str, limit: int
) -> None:
    integers, reals = outputs_of("faithful")
    scale = np.ptp(reals[position]) / np.ptp(integers[position].astype(np.float64))
    request = request_for("faithful", tmp_path, PICTURE)

    def shifted_by(steps: int) -> CheckReport:
        shifted = list(reals)
        shifted[position] = reals[position] + steps * scale
        return judge(request, graph_run("faithful", tuple(shifted)))

    assert shifted_by(limit).passed
    report = shifted_by(limit + 1)
    with pytest.raises(IdentityError) as raised:
        require_passed(report, request.tflite)
    assert "trained weights" in (raised.value.tip or "")
    assert {each.output for each in report.differences if not each.is_within_limit} == {output}


def test_outputs_on_noise_have_none(tmp_path: Path) -> None:
    reals = outputs_of("faithful")[1]
    far = tuple(each + 100.0 for each in reals)
    report = judge(request_for("faithful", tmp_path), graph_run("faithful", far))
    assert report.passed
    assert {each.limit for each in report.differences} == {None}


def test_outputs_of_random_weights_have_none(tmp_path: Path) -> None:
    far = tuple(each + 100.0 for each in outputs_of("faithful")[1])
    request = replace(request_for("faithful", tmp_path, PICTURE), has_random_weights=True)
    report = judge(request, graph_run("faithful", far))
    assert report.passed
    assert "without a limit, because the weights are random" in sentence(report)


def test_clipped_logits_behind_a_softmax_leave_no_limit(tmp_path: Path) -> None:
    reals = outputs_of("softmax")[1]
    report = judge(request_for("softmax", tmp_path, PICTURE), graph_run("softmax", reals))
    assert report.clipped
    assert {each.limit for each in report.differences} == {None}
