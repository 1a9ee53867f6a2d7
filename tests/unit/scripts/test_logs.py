"""The log folders: a run's logs are kept while it runs, and for some time afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from runner.host.cache_dir import cache_dir
from runner.scripts.logs import KEPT_FOR_S, KEPT_RUNS, new_log_dir
from runner.toolchain.pins import PROJECT_ROOT

LONG_AGO_S: Final = 1_000_000_000
A_RUN: Final = "from runner.scripts.logs import new_log_dir; print(new_log_dir(), flush=True); input()"


def old_logs(count: int) -> list[Path]:
    """Make the log folders of runs that ended long ago, the oldest first; their names are in no order."""
    folders = [cache_dir() / f"logs/20261122-121212-{-number % 100:08d}" for number in range(count)]
    for age, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (LONG_AGO_S + age,) * 2)
    return folders


def test_many_runs_at_once_lose_no_logs() -> None:
    folders = [new_log_dir() for _ in range(3 * KEPT_RUNS)]
    assert all(folder.is_dir() for folder in folders)


def test_the_oldest_go_whatever_their_names() -> None:
    old = old_logs(KEPT_RUNS + 5)
    new_log_dir()
    assert [folder.is_dir() for folder in old] == [False] * 6 + [True] * (KEPT_RUNS - 1)


def test_young_logs_stay_however_many_there_are() -> None:
    old = old_logs(KEPT_RUNS + 5)
    for folder in old:
        os.utime(folder, (time.time() - KEPT_FOR_S / 2,) * 2)
    new_log_dir()
    assert all(folder.is_dir() for folder in old)


def test_logs_of_a_run_that_still_runs_stay_however_old_they_are() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", A_RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
    ) as run:
        assert run.stdout is not None
        its_logs = cache_dir() / "logs" / Path(run.stdout.readline().strip()).name
        os.utime(its_logs, (LONG_AGO_S - 1,) * 2)
        old_logs(KEPT_RUNS)
        new_log_dir()
        assert its_logs.is_dir()
        run.communicate("\n")
    new_log_dir()
    assert not its_logs.exists()


def test_what_is_not_ours_stays() -> None:
    old_logs(KEPT_RUNS)
    mine = cache_dir() / "logs/mine"
    mine.mkdir()
    os.utime(mine, (LONG_AGO_S - 1,) * 2)
    new_log_dir()
    assert mine.is_dir()
