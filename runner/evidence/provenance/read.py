"""Read a provenance file into dataclasses and validate it.

``write.py`` writes the file; ``verify.py`` and ``runner/proof/explain.py`` use the dataclasses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from runner.errors import IntegrityError, UsageError
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.recipes.settings import Settings, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.host.digests import FileDigests
    from runner.recipes.recipe import Recipe

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:mobiledet-runner:conversion:v1"
BUILDER_PREFIX: Final = "urn:mobiledet-runner:engine:"
MAX_PROVENANCE_BYTES: Final = 4 << 20
Json = dict[str, Any]


class Role(str, Enum):
    """The role of a provenance entry in the conversion; the value is written to the file."""

    FINAL = "final file"
    RAW = "TOCO's own file"
    GRAPH = "frozen graph"
    GRAPH_TEXT = "frozen graph as text"
    EDITED_CONFIG = "edited pipeline config"
    COPY = "copy"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    ARCHIVE = "archive"
    CONFIG = "pipeline config"
    INDEX = "checkpoint index"
    DATA = "checkpoint data"
    SHIPPED_GRAPH = "frozen graph of the archive"
    TEMPLATE = "graph template"
    TOOLCHAIN = "toolchain sources"
    IMAGE = "toolchain image"
    ENVIRONMENT = "toolchain environment"
    BASE_IMAGE = "base image"
    INTERPRETER = "interpreter"
    MODELS_TREE = "models tree"
    MANIFEST = "manifest of the models tree"
    LOCK = "lock of the wheels"


class GraphOrigin(str, Enum):
    """How the frozen graph was made; the value is written to the file."""

    SCRIPT = "script"
    TEMPLATE = "template"
    ARCHIVE = "archive"


OUTPUT_FILES: Final = frozenset(
    {Role.FINAL, Role.RAW, Role.GRAPH, Role.GRAPH_TEXT, Role.EDITED_CONFIG, Role.COPY, Role.LOG}
)
CHECKPOINT_FILES: Final = frozenset({Role.CONFIG, Role.INDEX, Role.DATA, Role.SHIPPED_GRAPH})
PROJECT_FILES: Final = frozenset({Role.MANIFEST, Role.LOCK})
FILES: Final = OUTPUT_FILES | CHECKPOINT_FILES | PROJECT_FILES


@dataclass(frozen=True, kw_only=True)
class Named:
    """An entry of a provenance. The name of a file is a path relative to a folder that its role implies."""

    name: str
    role: Role
    digests: Mapping[str, str]
    annotations: Mapping[str, Any]

    @property
    def canonical_sha256(self) -> str | None:
        """The digest of the normalized form, if the bytes differ from run to run."""
        return self.annotations.get("canonicalSha256")


def recorded_form(digests: FileDigests) -> dict[str, str]:
    """Return the digests of a file as a provenance records them, keyed by algorithm."""
    return {"sha256": digests.sha256, "md5": digests.md5, "gitBlob": digests.git_blob}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A script that was run; in ``argv``, ${TF_MODEL_DIR} and ${TFLITE_MODEL_DIR} stand for folders."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OwnModelRecord:
    """How the user's own model was converted; ``pipeline_config`` is relative to the model directory."""

    mean_value: float | None
    std_value: float | None
    toco_flags: tuple[str, ...]
    drop_unknown_fields: bool
    ignore_quantization: bool
    pipeline_config: str


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """The user's request: recipe, variant and settings; without a recipe, ``own_model`` replaces it.

    For the user's own model, the variant is the stem of the file names. TOCO ran in ``toolchain``.
    """

    recipe: str | None
    recipe_sha256: str | None
    variant: str
    settings: Settings
    checkpoint_prefix: str
    toolchain: str
    own_model: OwnModelRecord | None

    def is_of(self, recipe: Recipe) -> bool:
        """Whether the request used exactly this recipe, not another one with the same name."""
        return self.recipe == recipe.name and self.recipe_sha256 in (None, recipe.digest)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The content of a provenance file."""

    path: Path
    subject: Named
    byproducts: tuple[Named, ...]
    dependencies: tuple[Named, ...]
    is_published_file: bool
    is_published_because: str
    check_sentence: str | None
    request: RecordedRequest
    steps: tuple[Step, ...]
    config_changes: tuple[str, ...]
    graph_from: GraphOrigin
    audit_sentence: str | None
    """The result of auditing a graph template with this checkpoint; None if there was no audit."""
    engine: str
    version: str

    def dependency(self, role: Role) -> Named | None:
        """Return the first input with a role; None if there is none."""
        return next((named for named in self.dependencies if named.role is role), None)


def read_provenance(path: Path) -> Provenance:
    """Read a provenance file that this tool wrote.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        IntegrityError: the file is not an in-toto statement with a SLSA provenance of this tool.
    """
    content = _read_bounded(path)
    try:
        statement: Any = json.loads(content)
        return _provenance(path, statement)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as problem:
        raise IntegrityError(
            f"{path} is not a provenance of this tool, or is damaged: {problem}"
        ) from problem


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROVENANCE_BYTES + 1)
    except OSError as problem:
        raise UsageError(
            f"cannot read {path}: {problem.strerror}", tip="name the provenance.json beside a converted file"
        ) from problem
    if len(content) > MAX_PROVENANCE_BYTES:
        raise IntegrityError(f"{path} is too large for a provenance")
    return content


def _provenance(path: Path, statement: Json) -> Provenance:
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError("this is not an in-toto statement with a SLSA provenance")
    definition = statement["predicate"]["buildDefinition"]
    run = statement["predicate"]["runDetails"]
    if definition["buildType"] != BUILD_TYPE:
        raise ValueError(f"its build type is {definition['buildType']}")
    (subject,) = statement["subject"]
    check = subject["annotations"].get("check")
    external, internal = definition["externalParameters"], definition["internalParameters"]
    return Provenance(
        path=path,
        subject=_output({**subject, "annotations": {**subject["annotations"], "role": Role.FINAL.value}}),
        byproducts=tuple(_output(entry) for entry in run["byproducts"]),
        dependencies=tuple(_named(entry) for entry in definition["resolvedDependencies"]),
        is_published_file=bool(subject["annotations"]["published"]["isPublishedFile"]),
        is_published_because=str(subject["annotations"]["published"]["because"]),
        check_sentence=None if check is None else str(check["sentence"]),
        request=RecordedRequest(
            recipe=None if "ownModel" in external else str(external["recipe"]),
            recipe_sha256=external.get("recipeSha256"),
            variant=str(external["variant"]),
            settings=from_json(external),
            checkpoint_prefix=str(external["checkpointPrefix"]),
            toolchain=str(external.get("toolchain", DEFAULT_TOOLCHAIN)),
            own_model=_own_model(external["ownModel"]) if "ownModel" in external else None,
        ),
        steps=tuple(
            Step(name=_text(step["name"]), argv=tuple(map(_text, step["argv"]))) for step in internal["steps"]
        ),
        config_changes=tuple(
            f"{change['field']}: {change['from']} -> {change['to']}" for change in internal["configChanges"]
        ),
        graph_from=GraphOrigin(internal.get("graphFrom", GraphOrigin.SCRIPT.value)),
        audit_sentence=_text(internal["templateAudit"]["sentence"]) if "templateAudit" in internal else None,
        engine=_text(run["builder"]["id"]).removeprefix(BUILDER_PREFIX),
        version=_text(run["builder"]["version"]["mobiledet-runner"]),
    )


def _own_model(entry: Json) -> OwnModelRecord:
    mean, std = (None if entry[key] is None else float(entry[key]) for key in ("meanValue", "stdValue"))
    return OwnModelRecord(
        mean_value=mean,
        std_value=std,
        toco_flags=tuple(map(str, entry["tocoFlags"])),
        drop_unknown_fields=bool(entry["dropUnknownFields"]),
        ignore_quantization=bool(entry.get("ignoreQuantization", False)),
        pipeline_config=str(entry["pipelineConfig"]),
    )


def _output(entry: Json) -> Named:
    named = _named(entry)
    if "sha256" not in named.digests:
        raise ValueError(f"{named.name} has no sha256")
    return named


def _named(entry: Json) -> Named:
    named = Named(
        name=_text(entry.get("name") or entry["uri"]),
        role=Role(entry["annotations"]["role"]),
        digests={_text(name): _text(digest) for name, digest in entry.get("digest", {}).items()},
        annotations=entry["annotations"],
    )
    if named.role in FILES and not _is_nearby(named.name):
        raise ValueError(f"the path {named.name!r} leads away from the folder of the provenance")
    return named


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _is_nearby(name: str) -> bool:
    """Return whether a path is near the provenance; we must not read other files for a malicious one."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts[1:]
