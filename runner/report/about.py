"""Collect what a page shows about one file: answers, warnings, tensors and evidence."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

from runner import console
from runner.evidence.check.clipping import summary as clipping_summary
from runner.evidence.check.compare import ends_of, quantization_of
from runner.host.digests import digest_bytes
from runner.proof.explain import compared_with_the_published_file, explain, toco_title
from runner.report.data import Answer, FileReport, TensorRow, Warn
from runner.tflite.diff import Verdict
from runner.tflite.verify import verify_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.evaluation.annotations import ImageSet
    from runner.evaluation.evaluate import Evaluation
    from runner.evidence.check.run import CheckReport
    from runner.recipes.recipe import Recipe
    from runner.report.data import Precision
    from runner.report.subject import Subject
    from runner.tflite.model import Graph, Tensor

MINUS: Final = "\N{MINUS SIGN}"
SIZES: Final = {"float32": 4, "int32": 4, "uint8": 1, "int8": 1, "int64": 8, "float16": 2, "bool": 1}
"""The size of an element in bytes, by tensor type."""


def about_file(
    subject: Subject,
    *,
    check: CheckReport | None,
    precision: Precision | None,
    evaluation: ImageSet | None,
) -> FileReport:
    """Return everything that the page shows about a file.

    Raises:
        IntegrityError: its provenance is damaged.
    """
    is_random = subject.pair is not None and subject.pair.has_random_weights
    return FileReport(
        name=subject.name,
        path=subject.path,
        is_quantized=subject.input.dtype == "uint8",
        what=_what(subject, is_random=is_random),
        published=_published(subject),
        checked=_checked(check),
        warnings=tuple(_warnings(subject, check, precision, is_random=is_random)),
        has_random_weights=is_random,
        pixels=subject.pixels,
        check=check,
        precision=precision,
        evaluation=None if evaluation is None else _evaluate(subject, evaluation),
        summary=subject.summary,
        tensors=tuple(_tensors(subject.graph)),
        digests=digest_bytes(subject.model.content),
        explanation=explain(subject.path, _reference(subject.recipe)),
    )


def _reference(recipe: Recipe | None) -> str | None:
    return None if recipe is None or recipe.data_dir is None else recipe.reference


def _what(subject: Subject, *, is_random: bool) -> str:
    kind = "quantized" if subject.input.dtype == "uint8" else "float"
    toco = "" if subject.provenance is None else f", made by TOCO of {toco_title(subject.provenance)}"
    source = " from a stand-in for the published checkpoint, with random weights" if is_random else ""
    start = "A" if subject.name == subject.path.name else f"{subject.path.name}: a"
    return f"{start} {kind} detector of {subject.class_count} classes{toco}{source}."


def _published(subject: Subject) -> Answer:
    """Answer whether a file is the published one."""
    pair, recipe = subject.pair, subject.recipe
    variant = None if pair is None else pair.variant
    if recipe is None or recipe.data_dir is None or variant is None:
        return Answer(is_good=None, text="Nobody has published this file, as far as this program knows.")
    if variant.published is None:
        return Answer(is_good=None, text="No published file of this recipe is known.")
    found = verify_file(subject.path, recipe, variant_name=variant.name)
    if found.verdict is Verdict.SAME_BYTES:
        text = f"Yes. It has all known digests of the published file ({variant.published.described})."
        return Answer(is_good=True, text=text)
    if found.verdict.is_same_content:
        text = f"The content is the same. Compared with {found.wanted}: {found.verdict.value}."
        return Answer(is_good=True, text=text)
    if subject.provenance is None:
        return Answer(is_good=False, text=f"No. Compared with {found.wanted}: {found.verdict.value}.")
    because = compared_with_the_published_file(subject.provenance, recipe)
    return Answer(is_good=False, text=f"No. {because.replace('**', '')}")


def _checked(check: CheckReport | None) -> Answer:
    """Answer whether a file computes what its frozen graph computes."""
    if check is None:
        text = "Not checked: its frozen graph was not found. Pass it with --graph."
        return Answer(is_good=None, text=text)
    if not check.passed:
        return Answer(is_good=False, text=f"Failed. {_first_failure(check)}")
    what = "It has the weights, biases and detection options of its frozen graph"
    if check.quantized_tensors:
        what = f"{what}, and also its scales and zero points"
    limits = [it.limit for it in check.differences if it.limit is not None]
    outputs = "; the differences of the outputs are within the limits" if limits else ""
    return Answer(is_good=True, text=f"Passed. {what}{outputs}.")


def _first_failure(check: CheckReport) -> str:
    """Name the first of the differences between a file and its frozen graph, and count the others."""
    failures = [f"{it.what} of {it.tensor} is {it.found}, not {it.expected}" for it in check.findings]
    failures += [
        f"{it.output} in {it.runtime} are off by {it.largest:.3g} {it.unit}, limit {it.limit:.3g}"
        for it in check.differences
        if it.limit is not None and not it.is_within_limit
    ]
    more = f"; {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"{failures[0][0].upper()}{failures[0][1:]}{more}."


def _warnings(
    subject: Subject, check: CheckReport | None, precision: Precision | None, *, is_random: bool
) -> Iterator[Warn]:
    """Yield what a reader should look at, the most serious first."""
    pixels = subject.pixels
    if pixels is not None and not pixels.is_expected:
        yield Warn(
            text=f"Its input maps pixels of 0 to 255 to {pixels.low:.3g} to {pixels.high:.3g}, but the model "
            f"was trained with {MINUS}1 to 1. So the model sees each image with a wrong brightness or "
            "contrast. The mean or the standard deviation of the conversion is wrong.",
            section="images",
        )
    if check is not None and not check.passed:
        yield Warn(
            text="It does not match its frozen graph and the commands it was made with.", section="check"
        )
    if subject.summary.placeholder is not None:
        yield Warn(text="Its ranges are placeholders, so its detections are meaningless.", section="ranges")
    if check is not None and check.clipped:
        clipped = clipping_summary(check.clipped)
        yield Warn(text=f"It clips values: {clipped}.", section="clipped")
    for it in () if precision is None else precision.toco:
        if it.is_bad:
            yield Warn(text=it.text, section="toco")
    if is_random:
        yield Warn(text="Its detections are meaningless, because its weights are random.", section="images")


def _evaluate(subject: Subject, images: ImageSet) -> Evaluation | None:
    """Measure accuracy and latency.

    The result is None if the input does not map pixels to -1 to 1, because `evaluate` refuses such a file.
    """
    from runner.evaluation.detector import open_detector
    from runner.evaluation.evaluate import evaluate
    from runner.evaluation.set_run import RunSettings

    if subject.pixels is not None and not subject.pixels.is_expected:
        return None
    truth = images.read()
    images.check_classes(truth.categories, subject.class_count)
    with console.step(f"evaluate on {len(truth.images)} images", of=subject.name):
        return evaluate(open_detector(subject.path), truth, images.images, RunSettings())


def _tensors(file: Graph) -> Iterator[TensorRow]:
    for index, tensor in enumerate(file.tensors):
        role = "constant" if tensor.data else "activation"
        role = "input" if index in file.inputs else "output" if index in file.outputs else role
        quantization = quantization_of(tensor)
        scale, zero_point = (None, None) if quantization is None else quantization
        yield TensorRow(
            index=index,
            name=tensor.name,
            role=role,
            dtype=tensor.dtype,
            shape=tensor.shape,
            size_bytes=len(tensor.data) or _size(tensor),
            scale=scale,
            zero_point=zero_point,
            ends=ends_of(tensor) if tensor.dtype == "uint8" else None,
        )


def _size(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes in memory; 0 if its shape is set at run time."""
    return prod(tensor.shape) * SIZES.get(tensor.dtype, 0) if tensor.shape else 0
