"""Keep one session of an engine open, and reuse it for every call whose folders the session can access."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runner.engines.base import Folders, Job, Preload
from runner.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path, PurePosixPath

    from runner.engines.base import Availability, Engine, JobResult, Session, Stream, Toolchain

NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})


class PersistentEngine:
    """An engine whose session is opened when it is first needed and stays open until `close`.

    ``folders`` are the folders that the kept session can access. A call that needs other folders gets a new
    session. If the engine is not isolated, the kept session can access all folders and serves all calls.
    Not thread-safe.
    """

    def __init__(self, engine: Engine, folders: Folders) -> None:
        self.name = engine.name
        self.is_isolated = engine.is_isolated
        self._engine = engine
        self._folders = folders
        self._session: Session | None = None
        self._end = contextlib.ExitStack()
        self._others: dict[str, PersistentEngine] = {}

    def with_toolchain(self, name: str) -> PersistentEngine:
        """Return the same engine for another toolchain, with its own kept session.

        Raises:
            UsageError: there is no toolchain with this name.
        """
        return self._other(f"toolchain {name}", lambda: self._engine.with_toolchain(name))

    def with_models_commit(self, commit: str) -> PersistentEngine:
        """Return the same engine with this commit of tensorflow/models, with its own kept session."""
        return self._other(f"models {commit}", lambda: self._engine.with_models_commit(commit))

    def _other(self, key: str, make: Callable[[], Engine]) -> PersistentEngine:
        if key not in self._others:
            self._others[key] = type(self)(make(), self._folders)
        return self._others[key]

    def availability(self) -> Availability:
        """Return whether the engine can run here."""
        return self._engine.availability()

    def is_built(self) -> bool:
        """Return whether the toolchain exists here."""
        return self._engine.is_built()

    def prepare(self) -> Toolchain:
        """Find the toolchain or build it, once."""
        return self._toolchain

    @cached_property
    def _toolchain(self) -> Toolchain:
        return self._engine.prepare()

    @contextlib.contextmanager
    def open(
        self, folders: Folders, env: Mapping[str, str], *, preload: Preload = Preload.DETECTION_API
    ) -> Iterator[Session]:
        """Yield the kept session if it can access these folders, otherwise a new one for this call.

        The kept session ignores ``preload`` and imports everything that any call may need. After an error,
        the kept session is closed, because it may have caused the error. The next call starts a new one.
        """
        if not self._can_see(folders):
            with self._engine.open(folders, env, preload=preload) as session:
                yield session
            return
        try:
            yield _WithVariables(self._kept(), env)
        except BaseException:
            self.close()
            raise

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        """Run a command on the caller's own terminal or pipes, in a separate session."""
        return self._engine.attach(argv, folders, env)

    def close(self) -> None:
        """Close the kept session, if one is open, and those of the engines derived from this engine."""
        for other in self._others.values():
            other.close()
        self._session = None
        self._end.close()

    def _kept(self) -> Session:
        if self._session is None:
            self._session = self._end.enter_context(self._engine.open(self._folders, NO_VARIABLES))
        return self._session

    def _can_see(self, folders: Folders) -> bool:
        mine = self._folders
        return not self.is_isolated or (
            _are_within(folders.read_only, (*mine.read_only, *mine.writable))
            and _are_within(folders.writable, mine.writable)
        )


class SharedEngine(PersistentEngine):
    """A `PersistentEngine` whose `open` and `stop` several threads can call: they share the kept session.

    An error in one thread closes the kept session only if it is an `EngineError`, which means that the
    session died. The next call then starts a new one.
    """

    def __init__(self, engine: Engine, folders: Folders) -> None:
        super().__init__(engine, folders)
        self._lock = threading.RLock()
        self._is_stopped = False

    @contextlib.contextmanager
    def open(
        self, folders: Folders, env: Mapping[str, str], *, preload: Preload = Preload.DETECTION_API
    ) -> Iterator[Session]:
        """Yield the kept session if it can access these folders, otherwise a new one for this call."""
        if not self._can_see(folders):
            with self._engine.open(folders, env, preload=preload) as session:
                yield session
            return
        with self._lock:
            if self._is_stopped:
                raise EngineError("the toolchain was stopped")
            kept = self._kept()
        try:
            yield _WithVariables(kept, env)
        except EngineError:
            with self._lock:
                if self._session is kept:
                    self.close()
            raise

    def stop(self) -> None:
        """Kill all jobs in the kept session, and refuse to yield this session again."""
        with self._lock:
            self._is_stopped = True
            if self._session is not None:
                self._session.stop()


def _are_within(paths: Iterable[Path], folders: tuple[Path, ...]) -> bool:
    return all(any(path.is_relative_to(folder) for folder in folders) for path in paths)


class _WithVariables:
    """A session that adds environment variables to each of its jobs."""

    def __init__(self, session: Session, env: Mapping[str, str]) -> None:
        self._session = session
        self._env = env

    @property
    def toolchain_dir(self) -> PurePosixPath:
        return self._session.toolchain_dir

    def wait_until_ready(self) -> None:
        self._session.wait_until_ready()

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:
        return self._session.run_job(replace(job, env={**self._env, **job.env}), on_line)

    def run(self, *argv: str) -> JobResult:
        return self.run_job(Job(argv=argv))

    def stop(self) -> None:
        self._session.stop()
