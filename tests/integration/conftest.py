"""Fixtures for the real toolchain, per requested engine: a stand-in, a session, and a conversion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from runner.convert.stand_in import make_stand_in
from runner.engines.base import Folders
from runner.engines.choose import engine_named
from runner.host.cache_dir import cache_dir
from runner.recipes.recipe import Recipe, load_recipe
from runner.scripts.run import ScriptOptions
from runner.toolchain.pins import PROJECT_ROOT
from tests.conftest import ENGINE_OPTIONS, engine_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.engines.base import Engine, Session

    MadeOnce = Callable[[str, Callable[[Path], None]], Path]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_name" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("engine")
        names = only.args if only else engine_names(metafunc.config)
        if metafunc.definition.get_closest_marker("any_engine"):
            names = names[:1]
        metafunc.parametrize("engine_name", names, scope="session")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a run of the program ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command printed
        return json.loads(self.stdout)


@dataclass(frozen=True, kw_only=True)
class Program:
    """``python -m runner`` as a user starts it, with one engine."""

    engine_name: str

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "runner", *map(str, arguments)],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or PROJECT_ROOT,
            env={
                **os.environ,
                "RUNNER_ENGINE": self.engine_name,
                "PYTHONPATH": str(PROJECT_ROOT),
                "RUNNER_CACHE_MIB": "0",  # what a test starts is to be done, not remembered
                **(env or {}),
            },
        )
        return Finished(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_recipe()


@pytest.fixture(scope="session")
def engine(engine_name: str) -> Engine:
    made = engine_named(engine_name, ENGINE_OPTIONS)
    made.prepare()
    return made


@pytest.fixture(scope="session")
def program(engine: Engine) -> Program:
    return Program(engine_name=engine.name)


@pytest.fixture(scope="session")
def made_once(engine_name: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that fills a folder in one worker of pytest-xdist, for all workers.

    No test may change what is in such a folder.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder = shared / f"{name}-{engine_name}"
        done = folder.with_suffix(".done")
        with FileLock(folder.with_suffix(".lock")):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def stand_in_dir(
    engine: Engine,
    recipe: Recipe,
    made_once: MadeOnce,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A copy of the stand-in that `demo` uses, in the layout of the zoo's archive: fp32/, uint8/."""
    options = ScriptOptions(log_dir=tmp_path_factory.mktemp("stand-in-logs"))

    def fill(model_dir: Path) -> None:
        cached = make_stand_in(engine, recipe, seed=0, options=options)
        shutil.copytree(cached, model_dir, dirs_exist_ok=True)

    return made_once("stand-in", fill)


@pytest.fixture(scope="session")
def workspace(engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only folder that the shared session may write to; each engine has its own."""
    return tmp_path_factory.mktemp(f"workspace-{engine_name}")


@pytest.fixture(scope="session")
def session(engine: Engine, recipe: Recipe, stand_in_dir: Path, workspace: Path) -> Iterator[Session]:
    """A session that can read the stand-in and the recipe and can write to the workspace."""
    assert recipe.data_dir is not None
    folders = Folders(read_only=(stand_in_dir, recipe.data_dir), writable=(workspace,))
    with engine.open(folders, {}) as opened:
        yield opened


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled images that `samples` drew."""

    folder: Path

    @property
    def annotations(self) -> Path:
        return self.folder / "annotations.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def content(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = json.loads(self.annotations.read_text("utf-8"))
        return content


@pytest.fixture(scope="session")
def draw_samples(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Samples]:
    def draw(count: int, *, seed: int = 0) -> Samples:
        folder = tmp_path_factory.mktemp("drawn") / "samples"
        done = program("samples", folder, "--count", str(count), "--seed", str(seed))
        assert done.exit_code == 0, done.stderr
        return Samples(folder=folder)

    return draw


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a step."""

    exit_code: int
    value: Mapping[str, Any]

    @property
    def refusal(self) -> str:
        assert self.exit_code == 2, self.value
        return f"{self.value['error']}\n{self.value['tip']}"


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps in one session, and a folder that they can write to."""

    session: Session
    folder: Path

    def run(self, name: str, *arguments: str | Path) -> Answer:
        step = self.session.toolchain_dir / "steps" / name
        done = self.session.run(str(step), *map(str, arguments))
        assert done.stdout, done.stderr[-20:]
        return Answer(exit_code=done.exit_code, value=json.loads("\n".join(done.stdout)))

    def check_config(self, config: str, *flags: str) -> Answer:
        source = self.folder / "asked.config"
        source.write_text(config)
        return self.run(
            "pipeline_config.py", "--input", source, "--output", self.folder / "copy.config", *flags
        )


@pytest.fixture
def steps(session: Session, workspace: Path) -> Steps:
    folder = workspace / "steps"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Steps(session=session, folder=folder)


@pytest.fixture(scope="module")
def empty_cache(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the existing toolchain, but without conversions and templates."""
    folder = tmp_path_factory.mktemp(f"cache-{engine.name}")
    for name in ("environments", "pythons"):
        (folder / name).symlink_to(cache_dir() / name)
    return folder


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The result of one ``build-all`` of the stand-in: its output directory and its JSON, by variant."""

    out_dir: Path
    results: Mapping[str, Mapping[str, Any]]
    stderr: str


@pytest.fixture(scope="session")
def converted(program: Program, stand_in_dir: Path, made_once: MadeOnce) -> Converted:
    def fill(folder: Path) -> None:
        done = program("build-all", "--model-dir", stand_in_dir, "--out", folder / "out", "--json")
        assert done.exit_code == 0, done.stderr
        (folder / "results.json").write_text(done.stdout)
        (folder / "stderr.txt").write_text(done.stderr)

    folder = made_once("converted", fill)
    results = {result["variant"]: result for result in json.loads((folder / "results.json").read_text())}
    return Converted(out_dir=folder / "out", results=results, stderr=(folder / "stderr.txt").read_text())
