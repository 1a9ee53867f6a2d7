"""What TOCO's log says about ranges; the lines are those that TOCO wrote."""

from __future__ import annotations

import pytest

from runner.report.toco_log import read_warnings

PREFIX = "2026-11-29 23:08:37.394504: W tensorflow/lite/toco/graph_transformations/"
TWEAK = (
    "hardcode_min_max.cc:124] Tweaking the MinMax of array {}, which is an input to {{Concatenation operator "
    "with output concat}}, because we want all inputs and outputs of a Concatenation operator to have the "
    "same MinMax so that it can be implemented as a pure byte-copy, no arithmetic."
)
LACKS = (
    "quantize.cc:169] Constant array {} lacks MinMax information. To make up for that, we will now compute "
    "the MinMax from actual array elements. That will result in quantization parameters that probably do not "
    "match whichever arithmetic was used during training, and thus will probably be a cause of poor "
    "inference accuracy."
)
HARMLESS = "import_tensorflow.cc:659] Converting unsupported operation: TFLite_Detection_PostProcess"


def test_lines_of_one_kind_are_one_warning_with_all_arrays() -> None:
    lines = [PREFIX + it for it in (TWEAK.format("a/Reshape"), HARMLESS, TWEAK.format("b/Reshape"))]
    (warning,) = read_warnings([*lines, *lines])
    assert warning.arrays == ("a/Reshape", "b/Reshape")
    assert "concatenations" in warning.text
    assert not warning.is_bad


@pytest.mark.parametrize(
    ("array", "is_bad", "says"),
    [("anchors", False, "does no harm"), ("BoxPredictor_5/ClassPredictor/weights", True, "accuracy suffers")],
)
def test_anchors_never_have_a_range_but_weights_should(array: str, says: str, *, is_bad: bool) -> None:
    (warning,) = read_warnings([PREFIX + LACKS.format(array)])
    assert (warning.arrays, warning.is_bad) == ((array,), is_bad)
    assert says in warning.text


@pytest.mark.parametrize(
    "line",
    [
        "F tensorflow/lite/toco/tooling_util.cc:1704] Array add, which is an input to the Conv operator "
        "producing the output array Relu6, is lacking min/max data, which is necessary for quantization.",
        "F tensorflow/lite/toco/graph_transformations/quantize.cc:138] Array add does not have MinMax "
        "information, and is not a constant array. Cannot proceed with quantization.",
    ],
)
def test_an_activation_without_a_range_is_bad(line: str) -> None:
    (warning,) = read_warnings([line])
    assert (warning.arrays, warning.is_bad) == (("add",), True)


def test_a_log_without_such_lines_gives_nothing() -> None:
    assert read_warnings([PREFIX + HARMLESS, ""]) == ()
