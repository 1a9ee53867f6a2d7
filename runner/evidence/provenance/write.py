"""What went in, what was run, what came out: an in-toto Statement v1 with the SLSA v1 provenance predicate.

The same inputs give the same document but for what ``stable_part`` takes out: the time, the number of the
run, and the digests of what differs from run to run (TOCO's own file, the graph, the logs).
Sources: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from runner import __version__
from runner.checkpoint.compare import check_checkpoint
from runner.checkpoint.fetch import origin_of
from runner.checkpoint.index import read_index
from runner.evidence.provenance.read import BUILD_TYPE, BUILDER_PREFIX, Role
from runner.graph.canonical import canonical_graph
from runner.host.digests import sha256_of
from runner.toolchain.pins import PROJECT_ROOT, load_models_pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.convert.pipeline import Conversion, Request
    from runner.engines.base import InterpreterFacts, Toolchain
    from runner.evidence.provenance.read import Json
    from runner.recipes.recipe import PublishedIdentity
    from runner.tflite.canonical import SettledFile

PROVENANCE_NAME: Final = "provenance.json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
TOOLCHAIN_LOCK: Final = "docker/requirements.lock"
MODELS_REPOSITORY: Final = "https://github.com/tensorflow/models"
MODEL_DIR: Final = "${TF_MODEL_DIR}"
OUT_DIR: Final = "${TFLITE_MODEL_DIR}"


def write_provenance(
    conversion: Conversion,
    toolchain: Toolchain,
    path: Path,
    *,
    check: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] | None = None,
) -> None:
    """Write the provenance of a conversion whose products are still in its work folder.

    ``check`` is what the comparison with the frozen graph said. ``paths`` says what TF_MODEL_DIR and
    TFLITE_MODEL_DIR stood for; without it no folder of this machine is named.
    """
    from runner.evidence.provenance.statement import validate_statement

    statement = describe_conversion(conversion, toolchain, check=check, paths=paths)
    validate_statement(statement)
    path.write_text(json.dumps(statement, indent=2, ensure_ascii=False) + "\n", "utf-8")


def describe_conversion(
    conversion: Conversion,
    toolchain: Toolchain,
    *,
    check: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] | None = None,
) -> Json:
    """Return the statement about a conversion."""
    request = conversion.request
    parameters = _external_parameters(request)
    if paths is not None:
        parameters["paths"] = {name: str(folder) for name, folder in paths.items()}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_subject(request, conversion.settled, check)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": _internal_parameters(conversion),
                "resolvedDependencies": [*_checkpoint(request), *_toolchain(toolchain)],
            },
            "runDetails": {
                "builder": {
                    "id": f"{BUILDER_PREFIX}{toolchain.engine}",
                    "version": {"mobiledet-runner": __version__},
                },
                "metadata": {
                    "invocationId": uuid.uuid4().urn,
                    "finishedOn": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                "byproducts": list(_byproducts(conversion)),
            },
        },
    }


def stable_part(statement: Json) -> Json:
    """Return what is the same whenever the same inputs are converted."""
    stable = deepcopy(statement)
    run = stable["predicate"]["runDetails"]
    del run["metadata"]
    for entry in run["byproducts"]:
        if entry["annotations"].get("differsFromRunToRun"):
            del entry["digest"]
    return stable


def named_digests(path: Path) -> frozenset[str]:
    """Return the sha256 of every output a provenance file names, its own included; none if it is not ours."""
    try:
        content = path.read_bytes()
        statement: Any = json.loads(content)
        run = statement["predicate"]["runDetails"]
        if not run["builder"]["id"].startswith(BUILDER_PREFIX):
            return frozenset()
        named = {entry["digest"]["sha256"] for entry in (*statement["subject"], *run["byproducts"])}
        return frozenset({*named, hashlib.sha256(content).hexdigest()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


# What came out.


def _subject(request: Request, settled: SettledFile, check: Mapping[str, Any] | None) -> Json:
    digests = settled.digests
    annotations = {
        "sizeBytes": digests.size_bytes,
        "published": _published(request.variant.published, settled),
    }
    if check is not None:
        annotations["check"] = dict(check)
    return {
        "name": request.final.name,
        "digest": {"sha256": digests.sha256, "md5": digests.md5, "gitBlob": digests.git_blob},
        "annotations": annotations,
    }


def _published(published: PublishedIdentity | None, settled: SettledFile) -> Json:
    """Say how the final file stands to what is publicly known of the published one."""
    if published is None:
        return {"isPublishedFile": False, "because": "nothing published is known for this variant"}
    return {
        "isPublishedFile": settled.matches_published,
        "because": f"MD5 and git blob id {'agree' if settled.matches_published else 'differ'}",
        "uri": published.url,
        "digest": {"md5": published.md5, "gitBlob": published.git_blob},
    }


def _byproducts(conversion: Conversion) -> Iterator[Json]:
    from runner.tflite.canonical import settle

    request, exported = conversion.request, conversion.exported
    settled = conversion.settled
    if settled.matches_published:
        settled = settle(request.raw, published=None)
    yield _varying(request.raw, Role.RAW, canonical=settled.digests.sha256)
    sorted_sha256 = hashlib.sha256(canonical_graph(exported.graph.read_bytes())).hexdigest()
    yield _varying(exported.graph, Role.GRAPH, canonical=sorted_sha256)
    yield _file(exported.config, Role.EDITED_CONFIG)
    yield _file(request.final, Role.COPY, name=f"../{request.variant.copy_name}")
    if exported.graph_text is not None:
        yield _varying(exported.graph_text, Role.GRAPH_TEXT)
    for run in (exported.run, conversion.toco_run):
        yield _varying(run.script.log, Role.LOG)


def _file(path: Path, role: Role, *, name: str | None = None) -> Json:
    return _named(name or path.name, role, {"sha256": sha256_of(path)})


def _varying(path: Path, role: Role, *, canonical: str | None = None) -> Json:
    """Describe a file whose bytes differ from run to run; ``canonical`` is a digest that does not."""
    entry = _file(path, role)
    entry["annotations"]["differsFromRunToRun"] = True
    if canonical is not None:
        entry["annotations"]["canonicalSha256"] = canonical
    return entry


# What was asked and what was run.


def _external_parameters(request: Request) -> Json:
    settings = request.settings
    return {
        "recipe": request.recipe.name,
        "variant": request.variant.name,
        "checkpointPrefix": request.checkpoint.prefix.name,
        "scoreThreshold": settings.score_threshold,
        "maxDetections": settings.max_detections,
        "keepPbtxt": settings.keep_pbtxt,
    }


def _internal_parameters(conversion: Conversion) -> Json:
    exported, settled = conversion.exported, conversion.settled
    config_step, *config_flags = exported.config_argv
    commands = (
        (PurePath(config_step).name, *config_flags),  # where our own steps lie is nobody's business
        exported.run.script.argv,
        conversion.toco_run.script.argv,
    )
    return {
        "steps": [{"name": argv[0], "argv": without_folders(argv, conversion.request)} for argv in commands],
        "configChanges": list(exported.config_report["changes"]),
        "optionOrder": list(settled.order or ()),
        "minRuntimeVersion": settled.min_runtime_version,
        "speedups": list(exported.speedups),
    }


def without_folders(argv: tuple[str, ...], request: Request) -> list[str]:
    """Return a command of a conversion as it would be on any machine."""
    variant = request.variant.name
    model_dir, work_dir = str(request.checkpoint.config.parent), str(request.work_dir)
    return [
        word.replace(work_dir, f"{OUT_DIR}/{variant}").replace(model_dir, f"{MODEL_DIR}/{variant}")
        for word in argv
    ]


# What went in.


def _checkpoint(request: Request) -> Iterator[Json]:
    folder, files = request.variant.name, request.checkpoint
    verdict = check_checkpoint(read_index(files.prefix), request.variant)  # as it is now
    yield {
        "name": f"{folder}/{files.prefix.name}",
        "digest": {"tensorsSha256": verdict.digest},
        "annotations": {
            "role": Role.CHECKPOINT.value,
            "isPublishedCheckpoint": verdict.is_published,
            "verdict": verdict.sentence,
        },
    }
    origin = origin_of(files.prefix.parent.parent)
    if origin is not None:
        digests = {} if origin.archive_sha256 is None else {"sha256": origin.archive_sha256}
        yield _named(origin.source, Role.ARCHIVE, digests)
    yield _file(files.config, Role.CONFIG, name=f"{folder}/{files.config.name}")
    yield _file(files.index, Role.INDEX, name=f"{folder}/{files.index.name}")
    for shard in files.shards:
        yield _file(shard, Role.DATA, name=f"{folder}/{shard.name}")


def _toolchain(toolchain: Toolchain) -> Iterator[Json]:
    is_image = toolchain.engine == "docker"
    yield _named("toolchain", Role.TOOLCHAIN, {"sha256": toolchain.digest})
    yield _named(toolchain.id, Role.IMAGE if is_image else Role.ENVIRONMENT, _sha256_in(toolchain.id))
    if toolchain.interpreter is None:
        yield _named(toolchain.base, Role.BASE_IMAGE, _sha256_in(toolchain.base))
    else:
        yield _interpreter(toolchain.base, toolchain.interpreter)
    commit = toolchain.models_commit
    yield {
        "uri": f"git+{MODELS_REPOSITORY}@{commit}",
        "digest": {"gitCommit": commit},
        "annotations": {"role": Role.MODELS_TREE.value, "road": toolchain.models_road},
    }
    pin = load_models_pin()
    for known in (pin.github, pin.pypi):
        if known.commit == commit:
            yield _file(PROJECT_ROOT / known.manifest, Role.MANIFEST, name=known.manifest)
    yield _file(PROJECT_ROOT / TOOLCHAIN_LOCK, Role.LOCK, name=TOOLCHAIN_LOCK)


def _interpreter(name: str, facts: InterpreterFacts) -> Json:
    digests = {"sha256": facts.sha256}
    if facts.archive_sha256 is not None:
        digests["archiveSha256"] = facts.archive_sha256
    annotations = {"role": Role.INTERPRETER.value, "build": facts.build}
    return {"name": name, "digest": digests, "annotations": annotations}


def _named(name: str, role: Role, digests: Mapping[str, str]) -> Json:
    return {"name": name, "digest": dict(digests), "annotations": {"role": role.value}}


def _sha256_in(name: str) -> dict[str, str]:
    """Return the digest that a reference to an image carries."""
    found = re.search(r"sha256:([0-9a-f]{64})", name)
    return {"sha256": found[1]} if found else {}
