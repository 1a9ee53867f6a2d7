"""Show that this toolchain makes a ``.tflite``: recover a checkpoint from it, convert that, and compare.

No checkpoint, cache or provenance of the original is read.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.checkpoint.files import CONFIG_NAME
from runner.checkpoint.index import read_index
from runner.deliver.request import Request, handle_request
from runner.host.cache_dir import cache_dir
from runner.proof.dialects import CONCAT_FLAG
from runner.proof.recovery.evidence import compare_with_table
from runner.proof.recovery.recover import recover_into
from runner.proof.recovery.source import PREFIX
from runner.tflite.diff import Kind, Verdict, diff_models
from runner.tflite.key_orders import POST_PROCESS, with_key_order_of
from runner.tflite.model import read_model, read_model_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.proof.recovery.evidence import TableComparison
    from runner.proof.recovery.recover import Recovered, Subject
    from runner.recipes.recipe import Variant
    from runner.scripts.provider import ToolchainProvider
    from runner.tflite.diff import Difference, ModelDiff
    from runner.tflite.model import Model

CONCAT: Final = f"--{CONCAT_FLAG}"
LATER_OPTIONS: Final = frozenset({"use_regular_nms", "detections_per_class"})
"""Options that exporters write since 2018. Older files lack them; the operator has defaults for them."""
SHOWN: Final = 10
MEANING: Final = (
    "This shows that this toolchain converts some checkpoint to the file. It does not show that the file was "
    "made from that checkpoint: for a file with other weights or biases, `prove` would recover another "
    "checkpoint and give the same verdict."
)


class FileVerdict(str, Enum):
    """How the new file compares with the given one; the value is used in JSON."""

    SAME_BYTES = "same-bytes"
    SAME_CONTENT = "same-content"
    DIFFERENT = "different"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One conversion of the recovered checkpoint: its TOCO flag for concatenations, and the comparison."""

    change_concat_input_ranges: bool | None
    verdict: FileVerdict
    reasons: tuple[str, ...]
    """The differences, in words; empty if the bytes are the same."""
    key_order_of_file: bool
    """Were the options' keys written in the file's order, which is not the fixed one?"""


@dataclass(frozen=True, kw_only=True)
class FileProof:
    """The result of a proof. ``published`` is the comparison with the recipe's tables, if it has any."""

    file: Path
    recovered: Recovered
    best: Attempt
    attempts: tuple[Attempt, ...]
    published: TableComparison | None

    @property
    def verdict(self) -> FileVerdict:
        """The best verdict of all attempts."""
        return self.best.verdict

    @property
    def holds(self) -> bool:
        """Does this toolchain make the file, or one with the same content?"""
        return self.verdict is not FileVerdict.DIFFERENT

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        made = self.recovered
        yield f"{self.file}: {_SENTENCES[self.verdict]}"
        yield (
            f"  checkpoint: {made.determined} of {made.variables} variables follow from the file, "
            f"with the config of {made.source}"
        )
        if made.approximate:
            yield f"  recovered only approximately: {', '.join(made.approximate)}"
        if self.best.change_concat_input_ranges is not None:
            yield f"  TOCO: {CONCAT}={str(self.best.change_concat_input_ranges).lower()}"
        if self.best.key_order_of_file:
            yield "  the keys of the detection operator's options are in the order of the file"
        for reason in self.best.reasons:
            yield f"  {reason}"
        if self.published is not None:
            yield f"  compared with the recipe's tables: {self.published.sentence}"
        yield MEANING


_SENTENCES: Final = {
    FileVerdict.SAME_BYTES: "this toolchain makes the same bytes",
    FileVerdict.SAME_CONTENT: "this toolchain makes the same tensors, scales and zero points, in other bytes",
    FileVerdict.DIFFERENT: "this toolchain makes another file",
}


def prove_file(file: Path, subject: Subject, provider: ToolchainProvider) -> FileProof:
    """Recover a checkpoint from a file, export and convert it with the real tools, and compare.

    Raises:
        ConfigError: the file has other convolutions than the model of the config.
        RunnerError: as `recover_into` and `handle_request`.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prove-", dir=cache_dir()) as scratch:
        model_dir = Path(scratch).resolve() / "checkpoint"
        model_dir.mkdir()
        recovered = recover_into(provider.engine(), subject, model_dir, provider.options())
        attempts = []
        for variant in _conversions(subject.source.variant):
            attempts.append(_attempt(subject, variant, model_dir, Path(scratch).resolve() / "made", provider))
            if attempts[-1].verdict is not FileVerdict.DIFFERENT:
                break
        published = None
        if subject.source.published is not None:
            bundle = read_index(model_dir / PREFIX)
            published = compare_with_table(
                subject.source.published, bundle, recovered.ranges, recovered.not_determined
            )
    best = min(attempts, key=lambda it: (list(FileVerdict).index(it.verdict), len(it.reasons)))
    return FileProof(file=file, recovered=recovered, best=best, attempts=tuple(attempts), published=published)


def _conversions(variant: Variant) -> Iterator[Variant]:
    """Yield the variant as it is and, if it is quantized, with TOCO's other setting for concatenations."""
    yield variant
    if variant.is_quantized:
        others = tuple(flag for flag in variant.toco_flags if not flag.startswith(CONCAT))
        other = str(not _changes_concat(variant)).lower()
        yield replace(variant, toco_flags=(*others, f"{CONCAT}={other}"))


def _changes_concat(variant: Variant) -> bool:
    """Return TOCO's setting for concatenations, which is true if the flag is not given."""
    values = [flag.partition("=")[2] for flag in variant.all_toco_flags if flag.startswith(CONCAT)]
    return not values or values[-1].lower() == "true"


def _attempt(
    subject: Subject, variant: Variant, model_dir: Path, out_dir: Path, provider: ToolchainProvider
) -> Attempt:
    recipe = replace(subject.source.recipe, variants={variant.name: variant})
    request = Request(
        recipe=recipe,
        variants=(variant.name,),
        model_dir=model_dir,
        pipeline_config=None if subject.source.published else model_dir / CONFIG_NAME,
        out_dir=out_dir / ("concat" if _changes_concat(variant) else "no-concat"),
        choices={"check": False},
        is_stand_in=True,
        use_cache=False,
    )
    (result,) = handle_request(request, provider)
    made = read_model_file(result.file)
    return compare_files(
        made, subject.model, concat=_changes_concat(variant) if variant.is_quantized else None
    )


def compare_files(made: Model, given: Model, *, concat: bool | None) -> Attempt:
    """Compare the file that was made with the given one, in the key order of the given one."""
    in_order = with_key_order_of(made, given)
    ordered = made if in_order is None else replace(read_model(in_order), source="the file made here")
    difference = diff_models(ordered, given)
    return Attempt(
        change_concat_input_ranges=concat,
        verdict=_verdict(difference),
        reasons=tuple(_reasons(difference)),
        key_order_of_file=in_order is not None and in_order != made.content,
    )


def _verdict(difference: ModelDiff) -> FileVerdict:
    if difference.verdict is Verdict.SAME_BYTES:
        return FileVerdict.SAME_BYTES
    rest = tuple(it for it in difference.differences if not _is_later_option(it))
    is_same = difference.means_the_same or {it.kind for it in rest} <= {Kind.METADATA}
    return FileVerdict.SAME_CONTENT if is_same else FileVerdict.DIFFERENT


def _is_later_option(difference: Difference) -> bool:
    """Return whether the given file lacks an option that later exporters write."""
    name = difference.where.removeprefix(f"{POST_PROCESS}.")
    return difference.kind is Kind.OPTION and name in LATER_OPTIONS and difference.right is None


def _reasons(difference: ModelDiff) -> Iterator[str]:
    if difference.verdict is Verdict.OTHER_LAYOUT:
        yield "the content is the same, but its layout in the file differs"
    for it in difference.differences[:SHOWN]:
        if it.changed is not None:
            largest = "" if it.largest is None else f", by at most {it.largest:g}"
            yield f"{it.kind.value} of {it.where}: {it.changed} of {it.total} values differ{largest}"
        else:
            yield f"{it.kind.value} {it.where}: {it.left} made here, {it.right} in the file"
    if len(difference.differences) > SHOWN:
        yield f"and {len(difference.differences) - SHOWN} more differences"
