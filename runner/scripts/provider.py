"""Provide an engine and script options on demand, for work that may not need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.engines.base import Engine
    from runner.scripts.run import ScriptOptions


@dataclass(frozen=True, kw_only=True)
class ToolchainProvider:
    """Functions that return an engine and script options. Call them only when a script is about to run.

    Choosing an engine may contact a Docker daemon, and creating the options creates a new log folder.
    """

    engine: Callable[[], Engine]
    options: Callable[[], ScriptOptions]
