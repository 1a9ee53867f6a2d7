"""One session for all folders that it can access, another for other folders, none after an error."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from runner.engines.base import Availability, Folders, Job, JobResult, Preload, Toolchain
from runner.engines.persistent import PersistentEngine, SharedEngine
from runner.errors import EngineError, ScriptError
from tests.unit.fixtures.conversion import ENDED_WELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.engines.base import Session, Stream

MODELS, BUILD, ELSEWHERE = Path("/data/models"), Path("/data/build"), Path("/elsewhere")


class RecordingSession:
    """A session that records its jobs."""

    toolchain_dir = PurePosixPath("/toolchain")

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def wait_until_ready(self) -> None:
        pass

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:  # noqa: ARG002
        self.jobs.append(job)
        return ENDED_WELL

    def run(self, *argv: str) -> JobResult:
        return self.run_job(Job(argv=argv))

    def stop(self) -> None:
        pass


class CountingEngine:
    """An engine that counts its calls."""

    name = "counting"

    def __init__(self, *, is_isolated: bool) -> None:
        self.is_isolated = is_isolated
        self.opened: list[Folders] = []
        self.open_now = 0
        self.prepared = 0

    def availability(self) -> Availability:
        return Availability(can_run=True, reason="it only counts")

    def with_toolchain(self, name: str) -> CountingEngine:
        del name
        return self

    def with_models_commit(self, commit: str) -> CountingEngine:
        del commit
        return self

    def is_built(self) -> bool:
        return True

    def prepare(self) -> Toolchain:
        self.prepared += 1
        return Toolchain(
            engine=self.name, id="1", digest="2", base="3", models_source="pypi", models_commit="4"
        )

    @contextlib.contextmanager
    def open(
        self,
        folders: Folders,
        env: Mapping[str, str],  # noqa: ARG002
        *,
        preload: Preload = Preload.DETECTION_API,  # noqa: ARG002
    ) -> Iterator[Session]:
        self.opened.append(folders)
        self.open_now += 1
        try:
            yield RecordingSession()
        finally:
            self.open_now -= 1

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        raise NotImplementedError


def use(kept: PersistentEngine, *, reads: Path, writes: Path) -> None:
    with kept.open(Folders(read_only=(reads,), writable=(writes,)), {}) as session:
        session.run("true")


def test_without_isolation_one_session_serves_every_call() -> None:
    engine = CountingEngine(is_isolated=False)
    kept = PersistentEngine(engine, Folders())
    use(kept, reads=MODELS / "one", writes=BUILD / "one")
    use(kept, reads=ELSEWHERE, writes=BUILD / "two")
    assert (len(engine.opened), engine.open_now) == (1, 1)
    kept.close()
    assert engine.open_now == 0


def test_nothing_is_opened_before_it_is_used() -> None:
    engine = CountingEngine(is_isolated=False)
    PersistentEngine(engine, Folders()).close()
    assert engine.opened == []


def test_a_container_serves_the_calls_within_its_folders() -> None:
    engine = CountingEngine(is_isolated=True)
    folders = Folders(read_only=(MODELS,), writable=(BUILD,))
    kept = PersistentEngine(engine, folders)
    use(kept, reads=MODELS / "one", writes=BUILD / "one")
    use(kept, reads=BUILD / "one", writes=BUILD / "two")
    assert engine.opened == [folders]


@pytest.mark.parametrize(
    ("reads", "writes"), [(ELSEWHERE, BUILD), (MODELS, MODELS / "out"), (MODELS, Path("/data/build2"))]
)
def test_a_call_outside_its_folders_gets_a_container_of_its_own(reads: Path, writes: Path) -> None:
    engine = CountingEngine(is_isolated=True)
    kept = PersistentEngine(engine, Folders(read_only=(MODELS,), writable=(BUILD,)))
    use(kept, reads=MODELS, writes=BUILD)
    use(kept, reads=reads, writes=writes)
    assert engine.opened[1:] == [Folders(read_only=(reads,), writable=(writes,))]
    assert engine.open_now == 1


def test_the_variables_of_a_call_reach_its_jobs_and_no_others() -> None:
    kept = PersistentEngine(CountingEngine(is_isolated=False), Folders())
    with kept.open(Folders(), {"TF_MODEL_DIR": "/model", "BOTH": "session"}) as session:
        session.run_job(Job(argv=("one",), env={"BOTH": "job"}))
    with kept.open(Folders(), {}) as session:
        session.run("two")
    real = kept._kept()
    assert isinstance(real, RecordingSession)
    assert [job.env for job in real.jobs] == [{"TF_MODEL_DIR": "/model", "BOTH": "job"}, {}]


def test_after_an_error_the_next_call_starts_anew() -> None:
    engine = CountingEngine(is_isolated=False)
    kept = PersistentEngine(engine, Folders())
    with pytest.raises(EngineError), kept.open(Folders(), {}):
        raise EngineError("it is gone")
    assert engine.open_now == 0
    use(kept, reads=MODELS, writes=BUILD)
    assert len(engine.opened) == 2


def test_the_toolchain_is_looked_for_once() -> None:
    engine = CountingEngine(is_isolated=False)
    kept = PersistentEngine(engine, Folders())
    assert kept.prepare() == kept.prepare()
    assert engine.prepared == 1


def test_a_shared_session_outlives_the_error_of_one_job_but_not_its_own() -> None:
    engine = CountingEngine(is_isolated=False)
    shared = SharedEngine(engine, Folders())
    with pytest.raises(ScriptError), shared.open(Folders(), {}):
        raise ScriptError("it failed", script_exit_code=1)
    use(shared, reads=MODELS, writes=BUILD)
    assert (len(engine.opened), engine.open_now) == (1, 1)
    with pytest.raises(EngineError), shared.open(Folders(), {}):
        raise EngineError("it is gone")
    assert engine.open_now == 0
    use(shared, reads=MODELS, writes=BUILD)
    assert len(engine.opened) == 2


def test_a_late_error_of_a_dead_session_leaves_its_successor() -> None:
    engine = CountingEngine(is_isolated=False)
    shared = SharedEngine(engine, Folders())
    first, second = shared.open(Folders(), {}), shared.open(Folders(), {})
    for use_of_it in (first, second):
        use_of_it.__enter__()
    died = EngineError("it is gone")
    assert not first.__exit__(EngineError, died, None)
    use(shared, reads=MODELS, writes=BUILD)
    assert not second.__exit__(EngineError, died, None)
    assert (len(engine.opened), engine.open_now) == (2, 1)


def test_a_stopped_shared_engine_opens_no_session_again() -> None:
    engine = CountingEngine(is_isolated=False)
    shared = SharedEngine(engine, Folders())
    use(shared, reads=MODELS, writes=BUILD)
    shared.stop()
    with pytest.raises(EngineError, match="was stopped"):
        use(shared, reads=MODELS, writes=BUILD)
    assert len(engine.opened) == 1
