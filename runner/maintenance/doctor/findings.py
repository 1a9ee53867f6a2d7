"""The question, the findings and the report of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from runner.engines.choose import AUTO

if TYPE_CHECKING:
    from runner.errors import RunnerError


class State(Enum):
    """The severity of a finding."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    ``engine`` is the engine that the finding concerns, or None for both. A finding that is
    ``only_for_building`` is ignored once the toolchain is built.
    """

    subject: str
    state: State = State.GOOD
    text: str
    remedy: str | None = None
    engine: str | None = None
    only_for_building: bool = False

    def __str__(self) -> str:
        line = f"{self.state.value:8} {self.subject}: {self.text}"
        return line if self.remedy is None else f"{line}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The engine to check for, and the options for building its toolchain."""

    engine: str = AUTO
    base_image: str | None = None
    models: str = "auto"
    python: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The report of ``doctor``. ``first_to_do`` is None if ``engine`` is ready."""

    engine: str
    is_built: bool
    findings: tuple[Finding, ...]
    first_to_do: str | None

    @property
    def verdict(self) -> str:
        """The last line of the report: that the machine is ready, or the first thing to do."""
        if self.first_to_do is not None:
            return f"not ready: {self.first_to_do}"
        when = (
            "its toolchain is built"
            if self.is_built
            else "the first run builds its toolchain, which takes minutes"
        )
        return f"ready: engine {self.engine}, {when}"


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """The results of checking one engine."""

    findings: tuple[Finding, ...]
    can_run: bool
    is_built: bool = False


def refused(subject: str, problem: RunnerError) -> Finding:
    """Turn a RunnerError into a finding."""
    return Finding(subject=subject, state=State.PROBLEM, text=problem.message, remedy=problem.tip)
