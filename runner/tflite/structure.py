"""Check the structure of a ``.tflite`` file against the recipe; the weights do not matter."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.recipes.settings import operator_options
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.runtime_version import TOCO_VERSIONS
from runner.tflite.summary import QuantizationKind, TensorSummary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.recipes.recipe import Recipe, Structure, Variant
    from runner.tflite.key_orders import Value
    from runner.tflite.summary import Summary

TOCO_DESCRIPTION: Final = "TOCO Converted."
CONVERTER: Final = "converter"
TOCO_VERSION: Final = "TOCO version (min_runtime_version)"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A property of a file that differs from the recipe."""

    what: str
    expected: str
    found: str

    @property
    def is_of_structure(self) -> bool:
        """Whether the difference changes what the model computes; metadata does not."""
        return self.what not in {CONVERTER, TOCO_VERSION}


def structure_problems(summary: Summary, recipe: Recipe, variant: Variant) -> tuple[Problem, ...]:
    """Return every structural difference of a file from the recipe; empty if the structure is right."""
    problems = [
        *_unless_equal("input", _expected_inputs(variant, summary), summary.inputs),
        # Output shapes are not in the file: the post-processing operator sets them when it runs.
        *_unless_equal("outputs", variant.output_arrays, tuple(output.name for output in summary.outputs)),
        *_unless_equal("kind of quantization", _expected_quantization(variant), summary.quantization),
        *_converter_problems(summary),
        *_post_processing_problems(summary, recipe, variant),
    ]
    if recipe.structure is not None:
        problems += _operator_problems(summary, recipe.structure)
    return tuple(problems)


def _expected_inputs(variant: Variant, summary: Summary) -> tuple[TensorSummary, ...]:
    # TOCO turns "real = (integer - mean) / std" into a scale and a zero point.
    scales = () if variant.std_value is None else (1 / variant.std_value,)
    zero_points = () if variant.mean_value is None else (int(variant.mean_value),)
    return (
        TensorSummary(
            name=variant.input_array,
            dtype="uint8" if variant.is_quantized else "float32",
            shape=variant.input_shape or (summary.inputs[0].shape if summary.inputs else ()),
            scales=scales,
            zero_points=zero_points,
        ),
    )


def _expected_quantization(variant: Variant) -> QuantizationKind:
    return QuantizationKind.QAT if variant.is_quantized else QuantizationKind.NONE


def _converter_problems(summary: Summary) -> Iterator[Problem]:
    yield from _unless_equal(CONVERTER, TOCO_DESCRIPTION, summary.converter)
    if summary.min_runtime_version not in TOCO_VERSIONS:
        yield Problem(
            what=TOCO_VERSION,
            expected=" or ".join(TOCO_VERSIONS),
            found=str(summary.min_runtime_version),
        )


def _post_processing_problems(summary: Summary, recipe: Recipe, variant: Variant) -> Iterator[Problem]:
    if summary.post_processing is None:
        yield Problem(what="post-processing", expected=POST_PROCESS, found=summary.post_processing_note)
        return
    expected = _expected_options(recipe, variant)
    for key in sorted({*expected, *(summary.post_processing if recipe.structure is not None else ())}):
        wanted, found = expected.get(key), summary.post_processing.get(key)
        yield from _unless_equal(f"post-processing option {key}", wanted, found)


def _expected_options(recipe: Recipe, variant: Variant) -> Mapping[str, Value]:
    options: dict[str, Value] = {
        **(recipe.structure.post_processing if recipe.structure is not None else {}),
        **operator_options(variant.settings),
    }
    return {key: _as_stored(value) for key, value in options.items()}


def _as_stored(value: Value) -> Value:
    """Round a float to float32, as it is stored in the file."""
    if not isinstance(value, float):
        return value
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def _operator_problems(summary: Summary, structure: Structure) -> Iterator[Problem]:
    yield from _unless_equal("number of tensors", structure.tensors, summary.tensor_count)
    for name in sorted({*structure.operators, *summary.operators}):
        wanted, found = structure.operators.get(name, 0), summary.operators.get(name, 0)
        yield from _unless_equal(f"number of {name}", wanted, found)


def _unless_equal(what: str, expected: object, found: object) -> Iterator[Problem]:
    if expected != found:
        yield Problem(what=what, expected=_said(expected), found=_said(found))


def _said(value: object) -> str:
    if isinstance(value, QuantizationKind):
        return value.value
    if isinstance(value, tuple):
        return "; ".join(_said(item) for item in value)
    return "none" if value is None else str(value)
