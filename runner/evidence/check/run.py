"""Check that a ``.tflite`` computes what its frozen graph computes.

There are two comparisons. First, the content of the file is compared with the graph (``compare.py``). Second,
the outputs of both are compared on images. A quantized network differs from its graph by rounding errors that
grow from layer to layer and depend on the weights and the images. So for a quantized network, a limit applies
only with trained weights and typical images that the user provides. Otherwise the differences are only
reported.

Where the file clips a concatenation (``clipping.py``), the graph's outputs are clipped in the same way before
they are compared. The clipping itself is reported separately.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner import console
from runner.errors import IdentityError, IntegrityError
from runner.evidence.check.clipping import ClippedInput, OutputPath, clipped_inputs, output_path
from runner.evidence.check.compare import (
    ConcatSetting,
    Convolution,
    Discrepancy,
    GraphFacts,
    QuantizationFlags,
    Range,
    compare,
    quantization_of,
)
from runner.litert.worker import litert_worker
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
    from runner.tflite.model import Graph, Model, Operator, Tensor

    Arrays = Mapping[str, NDArray[Any]]

TOLERANCE: Final = 1e-3
"""Times the largest magnitude in the graph's output; if that magnitude is below 1, times 1."""
STEP_LIMITS: Final = MappingProxyType({"boxes": 16.0, "classes": 10.0})
"""In quantization steps: twice the largest difference that was measured with trained weights and photographs.

The measured differences were 8 for boxes and 5 for classes (docs/quantization.md lists the models). The
factor of two allows for other weights and images. By comparison, a file with one wrong range was off by 16
steps in classes.
"""
FLOAT_MEAN_AND_STD: Final = (127.5, 127.5)
"""They scale pixels to [-1, 1]; used if the recipe states no mean and std, as for float models."""
ARRAYS_NAME: Final = "check.npz"
OUTPUTS: Final = ("boxes", "classes")
FAKE_QUANT: Final = "FAKE_QUANT"
"""The operator that remains if TOCO converts a quantized graph as float."""
SHOWN_FINDINGS: Final = 10


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """A conversion to check: ``graph`` and ``tflite`` are its products, in folders mounted in the session.

    ``images`` are files that the toolchain can decode; if empty, ``count`` random images are generated from
    ``seed``. ``concat`` is the TOCO flag that the file was made with, or None if it must be inferred from the
    file. The outputs of a quantized model have a limit only if the weights are trained and the user provides
    images that are typical of the training images, because the limits were measured under these conditions.
    For the first ``layers`` images, the values of those nodes of the graph are returned too that have a
    tensor of the same name in the file.
    """

    variant: Variant
    graph: Path
    tflite: Path
    work_dir: Path
    options: ScriptOptions
    images: tuple[Path, ...] = ()
    seed: int = 0
    count: int = 2
    concat: ConcatSetting | None = None
    has_random_weights: bool = False
    has_typical_images: bool = True
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far an output of the file is from the same output of the graph, in real values or in steps.

    ``limit`` is None if the difference is only reported.
    """

    output: str
    runtime: str
    largest: float
    unit: str
    limit: float | None

    @property
    def is_within_limit(self) -> bool:
        """Whether the difference is within its limit; NaN is never within a limit."""
        return self.limit is None or self.largest <= self.limit


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of a check.

    ``image_spread`` is the largest difference between the boxes that the graph gives for consecutive images.
    If it is close to 0, the network ignores its input, and comparing outputs proves nothing.
    """

    variant: str
    convolutions: int
    quantized_tensors: int
    images: int
    seed: int | None
    has_random_weights: bool
    image_spread: float
    concat: ConcatSetting
    clipped: tuple[ClippedInput, ...]
    findings: tuple[Discrepancy, ...]
    differences: tuple[OutputDifference, ...]

    @property
    def passed(self) -> bool:
        """Whether there are no findings and every output is within its limit."""
        return not self.findings and all(each.is_within_limit for each in self.differences)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class GraphRun:
    """The content and the outputs of a frozen graph, and the file's outputs in TensorFlow 1.15's interpreter.

    ``graph_outputs`` and ``interpreter_outputs`` are box encodings and class predictions, one row per image.
    ``layers`` are the values of the graph's nodes that have a tensor of the same name in the file, keyed by
    name, one row per image.
    """

    graph: GraphFacts
    images: NDArray[np.uint8]
    graph_outputs: tuple[NDArray[Any], ...]
    interpreter_outputs: tuple[NDArray[Any], ...]
    layers: Arrays = field(default_factory=dict)


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
        layers={name: arrays[f"layer_{number}"] for number, name in enumerate(step["layers"])},
    )


def judge(request: CheckRequest, run: GraphRun) -> CheckReport:
    """Compare a ``.tflite`` with the content and the outputs of its graph.

    Raises:
        IntegrityError: the file is not a ``.tflite`` with one detection operator, or LiteRT cannot run it.
    """
    model = read_model_file(request.tflite)
    file, raw_tensors = model.graphs[0], _detection_operator(model).inputs[:2]
    flags = _flags(request)
    comparison = compare(model, run.graph, flags)
    clipped = tuple(clipped_inputs(file, run.graph, comparison.ranges))
    with litert_worker(request.tflite, tensors=raw_tensors, timeout_s=request.options.timeout_s) as worker:
        feeds = _feeds(run.images, flags, request.variant)
        rows = [worker.run(feed[np.newaxis]).outputs for feed in feeds]
    litert_outputs = tuple(map(np.concatenate, zip(*rows, strict=True)))
    founds = {"TensorFlow 1.15's interpreter": run.interpreter_outputs, "LiteRT": litert_outputs}
    is_judged = bool(request.images) and request.has_typical_images and not request.has_random_weights
    # Each FAKE_QUANT amplifies tiny differences by rounding, so differences grow as in a uint8 file.
    has_rounding = any(operator.name == FAKE_QUANT for operator in file.operators)
    expected = _expected_outputs(
        file, raw_tensors, run, clipped, is_judged=is_judged, has_rounding=has_rounding
    )
    return CheckReport(
        variant=request.variant.name,
        convolutions=len(run.graph.convolutions),
        quantized_tensors=sum(tensor.dtype == "uint8" for tensor in file.tensors),
        images=len(run.images),
        seed=None if request.images else request.seed,
        has_random_weights=request.has_random_weights,
        image_spread=float(np.abs(np.diff(run.graph_outputs[0], axis=0)).max(initial=0.0)),
        concat=comparison.concat,
        clipped=clipped,
        findings=comparison.findings,
        differences=tuple(
            output.difference(runtime, found)
            for runtime, outputs in founds.items()
            for output, found in zip(expected, outputs, strict=True)
        ),
    )


def require_passed(report: CheckReport, tflite: Path) -> None:
    """Print the first differences and raise an error if a check did not pass.

    Raises:
        IdentityError: the file does not compute what its frozen graph computes.
    """
    if report.passed:
        return
    lines = [f"{each.tensor}: {each.what} is {each.found}, not {each.expected}" for each in report.findings]
    lines += [
        f"{each.output} of {each.runtime} are off by {each.largest:.3g} {each.unit}, limit {each.limit:.3g}"
        for each in report.differences
        if each.limit is not None and not each.is_within_limit
    ]
    for line in lines[:SHOWN_FINDINGS]:
        console.note(f"   {line}")
    raise IdentityError(
        f"{tflite} does not match its frozen graph; number of differences: {len(lines)}",
        tip=_tip(report),
    )


def _tip(report: CheckReport) -> str:
    has_steps = any(each.unit == "steps" and not each.is_within_limit for each in report.differences)
    if report.findings or not has_steps:
        return "convert again; `check --json` lists all findings"
    return "use trained weights, and images like the training images; the limits in steps assume both"


def _detection_operator(model: Model) -> Operator:
    found = [operator for operator in model.graphs[0].operators if operator.name == POST_PROCESS]
    if len(found) != 1:
        raise IntegrityError(
            f"{model.source} has {len(found)} {POST_PROCESS} operators, expected one",
            tip="only detection models converted by this toolchain can be checked",
        )
    return found[0]


def _flags(request: CheckRequest) -> QuantizationFlags:
    mean, std = request.variant.mean_value, request.variant.std_value
    if mean is None or std is None:
        mean, std = FLOAT_MEAN_AND_STD
    return QuantizationFlags(mean=mean, std=std, concat=request.concat)


def _argv(
    session: Session, request: CheckRequest, raw_tensors: tuple[int, ...], arrays: Path
) -> tuple[str, ...]:
    flags = _flags(request)
    argv = [str(session.toolchain_dir / "steps" / "parity.py")]
    argv += ["--frozen-graph", str(request.graph), "--tflite", str(request.tflite), "--output", str(arrays)]
    argv += ["--raw-tensors", ",".join(map(str, raw_tensors))]
    argv += ["--mean", repr(flags.mean), "--std", repr(flags.std)]
    argv += ["--seed", str(request.seed), "--count", str(request.count), "--layers", str(request.layers)]
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
            outputs=tuple(each["outputs"]),
            scaled_inputs=each["scaled_inputs"],
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
        operands={name: arrays[f"operand_{number}"] for number, name in enumerate(step["operands"])},
    )


def _range(ends: tuple[float, float, bool]) -> Range:
    low, high, is_narrow = ends
    return Range(low=low, high=high, is_narrow=is_narrow)


def _feeds(images: NDArray[np.uint8], flags: QuantizationFlags, variant: Variant) -> NDArray[Any]:
    """Convert images to the model's input, exactly as ``docker/steps/parity.py`` does."""
    if variant.is_quantized:
        return images
    return ((images - flags.mean) / flags.std).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ExpectedOutput:
    """An input of the detection operator as the graph computes it, in real values."""

    name: str
    tensor: Tensor
    reals: NDArray[np.float64]
    step_limit: float | None
    has_rounding: bool

    def difference(self, runtime: str, found: NDArray[Any]) -> OutputDifference:
        """Compare this with the output of a runtime, in the unit of the file's tensor."""
        quantization = quantization_of(self.tensor)
        wanted, unit = self.reals, "in reals"
        limit = None if self.has_rounding else float(TOLERANCE * max(1.0, np.abs(self.reals).max()))
        if quantization is not None:
            wanted, unit = np.round(self.reals / quantization[0]) + quantization[1], "steps"
            limit = self.step_limit
        return OutputDifference(
            output=self.name,
            runtime=runtime,
            largest=float(np.abs(found.astype(np.float64) - wanted).max()),
            unit=unit,
            limit=limit,
        )


def _expected_outputs(
    file: Graph,
    raw_tensors: tuple[int, ...],
    run: GraphRun,
    clipped: tuple[ClippedInput, ...],
    *,
    is_judged: bool,
    has_rounding: bool,
) -> tuple[ExpectedOutput, ...]:
    """Return the graph's outputs, clipped where the file clips the last concatenation before them.

    If the file clips an earlier concatenation, the effect on the outputs is unknown, so there is no limit.
    """
    names = {each.concatenation for each in clipped}
    paths = [output_path(file, index) for index in raw_tensors]
    is_known = names <= {path.concatenation.name for path in paths if path is not None}
    return tuple(
        ExpectedOutput(
            name=name,
            tensor=file.tensors[index],
            reals=_clip(reals.astype(np.float64), path, names),
            step_limit=STEP_LIMITS[name] if is_judged and is_known else None,
            has_rounding=has_rounding,
        )
        for name, index, path, reals in zip(OUTPUTS, raw_tensors, paths, run.graph_outputs, strict=True)
    )


def _clip(
    reals: NDArray[np.float64], path: OutputPath | None, clipped_names: set[str]
) -> NDArray[np.float64]:
    if path is None or path.ends is None or path.concatenation.name not in clipped_names:
        return reals
    return np.clip(reals, *path.ends)
