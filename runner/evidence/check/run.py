"""Check that a ``.tflite`` computes what its frozen graph computes.

There are two comparisons. The content of the file is compared with the graph (``compare.py``), for every
variant. The outputs of both are compared on images, with a limit only for a float model: a quantized network
differs from its graph by rounding errors that grow from layer to layer, so its differences are only reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner import console
from runner.errors import IdentityError, IntegrityError
from runner.evidence.check.compare import (
    Convolution,
    Discrepancy,
    GraphFacts,
    QuantizationFlags,
    Range,
    compare,
)
from runner.litert.run import run_litert
from runner.scripts.run import Script, require_output, run_step
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.model import read_model_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.engines.base import Session
    from runner.recipes.recipe import Variant
    from runner.scripts.run import ScriptOptions
    from runner.tflite.model import Model, Operator, Tensor

    Arrays = Mapping[str, NDArray[Any]]

TOLERANCE: Final = 1e-3
"""Relative to the largest magnitude in the graph's output, or to 1 if that is smaller."""
FLOAT_MEAN_AND_STD: Final = (127.5, 127.5)
"""Scale pixels to [-1, 1] if the recipe states no values, as for a float model."""
ARRAYS_NAME: Final = "check.npz"
OUTPUTS: Final = ("boxes", "classes")
SHOWN_FINDINGS: Final = 10


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """A conversion to check: ``graph`` and ``tflite`` are its products, in folders mounted in the session.

    ``images`` are files that the toolchain can decode; if empty, ``count`` random images are drawn with
    ``seed``.
    """

    variant: Variant
    graph: Path
    tflite: Path
    work_dir: Path
    options: ScriptOptions
    images: tuple[Path, ...] = ()
    seed: int = 0
    count: int = 2
    change_concat_input_ranges: bool = True


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """The difference of an output from the graph's, in real values or in steps of a quantized output.

    ``limit`` is None if the difference is only reported.
    """

    output: str
    runtime: str
    largest: float
    unit: str
    limit: float | None

    @property
    def is_within_limit(self) -> bool:
        """Is the difference within its limit? NaN is not."""
        return self.limit is None or self.largest <= self.limit


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of a check.

    ``image_spread`` is the largest difference between the graph's outputs for two images. If it is near 0,
    the network ignores its input and comparing outputs proves nothing.
    """

    variant: str
    convolutions: int
    quantized_tensors: int
    images: int
    seed: int | None
    image_spread: float
    findings: tuple[Discrepancy, ...]
    differences: tuple[OutputDifference, ...]

    @property
    def passed(self) -> bool:
        """Are there no findings, and is every output within its limit?"""
        return not self.findings and all(each.is_within_limit for each in self.differences)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class GraphRun:
    """The content of a frozen graph, its outputs, and those of the file in TensorFlow 1.15's interpreter.

    ``graph_outputs`` and ``interpreter_outputs`` are box encodings and class predictions, one row per image.
    """

    graph: GraphFacts
    images: NDArray[np.uint8]
    graph_outputs: tuple[NDArray[Any], ...]
    interpreter_outputs: tuple[NDArray[Any], ...]


def check_conversion(session: Session, request: CheckRequest) -> CheckReport:
    """Compare a ``.tflite`` with the frozen graph it was made from.

    Raises:
        ConfigError: the graph, the file or an image cannot be read by the toolchain.
        ScriptError: the step that runs the graph failed.
        IntegrityError: the file is not a ``.tflite`` with one detection operator, or LiteRT cannot run it.
        EngineError: the engine stopped during the run.
    """
    return judge(request, run_graph(session, request))


def run_graph(session: Session, request: CheckRequest) -> GraphRun:
    """Run the graph and the file in the toolchain; return their outputs and the content of the graph.

    Raises:
        ConfigError: the graph, the file or an image cannot be read by the toolchain.
        ScriptError: the step that runs the graph failed.
        IntegrityError: the file is not a ``.tflite`` with one detection operator.
        EngineError: the engine stopped during the run.
    """
    model, file = read_model_file(request.tflite), request.work_dir / ARRAYS_NAME
    script = Script(
        name="parity.py",
        argv=_argv(session, request, _detection_operator(model).inputs[:2], file),
        log_name="check.log",
        options=request.options,
    )
    step = run_step(session, script)
    with np.load(require_output(file, script), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    file.unlink()
    return GraphRun(
        graph=_frozen_graph(step, arrays),
        images=arrays["inputs"],
        graph_outputs=(arrays["graph_boxes"], arrays["graph_classes"]),
        interpreter_outputs=(arrays["interpreter_boxes"], arrays["interpreter_classes"]),
    )


def judge(request: CheckRequest, run: GraphRun) -> CheckReport:
    """Compare a ``.tflite`` with the content and the outputs of its graph.

    Raises:
        IntegrityError: the file is not a ``.tflite`` with one detection operator, or LiteRT cannot run it.
    """
    model = read_model_file(request.tflite)
    raw_tensors = _detection_operator(model).inputs[:2]
    tensors = [model.graphs[0].tensors[index] for index in raw_tensors]
    conversion = _conversion(request)
    litert_outputs = run_litert(
        request.tflite,
        raw_tensors,
        _feeds(run.images, conversion, request.variant),
        work_dir=request.work_dir,
        timeout_s=request.options.timeout_s,
    )
    outputs = {"TensorFlow 1.15's interpreter": run.interpreter_outputs, "LiteRT": litert_outputs}
    return CheckReport(
        variant=request.variant.name,
        convolutions=len(run.graph.convolutions),
        quantized_tensors=sum(tensor.dtype == "uint8" for tensor in model.graphs[0].tensors),
        images=len(run.images),
        seed=None if request.images else request.seed,
        image_spread=float(np.abs(np.diff(run.graph_outputs[0], axis=0)).max(initial=0.0)),
        findings=compare(model, run.graph, conversion),
        differences=tuple(
            _difference(tensor, name, runtime, expected, found)
            for runtime, founds in outputs.items()
            for tensor, name, expected, found in zip(tensors, OUTPUTS, run.graph_outputs, founds, strict=True)
        ),
    )


def require_passed(report: CheckReport, tflite: Path) -> None:
    """Raise an error if a check did not pass, after printing its first findings.

    Raises:
        IdentityError: the file does not compute what its frozen graph computes.
    """
    if report.passed:
        return
    lines = [f"{each.tensor}: {each.what} is {each.found}, not {each.expected}" for each in report.findings]
    lines += [
        f"{each.output} of {each.runtime} are {each.largest:.3g} {each.unit} off, limit {each.limit:.3g}"
        for each in report.differences
        if each.limit is not None and not each.is_within_limit
    ]
    for line in lines[:SHOWN_FINDINGS]:
        console.note(f"   {line}")
    raise IdentityError(
        f"{tflite} does not match its frozen graph: {len(lines)} findings",
        tip="convert again; `check --json` lists all findings",
    )


def _detection_operator(model: Model) -> Operator:
    found = [operator for operator in model.graphs[0].operators if operator.name == POST_PROCESS]
    if len(found) != 1:
        raise IntegrityError(
            f"{model.source} has {len(found)} {POST_PROCESS} operators, expected one",
            tip="only detection models converted by this toolchain can be checked",
        )
    return found[0]


def _conversion(request: CheckRequest) -> QuantizationFlags:
    mean, std = request.variant.mean_value, request.variant.std_value
    if mean is None or std is None:
        mean, std = FLOAT_MEAN_AND_STD
    is_changed = "--change_concat_input_ranges=false" not in request.variant.toco_flags
    return QuantizationFlags(
        mean=mean, std=std, change_concat_input_ranges=request.change_concat_input_ranges and is_changed
    )


def _argv(
    session: Session, request: CheckRequest, raw_tensors: tuple[int, ...], arrays: Path
) -> tuple[str, ...]:
    conversion = _conversion(request)
    argv = [str(session.toolchain_dir / "steps" / "parity.py")]
    argv += ["--frozen-graph", str(request.graph), "--tflite", str(request.tflite), "--output", str(arrays)]
    argv += ["--raw-tensors", ",".join(map(str, raw_tensors))]
    argv += ["--mean", repr(conversion.mean), "--std", repr(conversion.std)]
    argv += ["--seed", str(request.seed), "--count", str(request.count)]
    for image in request.images:
        argv += ["--image", str(image)]
    return tuple(argv)


def _frozen_graph(step: Mapping[str, Any], arrays: Arrays) -> GraphFacts:
    convolutions = (
        Convolution(
            name=each["name"],
            weights=arrays[f"weights_{number}"],
            bias=arrays[f"bias_{number}"],
            weight_range=None if each["weight_range"] is None else _range(each["weight_range"]),
        )
        for number, each in enumerate(step["convolutions"])
    )
    return GraphFacts(
        input_name=step["input"],
        post_process=step["post_process"],
        convolutions={each.name: each for each in convolutions},
        ranges={name: _range(ends) for name, ends in step["ranges"].items()},
        attributes=step["attributes"],
        anchors=arrays["anchors"].astype(np.float64),
    )


def _range(ends: tuple[float, float, bool]) -> Range:
    low, high, is_narrow = ends
    return Range(low=low, high=high, is_narrow=is_narrow)


def _feeds(images: NDArray[np.uint8], conversion: QuantizationFlags, variant: Variant) -> NDArray[Any]:
    """Convert images to the model's input, exactly as the toolchain's step does."""
    if variant.is_quantized:
        return images
    return ((images - conversion.mean) / conversion.std).astype(np.float32)


def _difference(
    tensor: Tensor, output: str, runtime: str, expected: NDArray[Any], found: NDArray[Any]
) -> OutputDifference:
    """Compare an output with the graph's, in the unit of the file's tensor."""
    wanted = expected.astype(np.float64)
    limit = float(TOLERANCE * max(1.0, np.abs(wanted).max()))
    quantization = tensor.quantization
    is_quantized = quantization is not None and len(quantization.scales) == 1
    if quantization is not None and is_quantized:
        wanted = np.round(wanted / quantization.scales[0]) + quantization.zero_points[0]
    return OutputDifference(
        output=output,
        runtime=runtime,
        largest=float(np.abs(found.astype(np.float64) - wanted).max()),
        unit="steps" if is_quantized else "in reals",
        limit=None if is_quantized else limit,
    )
