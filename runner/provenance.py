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
from typing import TYPE_CHECKING, Any, Final

from runner import __version__
from runner.archive import origin_of
from runner.checkpoint import check_checkpoint
from runner.digests import digest_file
from runner.graph_bytes import canonical_graph
from runner.identity import settle
from runner.toolchain_digest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.conversion import Conversion, Request
    from runner.engines.base import Toolchain
    from runner.identity import SettledFile
    from runner.recipe import PublishedIdentity

PROVENANCE_NAME: Final = "provenance.json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:mobiledet-runner:conversion:v1"
BUILDER_PREFIX: Final = "urn:mobiledet-runner:engine:"
LOCK_NAME: Final = "docker/requirements.lock"
MODELS_REPOSITORY: Final = "https://github.com/tensorflow/models"
MODEL_DIR: Final = "${TF_MODEL_DIR}"
OUT_DIR: Final = "${TFLITE_MODEL_DIR}"

Json = dict[str, Any]


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
    from runner.statement import validate_statement  # noqa: PLC0415 - start-up: only where it is used

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
    request, exported = conversion.request, conversion.exported
    fixed_order_sha256 = settle(request.raw, published=None).digests.sha256
    yield _varying(request.raw, "TOCO's own file", canonical=fixed_order_sha256)
    sorted_sha256 = hashlib.sha256(canonical_graph(exported.graph.read_bytes())).hexdigest()
    yield _varying(exported.graph, "frozen graph", canonical=sorted_sha256)
    yield _file(exported.config, "edited pipeline config")
    yield _file(request.final, "copy", name=f"../{request.variant.copy_name}")
    if exported.graph_text is not None:
        yield _varying(exported.graph_text, "frozen graph as text")
    for run in (exported.run, conversion.toco_run):
        yield _varying(run.script.log, f"log of {run.script.name}")


def _file(path: Path, role: str, *, name: str | None = None) -> Json:
    return {
        "name": name or path.name,
        "digest": {"sha256": digest_file(path).sha256},
        "annotations": {"role": role},
    }


def _varying(path: Path, role: str, *, canonical: str | None = None) -> Json:
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
    request = conversion.request
    folders = {
        str(request.checkpoint.config.parent): f"{MODEL_DIR}/{request.variant.name}",
        str(request.work_dir): f"{OUT_DIR}/{request.variant.name}",
    }
    return {
        "steps": [
            {"name": run.script.name, "argv": [_without_folders(word, folders) for word in run.script.argv]}
            for run in (conversion.exported.run, conversion.toco_run)
        ],
        "configChanges": list(conversion.exported.config_report["changes"]),
        "optionOrder": list(conversion.settled.order or ()),
        "minRuntimeVersion": conversion.settled.min_runtime_version,
    }


def _without_folders(word: str, folders: Mapping[str, str]) -> str:
    for folder, placeholder in folders.items():
        word = word.replace(folder, placeholder)
    return word


# What went in.


def _checkpoint(request: Request) -> Iterator[Json]:
    folder, files = request.variant.name, request.checkpoint
    verdict = check_checkpoint(files.prefix, request.variant)
    yield {
        "name": f"{folder}/{files.prefix.name}",
        "digest": {"tensorsSha256": verdict.digest},
        "annotations": {
            "role": "checkpoint",
            "isPublishedCheckpoint": verdict.is_published,
            "verdict": verdict.sentence,
        },
    }
    origin = origin_of(files.prefix.parent.parent)
    if origin is not None:
        yield {
            "name": origin.source,
            "digest": {"sha256": origin.archive_sha256} if origin.archive_sha256 else {},
            "annotations": {"role": "archive"},
        }
    yield _file(files.config, "pipeline config", name=f"{folder}/{files.config.name}")
    yield _file(files.index, "checkpoint index", name=f"{folder}/{files.index.name}")
    for shard in files.shards:
        yield _file(shard, "checkpoint data", name=f"{folder}/{shard.name}")


def _toolchain(toolchain: Toolchain) -> Iterator[Json]:
    yield {
        "name": "toolchain",
        "digest": {"sha256": toolchain.digest},
        "annotations": {"role": "toolchain sources"},
    }
    yield {
        "name": toolchain.id,
        "digest": _sha256_in(toolchain.id),
        "annotations": {
            "role": "toolchain image" if toolchain.engine == "docker" else "toolchain environment"
        },
    }
    yield {
        "name": toolchain.base,
        "digest": _sha256_in(toolchain.base),
        "annotations": {"role": "base image" if toolchain.engine == "docker" else "interpreter"},
    }
    yield {
        "uri": f"git+{MODELS_REPOSITORY}@{toolchain.models_commit}",
        "digest": {"gitCommit": toolchain.models_commit},
        "annotations": {"role": "models tree", "road": toolchain.models_road},
    }
    for role, name in (
        (
            "manifest of the models tree",
            f"docker/manifests/models-research-{toolchain.models_commit[:7]}.manifest",
        ),
        ("lock of the wheels", LOCK_NAME),
    ):
        if (REPOSITORY / name).is_file():
            yield _file(REPOSITORY / name, role, name=name)


def _sha256_in(name: str) -> dict[str, str]:
    """Return the digest that a reference to an image carries."""
    found = re.search(r"sha256:([0-9a-f]{64})", name)
    return {"sha256": found[1]} if found else {}
