"""Build the local environment with the real code, from a project that is small enough to build often."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.engines.local.interpreter import find_interpreter
from runner.engines.local.plan import EnvironmentPlan
from runner.engines.local.store import environments_dir, find_environment, obtain_environment
from runner.errors import BuildError, IntegrityError
from runner.toolchain.models_source import ModelsSource
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine("local")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPTS = ("models_research.py", "models-research.pth", "requirements-sdist.lock")
TREE = {
    "research/object_detection/__init__.py": "WHERE = __file__\n",
    "research/slim/nets.py": "WHERE = __file__\n",
}
SMOKE_TEST = "import gast, nets, object_detection, six\nprint('all of it is there')\n"

BUILD_IN_A_PROCESS_OF_ITS_OWN = f"""
import sys
from pathlib import Path
from runner import console
from runner.engines.local.store import obtain_environment
console.print_messages()
sys.path.insert(0, str(Path({__file__!r}).parent))
from test_local_environment import plan_for
print(obtain_environment(plan_for(Path(sys.argv[1]))))
"""


def make_project(root: Path) -> Path:
    """Make a project with three small wheels, gast's sdist, and a models tree of two files."""
    docker_dir = root / "docker"
    (docker_dir / "manifests").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(PROJECT_ROOT / "docker" / name, docker_dir)
    lock = (PROJECT_ROOT / "docker/requirements.lock").read_text()
    small = [locked(lock, name) for name in ("setuptools", "six", "wheel")]
    (docker_dir / "requirements.lock").write_text("".join(small))
    (docker_dir / "requirements-protoc.lock").write_text(locked(lock, "six"))
    (docker_dir / "smoke_test.py").write_text(SMOKE_TEST)
    (docker_dir / "manifests/tiny.manifest").write_text(
        "".join(f"{blob_id(text)}  {name}\n" for name, text in TREE.items())
    )
    (root / "models-research-pin.txt").write_text(
        f"[github]\ncommit = {COMMIT}\nmanifest = docker/manifests/tiny.manifest\n"
    )
    for name, text in TREE.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_text(text)
    return root


def locked(lock: str, project: str) -> str:
    """Return the entry of one project in a lock file."""
    match = re.search(rf"^{project}==.*\n(?:    --hash.*\n)+", lock, re.MULTILINE)
    assert match is not None
    return match.group().rstrip().rstrip("\\") + "\n"


def blob_id(text: str) -> str:
    content = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def plan_for(root: Path) -> EnvironmentPlan:
    return EnvironmentPlan(
        interpreter=find_interpreter(),
        source=ModelsSource(kind="local", path=root / "tree"),
        models_commit=COMMIT,
        root=root,
    )


def start_build(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_IN_A_PROCESS_OF_ITS_OWN, str(root)],
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def says(folder: Path, program: str) -> str:
    """Return the output of a program in this environment."""
    finished = subprocess.run(
        [folder / "bin/python", "-I", "-c", program], capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of running processes that name a folder."""
    found = []
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command_line.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words and str(os.getpid()) != command_line.parent.name:
            found.append(words)
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("environments") / "a cache, ü"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNNER_CACHE_DIR", str(folder))
        yield folder


@dataclass(frozen=True, kw_only=True)
class Built:
    """An environment that was built by a user with conflicting settings."""

    project: Path
    folder: Path
    leak: Path
    took_s: float


@pytest.fixture(scope="module")
def built(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:  # noqa: ARG001 - sets the variable
    project, leak = make_project(tmp_path_factory.mktemp("built")), tmp_path_factory.mktemp("leak")
    (leak / "six.py").write_text("raise SystemExit('a module of the user was imported')\n")
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX"):
            patch.setenv(name, str(leak))
        patch.setenv("PYTHONHOME", "/nowhere")
        patch.setenv("PIP_USER", "1")
        folder = obtain_environment(plan_for(project))
    return Built(project=project, folder=folder, leak=leak, took_s=time.monotonic() - started)


@pytest.fixture
def project(tmp_path: Path, cache: Path) -> Iterator[Path]:
    """A separate project, and therefore a separate environment."""
    made = make_project(tmp_path / "project")
    pin = made / "models-research-pin.txt"
    pin.write_text(f"{pin.read_text()}# {tmp_path}\n")
    yield made
    shutil.rmtree(cache / "environments" / plan_for(made).key, ignore_errors=True)


def test_wheels_sdist_and_tree_are_there(built: Built) -> None:
    assert says(built.folder, SMOKE_TEST) == "all of it is there"
    assert says(built.folder, "import object_detection; print(object_detection.WHERE)") == str(
        built.folder / "models/research/object_detection/__init__.py"
    )
    assert list((built.folder / "models/research/object_detection/__pycache__").iterdir()) != []


def test_the_environment_of_the_user_does_not_leak_into_it(built: Built) -> None:
    assert [path.name for path in built.leak.iterdir()] == ["six.py"]
    assert (built.folder / "lib/python3.7/site-packages/six.py").is_file()
    assert (built.folder / "lib/python3.7/site-packages/gast").is_dir()


def test_it_is_built_once(built: Built) -> None:
    marker = built.folder.parent / "whole.json"
    before = marker.stat().st_ino
    assert obtain_environment(plan_for(built.project)) == built.folder
    assert marker.stat().st_ino == before


def test_the_marker_says_what_the_environment_is_made_of(built: Built) -> None:
    marker = json.loads((built.folder.parent / "whole.json").read_text())
    assert (marker["models_source"], marker["models_commit"]) == ("local", COMMIT)
    assert marker["interpreter"] == str(find_interpreter().path)


def test_two_first_runs_at_once_share_one_build(project: Path) -> None:
    builds = [start_build(project), start_build(project)]
    outputs = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0, 0]
    folders = {stdout.strip() for stdout, _ in outputs}
    assert folders == {str(find_environment(plan_for(project)))}
    assert sorted("-> install the locked wheels" in stderr for _, stderr in outputs) == [False, True]


def test_a_wheel_that_is_not_the_locked_one_is_an_integrity_error(project: Path) -> None:
    lock = project / "docker/requirements.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", lock.read_text()))
    plan = plan_for(project)
    with pytest.raises(IntegrityError, match="the environment was not built") as caught:
        obtain_environment(plan)
    assert caught.value.exit_code == 7
    assert find_environment(plan) is None


def test_a_models_file_that_is_not_the_pinned_one_is_named(project: Path) -> None:
    (project / "tree/research/slim/nets.py").write_text("import os\n")
    plan = plan_for(project)
    with pytest.raises(IntegrityError, match=r"research/slim/nets\.py"):
        obtain_environment(plan)
    assert find_environment(plan) is None


def test_a_smoke_test_that_fails_leaves_no_environment(project: Path) -> None:
    (project / "docker/smoke_test.py").write_text("raise SystemExit('smoke test: something is missing')\n")
    plan = plan_for(project)
    with pytest.raises(BuildError, match=r"smoke_test\.py ended with code 1") as caught:
        obtain_environment(plan)
    assert caught.value.exit_code == 4
    assert "smoke test: something is missing" in caught.value.last_lines
    assert find_environment(plan) is None


def test_an_interrupted_build_leaves_nothing_running(project: Path) -> None:
    plan = plan_for(project)
    build = start_build(project)
    assert build.stderr is not None
    next(line for line in build.stderr if "install the locked wheels" in line)
    build.send_signal(signal.SIGINT)
    build.communicate()
    assert processes_in(environments_dir() / plan.key) == []
    assert find_environment(plan) is None


def killed_at_a_random_moment(project: Path, longest_s: float, seed: int) -> None:
    """Kill a build. It leaves nothing or a complete environment, and the next run completes it."""
    plan = plan_for(project)
    build = start_build(project)
    time.sleep(random.Random(seed).uniform(0.0, longest_s))
    build.kill()
    build.communicate()
    left = find_environment(plan)
    assert left is None or says(left, SMOKE_TEST) == "all of it is there"
    left_over = environments_dir() / plan.key / "attempt-left-over"
    (left_over / "bin").mkdir(parents=True)
    whole = obtain_environment(plan)
    assert says(whole, SMOKE_TEST) == "all of it is there"
    assert left == whole if left is not None else not left_over.exists()


@pytest.mark.parametrize("seed", [0, *(pytest.param(it, marks=pytest.mark.slow) for it in (1, 2))])
def test_a_build_killed_at_a_random_moment_is_never_taken_for_whole(
    project: Path, built: Built, seed: int
) -> None:
    killed_at_a_random_moment(project, built.took_s, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 10))
def test_more_builds_killed_at_random_moments(project: Path, built: Built, seed: int) -> None:
    killed_at_a_random_moment(project, built.took_s, seed)
