"""Compare a checkpoint with the published one, tensor by tensor."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.files import CheckpointFiles
from runner.checkpoint.index import verify_data
from runner.errors import ConfigError, IntegrityError
from runner.host.digests import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runner.checkpoint.files import ModelFiles
    from runner.checkpoint.index import Bundle, TensorEntry
    from runner.recipes.recipe import Variant


@dataclass(frozen=True, kw_only=True)
class CheckpointVerdict:
    """The result of comparing a checkpoint with the published one."""

    matching: int
    differing: tuple[str, ...]
    """Tensors with the right dtype and shape but other values."""
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    """Tensors with another dtype or shape, as text with the found and the expected dtype and shape."""
    extra: tuple[str, ...]
    """Tensors that are not in the published checkpoint, such as optimizer slots; these are allowed."""
    digest: str
    """sha256 over name, dtype, shape and CRC of every tensor."""
    is_compared: bool = True
    """False if the recipe has no table of the published checkpoint; then all tensors are ``extra``."""

    @property
    def fits(self) -> bool:
        """Whether the checkpoint has all tensors with the expected dtypes and shapes."""
        return not (self.missing or self.misshapen)

    @property
    def is_published(self) -> bool:
        """Whether the checkpoint fits and all its published tensors have the published values."""
        return self.is_compared and self.fits and not self.differing

    @property
    def sentence(self) -> str:
        """The result as one line of text."""
        if not self.is_compared:
            if not self.extra:
                return "a frozen graph from the archive, which is converted without an export"
            return f"a checkpoint of {len(self.extra)} tensors; the recipe has no table to compare them with"
        if self.is_published:
            return f"all {self.matching} tensors are the published ones{self._ignored}"
        return f"not the published weights: {self.differences}"

    @property
    def differences(self) -> str:
        """The differences as text, with an example of each kind."""
        total = self.matching + len(self.differing) + len(self.missing) + len(self.misshapen)
        parts = {
            "missing": self.missing,
            "with another shape or dtype": self.misshapen,
            "with other values": self.differing,
        }
        said = ", ".join(f"{len(names)} {what} {_some(names)}" for what, names in parts.items() if names)
        return f"of {total} tensors, {said}{self._ignored}"

    @property
    def _ignored(self) -> str:
        return f"; ignored extra tensors, such as optimizer slots: {len(self.extra)}" if self.extra else ""


_NOTHING_COMPARED: Final = CheckpointVerdict(
    matching=0, differing=(), missing=(), misshapen=(), extra=(), digest="", is_compared=False
)


def check_checkpoint(bundle: Bundle, variant: Variant) -> CheckpointVerdict:
    """Verify a checkpoint's data against its index, then compare it with the recipe's table, if it has one.

    Raises:
        IntegrityError: the checkpoint is damaged: its data does not match its index.
        FileNotFoundError: a file is missing; call `find_checkpoint` first, which explains what is missing.
    """
    verify_data(bundle)
    if variant.tensor_table is None:
        return replace(_compare(bundle, {}), is_compared=False)
    return _compare(bundle, read_tensor_table(variant.tensor_table))


def check_model(files: ModelFiles, variant: Variant) -> CheckpointVerdict:
    """Check the files that a conversion starts from; a frozen graph is not compared.

    Raises:
        IntegrityError: as `check_checkpoint`.
    """
    if isinstance(files, CheckpointFiles):
        return check_checkpoint(files.bundle, variant)
    return replace(_NOTHING_COMPARED, digest=sha256_of(files.graph))


def require_fit(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Check that a user's checkpoint has the variables of the variant; the weights may differ.

    Raises:
        ConfigError: required tensors are missing or have another shape or dtype, or the variant is a float
            model but the checkpoint has quantization ranges.
    """
    if not verdict.fits:
        raise ConfigError(
            f"the checkpoint {prefix} does not fit the variant {variant.name}: {verdict.differences}",
            tip=_why_no_fit(verdict),
        )
    if not (variant.has_quantized_graph or variant.ignore_quantization):
        require_no_ranges(
            verdict.extra,
            prefix,
            f"{variant.name} is converted as a float model",
            tip="use the checkpoint of the float model, or the config that this checkpoint was trained with, "
            "which has a graph_rewriter; `convert --ignore-quantization` converts this checkpoint as float",
        )


def require_no_ranges(names: Iterable[str], prefix: Path, reason: str, *, tip: str) -> None:
    """Check that a checkpoint has no quantization ranges; ``reason`` states why they would be ignored.

    Raises:
        ConfigError: some of its tensors are quantization ranges.
    """
    ranges = tuple(filter(_is_quantization_range, names))
    if ranges:
        raise ConfigError(
            f"the checkpoint {prefix} comes from quantization-aware training, but {reason}: "
            f"{len(ranges)} quantization ranges {_some(ranges)} would be ignored",
            tip=tip,
        )


def report_weights(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Print whether a checkpoint has the published weights."""
    if verdict.is_published or not verdict.is_compared:
        console.note(f"   {variant.name}: {verdict.sentence}")
    else:
        console.warn(f"{prefix}: {verdict.sentence}")


def require_published(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Check that a downloaded checkpoint is the published one, if the recipe has a table to compare it with.

    Raises:
        IntegrityError: the checkpoint is not the published one.
    """
    if verdict.is_compared and not verdict.is_published:
        raise IntegrityError(f"the checkpoint {prefix.name} of {variant.name}: {verdict.sentence}")
    console.note(f"   {variant.name}: {verdict.sentence}")


def read_tensor_table(path: Path) -> Mapping[str, tuple[str, tuple[int, ...], int]]:
    """Read a recipe's table of variables; maps each name to dtype, shape and masked CRC-32C."""
    table = {}
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, dtype, shape, crc = line.split("\t")
            table[name] = (dtype, tuple(int(size) for size in shape.split(",") if size), int(crc, 16))
    return table


def digest_of_tensors(tensors: Iterable[TensorEntry]) -> str:
    """Return a digest of a checkpoint's tensors that does not depend on their order or data files."""
    digest = hashlib.sha256()
    for entry in sorted(tensors, key=lambda entry: entry.name):
        shape = ",".join(str(size) for size in entry.shape)
        digest.update(f"{entry.name}\t{entry.dtype}\t{shape}\t{entry.masked_crc32c:08x}\n".encode())
    return digest.hexdigest()


def _compare(bundle: Bundle, table: Mapping[str, tuple[str, tuple[int, ...], int]]) -> CheckpointVerdict:
    differing, missing, misshapen = [], [], []
    for name, (dtype, shape, crc) in table.items():
        entry = bundle.tensors.get(name)
        if entry is None:
            missing.append(name)
        elif (entry.dtype, entry.shape) != (dtype, shape):
            is_there = f"{entry.dtype} {list(entry.shape)}"
            misshapen.append(f"{name}: {is_there} instead of {dtype} {list(shape)}")
        elif entry.masked_crc32c != crc:
            differing.append(name)
    return CheckpointVerdict(
        matching=len(table) - len(differing) - len(missing) - len(misshapen),
        differing=tuple(differing),
        missing=tuple(missing),
        misshapen=tuple(misshapen),
        extra=tuple(sorted(bundle.tensors.keys() - table.keys())),
        digest=digest_of_tensors(bundle.tensors.values()),
    )


def _why_no_fit(verdict: CheckpointVerdict) -> str:
    if verdict.missing and all(_is_quantization_range(name) for name in verdict.missing):
        return "this looks like a float checkpoint; use a checkpoint from quantization-aware training"
    return "use a checkpoint of this model; for another model use `convert`"


def _is_quantization_range(name: str) -> bool:
    return re.search(r"_quant/(min|max)$", name) is not None


def _some(names: tuple[str, ...]) -> str:
    return f"({names[0]}{', …' if len(names) > 1 else ''})"
