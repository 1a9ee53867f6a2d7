"""Show that this toolchain reproduces a ``.tflite``: recover a checkpoint, convert it, and compare.

The recovered checkpoint is exported once, and the frozen graph is converted with each TOCO and dialect that
`runner.proof.match` tries. Only the file itself is used as input: neither the checkpoint that it was made
from, nor its provenance, nor the conversion cache is read.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.checkpoint.files import CONFIG_NAME
from runner.checkpoint.index import read_index
from runner.convert.one_step import ExportRequest, export_alone
from runner.engines.base import Folders
from runner.engines.persistent import PersistentEngine
from runner.host.cache_dir import cache_dir
from runner.proof.dialects import CONCAT_FLAG
from runner.proof.match import MatchRequest, match
from runner.proof.recovery.evidence import compare_with_table
from runner.proof.recovery.recover import recover_into
from runner.proof.recovery.same_content import is_same_content, reasons
from runner.proof.recovery.source import PREFIX
from runner.tflite.key_orders import PUBLIC_TOCO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.proof.match import Attempt as Conversion
    from runner.proof.match import KeyOrderFacts, MatchReport
    from runner.proof.recovery.evidence import TableComparison
    from runner.proof.recovery.recover import Recovered, Subject
    from runner.recipes.recipe import Dialect
    from runner.scripts.provider import ToolchainProvider

MEANING: Final = (
    "This shows that there is a checkpoint that this toolchain converts to the file. It does not show that "
    "the file was made from that checkpoint: for a file with other weights or biases, `prove` would recover "
    "another checkpoint and give the same verdict."
)


class FileVerdict(str, Enum):
    """How the new file compares with the given one; the value is used in JSON."""

    SAME_BYTES = "same-bytes"
    SAME_CONTENT = "same-content"
    DIFFERENT = "different"


VERDICTS: Final = tuple(FileVerdict)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A conversion of the recovered checkpoint, and the comparison of its result with the file."""

    toolchain: str
    tensorflow: str
    dialect: Dialect
    change_concat_input_ranges: bool | None
    """TOCO's setting for concatenations; None for a float file, which does not depend on it."""
    verdict: FileVerdict
    reasons: tuple[str, ...]
    """The differences, as text; empty if the bytes are the same."""


@dataclass(frozen=True, kw_only=True)
class FileProof:
    """The result of a proof. ``published`` is the comparison with the recipe's tables, if it has any.

    ``not_tried`` are the toolchains that are not built.
    """

    file: Path
    recovered: Recovered
    attempts: tuple[Attempt, ...]
    key_order: KeyOrderFacts | None
    not_tried: tuple[str, ...]
    published: TableComparison | None

    @property
    def best(self) -> Attempt:
        """The attempt whose result is closest to the file."""
        return min(self.attempts, key=lambda it: (VERDICTS.index(it.verdict), len(it.reasons)))

    @property
    def verdict(self) -> FileVerdict:
        """The best verdict of all attempts."""
        return self.best.verdict

    @property
    def holds(self) -> bool:
        """Whether this toolchain reproduces the file, or one with the same content."""
        return self.verdict is not FileVerdict.DIFFERENT

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        made = self.recovered
        yield f"{self.file}: {_SENTENCES[self.verdict]}"
        yield (
            f"  checkpoint: {made.determined} of {made.variables} variables are determined by the file and "
            f"the config of {made.source}"
        )
        if made.approximate:
            yield f"  recovered only approximately: {', '.join(made.approximate)}"
        alike = (it for it in self.attempts if it.verdict is self.verdict and it.reasons == self.best.reasons)
        yield from dict.fromkeys(f"  TOCO: {_named(attempt)}" for attempt in alike)
        yield from (f"  {reason}" for reason in self.best.reasons)
        if self.key_order is not None and not self.key_order.is_possible:
            yield f"  the options of the detection operator are in an order that {PUBLIC_TOCO} never writes"
        if self.published is not None:
            yield f"  compared with the recipe's tables: {self.published.sentence}"
        if self.not_tried and self.verdict is not FileVerdict.SAME_BYTES:
            yield f"  not tried, because not built: {', '.join(self.not_tried)} (--all builds them)"
        yield MEANING


def _named(attempt: Attempt) -> str:
    value = attempt.change_concat_input_ranges
    setting = "" if value is None else f", --{CONCAT_FLAG}={str(value).lower()}"
    return f"toolchain {attempt.toolchain}, TensorFlow {attempt.tensorflow}{setting}"


_SENTENCES: Final = {
    FileVerdict.SAME_BYTES: "this toolchain produces the same bytes",
    FileVerdict.SAME_CONTENT: "this toolchain produces the same content (tensors, scales), but other bytes",
    FileVerdict.DIFFERENT: "this toolchain produces a different file",
}


def prove_file(
    file: Path, subject: Subject, provider: ToolchainProvider, *, build_missing: bool = False
) -> FileProof:
    """Recover a checkpoint from a file, export and convert it with the real tools, and compare.

    ``build_missing`` builds the toolchains that are not built yet; otherwise they are left out.

    Raises:
        ConfigError: the file has other convolutions than the model that the config describes.
        RunnerError: as `recover_into`, `export_alone` and `match`.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    seen = Folders(read_only=(subject.source.config,), writable=(cache_dir(),))
    with (
        contextlib.closing(PersistentEngine(provider.engine(), seen)) as engine,
        tempfile.TemporaryDirectory(prefix="prove-", dir=cache_dir()) as scratch,
    ):
        model_dir, options = Path(scratch).resolve() / "checkpoint", provider.options()
        model_dir.mkdir()
        recovered = recover_into(engine, subject, model_dir, options)
        export = ExportRequest(
            pipeline_config=model_dir / CONFIG_NAME,
            checkpoint_prefix=model_dir / PREFIX,
            settings=subject.source.variant.settings,
            options=options,
            more_flags=subject.source.variant.export_flags,
        )
        graph = export_alone(engine, export, Path(scratch).resolve() / "export", overwrite=False)
        flags = tuple(it for it in subject.source.variant.toco_flags if not it.startswith(f"--{CONCAT_FLAG}"))
        report = match(
            engine,
            MatchRequest(
                file=file.expanduser().resolve(),
                graph=graph,
                options=options,
                more_flags=flags,
                build_missing=build_missing,
            ),
        )
        return FileProof(
            file=file,
            recovered=recovered,
            attempts=tuple(_attempts(report, subject)),
            key_order=report.key_order,
            not_tried=report.not_tried,
            published=_compare_with_published(subject, recovered, model_dir),
        )


def _compare_with_published(
    subject: Subject, recovered: Recovered, model_dir: Path
) -> TableComparison | None:
    if subject.source.published is None:
        return None
    bundle = read_index(model_dir / PREFIX)
    return compare_with_table(subject.source.published, bundle, recovered.ranges, recovered.not_determined)


def _attempts(report: MatchReport, subject: Subject) -> Iterator[Attempt]:
    for it in report.attempts:
        value = it.dialect.changes_concat_input_ranges if subject.tensors.is_quantized else None
        yield Attempt(
            toolchain=it.toolchain,
            tensorflow=it.tensorflow,
            dialect=it.dialect,
            change_concat_input_ranges=value,
            verdict=_verdict(it),
            reasons=tuple(_reasons(it, subject)),
        )


def _verdict(conversion: Conversion) -> FileVerdict:
    if conversion.is_match:
        return FileVerdict.SAME_BYTES
    if conversion.diff is not None and is_same_content(conversion.diff):
        return FileVerdict.SAME_CONTENT
    return FileVerdict.DIFFERENT


def _reasons(conversion: Conversion, subject: Subject) -> Iterator[str]:
    if conversion.failure is not None:
        yield f"TOCO failed: {conversion.failure.message}"
    elif conversion.diff is not None and not conversion.is_match:
        yield from reasons(conversion.diff, subject.model)
