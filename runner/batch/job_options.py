"""The options that all jobs of a batch share, and the function that plans a job with them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from runner.convert.export import repair_flags
from runner.convert.own_model import OwnModel, own_recipe, repair_of
from runner.deliver.plan import PlanRequest, make_plan
from runner.errors import ConfigError, UsageError
from runner.host.digest_memo import remembered_sha256
from runner.recipes.recipe import CHECKPOINT, load_recipe
from runner.recipes.settings import Export
from runner.toolchain.digest import toolchain_digest
from runner.toolchain.pins import MODELS_PIN_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runner.batch.jobs import BatchJob
    from runner.convert.model_facts import ModelFacts
    from runner.deliver.plan import Plan
    from runner.evaluation.annotations import ImageSet
    from runner.recipes.recipe import Recipe, Variant

    ReadFacts = Callable[[Path, tuple[str, ...]], ModelFacts]
    """Reads the facts about a model, given the path of its config and the flags of `repair_flags`."""

OWN_NAME: Final = "model"
"""The file name stem for a model without a recipe, as in `convert`."""


class Check(str, Enum):
    """Which results are compared with their frozen graph; AUDIT means those of the audited jobs."""

    ALL = "all"
    AUDIT = "audit"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """The options of all jobs of a batch, as plain data.

    ``audited`` are the names of the jobs to audit: a graph that was made from a template is compared with the
    graph that the export script makes. The accuracy of each result is computed on ``image_set``, if given.
    """

    out_dir: Path
    choices: Mapping[str, object] = field(default_factory=dict)
    speedups: tuple[str, ...]
    check: Check = Check.ALL
    audited: frozenset[str] = frozenset()
    image_set: ImageSet | None = None
    with_paths: bool = False
    force: bool = False
    overwrite: bool = False
    timeout_s: float
    memory_mib: int

    @property
    def default_export(self) -> Export:
        """The default of the setting ``export``: TEMPLATE, or SCRIPT if the graph is to be kept as text.

        Only the export script can write the graph as text.
        """
        return Export.SCRIPT if self.choices.get("keep_pbtxt") else Export.TEMPLATE

    def is_checked(self, job: BatchJob) -> bool:
        """Return whether the result of a job is compared with its frozen graph."""
        return self.check is Check.ALL or (self.check is Check.AUDIT and job.name in self.audited)


def choose_audited(jobs: Iterable[BatchJob], every: int) -> frozenset[str]:
    """Return the names of the jobs to audit: the first, the last and every ``every``-th job of each model.

    Jobs have the same model if they have the same recipe, variant and config content.
    """
    by_model: dict[object, list[str]] = {}
    for job in jobs:
        config = ""
        with contextlib.suppress(OSError):  # the job itself will report that the config is missing
            config = remembered_sha256(job.config_file)
        by_model.setdefault((job.recipe, job.variant, config), []).append(job.name)
    return frozenset(name for names in by_model.values() for name in (*names[::every], names[-1]))


def plan_job(job: BatchJob, job_options: JobOptions, toolchain: str, read_facts: ReadFacts) -> Plan:
    """Plan a job that writes its results directly to ``OUT/<name>/``; ``toolchain`` is a toolchain digest.

    Raises:
        ConfigError: the checkpoint does not fit; or the recipe does not convert checkpoints, or needs a
            commit of tensorflow/models that the toolchain does not have.
        IntegrityError: the checkpoint is damaged.
        UsageError: the folders cannot be used.
    """
    recipe = _recipe_of(job, read_facts)
    _require_models_commit(recipe, toolchain)
    request = PlanRequest(
        recipe=recipe,
        variants=(OWN_NAME if job.recipe is None else _variant_of(job).name,),
        model_dir=job.checkpoint.parent,
        pipeline_config=job.config,
        out_dir=job_options.out_dir / job.name,
        is_flat=True,
        choices={
            "export": job_options.default_export,
            **job_options.choices,
            "check": job_options.is_checked(job),
        },
        speedups=job_options.speedups,
        toolchains=(toolchain,),
        with_paths=job_options.with_paths,
        force=job_options.force,
        overwrite=job_options.overwrite,
    )

    def read(config: Path, variant: Variant) -> ModelFacts:
        return read_facts(config, repair_flags(variant))

    return make_plan(request, sha256_of=remembered_sha256, read_facts=read)


def _require_models_commit(recipe: Recipe, toolchain: str) -> None:
    """Check that the toolchain, which all jobs share, has the models tree that a recipe needs.

    Raises:
        ConfigError: the toolchain has another commit of tensorflow/models.
    """
    commit = recipe.models_commit
    if commit is not None and toolchain_digest(commit) != toolchain:
        raise ConfigError(
            f"the recipe {recipe.name} needs commit {commit[:7]} of tensorflow/models, but the toolchain of "
            "this batch has another commit",
            tip="run the jobs of this recipe in a separate batch, with --models; "
            f"{MODELS_PIN_FILE} lists the commits",
        )


def require_known_recipes(jobs: Iterable[BatchJob]) -> None:
    """Check, before anything starts, that the recipe and the variant of each job exist.

    Raises:
        ConfigError: a recipe or a variant does not exist.
    """
    for job in jobs:
        if job.recipe is not None:
            _variant_of(job)


def _recipe_of(job: BatchJob, read_facts: ReadFacts) -> Recipe:
    """Return the recipe of a job, changed to use the job's checkpoint instead of the published one."""
    if job.config is not None:
        model = OwnModel(name=OWN_NAME, checkpoint_prefix=job.checkpoint.name)
        return own_recipe(model, read_facts(job.config, repair_of(model)))
    recipe, variant = load_recipe(str(job.recipe)), _variant_of(job)
    here = replace(variant, folder="", checkpoint_prefix=job.checkpoint.name)
    return replace(recipe, variants={variant.name: here})


def _variant_of(job: BatchJob) -> Variant:
    recipe = load_recipe(str(job.recipe))
    names = tuple(recipe.variants)
    if job.variant is None and len(names) > 1:
        raise ConfigError(
            f"{job.name}: the recipe {recipe.name} has several variants, but the job names none",
            tip=f"set variant to one of {', '.join(names)}",
        )
    try:
        variant = recipe.variant(job.variant or names[0])
    except UsageError as problem:
        raise ConfigError(f"{job.name}: {problem.message}", tip=problem.tip) from problem
    if variant.starts_from != CHECKPOINT:
        raise ConfigError(
            f"{job.name}: {recipe.name} {variant.name} starts from {variant.starts_from}, not from a "
            "checkpoint",
            tip="replace `recipe` with `config`, to export the checkpoint",
        )
    return variant
