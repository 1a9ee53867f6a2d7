"""Verify a provenance: compare its digests with the files beside it, the checkpoint and this program."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from runner import console
from runner.checkpoint.compare import digest_of_tensors
from runner.checkpoint.index import index_path, read_index
from runner.errors import IntegrityError, UsageError
from runner.evidence.provenance.find import find_provenance
from runner.evidence.provenance.read import (
    CHECKPOINT_FILES,
    PROJECT_FILES,
    Role,
    read_provenance,
    recorded_form,
)
from runner.graph.canonical import canonical_graph
from runner.host.digests import digest_file
from runner.tflite.canonical import normalize_keys
from runner.toolchain.catalog import load_toolchain, toco_only_digest, toolchain_names
from runner.toolchain.digest import toolchain_digest
from runner.toolchain.pins import PROJECT_ROOT, load_base_image, load_models_pin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.evidence.provenance.read import Named, Provenance
    from runner.recipes.recipe import Recipe


class ClaimState(str, Enum):
    """The result of comparing a provenance entry with the local file; the value is used in JSON."""

    SAME = "same"
    REORDERED = "same content, different order"
    DIFFERENT = "different"
    ABSENT = "not available"


@dataclass(frozen=True, kw_only=True)
class ClaimCheck:
    """A provenance entry and the result of its verification."""

    name: str
    role: Role
    state: ClaimState


@dataclass(frozen=True, kw_only=True)
class ProvenanceReport:
    """The result of verifying a provenance: one finding for each entry."""

    provenance: Path
    findings: tuple[ClaimCheck, ...]

    @property
    def different(self) -> tuple[ClaimCheck, ...]:
        """The entries whose digest differs."""
        return tuple(finding for finding in self.findings if finding.state is ClaimState.DIFFERENT)

    @property
    def absent(self) -> tuple[ClaimCheck, ...]:
        """The entries that cannot be verified because their files are not available here."""
        return tuple(finding for finding in self.findings if finding.state is ClaimState.ABSENT)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.different:
            named = ", ".join(f"{finding.name} ({finding.role.value})" for finding in self.different)
            return f"these differ from the digests in {self.provenance}: {named}"
        checked = len(self.findings) - len(self.absent)
        return f"{checked} of {len(self.findings)} entries of {self.provenance} were verified, all match"


def warn_of_other_recipe(file: Path, recipe: Recipe) -> None:
    """Warn if the provenance of a file names another recipe than the one that the file is compared with.

    Raises:
        IntegrityError: the provenance is damaged.
    """
    found = find_provenance(file) if file.is_file() else None
    if found is None:
        return
    request = read_provenance(found).request
    if request.recipe is not None and not request.is_of(recipe):
        console.warn(
            f"{file.name} is compared with {recipe.reference}, but {found} records the recipe "
            f"{request.recipe} with sha256 {request.recipe_sha256}; choose the recipe with --recipe"
        )


def check_provenance(
    path: Path, *, file: Path | None = None, model_dir: Path | None = None, root: Path = PROJECT_ROOT
) -> ProvenanceReport:
    """Compare all available files with the digests in a provenance.

    ``file`` is the ``.tflite`` that the provenance describes; by default, it is beside ``path``.

    Raises:
        UsageError: the provenance cannot be read, or the file that it describes is missing.
        IntegrityError: this is not a provenance of this tool.
    """
    provenance = read_provenance(path)
    final = file or path.parent / provenance.subject.name
    if not final.is_file():
        raise UsageError(
            f"{final}, the converted file that {path} describes, does not exist",
            tip="keep a file and its provenance in one folder, or name both",
        )
    findings = (
        ClaimCheck(name=final.name, role=Role.FINAL, state=_state_of_file(final, provenance.subject)),
        *(_finding(named, path.parent / named.name) for named in provenance.byproducts),
        *_inputs(provenance, model_dir, root),
    )
    return ProvenanceReport(provenance=path, findings=findings)


def _inputs(provenance: Provenance, model_dir: Path | None, root: Path) -> Iterator[ClaimCheck]:
    tree = provenance.dependency(Role.MODELS_TREE)
    commit = "" if tree is None else tree.digests["gitCommit"]
    for named in provenance.dependencies:
        if named.role in PROJECT_FILES:
            yield _finding(named, root / named.name)
        elif named.role in CHECKPOINT_FILES and model_dir is not None:
            yield _finding(named, model_dir / named.name)
        elif named.role is Role.CHECKPOINT and model_dir is not None:
            yield _with_state(named, _state_of_checkpoint(model_dir / named.name, named))
        elif named.role is Role.MODELS_TREE:
            pin = load_models_pin(root)
            yield _with_state(named, _same_if(commit in (pin.github.commit, pin.pypi.commit)))
        elif named.role is Role.BASE_IMAGE and named.name == load_base_image(root):
            yield _with_state(named, ClaimState.SAME)
        elif named.role is Role.TOOLCHAIN:
            yield _with_state(named, _same_if(_digest_of(named, commit, root) == named.digests["sha256"]))
        else:
            yield _with_state(named, ClaimState.ABSENT)


def _digest_of(named: Named, commit: str, root: Path) -> str | None:
    """Return the current digest of a toolchain, or None if this program does not have that toolchain."""
    name = named.name.removeprefix("toolchain").strip()
    if not name:
        return toolchain_digest(commit, root)
    return toco_only_digest(load_toolchain(name), root) if name in toolchain_names() else None


def _finding(named: Named, path: Path) -> ClaimCheck:
    return _with_state(named, _state_of_file(path, named) if path.is_file() else ClaimState.ABSENT)


def _with_state(named: Named, state: ClaimState) -> ClaimCheck:
    return ClaimCheck(name=named.name, role=named.role, state=state)


def _same_if(is_same: bool) -> ClaimState:
    return ClaimState.SAME if is_same else ClaimState.DIFFERENT


def _state_of_file(path: Path, named: Named) -> ClaimState:
    found = recorded_form(digest_file(path))
    if all(found.get(algorithm) == digest for algorithm, digest in named.digests.items()):
        return ClaimState.SAME
    is_reordered = (
        named.canonical_sha256 is not None and _canonical_sha256(path, named.role) == named.canonical_sha256
    )
    return ClaimState.REORDERED if is_reordered else ClaimState.DIFFERENT


def _canonical_sha256(path: Path, role: Role) -> str | None:
    """Return the digest of the normalized form of a file that varies from run to run; None if damaged."""
    try:
        if role is Role.RAW:
            return normalize_keys(path, published=None).digests.sha256
        # The file is the graph. Version 0.1.0 recorded the graph as the script wrote it, with its
        # attributes in random order.
        return hashlib.sha256(canonical_graph(path.read_bytes())).hexdigest()
    except IntegrityError:
        return None


def _state_of_checkpoint(prefix: Path, named: Named) -> ClaimState:
    if not index_path(prefix).is_file():
        return ClaimState.ABSENT
    try:
        tensors = read_index(prefix).tensors.values()
    except IntegrityError:
        return ClaimState.DIFFERENT
    return _same_if(digest_of_tensors(tensors) == named.digests["tensorsSha256"])
