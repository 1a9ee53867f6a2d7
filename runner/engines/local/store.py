"""The environment of the local engine: where it lies, when it is whole, and who may build it.

``environments/<key>/`` in the cache holds the attempts to build it, each in a folder with a name of its own,
and ``whole.json``, which names the one that became whole. That file is written last and renamed into place,
so a build that was killed at any moment is never taken for whole; and since no name is used twice, a pip that
outlives its killed parent writes into a folder that nobody looks at any more.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import console
from runner.engines.local.build import build_environment
from runner.host.cache_dir import cache_dir, disk_problems_named, exclusive

if TYPE_CHECKING:
    from runner.engines.local.plan import EnvironmentPlan

MARKER: Final = "whole.json"


def environments_dir() -> Path:
    """Say where the environments are; the folder need not exist yet."""
    return cache_dir() / "environments"


def find_environment(plan: EnvironmentPlan) -> Path | None:
    """Return the folder of the whole environment of this plan, if there is one."""
    home = environments_dir() / plan.key
    try:
        marker = json.loads((home / MARKER).read_text(encoding="utf-8"))
        folder = home / marker["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if (folder / "bin/python").exists() else None


def obtain_environment(plan: EnvironmentPlan) -> Path:
    """Find the environment of this plan or build it; of two runs at once, one builds and the other waits.

    Raises:
        BuildError: a step of the build failed.
        IntegrityError: something that goes into it is not what it should be.
        UsageError: the cache cannot be written.
    """
    found = find_environment(plan)
    if found is not None:
        return found
    home = environments_dir() / plan.key
    with exclusive(home):
        found = find_environment(plan)
        if found is not None:
            return found
        with console.step(f"build the local environment {home}"):
            return _build(plan, home)


def _build(plan: EnvironmentPlan, home: Path) -> Path:
    with disk_problems_named(home):
        home.mkdir(parents=True, exist_ok=True)
        (home / MARKER).unlink(missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="env-", dir=home))
        _remove_others(folder)
    try:
        build_environment(plan, folder)
        with disk_problems_named(home):
            _write_marker(plan, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _remove_others(folder)  # again: the pip of a killed build may have gone on for a while
    return folder


def _remove_others(folder: Path) -> None:
    for left_over in folder.parent.glob("env-*"):
        if left_over != folder:
            shutil.rmtree(left_over, ignore_errors=True)


def _write_marker(plan: EnvironmentPlan, folder: Path) -> None:
    marker = {
        "folder": folder.name,
        "interpreter": str(plan.interpreter.path),
        "models_road": plan.source.road,
        "models_commit": plan.models_commit,
    }
    unfinished = folder.parent / f"{MARKER}.unfinished"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(marker, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder.parent / MARKER)
