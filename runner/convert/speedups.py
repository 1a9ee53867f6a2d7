"""Which of the speed-ups in ``docker/server/speedups.py`` an export runs with.

None of them changes a byte of the final file, so all are on; RUNNER_SPEEDUPS leaves some out.
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
    """Return the names that RUNNER_SPEEDUPS holds, commas between them; all where it is not set.

    Raises:
        UsageError: one of them is not known.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return SPEEDUPS
    names = [] if chosen == NONE else [name for name in chosen.split(",") if name]
    for name in names:
        if name not in SPEEDUPS:
            raise UsageError(
                f"{VARIABLE}: there is no speed-up {name!r}", tip=f"{NONE}, or some of {','.join(SPEEDUPS)}"
            )
    return tuple(name for name in SPEEDUPS if name in names)


def usable_speedups(names: tuple[str, ...], *, keep_pbtxt: bool) -> tuple[str, ...]:
    """Return those that leave all that is wanted of an export."""
    return tuple(name for name in names if not (keep_pbtxt and name == NO_GRAPH_TEXT))


def speedups_env(names: tuple[str, ...]) -> dict[str, str]:
    """Return the environment in which the toolchain applies exactly these."""
    return {VARIABLE: ",".join(names) or NONE}
