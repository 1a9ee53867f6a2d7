"""Which jobs are audited, and which are refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.batch.job_options import Check, JobOptions, choose_audited, plan_job, require_known_recipes
from runner.batch.jobs import BatchJob
from runner.errors import ConfigError
from runner.toolchain.digest import toolchain_digest
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from runner.convert.model_facts import ModelFacts

MOBILEDET = "mobiledet_edgetpu"
FROM_GRAPH = "arm_ml_zoo_ssd_mobilenet_v1_uint8"


def jobs_with(tmp_path: Path, *configs: str) -> tuple[BatchJob, ...]:
    """Return a job for each config content, each in a separate folder."""
    jobs = []
    for number, content in enumerate(configs):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "pipeline.config").write_text(content)
        config = folder / "pipeline.config"
        jobs.append(BatchJob(name=f"job-{number}", checkpoint=folder / "model.ckpt-1", config=config))
    return tuple(jobs)


def test_first_last_and_every_nth_job_of_a_model_are_audited(tmp_path: Path) -> None:
    jobs = jobs_with(tmp_path, *"aabaaabaa")  # of a: 0 1 3 4 5 7 8; of b: 2 6
    assert choose_audited(jobs, 3) == {"job-0", "job-4", "job-8", "job-2", "job-6"}
    assert choose_audited(jobs, 1) == {job.name for job in jobs}
    assert choose_audited(jobs[:1], 50) == {"job-0"}


def test_jobs_of_two_variants_are_of_two_models() -> None:
    checkpoint = Path("/none/model.ckpt-1")
    jobs = [
        BatchJob(name=str(number), checkpoint=checkpoint, recipe=MOBILEDET, variant=variant)
        for number, variant in enumerate(("fp32", "uint8", "fp32", "uint8", "fp32"))
    ]
    assert choose_audited(jobs, 50) == {"0", "1", "3", "4"}


@pytest.mark.parametrize(
    ("check", "checked"),
    [(Check.ALL, [True, True]), (Check.AUDIT, [True, False]), (Check.NONE, [False, False])],
)
def test_check_says_which_results_are_checked(tmp_path: Path, check: Check, checked: list[bool]) -> None:
    jobs = jobs_with(tmp_path, "a", "a")
    job_options = JobOptions(
        out_dir=tmp_path,
        speedups=(),
        check=check,
        audited=frozenset({"job-0"}),
        timeout_s=1.0,
        memory_mib=64,
    )
    assert [job_options.is_checked(job) for job in jobs] == checked


def test_recipe_that_names_a_models_tree_is_refused_with_another_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.ckpt-1"
    job = BatchJob(name="a", checkpoint=checkpoint, recipe="spaghettinet_edgetpu_s_2021_10_13")
    job_options = JobOptions(out_dir=tmp_path, speedups=(), check=Check.ALL, timeout_s=1.0, memory_mib=64)

    def read_facts(config: Path, repair: tuple[str, ...]) -> ModelFacts:
        raise NotImplementedError

    with pytest.raises(ConfigError, match="needs commit 3564634 of tensorflow/models"):
        plan_job(job, job_options, toolchain_digest(load_models_pin().github.commit), read_facts)
    with pytest.raises(ConfigError, match=r"it has no pipeline\.config"):  # the tree is right
        plan_job(job, job_options, toolchain_digest(load_models_pin().pypi.commit), read_facts)


@pytest.mark.parametrize(
    ("recipe", "variant", "what"),
    [
        ("of_tomorrow", None, "there is no recipe"),
        (MOBILEDET, None, "the recipe mobiledet_edgetpu has several variants"),
        (MOBILEDET, "int4", "a: "),
        (FROM_GRAPH, None, r"starts from .*\.pb, not from a checkpoint"),
    ],
)
def test_job_that_no_recipe_describes_is_refused(recipe: str, variant: str | None, what: str) -> None:
    job = BatchJob(name="a", checkpoint=Path("/x/model.ckpt-1"), recipe=recipe, variant=variant)
    with pytest.raises(ConfigError, match=what):
        require_known_recipes([job])
