"""Check ``.tflite`` files against their frozen graphs: find the graphs, compare, format the result."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import console
from runner.convert.export import GRAPH_NAME
from runner.engines.base import Folders
from runner.errors import IntegrityError, UsageError
from runner.evidence.check.clipping import summary
from runner.evidence.check.compare import ConcatSetting, SettingSource
from runner.evidence.check.run import TOLERANCE, CheckReport, CheckRequest, check_conversion, require_passed
from runner.evidence.provenance.find import find_provenance
from runner.evidence.provenance.read import Role, read_provenance
from runner.host.cache_dir import cache_dir
from runner.host.disk import translate_disk_full
from runner.tflite.model import read_model_file
from runner.tflite.structure import structure_problems
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.convert.pipeline import Conversion
    from runner.engines.base import Engine, Session
    from runner.evidence.provenance.read import Provenance
    from runner.recipes.recipe import Recipe, Variant
    from runner.scripts.run import ScriptOptions


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A ``.tflite`` file and the frozen graph it was made from.

    ``concat`` is the TOCO flag that the file was made with, or None if that is not recorded. ``is_of_recipe``
    is true if the provenance or the structure shows that the recipe made the file. ``has_random_weights`` is
    true if the provenance records that the file was made from a stand-in.
    """

    variant: Variant
    tflite: Path
    graph: Path
    concat: ConcatSetting | None = None
    is_of_recipe: bool = False
    has_random_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs for the file and the graph: the given images, or ``count`` random ones with ``seed``."""

    images: tuple[Path, ...] = ()
    seed: int = 0
    count: int = 2


def check_new(session: Session, conversion: Conversion) -> CheckReport:
    """Check the products of a conversion, in the session and the work folder of that conversion.

    Raises:
        IdentityError: the file does not compute what its frozen graph computes.
        RunnerError: as ``check_conversion``.
    """
    request = CheckRequest(
        variant=conversion.plan.variant,
        graph=conversion.graph,
        tflite=conversion.final,
        work_dir=conversion.folder,
        options=conversion.options,
        concat=_asked(conversion.plan.commands.toco, SettingSource.PLAN),
    )
    report = _check(session, request, is_of_recipe=bool(conversion.plan.recipe))
    require_passed(report, conversion.final)
    return report


def check_pairs(
    engine: Engine, pairs: tuple[Pair, ...], inputs: Inputs, options: ScriptOptions
) -> tuple[CheckReport, ...]:
    """Check existing files. The files, their graphs and the images are copied to a mounted folder.

    Raises:
        EngineError, BuildError: the toolchain is not available.
        UsageError: a file or an image cannot be read.
        RunnerError: as ``check_conversion``.
    """
    with open_pairs(engine, pairs, inputs, options) as (session, requests):
        return tuple(
            _check(session, request, is_of_recipe=pair.is_of_recipe)
            for pair, request in zip(pairs, requests, strict=True)
        )


@contextlib.contextmanager
def open_pairs(
    engine: Engine, pairs: tuple[Pair, ...], inputs: Inputs, options: ScriptOptions
) -> Iterator[tuple[Session, tuple[CheckRequest, ...]]]:
    """Copy files, graphs and images to a mounted folder; yield a session and one request for each pair.

    Raises:
        EngineError, BuildError: the toolchain is not available.
        UsageError: a file or an image cannot be read.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="check-", dir=cache_dir()) as scratch:
        work_dir = Path(scratch).resolve()
        requests = tuple(
            _request(pair, inputs, work_dir / str(number), options) for number, pair in enumerate(pairs)
        )
        engine.prepare()
        with engine.open(Folders(writable=(work_dir,)), {}) as session:
            session.wait_until_ready()
            yield session, requests


def _check(session: Session, request: CheckRequest, *, is_of_recipe: bool) -> CheckReport:
    with console.step("check that the file computes what its graph computes", of=request.variant.name):
        report = check_conversion(session, request)
    if report.clipped:
        clipped = f"{console.label(report.variant)}change_concat_input_ranges=true: {summary(report.clipped)}"
        if is_of_recipe:
            console.note(f"   {clipped}; the published command of the recipe implies this value")
        else:
            console.warn(f"{clipped}; to avoid this, convert with --change_concat_input_ranges=false")
    return report


def _request(pair: Pair, inputs: Inputs, work_dir: Path, options: ScriptOptions) -> CheckRequest:
    return CheckRequest(
        variant=pair.variant,
        graph=_copied(pair.graph, work_dir),
        tflite=_copied(pair.tflite, work_dir),
        work_dir=work_dir,
        options=replace(options, label=pair.variant.name, log_dir=options.log_dir / work_dir.name),
        images=tuple(
            _copied(image, work_dir / "images" / str(number)) for number, image in enumerate(inputs.images)
        ),
        seed=inputs.seed,
        count=inputs.count,
        concat=pair.concat,
        has_random_weights=pair.has_random_weights,
    )


def _copied(file: Path, folder: Path) -> Path:
    try:
        with translate_disk_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return shutil.copyfile(file, folder / file.name)
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem.strerror}") from problem


# Find files and their graphs.


def find_pairs(
    path: Path,
    recipe: Recipe,
    *,
    graph: Path | None = None,
    variant_name: str | None = None,
    concat: bool | None = None,
) -> tuple[Pair, ...]:
    """Find the graph of one file, or all files and their graphs in a variant's folder or output directory.

    ``concat`` is ``change_concat_input_ranges``. If None, it is taken from the provenance of each file, if
    any.

    Raises:
        UsageError: there is no such file, variant or graph.
        IntegrityError: the file is not a ``.tflite`` file, or its provenance is damaged.
    """
    if variant_name is not None and variant_name not in recipe.variants:
        raise UsageError(
            f"{recipe.name} has no variant {variant_name!r}", tip=f"use one of {', '.join(recipe.variants)}"
        )
    if not path.is_dir():
        variant = recipe.variants[variant_name] if variant_name else _variant_of(path, recipe)
        pair = Pair(variant=variant, tflite=path, graph=graph or _graph_beside(path, variant))
        return (_with_what_is_known(pair, recipe, concat),)
    pairs = tuple(
        Pair(variant=variant, tflite=tflite, graph=graph or tflite.with_name(GRAPH_NAME))
        for variant in recipe.variants.values()
        for tflite in (path / variant.file_name, path / variant.name / variant.file_name)
        if tflite.is_file() and variant_name in (None, variant.name)
    )
    if not pairs:
        raise UsageError(
            f"{path} contains no converted file", tip="name a .tflite, or the output folder of a conversion"
        )
    return tuple(_with_what_is_known(pair, recipe, concat) for pair in pairs)


def _with_what_is_known(pair: Pair, recipe: Recipe, concat: bool | None) -> Pair:
    """Add to a pair whether the recipe made the file, and the setting for concatenations.

    The provenance names the recipe; if there is none, the structure of the file decides. The setting is the
    argument, or if that is None, the one in the provenance.
    """
    summary_of_file = summarise(read_model_file(pair.tflite))
    pair = replace(pair, is_of_recipe=not structure_problems(summary_of_file, recipe, pair.variant))
    found = find_provenance(pair.tflite)
    if found is not None:
        provenance = read_provenance(found)
        start = provenance.dependency(Role.CHECKPOINT) or provenance.dependency(Role.SHIPPED_GRAPH)
        pair = replace(
            pair,
            concat=_asked(_toco_argv(provenance), SettingSource.PROVENANCE),
            variant=_as_converted(pair.variant, _toco_argv(provenance)),
            is_of_recipe=provenance.request.is_of(recipe),
            has_random_weights=start is not None and bool(start.annotations.get("isStandIn")),
        )
    if concat is not None:
        stated = ConcatSetting(change_concat_input_ranges=concat, source=SettingSource.OPTION)
        pair = replace(pair, concat=stated)
    return pair


def _toco_argv(provenance: Provenance) -> tuple[str, ...]:
    argv = next((step.argv for step in provenance.steps if step.name == "toco"), None)
    if argv is None:
        raise IntegrityError(f"{provenance.path} records no toco command")
    return argv


def _as_converted(variant: Variant, toco_argv: tuple[str, ...]) -> Variant:
    """Return a variant with the mean and std of a ``toco`` command, which may differ from the recipe's."""
    flags = dict(word.split("=", 1) for word in toco_argv if "=" in word)
    if not flags.keys() >= {"--mean_values", "--std_values"}:
        return variant
    mean, std = float(flags["--mean_values"]), float(flags["--std_values"])
    return replace(variant, mean_value=mean, std_value=std)


def _asked(toco_argv: tuple[str, ...], source: SettingSource) -> ConcatSetting:
    """Return ``change_concat_input_ranges`` of a ``toco`` command: true, TOCO's default, unless set false."""
    is_false = "--change_concat_input_ranges=false" in map(str.lower, toco_argv)
    return ConcatSetting(change_concat_input_ranges=not is_false, source=source)


def _variant_of(tflite: Path, recipe: Recipe) -> Variant:
    """Return the variant with the same input type as the file: uint8 or float."""
    graph = read_model_file(tflite).graphs[0]
    is_quantized = [graph.tensors[index].dtype for index in graph.inputs] == ["uint8"]
    fitting = [it for it in recipe.variants.values() if it.is_quantized == is_quantized]
    if not fitting:
        raise UsageError(f"{recipe.name} has no variant with the input type of {tflite}")
    return fitting[0]


def _graph_beside(tflite: Path, variant: Variant) -> Path:
    """Find the graph beside the file, or in the folder of its variant if the file is a copy."""
    candidates = (tflite.with_name(GRAPH_NAME), tflite.parent / variant.name / GRAPH_NAME)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UsageError(f"there is no frozen graph {GRAPH_NAME} beside {tflite}", tip="pass it as --graph")
    return found


# Format the result.


def sentence(report: CheckReport) -> str:
    """Return one sentence that states what was checked; equal inputs give the same sentence."""
    images = f"{report.images} images" + ("" if report.seed is None else f" of noise (seed {report.seed})")
    if report.quantized_tensors:
        return (
            f"the weights (within one step), biases, scales and zero points of {report.convolutions} "
            "convolutions and the detection operator's options match the graph, with "
            f"{_concat_words(report)}; raw boxes and classes on {images} {_judged_steps(report)}"
        )
    if all(each.limit is None for each in report.differences):
        return (
            f"the weights (within one step) and biases of {report.convolutions} convolutions and the "
            f"detection operator's options match the graph; raw boxes and classes on {images} were compared, "
            "without a limit, because the file has FAKE_QUANT operators, whose rounding errors grow from "
            "layer to layer"
        )
    return (
        f"the weights and biases of {report.convolutions} convolutions and the detection operator's options "
        f"match the graph; raw boxes and classes on {images} differ from the outputs of the graph by at most "
        f"{TOLERANCE:g} of the largest magnitude (of 1, if that is smaller), in TensorFlow 1.15's "
        "interpreter and in LiteRT"
    )


def _concat_words(report: CheckReport) -> str:
    value = report.concat.change_concat_input_ranges
    if value is None:
        return "either value of change_concat_input_ranges"
    said = f"change_concat_input_ranges={str(value).lower()} (known from {report.concat.source.value})"
    return f"{said} and {summary(report.clipped)}" if report.clipped else said


def _judged_steps(report: CheckReport) -> str:
    limits = {each.output: each.limit for each in report.differences if each.limit is not None}
    if not limits:
        because = ", because the weights are random" if report.has_random_weights else ""
        return f"were compared in quantization steps, without a limit{because}"
    within = " and ".join(f"{limit:g} ({output})" for output, limit in limits.items())
    return (
        f"differ from the outputs of the graph by at most {within} quantization steps, in TensorFlow 1.15's "
        "interpreter and in LiteRT"
    )


def for_provenance(report: CheckReport) -> dict[str, Any]:
    """Return the part of a check that the provenance records; measurements are omitted, as they vary."""
    return {
        "sentence": sentence(report),
        "convolutions": report.convolutions,
        "quantizedTensors": report.quantized_tensors,
        "images": report.images,
        **({} if report.seed is None else {"seed": report.seed}),
        **({"clipped": [each.sentence for each in report.clipped]} if report.clipped else {}),
    }


def lines(report: CheckReport, pair: Pair) -> Iterator[str]:
    """Return the lines that report a check, with its measurements."""
    if report.passed:
        yield f"{pair.tflite} computes what {pair.graph.name} computes: {sentence(report)}"
    else:
        yield f"{pair.tflite} does not compute what {pair.graph.name} computes"
    for clipped in report.clipped:
        yield f"  {clipped.sentence}"
    for finding in report.findings:
        yield f"  {finding.tensor}: {finding.what} is {finding.found}, not {finding.expected}"
    for each in report.differences:
        judged = "no limit" if each.limit is None else f"limit {each.limit:.3g}"
        yield f"  {each.output}, {each.runtime}: off by {each.largest:.3g} {each.unit} ({judged})"
