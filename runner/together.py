"""Do the same for several variants at the same time, in one session."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

from runner import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.engines.base import Session

_Result = TypeVar("_Result")


def run_together(
    session: Session, work: Callable[[str], _Result], names: Iterable[str]
) -> tuple[_Result, ...]:
    """Run ``work`` for each name in a thread of its own and return the results in that order.

    One that fails does not end the others. An interrupt does: their jobs are killed.

    Raises:
        RunnerError: what one failed with; of several, the first in the order of the names.
    """
    names = tuple(names)
    with ThreadPoolExecutor(max_workers=len(names)) as executor:
        futures = [executor.submit(work, name) for name in names]
        try:
            for future in as_completed(futures):
                future.exception()
        except BaseException:
            session.stop()  # else the executor would wait for its jobs
            raise
    failed = [(name, it.exception()) for name, it in zip(names, futures, strict=True) if it.exception()]
    for name, problem in failed[1:]:
        console.warn(f"{name} failed as well: {problem}")
    return tuple(future.result() for future in futures)
