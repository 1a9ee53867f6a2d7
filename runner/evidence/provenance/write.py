"""Write the provenance of a conversion: an in-toto Statement v1 with the SLSA v1 provenance predicate.

It records the inputs, the commands and the outputs. Equal inputs give equal documents, except for what
``stable_part`` removes: the time, the id of the run, where and from what a graph template was made, and the
digests of files that differ from run to run (TOCO's raw file, the text form of the graph, the logs).
Sources: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from copy import deepcopy
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runner.convert.plan import TOOLCHAIN_DIR, below
from runner.convert.stand_in import is_stand_in
from runner.evidence.provenance.read import (
    BUILD_TYPE,
    BUILDER_PREFIX,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    GraphOrigin,
    Role,
    recorded_form,
)
from runner.host.digests import FileDigests, sha256_of
from runner.host.version import __version__
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.recipes.settings import to_json
from runner.toolchain.catalog import load_toolchain
from runner.toolchain.pins import PROJECT_ROOT, load_models_pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.convert.pipeline import Conversion
    from runner.convert.plan import ConversionPlan
    from runner.engines.base import InterpreterFacts, Toolchain
    from runner.evidence.provenance.read import Json
    from runner.graph.template import Template
    from runner.recipes.recipe import PublishedIdentity
    from runner.tflite.canonical import NormalizedFile

MODELS_REPOSITORY: Final = "https://github.com/tensorflow/models"


def write_provenance(
    conversion: Conversion,
    toolchain: Toolchain,
    *,
    toco: Toolchain | None = None,
    check: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write the provenance of a conversion to its work folder, beside its products.

    ``toco`` is the toolchain that ran TOCO, if it differs from ``toolchain``. ``check`` is the result of the
    comparison with the frozen graph. ``paths`` are the values of TF_MODEL_DIR and TFLITE_MODEL_DIR; if it is
    empty, no folder of this machine is recorded.
    """
    statement = describe_conversion(conversion, toolchain, toco=toco, check=check, paths=paths)
    text = json.dumps(statement, indent=2, ensure_ascii=False) + "\n"
    (conversion.folder / conversion.plan.products.provenance).write_text(text, "utf-8")


def describe_conversion(
    conversion: Conversion,
    toolchain: Toolchain,
    *,
    toco: Toolchain | None = None,
    check: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] = MappingProxyType({}),
) -> Json:
    """Return the provenance statement of a conversion."""
    parameters = _external_parameters(conversion.plan)
    if paths:
        parameters["paths"] = {name: str(folder) for name, folder in paths.items()}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_subject(conversion, check)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": _internal_parameters(conversion),
                "resolvedDependencies": [
                    *_checkpoint(conversion.plan),
                    *_template(conversion.template),
                    *_toolchain(toolchain),
                    *(() if toco is None else _toolchain(toco)),
                ],
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
    """Return the part of a statement that is the same in every run with the same inputs."""
    stable = deepcopy(statement)
    run = stable["predicate"]["runDetails"]
    del run["metadata"]
    for entry in run["byproducts"]:
        if entry["annotations"].get("differsFromRunToRun"):
            del entry["digest"]
    for entry in stable["predicate"]["buildDefinition"]["resolvedDependencies"]:
        for name in ("madeOn", "madeFrom"):  # they vary, although the template's content is always the same
            entry["annotations"].pop(name, None)
    return stable


def final_digests(path: Path) -> FileDigests:
    """Return the digests of the final file, as `write_provenance` recorded them in this file."""
    (subject,) = json.loads(path.read_bytes())["subject"]
    digests = subject["digest"]
    return FileDigests(
        sha256=digests["sha256"],
        md5=digests["md5"],
        git_blob=digests["gitBlob"],
        size_bytes=subject["annotations"]["sizeBytes"],
    )


def named_digests(path: Path) -> frozenset[str]:
    """Return the sha256 of a provenance file and of every output in it; empty if the file is not ours."""
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


# Outputs.


def _subject(conversion: Conversion, check: Mapping[str, Any] | None) -> Json:
    digests = conversion.normalized.digests
    annotations = {
        "sizeBytes": digests.size_bytes,
        "published": _published(conversion.plan.variant.published, conversion.normalized),
    }
    if check is not None:
        annotations["check"] = dict(check)
    return {
        "name": conversion.final.name,
        "digest": recorded_form(digests),
        "annotations": annotations,
    }


def _published(published: PublishedIdentity | None, normalized: NormalizedFile) -> Json:
    """Return the comparison of the final file with the public digests of the published file."""
    if published is None:
        return {"isPublishedFile": False, "because": "no published file is known for this variant"}
    names = {"git_blob": "gitBlob"}
    return {
        "isPublishedFile": normalized.matches_published,
        "because": f"{published.described} {'agree' if normalized.matches_published else 'differ'}",
        **({} if published.url is None else {"uri": published.url}),
        "digest": {names.get(name, name): digest for name, digest in published.digests.items()},
    }


def _byproducts(conversion: Conversion) -> Iterator[Json]:
    from runner.tflite.canonical import normalize_keys

    products, folder = conversion.plan.products, conversion.folder
    normalized = conversion.normalized
    if normalized.matches_published:
        normalized = normalize_keys(conversion.raw, published=None)
    yield _varying(conversion.raw, Role.RAW, canonical=normalized.digests.sha256)
    yield _file(conversion.graph, Role.GRAPH)
    yield _file(folder / products.config, Role.EDITED_CONFIG)
    if products.copy is not None:
        yield _file(conversion.final, Role.COPY, name=f"../{products.copy}")
    if products.graph_text is not None:
        yield _varying(folder / products.graph_text, Role.GRAPH_TEXT)
    for log in conversion.logs:
        yield _varying(log, Role.LOG)


def _file(path: Path, role: Role, *, name: str | None = None) -> Json:
    return _named(name or path.name, role, {"sha256": sha256_of(path)})


def _varying(path: Path, role: Role, *, canonical: str | None = None) -> Json:
    """Return the entry of a file that varies between runs; ``canonical`` is its normalized form's digest."""
    entry = _file(path, role)
    entry["annotations"]["differsFromRunToRun"] = True
    if canonical is not None:
        entry["annotations"]["canonicalSha256"] = canonical
    return entry


# Request and commands.


def _external_parameters(plan: ConversionPlan) -> Json:
    variant = plan.variant
    own = {
        "meanValue": variant.mean_value,
        "stdValue": variant.std_value,
        "tocoFlags": list(variant.toco_flags),
        "dropUnknownFields": variant.drop_unknown_fields,
        "ignoreQuantization": variant.ignore_quantization,
        "pipelineConfig": plan.checkpoint.config.name,
    }
    return {
        **({"recipe": plan.recipe, "recipeSha256": plan.recipe_digest} if plan.recipe else {"ownModel": own}),
        "variant": variant.name,
        **({} if variant.toolchain == DEFAULT_TOOLCHAIN else {"toolchain": variant.toolchain}),
        "checkpointPrefix": plan.checkpoint.prefix.name,
        **to_json(plan.settings),
    }


def _internal_parameters(conversion: Conversion) -> Json:
    plan, normalized = conversion.plan, conversion.normalized
    # For our own scripts in the toolchain (docker/steps), only the file name is recorded, not the folder.
    steps_dir = f"{TOOLCHAIN_DIR}/steps/"
    commands = [tuple(word.removeprefix(steps_dir) for word in argv) for argv in plan.commands.all]
    steps: list[Json] = [{"name": argv[0], "argv": list(argv)} for argv in commands]
    if conversion.template is not None:  # a step that fills the template ran instead of the first two
        for step in steps[:2]:
            step["insteadRun"] = "fill_template.py"
    return {
        "steps": steps,
        "configChanges": list(conversion.config_report["changes"]),
        "optionOrder": list(normalized.order or ()),
        "minRuntimeVersion": normalized.min_runtime_version,
        "speedups": list(plan.speedups),
        **_origin_of_graph(conversion),
    }


def _origin_of_graph(conversion: Conversion) -> Json:
    """Return how the graph was made, and the result of auditing its template with this checkpoint."""
    by = GraphOrigin.SCRIPT if conversion.template is None else GraphOrigin.TEMPLATE
    by = by if conversion.plan.checkpoint.graph is None else GraphOrigin.ARCHIVE
    audit = conversion.audit
    if audit is None:
        return {"graphFrom": by.value}
    return {
        "graphFrom": by.value,
        "templateAudit": {
            "passed": audit.passed,
            "sentence": audit.sentence,
            "templateSha256": audit.template_sha256,
            "filledGraphSha256": audit.filled_graph_sha256,
            "exportedGraphSha256": audit.exported_graph_sha256,
        },
    }


# Inputs.


def _checkpoint(plan: ConversionPlan) -> Iterator[Json]:
    checkpoint = plan.checkpoint
    verdict, origin = checkpoint.verdict, checkpoint.origin
    if checkpoint.graph is None:
        yield {
            "name": below(plan.variant.folder, checkpoint.prefix.name),
            "digest": {"tensorsSha256": verdict.digest},
            "annotations": {
                "role": Role.CHECKPOINT.value,
                "isPublishedCheckpoint": verdict.is_published,
                "isStandIn": is_stand_in(checkpoint.prefix.parent),
                "verdict": verdict.sentence,
            },
        }
    else:
        graph = _named(checkpoint.graph.name, Role.SHIPPED_GRAPH, {"sha256": checkpoint.graph.sha256})
        graph["annotations"]["isStandIn"] = is_stand_in(checkpoint.graph.path.parent)
        yield graph
    if origin is not None:
        digests = {} if origin.archive_sha256 is None else {"sha256": origin.archive_sha256}
        yield _named(origin.source, Role.ARCHIVE, digests)
    yield _named(checkpoint.config.name, Role.CONFIG, {"sha256": checkpoint.config.sha256})
    if checkpoint.index is not None:
        yield _named(checkpoint.index.name, Role.INDEX, {"sha256": checkpoint.index.sha256})
    for shard in checkpoint.data:
        yield _named(shard.name, Role.DATA, {"sha256": shard.sha256})


def _template(template: Template | None) -> Iterator[Json]:
    if template is not None:
        entry = _named("graph template", Role.TEMPLATE, {"sha256": template.sha256})
        entry["annotations"] |= {"madeOn": template.made_on, "madeFrom": template.made_from}
        yield entry


def _toolchain(toolchain: Toolchain) -> Iterator[Json]:
    is_image = toolchain.engine == "docker"
    is_default = toolchain.name == DEFAULT_TOOLCHAIN
    name = "toolchain" if is_default else f"toolchain {toolchain.name}"
    yield _named(name, Role.TOOLCHAIN, {"sha256": toolchain.digest})
    yield _named(toolchain.id, Role.IMAGE if is_image else Role.ENVIRONMENT, _sha256_in(toolchain.id))
    if toolchain.interpreter is None:
        yield _named(toolchain.base, Role.BASE_IMAGE, _sha256_in(toolchain.base))
    else:
        yield _interpreter(toolchain.base, toolchain.interpreter)
    if toolchain.models_commit is not None:
        yield from _models_tree(toolchain.models_commit, toolchain.models_source)
    lock = load_toolchain(toolchain.name).lock
    yield _file(PROJECT_ROOT / lock, Role.LOCK, name=lock)


def _models_tree(commit: str, source: str | None) -> Iterator[Json]:
    yield {
        "uri": f"git+{MODELS_REPOSITORY}@{commit}",
        "digest": {"gitCommit": commit},
        "annotations": {"role": Role.MODELS_TREE.value, "source": source},
    }
    pin = load_models_pin()
    for known in (pin.github, pin.pypi):
        if known.commit == commit:
            yield _file(PROJECT_ROOT / known.manifest, Role.MANIFEST, name=known.manifest)


def _interpreter(name: str, facts: InterpreterFacts) -> Json:
    digests = {"sha256": facts.sha256}
    if facts.archive_sha256 is not None:
        digests["archiveSha256"] = facts.archive_sha256
    annotations = {"role": Role.INTERPRETER.value, "build": facts.build}
    return {"name": name, "digest": digests, "annotations": annotations}


def _named(name: str, role: Role, digests: Mapping[str, str]) -> Json:
    return {"name": name, "digest": dict(digests), "annotations": {"role": role.value}}


def _sha256_in(name: str) -> dict[str, str]:
    """Return the digest in an image reference."""
    found = re.search(r"sha256:([0-9a-f]{64})", name)
    return {"sha256": found[1]} if found else {}
