"""The speed-ups of an export: both sides have the same list, and a job gets those that it requests."""

from __future__ import annotations

import runpy
import shutil
from typing import TYPE_CHECKING

import pytest

from runner.convert.speedups import (
    NO_GRAPH_TEXT,
    SPEEDUPS,
    VARIABLE,
    chosen_speedups,
    speedups_env,
    usable_speedups,
)
from runner.errors import UsageError
from tests.locations import DOCKER_DIR
from tests.unit.docker.server.test_server import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAYS_IF_GARBAGE_IS_COLLECTED = "import gc\nprint(gc.isenabled())\n"


@pytest.fixture
def toolchain(tmp_path: Path) -> Path:
    """A copy of the toolchain's scripts with an additional test script."""
    copy = tmp_path / "toolchain"
    shutil.copytree(DOCKER_DIR, copy, ignore=shutil.ignore_patterns("__pycache__", "manifests"))
    (copy / "steps/garbage.py").write_text(SAYS_IF_GARBAGE_IS_COLLECTED)
    return copy


@pytest.fixture
def client(toolchain: Path) -> Iterator[Client]:
    client = Client(toolchain=toolchain)
    with client.process:
        client.wait_for(event="ready")
        yield client
        client.process.kill()


def test_host_and_toolchain_know_the_same_speedups() -> None:
    known = runpy.run_path(str(DOCKER_DIR / "server" / "speedups.py"))
    assert {*known["OF_SERVER"], *known["OF_JOB"]} == set(SPEEDUPS)
    assert known["VARIABLE"] == VARIABLE


def test_all_are_on_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_speedups() == SPEEDUPS


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("none", ()),
        ("", ()),
        ("no-graph-text", ("no-graph-text",)),
        ("remembered-signatures,late-imports", ("late-imports", "remembered-signatures")),
    ],
)
def test_the_variable_names_those_that_are_on(
    monkeypatch: pytest.MonkeyPatch, value: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert chosen_speedups() == names


def test_an_unknown_name_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "no-graph-text,no-such-thing")
    with pytest.raises(UsageError, match="no-such-thing"):
        chosen_speedups()


@pytest.mark.parametrize("keep_pbtxt", [False, True])
def test_the_text_that_is_to_be_kept_is_written(keep_pbtxt: bool) -> None:
    assert (NO_GRAPH_TEXT in usable_speedups(SPEEDUPS, keep_pbtxt=keep_pbtxt)) is not keep_pbtxt


def test_a_job_has_the_speedups_it_asks_for(client: Client, toolchain: Path) -> None:
    script = str(toolchain / "steps/garbage.py")
    assert client.run(script, env=speedups_env(("no-garbage-collection",)))[0] == [("stdout", "False")]


def test_a_job_that_asks_for_none_has_none(client: Client, toolchain: Path) -> None:
    script = str(toolchain / "steps/garbage.py")
    for env in ({}, speedups_env(()), speedups_env(("late-imports",))):
        assert client.run(script, env=env)[0] == [("stdout", "True")]


def test_a_job_that_asks_for_an_unknown_one_fails(client: Client, toolchain: Path) -> None:
    lines, end = client.run(str(toolchain / "steps/garbage.py"), env={VARIABLE: "no-such-thing"})
    assert end["exit_code"] == 1
    assert "no-such-thing" in lines[-1][1]


def test_a_server_with_an_unknown_one_fails_at_its_start(
    toolchain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "no-such-thing")
    client = Client("--preload", "colorsys", toolchain=toolchain)
    _, stderr = client.process.communicate(timeout=30)
    assert client.process.returncode == 1
    assert b"no-such-thing" in stderr


def test_a_late_module_is_imported_when_it_is_first_used(
    toolchain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = toolchain / "library" / "object_detection"
    for name in ("utils/visualization_utils", "matchers/hungarian_matcher"):
        file = library / f"{name}.py"
        file.parent.mkdir(parents=True)
        file.write_text("print('imported')\ndef draw(): print('drawn')\n")
    for folder in (library, library / "utils", library / "matchers"):
        (folder / "__init__.py").write_text("")
    (toolchain / "steps/draw.py").write_text(
        "from object_detection.utils import visualization_utils\n"
        "import object_detection.utils.visualization_utils as again\n"
        "print('not yet')\nagain.draw()\nvisualization_utils.draw()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(library.parent))
    client = Client("--preload", "colorsys", toolchain=toolchain)
    with client.process:
        client.wait_for(event="ready")
        lines, _ = client.run(str(toolchain / "steps/draw.py"))
        client.process.kill()
    assert [text for _, text in lines] == ["not yet", "imported", "drawn", "drawn"]


def test_contrib_is_a_folder_whose_packages_are_imported_one_by_one(
    toolchain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = toolchain / "library"
    contrib = library / "tensorflow_core" / "contrib"
    (library / "tensorflow").mkdir(parents=True)
    contrib.mkdir(parents=True)
    for folder in (library / "tensorflow", contrib.parent):
        (folder / "__init__.py").write_text("")
    (contrib / "__init__.py").write_text("raise SystemExit('all of it is imported')\n")
    (contrib / "quantize.py").write_text("NAME = 'quantize'\n")
    script = "from tensorflow.contrib import quantize\nprint(quantize.__name__, quantize.NAME)\n"
    (toolchain / "steps/rewrite.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(library))
    client = Client("--preload", "colorsys", toolchain=toolchain)
    with client.process:
        client.wait_for(event="ready")
        lines, _ = client.run(str(toolchain / "steps/rewrite.py"))
        client.process.kill()
    assert lines == [("stdout", "tensorflow.contrib.quantize quantize")]
