"""Rebuild MLPerf Mobile's MobileDet .tflite files from their TF1 checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import errors
from runner.host.version import __version__

if TYPE_CHECKING:
    from runner.api.runner import Runner
else:  # hidden from type checkers: a module with `__getattr__` seems to have every attribute

    def __getattr__(name: str) -> object:
        """Import the Python API on first use, so that `import runner` takes almost no time."""
        if name == "Runner":
            from runner.api.runner import Runner

            return Runner
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Runner", "__version__", "errors"]
