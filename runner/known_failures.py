"""What the toolchain's scripts print when they fail in a known way: pattern, cause, remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import re


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """One way to fail: ``pattern`` is searched in each line, ``thread`` is where users report it."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    thread: str


KNOWN_FAILURES: Final[tuple[KnownFailure, ...]] = ()


def explain_failure(lines: tuple[str, ...]) -> KnownFailure | None:
    """Return the first known failure that these lines show, in the order of the table."""
    for failure in KNOWN_FAILURES:
        if any(failure.pattern.search(line) for line in lines):
            return failure
    return None
