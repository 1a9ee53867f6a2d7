"""Find out which TOCO made a file: convert its frozen graph with each toolchain and compare the bytes.

TOCO has two command lines (dialects). Only one difference between them changes the bytes: the default of the
flag ``change_concat_input_ranges``. So each toolchain converts twice. Runs of the same TOCO differ in the
order of the post-processing options (`runner.tflite.key_orders`), so the file's order is applied to each
result before the comparison. If the bytes are then equal, this TOCO produces the file. One exception remains:
the file's order may be one that this TOCO never writes. `KeyOrderFacts` reports whether it is possible.
"""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.convert.toco import run_toco, toco_argv
from runner.engines.base import Folders
from runner.errors import IntegrityError, ScriptError, UsageError
from runner.host.cache_dir import cache_dir
from runner.host.digests import digest_bytes
from runner.proof.dialects import CONCAT_FLAG, as_tflite_convert
from runner.recipes.recipe import DEFAULT_TOOLCHAIN, Dialect, InferenceType
from runner.scripts.parallel import run_together
from runner.tflite.diff import Verdict, diff_models
from runner.tflite.key_orders import is_possible, order_count, read_post_process_options
from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise
from runner.toolchain.catalog import load_toolchain, toolchain_names

if TYPE_CHECKING:
    from runner.engines.base import Engine
    from runner.scripts.run import ScriptOptions
    from runner.tflite.diff import ModelDiff
    from runner.tflite.key_orders import KeyOrder
    from runner.tflite.model import Model
    from runner.toolchain.catalog import ToolchainSpec

MADE: Final = "model.tflite"
"""The name of the converted file in the commands that a report prints."""
VERDICTS: Final = tuple(Verdict)


@dataclass(frozen=True, kw_only=True)
class MatchRequest:
    """A file and the frozen graph it may have been made from; ``more_flags`` are native flags of TOCO.

    Toolchains that are not built yet are skipped, unless ``build_missing`` is true.
    """

    file: Path
    graph: Path
    options: ScriptOptions
    more_flags: tuple[str, ...] = ()
    build_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The settings of a conversion that a file reveals: the arguments of `toco_argv`, except paths."""

    inference_type: InferenceType
    input_array: str
    input_shape: tuple[int, ...]
    output_arrays: tuple[str, ...]
    mean_value: float | None
    std_value: float | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A conversion with one TOCO in one dialect, and the comparison of its result with the file.

    In ``diff``, the result is on the left and the file on the right. ``diff`` is None if this TOCO failed;
    then ``failure`` contains the error. ``commands`` are command lines of this program that produce the file.
    ``native`` and ``tflite_convert`` are TOCO command lines for the toolchain's shell.
    """

    toolchain: str
    tensorflow: str
    same_bytes_as: tuple[str, ...]
    dialect: Dialect
    diff: ModelDiff | None = None
    failure: ScriptError | None = None
    commands: tuple[str, ...]
    native: str
    tflite_convert: str | None

    @property
    def is_match(self) -> bool:
        """Whether this TOCO, in this dialect, writes the bytes of the file, in any key order."""
        return self.diff is not None and self.diff.verdict in (Verdict.SAME_BYTES, Verdict.OTHER_KEY_ORDER)

    @property
    def distance(self) -> tuple[int, int]:
        """How much the result differs from the file: rank of the verdict, then number of differences."""
        if self.diff is None:
            return len(VERDICTS), 0
        return VERDICTS.index(self.diff.verdict), len(self.diff.differences)


@dataclass(frozen=True, kw_only=True)
class KeyOrderFacts:
    """The key order of the file, and whether a TOCO built from public source can write it."""

    order: KeyOrder
    is_possible: bool
    order_count: int


@dataclass(frozen=True, kw_only=True)
class MatchReport:
    """The attempts to reproduce a file; ``key_order`` is None if the file has no options written by TOCO.

    ``not_tried`` are the toolchains that are not built.
    """

    file: str
    sha256: str
    key_order: KeyOrderFacts | None
    attempts: tuple[Attempt, ...]
    not_tried: tuple[str, ...]

    @property
    def matches(self) -> tuple[Attempt, ...]:
        """The attempts that give the bytes of the file."""
        return tuple(attempt for attempt in self.attempts if attempt.is_match)

    @property
    def nearest(self) -> Attempt:
        """The attempt whose result is closest to the file."""
        return min(self.attempts, key=lambda attempt: attempt.distance)


def match(engine: Engine, request: MatchRequest) -> MatchReport:
    """Convert the graph with each toolchain in both dialects and compare the results with the file.

    Raises:
        UsageError: a file cannot be read, a flag is not allowed, or the graph lacks an input or output.
        IntegrityError: the file is not a ``.tflite``, or is damaged.
        ScriptError: TOCO failed in every toolchain.
        EngineError, BuildError: a toolchain is not available.
    """
    if any(flag.startswith(f"--{CONCAT_FLAG}") for flag in request.more_flags):
        raise UsageError(f"--{CONCAT_FLAG} is not allowed here", tip="omit it: both values are tried")
    model = read_model_file(request.file)
    conversion = conversion_of(model)
    if not request.graph.is_file():
        raise UsageError(
            f"there is no frozen graph {request.graph}",
            tip="name the tflite_graph.pb that the file was made from",
        )
    names = toolchain_names()
    tried = _tried(engine, names, build_missing=request.build_missing)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="match-", dir=cache_dir()) as scratch:
        attempts = tuple(
            attempt
            for name in tried
            for attempt in _attempts(engine, name, model, conversion, request, Path(scratch).resolve())
        )
    return MatchReport(
        file=str(request.file),
        sha256=digest_bytes(model.content).sha256,
        key_order=_key_order(model),
        attempts=_with_one_success(attempts),
        not_tried=tuple(name for name in names if name not in tried),
    )


def conversion_of(model: Model) -> Conversion:
    """Read from a file how it was converted: inputs, outputs, and mean and std of a quantized input.

    Raises:
        UsageError: the file has several inputs, or an input of a type that TOCO does not write.
    """
    summary = summarise(model)
    if len(summary.inputs) != 1:
        raise UsageError(
            f"{model.source} has {len(summary.inputs)} inputs; only files with one input can be matched"
        )
    (end,) = summary.inputs
    if end.dtype not in ("float32", "uint8"):
        raise UsageError(
            f"the input of {model.source} is {end.dtype}; `match` only supports float32 and uint8",
            tip="`inspect` prints which converter made it",
        )
    is_quantized = end.dtype == "uint8" and bool(end.scales)
    return Conversion(
        inference_type=InferenceType.QUANTIZED_UINT8 if is_quantized else InferenceType.FLOAT,
        input_array=end.name,
        input_shape=end.shape,
        output_arrays=tuple(output.name for output in summary.outputs),
        mean_value=float(end.zero_points[0]) if is_quantized else None,
        std_value=1 / end.scales[0] if is_quantized else None,
    )


def _tried(engine: Engine, names: tuple[str, ...], *, build_missing: bool) -> tuple[str, ...]:
    """Return the toolchains to try: all if ``build_missing``, else the built ones, else the default one."""
    built = tuple(name for name in names if build_missing or _engine_for(engine, name).is_built())
    return built or (DEFAULT_TOOLCHAIN,)


def _engine_for(engine: Engine, name: str) -> Engine:
    return engine if name == DEFAULT_TOOLCHAIN else engine.with_toolchain(name)


def _key_order(model: Model) -> KeyOrderFacts | None:
    try:
        options = read_post_process_options(model)
    except IntegrityError:
        return None  # options that TOCO did not write: the comparison reports them
    if options is None:
        return None
    order = options.order
    return KeyOrderFacts(order=order, is_possible=is_possible(order), order_count=order_count(order))


def _attempts(
    engine: Engine,
    name: str,
    model: Model,
    conversion: Conversion,
    request: MatchRequest,
    work_dir: Path,
) -> tuple[Attempt, ...]:
    """Convert with one toolchain, in both dialects in parallel."""
    spec, graph, other = load_toolchain(name), request.graph.resolve(), _engine_for(engine, name)
    other.prepare()
    with other.open(Folders(read_only=(graph,), writable=(work_dir,)), {}) as session:

        def work(dialect: str) -> Attempt:
            made = work_dir / f"{name}-{dialect}.tflite"
            argv = _native(conversion, Dialect(dialect), str(graph), str(made), request.more_flags)
            label = f"{name} {dialect}"
            log_dir = request.options.log_dir / name / dialect
            options = replace(request.options, label=label, log_dir=log_dir)
            attempt = _attempt(spec, Dialect(dialect), conversion, request)
            try:
                run_toco(session, argv, made, options)
            except ScriptError as problem:
                return replace(attempt, failure=problem)
            return replace(attempt, diff=diff_models(read_model_file(made), model))

        dialects = [dialect.value for dialect in Dialect]
        return run_together(session, work, dialects, memory_mib=request.options.memory_mib)


def _with_one_success(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Return the attempts, after checking that at least one succeeded.

    Raises:
        ScriptError: all have failed.
    """
    first = attempts[0].failure
    if first is not None and all(attempt.failure is not None for attempt in attempts):
        raise first
    return attempts


# Commands.


def _native(
    conversion: Conversion, dialect: Dialect, graph: str, output: str, more_flags: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the native command that gives the same file as a dialect with its default flags."""
    return toco_argv(
        graph=graph,
        output=output,
        inference_type=conversion.inference_type,
        input_array=conversion.input_array,
        input_shape=conversion.input_shape,
        output_arrays=conversion.output_arrays,
        mean_value=conversion.mean_value,
        std_value=conversion.std_value,
        more_flags=(*more_flags, *_dialect_flags(dialect)),
    )


def _dialect_flags(dialect: Dialect) -> tuple[str, ...]:
    return () if dialect.changes_concat_input_ranges else (f"--{CONCAT_FLAG}=false",)


def _attempt(spec: ToolchainSpec, dialect: Dialect, conversion: Conversion, request: MatchRequest) -> Attempt:
    """Return an attempt that has not been run yet, with its commands."""
    native = _native(conversion, dialect, str(request.graph), MADE, request.more_flags)
    translated = as_tflite_convert(native, spec.tflite_convert_flags)
    return Attempt(
        toolchain=spec.name,
        tensorflow=spec.tensorflow,
        same_bytes_as=spec.same_bytes_as,
        dialect=dialect,
        commands=_own_commands(spec, conversion, request, dialect),
        native=shlex.join(native),
        tflite_convert=None if translated is None else shlex.join(translated),
    )


def _own_commands(
    spec: ToolchainSpec, conversion: Conversion, request: MatchRequest, dialect: Dialect
) -> tuple[str, ...]:
    """Return the commands of this program that produce the file: convert, then apply the file's key order."""
    program, flags = ("python", "-m", "runner"), (*request.more_flags, *_dialect_flags(dialect))
    options = {
        "--toolchain": spec.name,
        "--out": MADE,
        "--inference-type": conversion.inference_type.value,
        "--input-array": conversion.input_array,
        "--input-shape": ",".join(map(str, conversion.input_shape)),
        "--output-arrays": ",".join(conversion.output_arrays),
        "--mean-value": None if conversion.mean_value is None else f"{conversion.mean_value:g}",
        "--std-value": None if conversion.std_value is None else f"{conversion.std_value:g}",
    }
    given = (word for name, value in options.items() if value is not None for word in (name, value))
    toco = (*program, "toco", str(request.graph), *given, *(("--", *flags) if flags else ()))
    ordered = (*program, "verify", MADE, "--against", str(request.file), "--write", f"ordered.{MADE}")
    return shlex.join(toco), shlex.join(ordered)
