"""Check the network access that building the toolchain and fetching a model need."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.checkpoint.fetch import archive_url
from runner.errors import RunnerError
from runner.maintenance.doctor.findings import Finding, Question, State
from runner.toolchain.models_source import GITHUB, PYPI, candidate_sources, why_unreachable
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.recipes.recipe import Recipe
    from runner.toolchain.pins import ModelsPin


PYPI_INDEX: Final = "https://pypi.org/simple"


def network_checks(question: Question, recipe: Recipe) -> tuple[Callable[[], Finding], ...]:
    """Return a check for the package index, one for the models tree and one for the model zoo."""
    pin = load_models_pin()
    index = os.environ.get("PIP_INDEX_URL") or PYPI_INDEX
    return (
        lambda: _index(f"{index.rstrip('/')}/{pin.pypi.project}/"),
        lambda: _models_source(question.models, pin),
        lambda: _zoo(archive_url(recipe)),
    )


def _index(url: str) -> Finding:
    reason = why_unreachable(url)
    if reason is None:
        return Finding(subject="PyPI", text="can be reached", only_for_building=True)
    return Finding(
        subject="PyPI",
        state=State.PROBLEM,
        text=f"cannot be reached ({reason})",
        remedy="set HTTPS_PROXY, or set PIP_INDEX_URL to a mirror; only building the toolchain needs it",
        only_for_building=True,
    )


def _models_source(models: str, pin: ModelsPin) -> Finding:
    try:
        sources = candidate_sources(models, pin)
    except RunnerError as problem:
        return Finding(
            subject="tensorflow/models", state=State.PROBLEM, text=problem.message, remedy=problem.tip
        )
    if GITHUB not in sources:
        text = f"from {sources[0].path or 'PyPI'}"
        return Finding(subject="tensorflow/models", text=text)
    reason = why_unreachable(pin.github.url)
    if reason is None:
        text = "GitHub can be reached"
        return Finding(subject="tensorflow/models", text=text)
    return Finding(
        subject="tensorflow/models",
        state=State.WARNING if PYPI in sources else State.PROBLEM,
        text=f"GitHub cannot be reached ({reason})",
        remedy="use `--models auto`, which takes a later commit from PyPI, or `--models PATH` for a checkout",
        only_for_building=True,
    )


def _zoo(url: str) -> Finding:
    reason = why_unreachable(url)
    if reason is None:
        return Finding(subject="model zoo", text="can be reached")
    return Finding(
        subject="model zoo",
        state=State.WARNING,
        text=f"cannot be reached ({reason})",
        remedy="use `--model-dir`, `fetch --url` or `demo` instead of downloading the published checkpoints",
    )
