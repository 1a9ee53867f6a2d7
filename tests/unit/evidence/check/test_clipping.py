"""The TOCO setting of a file, and what it clips, on files that the real TOCO wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.evidence.check.clipping import clipped_inputs, output_path, sigmoid
from runner.evidence.check.compare import (
    Comparison,
    ConcatSetting,
    QuantizationFlags,
    Range,
    SettingSource,
    compare,
)
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.model import read_model
from tests.altered import with_other_scale
from tests.locations import DATA
from tests.unit.fixtures.graph_facts import graph_of

if TYPE_CHECKING:
    from runner.evidence.check.clipping import ClippedInput

RANGES = {
    "boxes_0": Range(low=-8.0, high=8.0),
    "boxes_1": Range(low=-4.0, high=4.0),
    "classes_0": Range(low=-8.0, high=1.2),
    "classes_1": Range(low=-8.0, high=2.0),
}


def two_heads(name: str) -> bytes:
    return (DATA / "two_heads" / f"{name}.tflite").read_bytes()


def compared(content: bytes, stated: bool | None = None) -> Comparison:
    concat = None
    if stated is not None:
        concat = ConcatSetting(change_concat_input_ranges=stated, source=SettingSource.OPTION)
    model = read_model(content)
    flags = QuantizationFlags(mean=128, std=128, concat=concat)
    return compare(model, graph_of(model, RANGES), flags)


def clipped(content: bytes, ranges: dict[str, Range] = RANGES) -> tuple[ClippedInput, ...]:
    model = read_model(content)
    graph, file = graph_of(model, ranges), model.graphs[0]
    comparison = compare(model, graph, QuantizationFlags(mean=128, std=128))
    return tuple(clipped_inputs(file, graph, comparison.ranges))


@pytest.mark.parametrize(("name", "value"), [("clipped", True), ("faithful", False), ("softmax", True)])
def test_the_setting_is_recognised_from_the_file(name: str, *, value: bool) -> None:
    found = compared(two_heads(name))
    assert found.findings == ()
    assert found.concat == ConcatSetting(change_concat_input_ranges=value, source=SettingSource.FILE)


@pytest.mark.parametrize(("name", "value"), [("clipped", True), ("faithful", False)])
def test_a_stated_setting_that_is_true_is_kept(name: str, *, value: bool) -> None:
    found = compared(two_heads(name), stated=value)
    assert found.findings == ()
    assert found.concat == ConcatSetting(change_concat_input_ranges=value, source=SettingSource.OPTION)


@pytest.mark.parametrize(
    ("name", "stated", "value"), [("clipped", "false", "true"), ("faithful", "true", "false")]
)
def test_a_stated_setting_that_is_wrong_is_one_finding_that_names_it(
    name: str, stated: str, value: str
) -> None:
    (finding,) = compared(two_heads(name), stated=stated == "true").findings
    assert (finding.tensor, finding.what) == ("logits", "change_concat_input_ranges")
    assert (finding.expected, finding.found) == (f"{stated}, according to the command line", value)


@pytest.mark.parametrize("stated", [None, True, False])
def test_a_range_that_neither_setting_gives_is_not_taken_for_a_setting(stated: bool | None) -> None:
    findings = compared(with_other_scale(two_heads("clipped"), "logits"), stated=stated).findings
    assert ("logits", "scale") in {(each.tensor, each.what) for each in findings}


def test_a_file_without_concatenation_is_the_same_with_both() -> None:
    model = read_model((DATA / "tiny_detector" / "uint8.run0.tflite").read_bytes())
    comparison = compare(model, graph_of(model), QuantizationFlags(mean=128, std=128))
    assert comparison.concat.change_concat_input_ranges is None


def test_a_clipped_head_is_named_with_its_ranges_and_its_scores() -> None:
    (found,) = clipped(two_heads("clipped"))
    assert (found.concatenation, found.input) == ("logits", "classes_1_flat")
    # Both ends move a little, because zero is a whole number of steps.
    assert found.kept == pytest.approx((-8.0, 1.2), abs=0.02)
    assert found.own == pytest.approx((-8.0, 2.0), abs=0.02)
    assert found.largest_score == pytest.approx(sigmoid(found.kept[1]))
    assert found.largest_own_score == pytest.approx(sigmoid(found.own[1]))
    assert "logits clips classes_1_flat to [-8." in found.sentence
    assert "scores at most 0.76" in found.sentence


def test_a_file_that_covers_all_ranges_clips_nothing() -> None:
    assert clipped(two_heads("faithful")) == ()


def test_scores_behind_a_softmax_have_no_bound() -> None:
    (found,) = clipped(two_heads("softmax"))
    assert (found.largest_score, found.largest_own_score) == (None, None)
    assert "scores" not in found.sentence


def test_a_range_less_than_half_a_step_wider_is_not_clipped() -> None:
    wider = Range(low=-8.0, high=1.205)
    assert clipped(two_heads("clipped"), {**RANGES, "classes_1": wider}) == ()


def test_the_lower_end_is_clipped_without_a_bound_of_the_scores() -> None:
    (found,) = clipped(two_heads("clipped"), {**RANGES, "classes_1": Range(low=-9.0, high=1.0)})
    assert found.own == pytest.approx((-9.0, 1.0), abs=0.04)
    assert found.largest_score is None


def test_what_the_graph_clips_itself_is_not_tocos() -> None:
    assert clipped(two_heads("clipped"), {**RANGES, "logits": RANGES["classes_0"]}) == ()


@pytest.mark.parametrize(("name", "leads_back"), [("clipped", True), ("softmax", False)])
def test_the_path_of_the_scores_ends_at_a_softmax(name: str, *, leads_back: bool) -> None:
    file = read_model(two_heads(name)).graphs[0]
    (detection,) = [operator for operator in file.operators if operator.name == POST_PROCESS]
    boxes, classes = (output_path(file, index) for index in detection.inputs[:2])
    assert boxes is not None
    assert (boxes.concatenation.name, boxes.has_sigmoid) == ("boxes", False)
    assert (classes is not None and classes.has_sigmoid) == leads_back
    if classes is not None:
        (head,) = clipped(two_heads(name))
        assert classes.ends == pytest.approx((sigmoid(head.kept[0]), head.largest_score))


def test_published_ranges_give_the_known_bounds() -> None:
    """The scores of Google's SSD MobileNet v1 end at 0.770 where its logits end at 1.206."""
    assert sigmoid(1.206) == pytest.approx(0.770, abs=5e-4)
    assert sigmoid(-1000.0) == 0.0
