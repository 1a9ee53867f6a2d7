"""Run a plan: deliver its variants from the cache, or convert them in parallel."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import console
from runner.convert.pipeline import Workplace, convert
from runner.convert.speedups import speedups_env
from runner.deliver.plan import program_digest
from runner.deliver.templates import Templates, audit_template
from runner.engines.base import Folders, Preload
from runner.evidence.provenance.write import final_digests, named_digests, write_provenance
from runner.host.digest_memo import remembered_sha256
from runner.host.output_dir import OutputDir
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.scripts.parallel import run_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runner.convert.pipeline import Conversion
    from runner.convert.plan import ConversionPlan
    from runner.deliver.cache import ConversionCache
    from runner.deliver.plan import Plan
    from runner.engines.base import Engine, Session, Toolchain
    from runner.evidence.check.run import CheckReport
    from runner.graph.template import Audit
    from runner.host.digests import FileDigests
    from runner.scripts.run import ScriptOptions

USED_LATER: Final = ("runner.tflite.canonical", "runner.evidence.check.files")
"""Modules that are only needed after the toolchain has finished. Importing them while the toolchain starts
saves a fifth of a second."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The delivered files of one variant, as plain data."""

    variant: str
    file: Path
    copy: Path | None
    digests: FileDigests
    known_digests: str | None
    """Which digests of the published file are known, such as "MD5 and git blob id"; None if none are."""
    matches_published: bool
    is_from_cache: bool
    template: str | None = None
    """The sha256 of the graph template that was filled; None if the script exported the graph."""
    audit: Audit | None = None
    """The audit of a template with this checkpoint. If the audit failed, the script exported the graph."""

    @property
    def verdict(self) -> str:
        """One sentence that states whether this is the published file."""
        again = "the same checkpoint and settings always give these bytes"
        if self.known_digests is None:
            return f"no published file is known; {again}"
        if self.matches_published:
            return f"this is the published file: it has the published {self.known_digests}"
        return f"not the published file; {again}"


def deliver(
    plan: Plan,
    choose_engine: Callable[[], Engine],
    options: ScriptOptions,
    cache: ConversionCache | None,
) -> tuple[Result, ...]:
    """Deliver all variants of a plan; the engine is only chosen if a variant is not in the cache.

    If a variant fails, the others are still delivered. If ``cache`` is None, no cache is used.

    Raises:
        UsageError: the folders cannot be used, or an output file exists that this program did not write.
        RunnerError: a variant failed; if several did, this is the error of the first one in the plan.
    """
    out = OutputDir.at(plan.out_dir)
    names = [name for conversion in plan.conversions for name in plan.products(conversion)]
    out.check_replaceable(names, ours=_digests_of_ours(plan), overwrite=plan.overwrite)
    with out.work_dir() as work_dir:
        results = {} if cache is None or plan.force else _take_all(plan, cache, out, work_dir)
        missing = tuple(it for it in plan.conversions if it.variant.name not in results)
        if missing:
            rest = replace(plan, conversions=missing)
            made = _convert_all(rest, choose_engine(), out, work_dir, options, cache)
            results |= {result.variant: result for result in made}
    return tuple(results[conversion.variant.name] for conversion in plan.conversions)


def _digests_of_ours(plan: Plan) -> frozenset[str]:
    provenances = (plan.out_dir / plan.products(it)[-1] for it in plan.conversions)
    return frozenset().union(*map(named_digests, provenances))


# --- from the cache ---------------------------------------------------------------------------------------


def _take_all(plan: Plan, cache: ConversionCache, out: OutputDir, work_dir: Path) -> dict[str, Result]:
    """Deliver the variants that are in the cache; this needs no engine."""
    with ThreadPoolExecutor() as executor:
        taken = executor.map(partial(_take, plan, cache, out, work_dir), plan.conversions)
        return {result.variant: result for result in taken if result is not None}


def _take(
    plan: Plan, cache: ConversionCache, out: OutputDir, work_dir: Path, conversion: ConversionPlan
) -> Result | None:
    name, names = conversion.variant.name, conversion.products.in_folder
    keys = (key for keys in plan.keys[name].values() for key in keys)
    if not any(cache.take(key, names, work_dir / name) for key in keys):
        return None
    console.note(f"[{name}] taken from the cache; --force converts it again")
    made, published = work_dir / name, conversion.variant.published
    # The cache has just verified the file and its provenance, which records the digests of the file.
    digests = final_digests(made / conversion.products.provenance)
    is_published = published is not None and published.is_of(digests, made / conversion.products.final)
    return _publish(
        plan, conversion, out, work_dir, digests, matches_published=is_published, is_from_cache=True
    )


# --- by converting ----------------------------------------------------------------------------------------


def _convert_all(
    plan: Plan,
    engine: Engine,
    out: OutputDir,
    work_dir: Path,
    options: ScriptOptions,
    cache: ConversionCache | None,
) -> tuple[Result, ...]:
    toolchain = engine.prepare()
    place = Workplace(model_dir=plan.model_dir, out_dir=work_dir, options=options)
    env = {"TF_MODEL_DIR": str(plan.model_dir), "TFLITE_MODEL_DIR": str(work_dir)}
    env |= speedups_env(plan.conversions[0].speedups)
    templates = Templates(folder=work_dir / ".templates", toolchain=toolchain.digest)
    preload = preload_for(plan.conversions, templates)
    folders = Folders(read_only=plan.read_only, writable=(work_dir,))
    with (
        engine.open(folders, env, preload=preload) as session,
        open_others(plan, engine, work_dir) as others,
    ):
        for module in USED_LATER:  # while the toolchain starts
            importlib.import_module(module)
        by_name = {it.variant.name: it for it in plan.conversions}

        def convert_one(name: str) -> Result:
            planned = by_name[name]
            other = others.get(planned.variant.toolchain)
            return run_conversion(
                session, plan, planned, place, toolchain, out, cache, templates, other=other
            )

        return run_together(session, convert_one, by_name, memory_mib=options.memory_mib)


def preload_for(conversions: Iterable[ConversionPlan], templates: Templates) -> Preload:
    """Return what the toolchain must import: the detection API only if the export script will run."""
    exported = (it for it in conversions if it.checkpoint.graph is None and templates.find(it) is None)
    return Preload.TENSORFLOW if next(exported, None) is None else Preload.DETECTION_API


@dataclass(frozen=True, kw_only=True)
class OtherToco:
    """An open session of another toolchain, which runs TOCO instead of the default one."""

    toolchain: Toolchain
    session: Session


@contextlib.contextmanager
def open_others(plan: Plan, engine: Engine, work_dir: Path) -> Iterator[dict[str, OtherToco]]:
    """Find or build the other toolchains whose TOCO the variants need, and start them."""
    names = dict.fromkeys(it.variant.toolchain for it in plan.conversions)
    with contextlib.ExitStack() as stack:
        others = {}
        for name in names:
            if name != DEFAULT_TOOLCHAIN:
                other = engine.with_toolchain(name)
                toolchain = other.prepare()
                opened = stack.enter_context(other.open(Folders(writable=(work_dir,)), {}))
                others[name] = OtherToco(toolchain=toolchain, session=opened)
        yield others


def run_conversion(
    session: Session,
    plan: Plan,
    planned: ConversionPlan,
    place: Workplace,
    toolchain: Toolchain,
    out: OutputDir,
    cache: ConversionCache | None,
    templates: Templates,
    audit_in: Session | None = None,
    *,
    other: OtherToco | None = None,
) -> Result:
    """Run one conversion of a plan in an open session, check the result, write its provenance, deliver it.

    If the conversion uses a template and ``audit_in`` is given, the template is audited in that session: its
    graph is compared with the graph that the export script makes. If the audit fails, the template is
    dropped, and the conversion runs again with the export script.

    Raises:
        IdentityError: the file does not compute what its graph computes.
        IntegrityError: the checkpoint was damaged during the run.
        RunnerError: as `convert`.
    """
    place.folder(planned).mkdir()
    toco_session = None if other is None else other.session
    with templates.find_or_wait(planned) as template:
        conversion = convert(session, planned, place, template, toco_session=toco_session)
        if audit_in is not None and conversion.template is not None:
            conversion = _audited(session, audit_in, conversion, place, templates, toco_session)
        templates.make(session, conversion)
    report = _check(session, conversion) if planned.settings.check else None
    now = planned.checkpoint.as_it_is_now(planned.variant, remembered_sha256)
    conversion = replace(conversion, plan=replace(planned, checkpoint=now))
    _describe(conversion, report, toolchain, plan.paths, None if other is None else other.toolchain)
    keys = plan.keys[planned.variant.name].get(toolchain.digest, ())
    # Cache the result only if the checkpoint and this program did not change during the run: otherwise it is
    # unknown which version was used. Cache the result of a template only if the template was audited with
    # this checkpoint: if a later audit fails, the cache must not contain unaudited results of this template.
    is_sure = conversion.template is None or conversion.audit is not None
    is_unchanged = now == planned.checkpoint and program_digest() == plan.program
    if cache is not None and keys and is_sure and is_unchanged:
        cache.keep(keys[0], [conversion.folder / name for name in planned.products.in_folder])
    normalized = conversion.normalized
    return _publish(
        plan,
        planned,
        out,
        place.out_dir,
        normalized.digests,
        matches_published=normalized.matches_published,
        is_from_cache=False,
        converted=conversion,
    )


def _audited(
    session: Session,
    audit_in: Session,
    conversion: Conversion,
    place: Workplace,
    templates: Templates,
    toco_session: Session | None,
) -> Conversion:
    """Audit the template of a conversion; if the audit fails, drop it and use the export script instead."""
    audit = audit_template(audit_in, conversion, place)
    if not audit.passed:
        console.warn(
            f"{conversion.plan.variant.name}: the graph template {audit.template_sha256} failed its audit "
            f"and is removed: {audit.sentence}; the export script is used instead"
        )
        templates.drop(conversion.plan)
        conversion = convert(session, conversion.plan, place, toco_session=toco_session)
    return replace(conversion, audit=audit)


def _check(session: Session, conversion: Conversion) -> CheckReport:
    from runner.evidence.check.files import check_new

    return check_new(session, conversion)


def _describe(
    conversion: Conversion,
    report: CheckReport | None,
    toolchain: Toolchain,
    paths: Mapping[str, Path],
    toco: Toolchain | None,
) -> None:
    """Add the logs and the provenance to the products."""
    from runner.evidence.check.files import for_provenance

    for log in conversion.logs:
        shutil.copyfile(log, conversion.folder / log.name)
    check = None if report is None else for_provenance(report)
    write_provenance(conversion, toolchain, toco=toco, check=check, paths=paths)


def _publish(
    plan: Plan,
    conversion: ConversionPlan,
    out: OutputDir,
    work_dir: Path,
    digests: FileDigests,
    *,
    matches_published: bool,
    is_from_cache: bool,
    converted: Conversion | None = None,
) -> Result:
    """Move all products to their final names, the provenance last."""
    made, products = work_dir / conversion.variant.name, conversion.products
    if products.copy is not None:
        shutil.copyfile(made / products.final, made / products.copy)
    out.publish({it: made / Path(it).name for it in plan.products(conversion)})
    published = conversion.variant.published
    return Result(
        variant=conversion.variant.name,
        file=out.path / products.folder / products.final,
        copy=None if products.copy is None else out.path / products.copy,
        digests=digests,
        known_digests=None if published is None else published.described,
        matches_published=matches_published,
        is_from_cache=is_from_cache,
        template=None if converted is None or converted.template is None else converted.template.sha256,
        audit=None if converted is None else converted.audit,
    )
