"""`exec` and `shell`: what is refused before anything is created."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.engines.exec import attach
from runner.engines.local.engine import LocalEngine
from runner.errors import UsageError
from runner.host import mounts

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = LocalEngine()
"""It is not reached."""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "around" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    return folder


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("out", ["around/model/x/y", "around/model", "around", "link/x"])
def test_an_output_directory_in_or_around_the_model_is_refused_and_not_made(
    model_dir: Path, tmp_path: Path, out: str
) -> None:
    before = everything_in(tmp_path)
    with pytest.raises(UsageError, match="overlap"):
        attach(ENGINE, ("true",), model_dir=model_dir, out_dir=tmp_path / out)
    assert everything_in(tmp_path) == before


def test_an_output_directory_of_the_system_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "SYSTEM_FOLDERS", (tmp_path / "system",))
    with pytest.raises(UsageError, match="system/out cannot be mounted"):
        attach(ENGINE, ("true",), model_dir=None, out_dir=tmp_path / "system" / "out")
    assert everything_in(tmp_path) == []


def test_a_model_directory_that_is_not_there_leaves_no_output_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        attach(ENGINE, ("true",), model_dir=tmp_path / "model", out_dir=tmp_path / "out")
    assert everything_in(tmp_path) == []
