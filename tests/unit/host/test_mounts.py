"""Which host folders the toolchain may access."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.host.mounts import check_apart, link_targets, mountable


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/lib", "/proc/self", "~", "/tmp"])
def test_system_folders_and_whole_homes_are_not_shown(folder: str) -> None:
    with pytest.raises(UsageError, match="cannot be mounted"):
        mountable(Path(folder))


def test_link_to_a_system_folder_is_not_shown_either(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(UsageError, match="/etc cannot be mounted"):
        mountable(tmp_path / "link")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        mountable(tmp_path / "file")
    with pytest.raises(UsageError, match="does not exist"):
        mountable(tmp_path / "none")


@pytest.mark.parametrize(("out", "model"), [("m", "m"), ("m/fp32/out", "m"), (".", "m"), ("link/out", "m")])
def test_output_and_model_must_be_apart(tmp_path: Path, out: str, model: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "m")
    with pytest.raises(UsageError, match="overlap"):
        check_apart(tmp_path / out, tmp_path / model)


def test_names_that_only_begin_alike_are_apart(tmp_path: Path) -> None:
    check_apart(tmp_path / "model-out", tmp_path / "model")


def test_only_links_out_of_a_shown_folder_need_more(tmp_path: Path) -> None:
    shown, elsewhere = tmp_path / "shown", tmp_path / "elsewhere"
    shown.mkdir()
    elsewhere.mkdir()
    for file in (shown / "own", elsewhere / "far"):
        file.touch()
    (shown / "inner").symlink_to("own")
    (shown / "outer").symlink_to("../elsewhere/far")
    assert link_targets([shown / "own", shown / "inner"], shown) == ()
    assert link_targets([shown / "own", shown / "outer"], shown) == (elsewhere / "far",)
