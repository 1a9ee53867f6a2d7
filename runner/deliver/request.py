"""Handle a request to convert: find or fetch the checkpoints, plan, deliver.

This is the common entry point of the commands and the Python API.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner import console
from runner.checkpoint.compare import report_weights
from runner.checkpoint.fetch import cached_model_dir, obtain_model_dir
from runner.convert.export import repair_flags
from runner.convert.model_facts import obtain_facts
from runner.convert.speedups import chosen_speedups
from runner.deliver.cache import user_cache
from runner.deliver.plan import PlanRequest, make_plan
from runner.deliver.run import deliver
from runner.host.digest_memo import remembered_sha256
from runner.host.digests import sha256_of
from runner.toolchain.digest import candidate_toolchain_digests

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.convert.model_facts import ModelFacts
    from runner.convert.plan import Sha256Of
    from runner.deliver.plan import Plan
    from runner.deliver.run import Result
    from runner.engines.base import Engine
    from runner.recipes.recipe import Recipe, Variant
    from runner.scripts.provider import ToolchainProvider


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to convert, and into which folder.

    If ``model_dir`` is None, the published checkpoints are downloaded. ``pipeline_config`` is the config of a
    model without a recipe. ``choices`` are settings by name; the recipe gives all others. ``models`` is
    where tensorflow/models comes from. If ``is_stand_in``, no comparison with the published weights is
    printed.
    """

    recipe: Recipe
    variants: tuple[str, ...]
    model_dir: Path | None
    pipeline_config: Path | None = None
    out_dir: Path
    choices: Mapping[str, object] = field(default_factory=dict)
    models: str = "auto"
    with_paths: bool = False
    force: bool = False
    overwrite: bool = False
    is_stand_in: bool = False
    use_cache: bool = True
    """If False, results are neither taken from the cache nor stored in it."""


def handle_request(request: Request, provider: ToolchainProvider) -> tuple[Result, ...]:
    """Handle a request: convert, or copy the results from the cache.

    Raises:
        RunnerError: as `obtain_model_dir`, `make_plan` and `deliver`.
    """
    model_dir = request.model_dir or obtain_model_dir(request.recipe)
    # Digests are cached here but not in `plan_only`, which must write nothing.
    plan = _plan(request, model_dir, provider, sha256_of=remembered_sha256)
    cache = user_cache() if request.use_cache else None
    return deliver(plan, lambda: engine_for(provider.engine(), request.recipe), provider.options(), cache)


def engine_for(engine: Engine, recipe: Recipe) -> Engine:
    """Return the engine with the commit of tensorflow/models that a recipe names."""
    return engine if recipe.models_commit is None else engine.with_models_commit(recipe.models_commit)


def plan_only(request: Request, provider: ToolchainProvider) -> Plan | None:
    """Plan a request without writing anything; return None if the checkpoints must be downloaded first.

    Raises:
        RunnerError: as `make_plan`.
    """
    model_dir = request.model_dir or cached_model_dir(request.recipe)
    return None if model_dir is None else _plan(request, model_dir, provider, sha256_of=sha256_of)


def _plan(request: Request, model_dir: Path, provider: ToolchainProvider, *, sha256_of: Sha256Of) -> Plan:
    plan_request = PlanRequest(
        recipe=request.recipe,
        variants=request.variants,
        model_dir=model_dir,
        out_dir=request.out_dir,
        pipeline_config=request.pipeline_config,
        choices=request.choices,
        speedups=chosen_speedups(),
        toolchains=candidate_toolchain_digests(request.models, commit=request.recipe.models_commit),
        with_paths=request.with_paths,
        force=request.force,
        overwrite=request.overwrite,
    )

    def read_facts(config: Path, variant: Variant) -> ModelFacts:
        engine = engine_for(provider.engine(), request.recipe)
        return obtain_facts(engine, config, provider.options(), repair=repair_flags(variant))

    plan = make_plan(plan_request, sha256_of=sha256_of, read_facts=read_facts)
    if not request.is_stand_in:
        for conversion in plan.conversions:
            report_weights(conversion.checkpoint.verdict, conversion.checkpoint.prefix, conversion.variant)
    for conversion in plan.conversions:
        for defect in conversion.variant.known_defects:
            console.warn(f"{conversion.variant.name}: {defect}")
    return plan
