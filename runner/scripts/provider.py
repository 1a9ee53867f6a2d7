"""Provide an engine and script options on demand, for work that may turn out not to need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.engines.base import Engine
    from runner.scripts.run import ScriptOptions


@dataclass(frozen=True, kw_only=True)
class ToolchainProvider:
    """Functions that return an engine and the options of its scripts. Call them only when a script is to run.

    Choosing an engine may contact a Docker daemon, and the options come with a new folder for logs.
    """

    engine: Callable[[], Engine]
    options: Callable[[], ScriptOptions]
