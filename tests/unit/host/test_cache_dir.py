"""The cache on a full disk: every write to it reports the same error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import pytest

from runner.errors import DiskFullError
from runner.host.cache_dir import cache_dir, exclusive
from runner.host.whole_folder import make_whole_folder
from runner.scripts.logs import new_log_dir
from runner.scripts.run import Script, ScriptOptions, run_script
from tests.disks import small_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.engines.base import Session

NO_ROOM = "nr_inodes=1"
"""The options of a disk on which neither a file nor a folder can be created."""


def take_lock() -> None:
    with exclusive(cache_dir() / "models"):
        pass


@pytest.mark.as_root
@pytest.mark.parametrize("use", [take_lock, new_log_dir])
def test_the_cache_is_on_a_full_disk(
    use: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "full", NO_ROOM) as full:
        monkeypatch.setenv("RUNNER_CACHE_DIR", str(full))
        with pytest.raises(DiskFullError, match=f"the disk that contains {full}.* is full") as caught:
            use()
    assert caught.value.exit_code == 6
    assert "RUNNER_CACHE_DIR" in (caught.value.tip or "")


def make_folder(full: Path) -> None:
    make_whole_folder(full / "home", lambda _: None, facts={}, find=lambda: None, step=contextlib.nullcontext)


def write_log(full: Path) -> None:
    options = ScriptOptions(log_dir=full / "logs")
    script = Script(name="true", argv=("true",), log_name="true.log", options=options)
    run_script(cast("Session", None), script)  # it is not reached: the log is opened first


@pytest.mark.as_root
@pytest.mark.parametrize("write", [make_folder, write_log])
def test_a_folder_of_the_cache_is_on_a_full_disk(write: Callable[[Path], None], tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "full", NO_ROOM) as full,
        pytest.raises(DiskFullError, match=f"the disk that contains {full}.* is full"),
    ):
        write(full)
