"""The parts of the toolchain's steps that need no TensorFlow, loaded as the toolchain loads them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

STEPS_DIR = Path(__file__).resolve().parents[3] / "docker" / "steps"


@pytest.fixture
def load_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(STEPS_DIR)
    return importlib.import_module
