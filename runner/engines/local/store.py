"""Find or build the local engine's environments in the cache."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runner import console
from runner.engines.local.build import build_environment
from runner.host.cache_dir import cache_dir
from runner.host.whole_folder import find_whole_folder, make_whole_folder

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.local.plan import EnvironmentPlan


def environments_dir() -> Path:
    """Return the folder of all environments; it may not exist yet."""
    return cache_dir() / "environments"


def find_environment(plan: EnvironmentPlan) -> Path | None:
    """Return the folder of the complete environment of this plan, or None."""
    folder = find_whole_folder(environments_dir() / plan.key)
    # bin/python is a symlink to the interpreter, and the interpreter may have been removed.
    return folder if folder is not None and (folder / "bin/python").exists() else None


def obtain_environment(plan: EnvironmentPlan) -> Path:
    """Find or build the environment of this plan. If two runs do this at the same time, one of them waits.

    Raises:
        BuildError: a step of the build failed.
        IntegrityError: an input of the build is not the pinned one.
        UsageError: the cache is not writable.
    """
    home = environments_dir() / plan.key
    return find_environment(plan) or make_whole_folder(
        home,
        partial(build_environment, plan),
        facts={
            "interpreter": str(plan.interpreter.path),
            "toolchain": plan.spec.name,
            "models_source": "" if plan.source is None else plan.source.kind,
            "models_commit": plan.models_commit or "",
        },
        find=partial(find_environment, plan),
        step=partial(console.step, f"build the local environment {home}"),
    )
