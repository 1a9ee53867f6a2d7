"""The source is chosen before the build: GitHub, unless it cannot be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.errors import BuildError, IntegrityError, UsageError
from runner.toolchain.models_source import (
    GITHUB,
    PYPI,
    ModelsSource,
    candidate_sources,
    choose_source,
    proven_tree,
    why_unreachable,
)
from runner.toolchain.pins import load_models_pin
from tests.unit.fixtures.small_project import TREE, reply_status, tarball

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Request, Serve
    from tests.unit.fixtures.small_project import Project

NOBODY = "http://127.0.0.1:9"
PIN = load_models_pin()


@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_answers_for_itself_is_reachable(serve: Serve, status: int) -> None:
    assert why_unreachable(serve(reply_status(status))) is None


@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_the_status_of_a_firewall_is_reported(serve: Serve, status: int) -> None:
    assert why_unreachable(serve(reply_status(status))) == f"HTTP status {status}"


def test_a_refused_connection_is_reported() -> None:
    assert "refused" in str(why_unreachable(NOBODY))


def test_a_login_page_instead_of_the_server_is_reported(serve: Serve) -> None:
    def send_to_itself(request: Request) -> None:
        request.send_response(302)
        request.send_header("Location", "/login")
        request.send_header("Content-Length", "0")
        request.end_headers()

    assert "redirects" in str(why_unreachable(serve(send_to_itself)))


def test_auto_takes_github_when_it_answers(
    project: Project, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    project.point_to(github=serve(reply_status(200)))
    assert choose_source("auto", load_models_pin(project.root)) == GITHUB
    assert capsys.readouterr().err == ""


def test_auto_reports_why_it_uses_pypi_and_what_that_changes(
    project: Project, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    project.point_to(github=serve(reply_status(403)))
    assert choose_source("auto", load_models_pin(project.root)) == PYPI
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "HTTP status 403" in warning
    assert "the .tflite is the same" in warning


def test_a_named_source_is_taken_whatever_can_be_reached(project: Project) -> None:
    project.point_to(github=NOBODY)
    pin = load_models_pin(project.root)
    assert choose_source("github", pin) == GITHUB
    assert choose_source("pypi", pin) == PYPI


def test_a_path_is_the_local_source(tmp_path: Path) -> None:
    assert candidate_sources(str(tmp_path), PIN) == (ModelsSource(kind="local", path=tmp_path),)


def test_a_commit_that_is_needed_chooses_the_source() -> None:
    assert candidate_sources("auto", PIN, commit=PIN.pypi.commit) == (PYPI,)
    assert candidate_sources("auto", PIN, commit=PIN.github.commit) == (GITHUB,)
    assert choose_source("auto", PIN, commit=PIN.pypi.commit) == PYPI  # without asking whether GitHub answers


def test_a_source_with_another_commit_is_a_usage_error(tmp_path: Path) -> None:
    for named in ("github", str(tmp_path)):
        with pytest.raises(UsageError, match=r"commit 3564634 .* is needed, and --models .* has 9d1a692"):
            candidate_sources(named, PIN, commit=PIN.pypi.commit)


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder") as raised:
        candidate_sources(str(tmp_path / "gone"), PIN)
    assert raised.value.tip is not None
    assert "auto, github, pypi" in raised.value.tip


def test_a_local_tarball_is_proven_on_the_host(project: Project, tmp_path: Path) -> None:
    packed = tmp_path / "models.tar.gz"
    packed.write_bytes(tarball(TREE))
    with proven_tree(packed, project.root) as tree:
        assert all((tree / name).read_bytes() == content for name, content in TREE.items())
    assert not tree.exists()


def test_a_local_tree_that_is_not_the_pinned_one_names_the_file(project: Project, tmp_path: Path) -> None:
    packed = tmp_path / "models.tar.gz"
    packed.write_bytes(tarball({**TREE, "research/slim/nets/mobilenet.py": b"# another net\n"}))
    with (
        pytest.raises(IntegrityError, match=r"research/slim/nets/mobilenet\.py: not the pinned file"),
        proven_tree(packed, project.root),
    ):
        pass


def test_a_tree_that_cannot_be_made_is_a_build_error(project: Project, tmp_path: Path) -> None:
    project.manifest.write_text("nonsense\n")
    with pytest.raises(BuildError, match=r"small\.manifest, line 1"), proven_tree(tmp_path, project.root):
        pass


def test_a_source_has_the_commit_of_its_section(project: Project) -> None:
    text = project.pin_file.read_text().replace("[pypi]\ncommit = c", "[pypi]\ncommit = d")
    project.pin_file.write_text(text)
    pin = load_models_pin(project.root)
    assert GITHUB.commit(pin) == pin.github.commit
    assert PYPI.commit(pin) == pin.pypi.commit
    assert pin.github.commit != pin.pypi.commit
