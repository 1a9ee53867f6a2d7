"""Choose the speed-ups of ``docker/server/speedups.py`` for an export.

Speed-ups do not change the final file, so all are used by default. The variable RUNNER_SPEEDUPS selects some.
"""

from __future__ import annotations

import os
from typing import Final

from runner.errors import UsageError

VARIABLE: Final = "RUNNER_SPEEDUPS"
NONE: Final = "none"
NO_GRAPH_TEXT: Final = "no-graph-text"
SPEEDUPS: Final = (
    "late-imports",
    "plain-distutils",
    "contrib-by-parts",
    NO_GRAPH_TEXT,
    "no-restore-optimizer",
    "remembered-signatures",
    "no-garbage-collection",
)


def chosen_speedups() -> tuple[str, ...]:
    """Return the speed-ups in RUNNER_SPEEDUPS, a comma-separated list, or all if it is not set.

    Raises:
        UsageError: a speed-up is unknown.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return SPEEDUPS
    names = [] if chosen == NONE else [name for name in chosen.split(",") if name]
    for name in names:
        if name not in SPEEDUPS:
            raise UsageError(
                f"{VARIABLE}: there is no speed-up {name!r}",
                tip=f"use {NONE}, or some of {','.join(SPEEDUPS)}",
            )
    return tuple(name for name in SPEEDUPS if name in names)


def usable_speedups(names: tuple[str, ...], *, keep_pbtxt: bool) -> tuple[str, ...]:
    """Return the speed-ups that can be used; ``no-graph-text`` cannot if the graph is kept as text."""
    return tuple(name for name in names if not (keep_pbtxt and name == NO_GRAPH_TEXT))


def speedups_env(names: tuple[str, ...]) -> dict[str, str]:
    """Return the environment variables that make the toolchain apply exactly these speed-ups."""
    return {VARIABLE: ",".join(names) or NONE}
